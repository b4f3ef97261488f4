/* ca/profile.c, ca/names.c: what a profile may say, and what becomes of its templates. */
#include "tests/unit/ca/fixture.h"

#include "ca/names.h"

static void
a_sound_profile_is_accepted(void **state)
{
	struct ca_profile profile = fixture_profile();
	struct err err;

	(void)state;
	assert_ok(ca_profile_check(&profile, &err));
	profile.eku_count = profile.san_count = profile.policy_count = 0;
	profile.thing_type[0] = '\0';
	assert_ok(ca_profile_check(&profile, &err));
}

static void
no_name(struct ca_profile *p)
{
	p->name[0] = '\0';
}
static void
odd_name(struct ca_profile *p)
{
	p->name[0] = 'D';
}
static void
endless_name(struct ca_profile *p)
{
	memset(p->name, 'a', sizeof(p->name));
}
static void
no_role(struct ca_profile *p)
{
	p->role = CA_ROLE_UNSET;
}
static void
odd_role(struct ca_profile *p)
{
	p->role = (enum ca_role)9;
}
static void
no_asker(struct ca_profile *p)
{
	p->issuable_by = 0;
}
static void
odd_asker(struct ca_profile *p)
{
	p->issuable_by = 1u << 9;
}
static void
station_makes_admin(struct ca_profile *p)
{
	p->role = CA_ROLE_ADMIN;
	p->hourly_cap = 1;
}
static void
no_key_type(struct ca_profile *p)
{
	p->key_types = 0;
}
static void
odd_key_type(struct ca_profile *p)
{
	p->key_types |= 1u << 9;
}
static void
no_usage(struct ca_profile *p)
{
	p->key_usage = 0;
}
static void
odd_usage(struct ca_profile *p)
{
	p->key_usage |= 1u << 9;
}
static void
cert_sign(struct ca_profile *p)
{
	p->key_usage |= KU_KEY_CERT_SIGN;
}
static void
crl_sign(struct ca_profile *p)
{
	p->key_usage |= KU_CRL_SIGN;
}
static void
usage_for_no_key(struct ca_profile *p)
{
	p->key_usage = KU_KEY_ENCIPHERMENT;
}
static void
odd_eku(struct ca_profile *p)
{
	memcpy(p->eku[0], "server", 7);
}
static void
any_eku(struct ca_profile *p)
{
	memcpy(p->eku[0], "2.5.29.37.0", 12);
}
static void
endless_eku(struct ca_profile *p)
{
	memset(p->eku[0], '1', sizeof(p->eku[0]));
}
static void
many_eku(struct ca_profile *p)
{
	p->eku_count = 5;
}
static void
same_eku(struct ca_profile *p)
{
	memcpy(p->eku[1], p->eku[0], 32);
	p->eku_count = 2;
}
static void
no_subject(struct ca_profile *p)
{
	p->subject_count = 0;
}
static void
many_subjects(struct ca_profile *p)
{
	p->subject_count = 9;
}
static void
odd_rdn(struct ca_profile *p)
{
	p->subject[0].type = RDN_UNSET;
}
static void
far_rdn(struct ca_profile *p)
{
	p->subject[0].type = (enum ca_rdn_type)99;
}
static void
same_rdn(struct ca_profile *p)
{
	p->subject[1].type = RDN_CN;
}
static void
empty_value(struct ca_profile *p)
{
	p->subject[0].value[0] = '\0';
}
static void
endless_value(struct ca_profile *p)
{
	memset(p->subject[0].value, 'a', CA_TEMPLATE_BYTES);
}
static void
control_value(struct ca_profile *p)
{
	p->subject[0].value[0] = '\t';
}
static void
not_utf8(struct ca_profile *p)
{
	p->subject[0].value[0] = (char)0xff;
}
static void
open_brace(struct ca_profile *p)
{
	memcpy(p->subject[0].value, "{device_id", 11);
}
static void
close_brace(struct ca_profile *p)
{
	memcpy(p->subject[0].value, "device}", 8);
}
static void
odd_template(struct ca_profile *p)
{
	memcpy(p->subject[0].value, "{serial}", 9);
}
static void
odd_attribute(struct ca_profile *p)
{
	memcpy(p->subject[0].value, "{attributes.A}", 15);
}
static void
no_attribute(struct ca_profile *p)
{
	memcpy(p->subject[0].value, "{attributes.}", 14);
}
static void
many_sans(struct ca_profile *p)
{
	p->san_count = 9;
}
static void
odd_san(struct ca_profile *p)
{
	p->san[0].type = SAN_UNSET;
}
static void
san_template(struct ca_profile *p)
{
	memcpy(p->san[0].value, "{x}", 4);
}
static void
before_time(struct ca_profile *p)
{
	p->backdate_s = -1;
}
static void
long_before(struct ca_profile *p)
{
	p->backdate_s = 2 * DAY_S;
}
static void
no_max(struct ca_profile *p)
{
	p->validity_max_s = 0;
}
static void
endless_max(struct ca_profile *p)
{
	p->validity_max_s = INT64_MAX;
}
static void
no_default(struct ca_profile *p)
{
	p->validity_default_s = 0;
}
static void
default_over_max(struct ca_profile *p)
{
	p->validity_default_s = p->validity_max_s + 1;
}
static void
no_renewal(struct ca_profile *p)
{
	p->renew_before_s = 0;
}
static void
early_renewal(struct ca_profile *p)
{
	p->renew_before_s = p->validity_default_s;
}
static void
negative_overlap(struct ca_profile *p)
{
	p->renew_overlap_s = -1;
}
static void
long_overlap(struct ca_profile *p)
{
	p->renew_overlap_s = p->renew_before_s;
}
static void
negative_grace(struct ca_profile *p)
{
	p->grace_s = -1;
}
static void
no_confirm(struct ca_profile *p)
{
	p->on_confirm = ON_CONFIRM_UNSET;
}
static void
no_csr_rule(struct ca_profile *p)
{
	p->csr_extensions = CSR_EXTENSIONS_UNSET;
}
static void
no_cap(struct ca_profile *p)
{
	p->role = CA_ROLE_NONE;
}
static void
odd_thing_type(struct ca_profile *p)
{
	memcpy(p->thing_type, "a b", 4);
}
static void
many_policies(struct ca_profile *p)
{
	p->policy_count = 5;
}
static void
odd_policy(struct ca_profile *p)
{
	memcpy(p->policies[0], "a/b", 4);
}
static void
empty_policy(struct ca_profile *p)
{
	p->policies[0][0] = '\0';
}
static void
many_groups(struct ca_profile *p)
{
	p->thing_group_count = 5;
}
static void
odd_group(struct ca_profile *p)
{
	p->thing_group_count = 1;
	memcpy(p->thing_groups[0], "a/b", 4);
}
static void
empty_group(struct ca_profile *p)
{
	p->thing_group_count = 1;
}
static void
group_without_policy(struct ca_profile *p)
{
	p->policy_count = 0;
	p->thing_group_count = 1;
	memcpy(p->thing_groups[0], "a", 2);
}

static void
each_rule_of_a_profile_refuses(void **state)
{
	static const struct {
		void (*spoil)(struct ca_profile *profile);
		const char *want_field;
	} CASES[] = {
		{ no_name, "name" },
		{ odd_name, "name" },
		{ endless_name, "name" },
		{ no_role, "role" },
		{ odd_role, "role" },
		{ no_asker, "issuable_by" },
		{ odd_asker, "issuable_by" },
		{ station_makes_admin, "issuable_by" },
		{ no_key_type, "key_types" },
		{ odd_key_type, "key_types" },
		{ no_usage, "key_usage" },
		{ odd_usage, "key_usage" },
		{ cert_sign, "keyCertSign" },
		{ crl_sign, "cRLSign" },
		{ usage_for_no_key, "no usage is left" },
		{ odd_eku, "extended_key_usage" },
		{ any_eku, "anyExtendedKeyUsage" },
		{ endless_eku, "extended_key_usage" },
		{ many_eku, "extended_key_usage" },
		{ same_eku, "stands twice" },
		{ no_subject, "subject" },
		{ many_subjects, "subject" },
		{ odd_rdn, "subject[0].type" },
		{ far_rdn, "subject[0].type" },
		{ same_rdn, "stands twice" },
		{ empty_value, "subject[0].value" },
		{ endless_value, "subject[0].value" },
		{ control_value, "UTF-8" },
		{ not_utf8, "UTF-8" },
		{ open_brace, "braces" },
		{ close_brace, "braces" },
		{ odd_template, "{serial}" },
		{ odd_attribute, "{attributes.A}" },
		{ no_attribute, "{attributes.}" },
		{ many_sans, "san" },
		{ odd_san, "san[0].type" },
		{ san_template, "san[0].value" },
		{ before_time, "backdate" },
		{ long_before, "backdate" },
		{ no_max, "validity.max" },
		{ endless_max, "validity.max" },
		{ no_default, "validity.default" },
		{ default_over_max, "validity.default" },
		{ no_renewal, "renew.before" },
		{ early_renewal, "renew.before" },
		{ negative_overlap, "renew.overlap" },
		{ long_overlap, "renew.overlap" },
		{ negative_grace, "grace" },
		{ no_confirm, "on_confirm" },
		{ no_csr_rule, "csr_extensions" },
		{ no_cap, "hourly_cap" },
		{ odd_thing_type, "thing_type" },
		{ many_policies, "policies" },
		{ odd_policy, "policies[0]" },
		{ empty_policy, "policies[0]" },
		{ many_groups, "thing_groups" },
		{ odd_group, "thing_groups[0]" },
		{ empty_group, "thing_groups[0]" },
		{ group_without_policy, "thing_groups: none" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct ca_profile profile = fixture_profile();
		struct err err;

		CASES[i].spoil(&profile);
		assert_refused(ca_profile_check(&profile, &err), ERR_ARGUMENT, "profile_invalid");
		if (strstr(err.text, CASES[i].want_field) == NULL)
			fail_msg("case %zu: '%s' wanted in '%s'", i, CASES[i].want_field, err.text);
	}
}

static void
a_check_without_memory_says_so(void **state)
{
	struct ca_profile profile = fixture_profile();
	struct err err;

	(void)state;
	mem_fail_at(0);
	assert_refused(ca_profile_check(&profile, &err), ERR_UNAVAILABLE, "out_of_memory");
	mem_fail_at(-1);
}

static void
templates_expand_once(void **state)
{
	static const struct {
		const char *template, *want;
	} CASES[] = {
		{ "", "" },
		{ "plain", "plain" },
		{ "{device_id}", "sn-0001" },
		{ "{profile}/{thing_type}", "device/sensor" },
		{ "a{attributes.model}b{attributes.model}", "aT1bT1" },
		{ "{attributes.brace}", "{device_id}" }, /* not expanded again */
		{ "{attributes.none}x", "x" },
		{ "{unknown}{attributes.}{}y", "y" },
		{ "z{device_id", "zsn-0001" },
	};
	struct ca_profile profile = fixture_profile();
	struct ca_request request = fixture_request();
	struct err err;
	char out[64];

	(void)state;
	request.attributes[1] = (struct ca_attribute){ "brace", "{device_id}" };
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		assert_ok(ca_template_expand(
			out, sizeof(out), CASES[i].template, &profile, &request, &err));
		assert_string_equal(out, CASES[i].want);
	}
	(void)snprintf(request.thing_type, sizeof(request.thing_type), "gateway");
	assert_ok(ca_template_expand(out, sizeof(out), "{thing_type}", &profile, &request, &err));
	assert_string_equal(out, "gateway");
}

static void
an_expansion_that_does_not_fit_is_refused(void **state)
{
	struct ca_profile profile = fixture_profile();
	struct ca_request request = fixture_request();
	struct err err;
	char out[8];

	(void)state;
	assert_ok(ca_template_expand(out, 8, "{device_id}", &profile, &request, &err));
	assert_refused(ca_template_expand(out, 7, "{device_id}", &profile, &request, &err),
		ERR_TOO_LARGE, "name_too_long");
	assert_refused(ca_template_expand(out, 8, "12345678", &profile, &request, &err),
		ERR_TOO_LARGE, "name_too_long");
	assert_refused(ca_template_expand(out, 0, "", &profile, &request, &err), ERR_TOO_LARGE,
		"name_too_long");
}

/* 64 of them are 128 octets: bounds count characters. */
#define SIXTEEN                                                                                    \
	"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"                         \
	"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
#define SIXTEEN_A "aaaaaaaaaaaaaaaa"

static void
subject_values_keep_the_rules_of_x520(void **state)
{
	static const struct {
		enum ca_rdn_type type;
		const char *value, *want_code;
	} CASES[] = {
		{ RDN_CN, "sn-0001", NULL },
		{ RDN_CN, SIXTEEN SIXTEEN SIXTEEN SIXTEEN, NULL },
		{ RDN_CN, SIXTEEN SIXTEEN SIXTEEN SIXTEEN "a", "name_too_long" },
		{ RDN_L,
			SIXTEEN_A SIXTEEN_A SIXTEEN_A SIXTEEN_A SIXTEEN_A SIXTEEN_A SIXTEEN_A
				SIXTEEN_A,
			NULL },
		{ RDN_ST,
			SIXTEEN_A SIXTEEN_A SIXTEEN_A SIXTEEN_A SIXTEEN_A SIXTEEN_A SIXTEEN_A
				SIXTEEN_A "a",
			"name_too_long" },
		{ RDN_CN, "", "name_empty" },
		{ RDN_CN, "a\nb", "name_invalid" },
		{ RDN_CN, "a\x7f", "name_invalid" },
		{ RDN_CN, "a\xc2\x85", "name_invalid" }, /* U+0085, a C1 control */
		{ RDN_CN,
			"a\xe2\x80\xae"
			"b",
			"name_invalid" },                    /* U+202E turns the text around */
		{ RDN_CN, "a\xef\xbf\xbe", "name_invalid" }, /* U+FFFE */
		{ RDN_CN, "a\xef\xb7\x90", "name_invalid" }, /* U+FDD0 */
		{ RDN_CN, "\xc0\xaf", "name_invalid" },
		{ RDN_CN, "\xed\xa0\x80", "name_invalid" },
		{ RDN_CN, "cut \xe2\x82", "name_invalid" },
		{ RDN_C, "DE", NULL },
		{ RDN_C, "D", "name_invalid" },
		{ RDN_C, "de", "name_invalid" },
		{ RDN_C, "DEU", "name_too_long" },
		{ RDN_SERIAL_NUMBER, "A-1 (b)/2", NULL },
		{ RDN_SERIAL_NUMBER, "a_b", "name_invalid" },
		{ RDN_SERIAL_NUMBER, "\xc3\xa9", "name_invalid" },
		{ RDN_UNSET, "x", "name_invalid" },
		{ (enum ca_rdn_type)99, "x", "name_invalid" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct err err;

		if (CASES[i].want_code == NULL)
			assert_ok(ca_rdn_check(CASES[i].type, view_text(CASES[i].value), &err));
		else
			assert_refused(ca_rdn_check(CASES[i].type, view_text(CASES[i].value), &err),
				ERR_ARGUMENT, CASES[i].want_code);
	}
	{
		struct err err;

		assert_refused(
			ca_rdn_check(RDN_CN, (struct view){ (const uint8_t *)"a\0b", 3 }, &err),
			ERR_ARGUMENT, "name_invalid");
	}
}

#define LABEL63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void
alternative_names_are_checked(void **state)
{
	static const struct {
		enum ca_san_type type;
		const char *value, *want_code;
	} CASES[] = {
		{ SAN_DNS, "a.example.com", NULL },
		{ SAN_DNS, "localhost", NULL },
		{ SAN_DNS, "1a.x-y.9z", NULL },
		{ SAN_DNS, LABEL63 ".com", NULL },
		{ SAN_DNS, LABEL63 "a.com", "name_invalid" },
		{ SAN_DNS, LABEL63 "." LABEL63 "." LABEL63 "." LABEL63, "name_too_long" },
		{ SAN_DNS, "", "name_empty" },
		{ SAN_DNS, ".com", "name_invalid" },
		{ SAN_DNS, "a..b", "name_invalid" },
		{ SAN_DNS, "a.b.", "name_invalid" },
		{ SAN_DNS, "-a.b", "name_invalid" },
		{ SAN_DNS, "a-.b", "name_invalid" },
		{ SAN_DNS, "a_b.c", "name_invalid" },
		{ SAN_DNS, "*.example.com", "name_invalid" },
		{ SAN_DNS, "10.0.0.1", "name_invalid" },
		{ SAN_DNS, "a b", "name_invalid" },
		{ SAN_IP, "192.0.2.1", NULL },
		{ SAN_IP, "2001:db8::1", NULL },
		{ SAN_IP, "192.0.2", "name_invalid" },
		{ SAN_IP, "192.0.2.256", "name_invalid" },
		{ SAN_IP, "fe80::1%eth0", "name_invalid" },
		{ SAN_IP, "a name", "name_invalid" },
		{ SAN_IP, "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", "name_too_long" },
		{ SAN_URI, "urn:dev:sn:1", NULL },
		{ SAN_URI, "https://example.com/a?b=c#d", NULL },
		{ SAN_URI, "example.com", "name_invalid" },
		{ SAN_URI, ":x", "name_invalid" },
		{ SAN_URI, "1urn:x", "name_invalid" },
		{ SAN_URI, "urn:", "name_invalid" },
		{ SAN_URI, "urn:a b", "name_invalid" },
		{ SAN_URI, "urn:\xc3\xa9", "name_invalid" },
		{ SAN_EMAIL, "a.b+c@example.com", NULL },
		{ SAN_EMAIL, "example.com", "name_invalid" },
		{ SAN_EMAIL, "@example.com", "name_invalid" },
		{ SAN_EMAIL, "a@", "name_invalid" },
		{ SAN_EMAIL, ".a@b.c", "name_invalid" },
		{ SAN_EMAIL, "a..b@c.d", "name_invalid" },
		{ SAN_EMAIL, "a@b@c", "name_invalid" },
		{ SAN_UNSET, "x", "name_invalid" },
		{ (enum ca_san_type)99, "x", "name_invalid" },
	};
	own_struct(der_writer) w = { .status = OK };

	(void)state;
	der_writer_init(&w, 4096);
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct err err;

		der_writer_reset(&w);
		if (CASES[i].want_code == NULL)
			assert_ok(ca_san_put(&w, CASES[i].type, view_text(CASES[i].value), &err));
		else
			assert_refused(
				ca_san_put(&w, CASES[i].type, view_text(CASES[i].value), &err),
				ERR_ARGUMENT, CASES[i].want_code);
		assert_int_equal(w.buf.len > 0, CASES[i].want_code == NULL);
	}
}

static void
key_usage_follows_the_key(void **state)
{
	const unsigned all = KU_DIGITAL_SIGNATURE | KU_CONTENT_COMMITMENT | KU_KEY_ENCIPHERMENT |
	                     KU_DATA_ENCIPHERMENT | KU_KEY_AGREEMENT;

	(void)state;
	assert_int_equal(ca_key_usage_for(all, KEY_EC_P256),
		KU_DIGITAL_SIGNATURE | KU_CONTENT_COMMITMENT | KU_KEY_AGREEMENT);
	assert_int_equal(ca_key_usage_for(all, KEY_RSA_2048), all & ~(unsigned)KU_KEY_AGREEMENT);
	assert_int_equal(
		ca_key_usage_for(all, KEY_ED25519), KU_DIGITAL_SIGNATURE | KU_CONTENT_COMMITMENT);
	assert_int_equal(ca_key_usage_for(all, (enum ca_key_type)0), 0);
}

static struct ca_profile
verification(void)
{
	struct ca_profile p = fixture_profile();

	(void)snprintf(p.name, sizeof(p.name), CA_PROFILE_VERIFICATION);
	p.role = CA_ROLE_NONE;
	p.issuable_by = ASKER_SERVER;
	p.eku_count = p.san_count = p.policy_count = 0;
	p.subject_count = 1;
	p.validity_default_s = p.validity_max_s = DAY_S;
	p.renew_before_s = 3600;
	p.renew_overlap_s = 60;
	p.hourly_cap = 10;
	return p;
}

/* What proves the CA's key to IoT Core may be good for nothing else, whatever its file says. */
static void
the_proof_for_iot_core_stays_narrow(void **state)
{
	struct ca_profile good = verification();
	struct ca_profile bad[7];
	struct err err;

	(void)state;
	assert_ok(ca_profile_check(&good, &err));
	for (size_t i = 0; i < COUNT_OF(bad); i++)
		bad[i] = good;
	bad[0].issuable_by |= ASKER_ADMIN;
	bad[1].role = CA_ROLE_STATION;
	bad[2].eku_count = 1;
	bad[3].san_count = 1;
	(void)snprintf(bad[4].subject[0].value, sizeof(bad[4].subject[0].value), "x{device_id}");
	bad[5].validity_max_s = DAY_S + 1;
	bad[6].hourly_cap = 11;
	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_refused(ca_profile_check(&bad[i], &err), ERR_ARGUMENT, "profile_invalid");
	assert_true(ca_is_registration_code(
		"0123456789abcdefABCDEF0123456789abcdef0123456789abcdef0123456789"));
	assert_false(ca_is_registration_code("sn-1"));
	assert_false(ca_is_registration_code(
		"0123456789abcdefABCDEF0123456789abcdef0123456789abcdef012345678g"));
	assert_false(ca_is_registration_code(
		"0123456789abcdefABCDEF0123456789abcdef0123456789abcdef01234567890"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sound_profile_is_accepted),
		cmocka_unit_test(each_rule_of_a_profile_refuses),
		cmocka_unit_test(a_check_without_memory_says_so),
		cmocka_unit_test(templates_expand_once),
		cmocka_unit_test(an_expansion_that_does_not_fit_is_refused),
		cmocka_unit_test(subject_values_keep_the_rules_of_x520),
		cmocka_unit_test(alternative_names_are_checked),
		cmocka_unit_test(key_usage_follows_the_key),
		cmocka_unit_test(the_proof_for_iot_core_stays_narrow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
