#include "tests/unit/base/test.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/http/request.h"

static uint8_t DER[] = { 0x30, 0x03, 0x02, 0x01, 0x07 };
static char ROOT_A[] = "root A\n";
static char ROOT_B[] = "root B\n";
static char CHAIN[] = "the issuer\n";

static struct bytes
lend(char *text)
{
	return (struct bytes){ (uint8_t *)text, strlen(text) };
}

static struct app
make_app(void)
{
	struct app app = { .ca_count = 3 };

	for (size_t i = 0; i < app.ca_count; i++) {
		app.cas[i].issuer_id = (int32_t)i + 1;
		app.cas[i].chain_pem = lend(CHAIN);
		app.cas[i].root_pem = lend(i == 1 ? ROOT_B : ROOT_A);
	}
	return app;
}

static struct db_certificate
make_certificate(void)
{
	return (struct db_certificate){
		.ref = { .issuer_id = 1, .serial.octets = { 0x01, 0xab, [15] = 0xff } },
		.ca_id = "issuing-1",
		.status = CERT_ACTIVE,
		.profile = "device",
		.device_id = "unit-1",
		.subject = "CN=unit-1",
		.principal_id = "st-1",
		.not_before_s = 1795536842,
		.not_after_s = 1795536842 + 3600,
		.issued_at_s = 1795536842 + 300,
		.sha256 = { 0x0a, [31] = 0xf0 },
		.der = { DER, sizeof(DER) },
	};
}

static void
want_json(const struct db_certificate *certificate, int64_t now_s, const char *want)
{
	struct app app = make_app();
	own(json_t) expected = json_loads(want, 0, NULL);
	own(json_t) found = NULL;
	struct err err;

	assert_non_null(expected);
	assert_int_equal(render_certificate(&found, &app, certificate, now_s, &err), OK);
	if (!json_equal(found, expected))
		fail_msg("found %s", json_dumps(found, JSON_INDENT(1)));

	/* And as text, word for word as it would have been written from the value. */
	for (int clamped = 0; clamped < 2; clamped++) {
		own_struct(buf) text = { .limit_bytes = 65536 };
		char *written;

		if (clamped)
			assert_int_equal(json_object_set_new(found, "clamped", json_true()), 0);
		assert_int_equal(render_certificate_text(&text, &app, certificate, now_s, clamped,
			&err), OK);
		written = json_dumps(found, JSON_COMPACT);
		assert_int_equal(text.len, strlen(written));
		assert_memory_equal(text.data, written, text.len);
		free(written);
	}
}

#define COMMON                                                                                     \
	"\"certificate_id\": \"0a000000000000000000000000000000000000000000000000000000000000f0\","  \
	"\"serial\": \"01ab00000000000000000000000000ff\", \"ca\": \"issuing-1\","                   \
	"\"profile\": \"device\", \"device_id\": \"unit-1\", \"subject\": \"CN=unit-1\","            \
	"\"issued_at\": \"2026-11-24T16:19:02Z\", \"not_before\": \"2026-11-24T16:14:02Z\","         \
	"\"not_after\": \"2026-11-24T17:14:02Z\", \"chain\": \"the issuer\\n\","                     \
	"\"certificate\": \"-----BEGIN CERTIFICATE-----\\nMAMCAQc=\\n-----END CERTIFICATE-----\\n\"," \
	"\"station\": \"st-1\""

static void
a_certificate_shows_what_the_design_names(void **state)
{
	struct db_certificate c = make_certificate();

	(void)state;
	want_json(&c, c.not_before_s, "{" COMMON ", \"status\": \"active\"}");
}

static void
what_is_not_so_is_left_out_and_what_is_so_is_there(void **state)
{
	struct db_certificate c = make_certificate();

	(void)state;
	c.status = CERT_REVOKED;
	c.revoked = true;
	c.revoked_at_s = 1795536842;
	c.reason = REASON_KEY_COMPROMISE;
	c.has_predecessor = true;
	c.predecessor[0] = 0x11;
	c.has_successor = true;
	c.successor[0] = 0x22;
	(void)snprintf(c.manifest_id, sizeof(c.manifest_id), "order-7");
	want_json(&c, c.not_before_s, "{" COMMON ", \"status\": \"revoked\", \"manifest\": \"order-7\","
		"\"revoked_at\": \"2026-11-24T16:14:02Z\", \"reason\": \"keyCompromise\","
		"\"predecessor\": \"1100000000000000000000000000000000000000000000000000000000000000\","
		"\"successor\": \"2200000000000000000000000000000000000000000000000000000000000000\"}");
}

static void
expiry_is_computed_and_revoked_wins_over_it(void **state)
{
	static const struct {
		enum cert_status status;
		bool revoked;
		const char *want;
	} CASES[] = {
		{ CERT_ACTIVE, false, "expired" },
		{ CERT_PENDING_CONFIRMATION, false, "expired" },
		{ CERT_REVOKED, true, "revoked" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct db_certificate c = make_certificate();
		struct app app = make_app();
		own(json_t) json = NULL;
		struct err err;

		c.status = CASES[i].status;
		c.revoked = CASES[i].revoked;
		assert_int_equal(render_certificate(&json, &app, &c, c.not_after_s + 1, &err), OK);
		assert_string_equal(json_string_value(json_object_get(json, "status")), CASES[i].want);
	}
}

static void
each_root_is_in_the_trust_bundle_once(void **state)
{
	struct app app = make_app();
	own(json_t) json = json_object();
	struct err err;

	(void)state;
	assert_int_equal(render_trust(json, &app, 1795536842, &err), OK);
	assert_string_equal(json_string_value(json_object_get(json, "trust_bundle")),
		"root A\nroot B\n");
	assert_string_equal(json_string_value(json_object_get(json, "server_time")),
		"2026-11-24T16:14:02Z");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_certificate_shows_what_the_design_names),
		cmocka_unit_test(what_is_not_so_is_left_out_and_what_is_so_is_there),
		cmocka_unit_test(expiry_is_computed_and_revoked_wins_over_it),
		cmocka_unit_test(each_root_is_in_the_trust_bundle_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
