/* ca/tbs.c: with fixed inputs the certificate's body is a kept file, byte for byte. */
#include "tests/unit/ca/fixture.h"

#include "ca/der.h"

struct made {
	struct ca_profile profile;
	struct ca_request request;
	struct ca_tbs_fields fields;
};

static void
make_fields(struct made *made)
{
	made->profile = fixture_profile();
	made->request = fixture_request();
	made->fields = (struct ca_tbs_fields){
		.request = &made->request,
		.spki = VIEW(SPKI_P256),
		.key_type = KEY_EC_P256,
		.serial = { { 0x3a, 0xc7, 0x5f, 0x04, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 } },
		.not_before_s = NOW_S - 300,
		.not_after_s = NOW_S + YEAR_S,
	};
}

static enum status
build(const struct made *made, struct der_writer *w, struct err *err)
{
	struct ca_tbs_issuer issuer = fixture_issuer();
	own(ca_tbs_template) template = NULL;
	struct view subject;

	TRY(ca_tbs_template_new(&template, &made->profile, &issuer, URL, err));
	TRY(ca_tbs_build(w, template, &made->fields, &subject, err));
	assert_true(subject.data > w->buf.data && subject.data[0] == DER_SEQUENCE);
	return OK;
}

static void
the_body_equals_the_kept_file(void **state)
{
	static const struct {
		const char *file;
		enum ca_key_type key_type;
		int64_t not_after_s;
		bool bare; /* without SAN, EKU, CDP, AIA */
	} CASES[] = {
		{ "tests/unit/ca/tbs/device.der", KEY_EC_P256, NOW_S + YEAR_S, false },
		{ "tests/unit/ca/tbs/device-2051.der", KEY_EC_P256, INT64_C(2556143999), true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(der_writer) w = { .status = OK };
		own_struct(bytes) want = { NULL, 0 };
		struct made made;
		struct err err;

		make_fields(&made);
		made.fields.key_type = CASES[i].key_type;
		made.fields.not_after_s = CASES[i].not_after_s;
		if (CASES[i].bare) {
			made.profile.san_count = made.profile.eku_count = 0;
			made.profile.crl_distribution_point = false;
			made.profile.authority_information_access = false;
		}
		der_writer_init(&w, 8192);
		assert_ok(build(&made, &w, &err));
		if (getenv("JITRCA_TEST_KEEP") != NULL)
			write_file(".", CASES[i].file, buf_view(&w.buf));
		want = slurp(CASES[i].file);
		assert_int_equal(w.buf.len, want.len);
		assert_memory_equal(w.buf.data, want.data, want.len);
	}
}

/* RFC 5280 4.2.1.15; what a shorter certificate does not have, and what lint wants then. */
static void
a_profile_may_name_the_delta(void **state)
{
	static const char POINT[] = "\x30\x35\x30\x33\xa0\x31\xa0\x2f\x86\x2d" URL
				    "/crl/issuing-1/delta.crl";

	(void)state;
	for (int named = 0; named < 2; named++) {
		own_struct(der_writer) w = { .status = OK };
		struct made made;
		struct err err;

		make_fields(&made);
		made.profile.freshest_crl = named;
		der_writer_init(&w, 8192);
		assert_ok(build(&made, &w, &err));
		assert_int_equal(memmem(w.buf.data, w.buf.len, POINT, sizeof(POINT) - 1) != NULL, named);
	}
}

static void
names_that_must_not_stand_in_a_certificate_are_refused(void **state)
{
	static const struct {
		const char *device_id, *model, *ip, *want_code;
	} CASES[] = {
		{ "", "T1", "192.0.2.1", "name_empty" },
		{ "a\tb", "T1", "192.0.2.1", "name_invalid" },
		{ "a b", "T1", "192.0.2.1", "name_invalid" }, /* its host name */
		{ "a", "T1", "192.0.2", "name_invalid" },
		{ "a", "T1", "192.0.2.1,,192.0.2.2", "name_empty" },
		{ "a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
			"192.0.2.1", "name_too_long" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(der_writer) w = { .status = OK };
		struct made made;
		struct err err;

		make_fields(&made);
		(void)snprintf(made.request.device_id, CA_ID_BYTES, "%s", CASES[i].device_id);
		(void)snprintf(made.request.attributes[0].value, 129, "%s", CASES[i].model);
		(void)snprintf(made.request.attributes[1].value, 129, "%s", CASES[i].ip);
		der_writer_init(&w, 8192);
		assert_refused(build(&made, &w, &err), ERR_ARGUMENT, CASES[i].want_code);
	}
}

static void
a_name_that_must_be_there_is_missed(void **state)
{
	own_struct(der_writer) w = { .status = OK };
	struct made made;
	struct err err;

	(void)state;
	make_fields(&made);
	made.request.attribute_count = 0; /* the optional address is left out */
	der_writer_init(&w, 8192);
	assert_ok(build(&made, &w, &err));
	made.profile.san[1].optional = false;
	assert_refused(build(&made, &w, &err), ERR_ARGUMENT, "name_empty");
	made.profile.san_count = 0;
	assert_ok(build(&made, &w, &err));
}

static void
long_lists_of_names_are_refused(void **state)
{
	own_struct(der_writer) w = { .status = OK };
	struct made made;
	struct err err;
	char *value;

	(void)state;
	make_fields(&made);
	for (size_t i = 0; i < CA_ATTRIBUTES_MAX; i++)
		(void)snprintf(made.request.attributes[i].name, 33, "a%zu", i);
	made.request.attribute_count = CA_ATTRIBUTES_MAX;
	for (size_t i = 0; i < CA_ATTRIBUTES_MAX; i++) {
		value = made.request.attributes[i].value;
		for (size_t at = 0; at + 9 < 128; at += 9)
			memcpy(value + at, "1.2.3.44,", 10);
	}
	made.profile.san_count = 1;
	made.profile.san[0] = (struct ca_san){ .type = SAN_IP,
		.each = true,
		.value = "{attributes.a0}{attributes.a1}{attributes.a2}{attributes.a3}{attributes."
		         "a4}"
			 "{attributes.a5}{attributes.a6}{attributes.a7}{attributes.a8}{attributes."
		         "a9}"
			 "{attributes.a10}{attributes.a11}{attributes.a12}1.1.1.1" };
	der_writer_init(&w, 8192);
	assert_refused(build(&made, &w, &err), ERR_ARGUMENT, "name_too_long"); /* of one template */
	memcpy(made.profile.san[0].value,
		"{attributes.a0}{attributes.a1}{attributes.a2}{attributes.a3}"
		"{attributes.a4}{attributes.a5}{attributes.a6}{attributes.a7}1.1.1.1",
		128);
	assert_ok(build(&made, &w, &err));
	for (size_t i = 1; i < 8; i++)
		made.profile.san[i] = made.profile.san[0];
	made.profile.san_count = 8;
	assert_refused(build(&made, &w, &err), ERR_TOO_LARGE, "certificate_too_large");
	der_writer_free(&w);
	der_writer_init(&w, TBS_MAX_BYTES - 200);
	assert_refused(build(&made, &w, &err), ERR_TOO_LARGE, "certificate_too_large");
}

static void
addresses_have_a_limit(void **state)
{
	struct ca_tbs_issuer issuer = fixture_issuer();
	struct ca_profile profile = fixture_profile();
	own(ca_tbs_template) template = NULL;
	char url[TBS_URL_MAX_BYTES];
	struct err err;

	(void)state;
	memset(url, 'u', sizeof(url));
	url[sizeof(url) - 20] = '\0';
	assert_refused(ca_tbs_template_new(&template, &profile, &issuer, url, &err), ERR_TOO_LARGE,
		"url_too_long");
	profile.authority_information_access = false;
	assert_refused(ca_tbs_template_new(&template, &profile, &issuer, url, &err), ERR_TOO_LARGE,
		"url_too_long");
	{
		char out[TBS_URL_MAX_BYTES];

		assert_refused(ca_crl_url(out, url, "an-id-of-some-length", 0, &err), ERR_TOO_LARGE,
			"url_too_long");
		assert_ok(ca_crl_url(out, URL, "x", 0xaf, &err));
		assert_string_equal(out, URL "/crl/x/af.crl");
	}
}

static void
each_allocation_may_fail(void **state)
{
	bool failed = true;

	(void)state;
	for (int64_t n = 0; failed; n++) {
		own_struct(der_writer) w = { .status = OK };
		struct made made;
		struct err err;
		enum status status;

		make_fields(&made);
		der_writer_init(&w, 8192);
		mem_fail_at(n);
		status = build(&made, &w, &err);
		failed = mem_failed();
		mem_fail_at(-1);
		assert_int_equal(status, failed ? ERR_UNAVAILABLE : OK);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_body_equals_the_kept_file),
		cmocka_unit_test(a_profile_may_name_the_delta),
		cmocka_unit_test(names_that_must_not_stand_in_a_certificate_are_refused),
		cmocka_unit_test(a_name_that_must_be_there_is_missed),
		cmocka_unit_test(long_lists_of_names_are_refused),
		cmocka_unit_test(addresses_have_a_limit),
		cmocka_unit_test(each_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
