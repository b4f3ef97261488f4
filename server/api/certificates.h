/* server/api/certificates.h - /v1/certificates: issue one or many, search, one with its history, revoke. */
#ifndef SERVER_API_CERTIFICATES_H
#define SERVER_API_CERTIFICATES_H

#include "server/http/route.h"

extern const struct route CERTIFICATE_ROUTES[];

#endif
