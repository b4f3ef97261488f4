/*
 * server/rotation.h - when a device should rotate its certificate. A pure calculation: the moments of a
 * fleet are spread evenly over the renewal period by a hash of device and certificate, so that devices
 * made in the same hour do not come back in the same hour, and a device that asks twice hears the same.
 */
#ifndef SERVER_ROTATION_H
#define SERVER_ROTATION_H

#include "ca/profile.h"
#include "db/device.h"

/* A device that asks again sooner than that learns nothing new; one that waits longer could miss a change. */
#define ROTATION_ASK_AGAIN_MAX_S (24 * 3600)

enum rotation_reason {
	ROTATION_UNSET = 0,
	ROTATION_NOT_YET, /* before the device's own moment */
	ROTATION_WINDOW,  /* its moment has come */
	ROTATION_LATE,    /* the renewal period is over: at once */
	ROTATION_EXPIRED, /* in the grace period after notAfter: at once */
};
const char *rotation_reason_name(enum rotation_reason reason); /* "not_yet" … */

struct rotation_window {
	int64_t start_s; /* the device's own moment, in [notAfter - renew_before, notAfter - renew_overlap] */
	int64_t end_s;   /* notAfter - renew_overlap: who has not rotated by then is late */
	bool due;
	enum rotation_reason reason;
	int64_t retry_after_s; /* 0 when due; else when to ask again, at most ROTATION_ASK_AGAIN_MAX_S */
};

/*
 * The window of a certificate at now_s. The renewal period never begins before notBefore, however short
 * the validity was.
 */
void rotation_window(struct rotation_window *out, const struct ca_profile *profile,
	const char *device_id, const uint8_t certificate_id[DB_SHA256_BYTES], int64_t not_before_s,
	int64_t not_after_s, int64_t now_s);

/* The profiles of devices say how long before the end their window closes: how many rules are in out. */
size_t rotation_late_rules(const struct ca_profile *profiles, size_t profile_count,
	struct db_late_rule out[CA_PROFILES_MAX]);

#endif
