/* ca/lint.c: every rule refuses what breaks it, and nothing else. */
#include "tests/unit/ca/fixture.h"

#include "ca/der.h"

/* A TBSCertificate taken apart, so that one field can be exchanged. */
enum part { VERSION, SERIAL, ALGORITHM_ID, ISSUER, VALIDITY, SUBJECT, SPKI, FIELD_COUNT };
enum {
	BC = 100,
	KU,
	EKU,
	AKI,
	AIA,
	SKI,
	CDP,
	SAN,
	EXT_COUNT_END,
	EXT_NEW,
	WHOLE_EXTENSIONS,
	AFTER_SPKI,
	AT_END,
	AROUND
};
#define EXT_COUNT (EXT_COUNT_END - BC)

struct good {
	struct ca_profile profile;
	struct ca_request request;
	struct serial serial;
	struct bytes tbs;
	struct view parts[FIELD_COUNT];
	struct view extensions[EXT_COUNT];
	struct ca_lint lint;
};

static void
build_good(struct good *good, struct view spki, enum ca_key_type type)
{
	struct entropy entropy = entropy_insecure_fixed(7);
	struct ca_tbs_issuer issuer = fixture_issuer();
	own(ca_tbs_template) template = NULL;
	own_struct(der_writer) w = { .status = OK };
	struct ca_tbs_fields fields = { .spki = spki,
		.key_type = type,
		.not_before_s = NOW_S - 300,
		.not_after_s = NOW_S + YEAR_S };
	struct der in, tbs, tagged, list;
	struct view subject;
	struct err err;

	good->profile = fixture_profile();
	good->request = fixture_request();
	fields.request = &good->request;
	assert_ok(serial_draw(&good->serial, fields.not_after_s, &entropy, &err));
	fields.serial = good->serial;
	der_writer_init(&w, 8192);
	assert_ok(ca_tbs_template_new(&template, &good->profile, &issuer, URL, &err));
	assert_ok(ca_tbs_build(&w, template, &fields, &subject, &err));
	good->tbs = buf_give(&w.buf);

	in = der_of(view_of(&good->tbs), "test", "test");
	assert_ok(der_enter(&in, DER_SEQUENCE, "tbs", &tbs, &err));
	for (size_t i = 0; i < FIELD_COUNT; i++)
		assert_ok(der_any(&tbs, "field", NULL, NULL, &good->parts[i], &err));
	assert_ok(der_enter(&tbs, DER_CONTEXT_CONSTRUCTED(3), "ext", &tagged, &err));
	assert_ok(der_enter(&tagged, DER_SEQUENCE, "ext", &list, &err));
	for (size_t i = 0; i < EXT_COUNT; i++)
		assert_ok(der_any(&list, "ext", NULL, NULL, &good->extensions[i], &err));
	assert_true(der_at_end(&list));

	good->lint = (struct ca_lint){
		.profile = &good->profile,
		.ca_id = issuer.ca_id,
		.public_http_url = URL,
		.issuer_subject = issuer.subject,
		.issuer_ski = issuer.ski,
		.issuer_algorithm = issuer.algorithm,
		.issuer_not_before_s = issuer.not_before_s,
		.issuer_not_after_s = issuer.not_after_s,
		.spki = spki,
		.serial = &good->serial,
	};
}

/* "30 03|0101ff" as octets; blanks and bars are for the eye. */
static struct view
unhex(uint8_t out[1024], const char *text)
{
	char digits[2048];
	size_t len = 0;

	for (const char *p = text; *p != '\0'; p++)
		if (*p != ' ' && *p != '|')
			digits[len++] = *p;
	assert_true(hex_decode(out, len / 2, digits, len));
	return (struct view){ out, len / 2 };
}

/* The certificate with one part exchanged; empty: left out. */
static struct bytes
compose(const struct good *good, int what, struct view with)
{
	own_struct(der_writer) w = { .status = OK };
	struct err err;

	der_writer_init(&w, 16384);
	der_open(&w, DER_SEQUENCE);
	for (int i = 0; i < FIELD_COUNT; i++)
		der_put_raw(&w, what == i ? with : good->parts[i]);
	if (what == AFTER_SPKI)
		der_put_raw(&w, with);
	if (what != WHOLE_EXTENSIONS) {
		der_open(&w, DER_CONTEXT_CONSTRUCTED(3));
		der_open(&w, DER_SEQUENCE);
		for (int i = 0; i < EXT_COUNT; i++)
			der_put_raw(&w, what == BC + i ? with : good->extensions[i]);
		if (what == EXT_NEW)
			der_put_raw(&w, with);
		der_close(&w);
		der_close(&w);
	} else {
		der_put_raw(&w, with);
	}
	if (what == AT_END)
		der_put_raw(&w, with);
	der_close(&w);
	if (what == AROUND)
		der_put_raw(&w, with);
	assert_ok(der_finish(&w, &err));
	return buf_give(&w.buf);
}

static void
what_we_build_is_clean(void **state)
{
	static const struct {
		struct view spki;
		enum ca_key_type type;
	} KEYS[] = {
		{ { SPKI_P256, sizeof(SPKI_P256) }, KEY_EC_P256 },
		{ { SPKI_RSA, sizeof(SPKI_RSA) }, KEY_RSA_3072 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
		struct good good;
		struct err err;

		build_good(&good, KEYS[i].spki, KEYS[i].type);
		assert_ok(ca_lint_tbs(&good.lint, view_of(&good.tbs), &err));
		bytes_free(&good.tbs);
	}
}

static void
each_rule_refuses_its_mutation(void **state)
{
	static const struct {
		int what;
		const char *hex, *want;
	} CASES[] = {
		/* 4.1.2.1 */
		{ VERSION, "", "version" },
		{ VERSION, "a003 020101", "4.1.2.1: version: 2 wanted" },
		{ VERSION, "a005 020102 0500", "version" },
		/* 4.1.2.2 */
		{ SERIAL, "020101", "16 octets" },
		{ SERIAL, "0210 00112233445566778899aabbccddeeff", "serialNumber" },
		{ SERIAL, "0210 80112233445566778899aabbccddeeff", "from 01 to 7f" },
		{ SERIAL, "0210 01112233445566778899aabbccddeeff", "not the one that was drawn" },
		/* 4.1.2.3, 4.1.2.4 */
		{ ALGORITHM_ID, "300a 0608 2a8648ce3d040303", "issuer's algorithm" },
		{ ALGORITHM_ID, "300c 0608 2a8648ce3d040302 0500", "issuer's algorithm" },
		{ ISSUER, "3000", "4.1.2.4: issuer" },
		{ ISSUER, "3015 3113 3011 0603550403 130a 49737375696e67204341",
			"4.1.2.4: issuer" },
		/* 4.1.2.5 */
		{ VALIDITY, "301e 170d3236313132343036343030305a 170d3236313132333036343030305a",
			"empty" },
		{ VALIDITY,
			"3022 180f32303236313132343036343030305a "
		        "180f32303237313132343036343030305a",
			"UTCTime wanted" },
		{ VALIDITY, "301c 170b323631313234303634305a 170d3237313132343036343030305a",
			"notBefore" },
		{ VALIDITY, "301e 170d3236303132343036343030305a 170d3237313132343036343030305a",
			"past the issuer's" },
		{ VALIDITY,
			"3020 170d3236313132343036343030305a 180f32303630313132343036343030305a",
			"past the issuer's" },
		{ VALIDITY, "301e 170d3236313132343036343030305a 170d3331313132343036343030305a",
			"longer than the profile's" },
		{ VALIDITY, "301e 170d3236313132343036343030305a 170d3237303132343036343030305a",
			"another month" },
		/* 4.1.2.6 and A.1 */
		{ SUBJECT, "3000", "subject: empty" },
		{ SUBJECT,
			"3025 3110 300e 0603550403 1307 736e2d30303031|31 13 3011 0603 55040a 0c0a"
			"4578616d706c65205431",
			"string type" },
		{ SUBJECT,
			"3025 3110 300e 0603550403 0c07 736e2d30300031|31 13 3011 0603 55040a 0c0a"
			"4578616d706c65205431",
			"characters" },
		{ SUBJECT,
			"3025 3110 300e 0603550403 0c07 736e2d3030ff31|31 13 3011 0603 55040a 0c0a"
			"4578616d706c65205431",
			"characters" },
		{ SUBJECT,
			"3025 3110 300e 0603550403 0c07 736e2d30c28531|31 13 3011 0603 55040a 0c0a"
			"4578616d706c65205431",
			"characters" },
		{ SUBJECT,
			"3025 3110 300e 0603550403 0c07 736eeda0803031|31 13 3011 0603 55040a 0c0a"
			"4578616d706c65205431",
			"characters" },
		{ SUBJECT,
			"301e 3109 3007 0603550403 0c00|31 11 300f 0603 55040a 0c08 "
		        "4578616d706c6554",
			"1 to 64 characters" },
		{ SUBJECT, "3012 3110 300e 0603550403 0c07 736e2d30303031", "subject" },
		{ SUBJECT,
			"3025 3110 300e 060355040b 0c07 736e2d30303031|31 13 3011 0603 55040a 0c0a"
			"4578616d706c65205431",
			"another type than the profile's" },
		{ SUBJECT,
			"3031 3110 300e 0603550403 0c07 736e2d30303031|31 13 3011 0603 55040a 0c0a"
			"4578616d706c65205431|310a 3008 060355040b 0c0161",
			"what the profile says" },
		{ SUBJECT,
			"3025 3123 300e 0603550403 0c07 736e2d30303031|3011 0603 55040a 0c0a"
			"4578616d706c65205431",
			"one attribute" },
		{ SUBJECT,
			"3064 314d 304b 0603550403 0c44 "
		        "6161616161616161616161616161616161616161616161616161"
			"61616161616161616161616161616161616161616161616161616161616161616161616161"
		        "616161616161|"
			"31 13 3011 0603 55040a 0c0a 4578616d706c65205431",
			"1 to 64 characters" },
		/* 4.1.2.7, 4.1.2.8 */
		{ SPKI, "3017 300d 06092a864886f70d0101010500 0306 00 3003020111",
			"key that was checked" },
		{ AFTER_SPKI, "8103 000102", "extensions" },
		{ AFTER_SPKI, "8203 000102", "extensions" },
		/* 4.1.2.9 */
		{ WHOLE_EXTENSIONS, "", "extensions" },
		{ WHOLE_EXTENSIONS, "a302 3000", "wanted, not found" },
		{ WHOLE_EXTENSIONS, "a304 3000 0500", "extensions" },
		{ AT_END, "0500", "TBSCertificate" },
		{ AROUND, "0500", "TBSCertificate" },
		{ EXT_NEW, "300c 0603551d13 0101ff 0402 3000", "stands twice" },
		{ EXT_NEW, "300a 0603551d36 0403 020100", "does not have it" },
		{ EXT_NEW, "300d 0603551d36 0101ff 0403 020100", "does not have it" },
		{ EXT_NEW, "3009 06032a0304 0402 0500", "does not have it" },
		/* 4.2.1.9 */
		{ BC, "3009 0603551d13 0402 3000", "basicConstraints: critical TRUE" },
		{ BC, "300f 0603551d13 0101ff 0405 3003 0101ff", "not a CA" },
		{ BC, "300f 0603551d13 0101ff 0405 3003 020100", "not a CA" },
		{ BC, "300f 0603551d13 0101ff 0405 3003 010100", "not a CA" },
		{ BC, "300c 0603551d13 010100 0402 3000", "DEFAULT|FALSE" },
		{ BC, "300e 0603551d13 0101ff 0404 3000 0500", "extnValue" },
		/* 4.2.1.3 */
		{ KU, "", "keyUsage: wanted" },
		{ KU, "300b 0603551d0f 0404 03020780", "keyUsage: critical TRUE" },
		{ KU, "300d 0603551d0f 0101ff 0403 030100", "no bit" },
		{ KU, "300e 0603551d0f 0101ff 0404 03020284", "of a CA" },
		{ KU, "300e 0603551d0f 0101ff 0404 03020106", "of a CA" },
		{ KU, "300e 0603551d0f 0101ff 0404 030205a0", "does not fit the key" },
		{ KU, "300e 0603551d0f 0101ff 0404 03020640", "the profile's wanted" },
		{ KU, "300e 0603551d0f 0101ff 0404 03020080", "keyUsage" },
		/* 4.2.1.12 */
		{ EKU, "", "extKeyUsage: wanted" },
		{ EKU, "3013 0603551d25 040c 300a 0608 2b06010505070301",
			"profile's 1.3.6.1.5.5.7.3.2" },
		{ EKU, "301d 0603551d25 0416 3014 0608 2b06010505070302 0608 2b06010505070301",
			"profile's" },
		{ EKU, "3016 0603551d25 0101ff 040c 300a 0608 2b06010505070302", "critical FALSE" },
		{ EKU, "3009 0603551d25 0402 3000", "extKeyUsage" },
		/* 4.2.1.1, 4.2.1.2 */
		{ AKI, "", "authorityKeyIdentifier: wanted" },
		{ AKI, "301f 0603551d23 0418 3016 8014 ff02030405060708090a0b0c0d0e0f1011121314",
			"not the issuer's key" },
		{ AKI,
			"3022 0603551d23 041b 3019 8014 0102030405060708090a0b0c0d0e0f1011121314 "
		        "820101",
			"keyIdentifier alone" },
		{ SKI, "", "subjectKeyIdentifier: wanted" },
		{ SKI, "301d 0603551d0e 0416 0414 0102030405060708090a0b0c0d0e0f1011121314",
			"not that of the key" },
		/* 4.2.1.13, 4.2.2.1 */
		{ CDP, "", "cRLDistributionPoints: wanted" },
		{ CDP,
			"3023 0603551d1f 041c 301a 3018 a016 a014 8612 "
		        "687474703a2f2f63612e6578616d706c652e",
			"shard of the serial" },
		{ CDP, "3013 0603551d1f 040c 300a 3008 a206 8204 61626364", "distributionPoint" },
		{ AIA, "", "authorityInfoAccess: wanted" },
		{ AIA,
			"3021 06082b06010505070101 0415 3013 3011 06082b06010505073001 8605 "
		        "687474703a",
			"OCSP responder" },
		{ AIA,
			"304906082b06010505070101043d303b302606082b06010505073001861a687474703a2f"
			"2f63612e6578616d706c652e636f6d2f6f637370301106082b0601050507300286056874"
			"74703a",
			"issuer's certificate" },
		{ AIA,
			"303606082b06010505070101042a3028302606082b06010505073001861a687474703a2f"
			"2f63612e6578616d706c652e636f6d2f6f637370",
			"4.2.2.1: AccessDescription: tag 0x30 wanted, the end found" },
		/* 4.2.1.6 */
		{ SAN, "", "subjectAltName: wanted" },
		{ SAN, "3009 0603551d11 0402 3000", "subjectAltName: empty" },
		{ SAN, "300c 0603551d11 0405 3003 820161|", NULL },
		{ SAN, "300f 0603551d11 0101ff 0405 3003 820161", "critical FALSE" },
		{ SAN, "300d 0603551d11 0406 3004 82022d61", "name that is not valid" },
		{ SAN, "300d 0603551d11 0406 3004 8202612d", "name that is not valid" },
		{ SAN, "300d 0603551d11 0406 3004 8202612e", "name that is not valid" },
		{ SAN, "300e 0603551d11 0407 3005 8203612e31", "name that is not valid" },
		{ SAN, "300f 0603551d11 0408 3006 8204612d2e62", "name that is not valid" },
		{ SAN, "300b 0603551d11 0404 3002 8200", "name that is not valid" },
		{ SAN, "300f 0603551d11 0408 3006 8704c0000201", NULL },
		{ SAN, "300e 0603551d11 0407 3005 8703c00002", "name that is not valid" },
		{ SAN, "3010 0603551d11 0409 3007 860575726e3a61", "profile does not have" },
		{ SAN, "300f 0603551d11 0408 3006 860475726e3a", "name that is not valid" },
		{ SAN, "3010 0603551d11 0409 3007 860531726e3a61", "name that is not valid" },
		{ SAN, "300e 0603551d11 0407 3005 8103614062", "profile does not have" },
		{ SAN, "300d 0603551d11 0406 3004 81024062", "name that is not valid" },
		{ SAN, "300e 0603551d11 0407 3005 8103204062", "name that is not valid" },
		{ SAN, "300d 0603551d11 0406 3004 81026162", "name that is not valid" },
		{ SAN, "300c 0603551d11 0405 3003 880161", "name that is not valid" },
	};
	struct good good;

	(void)state;
	build_good(&good, VIEW(SPKI_P256), KEY_EC_P256);
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		uint8_t octets[1024];
		own_struct(bytes) tbs = compose(&good, CASES[i].what, unhex(octets, CASES[i].hex));
		const char *want = CASES[i].want;
		struct err err = { .status = OK };
		enum status status = ca_lint_tbs(&good.lint, view_of(&tbs), &err);

		if (want == NULL) {
			if (status != OK)
				fail_msg("case %zu: clean wanted: %s", i, err.text);
			continue;
		}
		if (strcmp(want, "DEFAULT|FALSE") == 0)
			want = "FALSE, the default";
		if (status != ERR_ARGUMENT || strcmp(err.code, "certificate_lint") != 0 ||
			strstr(err.text, want) == NULL)
			fail_msg("case %zu (%s): '%s' wanted, '%s' found", i, CASES[i].hex, want,
				status == OK ? "OK" : err.text);
	}
	bytes_free(&good.tbs);
}

static void
no_cdp(struct ca_profile *p)
{
	p->crl_distribution_point = false;
}
static void
with_freshest(struct ca_profile *p)
{
	p->freshest_crl = true;
}
static void
no_aia(struct ca_profile *p)
{
	p->authority_information_access = false;
}
static void
no_san(struct ca_profile *p)
{
	p->san_count = 0;
}
static void
no_eku(struct ca_profile *p)
{
	p->eku_count = 0;
}
static void
other_usage(struct ca_profile *p)
{
	p->key_usage = KU_CONTENT_COMMITMENT;
}
static void
other_san(struct ca_profile *p)
{
	p->san[0].type = p->san[1].type = SAN_URI;
}
static void
short_validity(struct ca_profile *p)
{
	p->validity_max_s = DAY_S;
}

/* What a profile does not have must not be there. */
static void
another_profile_refuses_the_same_certificate(void **state)
{
	static void (*const OTHERS[])(struct ca_profile *) = { no_cdp, with_freshest, no_aia, no_san, no_eku,
		other_usage, other_san, short_validity };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(OTHERS); i++) {
		struct good good;
		struct err err;

		build_good(&good, VIEW(SPKI_P256), KEY_EC_P256);
		OTHERS[i](&good.profile);
		assert_refused(ca_lint_tbs(&good.lint, view_of(&good.tbs), &err), ERR_ARGUMENT,
			"certificate_lint");
		bytes_free(&good.tbs);
	}
}

/* Whatever octet is changed, the certificate is refused or what it says is the same subject's: no
 * crash. */
static void
no_single_octet_can_break_the_reader(void **state)
{
	struct good good;
	size_t refused = 0;

	(void)state;
	build_good(&good, VIEW(SPKI_P256), KEY_EC_P256);
	for (size_t i = 0; i < good.tbs.len; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			struct err err;

			good.tbs.data[i] ^= (uint8_t)(1u << bit);
			refused += ca_lint_tbs(&good.lint, view_of(&good.tbs), &err) != OK;
			good.tbs.data[i] ^= (uint8_t)(1u << bit);
		}
		{
			struct err err;

			assert_refused(
				ca_lint_tbs(&good.lint, (struct view){ good.tbs.data, i }, &err),
				ERR_ARGUMENT, "certificate_lint");
		}
	}
	/* Only letters of the names and the minutes of the times may change unseen. */
	assert_true(refused > good.tbs.len * 8 * 8 / 10);
	bytes_free(&good.tbs);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_we_build_is_clean),
		cmocka_unit_test(each_rule_refuses_its_mutation),
		cmocka_unit_test(another_profile_refuses_the_same_certificate),
		cmocka_unit_test(no_single_octet_can_break_the_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
