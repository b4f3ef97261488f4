#include "db/iotcore_broker.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "db/conn.h"

#define EVENT_CHANNEL "iotcore_registry_event"

enum {
	ACCOUNT,
	ACCOUNT_LOCK,
	CHANGES,
	CAS_ALL,
	CAS_SOME,
	CERTIFICATES_ALL,
	CERTIFICATES_SOME,
	THINGS_ALL,
	THINGS_SOME,
	GROUPS_ALL,
	GROUPS_SOME,
	POLICIES_ALL,
	POLICIES_SOME,
	PRINCIPALS,
	TARGETS,
	REGISTER,
	REGISTERED,
	SESSIONS,
	SESSIONS_RESET,
	STATEMENTS,
};

/* One name a line: none of them can hold a line feed. */
#define LINES(expression) "string_agg(" expression ", E'\\n' ORDER BY " expression ")"
#define POLICIES_OF(target)                                                                        \
	"(SELECT " LINES("a.policy") " FROM iotcore.policy_attachment a WHERE a.target = " target ")"
#define THING_OF_PRINCIPAL "CASE WHEN p.exclusive THEN '!' ELSE '' END || p.thing"

#define CA_SQL                                                                                     \
	"SELECT ca.certificate_id, ca.der, ca.status = 'ACTIVE', ca.auto_registration"             \
	" FROM iotcore.ca_certificate ca"
#define CERTIFICATE_SQL                                                                            \
	"SELECT c.certificate_id, c.ca_certificate_id, c.status, " SQL_US("c.created_at") " / 1000, " \
	POLICIES_OF("'cert/' || c.certificate_id") ","                                             \
	" (SELECT " LINES(THING_OF_PRINCIPAL) " FROM iotcore.thing_principal p"                    \
	" WHERE p.certificate_id = c.certificate_id) FROM iotcore.certificate c"
#define THING_SQL                                                                                  \
	"SELECT t.name, t.thing_type,"                                                             \
	" (SELECT string_agg(a.key || E'\\n' || a.value, E'\\n')"                                  \
	" FROM jsonb_each_text(t.attributes) a),"                                                  \
	" (SELECT " LINES("m.thing_group") " FROM iotcore.thing_group_member m"                    \
	" WHERE m.thing = t.name) FROM iotcore.thing t"
#define GROUP_SQL                                                                                  \
	"SELECT g.name, g.parent, " POLICIES_OF("'thinggroup/' || g.name")                         \
	" FROM iotcore.thing_group g"
#define POLICY_SQL                                                                                 \
	"SELECT p.name, v.document FROM iotcore.policy p JOIN iotcore.policy_version v"            \
	" ON v.policy = p.name AND v.version = p.default_version"

static const struct db_statement SQL[STATEMENTS] = {
	[ACCOUNT] = { /* account_pkey; one row. change_pkey, its end: as iotcore.last_change() */
		.name = "broker_account", .columns = 3, .rows = ROWS_MAYBE,
		.sql = "SELECT a.account_id, a.region, greatest(a.change_seq, (SELECT max(h.seq)"
		       " FROM iotcore.change h)) FROM iotcore.account a WHERE a.one",
	},
	[ACCOUNT_LOCK] = { /* account_pkey; as each transaction that changes the registry does first */
		.name = "broker_account_lock", .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT true FROM iotcore.account a WHERE a.one FOR UPDATE",
	},
	[CHANGES] = { /* change_pkey */
		.name = "broker_changes", .params = 2, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT h.seq, h.kind, h.key FROM iotcore.change h WHERE h.seq > $1::bigint"
		       " ORDER BY h.seq LIMIT $2::bigint",
	},
	[CAS_ALL] = { /* the whole table */
		.name = "broker_cas_all", .columns = 4, .rows = ROWS_STREAM, .sql = CA_SQL,
	},
	[CAS_SOME] = { /* ca_certificate_pkey */
		.name = "broker_cas_some", .params = 1, .columns = 4, .rows = ROWS_ANY,
		.sql = CA_SQL " WHERE ca.certificate_id = ANY ($1::text[])",
	},
	[CERTIFICATES_ALL] = { /* the whole table; policy_attachment_pkey, thing_principal_certificate */
		.name = "broker_certificates_all", .columns = 6, .rows = ROWS_STREAM,
		.sql = CERTIFICATE_SQL,
	},
	[CERTIFICATES_SOME] = { /* certificate_pkey, policy_attachment_pkey, thing_principal_certificate */
		.name = "broker_certificates_some", .params = 1, .columns = 6, .rows = ROWS_ANY,
		.sql = CERTIFICATE_SQL " WHERE c.certificate_id = ANY ($1::text[])",
	},
	[THINGS_ALL] = { /* the whole table; thing_group_member_pkey */
		.name = "broker_things_all", .columns = 4, .rows = ROWS_STREAM, .sql = THING_SQL,
	},
	[THINGS_SOME] = { /* thing_pkey, thing_group_member_pkey */
		.name = "broker_things_some", .params = 1, .columns = 4, .rows = ROWS_ANY,
		.sql = THING_SQL " WHERE t.name = ANY ($1::text[])",
	},
	[GROUPS_ALL] = { /* the whole table; policy_attachment_pkey */
		.name = "broker_groups_all", .columns = 3, .rows = ROWS_STREAM, .sql = GROUP_SQL,
	},
	[GROUPS_SOME] = { /* thing_group_pkey, policy_attachment_pkey */
		.name = "broker_groups_some", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = GROUP_SQL " WHERE g.name = ANY ($1::text[])",
	},
	[POLICIES_ALL] = { /* the whole table; policy_version_pkey */
		.name = "broker_policies_all", .columns = 2, .rows = ROWS_STREAM, .sql = POLICY_SQL,
	},
	[POLICIES_SOME] = { /* policy_pkey, policy_version_pkey */
		.name = "broker_policies_some", .params = 1, .columns = 2, .rows = ROWS_ANY,
		.sql = POLICY_SQL " WHERE p.name = ANY ($1::text[])",
	},
	[PRINCIPALS] = { /* thing_principal_pkey */
		.name = "broker_principals", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT p.certificate_id FROM iotcore.thing_principal p"
		       " WHERE p.thing = ANY ($1::text[]) LIMIT $2::bigint",
	},
	[TARGETS] = { /* policy_attachment_policy */
		.name = "broker_targets", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT a.target FROM iotcore.policy_attachment a"
		       " WHERE a.policy = ANY ($1::text[]) LIMIT $2::bigint",
	},
	[REGISTER] = { /* ca_certificate_pkey, certificate_pkey */
		.name = "broker_register", .params = 5, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.certificate (certificate_id, ca_certificate_id, pem, status,"
		       " mode, not_before, not_after)"
		       " SELECT n.id, ca.certificate_id, n.pem, 'PENDING_ACTIVATION', ca.mode, "
		       SQL_AT_S("n.not_before") ", " SQL_AT_S("n.not_after")
		       " FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])"
		       " AS n(id, ca_id, pem, not_before, not_after)"
		       " JOIN iotcore.ca_certificate ca ON ca.certificate_id = n.ca_id"
		       " WHERE ca.status = 'ACTIVE' AND ca.auto_registration ON CONFLICT DO NOTHING",
	},
	[REGISTERED] = { /* certificate_pkey */
		.name = "broker_registered", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT c.certificate_id, c.ca_certificate_id, " SQL_US("c.created_at") " / 1000"
		       " FROM iotcore.certificate c WHERE c.certificate_id = ANY ($1::text[])"
		       " AND c.status = 'PENDING_ACTIVATION' AND c.ca_certificate_id IS NOT NULL",
	},
	[SESSIONS] = { /* session_pkey */
		.name = "broker_sessions", .params = 6, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.session AS s (client_id, certificate_id, thing, address,"
		       " connected, version)"
		       " SELECT n.client_id, n.certificate_id, n.thing, n.address, n.connected, n.version"
		       " FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[],"
		       " $6::bigint[])"
		       " AS n(client_id, certificate_id, thing, address, connected, version)"
		       " ON CONFLICT (client_id) DO UPDATE SET certificate_id = EXCLUDED.certificate_id,"
		       " thing = EXCLUDED.thing, address = EXCLUDED.address,"
		       " connected = EXCLUDED.connected, version = EXCLUDED.version, at = now()"
		       " WHERE s.version <= EXCLUDED.version",
	},
	[SESSIONS_RESET] = { /* the whole table, once per start of the broker */
		.name = "broker_sessions_reset", .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.session s SET connected = false, at = now() WHERE s.connected",
	},
};
const struct db_table DB_TABLE_IOTCORE_BROKER = { SQL, COUNT_OF(SQL) };

/* By db_broker_kind. */
static const struct kind {
	const char *name;
	int all, some;
} KINDS[BROKER_KINDS] = {
	[BROKER_UNSET] = { "", 0, 0 },
	[BROKER_CA] = { "ca", CAS_ALL, CAS_SOME },
	[BROKER_CERTIFICATE] = { "certificate", CERTIFICATES_ALL, CERTIFICATES_SOME },
	[BROKER_THING] = { "thing", THINGS_ALL, THINGS_SOME },
	[BROKER_GROUP] = { "group", GROUPS_ALL, GROUPS_SOME },
	[BROKER_POLICY] = { "policy", POLICIES_ALL, POLICIES_SOME },
};

/*
 * The connection
 */

struct db_broker {
	struct db_conn *conn;
	bool event_heard; /* on EVENT_CHANNEL, or there may have been one before we listened */
};

static enum status
begin_listening(struct db_broker **out, const char *conninfo, const char *listen, struct err *err)
{
	struct db_broker *broker = mem_zalloc(sizeof(*broker));
	enum status status;

	if (broker == NULL)
		return err_memory(err);
	broker->event_heard = true;
	status = db_conn_open(&broker->conn, conninfo, err);
	if (status == OK)
		status = db_conn_exec(broker->conn, "listen", listen, NULL, err);
	if (status != OK) {
		db_broker_end(broker);
		return status;
	}
	*out = broker;
	return OK;
}

enum status
db_broker_begin(struct db_broker **out, const char *conninfo, struct err *err)
{
	return begin_listening(
		out, conninfo, "LISTEN iotcore_change; LISTEN " EVENT_CHANNEL, err);
}

enum status
db_broker_begin_rules(struct db_broker **out, const char *conninfo, struct err *err)
{
	return begin_listening(out, conninfo, "LISTEN iotcore_rule", err);
}

enum status
db_broker_begin_watch(struct db_broker **out, const char *conninfo, struct err *err)
{
	return begin_listening(out, conninfo, "UNLISTEN *", err);
}

void
db_broker_cut(struct db_broker *broker)
{
	(void)shutdown(broker->conn->socket_fd, SHUT_RDWR);
}

enum status
db_broker_ask(struct db_broker *broker, struct err *err)
{
	return db_conn_ask(broker->conn, err);
}

bool
db_broker_asked(const struct db_broker *broker)
{
	return broker->conn->asked;
}

void
db_broker_end(struct db_broker *broker)
{
	if (broker == NULL)
		return;
	db_conn_close(broker->conn);
	mem_free(broker);
}

static bool
drain(struct db_broker *broker)
{
	bool any = false;
	PGnotify *notify;

	while ((notify = PQnotifies(broker->conn->pg)) != NULL) {
		if (strcmp(notify->relname, EVENT_CHANNEL) == 0)
			broker->event_heard = true;
		PQfreemem(notify);
		any = true;
	}
	return any;
}

enum status
db_broker_wait(struct db_broker *broker, int wait_ms, int wake_fd, bool *notified, struct err *err)
{
	struct pollfd fds[2] = {
		{ .fd = PQsocket(broker->conn->pg), .events = POLLIN },
		{ .fd = wake_fd, .events = POLLIN },
	};

	/* What came while a statement ran is in libpq's queue, and the socket is silent about it. */
	*notified = drain(broker);
	if (*notified)
		return OK;
	if (broker->conn->broken)
		return err_libpq(err, broker->conn, NULL, "listen");
	if (poll(fds, COUNT_OF(fds), wait_ms) < 0 && errno != EINTR)
		return err_set(err, ERR_INTERNAL, "database_error", "poll: errno %d", errno);
	if (PQconsumeInput(broker->conn->pg) != 1 || PQstatus(broker->conn->pg) != CONNECTION_OK)
		return err_libpq(err, broker->conn, NULL, "listen");
	TRY(db_conn_take_answer(broker->conn, err));
	*notified = drain(broker);
	return OK;
}

bool
db_broker_event_heard(struct db_broker *broker)
{
	bool heard = broker->event_heard;

	broker->event_heard = false;
	return heard;
}

static enum status
begin(struct db_broker *broker, const char *sql, struct db_tx *tx, struct err *err)
{
	TRY(db_conn_exec(broker->conn, "begin", sql, NULL, err));
	*tx = (struct db_tx){ .pool = NULL, .conn = broker->conn };
	return OK;
}

enum status
db_broker_read(struct db_broker *broker, struct db_tx *tx, struct err *err)
{
	return begin(broker, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", tx, err);
}

enum status
db_broker_write(struct db_broker *broker, struct db_tx *tx, struct err *err)
{
	return begin(broker, "BEGIN", tx, err);
}

/*
 * Reading
 */

static enum status
account_missing(struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "iotcore_account_missing",
		"iotcore.account has no row: the local IoT Core was not set up yet");
}

enum status
db_broker_account(struct db_tx *tx, struct db_broker_account *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[ACCOUNT], DB_NO_PARAMS, &rows, err));
	if (db_rows(rows) == 0)
		return account_missing(err);
	row = db_row(rows, 0);
	db_row_text(&row, out->account_id, sizeof(out->account_id));
	db_row_text(&row, out->region, sizeof(out->region));
	out->change_seq = db_row_int64(&row);
	return db_row_end(&row, err);
}

static enum db_broker_kind
kind_of(const char *name)
{
	for (size_t kind = BROKER_UNSET + 1; kind < COUNT_OF(KINDS); kind++)
		if (strcmp(KINDS[kind].name, name) == 0)
			return (enum db_broker_kind)kind;
	return BROKER_UNSET;
}

enum status
db_broker_changes(struct db_tx *tx, int64_t after_seq, struct db_broker_change *out, size_t max,
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;
	char kind[16];

	TRY(db_run(tx, &SQL[CHANGES], DB_PARAMS(db_int64(after_seq), db_int64((int64_t)max)), &rows,
		err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);

		out[i].seq = db_row_int64(&row);
		db_row_text(&row, kind, sizeof(kind));
		db_row_text(&row, out[i].key, sizeof(out[i].key));
		TRY(db_row_end(&row, err));
		out[i].kind = kind_of(kind);
	}
	*count = (size_t)db_rows(rows);
	return OK;
}

struct reading {
	enum db_broker_kind kind;
	enum status (*each)(void *arg, const struct db_broker_row *row, struct err *err);
	void *arg;
};

static enum status
read_one(void *arg, struct db_row *row, struct err *err)
{
	const struct reading *reading = arg;
	struct db_broker_row out = { .kind = reading->kind, .key = db_row_view(row) };

	switch (reading->kind) {
	case BROKER_CA:
		out.ca.der = db_row_view(row);
		out.ca.active = db_row_bool(row);
		out.ca.auto_registration = db_row_bool(row);
		break;
	case BROKER_CERTIFICATE:
		out.certificate.ca_id = db_row_view(row);
		out.certificate.status = db_row_view(row);
		out.certificate.created_at_ms = db_row_int64(row);
		out.certificate.policies = db_row_view(row);
		out.certificate.things = db_row_view(row);
		break;
	case BROKER_THING:
		out.thing.type = db_row_view(row);
		out.thing.attributes = db_row_view(row);
		out.thing.groups = db_row_view(row);
		break;
	case BROKER_GROUP:
		out.group.parent = db_row_view(row);
		out.group.policies = db_row_view(row);
		break;
	case BROKER_POLICY:
		out.policy.document = db_row_view(row);
		break;
	case BROKER_UNSET:
	case BROKER_KINDS:
		break;
	}
	TRY(db_row_end(row, err));
	return reading->each(reading->arg, &out, err);
}

enum status
db_broker_all(struct db_tx *tx, enum db_broker_kind kind,
	enum status (*each)(void *arg, const struct db_broker_row *row, struct err *err), void *arg,
	struct err *err)
{
	struct reading reading = { kind, each, arg };

	assert(kind > BROKER_UNSET && kind < BROKER_KINDS);
	return db_stream(tx, &SQL[KINDS[kind].all], DB_NO_PARAMS, read_one, &reading, err);
}

enum status
db_broker_some(struct db_tx *tx, enum db_broker_kind kind, const char *const *keys, size_t count,
	enum status (*each)(void *arg, const struct db_broker_row *row, struct err *err), void *arg,
	struct err *err)
{
	own_struct(db_array) array = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;
	struct reading reading = { kind, each, arg };

	assert(kind > BROKER_UNSET && kind < BROKER_KINDS);
	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_text(&array, keys[i], err));
	TRY(db_run(tx, &SQL[KINDS[kind].some], DB_PARAMS(db_array(&array)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);

		TRY(read_one(&reading, &row, err));
	}
	return OK;
}

static enum status
concerned(struct db_tx *tx, const struct db_statement *statement, const char *const *keys, size_t count,
	void (*each)(void *arg, const char *text), void *arg, bool *more, struct err *err)
{
	own_struct(db_array) array = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;
	char text[DB_IOTCORE_KEY_BYTES + sizeof("thinggroup/")];

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_text(&array, keys[i], err));
	TRY(db_run(tx, statement, DB_PARAMS(db_array(&array), db_int64(DB_BROKER_CONCERNED_MAX + 1)),
		&rows, err));
	*more = db_rows(rows) > DB_BROKER_CONCERNED_MAX;
	for (int i = 0; !*more && i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);

		db_row_text(&row, text, sizeof(text));
		TRY(db_row_end(&row, err));
		each(arg, text);
	}
	return OK;
}

enum status
db_broker_principals(struct db_tx *tx, const char *const *things, size_t count,
	void (*each)(void *arg, const char *certificate_id), void *arg, bool *more, struct err *err)
{
	return concerned(tx, &SQL[PRINCIPALS], things, count, each, arg, more, err);
}

enum status
db_broker_targets(struct db_tx *tx, const char *const *policies, size_t count,
	void (*each)(void *arg, const char *target), void *arg, bool *more, struct err *err)
{
	return concerned(tx, &SQL[TARGETS], policies, count, each, arg, more, err);
}

/*
 * Writing
 */

static enum status
registered(struct db_tx *tx, struct db_array *ids,
	void (*each)(void *arg, const char *certificate_id, const char *ca_id, int64_t created_at_ms),
	void *arg, struct err *err)
{
	own(PGresult) rows = NULL;
	char certificate_id[65];
	char ca_id[65];

	TRY(db_run(tx, &SQL[REGISTERED], DB_PARAMS(db_array(ids)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);
		int64_t created_at_ms;

		db_row_text(&row, certificate_id, sizeof(certificate_id));
		db_row_text(&row, ca_id, sizeof(ca_id));
		created_at_ms = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		each(arg, certificate_id, ca_id, created_at_ms);
	}
	return OK;
}

enum status
db_broker_register(struct db_tx *tx, const struct db_broker_registration *list, size_t count,
	void (*each)(void *arg, const char *certificate_id, const char *ca_id, int64_t created_at_ms),
	void *arg, struct err *err)
{
	own_struct(db_array) ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) ca_ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) pems = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) not_before = DB_ARRAY(ARRAY_INT8);
	own_struct(db_array) not_after = DB_ARRAY(ARRAY_INT8);
	own(PGresult) locked = NULL;

	for (size_t i = 0; i < count; i++) {
		TRY(db_array_add_text(&ids, list[i].certificate_id, err));
		TRY(db_array_add_text(&ca_ids, list[i].ca_id, err));
		TRY(db_array_add_text(&pems, list[i].pem, err));
		TRY(db_array_add_int(&not_before, list[i].not_before_s, err));
		TRY(db_array_add_int(&not_after, list[i].not_after_s, err));
	}
	TRY(db_run(tx, &SQL[ACCOUNT_LOCK], DB_NO_PARAMS, &locked, err));
	if (db_rows(locked) == 0)
		return account_missing(err);
	TRY(db_run(tx, &SQL[REGISTER], DB_PARAMS(db_array(&ids), db_array(&ca_ids), db_array(&pems),
		db_array(&not_before), db_array(&not_after)), NULL, err));
	return registered(tx, &ids, each, arg, err);
}

enum status
db_broker_sessions(struct db_tx *tx, const struct db_broker_session *list, size_t count,
	struct err *err)
{
	own_struct(db_array) client_ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) certificate_ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) things = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) addresses = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) connected = DB_ARRAY(ARRAY_BOOL);
	own_struct(db_array) versions = DB_ARRAY(ARRAY_INT8);

	for (size_t i = 0; i < count; i++) {
		TRY(db_array_add_text(&client_ids, list[i].client_id, err));
		TRY(db_array_add_text(&certificate_ids, list[i].certificate_id, err));
		if (list[i].thing != NULL)
			TRY(db_array_add_text(&things, list[i].thing, err));
		else
			TRY(db_array_add_null(&things, err));
		TRY(db_array_add_text(&addresses, list[i].address, err));
		TRY(db_array_add_bool(&connected, list[i].connected, err));
		TRY(db_array_add_int(&versions, list[i].version, err));
	}
	return db_run(tx, &SQL[SESSIONS], DB_PARAMS(db_array(&client_ids), db_array(&certificate_ids),
		db_array(&things), db_array(&addresses), db_array(&connected), db_array(&versions)), NULL,
		err);
}

enum status
db_broker_sessions_reset(struct db_tx *tx, struct err *err)
{
	return db_run(tx, &SQL[SESSIONS_RESET], DB_NO_PARAMS, NULL, err);
}
