/* server/cli/broker_conf.h - docker/mosquitto.conf.in as it stands in the tree, embedded at build time. */
#ifndef SERVER_CLI_BROKER_CONF_H
#define SERVER_CLI_BROKER_CONF_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t BROKER_CONF[]; /* with a NUL behind it */
extern const size_t BROKER_CONF_BYTES;

#endif
