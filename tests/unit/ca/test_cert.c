#include "tests/unit/ca/files.h"

#include <pthread.h>

#include <openssl/err.h>

#include "base/mem.h"
#include "ca/cert.h"
#include "ca/der.h"
#include "ca/key.h"
#include "ca/keystore.h"
#include "ca/openssl.h"

#define NOW INT64_C(1800000000)
#define YEAR (INT64_C(365) * 86400)

/* A root and an issuing CA below it; a second root with one of its own. */
static struct ca_keystore *store, *foreign;
static char folder[256], foreign_folder[256];

static struct ca_keystore *
make_store(const char *dir)
{
	struct clock clock = clock_fixed(NOW);
	struct ca_ceremony c = {
		.dir = dir,
		.passphrase = view_text("passphrase"),
		.key_type = KEY_EC_P256,
		.organization = "Example",
		.ca_id = "root",
		.validity_s = 10 * YEAR,
		.clock = &clock,
		.entropy = &ENTROPY_SYSTEM,
		.fast_seal = true,
	};
	own_struct(secret) kek = { NULL, 0 };
	struct ca_keystore *made = NULL;
	struct err err;

	assert_ok(ca_keystore_make_root(&c, NULL, &err));
	c.ca_id = "issuing-1";
	assert_ok(ca_keystore_make_issuing(&c, "root", NULL, &err));
	assert_ok(ca_keystore_kek(&kek, dir, c.passphrase, &err));
	assert_ok(ca_keystore_open(&made, dir, (struct view){ kek.data, kek.len }, &err));
	return made;
}

static int
set_up(void **state)
{
	struct err err;

	(void)state;
	if (ca_init(&err) != OK)
		return -1;
	folder_make(folder);
	folder_make(foreign_folder);
	store = make_store(folder);
	foreign = make_store(foreign_folder);
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	ca_keystore_free(store);
	ca_keystore_free(foreign);
	folder_remove(folder);
	folder_remove(foreign_folder);
	return 0;
}

#define ISSUING 0
#define ROOT 1

/* What a leaf is made of; zero is a good leaf. */
struct leaf {
	const char *version;    /* DER of [0]; NULL: version 3; "": absent */
	const char *serial;     /* DER of the INTEGER; NULL: 16 octets of ours */
	const char *extensions; /* contents of the SEQUENCE, behind AKI; hex */
	bool no_extensions, no_aki, other_inner_algorithm, other_issuer, tail;
	int64_t not_before_s, not_after_s;
	const char *subject; /* DER in hex; NULL: CN=device-1 */
};

static void
put_hex(struct der_writer *w, const char *hex)
{
	uint8_t octets[2048];
	size_t len = strlen(hex) / 2;

	assert_true(hex_decode(octets, len, hex, strlen(hex)));
	der_put_raw(w, (struct view){ octets, len });
}

static void
put_extensions(struct der_writer *w, const struct leaf *leaf, struct view aki)
{
	der_open(w, DER_CONTEXT_CONSTRUCTED(3));
	der_open(w, DER_SEQUENCE);
	if (!leaf->no_aki) {
		der_open(w, DER_SEQUENCE);
		der_put_oid(w, "2.5.29.35");
		der_open(w, DER_OCTET_STRING);
		der_open(w, DER_SEQUENCE);
		der_put(w, DER_CONTEXT(0), aki);
		put_hex(w, "820107"); /* a serial, which is skipped */
		der_close(w);
		der_close(w);
		der_close(w);
	}
	if (leaf->extensions != NULL)
		put_hex(w, leaf->extensions);
	der_close(w);
	der_close(w);
}

static struct bytes
make_leaf(const struct ca_keystore_entry *issuer, const struct leaf *leaf)
{
	uint8_t signature[CA_SIGNATURE_MAX_BYTES];
	own_struct(der_writer) tbs;
	struct der_writer w;
	struct ca_cert_view above;
	struct err err;
	size_t len;

	assert_ok(ca_cert_parse(&above, view_of(&issuer->certificate), &err));
	der_writer_init(&tbs, 8192);
	der_open(&tbs, DER_SEQUENCE);
	put_hex(&tbs, leaf->version != NULL ? leaf->version : "a003020102");
	put_hex(&tbs, leaf->serial != NULL ? leaf->serial : "021001020304050607080910111213141516");
	der_put_raw(&tbs, leaf->other_inner_algorithm ? ca_key_type_algorithm(KEY_EC_P384) :
		ca_key_algorithm(issuer->key));
	der_put_raw(&tbs, leaf->other_issuer ? above.issuer : above.subject);
	der_open(&tbs, DER_SEQUENCE);
	der_put_time(&tbs, leaf->not_before_s != 0 ? leaf->not_before_s : NOW - 300);
	der_put_time(&tbs, leaf->not_after_s != 0 ? leaf->not_after_s : NOW + YEAR);
	der_close(&tbs);
	put_hex(&tbs, leaf->subject != NULL ? leaf->subject
					    : "3013"
					      "3111"
					      "300f"
					      "0603550403"
					      "0c08"
					      "6465766963652d31");
	der_put_raw(&tbs, ca_key_spki(issuer->key)); /* any key will do */
	if (!leaf->no_extensions)
		put_extensions(&tbs, leaf, above.ski);
	if (leaf->tail)
		der_put_null(&tbs);
	der_close(&tbs);
	assert_ok(der_finish(&tbs, &err));

	assert_ok(ca_key_sign(issuer->key, buf_view(&tbs.buf), signature, &len, &err));
	der_writer_init(&w, 8192);
	der_open(&w, DER_SEQUENCE);
	der_put_raw(&w, buf_view(&tbs.buf));
	der_put_raw(&w, ca_key_algorithm(issuer->key));
	der_put_bits(&w, (struct view){ signature, len });
	der_close(&w);
	assert_ok(der_finish(&w, &err));
	return buf_give(&w.buf);
}

static void
a_certificate_says_what_it_is(void **state)
{
	own_struct(bytes) der = make_leaf(ca_keystore_at(store, ISSUING), &(struct leaf){
		.extensions = "300e" "0603551d0f" "0101ff" "0404" "03020780" /* keyUsage */
			"300c" "0603551d13" "0101ff" "0402" "3000", /* basicConstraints */
	});
	struct ca_cert_view certificate, issuer;
	struct err err;

	(void)state;
	assert_ok(ca_cert_parse(&issuer, view_of(&ca_keystore_at(store, ISSUING)->certificate), &err));
	assert_ok(ca_cert_parse(&certificate, view_of(&der), &err));
	assert_true(certificate.serial_ours);
	assert_int_equal(certificate.serial.len, 16);
	assert_int_equal(certificate.serial16.octets[1], 0x02);
	assert_true(view_equal_text(certificate.common_name, "device-1"));
	assert_true(view_equal(certificate.issuer, issuer.subject));
	assert_true(view_equal(certificate.aki, issuer.ski));
	assert_true(view_equal(certificate.spki, ca_key_spki(ca_keystore_at(store, ISSUING)->key)));
	assert_int_equal(certificate.not_before_s, NOW - 300);
	assert_int_equal(certificate.not_after_s, NOW + YEAR);
	assert_false(certificate.is_ca || certificate.unknown_critical);
	assert_true(certificate.has_key_usage);
	assert_int_equal(certificate.key_usage, KU_DIGITAL_SIGNATURE);
	assert_int_equal(certificate.path_len, -1);
	assert_int_equal(certificate.ski.len, 0);
}

static void
malformed_certificates_are_refused(void **state)
{
#define EXT(hex) { .extensions = (hex) }
	static const struct {
		struct leaf leaf;
		const char *want;
	} cases[] = {
		{ { .version = "" }, "version" },
		{ { .version = "a003020101" }, "version 3" },
		{ { .version = "a0050201020500" }, "version" },
		{ { .serial = "0203000001" }, "not minimal" },
		{ { .serial = "0215010203040506070809101112131415161718192021" }, "20 octets" },
		{ { .other_inner_algorithm = true }, "signatureAlgorithm" },
		{ { .tail = true }, "more octets" },
		{ { .no_aki = true }, "one wanted, none found" },
		{ { .subject = "0c0161" }, "subject" },
		{ { .subject = "30023100" }, "subject" },
		{ { .subject = "300931073005" "0603550403" }, "subject" },
		{ EXT("0500"), "Extension" },
		{ EXT("300c" "0603551d11" "010100" "0402" "3000"), "default" },
		{ EXT("300b" "0603551d11" "0402" "3000" "0500"), "more octets" },
		{ EXT("3009" "0603551d11" "0402" "3000" "3009" "0603551d11" "0402" "3000"), "twice" },
		{ EXT("300a" "0603551d13" "0403" "300000"), "more octets" },
		{ EXT("300a" "0603551d13" "0403" "300100"), "basicConstraints" },
		{ EXT("300b" "0603551d13" "0404" "30000500"), "more octets" },
		{ EXT("300c" "0603551d13" "0405" "3003020180"), "not negative" },
		{ EXT("300b" "0603551d0f" "0404" "03020080"), "trailing zero" },
		{ EXT("3009" "0603551d0e" "0402" "3000"), "subjectKeyIdentifier" },
		{ EXT("3008" "0603551d23" "0401" "30"), "twice" },
	};
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		own_struct(bytes) der = make_leaf(ca_keystore_at(store, ISSUING), &cases[i].leaf);
		struct ca_cert_view certificate;

		if (ca_cert_parse(&certificate, view_of(&der), &err) == OK)
			fail_msg("case %zu is read", i);
		assert_string_equal(err.code, "certificate_malformed");
		/* The AKI's own octets are read before its double is noticed. */
		if (i + 1 < COUNT_OF(cases) && strstr(err.text, cases[i].want) == NULL)
			fail_msg("case %zu: \"%s\" wanted in \"%s\"", i, cases[i].want, err.text);
	}
}

static void
too_many_extensions_are_refused(void **state)
{
	char hex[65 * 20 + 1] = "";
	struct ca_cert_view certificate;
	struct err err;

	(void)state;
	for (unsigned i = 0; i < 40; i++)
		(void)snprintf(hex + strlen(hex), sizeof(hex) - strlen(hex),
			"3007"
			"06022a%02x"
			"0401"
			"00",
			i);
	own_struct(bytes) few =
		make_leaf(ca_keystore_at(store, ISSUING), &(struct leaf){ .extensions = hex });
	assert_ok(ca_cert_parse(&certificate, view_of(&few), &err));
	for (unsigned i = 40; i < 64; i++)
		(void)snprintf(hex + strlen(hex), sizeof(hex) - strlen(hex),
			"3007"
			"06022a%02x"
			"0401"
			"00",
			i);
	own_struct(bytes) many =
		make_leaf(ca_keystore_at(store, ISSUING), &(struct leaf){ .extensions = hex });
	assert_int_equal(ca_cert_parse(&certificate, view_of(&many), &err), ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "at most 64"));
}

/* Cut anywhere, a certificate is refused; no octet of what is signed can be changed. */
static void
cut_or_changed_certificates_do_not_verify(void **state)
{
	own_struct(bytes) der = make_leaf(ca_keystore_at(store, ISSUING), &(struct leaf){ .no_aki = false });
	own(ca_trust) trust = NULL;
	const struct ca_keystore_entry *issuing = ca_keystore_at(store, ISSUING);
	struct ca_cert_view certificate;
	const char *ca_id = NULL;
	struct err err;

	(void)state;
	assert_ok(ca_trust_new(&trust, &err));
	assert_ok(ca_trust_add(trust, "issuing-1", view_of(&issuing->certificate),
		(const struct view[]){ view_of(&issuing->chain[0]) }, 1, &err));
	assert_ok(ca_trust_verify(trust, view_of(&der), NOW, true, &ca_id, &err));
	assert_string_equal(ca_id, "issuing-1");
	for (size_t len = 0; len < der.len; len++)
		assert_int_equal(ca_cert_parse(&certificate, (struct view){ der.data, len }, &err),
			ERR_ARGUMENT);
	for (size_t i = 0; i < der.len; i++) {
		der.data[i] ^= 4;
		assert_int_equal(ca_trust_verify(trust, view_of(&der), NOW, false, &ca_id, &err),
			ERR_UNAUTHENTICATED);
		der.data[i] ^= 4;
	}
}

static void
trust_tells_ours_from_theirs(void **state)
{
	const struct ca_keystore_entry *ours = ca_keystore_at(store, ISSUING);
	const struct ca_keystore_entry *theirs = ca_keystore_at(foreign, ISSUING);
	static const struct {
		bool foreign;
		struct leaf leaf;
		const char *want; /* NULL: is trusted */
	} cases[] = {
		{ false, { .no_aki = false }, NULL },
		{ false, { .no_extensions = true }, NULL }, /* found by its issuer's name */
		{ true, { .no_aki = false }, "certificate_foreign" }, /* same names, other keys */
		{ true, { .no_extensions = true }, "certificate_bad_signature" },
		{ false, { .other_issuer = true }, "certificate_foreign" },
		{ false, { .not_after_s = NOW - 1 }, "certificate_expired" },
		{ false, { .not_before_s = NOW + 1 }, "certificate_not_yet_valid" },
		/* RFC 5280 has notAfter within; OpenSSL has not, and the two ends must agree. */
		{ false, { .not_after_s = NOW }, "certificate_expired" },
		{ false, { .not_before_s = NOW, .not_after_s = NOW + 1 }, NULL },
		{ false,
			{ .extensions = "300c"
					"0603551d13"
					"0405"
					"30030101ff" },
			"certificate_foreign" },
		{ false,
			{ .extensions = "300c"
					"0603551d1e"
					"0101ff"
					"0402"
					"3000" },
			"certificate_foreign" },
		{ false,
			{ .extensions = "3009"
					"0603551d1e"
					"0402"
					"3000" },
			NULL },
	};
	own(ca_trust) trust = NULL;
	struct view chain[1] = { view_of(&ours->chain[0]) };
	const char *ca_id = NULL;
	struct err err;

	(void)state;
	assert_ok(ca_trust_new(&trust, &err));
	assert_refused(ca_trust_verify(trust, view_of(&ours->certificate), NOW, true, &ca_id, &err),
		ERR_UNAUTHENTICATED, "certificate_foreign");
	assert_refused(ca_trust_verify(trust, view_text("x"), NOW, true, &ca_id, &err), ERR_UNAUTHENTICATED,
		"certificate_malformed");
	assert_ok(ca_trust_add(trust, "issuing-1", view_of(&ours->certificate), chain, 1, &err));
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		own_struct(bytes) der = make_leaf(cases[i].foreign ? theirs : ours, &cases[i].leaf);
		enum status status = ca_trust_verify(trust, view_of(&der), NOW, true, &ca_id, &err);

		if ((status == OK) != (cases[i].want == NULL) ||
		    (cases[i].want != NULL && strcmp(err.code, cases[i].want) != 0))
			fail_msg("case %zu: %s wanted, %s found", i, cases[i].want, err.code);
		if (status != OK)
			assert_int_equal(status, ERR_UNAUTHENTICATED);
		if (cases[i].leaf.not_after_s == NOW - 1)
			assert_ok(ca_trust_verify(trust, view_of(&der), NOW, false, &ca_id, &err));
	}
}

struct thread_task {
	const struct ca_trust *trust;
	struct view leaf;
	unsigned failed;
};

static void *
verify_often(void *arg)
{
	struct thread_task *task = arg;
	const char *ca_id;
	struct err err;

	for (int i = 0; i < 200; i++)
		task->failed += ca_trust_verify(task->trust, task->leaf, NOW, true, &ca_id, &err) != OK;
	return NULL;
}

static void
trust_is_asked_from_many_threads(void **state)
{
	const struct ca_keystore_entry *ours = ca_keystore_at(store, ISSUING);
	struct view chain[1] = { view_of(&ours->chain[0]) };
	own_struct(bytes) der = make_leaf(ours, &(struct leaf){ .no_aki = false });
	own(ca_trust) trust = NULL;
	struct thread_task tasks[4];
	pthread_t threads[4];
	struct err err;

	(void)state;
	assert_ok(ca_trust_new(&trust, &err));
	assert_ok(ca_trust_add(trust, "issuing-1", view_of(&ours->certificate), chain, 1, &err));
	for (size_t i = 0; i < COUNT_OF(threads); i++) {
		tasks[i] = (struct thread_task){ trust, view_of(&der), 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, verify_often, &tasks[i]), 0);
	}
	for (size_t i = 0; i < COUNT_OF(threads); i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(tasks[i].failed, 0);
	}
}

static void
only_whole_chains_are_added(void **state)
{
	const struct ca_keystore_entry *ours = ca_keystore_at(store, ISSUING);
	const struct ca_keystore_entry *root = ca_keystore_at(store, ROOT);
	struct view issuing = view_of(&ours->certificate), top = view_of(&root->certificate);
	struct view stranger = view_of(&ca_keystore_at(foreign, ROOT)->certificate);
	own_struct(bytes) leaf = make_leaf(ours, &(struct leaf){ .no_aki = false });
	/* A CA below one that allows none below it. */
	own_struct(bytes) deep = make_leaf(ours, &(struct leaf){
		.extensions = "300c" "0603551d13" "0405" "30030101ff" });
	own(ca_trust) trust = NULL;
	char long_id[100];
	struct err err;

	(void)state;
	memset(long_id, 'a', sizeof(long_id) - 1);
	long_id[sizeof(long_id) - 1] = '\0';
	assert_ok(ca_trust_new(&trust, &err));
	assert_refused(ca_trust_add(trust, "x", issuing, NULL, 0, &err), ERR_ARGUMENT, "chain_broken");
	assert_refused(ca_trust_add(trust, "x", issuing, &stranger, 1, &err), ERR_ARGUMENT, "chain_broken");
	assert_refused(ca_trust_add(trust, "x", issuing, &issuing, 1, &err), ERR_ARGUMENT, "chain_broken");
	assert_refused(ca_trust_add(trust, "x", view_of(&leaf), &issuing, 1, &err), ERR_ARGUMENT,
		"chain_broken");
	assert_refused(ca_trust_add(trust, "x", view_of(&deep),
			       (const struct view[]){ issuing, top }, 2, &err),
		ERR_ARGUMENT, "chain_broken");
	assert_non_null(strstr(err.text, "pathLen"));
	assert_refused(ca_trust_add(trust, "x", view_text("x"), NULL, 0, &err), ERR_ARGUMENT,
		"certificate_malformed");
	assert_refused(ca_trust_add(trust, long_id, top, NULL, 0, &err), ERR_ARGUMENT, "ca_id");
	for (size_t i = 0; i < 64; i++)
		assert_ok(ca_trust_add(trust, "root", top, NULL, 0, &err));
	assert_refused(ca_trust_add(trust, "root", top, NULL, 0, &err), ERR_TOO_LARGE, "trust_full");
	ca_trust_free(NULL);
}

static void
steps_of_a_chain_need_a_ca_that_may_sign(void **state)
{
	const struct ca_keystore_entry *ours = ca_keystore_at(store, ISSUING);
	struct ca_cert_view issuer, leaf, changed;
	own_struct(bytes) der = make_leaf(ours, &(struct leaf){ .no_aki = false });
	struct err err;

	(void)state;
	assert_ok(ca_cert_parse(&issuer, view_of(&ours->certificate), &err));
	assert_ok(ca_cert_parse(&leaf, view_of(&der), &err));
	assert_ok(ca_cert_issued_by(&leaf, &issuer, &err));
	changed = issuer;
	changed.key_usage = KU_DIGITAL_SIGNATURE;
	assert_refused(ca_cert_issued_by(&leaf, &changed, &err), ERR_ARGUMENT, "chain_broken");
	changed = issuer;
	changed.unknown_critical = true;
	assert_refused(ca_cert_issued_by(&leaf, &changed, &err), ERR_ARGUMENT, "chain_broken");
	changed = issuer;
	changed.spki = view_text("x");
	assert_refused(ca_cert_issued_by(&leaf, &changed, &err), ERR_ARGUMENT, "chain_broken");
	assert_refused(ca_cert_issued_by(&leaf, &leaf, &err), ERR_ARGUMENT, "chain_broken");
}

static void
names_become_escaped_text(void **state)
{
	static const struct {
		const char *hex, *want;
	} cases[] = {
		{ "3000", "" },
		{ "3013" "3111" "300f" "0603550403" "0c08" "6465766963652d31", "CN=device-1" },
		/* C=DE, O=a,b + OU="x", CN=z: the last comes first */
		{ "3031" "310b3009" "0603550406" "1302" "4445"
		  "3116" "300a" "060355040a" "0c03" "612c62" "3008" "060355040b" "0c01" "78"
		  "310a3008" "0603550403" "0c01" "7a", "CN=z,O=a\\,b+OU=x,C=DE" },
		{ "3012" "3110" "300e" "0603550403" "0c07" "20612b223b2320", "CN=\\ a\\+\\\"\\;#\\ " },
		{ "300d" "310b" "3009" "0603550403" "0c02" "2361", "CN=\\#a" },
		{ "3011" "310f" "300d" "0603550403" "0c06" "610062" "0a1b7f", "CN=a\\00b\\0A\\1B\\7F" },
		{ "300d" "310b" "3009" "0603550403" "0c02" "c3a9", "CN=\xc3\xa9" },
		{ "3010" "310e" "300c" "0603550403" "0c05" "c328" "e280ae", "CN=\\C3(\\E2\\80\\AE" },
		{ "300e" "310c" "300a" "0603550403" "0c03" "eda080", "CN=\\ED\\A0\\80" },
		{ "300f" "310d" "300b" "0603550403" "0c04" "f09f9880", "CN=\xf0\x9f\x98\x80" },
		{ "300d" "310b" "3009" "0603550403" "1e02" "0061", "CN=#1e020061" },
		{ "300b" "3109" "3007" "06022a03" "0c01" "61", "1.2.3=#0c0161" },
		{ "300c" "310a" "3008" "0603550403" "0c01" "61" "00", "<malformed>" },
		{ "300b" "3109" "3007" "0603550403" "0c01", "<malformed>" },
		{ "00", "<malformed>" },
	};
	char text[256], small[12];
	uint8_t octets[128];
	size_t len;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		len = strlen(cases[i].hex) / 2;
		assert_true(hex_decode(octets, len, cases[i].hex, 2 * len));
		ca_name_text(text, sizeof(text), (struct view){ octets, len });
		if (strcmp(cases[i].want, "<malformed>") == 0)
			assert_non_null(strstr(text, "<malformed>"));
		else
			assert_string_equal(text, cases[i].want);
	}
	/* Cut between whole characters and escapes, always with its NUL. */
	len = strlen(cases[5].hex) / 2;
	assert_true(hex_decode(octets, len, cases[5].hex, 2 * len));
	for (size_t size = 1; size <= sizeof(small); size++) {
		ca_name_text(small, size, (struct view){ octets, len });
		assert_true(strlen(small) < size);
		assert_memory_equal(small, "CN=a\\00b\\0A", strlen(small));
	}
	ca_name_text(NULL, 0, (struct view){ octets, len });
	/* More RDNs than anybody has. */
	own_struct(der_writer) w;
	der_writer_init(&w, 4096);
	der_open(&w, DER_SEQUENCE);
	for (int i = 0; i < 40; i++)
		put_hex(&w, "310a3008" "0603550403" "0c01" "7a");
	der_close(&w);
	ca_name_text(text, sizeof(text), buf_view(&w.buf));
	assert_string_equal(text, "<malformed>");
}

static void
each_allocation_may_fail(void **state)
{
	const struct ca_keystore_entry *ours = ca_keystore_at(store, ISSUING);
	struct view chain[1] = { view_of(&ours->chain[0]) };
	int64_t at;
	struct err err;

	(void)state;
	for (at = 0; at < 50; at++) {
		own(ca_trust) trust = NULL;
		enum status status;
		bool reached;

		mem_fail_at(at);
		status = ca_trust_new(&trust, &err);
		if (status == OK)
			status = ca_trust_add(
				trust, "issuing-1", view_of(&ours->certificate), chain, 1, &err);
		reached = mem_failed();
		mem_fail_at(-1);
		if (!reached) {
			assert_int_equal(status, OK);
			break;
		}
		assert_int_equal(status, ERR_UNAVAILABLE);
	}
	assert_in_range(at, 3, 49);
}

static void
openssl_s_errors_are_told_once_and_do_not_stay(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(err_openssl(&err, "cannot %s", "do"), ERR_INTERNAL);
	assert_string_equal(err.text, "cannot do");
	assert_string_equal(err.code, "openssl");
	ERR_raise(ERR_LIB_EVP, EVP_R_BAD_DECRYPT);
	ERR_raise(ERR_LIB_EVP, EVP_R_DECODE_ERROR);
	assert_int_equal(err_openssl(&err, "cannot do"), ERR_INTERNAL);
	assert_string_equal(err.text, "cannot do: bad decrypt");
	assert_int_equal(ERR_peek_error(), 0);
	ERR_raise(ERR_LIB_EVP, ERR_R_MALLOC_FAILURE);
	assert_int_equal(err_openssl(&err, "cannot do"), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "out_of_memory");
	ERR_raise_data(ERR_LIB_SYS, 2, "x");
	assert_int_equal(err_openssl(&err, "cannot do"), ERR_INTERNAL);
	ERR_raise(ERR_LIB_EVP, EVP_R_BAD_DECRYPT);
	openssl_errors_drop();
	assert_int_equal(ERR_peek_error(), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_certificate_says_what_it_is),
		cmocka_unit_test(malformed_certificates_are_refused),
		cmocka_unit_test(too_many_extensions_are_refused),
		cmocka_unit_test(cut_or_changed_certificates_do_not_verify),
		cmocka_unit_test(trust_tells_ours_from_theirs),
		cmocka_unit_test(trust_is_asked_from_many_threads),
		cmocka_unit_test(only_whole_chains_are_added),
		cmocka_unit_test(steps_of_a_chain_need_a_ca_that_may_sign),
		cmocka_unit_test(names_become_escaped_text),
		cmocka_unit_test(each_allocation_may_fail),
		cmocka_unit_test(openssl_s_errors_are_told_once_and_do_not_stay),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
