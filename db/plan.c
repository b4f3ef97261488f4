#include "db/plan.h"

#include "db/run.h"

enum {
	CREATE,
	FIND,
	LIST,
	LAST,
	RETENTION,
	GROUPS,
	STATEMENTS,
};

#define COLUMNS                                                                                    \
	"p.plan_id, p.actor, p.threshold_s, p.expiring, p.late, " SQL_S("p.created_at") ", "           \
	SQL_US("p.created_at")

static const struct db_statement SQL[STATEMENTS] = {
	[CREATE] = {
		.name = "plan_create", .params = 6, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.rotation_plan (plan_id, actor, threshold_s, expiring, late, body)"
		       " VALUES ($1::text, $2::text, $3::bigint, $4::bigint, $5::bigint, $6::text)",
	},
	[FIND] = { /* rotation_plan_pkey */
		.name = "plan_find", .params = 1, .columns = 8, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS ", convert_to(p.body, 'UTF8') FROM jitrca.rotation_plan p"
		       " WHERE p.plan_id = $1::text",
	},
	[LIST] = { /* rotation_plan_created */
		.name = "plan_list", .params = 3, .columns = 7, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS " FROM jitrca.rotation_plan p WHERE $1::bigint = 0"
		       " OR (p.created_at, p.plan_id) < (" SQL_AT_US("$1") ", $2::text)"
		       " ORDER BY p.created_at DESC, p.plan_id DESC LIMIT $3::bigint",
	},
	[LAST] = { /* rotation_plan_scheduled */
		.name = "plan_last", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT coalesce(" SQL_S("max(p.created_at)") ", 0) FROM jitrca.rotation_plan p"
		       " WHERE p.actor = 'server'",
	},
	[RETENTION] = { /* rotation_plan_created */
		.name = "retention_plans", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.rotation_plan p WHERE p.plan_id IN (SELECT o.plan_id"
		       " FROM jitrca.rotation_plan o WHERE o.created_at < " SQL_AT_S("$1")
		       " ORDER BY o.created_at LIMIT $2::bigint)",
	},
	[GROUPS] = { /* certificate_live, in the months of the range; device_pkey */
		.name = "plan_groups", .params = 5, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT c.profile, d.thing_type, " SQL_S("date_trunc('week', c.not_after, 'UTC')")
		       ", count(*) FROM jitrca.certificate c JOIN jitrca.device d"
		       " ON d.device_id = c.device_id WHERE c.expiry_month BETWEEN $3::int AND $4::int"
		       " AND c.status = 'active' AND c.of_device AND c.not_after >= " SQL_AT_S("$1")
		       " AND c.not_after < " SQL_AT_S("$2") " GROUP BY 1, 2, 3 ORDER BY 3, 1, 2"
		       " LIMIT $5::bigint",
	},
};

const struct db_table DB_TABLE_PLAN = { SQL, COUNT_OF(SQL) };

static void
read_plan(struct db_row *row, struct db_plan *out)
{
	*out = (struct db_plan){ .late = 0 };
	db_row_text(row, out->plan_id, sizeof(out->plan_id));
	db_row_text(row, out->actor, sizeof(out->actor));
	out->threshold_s = db_row_int64(row);
	out->expiring = db_row_int64(row);
	out->late = db_row_int64(row);
	out->created_at_s = db_row_int64(row);
	out->created_at_us = db_row_int64(row);
}

enum status
db_plan_create(struct db_tx *tx, const struct db_plan *plan, const char *body, struct err *err)
{
	return db_run(tx, &SQL[CREATE], DB_PARAMS(db_text(plan->plan_id), db_text(plan->actor),
		db_int64(plan->threshold_s), db_int64(plan->expiring), db_int64(plan->late),
		db_text(body)), NULL, err);
}

enum status
db_plan_find(struct db_tx *tx, const char *plan_id, struct db_plan *out, struct bytes *body,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_text(plan_id)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "plan_unknown", "there is no rotation plan of that id");
	struct db_row row = db_row(rows, 0);

	read_plan(&row, out);
	db_row_bytes(&row, body);
	return db_row_end(&row, err);
}

enum status
db_plan_list(struct db_tx *tx, int64_t before_us, const char *before_id, size_t limit,
	struct db_plan *out, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	*count = 0;
	TRY(db_run(tx, &SQL[LIST], DB_PARAMS(db_int64(before_us), db_text(before_id),
		db_int64((int64_t)limit)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		read_plan(&row, &out[(*count)++]);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_plan_last_s(struct db_tx *tx, int64_t *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[LAST], DB_NO_PARAMS, &rows, err));
	struct db_row row = db_row(rows, 0);

	*out = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_retention_plans(struct db_tx *tx, int64_t before_s, size_t max, size_t *deleted, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[RETENTION], DB_PARAMS(db_int64(before_s), db_int64((int64_t)max)), &done,
		err));
	*deleted = (size_t)db_affected(done);
	return OK;
}

enum status
db_plan_groups(struct db_tx *tx, int64_t from_s, int64_t to_s,
	struct db_plan_group out[DB_PLAN_GROUPS_MAX], size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	*count = 0;
	TRY(db_run(tx, &SQL[GROUPS], DB_PARAMS(db_int64(from_s), db_int64(to_s),
		db_int64(expiry_month(from_s)), db_int64(expiry_month(to_s)),
		db_int64(DB_PLAN_GROUPS_MAX)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_plan_group *group = &out[(*count)++];

		db_row_text(&row, group->profile, sizeof(group->profile));
		db_row_text(&row, group->thing_type, sizeof(group->thing_type));
		group->week_s = db_row_int64(&row);
		group->devices = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}
