/*
 * server/iot/apply.h - brings a device in one target to what its plan says (server/iot/plan.h), in an
 * order that never lets in more than is wanted: what is taken away first, a policy before its certificate,
 * ACTIVE last. Every step may be repeated.
 */
#ifndef SERVER_IOT_APPLY_H
#define SERVER_IOT_APPLY_H

#include "db/device.h"
#include "server/iot/plan.h"
#include "server/iot/room.h"

struct iot_apply {
	struct iot_site *site;
	struct iot iot;
	const struct db_device *device; /* NULL: of no device */
	const char *applied;            /* iot_device.state before */
	const char *given;              /* thing groups that it was put into, one a line */
	const struct db_iot_certificate *certificates;
	const struct plan_fact *facts;
	size_t count;
	const struct plan *plan;

	/* Before each call: whether the lease still holds. */
	enum status (*go_on)(void *arg, struct err *err);
	void *arg;

	/* Out: what the target says now, IOT_STATUS_UNKNOWN where nothing was done; gone: it has it not. */
	enum iot_status status[IOT_PLAN_CERTIFICATES_MAX];
	bool gone[IOT_PLAN_CERTIFICATES_MAX];
};

/*
 * First what takes away, then the rest: two calls, so that of many devices none stays ACTIVE while another's
 * thing is tidied up. As iot_api.h says, and ERR_ARGUMENT iot_policy_missing, ERR_CONFLICT iot_lease_lost.
 */
MUST_USE enum status iot_apply_take_away(struct iot_apply *apply, struct err *err);
MUST_USE enum status iot_apply_rest(struct iot_apply *apply, struct err *err);

#endif
