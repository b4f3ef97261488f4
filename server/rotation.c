#include "server/rotation.h"

#include <assert.h>
#include <string.h>

#include "ca/digest.h"

static const char *const REASON_NAMES[] = {
	[ROTATION_UNSET] = "unset",
	[ROTATION_NOT_YET] = "not_yet",
	[ROTATION_WINDOW] = "window_open",
	[ROTATION_LATE] = "late",
	[ROTATION_EXPIRED] = "expired",
};

const char *
rotation_reason_name(enum rotation_reason reason)
{
	assert((size_t)reason < COUNT_OF(REASON_NAMES));
	return REASON_NAMES[reason];
}

/* A number below period_s, the same for the same certificate, evenly spread over many of them. */
static int64_t
offset_of(const char *device_id, const uint8_t certificate_id[DB_SHA256_BYTES], int64_t period_s)
{
	const struct view parts[] = {
		view_text("jitrca rotation"),
		{ certificate_id, DB_SHA256_BYTES },
		view_text(device_id),
	};
	uint8_t hash[32];
	uint64_t draw = 0;

	ca_blake2b_parts(hash, parts, COUNT_OF(parts));
	for (size_t i = 0; i < sizeof(draw); i++)
		draw = draw << 8 | hash[i];
	/* The high half of the product: scales without the bias or the stripes of a remainder. */
	return (int64_t)(((unsigned __int128)draw * (uint64_t)period_s) >> 64);
}

void
rotation_window(struct rotation_window *out, const struct ca_profile *profile, const char *device_id,
	const uint8_t certificate_id[DB_SHA256_BYTES], int64_t not_before_s, int64_t not_after_s,
	int64_t now_s)
{
	int64_t opens_s = not_after_s - profile->renew_before_s;
	int64_t closes_s = not_after_s - profile->renew_overlap_s;

	/* A validity shorter than the profile foresaw: what there is of it. */
	if (opens_s < not_before_s)
		opens_s = not_before_s;
	if (closes_s < opens_s)
		closes_s = opens_s;

	*out = (struct rotation_window){ .end_s = closes_s };
	out->start_s = opens_s + offset_of(device_id, certificate_id, closes_s - opens_s);
	out->due = now_s >= out->start_s;
	if (now_s >= not_after_s)
		out->reason = ROTATION_EXPIRED;
	else if (now_s >= closes_s)
		out->reason = ROTATION_LATE;
	else if (out->due)
		out->reason = ROTATION_WINDOW;
	else
		out->reason = ROTATION_NOT_YET;
	if (!out->due) {
		out->retry_after_s = out->start_s - now_s;
		if (out->retry_after_s > ROTATION_ASK_AGAIN_MAX_S)
			out->retry_after_s = ROTATION_ASK_AGAIN_MAX_S;
	}
}

size_t
rotation_late_rules(const struct ca_profile *profiles, size_t profile_count,
	struct db_late_rule out[CA_PROFILES_MAX])
{
	size_t count = 0;

	for (size_t i = 0; i < profile_count; i++)
		if (profiles[i].one_live)
			out[count++] = (struct db_late_rule){ profiles[i].name, profiles[i].renew_overlap_s };
	return count;
}
