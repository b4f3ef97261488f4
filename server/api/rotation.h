/*
 * server/api/rotation.h - /v1/rotation: a device asks when, asks for a successor, confirms it
 * (invariant 13). A device that has reason to (a key that leaked) may rotate before its window.
 */
#ifndef SERVER_API_ROTATION_H
#define SERVER_API_ROTATION_H

#include "server/http/route.h"

extern const struct route ROTATION_ROUTES[];

#endif
