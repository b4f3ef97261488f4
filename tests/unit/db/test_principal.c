#include "tests/unit/db/db_test.h"

#include <pthread.h>

#include "db/principal.h"

static struct db_principal
principal_of(const char *id, const char *role)
{
	struct db_principal principal = { .description = "one \"of\" us", .created_by = "root",
		.created_at_s = 1795536842 };

	(void)snprintf(principal.principal_id, sizeof(principal.principal_id), "%s", id);
	(void)snprintf(principal.role, sizeof(principal.role), "%s", role);
	return principal;
}

static void
add_principal(struct db_tx *tx, const char *id, const char *role)
{
	struct db_principal principal = principal_of(id, role);

	assert_ok(db_principal_create(tx, &principal, err));
}

static void
a_principal_is_read_as_it_was_written(void **state)
{
	struct db_tx *tx = *state;
	struct db_principal found;

	add_principal(tx, "ann", "admin");
	assert_ok(db_principal_find(tx, "ann", &found, err));
	assert_string_equal(found.principal_id, "ann");
	assert_string_equal(found.role, "admin");
	assert_string_equal(found.description, "one \"of\" us");
	assert_string_equal(found.created_by, "root");
	assert_int_equal(found.created_at_s, 1795536842);
	assert_int_equal(found.disabled_at_s, 0);
}

static void
an_id_is_used_once(void **state)
{
	struct db_tx *tx = *state;
	struct db_principal again = principal_of("ann", "operator");
	struct db_principal found;

	add_principal(tx, "ann", "admin");
	assert_refused(db_principal_create(tx, &again, err), ERR_CONFLICT, "principal_exists");
	/* The transaction lives on. */
	assert_refused(db_principal_find(tx, "bob", &found, err), ERR_NOT_FOUND, "principal_unknown");
	sql_refused(tx, "INSERT INTO jitrca.principal VALUES ('no id', 'admin', '', now(), 'x')", "23514");
	sql_refused(tx, "INSERT INTO jitrca.principal VALUES ('eve', 'god', '', now(), 'x')", "23514");
}

static void
principals_page_by_id_and_role(void **state)
{
	struct db_tx *tx = *state;
	struct db_principal page[8];
	size_t count;

	add_principal(tx, "ann", "admin");
	add_principal(tx, "bob", "operator");
	add_principal(tx, "cyd", "auditor");
	add_principal(tx, "line-1", "station");
	assert_ok(db_principal_list(tx, NULL, NULL, 2, page, &count, err));
	assert_int_equal(count, 2);
	assert_string_equal(page[0].principal_id, "ann");
	assert_string_equal(page[1].principal_id, "bob");
	assert_ok(db_principal_list(tx, NULL, "bob", 2, page, &count, err));
	assert_int_equal(count, 1); /* the station is not shown */
	assert_string_equal(page[0].principal_id, "cyd");
	assert_ok(db_principal_list(tx, "station", NULL, 8, page, &count, err));
	assert_int_equal(count, 1);
	assert_string_equal(page[0].principal_id, "line-1");
}

static void
the_last_admin_stays(void **state)
{
	struct db_tx *tx = *state;
	struct db_principal found;
	bool changed;

	add_principal(tx, "ann", "admin");
	add_principal(tx, "bob", "admin");
	add_principal(tx, "cyd", "operator");
	assert_refused(db_principal_set_disabled(tx, "eve", true, &changed, err), ERR_NOT_FOUND,
		"principal_unknown");
	assert_ok(db_principal_set_disabled(tx, "ann", true, &changed, err));
	assert_true(changed);
	assert_ok(db_principal_set_disabled(tx, "ann", true, &changed, err));
	assert_false(changed);
	assert_ok(db_principal_find(tx, "ann", &found, err));
	assert_true(found.disabled_at_s > 0);
	assert_refused(db_principal_set_disabled(tx, "bob", true, &changed, err), ERR_CONFLICT, "last_admin");
	assert_ok(db_principal_set_disabled(tx, "cyd", true, &changed, err));
	assert_true(changed);
	assert_ok(db_principal_set_disabled(tx, "ann", false, &changed, err));
	assert_true(changed);
	assert_ok(db_principal_find(tx, "ann", &found, err));
	assert_int_equal(found.disabled_at_s, 0);
	assert_ok(db_principal_set_disabled(tx, "bob", true, &changed, err));
	assert_true(changed);
}

struct disabler {
	pthread_barrier_t *start;
	const char *id;
	bool disabled;
};

static void *
disable_one(void *arg)
{
	struct disabler *d = arg;
	struct db_tx tx = { NULL, NULL };
	struct err err;
	bool changed = false;

	if (db_tx_begin(&tx, POOL, &err) == OK) {
		(void)pthread_barrier_wait(d->start);
		d->disabled = db_principal_set_disabled(&tx, d->id, true, &changed, &err) == OK && changed &&
			db_tx_commit(&tx, &err) == OK;
	} else {
		(void)pthread_barrier_wait(d->start);
	}
	db_tx_end(&tx);
	return NULL;
}

static void
admins_who_disable_each_other_leave_one(void **state)
{
	static const char *const IDS[] = { "race-0", "race-1", "race-2", "race-3" };
	struct db_tx tx = { NULL, NULL };

	(void)state;
	assert_ok(db_tx_begin(&tx, POOL, err));
	for (size_t i = 0; i < COUNT_OF(IDS); i++)
		add_principal(&tx, IDS[i], "admin");
	assert_ok(db_tx_commit(&tx, err));

	for (int round = 0; round < 20; round++) {
		pthread_t threads[COUNT_OF(IDS)];
		struct disabler work[COUNT_OF(IDS)];
		pthread_barrier_t start;
		size_t disabled = 0;

		(void)pthread_barrier_init(&start, NULL, COUNT_OF(IDS));
		for (size_t i = 0; i < COUNT_OF(IDS); i++) {
			work[i] = (struct disabler){ &start, IDS[i], false };
			assert_int_equal(pthread_create(&threads[i], NULL, disable_one, &work[i]), 0);
		}
		for (size_t i = 0; i < COUNT_OF(IDS); i++) {
			(void)pthread_join(threads[i], NULL);
			disabled += work[i].disabled;
		}
		(void)pthread_barrier_destroy(&start);
		assert_int_equal(disabled, COUNT_OF(IDS) - 1);
		assert_ok(db_tx_begin(&tx, POOL, err));
		assert_int_equal(sql_number(&tx, "SELECT count(*) FROM jitrca.principal"
			" WHERE role = 'admin' AND disabled_at IS NULL"), 1);
		sql(&tx, "UPDATE jitrca.principal SET disabled_at = NULL");
		assert_ok(db_tx_commit(&tx, err));
	}
	assert_ok(db_tx_begin(&tx, POOL, err));
	sql(&tx, "DELETE FROM jitrca.principal");
	assert_ok(db_tx_commit(&tx, err));
}

static struct db_token
token_of(const char *token_id, const char *principal_id, uint8_t fill)
{
	struct db_token token = { .description = "laptop", .created_by = "ann",
		.created_at_s = 1795536842, .expires_at_s = 1798000000 };

	(void)snprintf(token.token_id, sizeof(token.token_id), "%s", token_id);
	(void)snprintf(token.principal_id, sizeof(token.principal_id), "%s", principal_id);
	memset(token.hash, fill, sizeof(token.hash));
	return token;
}

static void
a_token_is_found_by_its_hash_with_its_principal(void **state)
{
	struct db_tx *tx = *state;
	struct db_token token = token_of("0123456789abcdef", "ann", 0xa5);
	struct db_token found_token;
	struct db_principal found_principal;
	uint8_t other[32] = { 1 };
	bool found;

	assert_refused(db_token_create(tx, &token, err), ERR_NOT_FOUND, "principal_unknown");
	add_principal(tx, "ann", "admin");
	assert_ok(db_token_create(tx, &token, err));
	assert_ok(db_token_by_hash(tx, token.hash, &found, &found_token, &found_principal, err));
	assert_true(found);
	assert_string_equal(found_token.token_id, "0123456789abcdef");
	assert_memory_equal(found_token.hash, token.hash, 32);
	assert_string_equal(found_token.description, "laptop");
	assert_string_equal(found_token.created_by, "ann");
	assert_int_equal(found_token.created_at_s, 1795536842);
	assert_int_equal(found_token.expires_at_s, 1798000000);
	assert_int_equal(found_token.revoked_at_s, 0);
	assert_string_equal(found_principal.principal_id, "ann");
	assert_string_equal(found_principal.role, "admin");
	assert_ok(db_token_by_hash(tx, other, &found, &found_token, &found_principal, err));
	assert_false(found);
}

static void
a_token_costs_one_look_into_an_index(void **state)
{
	struct db_tx *tx = *state;
	struct db_token token;
	struct db_principal principal;
	uint8_t hash[32] = { 0 };
	own(PGresult) plan = NULL;
	bool by_hash = false;
	bool found;

	sql(tx, "INSERT INTO jitrca.principal (principal_id, role, created_by)"
		" SELECT 'p' || n, 'admin', 'x' FROM generate_series(1, 2000) n");
	sql(tx, "INSERT INTO jitrca.token (token_id, principal_id, hash, created_by, expires_at)"
		" SELECT lpad(to_hex(n), 16, '0'), 'p' || n, sha256(n::text::bytea), 'x', now()"
		" FROM generate_series(1, 2000) n");
	sql(tx, "ANALYZE jitrca.principal, jitrca.token");
	assert_ok(db_token_by_hash(tx, hash, &found, &token, &principal, err)); /* prepares it */
	assert_ok(db_conn_exec(tx->conn, "plan", "EXPLAIN EXECUTE token_by_hash(sha256('7'))", &plan, err));
	for (int i = 0; i < PQntuples(plan); i++) {
		assert_null(strstr(PQgetvalue(plan, i, 0), "Seq Scan"));
		by_hash |= strstr(PQgetvalue(plan, i, 0), "token_hash_key") != NULL;
	}
	assert_true(by_hash);
}

static void
tokens_are_listed_and_revoked_within_their_principal(void **state)
{
	struct db_tx *tx = *state;
	struct db_token first = token_of("0000000000000001", "ann", 1);
	struct db_token second = token_of("0000000000000002", "ann", 2);
	struct db_token page[4];
	size_t count;
	bool changed;

	add_principal(tx, "ann", "admin");
	add_principal(tx, "bob", "operator");
	assert_ok(db_token_create(tx, &second, err));
	assert_ok(db_token_create(tx, &first, err));
	assert_ok(db_token_list(tx, "ann", NULL, 1, page, &count, err));
	assert_int_equal(count, 1);
	assert_string_equal(page[0].token_id, "0000000000000001");
	assert_ok(db_token_list(tx, "ann", page[0].token_id, 4, page, &count, err));
	assert_int_equal(count, 1);
	assert_string_equal(page[0].token_id, "0000000000000002");
	assert_ok(db_token_list(tx, "bob", NULL, 4, page, &count, err));
	assert_int_equal(count, 0);

	assert_refused(db_token_revoke(tx, "bob", "0000000000000001", &changed, err), ERR_NOT_FOUND,
		"token_unknown");
	assert_ok(db_token_revoke(tx, "ann", "0000000000000001", &changed, err));
	assert_true(changed);
	assert_ok(db_token_revoke(tx, "ann", "0000000000000001", &changed, err));
	assert_false(changed);
	assert_ok(db_token_list(tx, "ann", NULL, 4, page, &count, err));
	assert_true(page[0].revoked_at_s > 0);
	assert_int_equal(page[1].revoked_at_s, 0);
	assert_refused(db_token_create(tx, &first, err), ERR_CONFLICT, "database_conflict");
}

static struct db_station
station_of(const char *id)
{
	return (struct db_station){ .principal = principal_of(id, "admin"), /* not heeded */
		.profiles = { "device", "device-ec" }, .profile_count = 2, .rate_per_minute = 600 };
}

static void
a_station_is_a_principal_with_profiles_and_a_rate(void **state)
{
	struct db_tx *tx = *state;
	struct db_station station = station_of("line-1");
	struct db_station found;

	assert_ok(db_station_create(tx, &station, err));
	assert_ok(db_station_find(tx, "line-1", &found, err));
	assert_string_equal(found.principal.principal_id, "line-1");
	assert_string_equal(found.principal.role, "station");
	assert_int_equal(found.profile_count, 2);
	assert_string_equal(found.profiles[0], "device");
	assert_string_equal(found.profiles[1], "device-ec");
	assert_int_equal(found.rate_per_minute, 600);
	assert_int_equal(sql_number(tx, "SELECT bucket FROM jitrca.station"), 600);
	assert_refused(db_station_create(tx, &station, err), ERR_CONFLICT, "principal_exists");
	assert_refused(db_station_find(tx, "line-2", &found, err), ERR_NOT_FOUND, "station_unknown");
}

static void
a_station_can_be_given_other_profiles_and_rate(void **state)
{
	struct db_tx *tx = *state;
	struct db_station station = station_of("line-1");
	struct db_station found;

	assert_refused(db_station_update(tx, &station, err), ERR_NOT_FOUND, "station_unknown");
	assert_ok(db_station_create(tx, &station, err));
	station.profile_count = 0;
	station.rate_per_minute = 5;
	assert_ok(db_station_update(tx, &station, err));
	assert_ok(db_station_find(tx, "line-1", &found, err));
	assert_int_equal(found.profile_count, 0);
	assert_int_equal(found.rate_per_minute, 5);
	for (station.profile_count = 0; station.profile_count < 8; station.profile_count++)
		(void)snprintf(station.profiles[station.profile_count], DB_PROFILE_BYTES,
			"profile-of-thirty-two-letters-0%zu", station.profile_count);
	assert_ok(db_station_update(tx, &station, err));
	assert_ok(db_station_find(tx, "line-1", &found, err));
	assert_int_equal(found.profile_count, 8);
	assert_string_equal(found.profiles[7], "profile-of-thirty-two-letters-07");
	sql(tx, "UPDATE jitrca.station SET profiles = array_fill('p'::text, '{9}')");
	assert_refused(db_station_find(tx, "line-1", &found, err), ERR_INTERNAL, "database_shape");
}

static void
stations_page_by_id(void **state)
{
	struct db_tx *tx = *state;
	struct db_station page[4];
	size_t count;

	for (int i = 3; i > 0; i--) {
		char id[32];

		(void)snprintf(id, sizeof(id), "line-%d", i);
		struct db_station station = station_of(id);
		assert_ok(db_station_create(tx, &station, err));
	}
	assert_ok(db_station_list(tx, NULL, 2, page, &count, err));
	assert_int_equal(count, 2);
	assert_string_equal(page[1].principal.principal_id, "line-2");
	assert_ok(db_station_list(tx, "line-2", 2, page, &count, err));
	assert_int_equal(count, 1);
	assert_string_equal(page[0].principal.principal_id, "line-3");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		in_tx(a_principal_is_read_as_it_was_written),
		in_tx(an_id_is_used_once),
		in_tx(principals_page_by_id_and_role),
		in_tx(the_last_admin_stays),
		cmocka_unit_test(admins_who_disable_each_other_leave_one),
		in_tx(a_token_is_found_by_its_hash_with_its_principal),
		in_tx(a_token_costs_one_look_into_an_index),
		in_tx(tokens_are_listed_and_revoked_within_their_principal),
		in_tx(a_station_is_a_principal_with_profiles_and_a_rate),
		in_tx(a_station_can_be_given_other_profiles_and_rate),
		in_tx(stations_page_by_id),
	};

	return cmocka_run_group_tests(tests, database_make, database_drop);
}
