/* server/iotcore/profiles.h - what the operations on security profiles share. */
#ifndef SERVER_IOTCORE_PROFILES_H
#define SERVER_IOTCORE_PROFILES_H

#include "server/iotcore/op.h"

enum status profile_missing(struct err *err, const char *name);

#endif
