/*
 * server/doctor.h - what `jitrca doctor` and GET /v1/doctor share: findings, and the judgements that need
 * nothing but numbers. Each check says at least one thing, also when all is well; one that could not be made
 * says that. Findings are JSON from the beginning, for both ends show them so:
 * {severity, check, finding, what_to_do}; what_to_do is null when there is nothing to do.
 *
 * Threads: one at a time per report.
 */
#ifndef SERVER_DOCTOR_H
#define SERVER_DOCTOR_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

/* In their order of weight. */
enum doctor_severity {
	DOCTOR_UNSET = 0,
	DOCTOR_OK,
	DOCTOR_NOTE,    /* worth knowing; nothing is wrong */
	DOCTOR_UNKNOWN, /* the check could not be made */
	DOCTOR_WARNING, /* works, and will not for ever */
	DOCTOR_ERROR,   /* does not work, or is not safe */
	DOCTOR_SEVERITIES,
};
const char *doctor_severity_name(enum doctor_severity severity); /* "ok", "note" … */
MUST_USE bool doctor_severity_parse(enum doctor_severity *out, const char *name);

/* As monitoring plugins have it: 0 ok or note, 1 warning, 2 error, 3 unknown; the worst counts. */
int doctor_exit_status(enum doctor_severity worst);

struct doctor {
	json_t *findings;
	enum doctor_severity worst;
	bool short_of_memory; /* something is missing from findings */
};
MUST_USE enum status doctor_begin(struct doctor *doctor, struct err *err);
void doctor_free(struct doctor *doctor);
OWNER_STRUCT(doctor, doctor_free)

/* what_to_do NULL: nothing. The text is cut at 500 octets; octets that are no UTF-8 are shown as '?'. */
void doctor_say(struct doctor *doctor, enum doctor_severity severity, const char *check,
	const char *what_to_do, const char *fmt, ...) PRINTF(5, 6);
/* A check that could not be made, for why. */
void doctor_unknown(struct doctor *doctor, const char *check, const char *what_to_do,
	const struct err *why);
/* ERR_UNAVAILABLE out_of_memory when something is missing from it. */
MUST_USE enum status doctor_complete(const struct doctor *doctor, struct err *err);

/* ---- judgements: each says one thing ---- */

/* A certificate that ends at end_s; it is a warning below warn_s. what names it. */
void doctor_judge_end(struct doctor *doctor, const char *check, const char *what, int64_t end_s,
	int64_t now_s, int64_t warn_s, const char *what_to_do);

/* The database's clock, read between before_s and after_s of ours. */
void doctor_judge_clock(struct doctor *doctor, int64_t database_s, int64_t before_s, int64_t after_s);
/* Whether the kernel keeps this machine's clock in step with others. */
void doctor_judge_kernel_clock(struct doctor *doctor);

/* The file system of path: a warning below a tenth or 1 GiB, an error below a hundredth or 128 MiB. */
void doctor_check_disk(struct doctor *doctor, const char *check, const char *path);
void doctor_judge_disk(struct doctor *doctor, const char *check, const char *path, uint64_t free_bytes,
	uint64_t total_bytes);

/* A full CRL, and a sample of its entries. */
struct doctor_crl {
	const char *ca_id;
	int64_t entries, bytes;         /* of the list that is published */
	int64_t looked, recent, ending; /* db/doctor.h; recent and ending within DOCTOR_CRL_DAYS */
	int64_t immediate_max_bytes;    /* config.crl_full_immediate_max_bytes */
};
#define DOCTOR_CRL_DAYS 90
/* Its size so many days from now, if as many are revoked as in the last ones. */
int64_t doctor_forecast_crl(const struct doctor_crl *crl);
void doctor_judge_crl(struct doctor *doctor, const struct doctor_crl *crl);

/*
 * A week in which much of the fleet ends at once: a quarter of what is live, and three times what it would be
 * if the same certificates ended evenly over all the weeks up to the last. Fewer than 20 are no fleet.
 */
struct doctor_week {
	int64_t week_s, count;
};
void doctor_judge_cliffs(struct doctor *doctor, const struct doctor_week *weeks, size_t count, int64_t now_s,
	double percent_read);

#endif
