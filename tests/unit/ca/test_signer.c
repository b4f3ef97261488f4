/* ca/signer_local.c: what is prepared, linted, signed and refused. */
#include "tests/unit/ca/fixture.h"

#include "ca/cert.h"
#include "ca/digest.h"
#include "ca/pem.h"

static void
write_pem(const char *dir, const char *name, const char *label, struct view der)
{
	own_struct(buf) pem = { .limit_bytes = 65536 };
	struct err err;

	assert_ok(ca_pem_encode(&pem, label, der, &err));
	write_file(dir, name, buf_view(&pem));
}

static struct ca_sign_item
sign_one(struct fixture *f, uint64_t handle)
{
	struct ca_sign_item item = { .handle = handle };
	struct err err;

	assert_ok(ca_signer_sign(f->signer, &item, 1, &err));
	return item;
}

static struct ca_prepare_item
prepare_one(struct fixture *f, size_t profile, const struct ca_request *request)
{
	struct ca_prepare_item item = fixture_item(f, profile, request);
	struct err err;

	assert_ok(ca_signer_prepare(f->signer, &item, 1, &err));
	return item;
}

/* For every kind of CA key: OpenSSL and GnuTLS accept what comes out. */
static void
openssl_and_certtool_accept_what_is_signed(void **state)
{
	static const enum ca_key_type TYPES[] = { KEY_EC_P256, KEY_EC_P384, KEY_RSA_3072 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
		struct ca_request request = fixture_request();
		struct ca_prepare_item item;
		struct ca_sign_item signed_item;
		struct ca_cert_view view;
		struct fixture f;
		struct err err;
		uint8_t digest[32];

		fixture_make(&f, TYPES[i]);
		item = prepare_one(&f, 0, &request);
		assert_int_equal(item.status, OK);
		assert_int_equal(item.not_before_s, NOW_S - 300);
		assert_int_equal(item.not_after_s, NOW_S + YEAR_S);
		assert_false(item.clamped);
		assert_non_null(strstr(item.subject, "CN=sn-0001"));
		signed_item = sign_one(&f, item.handle);
		if (signed_item.status != OK)
			fail_msg("%s", signed_item.refusal.text);
		ca_sha256(digest, view_of(&signed_item.der));
		assert_memory_equal(digest, signed_item.sha256, 32);
		assert_ok(ca_cert_parse(&view, view_of(&signed_item.der), &err));
		assert_true(view.serial_ours && serial_equal(&view.serial16, &item.serial));
		ca_sha256(digest, view.tbs); /* what was linted is what was signed */
		assert_memory_equal(digest, item.tbs_sha256, 32);
		write_pem(f.dir, "leaf.pem", "CERTIFICATE", view_of(&signed_item.der));
		assert_int_equal(run("sh tests/unit/ca/check_openssl.sh leaf %s %lld", f.dir,
					 (long long)NOW_S),
			0);
		bytes_free(&signed_item.der);
		fixture_end(&f);
	}
}

/* ---- refusals of prepare ---- */

static void
unknown_profile(struct ca_prepare_item *item)
{
	item->profile_hash[31] ^= 1;
}
static void
unknown_ca(struct ca_prepare_item *item)
{
	item->ca_id = "issuing-2";
}
static void
root_ca(struct ca_prepare_item *item)
{
	item->ca_id = "root";
}
static void
wrong_asker(struct ca_prepare_item *item)
{
	item->asker = ASKER_SERVER;
}
static void
no_asker(struct ca_prepare_item *item)
{
	item->asker = (enum ca_asker)0;
}
static void
two_askers(struct ca_prepare_item *item)
{
	item->asker = (enum ca_asker)(ASKER_ADMIN | ASKER_STATION);
}
static void
cut_key(struct ca_prepare_item *item)
{
	item->spki.len--;
}
static void
no_key(struct ca_prepare_item *item)
{
	item->spki.len = 0;
}
static void
long_validity(struct ca_prepare_item *item)
{
	item->validity_s = (int64_t)4 * YEAR_S;
}
static void
negative_validity(struct ca_prepare_item *item)
{
	item->validity_s = -1;
}

static void
off_curve(struct ca_prepare_item *item)
{
	static uint8_t spki[sizeof(SPKI_P256)];

	memcpy(spki, SPKI_P256, sizeof(spki));
	spki[sizeof(spki) - 1] ^= 1;
	item->spki = VIEW(spki);
}

static void
ed25519(struct ca_prepare_item *item)
{
	static const uint8_t SPKI[44] = { 0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70,
		0x03, 0x21, 0x00, 0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe,
		0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf,
		0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a };

	item->spki = VIEW(SPKI);
}

static void
each_refusal_has_its_code(void **state)
{
	static const struct {
		void (*spoil)(struct ca_prepare_item *item);
		enum status want_status;
		const char *want_code;
	} CASES[] = {
		{ unknown_profile, ERR_DENIED, "profile_unknown" },
		{ unknown_ca, ERR_DENIED, "ca_unknown" },
		{ root_ca, ERR_DENIED, "ca_unknown" },
		{ wrong_asker, ERR_DENIED, "profile_not_allowed" },
		{ no_asker, ERR_DENIED, "profile_not_allowed" },
		{ two_askers, ERR_DENIED, "profile_not_allowed" },
		{ cut_key, ERR_ARGUMENT, "csr_malformed" },
		{ no_key, ERR_ARGUMENT, "csr_malformed" },
		{ off_curve, ERR_ARGUMENT, "csr_key_invalid" },
		{ ed25519, ERR_ARGUMENT, "csr_key_not_allowed" },
		{ long_validity, ERR_ARGUMENT, "validity_too_long" },
		{ negative_validity, ERR_ARGUMENT, "validity_invalid" },
	};
	struct ca_request request = fixture_request();
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		/* A bad item costs its neighbours nothing. */
		struct ca_prepare_item items[3] = { fixture_item(&f, 0, &request),
			fixture_item(&f, 0, &request), fixture_item(&f, 0, &request) };

		CASES[i].spoil(&items[1]);
		assert_ok(ca_signer_prepare(f.signer, items, 3, &err));
		assert_int_equal(items[0].status, OK);
		assert_int_equal(items[2].status, OK);
		assert_string_equal(items[1].refusal.code, CASES[i].want_code);
		assert_int_equal(items[1].status, CASES[i].want_status);
	}
	(void)snprintf(request.device_id, sizeof(request.device_id), "a\nb");
	assert_string_equal(prepare_one(&f, 0, &request).refusal.code, "name_invalid");
	fixture_end(&f);
}

/* The extensions were written when the signer began; then its profile says something else. */
static void
invariant_11_what_fails_lint_is_never_signed(void **state)
{
	struct ca_request request = fixture_request();
	own_struct(ca_signer_info) info = { .ca_count = 0 };
	struct ca_prepare_item item;
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	f.profiles[0].key_usage |= KU_KEY_AGREEMENT;
	item = prepare_one(&f, 0, &request);
	assert_int_equal(item.status, ERR_ARGUMENT);
	assert_string_equal(item.refusal.code, "certificate_lint");
	assert_non_null(strstr(item.refusal.text, "keyUsage"));
	assert_int_equal(item.handle, 0);
	assert_int_equal(sign_one(&f, item.handle).status, ERR_NOT_FOUND);
	assert_ok(ca_signer_info(f.signer, &info, &err));
	assert_int_equal(info.prepared, 0);
	assert_int_equal(info.signed_count, 0);
	fixture_end(&f);
}

static void
batches_have_a_limit(void **state)
{
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	assert_refused(ca_signer_prepare(f.signer, NULL, SIGNER_BATCH_MAX + 1, &err), ERR_ARGUMENT,
		"signer_batch");
	assert_refused(ca_signer_sign(f.signer, NULL, SIGNER_BATCH_MAX + 1, &err), ERR_ARGUMENT,
		"signer_batch");
	assert_refused(ca_signer_drop(f.signer, NULL, SIGNER_BATCH_MAX + 1, &err), ERR_ARGUMENT,
		"signer_batch");
	fixture_end(&f);
	ca_signer_free(NULL);
	ca_signer_shared_free(NULL);
}

static void
validity_stays_within_the_issuers(void **state)
{
	struct ca_request request = fixture_request();
	struct ca_prepare_item item;
	struct fixture f;
	int64_t end_s;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	{
		struct ca_cert_view view;
		struct err err;

		assert_ok(ca_cert_parse(
			&view, view_of(&ca_keystore_at(f.keystore, 0)->certificate), &err));
		end_s = view.not_after_s;
		f.clock.fixed_s = view.not_before_s + 10; /* backdated no further than the issuer */
		item = prepare_one(&f, 0, &request);
		assert_int_equal(item.status, OK);
		assert_int_equal(item.not_before_s, view.not_before_s);
		f.clock.fixed_s = view.not_before_s - 1;
		item = prepare_one(&f, 0, &request);
		assert_string_equal(item.refusal.code, "ca_not_yet_valid");
	}
	f.clock.fixed_s = end_s - 30 * DAY_S;
	item = prepare_one(&f, 0, &request);
	assert_int_equal(item.status, OK);
	assert_true(item.clamped);
	assert_int_equal(item.not_after_s, end_s);
	assert_int_equal(serial_month(&item.serial), expiry_month(end_s));
	f.clock.fixed_s = end_s;
	item = prepare_one(&f, 0, &request);
	assert_int_equal(item.status, ERR_UNAVAILABLE);
	assert_string_equal(item.refusal.code, "ca_expired");
	fixture_end(&f);
}

/* ---- handles ---- */

static void
a_handle_signs_once(void **state)
{
	struct ca_request request = fixture_request();
	struct ca_prepare_item item;
	struct ca_sign_item done;
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	item = prepare_one(&f, 0, &request);
	done = sign_one(&f, item.handle);
	assert_int_equal(done.status, OK);
	bytes_free(&done.der);
	assert_string_equal(sign_one(&f, item.handle).refusal.code, "handle_unknown");
	assert_string_equal(sign_one(&f, 0).refusal.code, "handle_unknown");
	assert_string_equal(sign_one(&f, 12345).refusal.code, "handle_unknown");

	item = prepare_one(&f, 0, &request);
	assert_ok(ca_signer_drop(f.signer, (const uint64_t[]){ item.handle, 99 }, 2, &err));
	assert_string_equal(sign_one(&f, item.handle).refusal.code, "handle_unknown");

	item = prepare_one(&f, 0, &request);
	f.clock.fixed_ms += 60001;
	assert_string_equal(sign_one(&f, item.handle).refusal.code, "handle_unknown");
	fixture_end(&f);
}

static void
what_is_prepared_is_bounded_and_expires(void **state)
{
	struct ca_request request = fixture_request();
	struct ca_prepare_item item;
	struct fixture f;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	for (size_t i = 0; i < 4096; i++)
		assert_int_equal(prepare_one(&f, 0, &request).status, OK);
	item = prepare_one(&f, 0, &request);
	assert_int_equal(item.status, ERR_UNAVAILABLE);
	assert_string_equal(item.refusal.code, "signer_full");
	f.clock.fixed_ms += 60001;
	assert_int_equal(prepare_one(&f, 0, &request).status, OK);
	fixture_end(&f);
}

/* ---- caps and blocked keys ---- */

static void
the_hourly_cap_holds(void **state)
{
	struct ca_request request = fixture_request();
	struct ca_prepare_item items[4];
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	for (size_t i = 0; i < 4; i++)
		items[i] = prepare_one(&f, 1, &request);
	assert_int_equal(items[2].status, OK);
	assert_int_equal(items[3].status, ERR_TOO_MANY);
	assert_string_equal(items[3].refusal.code, "profile_hourly_cap");
	assert_true(items[3].refusal.retry_after_s > 0);
	/* What is dropped was not signed. */
	assert_ok(ca_signer_drop(f.signer, &items[0].handle, 1, &err));
	assert_int_equal(prepare_one(&f, 1, &request).status, OK);
	assert_int_equal(prepare_one(&f, 1, &request).status, ERR_TOO_MANY);
	/* A second signer of the same process shares the cap. */
	{
		struct ca_signer *first = f.signer;

		assert_ok(ca_signer_local(&f.signer, f.shared, &err));
		assert_int_equal(prepare_one(&f, 1, &request).status, ERR_TOO_MANY);
		ca_signer_free(f.signer);
		f.signer = first;
	}
	f.clock.fixed_ms += 59 * 60000;
	assert_int_equal(prepare_one(&f, 1, &request).status, ERR_TOO_MANY);
	f.clock.fixed_ms += 60000;
	assert_int_equal(prepare_one(&f, 1, &request).status, OK);
	fixture_end(&f);
}

static void
a_blocked_key_is_never_certified(void **state)
{
	struct ca_request request = fixture_request();
	struct ca_prepare_item item;
	uint8_t digest[32], other[32] = { 0 };
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	item = prepare_one(&f, 0, &request);
	assert_int_equal(item.status, OK);
	/* Enough of them that the set grows several times. */
	for (uint32_t i = 1; i < 5000; i++) {
		memcpy(other, &i, sizeof(i));
		memcpy(other + 8, &i, sizeof(i)); /* all in few slots */
		assert_ok(ca_signer_block_key(f.signer, other, &err));
	}
	assert_int_equal(prepare_one(&f, 0, &request).status, OK);
	ca_sha256(digest, VIEW(SPKI_P256));
	assert_ok(ca_signer_block_key(f.signer, digest, &err));
	assert_ok(ca_signer_block_key(f.signer, digest, &err));
	/* Also between prepare and sign. */
	assert_string_equal(sign_one(&f, item.handle).refusal.code, "public_key_blocked");
	item = prepare_one(&f, 0, &request);
	assert_int_equal(item.status, ERR_DENIED);
	assert_string_equal(item.refusal.code, "public_key_blocked");
	/* A CA's own key is nobody else's. */
	item = fixture_item(&f, 0, &request);
	item.spki = ca_key_spki(ca_keystore_at(f.keystore, 0)->key);
	assert_ok(ca_signer_prepare(f.signer, &item, 1, &err));
	assert_string_equal(item.refusal.code, "public_key_blocked");
	fixture_end(&f);
}

/* ---- the rest ---- */

static void
info_tells_what_is_here(void **state)
{
	own_struct(ca_signer_info) info = { .ca_count = 0 };
	struct ca_request request = fixture_request();
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	(void)prepare_one(&f, 0, &request);
	assert_ok(ca_signer_info(f.signer, &info, &err));
	assert_int_equal(info.ca_count, 2);
	assert_string_equal(info.cas[0].ca_id, "issuing-1");
	assert_false(info.cas[0].is_root);
	assert_true(info.cas[0].can_sign);
	assert_int_equal(info.cas[0].chain_count, 1);
	assert_true(info.cas[1].is_root);
	assert_int_equal(info.profile_count, 2);
	assert_memory_equal(info.profile_hashes[1], f.profiles[1].hash, 32);
	assert_int_equal(info.prepared, 1);
	assert_int_equal(info.signed_count, 0);
	fixture_end(&f);
}

static void
a_bad_setup_stops_the_start(void **state)
{
	struct ca_signer_shared *shared = NULL;
	struct ca_signer_setup setup;
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	setup = fixture_setup(&f);
	setup.profile_count = CA_PROFILES_MAX + 1;
	assert_refused(ca_signer_shared_new(&shared, &setup, &err), ERR_TOO_LARGE, "signer_setup");
	setup = fixture_setup(&f);
	f.profiles[0].key_types = 0;
	assert_refused(
		ca_signer_shared_new(&shared, &setup, &err), ERR_ARGUMENT, "profile_invalid");
	fixture_end(&f);
}

static enum status
whole_life(struct fixture *f, struct err *err)
{
	struct ca_signer_setup setup = fixture_setup(f);
	struct ca_request request = fixture_request();
	struct ca_prepare_item item = fixture_item(f, 0, &request);
	struct ca_sign_item done = { .handle = 0 };
	own_struct(ca_signer_info) info = { .ca_count = 0 };
	struct ca_signer_shared *shared = NULL;
	struct ca_signer *signer = NULL;
	static const uint8_t key[32] = { 9 };
	enum status status = ca_signer_shared_new(&shared, &setup, err);

	if (status == OK)
		status = ca_signer_local(&signer, shared, err);
	if (status == OK)
		status = ca_signer_block_key(signer, key, err);
	if (status == OK)
		status = ca_signer_prepare(signer, &item, 1, err);
	if (status == OK && item.status != OK) {
		status = item.status;
		*err = item.refusal;
	}
	if (status == OK) {
		done.handle = item.handle;
		status = ca_signer_sign(signer, &done, 1, err);
	}
	if (status == OK && done.status != OK) {
		status = done.status;
		*err = done.refusal;
	}
	if (status == OK)
		status = ca_signer_info(signer, &info, err);
	bytes_free(&done.der);
	ca_signer_free(signer);
	ca_signer_shared_free(shared);
	return status;
}

static void
each_allocation_may_fail(void **state)
{
	struct fixture f;
	bool failed = true;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	for (int64_t n = 0; failed; n++) {
		struct err err;
		enum status status;

		mem_fail_at(n);
		status = whole_life(&f, &err);
		failed = mem_failed();
		mem_fail_at(-1);
		if (failed)
			assert_string_equal(err.code, "out_of_memory");
		assert_int_equal(status, failed ? ERR_UNAVAILABLE : OK);
	}
	fixture_end(&f);
}

/* Printed, not judged: other programs run on the machine. See tests/bench. */
static void
cost_beside_the_bare_signature(void **state)
{
	struct ca_request request = fixture_request();
	uint8_t signature[CA_SIGNATURE_MAX_BYTES];
	enum { ROUNDS = 2000 };
	struct ca_key *key = NULL;
	int64_t begin_us, whole_us, bare_us;
	struct fixture f;
	struct err err;
	size_t len;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	begin_us = clock_mono_us();
	for (size_t i = 0; i < ROUNDS; i++) {
		struct ca_sign_item done = sign_one(&f, prepare_one(&f, 0, &request).handle);

		bytes_free(&done.der);
	}
	whole_us = clock_mono_us() - begin_us;
	assert_ok(ca_key_dup(&key, ca_keystore_at(f.keystore, 0)->key, &err));
	begin_us = clock_mono_us();
	for (size_t i = 0; i < ROUNDS; i++)
		assert_ok(ca_key_sign(key, VIEW(SPKI_P256), signature, &len, &err));
	bare_us = clock_mono_us() - begin_us;
	print_message("prepare and sign %.1f us, bare signature %.1f us\n",
		(double)whole_us / ROUNDS, (double)bare_us / ROUNDS);
	ca_key_free(key);
	fixture_end(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openssl_and_certtool_accept_what_is_signed),
		cmocka_unit_test(each_refusal_has_its_code),
		cmocka_unit_test(invariant_11_what_fails_lint_is_never_signed),
		cmocka_unit_test(batches_have_a_limit),
		cmocka_unit_test(validity_stays_within_the_issuers),
		cmocka_unit_test(a_handle_signs_once),
		cmocka_unit_test(what_is_prepared_is_bounded_and_expires),
		cmocka_unit_test(the_hourly_cap_holds),
		cmocka_unit_test(a_blocked_key_is_never_certified),
		cmocka_unit_test(info_tells_what_is_here),
		cmocka_unit_test(a_bad_setup_stops_the_start),
		cmocka_unit_test(each_allocation_may_fail),
		cmocka_unit_test(cost_beside_the_bare_signature),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
