#include "ca/algorithm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define OCTETS(octets) { (const uint8_t *)("" octets), sizeof(octets) - 1 }
#define RSA_OID "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"
#define EC_OID "\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"

static void
keys_are_called_as_profiles_have_them(void **state)
{
	static const struct {
		const char *want;
		struct view spki;
	} cases[] = {
		{ "ec-p256", OCTETS("\x30\x19\x30\x13" EC_OID
			"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x02\x00\x04") },
		{ "ec-p384", OCTETS("\x30\x16\x30\x10" EC_OID
			"\x06\x05\x2b\x81\x04\x00\x22\x03\x02\x00\x04") },
		{ "1.2.3", OCTETS("\x30\x13\x30\x0d" EC_OID "\x06\x02\x2a\x03\x03\x02\x00\x04") },
		{ "ed25519", OCTETS("\x30\x0b\x30\x05\x06\x03\x2b\x65\x70\x03\x02\x00\x01") },
		/* A size shows as it is, the octet of the sign not counted. */
		{ "rsa-16", OCTETS("\x30\x1c\x30\x0d" RSA_OID
			"\x03\x0b\x00\x30\x08\x02\x03\x00\xc0\x01\x02\x01\x03") },
		{ "rsa-12", OCTETS("\x30\x1b\x30\x0d" RSA_OID
			"\x03\x0a\x00\x30\x07\x02\x02\x0c\x01\x02\x01\x03") },
		{ "unreadable", OCTETS("\x30\x1a\x30\x0d" RSA_OID "\x03\x02\x00\x30") },
		{ "unreadable", OCTETS("\x30\x0d\x30\x09" EC_OID "\x03\x00") },
		{ "unreadable", OCTETS("") },
		{ "unreadable", OCTETS("\x30\x80\x01") },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char name[CA_ALGORITHM_BYTES];

		ca_algorithm_of_key(name, cases[i].spki);
		assert_string_equal(name, cases[i].want);
	}
}

static void
signatures_are_called_by_their_names_or_numbers(void **state)
{
	static const struct {
		const char *want;
		struct view algorithm;
	} cases[] = {
		{ "ecdsa-with-SHA256", OCTETS("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02") },
		{ "sha256WithRSAEncryption",
		  OCTETS("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00") },
		{ "1.2.3", OCTETS("\x30\x04\x06\x02\x2a\x03") },
		{ "unreadable", OCTETS("\x30\x02\x06\x00") },
		{ "unreadable", OCTETS("") },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char name[CA_ALGORITHM_BYTES];

		ca_algorithm_of_signature(name, cases[i].algorithm);
		assert_string_equal(name, cases[i].want);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_called_as_profiles_have_them),
		cmocka_unit_test(signatures_are_called_by_their_names_or_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
