/*
 * What the searches of the API cost: each is run as the server runs it, its plan is read, and what was
 * read for a page must be in proportion to the page, not to the fleet. JITRCA_TEST_FLEET is how many
 * certificates there are; the table in docs/architecture.md was made with 400 000.
 */
#include "tests/unit/db/fleet.h"

#include "base/mem.h"
#include "db/audit.h"
#include "db/conn.h"
#include "db/doctor.h"
#include "db/manifest.h"
#include "db/principal.h"
#include "db/report.h"
#include "db/succession.h"

#define FLEET_DEFAULT 20000
#define PAGE 20
/* Rows for a page: the page itself out of each part that its order is merged from, and what hangs on
 * each row; far below what a walk over a month, a station or a profile of this fleet would read. */
#define ROWS_MOST 600
#define BUFFERS_MOST 3000

struct plans {
	struct db_tx tx;
	int64_t rows, buffers; /* of all statements since plans_begin */
	char indexes[512];
	bool scanned; /* a table as a whole */
};

/* What was read: every scan's rows, with those that a filter threw away. */
static void
plan_read(void *arg, const PGresult *notice)
{
	static const char READ[] =
		"WITH n AS (SELECT x FROM jsonb_path_query($1::jsonb, 'strict $.**') x"
		" WHERE jsonb_typeof(x) = 'object' AND x ? 'Node Type'),"
		" s AS (SELECT x->>'Node Type' AS kind, x->>'Index Name' AS index,"
		" x->>'Relation Name' AS relation, (x->>'Actual Loops')::numeric AS loops,"
		" ((x->>'Actual Rows')::numeric + coalesce((x->>'Rows Removed by Filter')::numeric, 0) +"
		" coalesce((x->>'Rows Removed by Index Recheck')::numeric, 0)) *"
		" (x->>'Actual Loops')::numeric AS rows FROM n"
		" WHERE x->>'Node Type' ~ 'Index.*Scan|Seq Scan|Bitmap Heap Scan')"
		" SELECT coalesce(sum(rows), 0)::bigint,"
		" (SELECT coalesce((x->>'Shared Hit Blocks')::bigint, 0) +"
		" coalesce((x->>'Shared Read Blocks')::bigint, 0) FROM n LIMIT 1),"
		" string_agg(DISTINCT regexp_replace(index, '^certificate_[0-9]+_', 'certificate_'), ' ')"
		" FILTER (WHERE loops > 0 AND rows > 0),"
		" coalesce(bool_or(kind = 'Seq Scan' AND loops > 0 AND relation <> 'issuer'), false)"
		" FROM s";
	struct plans *plans = arg;
	const char *message = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
	const char *plan = message != NULL ? strchr(message, '{') : NULL;
	PGresult *rows;

	if (plan == NULL)
		return;
	rows = PQexecParams(world_pg, READ, 1, NULL, &plan, NULL, NULL, 0);
	if (PQresultStatus(rows) != PGRES_TUPLES_OK)
		fail_msg("%s", PQresultErrorMessage(rows));
	plans->rows += strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
	plans->buffers += strtoll(PQgetvalue(rows, 0, 1), NULL, 10);
	snprintf(plans->indexes, sizeof(plans->indexes), "%s", PQgetvalue(rows, 0, 2));
	plans->scanned = plans->scanned || PQgetvalue(rows, 0, 3)[0] == 't';
	PQclear(rows);
}

static void
plans_begin(struct plans *plans)
{
	*plans = (struct plans){ .rows = 0 };
	MUST(db_tx_begin(&plans->tx, world_pool, err));
	MUST(db_conn_exec(plans->tx.conn, "begin", "BEGIN", NULL, err));
	plans->tx.conn->unbegun = false;
	(void)PQsetNoticeReceiver(plans->tx.conn->pg, plan_read, plans);
	MUST(db_conn_exec(plans->tx.conn, "auto_explain", "LOAD 'auto_explain';"
		" SET LOCAL auto_explain.log_analyze = on; SET LOCAL auto_explain.log_buffers = on;"
		" SET LOCAL auto_explain.log_format = json; SET LOCAL auto_explain.log_level = notice;"
		" SET LOCAL client_min_messages = notice; SET LOCAL auto_explain.log_min_duration = 0",
		NULL, err));
}

static void
no_notice(void *arg, const PGresult *notice)
{
	(void)arg;
	(void)notice;
}

/* Ends it, and judges: rows_most and buffers_most are what may be read. */
static void
plans_end_within(struct plans *plans, const char *label, size_t found, int64_t rows_most,
	int64_t buffers_most)
{
	/* A portal ends, and tells its plan, when the next one begins. */
	MUST(db_conn_exec(plans->tx.conn, "auto_explain",
		"SET LOCAL auto_explain.log_min_duration = -1", NULL, err));
	(void)PQsetNoticeReceiver(plans->tx.conn->pg, no_notice, NULL);
	db_tx_end(&plans->tx);
	print_message("| %s | %s | %lld | %lld |\n", label, plans->indexes, (long long)plans->rows,
		(long long)plans->buffers);
	if (plans->indexes[0] == '\0' && plans->rows == 0)
		fail_msg("%s: no plan was seen", label);
	if (plans->scanned)
		fail_msg("%s: a table is read as a whole", label);
	if (found == 0)
		fail_msg("%s: nothing was found, so nothing was measured", label);
	if (plans->buffers > buffers_most)
		fail_msg("%s: at most %lld buffers wanted for a page of %d, %lld read", label,
			(long long)buffers_most, PAGE, (long long)plans->buffers);
	if (plans->rows > rows_most)
		fail_msg("%s: at most %lld rows wanted for a page of %d, %lld read", label,
			(long long)rows_most, PAGE, (long long)plans->rows);
}

static void
plans_end(struct plans *plans, const char *label, size_t found)
{
	plans_end_within(plans, label, found, ROWS_MOST, BUFFERS_MOST);
}

static int
fleet_setup(void **state)
{
	const char *size = getenv("JITRCA_TEST_FLEET");

	if (world_setup(state) != 0)
		return -1;
	fleet_people();
	fleet_certificates(size != NULL ? (int)strtol(size, NULL, 10) : FLEET_DEFAULT);
	return 0;
}

typedef struct db_device db_device_t;
OWNER(db_device_t, mem_free)

#define DAY 86400
#define FILTER(...) .filter = { __VA_ARGS__ }

static void
a_page_of_certificates_costs_a_page(void **state)
{
	const int64_t now = world_now;
	const struct {
		const char *label;
		struct db_certificate_filter filter;
		int64_t from_s; /* a page in the middle */
	} cases[] = {
		{ .label = "none", FILTER(.device_id = NULL) },
		{ .label = "device_id", FILTER(.device_id = "dev-7") },
		{ .label = "station", FILTER(.principal_id = "st-3") },
		{ .label = "manifest", FILTER(.manifest_id = "m-3") },
		{ .label = "profile", FILTER(.profile = "device") },
		{ .label = "profile (rare)", FILTER(.profile = "admin") },
		{ .label = "ca (the new one)", FILTER(.issuer_id = 2) },
		{ .label = "status=active", FILTER(.status = CERT_ACTIVE) },
		{ .label = "status=pending_confirmation", FILTER(.status = CERT_PENDING_CONFIRMATION) },
		{ .label = "status=superseded", FILTER(.status = CERT_SUPERSEDED) },
		{ .label = "status=held", FILTER(.status = CERT_HELD) },
		{ .label = "status=revoked", FILTER(.status = CERT_REVOKED) },
		{ .label = "status=expired", FILTER(.status = CERT_EXPIRED) },
		{ .label = "issued_after", FILTER(.issued_after_s = now - 2 * DAY) },
		{ .label = "issued_after, issued_before",
		  FILTER(.issued_after_s = now - 400 * DAY, .issued_before_s = now - 399 * DAY) },
		{ .label = "expires_after", FILTER(.expires_after_s = now + 340 * DAY) },
		{ .label = "expires_before", FILTER(.expires_before_s = now - 300 * DAY) },
		{ .label = "expires_after, expires_before",
		  FILTER(.expires_after_s = now + 10 * DAY, .expires_before_s = now + 11 * DAY) },
		{ .label = "status=active, expires_before",
		  FILTER(.status = CERT_ACTIVE, .expires_before_s = now + 30 * DAY) },
		{ .label = "status=active, profile", FILTER(.status = CERT_ACTIVE, .profile = "device") },
		{ .label = "status=active, profile (rare)",
		  FILTER(.status = CERT_ACTIVE, .profile = "admin") },
		{ .label = "status=revoked, station",
		  FILTER(.status = CERT_REVOKED, .principal_id = "st-3") },
		{ .label = "status=revoked, profile", FILTER(.status = CERT_REVOKED, .profile = "admin") },
		{ .label = "status=revoked, issued_after",
		  FILTER(.status = CERT_REVOKED, .issued_after_s = now - 60 * DAY) },
		{ .label = "station, issued_after",
		  FILTER(.principal_id = "st-3", .issued_after_s = now - 10 * DAY) },
		{ .label = "station, profile", FILTER(.principal_id = "st-3", .profile = "device") },
		{ .label = "profile, issued_after",
		  FILTER(.profile = "device", .issued_after_s = now - DAY) },
		{ .label = "issued_after, a late page",
		  FILTER(.issued_after_s = now - 1000 * DAY), .from_s = now - 300 * DAY },
		{ .label = "expires_after, a late page",
		  FILTER(.expires_after_s = now - 600 * DAY), .from_s = now + 30 * DAY },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct db_certificate_filter filter = cases[i].filter;
		struct db_certificate page[PAGE];
		struct db_certificate_cursor from = { .set = cases[i].from_s != 0,
			.at_us = cases[i].from_s * 1000000 };
		struct db_certificate_cursor next;
		struct plans plans;
		size_t n = 0;

		filter.now_s = world_now;
		plans_begin(&plans);
		MUST(db_certificate_search(&plans.tx, &filter, &from, PAGE, page, &n, &next, err));
		for (size_t r = 0; r < n; r++)
			db_certificate_free(&page[r]);
		plans_end(&plans, cases[i].label, n);
	}
}

static void
a_page_of_anything_else_costs_a_page(void **state)
{
	static const struct {
		const char *label, *status, *thing_type;
	} devices[] = {
		{ "devices", NULL, NULL },
		{ "devices: status=active", "active", NULL },
		{ "devices: status=quarantined", "quarantined", NULL },
		{ "devices: thing_type", NULL, "t-3" },
		{ "devices: status=quarantined, thing_type", "quarantined", "t-1" },
	};
	static const struct db_late_rule rules[] = { { "device", 44 * DAY }, { "short", DAY } };
	const struct db_certificate_cursor start = { .set = false };
	struct db_certificate_cursor after;
	const struct {
		const char *label;
		struct db_audit_filter filter;
	} audits[] = {
		{ "audit", { NULL, NULL, NULL, 0, 0 } },
		{ "audit: actor", { .actor = "st-3" } },
		{ "audit: action", { .action = "device.quarantine" } },
		{ "audit: object", { .object = "device:dev-3" } },
		{ "audit: since", { .since_s = world_now - 50 } },
	};
	own(db_device_t) rows = mem_array(PAGE, sizeof(*rows));
	struct plans plans;
	size_t n = 0;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(devices); i++) {
		plans_begin(&plans);
		MUST(db_device_list(&plans.tx, devices[i].status, devices[i].thing_type, NULL, PAGE, rows,
			&n, err));
		plans_end(&plans, devices[i].label, n);
	}
	plans_begin(&plans);
	MUST(db_device_list_late(&plans.tx, rules, COUNT_OF(rules), world_now, &start, PAGE, rows, &n, &after,
		err));
	plans_end(&plans, "devices: late", n);
	for (size_t i = 0; i < COUNT_OF(audits); i++) {
		struct db_audit_record records[PAGE];
		struct db_audit_cursor next;

		plans_begin(&plans);
		MUST(db_audit_search(&plans.tx, &audits[i].filter, NULL, PAGE, records, &n, &next, err));
		for (size_t r = 0; r < n; r++)
			db_audit_record_free(&records[r]);
		plans_end(&plans, audits[i].label, n);
	}
}

static enum status
looked_at(void *arg, const struct db_report_row *row, struct err *err)
{
	struct db_report_place *place = arg;

	(void)err;
	*place = row->place;
	return OK;
}

/* From the beginning, and from within: what is before a place is not read again. */
static void
a_page_of_a_report_costs_a_page(void **state)
{
	struct db_report_place place = { .begun = false };
	struct db_report_place middle = { .begun = false };
	struct plans plans;
	size_t n = 0;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		plans_begin(&plans);
		MUST(db_report_page(&plans.tx, &place, PAGE, looked_at, &middle, &n, err));
		plans_end(&plans, "report", n);
		place = middle;
		place.month += (int32_t)i * 10;
	}
}

/* Of the old CA nearly all has been superseded or is over: that is not read to count the rest. */
static void
counting_what_lives_of_a_ca_costs_what_is_counted(void **state)
{
	struct plans plans;
	int64_t live, unseen;

	(void)state;
	for (int32_t issuer = 1; issuer <= 2; issuer++) {
		plans_begin(&plans);
		MUST(db_succession_live(&plans.tx, issuer, world_now, PAGE, &live, &unseen, err));
		plans_end(&plans, issuer == 1 ? "live of the old CA" : "live of the new CA", (size_t)live);
		assert_int_equal(live, PAGE);
		assert_int_equal(unseen, PAGE);
	}
}

static void
a_page_of_people_and_work_orders_costs_a_page(void **state)
{
	struct db_principal principals[PAGE];
	struct db_manifest manifests[PAGE];
	struct db_station stations[PAGE];
	struct db_token tokens[PAGE];
	struct plans plans;
	size_t n = 0;

	(void)state;
	plans_begin(&plans);
	MUST(db_manifest_list(&plans.tx, NULL, NULL, PAGE, manifests, &n, err));
	plans_end(&plans, "manifests", n);
	plans_begin(&plans);
	MUST(db_manifest_list(&plans.tx, "st-3", NULL, PAGE, manifests, &n, err));
	plans_end(&plans, "manifests: station", n);
	plans_begin(&plans);
	MUST(db_token_list(&plans.tx, "st-3", NULL, PAGE, tokens, &n, err));
	plans_end(&plans, "tokens of a principal", n);
	plans_begin(&plans);
	MUST(db_station_list(&plans.tx, NULL, PAGE, stations, &n, err));
	plans_end(&plans, "stations", n);
	plans_begin(&plans);
	MUST(db_principal_list(&plans.tx, NULL, NULL, PAGE, principals, &n, err));
	plans_end(&plans, "principals", n);
	plans_begin(&plans);
	MUST(db_principal_list(&plans.tx, "operator", NULL, PAGE, principals, &n, err));
	plans_end(&plans, "principals: role", n);
}

static void
a_doctor_reads_samples_and_no_table_as_a_whole(void **state)
{
	static struct db_doctor_fleet fleet;
	struct db_doctor_revoked revoked;
	struct db_doctor_outbox outbox;
	struct db_doctor_server server;
	struct plans plans;
	int64_t now_s = world_now;

	(void)state;
	sql("INSERT INTO jitrca.outbox (device_id, cause, priority, created_at, due_at, failed_at)"
	    " SELECT 'out-' || n, 'x', n %% 2, now() - n * interval '1 minute', now(),"
	    " CASE WHEN n %% 10 = 0 THEN now() END FROM generate_series(1, 100) n");
	plans_begin(&plans);
	MUST(db_doctor_outbox(&plans.tx, &outbox, err));
	plans_end(&plans, "doctor: outbox", (size_t)outbox.dead);
	assert_int_equal(outbox.waiting[0], 40);
	assert_int_equal(outbox.waiting[1], 50);
	assert_int_equal(outbox.waiting[2], 0);
	assert_int_equal(outbox.dead, 10);
	assert_in_range(outbox.oldest_s[1], 99 * 60, 99 * 60 + 600);

	plans_begin(&plans);
	MUST(db_doctor_revoked(&plans.tx, 1, now_s, now_s - DAY, now_s + 90 * DAY, &revoked, err));
	plans_end_within(&plans, "doctor: revoked", (size_t)revoked.looked, DB_DOCTOR_REVOKED_MAX,
		2 * DB_DOCTOR_REVOKED_MAX);
	assert_int_equal(revoked.looked, count("revocation WHERE issuer_id = 1"
		" AND not_after > to_timestamp(%lld)", (long long)now_s));
	assert_int_equal(revoked.recent, revoked.looked); /* all of them today */
	assert_int_equal(revoked.ending, count("revocation WHERE issuer_id = 1 AND not_after >"
		" to_timestamp(%lld) AND not_after < to_timestamp(%lld)", (long long)now_s,
		(long long)now_s + 90 * DAY));

	MUST(db_tx_begin(&plans.tx, world_pool, err));
	MUST(db_doctor_patience(&plans.tx, err));
	MUST(db_doctor_server(&plans.tx, &server, err));
	MUST(db_doctor_fleet(&plans.tx, now_s, &fleet, err));
	db_tx_end(&plans.tx);
	assert_false(server.standby);
	assert_in_range(server.now_s, now_s, now_s + 3600);
	if (fleet.percent >= 100) /* a fleet of this size is read whole: nothing is guessed */
		assert_int_equal(fleet.sampled, count("certificate WHERE status = 'active' AND"
			" of_device AND not_after > to_timestamp(%lld)", (long long)now_s));
	assert_true(fleet.week_count > 10);
	assert_true(fleet.weeks[0].count >= fleet.weeks[1].count);
	sql("DELETE FROM jitrca.outbox WHERE device_id LIKE 'out-%%'");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_page_of_certificates_costs_a_page),
		cmocka_unit_test(a_page_of_anything_else_costs_a_page),
		cmocka_unit_test(a_page_of_a_report_costs_a_page),
		cmocka_unit_test(counting_what_lives_of_a_ca_costs_what_is_counted),
		cmocka_unit_test(a_page_of_people_and_work_orders_costs_a_page),
		cmocka_unit_test(a_doctor_reads_samples_and_no_table_as_a_whole),
	};

	return cmocka_run_group_tests(tests, fleet_setup, world_teardown);
}
