#include "db/iotcore_rule.h"

#include "db/run.h"

enum {
	RULE_FIND,
	RULE_CREATE,
	RULE_REPLACE,
	RULE_DISABLE,
	RULE_DELETE,
	RULE_COUNT,
	RULE_LIST,
	RULE_ENABLED,
	DESTINATION_FIND,
	DESTINATION_BY_URL,
	DESTINATION_CREATE,
	DESTINATION_RENEW,
	DESTINATION_SET_STATUS,
	DESTINATION_DELETE,
	DESTINATION_COUNT,
	DESTINATION_CONFIRM,
	DESTINATION_LIST,
	CONFIRMATION_DUE,
	CONFIRMATION_DONE,
	RULES_ANY,
	EVENT_ADD,
	EVENT_TAKE,
	EVENT_REMOVE,
	EVENT_RELEASE,
	STATEMENTS,
};

#define RULE_ROW                                                                                   \
	"SELECT r.name, r.topic, r.payload, r.disabled, " SQL_US("r.created_at")                       \
	" FROM iotcore.topic_rule r"
#define DESTINATION_ROW                                                                            \
	"SELECT d.destination_id::text, d.confirmation_url, d.status, d.status_reason, d.confirmed, "  \
	SQL_US("d.created_at") ", " SQL_US("d.updated_at") " FROM iotcore.topic_rule_destination d"
#define AWAITING "'Awaiting confirmation. Confirmation message not sent yet.'"

static const struct db_statement SQL[STATEMENTS] = {
	[RULE_FIND] = { /* topic_rule_pkey */
		.name = "core_rule_find", .params = 1, .columns = 5, .rows = ROWS_MAYBE,
		.sql = RULE_ROW " WHERE r.name = $1",
	},
	[RULE_CREATE] = {
		.name = "core_rule_create", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.topic_rule (name, topic, payload, disabled)"
		       " VALUES ($1, $2, $3, $4::bool)",
	},
	[RULE_REPLACE] = { /* topic_rule_pkey */
		.name = "core_rule_replace", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.topic_rule SET topic = $2, payload = $3, disabled = $4::bool"
		       " WHERE name = $1",
	},
	[RULE_DISABLE] = { /* topic_rule_pkey */
		.name = "core_rule_disable", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.topic_rule SET disabled = $2::bool WHERE name = $1",
	},
	[RULE_DELETE] = { /* topic_rule_pkey */
		.name = "core_rule_delete", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.topic_rule WHERE name = $1",
	},
	[RULE_COUNT] = { /* the whole table: at most a thousand */
		.name = "core_rule_count", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(*) FROM iotcore.topic_rule",
	},
	[RULE_LIST] = { /* topic_rule_pkey */
		.name = "core_rule_list", .params = 2, .columns = 5, .rows = ROWS_ANY,
		.sql = RULE_ROW " WHERE r.name > $1 ORDER BY r.name LIMIT $2::bigint",
	},
	[RULE_ENABLED] = { /* the whole table: at most a thousand */
		.name = "core_rule_enabled", .params = 0, .columns = 5, .rows = ROWS_ANY,
		.sql = RULE_ROW " WHERE NOT r.disabled ORDER BY r.name LIMIT 1000",
	},
	[DESTINATION_FIND] = { /* the whole table, so that any text may be asked for: at most a thousand */
		.name = "core_destination_find", .params = 1, .columns = 7, .rows = ROWS_MAYBE,
		.sql = DESTINATION_ROW " WHERE d.destination_id::text = $1",
	},
	[DESTINATION_BY_URL] = { /* topic_rule_destination_confirmation_url_key */
		.name = "core_destination_by_url", .params = 1, .columns = 7, .rows = ROWS_MAYBE,
		.sql = DESTINATION_ROW " WHERE d.confirmation_url = $1",
	},
	[DESTINATION_CREATE] = {
		.name = "core_destination_create", .params = 3, .columns = 1, .rows = ROWS_ONE,
		.sql = "INSERT INTO iotcore.topic_rule_destination"
		       " (confirmation_url, token, confirm_base, status, status_reason)"
		       " VALUES ($1, $2, $3, 'IN_PROGRESS', " AWAITING ")"
		       " RETURNING destination_id::text",
	},
	[DESTINATION_RENEW] = { /* topic_rule_destination_pkey */
		.name = "core_destination_renew", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.topic_rule_destination SET token = $2, confirm_base = $3,"
		       " token_at = now(), confirmed = false, confirmation_due = true,"
		       " status = 'IN_PROGRESS', status_reason = " AWAITING ", updated_at = now()"
		       " WHERE destination_id = $1::uuid",
	},
	[DESTINATION_SET_STATUS] = { /* topic_rule_destination_pkey */
		.name = "core_destination_set_status", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.topic_rule_destination SET status = $2, status_reason = '',"
		       " updated_at = now() WHERE destination_id = $1::uuid",
	},
	[DESTINATION_DELETE] = { /* topic_rule_destination_pkey */
		.name = "core_destination_delete", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.topic_rule_destination WHERE destination_id = $1::uuid",
	},
	[DESTINATION_COUNT] = { /* the whole table: at most a thousand */
		.name = "core_destination_count", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(*) FROM iotcore.topic_rule_destination",
	},
	[DESTINATION_CONFIRM] = { /* topic_rule_destination_token_key; again: it stays as it was made then */
		.name = "core_destination_confirm", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.topic_rule_destination SET"
		       " status = CASE WHEN confirmed THEN status ELSE 'ENABLED' END,"
		       " status_reason = CASE WHEN confirmed THEN status_reason ELSE '' END,"
		       " confirmed = true, confirmation_due = false, updated_at = now()"
		       " WHERE token = $1 AND token_at > now() - $2::bigint * interval '1 second'",
	},
	[DESTINATION_LIST] = { /* topic_rule_destination_pkey, sorted as text: at most a thousand */
		.name = "core_destination_list", .params = 2, .columns = 7, .rows = ROWS_ANY,
		.sql = DESTINATION_ROW " WHERE d.destination_id::text COLLATE \"C\" > $1"
		       " ORDER BY d.destination_id::text COLLATE \"C\" LIMIT $2::bigint",
	},
	[CONFIRMATION_DUE] = { /* topic_rule_destination_due */
		.name = "core_confirmation_due", .params = 1, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT d.destination_id::text, d.confirmation_url, d.token, d.confirm_base"
		       " FROM iotcore.topic_rule_destination d WHERE d.confirmation_due"
		       " ORDER BY d.destination_id LIMIT $1::bigint",
	},
	[CONFIRMATION_DONE] = { /* topic_rule_destination_pkey */
		.name = "core_confirmation_done", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.topic_rule_destination SET confirmation_due = false,"
		       " status = CASE WHEN $3::bool THEN 'ERROR' ELSE status END, status_reason = $4,"
		       " updated_at = now() WHERE destination_id = $1::uuid AND token = $2"
		       " AND confirmation_due",
	},
	[RULES_ANY] = { /* topic_rule, of which one is enough */
		.name = "core_rules_any", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM iotcore.topic_rule r WHERE NOT r.disabled)",
	},
	[EVENT_ADD] = { /* topic_rule, of which one is enough */
		.name = "core_rule_event_add", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.rule_event (topic, payload) SELECT $1, $2"
		       " WHERE EXISTS (SELECT FROM iotcore.topic_rule r WHERE NOT r.disabled)",
	},
	[EVENT_TAKE] = { /* rule_event_due, rule_event_pkey */
		.name = "core_rule_event_take", .params = 2, .columns = 5, .rows = ROWS_ANY,
		.sql = "UPDATE iotcore.rule_event e SET takes = e.takes + 1,"
		       " due_at = now() + $2::bigint * interval '1 second'"
		       " FROM (SELECT d.event_id FROM iotcore.rule_event d WHERE d.due_at <= now()"
		       " ORDER BY d.due_at, d.event_id LIMIT $1::bigint FOR UPDATE SKIP LOCKED) AS due"
		       " WHERE e.event_id = due.event_id"
		       " RETURNING e.event_id, e.topic, e.payload, e.takes, "
		       SQL_S("now()") " - " SQL_S("e.at"),
	},
	[EVENT_REMOVE] = { /* rule_event_pkey */
		.name = "core_rule_event_remove", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.rule_event WHERE event_id = $1::bigint",
	},
	[EVENT_RELEASE] = { /* rule_event_pkey */
		.name = "core_rule_event_release", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.rule_event SET due_at = now(), takes = takes - 1"
		       " WHERE event_id = $1::bigint",
	},
};
const struct db_table DB_TABLE_IOTCORE_RULE = { SQL, COUNT_OF(SQL) };

static enum status
count_rows(struct db_tx *tx, int statement, int64_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[statement], DB_NO_PARAMS, &rows, err));
	struct db_row row = db_row(rows, 0);
	*count = db_row_int64(&row);
	return db_row_end(&row, err);
}

/* ---- rules ---- */

void
db_rule_free(struct db_rule *rule)
{
	PQclear(rule->rows);
	rule->rows = NULL;
}

static enum status
read_rule(const PGresult *rows, int at, struct db_rule *out, struct err *err)
{
	struct db_row row = db_row(rows, at);

	db_row_text(&row, out->name, sizeof(out->name));
	db_row_text(&row, out->topic, sizeof(out->topic));
	out->payload = db_row_view(&row);
	out->disabled = db_row_bool(&row);
	out->created_us = db_row_int64(&row);
	return db_row_end(&row, err);
}

static enum status
read_rules(const PGresult *rows, db_rule_each *each, void *arg, struct err *err)
{
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_rule rule = { .rows = NULL };

		TRY(read_rule(rows, i, &rule, err));
		TRY(each(arg, &rule, err));
	}
	return OK;
}

enum status
db_rule_find(struct db_tx *tx, const char *name, bool *found, struct db_rule *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[RULE_FIND], DB_PARAMS(db_text(name)), &rows, err));
	*found = db_rows(rows) == 1;
	if (!*found)
		return OK;
	TRY(read_rule(rows, 0, out, err));
	out->rows = give(rows);
	return OK;
}

enum status
db_rule_create(struct db_tx *tx, const char *name, const char *topic, const char *payload,
	bool disabled, struct err *err)
{
	return db_run(tx, &SQL[RULE_CREATE],
		DB_PARAMS(db_text(name), db_text(topic), db_text(payload), db_bool(disabled)), NULL, err);
}

enum status
db_rule_replace(struct db_tx *tx, const char *name, const char *topic, const char *payload,
	bool disabled, struct err *err)
{
	return db_run(tx, &SQL[RULE_REPLACE],
		DB_PARAMS(db_text(name), db_text(topic), db_text(payload), db_bool(disabled)), NULL, err);
}

enum status
db_rule_disable(struct db_tx *tx, const char *name, bool disabled, struct err *err)
{
	return db_run(
		tx, &SQL[RULE_DISABLE], DB_PARAMS(db_text(name), db_bool(disabled)), NULL, err);
}

enum status
db_rule_delete(struct db_tx *tx, const char *name, struct err *err)
{
	return db_run(tx, &SQL[RULE_DELETE], DB_PARAMS(db_text(name)), NULL, err);
}

enum status
db_rule_count(struct db_tx *tx, int64_t *count, struct err *err)
{
	return count_rows(tx, RULE_COUNT, count, err);
}

enum status
db_rule_list(struct db_tx *tx, const char *after, int64_t limit, db_rule_each *each, void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[RULE_LIST], DB_PARAMS(db_text(after), db_int64(limit)), &rows, err));
	return read_rules(rows, each, arg, err);
}

enum status
db_rule_enabled(struct db_tx *tx, db_rule_each *each, void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[RULE_ENABLED], DB_NO_PARAMS, &rows, err));
	return read_rules(rows, each, arg, err);
}

/* ---- destinations ---- */

static enum status
read_destination(const PGresult *rows, int at, struct db_destination *out, struct err *err)
{
	struct db_row row = db_row(rows, at);

	db_row_text(&row, out->destination_id, sizeof(out->destination_id));
	db_row_text(&row, out->url, sizeof(out->url));
	db_row_text(&row, out->status, sizeof(out->status));
	db_row_text(&row, out->reason, sizeof(out->reason));
	out->confirmed = db_row_bool(&row);
	out->created_us = db_row_int64(&row);
	out->updated_us = db_row_int64(&row);
	return db_row_end(&row, err);
}

static enum status
find_destination(struct db_tx *tx, int statement, const char *key, bool *found,
	struct db_destination *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[statement], DB_PARAMS(db_text(key)), &rows, err));
	*found = db_rows(rows) == 1;
	return *found ? read_destination(rows, 0, out, err) : OK;
}

enum status
db_destination_find(struct db_tx *tx, const char *id, bool *found, struct db_destination *out,
	struct err *err)
{
	return find_destination(tx, DESTINATION_FIND, id, found, out, err);
}

enum status
db_destination_by_url(struct db_tx *tx, const char *url, bool *found, struct db_destination *out,
	struct err *err)
{
	return find_destination(tx, DESTINATION_BY_URL, url, found, out, err);
}

enum status
db_destination_create(struct db_tx *tx, const char *url, const char *token, const char *base,
	char id[DB_CORE_UUID_BYTES], struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[DESTINATION_CREATE],
		DB_PARAMS(db_text(url), db_text(token), db_text(base)), &rows, err));
	struct db_row row = db_row(rows, 0);
	db_row_text(&row, id, DB_CORE_UUID_BYTES);
	return db_row_end(&row, err);
}

enum status
db_destination_renew(struct db_tx *tx, const char *id, const char *token, const char *base,
	struct err *err)
{
	return db_run(tx, &SQL[DESTINATION_RENEW], DB_PARAMS(db_text(id), db_text(token), db_text(base)),
		NULL, err);
}

enum status
db_destination_set_status(struct db_tx *tx, const char *id, const char *status, struct err *err)
{
	return db_run(tx, &SQL[DESTINATION_SET_STATUS], DB_PARAMS(db_text(id), db_text(status)), NULL,
		err);
}

enum status
db_destination_delete(struct db_tx *tx, const char *id, struct err *err)
{
	return db_run(tx, &SQL[DESTINATION_DELETE], DB_PARAMS(db_text(id)), NULL, err);
}

enum status
db_destination_count(struct db_tx *tx, int64_t *count, struct err *err)
{
	return count_rows(tx, DESTINATION_COUNT, count, err);
}

enum status
db_destination_confirm(struct db_tx *tx, const char *token, int64_t most_s, bool *found,
	struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[DESTINATION_CONFIRM], DB_PARAMS(db_text(token), db_int64(most_s)), &done,
		err));
	*found = db_affected(done) == 1;
	return OK;
}

enum status
db_destination_list(struct db_tx *tx, const char *after, int64_t limit, db_destination_each *each,
	void *arg, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_destination destination;

	TRY(db_run(tx, &SQL[DESTINATION_LIST], DB_PARAMS(db_text(after), db_int64(limit)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		TRY(read_destination(rows, i, &destination, err));
		TRY(each(arg, &destination, err));
	}
	return OK;
}

enum status
db_confirmation_due(struct db_tx *tx, int64_t limit,
	enum status (*each)(void *arg, const struct db_confirmation *row, struct err *err), void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[CONFIRMATION_DUE], DB_PARAMS(db_int64(limit)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);
		struct db_confirmation due;

		db_row_text(&row, due.destination_id, sizeof(due.destination_id));
		db_row_text(&row, due.url, sizeof(due.url));
		db_row_text(&row, due.token, sizeof(due.token));
		db_row_text(&row, due.base, sizeof(due.base));
		TRY(db_row_end(&row, err));
		TRY(each(arg, &due, err));
	}
	return OK;
}

enum status
db_confirmation_done(struct db_tx *tx, const struct db_confirmation *confirmation, bool failed,
	const char *reason, struct err *err)
{
	return db_run(tx, &SQL[CONFIRMATION_DONE],
		DB_PARAMS(db_text(confirmation->destination_id), db_text(confirmation->token),
			db_bool(failed), db_text(reason)),
		NULL, err);
}

/* ---- messages ---- */

enum status
db_rules_any(struct db_tx *tx, bool *any, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[RULES_ANY], DB_NO_PARAMS, &rows, err));
	row = db_row(rows, 0);
	*any = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_rule_event_add(struct db_tx *tx, const char *topic, struct view payload, struct err *err)
{
	return db_run(tx, &SQL[EVENT_ADD], DB_PARAMS(db_text(topic), db_text_view(payload)), NULL,
		err);
}

enum status
db_rule_event_take(struct db_tx *tx, int64_t limit, int64_t lease_s,
	enum status (*each)(void *arg, const struct db_rule_event *event, struct err *err), void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[EVENT_TAKE], DB_PARAMS(db_int64(limit), db_int64(lease_s)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);
		struct db_rule_event event;

		event.event_id = db_row_int64(&row);
		db_row_text(&row, event.topic, sizeof(event.topic));
		event.payload = db_row_view(&row);
		event.takes = db_row_int64(&row);
		event.age_s = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		TRY(each(arg, &event, err));
	}
	return OK;
}

enum status
db_rule_event_remove(struct db_tx *tx, int64_t event_id, struct err *err)
{
	return db_run(tx, &SQL[EVENT_REMOVE], DB_PARAMS(db_int64(event_id)), NULL, err);
}

enum status
db_rule_event_release(struct db_tx *tx, int64_t event_id, struct err *err)
{
	return db_run(tx, &SQL[EVENT_RELEASE], DB_PARAMS(db_int64(event_id)), NULL, err);
}
