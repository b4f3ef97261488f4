/* server/report/internal.h - what the parts of a report share while it is made. */
#ifndef SERVER_REPORT_INTERNAL_H
#define SERVER_REPORT_INTERNAL_H

#include <jansson.h>

#include "server/app.h"
#include "server/report/report.h"

#define REPORT_EXAMPLES_MAX 100
#define REPORT_CLIFF_PERCENT 25 /* of what is live, in one week … */
#define REPORT_CLIFF_LEAST 20   /* … of so many or more */

/* In the order of the document, worst first. */
enum report_finding {
	FINDING_UNSET = 0,
	FINDING_KEY_SHARED,
	FINDING_KEY_BLOCKED_LIVE,
	FINDING_REVOKED_ACTIVE,
	FINDING_AUDIT_BROKEN,
	FINDING_STRANGER_ACTIVE,
	FINDING_LIVE_REVOKED_THERE,
	FINDING_POLICY_BROAD,
	FINDING_CA_EXPIRING,
	FINDING_AUDIT_UNSIGNED,
	FINDING_CERTIFICATE_UNREADABLE,
	FINDING_ENDED_ACTIVE,
	FINDING_ROTATION_UNCONFIRMED,
	FINDING_VALIDITY_OVER_PROFILE,
	FINDING_KEY_ORPHANED,
	FINDING_POLICY_UNREAD,
	FINDING_KEY_TYPE,
	FINDING_KEY_TWO_CAS,
	FINDING_EXPIRY_CLIFF,
	FINDINGS,
};

/* So far. All of it is JSON, for it is kept between two steps. */
struct report_work {
	struct app *app;
	int64_t now_s;
	json_t *json;
	json_t *groups, *keys, *signatures, *months, *weeks, *findings; /* borrowed from json */
};
/* text empty: from nothing. The caller frees. */
MUST_USE enum status report_work_load(struct report_work *work, struct app *app, struct view text,
	struct err *err);
void report_work_free(struct report_work *work);
OWNER_STRUCT(report_work, report_work_free)

/* object[name] += by. */
MUST_USE enum status report_count(json_t *object, const char *name, int64_t by, struct err *err);
/* Counts one, and keeps example (taken, also on failure) if there is room for it. */
MUST_USE enum status report_find(struct report_work *work, enum report_finding which, json_t *example,
	struct err *err);
/* Whether another example of that is worth making. */
bool report_has_room(const struct report_work *work, enum report_finding which);
/* All of them, also those that found nothing; *total and *worst ("" if none). */
MUST_USE enum status report_findings_render(const struct report_work *work, json_t **out, int64_t *total,
	const char **worst, struct err *err);

/* One certificate; for db_report_page. arg: struct report_work. */
MUST_USE enum status report_look(void *arg, const struct db_report_row *row, struct err *err);
/* {inventory, expiries} from what was counted; finds cliffs. */
MUST_USE enum status report_inventory_render(struct report_work *work, json_t *document,
	struct err *err);

/* IoT policies: of profiles, as they are attached, and of the local IoT Core. */
MUST_USE enum status report_policies(struct report_work *work, struct db_tx *tx,
	const char *const *directories, size_t count, struct err *err);

/* What was found of the audit log before the last step, outside of its transaction. */
struct report_chain {
	bool checked, ok, whole; /* whole: record by record from the first that is kept */
	bool has_key;
	char why[ERR_TEXT_BYTES]; /* not ok */
	int64_t at_s;
};
MUST_USE enum status report_chain_check(struct app *app, struct report_chain *out, struct err *err);
/* {cas, audit, retention}, with their findings. */
MUST_USE enum status report_state_render(struct report_work *work, struct db_tx *tx,
	const struct report_chain *chain, json_t *document, struct err *err);

#endif
