/*
 * server/iot/mqtt.h - hears of knocking certificates over MQTT: mutual TLS with a certificate of our own
 * CA (profile `service`), persistent session under a fixed client id, QoS 1. An event is acknowledged once
 * it is committed. One server consumes for all (an advisory lock decides), or every one if the target's
 * broker shares subscriptions.
 */
#ifndef SERVER_IOT_MQTT_H
#define SERVER_IOT_MQTT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct iot_mqtt;
struct iot_site;

MUST_USE enum status iot_mqtt_start(struct iot_mqtt **out, struct iot_site *site, struct err *err);
/* NULL is welcome, below too. */
void iot_mqtt_stop(struct iot_mqtt *mqtt);
void iot_mqtt_free(struct iot_mqtt *mqtt);
/* For people: "connected", "elsewhere" (another server has it), or what is wrong; "" if there is none. */
void iot_mqtt_state(struct iot_mqtt *mqtt, char *out, size_t size);
/*
 * For how long nobody has listened (while another server does, none is wanted): since the connection's last
 * turn, which the library lets pass only while the broker answers its pings (every minute). -1: it never did.
 */
int64_t iot_mqtt_silent_ms(struct iot_mqtt *mqtt);

#endif
