/* server/api/doctor.h - what the parts of GET /v1/doctor share: one round of checks. */
#ifndef SERVER_API_DOCTOR_H
#define SERVER_API_DOCTOR_H

#include "db/db.h"
#include "server/doctor.h"

struct app;

struct doctor_round {
	struct app *app;
	struct doctor *doctor;
	int64_t now_s;
	bool database_away; /* what needs it is not tried, but said */
};

/* Registration, rules, quotas, outbox, subscription, comparison: nothing if there is no target. */
void doctor_check_iot(struct doctor_round *round);

/* Runs one check in a short transaction of its own; what fails is said under its name. */
void doctor_in_tx(struct doctor_round *round, const char *check,
	enum status (*run)(struct doctor_round *round, struct db_tx *tx, struct err *err));

#endif
