#include "tests/unit/server/fixture.h"

#include "server/issuance/internal.h"
#include "server/metrics.h"

static struct fixture FIX;

static int
start(void **state)
{
	(void)state;
	log_setup(2, LOG_ERROR, "test");
	fixture_start(&FIX);
	return 0;
}

static int
stop(void **state)
{
	(void)state;
	fixture_stop(&FIX);
	return 0;
}

/* Many at once, and their ends waited for. */
struct crowd {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	size_t left;
};

static void
leave(struct issuance_item *item, void *arg)
{
	struct crowd *crowd = arg;

	(void)item;
	(void)pthread_mutex_lock(&crowd->lock);
	crowd->left--;
	(void)pthread_cond_signal(&crowd->wake);
	(void)pthread_mutex_unlock(&crowd->lock);
}

static void
crowd_submit(struct crowd *crowd, struct issuance_item *items, size_t count)
{
	struct issuance_item **list = mem_array(count, sizeof(struct issuance_item *));
	struct err err;

	*crowd = (struct crowd){ PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, count };
	assert_non_null(list);
	for (size_t i = 0; i < count; i++) {
		items[i].done = leave;
		items[i].arg = crowd;
		list[i] = &items[i];
	}
	CHECK(issuance_submit(FIX.app.issuance, list, count, &err));
	mem_free(list);
}

static void
crowd_wait(struct crowd *crowd)
{
	(void)pthread_mutex_lock(&crowd->lock);
	while (crowd->left > 0)
		(void)pthread_cond_wait(&crowd->wake, &crowd->lock);
	(void)pthread_mutex_unlock(&crowd->lock);
}

struct many {
	struct issuance_item *items;
	struct ca_csr *csrs;
	size_t count;
};

static void
many_make(struct many *many, size_t count, const char *prefix)
{
	many->items = mem_array(count, sizeof(*many->items));
	many->csrs = mem_array(count, sizeof(*many->csrs));
	many->count = count;
	assert_non_null(many->items);
	assert_non_null(many->csrs);
	for (size_t i = 0; i < count; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "%s-%zu", prefix, i);
		fixture_csr(&many->csrs[i]);
		fixture_item(&many->items[i], &FIX, name, &many->csrs[i]);
	}
}

static void
many_free(struct many *many)
{
	for (size_t i = 0; i < many->count; i++) {
		db_certificate_free(&many->items[i].certificate);
		ca_csr_free(&many->csrs[i]);
	}
	mem_free(many->items);
	mem_free(many->csrs);
}

static void
want_status(const struct issuance_item *item, enum status want, const char *want_code)
{
	if (item->status != want || (want != OK && strcmp(item->err.code, want_code) != 0))
		fail_msg("%s: %s %s wanted, %s %s (%s) found", item->request.device_id,
			status_name(want), want_code, status_name(item->status),
			item->status == OK ? "" : item->err.code,
			item->status == OK ? "" : item->err.text);
}

/* What was given up is closed after its clients have heard of it, and there is no event to wait for. */
static void
no_intent_is_left(void)
{
	for (int i = 0; i < 300; i++) {
		if (fixture_number(&FIX, "SELECT count(*) FROM jitrca.intent") == 0)
			return;
		(void)usleep(10000);
	}
	fail_msg("an intent is left open");
}

static void
invariant_2_what_is_released_is_on_record_and_verifies(void **state)
{
	struct issuance_item item;
	struct ca_csr csr;
	const char *ca_id;
	struct err err;
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(db_certificate) row = { .status = CERT_UNSET };

	(void)state;
	fixture_csr(&csr);
	fixture_item(&item, &FIX, "one", &csr);
	CHECK(issuance_issue(FIX.app.issuance, &item, &err));
	assert_false(item.replayed);
	CHECK(ca_trust_verify(FIX.app.trust, view_of(&item.certificate.der),
		clock_wall_s(&CLOCK_SYSTEM), true, &ca_id, &err));
	assert_string_equal(ca_id, "issuing-1");
	CHECK(db_tx_begin(&tx, FIX.app.pool, &err));
	CHECK(db_certificate_by_sha256(&tx, item.certificate.sha256, &row, &err));
	/* What the pipeline fills in without reading back is what the row says. */
	assert_true(view_equal(view_of(&row.der), view_of(&item.certificate.der)));
	assert_string_equal(row.subject, item.certificate.subject);
	assert_string_equal(row.ca_id, item.certificate.ca_id);
	assert_string_equal(row.principal_id, item.certificate.principal_id);
	assert_string_equal(row.manifest_id, item.certificate.manifest_id);
	assert_string_equal(row.device_status, item.certificate.device_status);
	assert_int_equal(row.status, item.certificate.status);
	assert_int_equal(row.not_before_s, item.certificate.not_before_s);
	assert_int_equal(row.not_after_s, item.certificate.not_after_s);
	assert_int_equal(row.issued_at_s, item.certificate.issued_at_s);
	assert_int_equal(row.has_predecessor, item.certificate.has_predecessor);
	no_intent_is_left();
	db_certificate_free(&item.certificate);
	ca_csr_free(&csr);
}

struct client {
	pthread_t thread;
	struct many many;
};

static void *
client_run(void *arg)
{
	struct client *client = arg;
	struct crowd crowd;

	crowd_submit(&crowd, client->many.items, client->many.count);
	crowd_wait(&crowd);
	return NULL;
}

static void
a_crowd_is_served_and_no_serial_is_given_twice(void **state)
{
	enum { CLIENTS = 8, EACH = 150 };
	static struct client clients[CLIENTS];

	(void)state;
	for (size_t i = 0; i < CLIENTS; i++) {
		char prefix[16];

		(void)snprintf(prefix, sizeof(prefix), "crowd%zu", i);
		many_make(&clients[i].many, EACH, prefix);
	}
	for (size_t i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&clients[i].thread, NULL, client_run, &clients[i]), 0);
	for (size_t i = 0; i < CLIENTS; i++) {
		(void)pthread_join(clients[i].thread, NULL);
		for (size_t j = 0; j < EACH; j++)
			want_status(&clients[i].many.items[j], OK, "");
		many_free(&clients[i].many);
	}
	assert_int_equal(fixture_number(&FIX, "SELECT count(DISTINCT serial) FROM jitrca.certificate"
		" WHERE device_id LIKE 'crowd%'"), CLIENTS * EACH);
	no_intent_is_left();
}

static void
invariant_4_concurrent_repeats_share_one_result(void **state)
{
	enum { REPEATS = 24 };
	struct issuance_item items[REPEATS];
	struct crowd crowd;
	struct ca_csr csr;
	size_t fresh = 0;

	(void)state;
	fixture_csr(&csr);
	for (size_t i = 0; i < REPEATS; i++) {
		fixture_item(&items[i], &FIX, "repeat", &csr);
		items[i].idempotency_key = "key-1";
	}
	crowd_submit(&crowd, items, REPEATS);
	crowd_wait(&crowd);
	for (size_t i = 0; i < REPEATS; i++) {
		want_status(&items[i], OK, "");
		fresh += !items[i].replayed;
		assert_memory_equal(items[i].certificate.sha256, items[0].certificate.sha256, 32);
		assert_true(view_equal(view_of(&items[i].certificate.der),
			view_of(&items[0].certificate.der)));
	}
	assert_int_equal(fresh, 1);
	for (size_t i = 0; i < REPEATS; i++)
		db_certificate_free(&items[i].certificate);

	/* The same key with other fields is an error. */
	fixture_item(&items[0], &FIX, "repeat-other", &csr);
	items[0].idempotency_key = "key-1";
	crowd_submit(&crowd, items, 1);
	crowd_wait(&crowd);
	want_status(&items[0], ERR_CONFLICT, "idempotency_key_reused");
	ca_csr_free(&csr);
}

static void
two_for_one_device_are_not_put_into_one_batch(void **state)
{
	struct many many;
	struct crowd crowd;
	size_t won = 0;

	(void)state;
	many_make(&many, 20, "x");
	for (size_t i = 0; i < many.count; i++)
		(void)snprintf(many.items[i].request.device_id,
			sizeof(many.items[i].request.device_id), "the-same");
	crowd_submit(&crowd, many.items, many.count);
	crowd_wait(&crowd);
	for (size_t i = 0; i < many.count; i++) {
		won += many.items[i].status == OK;
		if (many.items[i].status != OK)
			want_status(&many.items[i], ERR_CONFLICT, "device_has_certificate");
	}
	assert_int_equal(won, 1);
	many_free(&many);
}

static void
rework_names_what_it_replaced(void **state)
{
	struct issuance_item item;
	struct ca_csr csrs[3];
	struct db_cert_ref first_ref;
	uint8_t first[32];
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(csrs); i++)
		fixture_csr(&csrs[i]);
	fixture_item(&item, &FIX, "rework", &csrs[0]);
	CHECK(issuance_issue(FIX.app.issuance, &item, &err));
	memcpy(first, item.certificate.sha256, sizeof(first));
	first_ref = item.certificate.ref;
	db_certificate_free(&item.certificate);
	fixture_item(&item, &FIX, "rework", &csrs[1]);
	item.slot = SLOT_SUCCESSOR;
	item.asker = ASKER_DEVICE;
	item.predecessor = first_ref;
	CHECK(issuance_issue(FIX.app.issuance, &item, &err));
	db_certificate_free(&item.certificate);
	fixture_item(&item, &FIX, "rework", &csrs[2]);
	item.replace = true;
	CHECK(issuance_issue(FIX.app.issuance, &item, &err));
	assert_true(item.certificate.has_predecessor);
	assert_memory_equal(item.certificate.predecessor, first, sizeof(first));
	assert_int_equal(fixture_number(&FIX, "SELECT count(*) FROM jitrca.certificate WHERE"
		" device_id = 'rework' AND status = 'revoked'"), 2);
	/* Each has the end in its own history (invariant 8). */
	assert_int_equal(fixture_number(&FIX, "SELECT count(*) FROM jitrca.certificate c JOIN"
		" jitrca.audit_item i ON i.object = 'certificate:' || encode(c.sha256, 'hex')"
		" WHERE c.device_id = 'rework' AND c.status = 'revoked' AND"
		" convert_from(i.body, 'UTF8')::jsonb ->> 'change' = 'revoked'"), 2);
	db_certificate_free(&item.certificate);
	for (size_t i = 0; i < COUNT_OF(csrs); i++)
		ca_csr_free(&csrs[i]);
}

static void
a_refused_item_costs_the_others_nothing(void **state)
{
	struct many many;
	struct crowd crowd;

	(void)state;
	many_make(&many, 9, "mixed");
	many.items[2].validity_s = INT64_C(100000) * DAY_S;        /* the signer refuses */
	many.items[5].profile = &FIX.app.profiles[1];              /* Admit refuses: no such station */
	many.items[5].slot = SLOT_MANY;
	crowd_submit(&crowd, many.items, many.count);
	crowd_wait(&crowd);
	for (size_t i = 0; i < many.count; i++) {
		if (i == 2)
			want_status(&many.items[i], ERR_ARGUMENT, "validity_too_long");
		else if (i == 5)
			want_status(&many.items[i], ERR_NOT_FOUND, "principal_unknown");
		else
			want_status(&many.items[i], OK, "");
	}
	no_intent_is_left();
	many_free(&many);
}

/* ---- what breaks on the way ---- */

/* Holds the intents until Admit waits for them, so that what happens next happens in mid-way. */
static PGconn *
hold_admit(void)
{
	PGconn *holder = fixture_connect(FIX.database_url);

	fixture_exec(holder, "BEGIN");
	fixture_exec(holder, "LOCK TABLE jitrca.intent_round IN EXCLUSIVE MODE");
	return holder;
}

static void
await_waiting_admit(void)
{
	for (int i = 0; i < 1000; i++) {
		if (fixture_number(&FIX, "SELECT count(*) FROM pg_locks WHERE NOT granted AND"
		    " relation = 'jitrca.intent_round'::regclass") > 0)
			return;
		(void)usleep(10000); /* there is no event for another backend's wait */
	}
	fail_msg("Admit did not come");
}

static void
release_admit(PGconn *holder)
{
	fixture_exec(holder, "COMMIT");
	PQfinish(holder);
}

static void
invariant_1_a_signer_that_dies_in_mid_way_leaves_nothing_half_issued(void **state)
{
	PGconn *holder = hold_admit();
	struct many many;
	struct crowd crowd;

	(void)state;
	many_make(&many, 5, "death");
	crowd_submit(&crowd, many.items, many.count);
	await_waiting_admit();
	fixture_signer_kill(&FIX);
	release_admit(holder);
	crowd_wait(&crowd);
	for (size_t i = 0; i < many.count; i++) {
		want_status(&many.items[i], ERR_UNAVAILABLE, "signer_away");
		assert_true(many.items[i].err.retry_after_s > 0);
	}
	/* While it is away the answer is as clear. */
	crowd_submit(&crowd, many.items, many.count);
	crowd_wait(&crowd);
	want_status(&many.items[0], ERR_UNAVAILABLE, "signer_away");
	no_intent_is_left();
	assert_int_equal(fixture_number(&FIX, "SELECT count(*) FROM jitrca.certificate WHERE device_id"
		" LIKE 'death%'"), 0);
	assert_int_equal(fixture_number(&FIX, "SELECT count(*) FROM jitrca.audit_record WHERE action ="
		" 'intent.orphan'"), 1);
	assert_int_equal(fixture_number(&FIX, "SELECT count(*) FROM jitrca.revocation r WHERE NOT EXISTS"
		" (SELECT FROM jitrca.certificate c WHERE c.serial = r.serial)"), 5);

	/* A new signer, and the same requests succeed. */
	fixture_signer_start(&FIX);
	crowd_submit(&crowd, many.items, many.count);
	crowd_wait(&crowd);
	for (size_t i = 0; i < many.count; i++)
		want_status(&many.items[i], OK, "");
	many_free(&many);
}

static void
invariant_1_what_cannot_be_recorded_is_not_released(void **state)
{
	struct many many;
	struct crowd crowd;

	(void)state;
	fixture_exec(FIX.sql, "CREATE FUNCTION jitrca.test_refuse() RETURNS trigger LANGUAGE plpgsql AS"
		" $$ BEGIN IF NEW.device_id = 'record-3' THEN RAISE EXCEPTION 'refused for a test';"
		" END IF; RETURN NEW; END $$");
	fixture_exec(FIX.sql, "CREATE TRIGGER test_refuse BEFORE INSERT ON jitrca.certificate"
		" FOR EACH ROW EXECUTE FUNCTION jitrca.test_refuse()");
	many_make(&many, 8, "record");
	crowd_submit(&crowd, many.items, many.count);
	crowd_wait(&crowd);
	for (size_t i = 0; i < many.count; i++) {
		if (i == 3) {
			assert_int_not_equal(many.items[i].status, OK);
			assert_int_equal(many.items[i].certificate.der.len, 0);
		} else {
			want_status(&many.items[i], OK, "");
		}
	}
	no_intent_is_left();
	/* What may have been signed is listed as revoked. */
	assert_int_equal(fixture_number(&FIX, "SELECT count(*) FROM jitrca.audit_item i JOIN"
		" jitrca.revocation r ON 'serial:' || encode(r.serial, 'hex') = i.object"
		" WHERE convert_from(i.body, 'UTF8')::json->>'identity' ="
		" 'record-3'"), 1);
	fixture_exec(FIX.sql, "DROP TRIGGER test_refuse ON jitrca.certificate");
	crowd_submit(&crowd, &many.items[3], 1);
	crowd_wait(&crowd);
	want_status(&many.items[3], OK, "");
	many_free(&many);
}

static void
without_its_session_the_server_admits_nothing(void **state)
{
	int32_t instance_id = FIX.app.instance_id;
	struct issuance_item item;
	struct ca_csr csr;
	struct err err;

	(void)state;
	FIX.app.instance_id = 0;
	fixture_csr(&csr);
	fixture_item(&item, &FIX, "no-session", &csr);
	assert_int_equal(issuance_issue(FIX.app.issuance, &item, &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "database_away");
	assert_true(err.retry_after_s > 0);
	FIX.app.instance_id = instance_id;
	CHECK(issuance_issue(FIX.app.issuance, &item, &err));
	db_certificate_free(&item.certificate);
	ca_csr_free(&csr);
}

static void
a_device_busy_on_another_server_is_waited_for(void **state)
{
	struct db_session *other;
	struct db_admit_item theirs = {
		.principal_id = "admin", .idempotency_key = "busy-key", .identity = "busy",
		.profile = "device", .slot = SLOT_CURRENT, .thing_type = "", .attributes = "{}",
		.ref = { .issuer_id = FIX.app.issuing->issuer_id },
		.not_after_s = clock_wall_s(&CLOCK_SYSTEM) + DAY_S,
	};
	struct db_orphan orphan;
	struct issuance_item item;
	struct crowd crowd;
	struct ca_csr csr;
	size_t count;
	struct err err;

	(void)state;
	fixture_csr(&csr);
	fixture_item(&item, &FIX, "busy", &csr);
	item.idempotency_key = "busy-key";
	memcpy(theirs.request_hash, item.request_hash, sizeof(theirs.request_hash));
	memcpy(theirs.spki_sha256, csr.spki_sha256, sizeof(theirs.spki_sha256));
	CHECK(serial_draw(&theirs.ref.serial, theirs.not_after_s, &ENTROPY_SYSTEM, &err));
	CHECK(db_session_begin(&other, FIX.database_url, &err));
	{
		own_struct(db_tx) tx = { NULL, NULL };

		CHECK(db_tx_begin(&tx, FIX.app.pool, &err));
		CHECK(db_issuance_admit(&tx, db_session_instance_id(other), &theirs, 1, &err));
		CHECK(db_tx_commit(&tx, &err));
		assert_int_equal(theirs.admission, ADMISSION_ADMITTED);
	}
	crowd_submit(&crowd, &item, 1);
	while (metric_get(METRIC_ISSUANCE_BUSY) < 3)
		(void)usleep(5000);
	assert_int_equal(crowd.left, 1);
	/* The other server dies; its intent is closed, and the request here goes on. */
	db_session_end(other);
	for (count = 0; count == 0;) {
		own_struct(db_tx) tx = { NULL, NULL };

		CHECK(db_tx_begin(&tx, FIX.app.pool, &err));
		CHECK(db_issuance_reap(&tx, FIX.app.instance_id, NULL, 0, &orphan, 1, &count, &err));
		CHECK(db_tx_commit(&tx, &err));
	}
	crowd_wait(&crowd);
	want_status(&item, OK, "");
	assert_false(item.replayed);
	db_certificate_free(&item.certificate);
	ca_csr_free(&csr);
}

static void
a_full_queue_takes_nothing(void **state)
{
	PGconn *holder = hold_admit();
	struct many first;
	struct crowd crowd;
	struct issuance_item **list = mem_array(ISSUANCE_QUEUE_MAX, sizeof(struct issuance_item *));
	struct err err;

	(void)state;
	assert_non_null(list);
	many_make(&first, 1, "queue");
	crowd_submit(&crowd, first.items, 1);
	await_waiting_admit();
	/* Not looked at: the count alone refuses. */
	assert_int_equal(issuance_submit(FIX.app.issuance, list, ISSUANCE_QUEUE_MAX, &err),
		ERR_UNAVAILABLE);
	assert_string_equal(err.code, "queue_full");
	assert_true(err.retry_after_s > 0);
	release_admit(holder);
	crowd_wait(&crowd);
	want_status(&first.items[0], OK, "");
	many_free(&first);
	mem_free(list);
}

static void
invariant_12_a_blocked_key_is_told_to_the_signer(void **state)
{
	struct issuance_item item;
	struct ca_csr csr;
	struct err err;

	(void)state;
	fixture_csr(&csr);
	fixture_item(&item, &FIX, "blocked", &csr);
	CHECK(issuance_issue(FIX.app.issuance, &item, &err));
	db_certificate_free(&item.certificate);
	fixture_exec(FIX.sql, "UPDATE jitrca.key_claim SET blocked_at = now() WHERE identity = 'blocked'");
	issuance_note_blocked(FIX.app.issuance);
	/* Prepare comes before Admit, so this is the signer's own refusal. */
	assert_int_equal(issuance_issue(FIX.app.issuance, &item, &err), ERR_DENIED);
	assert_string_equal(err.code, "public_key_blocked");
	fixture_exec(FIX.sql, "UPDATE jitrca.key_claim SET blocked_at = NULL WHERE identity = 'blocked'");
	assert_int_equal(issuance_issue(FIX.app.issuance, &item, &err), ERR_DENIED);
	/* And a fresh signer hears it before it signs anything. */
	fixture_exec(FIX.sql, "UPDATE jitrca.key_claim SET blocked_at = now() WHERE identity = 'blocked'");
	fixture_signer_kill(&FIX);
	fixture_signer_start(&FIX);
	assert_int_equal(issuance_issue(FIX.app.issuance, &item, &err), ERR_DENIED);
	assert_string_equal(err.code, "public_key_blocked");
	ca_csr_free(&csr);
}

static void
metrics_count_what_was_done(void **state)
{
	own_struct(buf) out = { .limit_bytes = 65536 };
	struct err err;

	(void)state;
	CHECK(metrics_print(&out, &err));
	CHECK(buf_add(&out, "", 1, &err));
	assert_non_null(strstr((const char *)out.data, "result=\"issued\"} "));
	assert_non_null(strstr((const char *)out.data, "jitrca_issuance_queue 0\n"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(invariant_2_what_is_released_is_on_record_and_verifies),
		cmocka_unit_test(a_crowd_is_served_and_no_serial_is_given_twice),
		cmocka_unit_test(invariant_4_concurrent_repeats_share_one_result),
		cmocka_unit_test(two_for_one_device_are_not_put_into_one_batch),
		cmocka_unit_test(rework_names_what_it_replaced),
		cmocka_unit_test(a_refused_item_costs_the_others_nothing),
		cmocka_unit_test(invariant_1_a_signer_that_dies_in_mid_way_leaves_nothing_half_issued),
		cmocka_unit_test(invariant_1_what_cannot_be_recorded_is_not_released),
		cmocka_unit_test(without_its_session_the_server_admits_nothing),
		cmocka_unit_test(a_device_busy_on_another_server_is_waited_for),
		cmocka_unit_test(a_full_queue_takes_nothing),
		cmocka_unit_test(invariant_12_a_blocked_key_is_told_to_the_signer),
		cmocka_unit_test(metrics_count_what_was_done),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
