/*
 * server/api/openapi.h - the description of the API (OpenAPI 3.1), server/api/openapi.json as it stands
 * in the tree, embedded when the program is built. A test holds it against the route tables.
 */
#ifndef SERVER_API_OPENAPI_H
#define SERVER_API_OPENAPI_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t OPENAPI_JSON[]; /* with a NUL behind it */
extern const size_t OPENAPI_JSON_BYTES;

#endif
