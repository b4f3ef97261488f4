/*
 * server/api/health.h - is it alive, is it ready, how is it: GET /healthz, /readyz, /metrics. They
 * answer from the first moment, also while the rest of the server still waits for its database.
 */
#ifndef SERVER_API_HEALTH_H
#define SERVER_API_HEALTH_H

#include "server/http/route.h"

extern const struct route HEALTH_ROUTES[];

#endif
