#include "tests/unit/ca/files.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/mem.h"
#include "ca/cert.h"
#include "ca/keystore.h"
#include "ca/seal.h"
#include "ca/spki.h"

#define YEAR (INT64_C(365) * 86400)
#define PASSPHRASE "correct horse battery"

static char folder[256];
static struct clock at_now; /* fixed, but today: certtool verifies at no other time */
static int64_t now_s;

static int
set_up(void **state)
{
	struct err err;

	(void)state;
	now_s = clock_wall_s(&CLOCK_SYSTEM);
	at_now = clock_fixed(now_s);
	return ca_init(&err) == OK && ca_secure_heap_init(&err) == OK &&
	       ca_secure_heap_init(&err) == OK ? 0 : -1;
}

static int
begin(void **state)
{
	(void)state;
	folder_make(folder);
	return 0;
}

static int
end(void **state)
{
	(void)state;
	folder_remove(folder);
	return 0;
}

/* In one of the test's folders; four texts may be in use at once. */
static const char *
in_folder(const char *name)
{
	static char paths[4][512];
	static unsigned turn;
	char *path = paths[turn++ % 4];

	(void)snprintf(path, 512, "%s/%s", folder, name);
	return path;
}

static int
run(const char *fmt, ...) PRINTF(1, 2);

static int
run(const char *fmt, ...)
{
	char command[2048];
	va_list args;
	int status;

	va_start(args, fmt);
	(void)vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static struct ca_ceremony
ceremony(const char *ca_id, enum ca_key_type type)
{
	return (struct ca_ceremony){
		.dir = folder,
		.passphrase = view_text(PASSPHRASE),
		.key_type = type,
		.organization = "Example, Inc.",
		.ca_id = ca_id,
		.validity_s = 10 * YEAR,
		.public_http_url = "http://ca.example.com",
		.clock = &at_now,
		.entropy = &ENTROPY_SYSTEM,
		.fast_seal = true,
	};
}

static void
open_store(struct ca_keystore **store, struct secret *kek)
{
	struct err err;

	assert_ok(ca_keystore_kek(kek, folder, view_text(PASSPHRASE), &err));
	assert_ok(ca_keystore_open(store, folder, (struct view){ kek->data, kek->len }, &err));
}

static void
assert_mode(const char *name, mode_t want)
{
	struct stat st;

	assert_int_equal(stat(in_folder(name), &st), 0);
	assert_int_equal(st.st_mode & 07777, want);
}

/* The key signs what its certificate's key verifies, in one piece and in many. */
static void
assert_signs(struct ca_key *key, struct view certificate_der)
{
	uint8_t signature[CA_SIGNATURE_MAX_BYTES];
	own(ca_public_key) public_key = NULL;
	own(ca_key_stream) stream = NULL;
	struct ca_cert_view certificate;
	struct view data = view_text("to be signed");
	struct err err;
	size_t len;

	assert_ok(ca_cert_parse(&certificate, certificate_der, &err));
	assert_ok(ca_public_key_new(&public_key, certificate.spki, &err));
	for (int round = 0; round < 3; round++) {
		assert_ok(ca_key_sign(key, data, signature, &len, &err));
		assert_ok(ca_public_key_check(public_key, ca_key_algorithm(key), data,
			(struct view){ signature, len }, &err));
	}
	assert_ok(ca_key_stream_begin(&stream, key, &err));
	assert_ok(ca_key_stream_add(stream, (struct view){ data.data, 5 }, &err));
	assert_ok(ca_key_sign(key, view_text("between"), signature, &len, &err));
	assert_ok(ca_key_stream_add(stream, (struct view){ data.data + 5, data.len - 5 }, &err));
	assert_ok(ca_key_stream_sign(stream, signature, &len, &err));
	assert_ok(ca_public_key_check(public_key, ca_key_algorithm(key), data,
		(struct view){ signature, len }, &err));
	signature[len - 1] ^= 1;
	assert_refused(ca_public_key_check(public_key, ca_key_algorithm(key), data,
		(struct view){ signature, len }, &err), ERR_ARGUMENT, "csr_bad_signature");
}

static void
a_root_and_an_issuing_ca_hold_for_each_key_type(void **state)
{
	static const enum ca_key_type types[] = { KEY_EC_P256, KEY_EC_P384, KEY_RSA_3072,
		KEY_RSA_4096 };
	/* The last takes seconds to make, and as long again. */
	size_t count = COUNT_OF(types) - (getenv("JITRCA_TEST_LONG") == NULL);
	struct err err;

	(void)state;
	for (size_t i = 0; i < count; i++) {
		own_struct(secret) kek = { NULL, 0 };
		own(ca_keystore) store = NULL;
		own(ca_key) dup = NULL;
		char root[32], issuing[32];
		const struct ca_keystore_entry *entry;
		struct ca_cert_view made, above;

		(void)snprintf(root, sizeof(root), "root-%zu", i);
		(void)snprintf(issuing, sizeof(issuing), "issuing-%zu", i);
		struct ca_ceremony first = ceremony(root, types[i]);
		struct ca_ceremony second = ceremony(issuing, types[i]);
		second.validity_s = 20 * YEAR; /* is cut to the root's */
		second.common_name = issuing; /* no two of one subject */
		assert_ok(ca_keystore_make_root(&first, NULL, &err));
		assert_ok(ca_keystore_make_issuing(&second, root, NULL, &err));

		size_t used = CRYPTO_secure_used();
		open_store(&store, &kek);
		assert_true(
			CRYPTO_secure_used() >= used + 2 * 32); /* two private keys at the least */
		assert_int_equal(ca_keystore_count(store), 2 * (i + 1));
		assert_null(ca_keystore_at(store, 2 * (i + 1)));
		entry = ca_keystore_at(store, i); /* issuing-… sort before root-… */
		assert_string_equal(entry->ca_id, issuing);
		assert_false(entry->is_root);
		assert_int_equal(entry->chain_count, 1);
		assert_int_equal(ca_key_type_of(entry->key), types[i]);
		assert_signs(entry->key, view_of(&entry->certificate));
		assert_ok(ca_key_dup(&dup, entry->key, &err));
		assert_signs(dup, view_of(&entry->certificate));

		assert_ok(ca_cert_parse(&made, view_of(&entry->certificate), &err));
		assert_ok(ca_cert_parse(&above, view_of(&entry->chain[0]), &err));
		assert_true(made.is_ca && above.is_ca);
		assert_int_equal(made.path_len, 0);
		assert_int_equal(above.path_len, -1);
		assert_int_equal(made.key_usage, KU_KEY_CERT_SIGN | KU_CRL_SIGN);
		assert_int_equal(made.not_before_s, now_s - 300);
		assert_int_equal(made.not_after_s, now_s + 10 * YEAR);
		assert_true(view_equal(made.aki, above.ski));
		assert_true(view_equal_text(made.common_name, issuing));
		assert_true(view_equal_text(above.common_name, "Example, Inc. Root CA"));
		assert_true(made.serial_ours);
		entry = ca_keystore_at(store, (i + 1) + i);
		assert_string_equal(entry->ca_id, root);
		assert_true(entry->is_root);
		assert_int_equal(entry->chain_count, 0);
		assert_signs(entry->key, view_of(&entry->certificate));

		assert_int_equal(
			run("openssl verify -x509_strict -check_ss_sig -CAfile %s/%s.crt %s/%s.crt "
			    ">/dev/null",
				folder, root, folder, issuing),
			0);
		assert_int_equal(
			run("openssl x509 -in %s/%s.crt -noout -text >/dev/null", folder, issuing),
			0);
		assert_int_equal(
			run("cat %s/%s.crt %s/%s.crt | certtool --certificate-info >/dev/null 2>&1",
				folder, root, folder, issuing),
			0);
		assert_int_equal(run("certtool --verify --load-ca-certificate %s/%s.crt "
			"--infile %s/%s.crt >/dev/null 2>&1", folder, root, folder, issuing), 0);
		assert_mode("seal.params", 0644);
		(void)snprintf(root, sizeof(root), "root-%zu.key", i);
		assert_mode(root, 0600);
		(void)snprintf(issuing, sizeof(issuing), "issuing-%zu.crt", i);
		assert_mode(issuing, 0644);
	}
}

static void
a_new_directory_is_closed_to_others(void **state)
{
	struct ca_ceremony c = ceremony("root", KEY_EC_P256);
	struct err err;

	(void)state;
	c.dir = in_folder("new");
	c.organization = NULL;
	assert_ok(ca_keystore_make_root(&c, NULL, &err));
	assert_mode("new", 0700);
	assert_int_equal(run("openssl x509 -in %s/new/root.crt -noout -subject | grep -q 'CN = "
	                     "jitrca Root CA$'",
				 folder),
		0);
}

static void
nobody_unseals_without_the_passphrase(void **state)
{
	struct ca_ceremony c = ceremony("root", KEY_EC_P256);
	own_struct(secret) kek = { NULL, 0 };
	own(ca_keystore) store = NULL;
	uint8_t other[CA_KEK_BYTES] = { 1 };
	struct err err;

	(void)state;
	assert_refused(ca_keystore_kek(&kek, folder, view_text(PASSPHRASE), &err), ERR_NOT_FOUND,
		"keystore_absent");
	assert_ok(ca_keystore_make_root(&c, NULL, &err));
	assert_refused(ca_keystore_kek(&kek, folder, view_text("correct horse batterz"), &err),
		ERR_DENIED, "passphrase_wrong");
	assert_refused(
		ca_keystore_open(&store, folder, (struct view){ other, sizeof(other) }, &err),
		ERR_DENIED, "key_sealed_otherwise");
	assert_non_null(strstr(err.text, "root.key"));
	assert_refused(ca_keystore_open(&store, folder, (struct view){ other, 5 }, &err),
		ERR_INTERNAL, "kek_size");
	/* Without a KEK the certificates are there, the keys are not. */
	assert_ok(ca_keystore_open(&store, folder, (struct view){ NULL, 0 }, &err));
	assert_null(ca_keystore_at(store, 0)->key);
	/* Another passphrase cannot add to the store. */
	c.passphrase = view_text("another passphrase");
	c.ca_id = "root-2";
	assert_refused(ca_keystore_make_root(&c, NULL, &err), ERR_DENIED, "passphrase_wrong");
	assert_false(file_exists(in_folder("root-2.crt")));
	assert_int_equal(run("grep -q 'BEGIN' %s/root.key", folder), 1);
}

/* A sealed key opens only for the CA and the certificate that it was made for. */
static void
a_sealed_key_cannot_stand_in_for_another(void **state)
{
	struct ca_ceremony a = ceremony("a", KEY_EC_P256), b = ceremony("b", KEY_EC_P256);
	own_struct(secret) kek = { NULL, 0 };
	own(ca_keystore) store = NULL;
	struct err err;

	(void)state;
	assert_ok(ca_keystore_make_root(&a, NULL, &err));
	assert_ok(ca_keystore_make_root(&b, NULL, &err));
	assert_ok(ca_keystore_kek(&kek, folder, view_text(PASSPHRASE), &err));
	struct view key = { kek.data, kek.len };

	assert_int_equal(
		run("cp %s/a.key %s/kept && cp %s/b.key %s/a.key", folder, folder, folder, folder),
		0);
	assert_refused(
		ca_keystore_open(&store, folder, key, &err), ERR_DENIED, "key_sealed_otherwise");
	/* The same certificate and key under another name. */
	assert_int_equal(run("cp %s/kept %s/a.key && cp %s/a.key %s/c.key && cp %s/a.crt %s/c.crt",
				 folder, folder, folder, folder, folder, folder),
		0);
	assert_refused(
		ca_keystore_open(&store, folder, key, &err), ERR_DENIED, "key_sealed_otherwise");
	assert_int_equal(run("rm %s/c.*", folder), 0);
	assert_ok(ca_keystore_open(&store, folder, key, &err));
	ca_keystore_free(give(store));
	/* One octet. */
	assert_int_equal(
		run("printf x | dd of=%s/a.key bs=1 seek=60 conv=notrunc status=none", folder), 0);
	assert_refused(
		ca_keystore_open(&store, folder, key, &err), ERR_DENIED, "key_sealed_otherwise");
	assert_int_equal(run("printf x > %s/a.key", folder), 0);
	assert_refused(
		ca_keystore_open(&store, folder, key, &err), ERR_ARGUMENT, "keystore_malformed");
}

static void
a_root_key_can_be_kept_elsewhere(void **state)
{
	struct ca_ceremony root = ceremony("root", KEY_EC_P256),
			   issuing = ceremony("issuing-1", KEY_EC_P256);
	own_struct(secret) kek = { NULL, 0 };
	own(ca_keystore) store = NULL;
	char elsewhere[600];
	struct err err;

	(void)state;
	(void)snprintf(elsewhere, sizeof(elsewhere), "%s/stick.bin", folder);
	assert_ok(ca_keystore_make_root(&root, elsewhere, &err));
	assert_mode("stick.bin", 0600);
	assert_false(file_exists(in_folder("root.key")));
	assert_refused(ca_keystore_make_issuing(&issuing, "root", NULL, &err), ERR_NOT_FOUND,
		"file_absent");
	assert_false(file_exists(in_folder("issuing-1.key")));
	assert_ok(ca_keystore_make_issuing(&issuing, "root", elsewhere, &err));
	open_store(&store, &kek);
	assert_non_null(ca_keystore_at(store, 0)->key);
	assert_null(ca_keystore_at(store, 1)->key);
}

static void
ceremonies_refuse_what_makes_no_sense_and_leave_nothing(void **state)
{
	struct ca_ceremony c;
	char long_name[100];
	struct err err;

	(void)state;
	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
#define REFUSED(member, value, want_code)                                                          \
	do {                                                                                       \
		c = ceremony("root", KEY_EC_P256);                                                 \
		c.member = (value);                                                                \
		assert_refused(ca_keystore_make_root(&c, NULL, &err), ERR_ARGUMENT, want_code);    \
		assert_refused(ca_keystore_make_csr(&c, &err), ERR_ARGUMENT, want_code);           \
	} while (0)
	REFUSED(ca_id, "../x", "ceremony_ca_id");
	REFUSED(ca_id, "", "ceremony_ca_id");
	REFUSED(ca_id, NULL, "ceremony_ca_id");
	REFUSED(ca_id, "Root", "ceremony_ca_id");
	REFUSED(ca_id, long_name, "ceremony_ca_id");
	REFUSED(passphrase, view_text("1234567"), "ceremony_passphrase");
	REFUSED(validity_s, 0, "ceremony_validity");
	REFUSED(validity_s, INT64_MAX, "ceremony_validity");
	REFUSED(common_name, long_name, "ceremony_name");
	REFUSED(common_name, "", "ceremony_name");
	REFUSED(organization, "two\nlines", "ceremony_name");
	REFUSED(organization, "\xff", "ceremony_name");
	REFUSED(organization, "\xe2\x80\xae" "evil", "ceremony_name");
	REFUSED(key_type, KEY_RSA_2048, "ca_key_type");
	REFUSED(key_type, KEY_ED25519, "ca_key_type");
	REFUSED(key_type, 0, "ca_key_type");
	c = ceremony("root", KEY_EC_P256);
	c.clock = NULL;
	assert_refused(ca_keystore_make_root(&c, NULL, &err), ERR_INTERNAL, "ceremony");
	c = ceremony("root", KEY_EC_P256);
	c.dir = in_folder("no/such");
	assert_refused(ca_keystore_make_root(&c, NULL, &err), ERR_UNAVAILABLE, "directory");
	assert_int_equal(run("test -z \"$(ls -A %s)\"", folder), 0);

	/* The key's file cannot be made: the parameters vanish as well. */
	c = ceremony("root", KEY_EC_P256);
	assert_refused(ca_keystore_make_root(&c, in_folder("no/such/key"), &err), ERR_UNAVAILABLE,
		"file_write");
	assert_int_equal(run("test -z \"$(ls -A %s)\"", folder), 0);
	assert_ok(ca_keystore_make_root(&c, NULL, &err));
	assert_refused(ca_keystore_make_root(&c, NULL, &err), ERR_CONFLICT, "file_exists");
	assert_int_equal(run("rm %s/root.key", folder), 0);
	assert_refused(ca_keystore_make_root(&c, NULL, &err), ERR_CONFLICT, "file_exists");
	assert_false(file_exists(in_folder("root.key")));
	assert_refused(ca_keystore_make_csr(&c, &err), ERR_CONFLICT, "file_exists");

	c = ceremony("issuing-1", KEY_EC_P256);
	assert_refused(
		ca_keystore_make_issuing(&c, "../root", NULL, &err), ERR_ARGUMENT, "ceremony_root");
	assert_refused(
		ca_keystore_make_issuing(&c, "other", NULL, &err), ERR_NOT_FOUND, "file_absent");
}

static void
an_issuing_ca_lies_within_a_root_that_is_valid(void **state)
{
	struct ca_ceremony root = ceremony("root", KEY_EC_P256),
			   issuing = ceremony("issuing-1", KEY_EC_P256);
	struct clock later = clock_fixed(now_s + 11 * YEAR), earlier = clock_fixed(now_s - YEAR);
	struct err err;

	(void)state;
	assert_ok(ca_keystore_make_root(&root, NULL, &err));
	issuing.clock = &later;
	assert_refused(ca_keystore_make_issuing(&issuing, "root", NULL, &err), ERR_ARGUMENT,
		"ceremony_root_validity");
	issuing.clock = &earlier;
	assert_refused(ca_keystore_make_issuing(&issuing, "root", NULL, &err), ERR_ARGUMENT,
		"ceremony_root_validity");
	issuing.clock = &at_now;
	issuing.common_name = "Example, Inc. Root CA";
	assert_refused(ca_keystore_make_issuing(&issuing, "root", NULL, &err), ERR_ARGUMENT,
		"ceremony_name");
	issuing.common_name = NULL;
	assert_ok(ca_keystore_make_issuing(&issuing, "root", NULL, &err));
	/* RFC 5280 4.1.2.6: nobody else's name. */
	issuing.ca_id = "issuing-2";
	assert_refused(ca_keystore_make_issuing(&issuing, "root", NULL, &err), ERR_CONFLICT,
		"ceremony_subject");
	/* An issuing CA is no root. */
	assert_refused(ca_keystore_make_issuing(&issuing, "issuing-1", NULL, &err), ERR_ARGUMENT,
		"ceremony_root");
}

/* RFC 4210 4.4: who has only the old root, or only the new one, verifies what comes after it. */
static void
a_new_root_is_certified_by_the_old_one(void **state)
{
	struct ca_ceremony root = ceremony("root", KEY_EC_P256), next = ceremony("root-2", KEY_EC_P256),
			   issuing = ceremony("issuing-2", KEY_EC_P256);
	own(ca_keystore) store = NULL;
	own_struct(secret) kek = { NULL, 0 };
	struct clock now = CLOCK_SYSTEM; /* OpenSSL's */
	struct err err;

	(void)state;
	root.clock = next.clock = issuing.clock = &now;
	assert_ok(ca_keystore_make_root(&root, NULL, &err));
	assert_ok(ca_keystore_make_root(&next, NULL, &err)); /* of the same name */
	assert_refused(ca_keystore_make_cross(&next, "root", NULL, &err), ERR_ARGUMENT, "ceremony_name");
	assert_int_equal(run("rm %s/root-2.crt %s/root-2.key", folder, folder), 0);
	next.common_name = "Example, Inc. Root CA root-2";
	assert_ok(ca_keystore_make_root(&next, NULL, &err));
	assert_ok(ca_keystore_make_cross(&next, "root", NULL, &err));
	assert_refused(ca_keystore_make_cross(&next, "root", NULL, &err), ERR_CONFLICT, "file_exists");
	assert_ok(ca_keystore_make_issuing(&issuing, "root-2", NULL, &err));
	open_store(&store, &kek);
	assert_int_equal(ca_keystore_count(store), 3);
	assert_int_equal(ca_keystore_at(store, 0)->chain_count, 2);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(run("openssl verify -x509_strict -CAfile %s/%s.crt -untrusted"
			" %s/issuing-2.chain.crt %s/issuing-2.crt >/dev/null", folder,
			i == 0 ? "root" : "root-2", folder, folder), 0);
}

/* Signs folder/issuing-1.csr with a root of OpenSSL's making; extensions as given. */
static void
company_signs(const char *name, const char *extensions, const char *days)
{
	assert_int_equal(run("cd %s && printf '%s' > %s.cnf && openssl x509 -req -in issuing-1.csr "
	                     "-CA company.crt "
			     "-CAkey company.pem -set_serial 7 -days %s -extfile %s.cnf -out "
	                     "%s.pem 2>/dev/null",
				 folder, extensions, name, days, name, name),
		0);
}

static void
a_company_s_own_root_may_sign(void **state)
{
	struct ca_ceremony c = ceremony("issuing-1", KEY_EC_P256),
			   other = ceremony("issuing-2", KEY_EC_P256);
	own_struct(secret) kek = { NULL, 0 };
	own(ca_keystore) store = NULL;
	own_struct(bytes) chain = { NULL, 0 };
	own_struct(bytes) answer = { NULL, 0 };
	struct clock ahead = clock_fixed(now_s + 90 * YEAR);
	struct clock now = CLOCK_SYSTEM;
	struct err err;

	(void)state;
#define GOOD                                                                                       \
	"basicConstraints=critical,CA:true,pathlen:0\\nkeyUsage=critical,keyCertSign,cRLSign\\n"   \
	"subjectKeyIdentifier=hash\\nauthorityKeyIdentifier=keyid\\n"
	c.clock = &now; /* what OpenSSL signs is valid from now */
	assert_ok(ca_keystore_make_csr(&c, &err));
	assert_ok(ca_keystore_make_csr(&other, &err));
	assert_int_equal(
		run("openssl req -in %s/issuing-1.csr -verify -noout 2>/dev/null", folder), 0);
	assert_int_equal(run("cd %s && openssl req -x509 -newkey rsa:2048 -nodes -keyout "
	                     "company.pem -out company.crt "
			     "-days 3000 -subj '/O=Company/CN=Company Root' 2>/dev/null && "
			     "openssl req -x509 -newkey rsa:2048 -nodes -keyout other.pem -out "
	                     "other.crt -days 3000 "
			     "-subj '/O=Other/CN=Other Root' 2>/dev/null && cat other.crt "
	                     "company.crt > both.crt && "
			     "openssl req -x509 -newkey rsa:2048 -nodes -keyout short.pem -out "
	                     "short.crt -days 3000 "
			     "-subj '/O=Company/CN=Company Root' -addext "
	                     "basicConstraints=critical,CA:true,pathlen:0 2>/dev/null; true",
				 folder),
		0);

	static const struct {
		const char *name, *extensions, *want;
	} cases[] = {
		{ "leaf", "basicConstraints=critical,CA:false\\nsubjectKeyIdentifier=hash\\n",
			"import_not_ca" },
		{ "nousage", "basicConstraints=critical,CA:true\\nsubjectKeyIdentifier=hash\\n",
			"import_key_usage" },
		{ "nocrl",
			"basicConstraints=critical,CA:true\\nkeyUsage="
		        "keyCertSign\\nsubjectKeyIdentifier=hash\\n",
			"import_key_usage" },
		{ "noskid",
			"basicConstraints=critical,CA:true\\nkeyUsage=keyCertSign,"
		        "cRLSign\\nsubjectKeyIdentifier=none\\n",
			"import_key_id" },
		{ "constraints", GOOD "nameConstraints=critical,permitted;DNS:example.com\\n",
			"import_extension" },
	};
	chain = slurp(in_folder("both.crt"));
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		own_struct(bytes) pem = { NULL, 0 };
		char file[64];

		company_signs(cases[i].name, cases[i].extensions, "1000");
		(void)snprintf(file, sizeof(file), "%s.pem", cases[i].name);
		pem = slurp(in_folder(file));
		assert_refused(ca_keystore_import(&c, view_of(&pem), view_of(&chain), &err),
			ERR_ARGUMENT, cases[i].want);
	}
	company_signs("good", GOOD, "1000");
	answer = slurp(in_folder("good.pem"));
	{
		own_struct(bytes) stranger = slurp(in_folder("other.crt"));
		own_struct(bytes) key = slurp(in_folder("company.pem"));

		assert_refused(ca_keystore_import(&c, view_text("x"), view_of(&chain), &err),
			ERR_ARGUMENT, "import_certificate");
		assert_refused(ca_keystore_import(&c, view_of(&stranger), view_of(&chain), &err),
			ERR_ARGUMENT, "import_key");
		assert_refused(ca_keystore_import(&other, view_of(&answer), view_of(&chain), &err),
			ERR_ARGUMENT, "import_key");
		assert_refused(ca_keystore_import(&c, view_of(&answer), view_of(&stranger), &err),
			ERR_ARGUMENT, "import_chain");
		assert_refused(
			ca_keystore_import(&c, view_of(&answer), (struct view){ NULL, 0 }, &err),
			ERR_ARGUMENT, "import_chain");
		assert_refused(ca_keystore_import(&c, view_of(&answer), view_of(&key), &err),
			ERR_ARGUMENT, "import_chain");
	}
	c.clock = &ahead;
	assert_refused(ca_keystore_import(&c, view_of(&answer), view_of(&chain), &err),
		ERR_ARGUMENT, "import_validity");
	c.clock = &now;
	c.passphrase = view_text("another passphrase");
	assert_refused(ca_keystore_import(&c, view_of(&answer), view_of(&chain), &err), ERR_DENIED,
		"passphrase_wrong");
	c.passphrase = view_text(PASSPHRASE);
	c.ca_id = "../x";
	assert_refused(ca_keystore_import(&c, view_of(&answer), view_of(&chain), &err),
		ERR_ARGUMENT, "ceremony_ca_id");
	c.ca_id = "issuing-1";
	assert_false(file_exists(in_folder("issuing-1.crt")));
	assert_false(file_exists(in_folder("issuing-1.chain.crt")));

	assert_ok(ca_keystore_import(&c, view_of(&answer), view_of(&chain), &err));
	assert_false(file_exists(in_folder("issuing-1.csr")));
	assert_int_equal(run("mkdir %s/store && mv %s/issuing-1.* %s/seal.params %s/store", folder,
				 folder, folder, folder),
		0);
	assert_ok(ca_keystore_kek(&kek, in_folder("store"), view_text(PASSPHRASE), &err));
	assert_ok(ca_keystore_open(
		&store, in_folder("store"), (struct view){ kek.data, kek.len }, &err));
	assert_int_equal(ca_keystore_count(store), 1);
	assert_int_equal(ca_keystore_at(store, 0)->chain_count, 1);
	assert_signs(
		ca_keystore_at(store, 0)->key, view_of(&ca_keystore_at(store, 0)->certificate));
}

static void
a_root_that_allows_no_ca_below_it_cannot_sign_one(void **state)
{
	struct ca_ceremony c = ceremony("issuing-1", KEY_EC_P256);
	own_struct(bytes) chain = { NULL, 0 };
	own_struct(bytes) answer = { NULL, 0 };
	struct clock now = CLOCK_SYSTEM;
	struct err err;

	(void)state;
	c.clock = &now;
	assert_ok(ca_keystore_make_csr(&c, &err));
	assert_int_equal(run("cd %s && printf '[req]\\ndistinguished_name=d\\n[d]\\n[x]\\n"
			     "basicConstraints=critical,CA:true,pathlen:0\\nsubjectKeyIdentifier="
	                     "hash\\n' > r.cnf && "
			     "openssl req -x509 -newkey rsa:2048 -nodes -keyout company.pem -out "
	                     "company.crt -days 3000 "
			     "-subj '/CN=Short' -config r.cnf -extensions x 2>/dev/null",
				 folder),
		0);
	company_signs("good", GOOD, "1000");
	answer = slurp(in_folder("good.pem"));
	chain = slurp(in_folder("company.crt"));
	assert_refused(ca_keystore_import(&c, view_of(&answer), view_of(&chain), &err),
		ERR_ARGUMENT, "import_chain");
	assert_non_null(strstr(err.text, "pathLen"));
}

static void
damaged_parameters_are_refused(void **state)
{
	static const char *const edits[] = {
		"s/format=1/format=2/",
		"s/salt=../salt=/",
		"s/check=./check=g/",
		"/check/d",
		"s/=/ /",
		"s/ops=.*/ops=65/",
		"s/ops=.*/ops=0/",
		"s/bytes=.*/bytes=99999999999/",
		"s/bytes=.*/bytes=1/",
		"s/ops=.*/ops=1x/",
		"s/ops=.*/ops=/",
		"$aformat=1",
		"$aother=1",
		"$anonsense",
	};
	struct ca_ceremony c = ceremony("root", KEY_EC_P256);
	own_struct(secret) kek = { NULL, 0 };
	struct err err;

	(void)state;
	assert_ok(ca_keystore_make_root(&c, NULL, &err));
	assert_int_equal(run("cp %s/seal.params %s/kept", folder, folder), 0);
	for (size_t i = 0; i < COUNT_OF(edits); i++) {
		assert_int_equal(run("cd %s && sed '%s' kept > seal.params", folder, edits[i]), 0);
		assert_refused(ca_keystore_kek(&kek, folder, view_text(PASSPHRASE), &err),
			ERR_ARGUMENT, "keystore_malformed");
	}
	assert_int_equal(run("cd %s && printf format=1 > seal.params", folder), 0);
	assert_refused(ca_keystore_kek(&kek, folder, view_text(PASSPHRASE), &err), ERR_ARGUMENT,
		"keystore_malformed");
	assert_int_equal(run("cd %s && head -c 5000 /dev/zero > seal.params", folder), 0);
	assert_refused(ca_keystore_kek(&kek, folder, view_text(PASSPHRASE), &err), ERR_TOO_LARGE,
		"file_size");
}

static void
damaged_stores_are_refused_by_name(void **state)
{
	struct ca_ceremony root = ceremony("root", KEY_EC_P256),
			   issuing = ceremony("issuing-1", KEY_EC_P256);
	struct view none = { NULL, 0 };
	own(ca_keystore) store = NULL;
	struct err err;

	(void)state;
	assert_refused(ca_keystore_open(&store, in_folder("absent"), none, &err), ERR_NOT_FOUND,
		"keystore_absent");
	assert_ok(ca_keystore_open(&store, folder, none, &err));
	assert_int_equal(ca_keystore_count(store), 0);
	ca_keystore_free(give(store));
	assert_ok(ca_keystore_make_root(&root, NULL, &err));
	assert_ok(ca_keystore_make_issuing(&issuing, "root", NULL, &err));

	assert_int_equal(run("cd %s && cp root.crt kept && printf x > root.crt", folder), 0);
	assert_refused(ca_keystore_open(&store, folder, none, &err), ERR_ARGUMENT, "pem_malformed");
	assert_non_null(strstr(err.text, "root.crt"));
	assert_int_equal(run("cd %s && cp issuing-1.crt root.crt", folder), 0);
	assert_refused(ca_keystore_open(&store, folder, none, &err), ERR_ARGUMENT, "chain_broken");
	assert_int_equal(
		run("cd %s && cp kept root.crt && mv issuing-1.chain.crt chain", folder), 0);
	assert_refused(ca_keystore_open(&store, folder, none, &err), ERR_ARGUMENT, "chain_broken");
	assert_int_equal(
		run("cd %s && sed s/CERTIFICATE/NONSENSE/ chain > issuing-1.chain.crt", folder), 0);
	assert_refused(
		ca_keystore_open(&store, folder, none, &err), ERR_ARGUMENT, "keystore_malformed");
	assert_int_equal(
		run("cd %s && for i in 1 2 3 4 5 6 7 8 9; do cat chain; done > issuing-1.chain.crt",
			folder),
		0);
	assert_refused(
		ca_keystore_open(&store, folder, none, &err), ERR_TOO_LARGE, "keystore_malformed");
	assert_int_equal(run("cd %s && cp chain issuing-1.chain.crt && cp kept "
			     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	                     "aaaaaaaaa.crt",
				 folder),
		0);
	assert_refused(
		ca_keystore_open(&store, folder, none, &err), ERR_TOO_LARGE, "keystore_full");
}

static void
each_allocation_may_fail(void **state)
{
	struct ca_ceremony root = ceremony("root", KEY_EC_P256),
			   issuing = ceremony("issuing-1", KEY_EC_P256);
	own_struct(secret) kek = { NULL, 0 };
	int64_t at;
	struct err err;

	(void)state;
	assert_ok(ca_keystore_make_root(&root, NULL, &err));
	for (at = 0; at < 200; at++) { /* a ceremony that fails leaves nothing behind */
		enum status status;
		bool reached;

		mem_fail_at(at);
		status = ca_keystore_make_issuing(&issuing, "root", NULL, &err);
		reached = mem_failed();
		mem_fail_at(-1);
		if (!reached) {
			assert_int_equal(status, OK);
			break;
		}
		assert_int_equal(status, ERR_UNAVAILABLE);
		assert_int_equal(run("test \"$(ls %s | wc -l)\" = 3", folder), 0);
	}
	assert_in_range(at, 5, 199);
	assert_ok(ca_keystore_kek(&kek, folder, view_text(PASSPHRASE), &err));
	for (at = 0; at < 200; at++) {
		own(ca_keystore) store = NULL;
		enum status status;
		bool reached;

		mem_fail_at(at);
		status = ca_keystore_open(&store, folder, (struct view){ kek.data, kek.len }, &err);
		reached = mem_failed();
		mem_fail_at(-1);
		if (!reached) {
			assert_int_equal(status, OK);
			break;
		}
		assert_int_equal(status, ERR_UNAVAILABLE);
		assert_null(store);
	}
	assert_in_range(at, 5, 199);
}

static void
a_key_says_what_it_is(void **state)
{
	static const struct {
		enum ca_key_type type;
		const char *name;
		bool for_ca;
	} kinds[] = {
		{ KEY_EC_P256, "ec-p256", true }, { KEY_EC_P384, "ec-p384", true },
		{ KEY_RSA_2048, "rsa-2048", false }, { KEY_RSA_3072, "rsa-3072", true },
		{ KEY_RSA_4096, "rsa-4096", true }, { KEY_ED25519, "ed25519", false },
	};
	own_struct(secret) pkcs8 = { NULL, 0 };
	own(ca_key) key = NULL;
	own(ca_key) again = NULL;
	enum ca_key_type type = 0;
	uint8_t id[CA_KEY_ID_BYTES];
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(kinds); i++) {
		assert_string_equal(ca_key_type_name(kinds[i].type), kinds[i].name);
		assert_true(ca_key_type_parse(&type, kinds[i].name));
		assert_int_equal(type, kinds[i].type);
		assert_int_equal(ca_key_type_algorithm(type).len > 0, kinds[i].for_ca);
	}
	assert_false(ca_key_type_parse(&type, "ec-p521"));
	assert_string_equal(ca_key_type_name(0), "unknown");
	assert_int_equal(ca_key_type_algorithm(0).len, 0);

	assert_ok(ca_key_generate(&key, KEY_EC_P256, &err));
	assert_ok(ca_key_to_pkcs8(key, &pkcs8, &err));
	assert_ok(ca_key_from_pkcs8(&again, (struct view){ pkcs8.data, pkcs8.len }, &err));
	assert_true(view_equal(ca_key_spki(key), ca_key_spki(again)));
	assert_ok(ca_spki_key_id(id, ca_key_spki(key), &err));
	assert_refused(ca_spki_key_id(id, view_text("x"), &err), ERR_ARGUMENT, "csr_malformed");
	assert_refused(ca_key_from_pkcs8(&again, (struct view){ pkcs8.data, pkcs8.len - 1 }, &err),
		ERR_ARGUMENT, "ca_key_malformed");
	assert_refused(ca_key_from_pkcs8(&again, view_text("nonsense"), &err), ERR_ARGUMENT,
		"ca_key_malformed");
	ca_key_free(NULL);
	ca_key_stream_free(NULL);
	ca_keystore_free(NULL);
	ca_public_key_free(NULL);
}

/* Keys of other kinds may be PKCS#8 and still be none of a CA's. */
static void
foreign_kinds_of_keys_are_no_ca_keys(void **state)
{
	static const char *const kinds[] = {
		"-algorithm RSA -pkeyopt rsa_keygen_bits:2048", "-algorithm ED25519",
		"-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
		"-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
	};
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(kinds); i++) {
		own_struct(bytes) der = { NULL, 0 };
		struct ca_key *key = NULL;

		assert_int_equal(run("cd %s && openssl genpkey %s 2>/dev/null | openssl pkcs8 "
		                     "-topk8 -nocrypt -outform DER "
				     "-out key.der",
					 folder, kinds[i]),
			0);
		der = slurp(in_folder("key.der"));
		assert_refused(
			ca_key_from_pkcs8(&key, view_of(&der), &err), ERR_ARGUMENT, "ca_key_type");
	}
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(a_root_and_an_issuing_ca_hold_for_each_key_type),
		TEST(a_new_directory_is_closed_to_others),
		TEST(nobody_unseals_without_the_passphrase),
		TEST(a_sealed_key_cannot_stand_in_for_another),
		TEST(a_root_key_can_be_kept_elsewhere),
		TEST(ceremonies_refuse_what_makes_no_sense_and_leave_nothing),
		TEST(an_issuing_ca_lies_within_a_root_that_is_valid),
		TEST(a_new_root_is_certified_by_the_old_one),
		TEST(a_company_s_own_root_may_sign),
		TEST(a_root_that_allows_no_ca_below_it_cannot_sign_one),
		TEST(damaged_parameters_are_refused),
		TEST(damaged_stores_are_refused_by_name),
		TEST(each_allocation_may_fail),
		TEST(a_key_says_what_it_is),
		TEST(foreign_kinds_of_keys_are_no_ca_keys),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
