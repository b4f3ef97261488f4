/* server/iot/iot_metrics.h - what Prometheus hears of IoT Core: the outbox, latencies, the clients. */
#ifndef SERVER_IOT_IOT_METRICS_H
#define SERVER_IOT_IOT_METRICS_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct iot_room;

/* From a device's knock to ACTIVE. Any thread. */
void iot_latency_observe(int64_t us);
/* room may be NULL or not started. Reads the database: when it is away, its gauges are left out. */
MUST_USE enum status iot_metrics_print(struct iot_room *room, struct buf *out, struct err *err);

#endif
