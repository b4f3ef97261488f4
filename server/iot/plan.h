/*
 * server/iot/plan.h - what IoT Core should say of a device and of each of its certificates, and what has
 * to be done about it: the design's table of states as a pure function, from rows to actions. Calls
 * nothing, knows no time but the one it is given.
 *
 * Never REVOKED unless our own row says revoked: that cannot be undone. What the target has never seen is
 * left alone unless its profile wants it registered beforehand.
 */
#ifndef SERVER_IOT_PLAN_H
#define SERVER_IOT_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "db/iot.h"
#include "server/iot/iot_api.h"

/* Certificates of one device at once: more are looked at when these are settled. */
#define IOT_PLAN_CERTIFICATES_MAX 32

enum plan_device { /* what our rows say */
	PLAN_DEVICE_UNSET = 0,
	PLAN_DEVICE_NONE, /* certificates without a device: of services, of strangers */
	PLAN_DEVICE_ACTIVE,
	PLAN_DEVICE_QUARANTINED,
	PLAN_DEVICE_DECOMMISSIONED,
};

enum plan_thing { /* what the target should have; in the order of iot_device.state */
	PLAN_THING_LEAVE = 0, /* nothing of it has been seen there: none of our business yet */
	PLAN_THING_ACTIVE,
	PLAN_THING_QUARANTINED,
	PLAN_THING_ABSENT,
};
const char *plan_thing_name(enum plan_thing thing); /* "active", "quarantined", "absent"; "" */

enum plan_policies {
	PLAN_POLICIES_LEAVE = 0,
	PLAN_POLICIES_PROFILE,    /* those of the profile, and not quarantine's */
	PLAN_POLICIES_QUARANTINE, /* that one alone */
	PLAN_POLICIES_NONE,
};

enum plan_odd { /* what somebody should know */
	PLAN_ODD_NONE = 0,
	PLAN_ODD_UNKNOWN,      /* of a CA of ours, but not in our books */
	PLAN_ODD_EXPIRED,
	PLAN_ODD_HELD,
	PLAN_ODD_REVOKED,      /* a revoked one knocks */
	PLAN_ODD_SUPERSEDED,
	PLAN_ODD_NOT_A_DEVICE, /* ours, but its profile has no business in IoT Core */
	PLAN_ODD_REVOKED_THERE, /* live here, REVOKED there: for good */
	PLAN_ODD_COUNT,
};
/* "iot_unknown_certificate" … and "high" …; "" for none. */
const char *plan_odd_kind(enum plan_odd odd);
const char *plan_odd_severity(enum plan_odd odd);

/* A certificate as the plan sees it. */
struct plan_fact {
	enum iot_status seen;     /* IOT_STATUS_UNKNOWN: the target never saw it */
	bool ours;                /* has a row */
	enum cert_status status;  /* of the row, as stored */
	bool expired;
	bool in_slot;             /* its device's current one or successor */
	bool preregister;         /* its profile says so */
	bool has_policies;        /* its profile names some */
	bool doubtful;            /* a change was under way: seen may be of before or of after it */
};

struct plan_action {
	enum iot_status status;   /* to be set; IOT_STATUS_UNKNOWN: as it is */
	bool enrol;               /* RegisterCertificate first */
	bool attach;              /* to the thing */
	bool detach;
	enum plan_policies policies;
	enum plan_odd odd;
};

struct plan {
	enum plan_thing thing;
	bool thing_changes;       /* from what was applied last */
	struct plan_action actions[IOT_PLAN_CERTIFICATES_MAX];
	bool idle;                /* nothing at all is to be done */
};

/* applied: iot_device.state, "" if there is none. count is at most IOT_PLAN_CERTIFICATES_MAX. */
void plan_make(struct plan *out, enum plan_device device, const char *applied,
	const struct plan_fact *facts, size_t count);

#endif
