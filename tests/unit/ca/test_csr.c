#include "tests/unit/ca/files.h"

#include <dirent.h>

#include "base/mem.h"
#include "ca/csr.h"
#include "ca/digest.h"
#include "ca/pem.h"
#include "ca/secret.h"

#define FOLDER "tests/unit/ca/csr"

static struct ca_verifier *verifier;

static int
set_up(void **state)
{
	struct err err;

	(void)state;
	if (ca_init(&err) != OK || ca_verifier_new(&verifier, &err) != OK)
		return -1;
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	ca_verifier_free(verifier);
	return 0;
}

/* Calls check for each file of a folder below csr/; how many. */
static size_t
each_file(const char *folder, void (*check)(const char *name, struct view content))
{
	DIR *dir;
	const struct dirent *entry;
	char path[512];
	size_t count = 0;

	(void)snprintf(path, sizeof(path), FOLDER "/%s", folder);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		own_struct(bytes) content = { NULL, 0 };

		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), FOLDER "/%s/%s", folder, entry->d_name);
		content = slurp(path);
		check(entry->d_name, view_of(&content));
		count++;
	}
	closedir(dir);
	return count;
}

static const struct {
	const char *prefix;
	enum ca_key_type type;
} TYPES[] = {
	{ "p256", KEY_EC_P256 },
	{ "p384", KEY_EC_P384 },
	{ "rsa2048", KEY_RSA_2048 },
	{ "rsa3072", KEY_RSA_3072 },
	{ "rsa4096", KEY_RSA_4096 },
	{ "ed25519", KEY_ED25519 },
};

static void
is_read(const char *name, struct view pem)
{
	own_struct(ca_csr) csr = { .spki = { NULL, 0 } };
	enum ca_key_type want = 0, type = 0;
	uint8_t hash[32];
	struct err err;

	for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
		if (strncmp(name, TYPES[i].prefix, strlen(TYPES[i].prefix)) == 0)
			want = TYPES[i].type;
	}
	if (ca_csr_read_pem(verifier, pem, &csr, &err) != OK)
		fail_msg("%s: %s: %s", name, err.code, err.text);
	assert_int_equal(csr.key_type, want);
	ca_sha256(hash, view_of(&csr.spki));
	assert_memory_equal(hash, csr.spki_sha256, 32);
	assert_ok(ca_spki_check(verifier, view_of(&csr.spki), &type, &err));
	assert_int_equal(type, want);
	assert_int_equal(csr.has_extensions, strstr(name, "extensions") != NULL &&
		strstr(name, "none") == NULL);
	assert_int_equal(csr.extensions.len > 0, csr.has_extensions);
}

static void
is_refused(const char *name, struct view pem)
{
	struct ca_csr csr = { .spki = { NULL, 0 } };
	struct err err = { .status = OK };
	const char *end = strstr(name, "--");
	char want[64];
	enum status status = ca_csr_read_pem(verifier, pem, &csr, &err);

	assert_non_null(end);
	(void)snprintf(want, sizeof(want), "%.*s", (int)(end - name), name);
	if (status == OK || strcmp(err.code, want) != 0)
		fail_msg("%s: %s wanted, %s found: %s", name, want, err.code, err.text);
	assert_int_equal(status, strcmp(want, "csr_too_large") == 0 ? ERR_TOO_LARGE : ERR_ARGUMENT);
	assert_memory_equal(err.text, "csr: ", 5);
	assert_null(csr.spki.data);
}

static void
every_good_request_is_read(void **state)
{
	(void)state;
	assert_true(each_file("good", is_read) >= 20);
}

static void
every_bad_request_is_refused_with_its_code(void **state)
{
	(void)state;
	assert_true(each_file("bad", is_refused) >= 100);
}

/* The verifier is used again and again: a refused key must not leave anything behind. */
static void
a_verifier_forgets_a_refused_key(void **state)
{
	own_struct(bytes) bad = slurp(FOLDER "/bad/csr_key_invalid--p256_off_curve.pem");
	own_struct(bytes) good = slurp(FOLDER "/good/p256.pem");
	own_struct(ca_csr) csr = { .spki = { NULL, 0 } };
	struct view nothing = { NULL, 0 };
	struct err err;

	(void)state;
	assert_ok(ca_csr_read_pem(verifier, view_of(&good), &csr, &err));
	ca_csr_free(&csr);
	assert_refused(ca_csr_read_pem(verifier, view_of(&bad), &csr, &err), ERR_ARGUMENT,
		"csr_key_invalid");
	assert_refused(ca_verifier_check(verifier, nothing, nothing, nothing, &err), ERR_INTERNAL,
		"verifier_empty");
	assert_ok(ca_csr_read_pem(verifier, view_of(&good), &csr, &err));
	ca_verifier_free(NULL);
}

/* No octet of a request can be changed: what is read either fails or says the same. */
static void
no_changed_octet_is_accepted(void **state)
{
	own_struct(bytes) pem = slurp(FOLDER "/good/p256_extensions.pem");
	own_struct(bytes) der = { NULL, 0 };
	struct err err;

	(void)state;
	assert_ok(ca_pem_decode(&der, "CERTIFICATE REQUEST", view_of(&pem), &err));
	for (size_t i = 0; i < der.len; i++) {
		for (unsigned flip = 1; flip <= 0x80; flip <<= 3) {
			struct ca_csr csr = { .spki = { NULL, 0 } };

			der.data[i] ^= (uint8_t)flip;
			if (ca_csr_read_der(verifier, view_of(&der), &csr, &err) == OK)
				fail_msg("octet %zu ^ %02x is accepted", i, flip);
			der.data[i] ^= (uint8_t)flip;
		}
	}
	for (size_t len = 0; len < der.len; len++) {
		struct ca_csr csr = { .spki = { NULL, 0 } };

		assert_refused(
			ca_csr_read_der(verifier, (struct view){ der.data, len }, &csr, &err),
			ERR_ARGUMENT, "csr_malformed");
	}
}

static struct ca_profile
profile_of(enum ca_csr_extensions extensions)
{
	return (struct ca_profile){
		.name = "device",
		.key_types = KEY_EC_P256,
		.key_usage = KU_DIGITAL_SIGNATURE,
		.eku = { "1.3.6.1.5.5.7.3.2" },
		.eku_count = 1,
		.csr_extensions = extensions,
	};
}

static enum status
check_extension(const char *octets, size_t len, struct err *err)
{
	struct ca_profile profile = profile_of(CSR_EXTENSIONS_REFUSE);
	struct ca_csr csr = { .key_type = KEY_EC_P256, .has_extensions = true };

	csr.extensions = (struct bytes){ mem_alloc(len), len };
	memcpy(csr.extensions.data, octets, len);
	enum status status = ca_csr_check(&csr, &profile, err);
	ca_csr_free(&csr);
	return status;
}
#define EXTENSION(octets) (octets), sizeof(octets) - 1

static void
a_profile_decides_about_keys_and_extensions(void **state)
{
	struct ca_profile refuse = profile_of(CSR_EXTENSIONS_REFUSE);
	struct ca_profile ignore = profile_of(CSR_EXTENSIONS_IGNORE);
	struct ca_profile unset = profile_of(CSR_EXTENSIONS_UNSET);
	own_struct(bytes) pem = slurp(FOLDER "/good/p256_extensions_ca.pem");
	own_struct(ca_csr) csr = { .spki = { NULL, 0 } };
	struct ca_csr plain = { .key_type = KEY_EC_P256 };
	struct err err;

	(void)state;
	assert_ok(ca_csr_read_pem(verifier, view_of(&pem), &csr, &err));
	assert_ok(ca_csr_check(&csr, &ignore, &err));
	assert_refused(ca_csr_check(&csr, &refuse, &err), ERR_ARGUMENT, "csr_extensions_refused");
	assert_refused(ca_csr_check(&csr, &unset, &err), ERR_ARGUMENT, "csr_extensions_refused");
	assert_ok(ca_csr_check(&plain, &refuse, &err));
	plain.key_type = KEY_RSA_2048;
	assert_refused(ca_csr_check(&plain, &ignore, &err), ERR_ARGUMENT, "csr_key_not_allowed");
	plain.key_type = 0;
	assert_refused(ca_csr_check(&plain, &ignore, &err), ERR_ARGUMENT, "csr_key_not_allowed");

	/* keyUsage: digitalSignature; clientAuth; SKI; basicConstraints of an end entity */
	assert_ok(check_extension(
		EXTENSION("\x30\x0d\x30\x0b\x06\x03\x55\x1d\x0f\x04\x04\x03\x02\x07\x80"), &err));
	assert_ok(check_extension(
		EXTENSION("\x30\x15\x30\x13\x06\x03\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08"
			  "\x2b\x06\x01\x05\x05\x07\x03\x02"),
		&err));
	assert_ok(check_extension(
		EXTENSION("\x30\x0c\x30\x0a\x06\x03\x55\x1d\x0e\x04\x03\x04\x01\x01"), &err));
	assert_ok(check_extension(
		EXTENSION("\x30\x0b\x30\x09\x06\x03\x55\x1d\x13\x04\x02\x30\x00"), &err));
	/* keyCertSign; serverAuth; subjectAltName; unknown */
	assert_refused(
		check_extension(
			EXTENSION("\x30\x0d\x30\x0b\x06\x03\x55\x1d\x0f\x04\x04\x03\x02\x02\x04"),
			&err),
		ERR_ARGUMENT, "csr_extensions_refused");
	assert_refused(
		check_extension(
			EXTENSION("\x30\x15\x30\x13\x06\x03\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08"
				  "\x2b\x06\x01\x05\x05\x07\x03\x01"),
			&err),
		ERR_ARGUMENT, "csr_extensions_refused");
	assert_refused(
		check_extension(
			EXTENSION("\x30\x0b\x30\x09\x06\x03\x55\x1d\x11\x04\x02\x30\x00"), &err),
		ERR_ARGUMENT, "csr_extensions_refused");
	/* malformed values */
	assert_refused(
		check_extension(
			EXTENSION("\x30\x0b\x30\x09\x06\x03\x55\x1d\x0f\x04\x02\x30\x00"), &err),
		ERR_ARGUMENT, "csr_malformed");
	assert_refused(
		check_extension(
			EXTENSION("\x30\x0b\x30\x09\x06\x03\x55\x1d\x25\x04\x02\x05\x00"), &err),
		ERR_ARGUMENT, "csr_malformed");
}

static void
each_allocation_may_fail(void **state)
{
	static const char *const files[] = { "p256_extensions", "rsa2048", "ed25519",
		"p384_sha384" };
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(files); i++) {
		char path[256];
		int64_t at;

		(void)snprintf(path, sizeof(path), FOLDER "/good/%s.pem", files[i]);
		own_struct(bytes) pem = slurp(path);
		for (at = 0; at < 100; at++) {
			own_struct(ca_csr) csr = { .spki = { NULL, 0 } };
			enum status status;
			bool reached;

			mem_fail_at(at);
			status = ca_csr_read_pem(verifier, view_of(&pem), &csr, &err);
			reached = mem_failed();
			mem_fail_at(-1);
			if (!reached) {
				assert_int_equal(status, OK);
				break;
			}
			assert_int_equal(status, ERR_UNAVAILABLE);
			assert_string_equal(err.code, "out_of_memory");
		}
		assert_true(at >= 1 && at < 100);
	}
	mem_fail_at(0);
	struct ca_verifier *none = NULL;
	enum status status = ca_verifier_new(&none, &err);
	mem_fail_at(-1);
	assert_int_equal(status, ERR_UNAVAILABLE);
	assert_null(none);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_good_request_is_read),
		cmocka_unit_test(every_bad_request_is_refused_with_its_code),
		cmocka_unit_test(a_verifier_forgets_a_refused_key),
		cmocka_unit_test(no_changed_octet_is_accepted),
		cmocka_unit_test(a_profile_decides_about_keys_and_extensions),
		cmocka_unit_test(each_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
