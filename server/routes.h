/* server/routes.h - all tables of routes, for router_new(); and those that answer while it starts. */
#ifndef SERVER_ROUTES_H
#define SERVER_ROUTES_H

#include "server/http/route.h"

extern const struct route *const ROUTES[];
extern const struct route *const ROUTES_STARTING[];

#endif
