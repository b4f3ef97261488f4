/*
 * server/iot/prereg.h - certificates of profiles with `preregister` are known to IoT Core before they are
 * handed out: the answer waits until every target has them ACTIVE, but not for ever. After
 * IOT_PREREG_WAIT_MS it goes out all the same: the device is then let in when the outbox is done, or by
 * just-in-time registration, whichever is first. An answer is never refused for IoT Core's sake.
 */
#ifndef SERVER_IOT_PREREG_H
#define SERVER_IOT_PREREG_H

#include "db/iot.h"

#define IOT_PREREG_WAIT_MS 2000

struct iot_room;
struct iot_prereg;

MUST_USE enum status iot_prereg_start(struct iot_prereg **out, struct iot_room *room, struct err *err);
void iot_prereg_stop(struct iot_prereg *prereg); /* resumes all; NULL is welcome, below too */
void iot_prereg_free(struct iot_prereg *prereg);

/*
 * Holds something back until these certificates are ACTIVE in every target; then resume(arg) is called,
 * once, from a thread of this module. False: it is not held (too many are, or there is no target). Copies
 * the ids; does not block; any thread.
 */
bool iot_prereg_hold(struct iot_prereg *prereg, const struct db_iot_id *ids, size_t count,
	void (*resume)(void *arg), void *arg);

#endif
