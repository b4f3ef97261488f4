#include "tests/unit/base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ca/digest.h"
#include "ca/secret.h"
#include "server/profile/profile.h"

static char dir[] = "/tmp/jitrca-test-profiles-XXXXXX";
static char file[sizeof(dir) + 16];
static struct ca_profile profiles[CA_PROFILES_MAX];

/* A profile in which everything is well; cases change one place of it. */
static const char GOOD[] =
	"{\"name\":\"device\",\"role\":\"device\",\"issuable_by\":[\"station\",\"admin\","
        "\"device\"],"
	"\"key_types\":[\"ec-p256\",\"rsa-2048\"],\"key_usage\":[\"digital_signature\"],"
	"\"extended_key_usage\":[\"client_auth\"],"
	"\"subject\":[{\"type\":\"CN\",\"value\":\"{device_id}\"}],"
	"\"subject_alt_names\":[{\"type\":\"uri\",\"value\":\"urn:x:{device_id}\",\"optional\":"
        "true}],"
	"\"validity\":{\"default\":\"365d\",\"max\":\"730d\"},"
	"\"renewal\":{\"before\":\"60d\",\"overlap\":\"7d\",\"grace\":\"0s\"},"
	"\"on_confirm\":\"supersede\",\"csr_extensions\":\"ignore\",\"one_live\":true,"
	"\"crl_distribution_point\":true,\"freshest_crl\":true,"
	"\"authority_information_access\":true,\"hourly_cap\":0,"
	"\"iot\":{\"thing_type\":\"pump\",\"policies\":[\"p\"],"
	"\"thing_groups\":[\"all\",\"a:b\"],\"preregister\":false}}";

static int
make_dir(void **state)
{
	struct err err;

	(void)state;
	if (ca_init(&err) != OK || mkdtemp(dir) == NULL)
		return -1;
	(void)snprintf(file, sizeof(file), "%s/device.json", dir);
	return 0;
}

static int
drop_dir(void **state)
{
	(void)state;
	(void)unlink(file);
	return rmdir(dir);
}

static void
write_text(const char *text, size_t len)
{
	FILE *out = fopen(file, "we");

	assert_non_null(out);
	assert_int_equal(fwrite(text, 1, len, out), len);
	assert_int_equal(fclose(out), 0);
}

/* GOOD with `from` replaced by `to`. */
static void
write_changed(const char *from, const char *to)
{
	char text[4096];
	const char *at = strstr(GOOD, from);
	int len;

	assert_non_null(at);
	len = snprintf(
		text, sizeof(text), "%.*s%s%s", (int)(at - GOOD), GOOD, to, at + strlen(from));
	write_text(text, (size_t)len);
}

static void
a_whole_profile_is_read(void **state)
{
	uint8_t want_hash[32];
	size_t count = 0;
	struct err err = { .text = "" };

	(void)state;
	write_text(GOOD, strlen(GOOD));
	if (profile_load_dir(dir, profiles, CA_PROFILES_MAX, &count, &err) != OK)
		fail_msg("%s", err.text);
	assert_int_equal(count, 1);
	assert_string_equal(profiles[0].name, "device");
	assert_int_equal(profiles[0].role, CA_ROLE_DEVICE);
	assert_int_equal(profiles[0].issuable_by, ASKER_STATION | ASKER_ADMIN | ASKER_DEVICE);
	assert_int_equal(profiles[0].key_types, KEY_EC_P256 | KEY_RSA_2048);
	assert_string_equal(profiles[0].eku[0], "1.3.6.1.5.5.7.3.2");
	assert_int_equal(profiles[0].subject[0].type, RDN_CN);
	assert_int_equal(profiles[0].san[0].type, SAN_URI);
	assert_true(profiles[0].san[0].optional);
	assert_false(profiles[0].san[0].each);
	assert_int_equal(profiles[0].backdate_s, 300);
	assert_int_equal(profiles[0].validity_max_s, 730 * 86400);
	assert_int_equal(profiles[0].grace_s, 0);
	assert_string_equal(profiles[0].policies[0], "p");
	assert_true(profiles[0].freshest_crl);
	assert_int_equal(profiles[0].thing_group_count, 2);
	assert_string_equal(profiles[0].thing_groups[1], "a:b");
	ca_blake2b(want_hash, view_text(GOOD));
	assert_memory_equal(profiles[0].hash, want_hash, 32);
}

static void
every_refusal_names_file_field_and_rule(void **state)
{
	static const struct {
		const char *from, *to, *want_field, *want_rule;
	} CASES[] = {
		{ "{\"name\"", "[\"name\"", "profile", "JSON" },
		{ "{\"name\"", "{\"name\":\"x\",\"name\"", "profile", "duplicate" },
		{ "false}}", "false}} x", "profile", "JSON" },
		{ "\"pump\"", "\"\xff\"", "profile", "JSON" },
		{ "\"one_live\":true", "\"one_live\":true,\"colour\":\"red\"", "profile",
			"no member 'colour'" },
		{ "\"name\":\"device\",", "", "name", "is missing" },
		{ "\"name\":\"device\"", "\"name\":\"station\"", "name", "the name of the file" },
		{ "\"name\":\"device\"", "\"name\":\"Device\"", "name", "[a-z0-9_-]" },
		{ "\"name\":\"device\"", "\"name\":7", "name", "a text wanted, a number found" },
		{ "\"name\":\"device\"", "\"name\":\"dev\\u0000ice\"", "profile", "JSON" },
		{ "\"role\":\"device\"", "\"role\":\"boss\"", "role",
			"one of none, device, station, admin" },
		{ "\"role\":\"device\",", "", "role", "is missing" },
		{ "[\"station\",\"admin\",\"device\"]", "\"station\"", "issuable_by",
			"a list wanted" },
		{ "[\"station\",\"admin\",\"device\"]", "[\"anyone\"]", "issuable_by",
			"'anyone' found" },
		{ "[\"station\",\"admin\",\"device\"]", "[\"admin\",\"admin\"]", "issuable_by",
			"twice" },
		{ "\"ec-p256\"", "\"ec-p521\"", "key_types", "'ec-p521' found" },
		{ "[\"digital_signature\"]", "[\"key_cert_sign\"]", "key_usage", "" },
		{ "[\"client_auth\"]", "[\"clientAuth\"]", "extended_key_usage[0]", "dotted OID" },
		{ "[\"client_auth\"]", "[\"1.2\",\"1.2\",\"1.2\",\"1.2\",\"1.2\"]",
			"extended_key_usage", "at most 4" },
		{ "{\"type\":\"CN\",\"value\":\"{device_id}\"}", "\"CN\"", "subject[0]",
			"an object wanted" },
		{ "{\"type\":\"CN\",", "{\"type\":\"X\",", "subject[0].type", "one of CN" },
		{ "{\"type\":\"CN\",", "{\"typ\":\"CN\",", "subject[0]", "no member 'typ'" },
		{ "{\"type\":\"CN\",\"value\":\"{device_id}\"}", "{\"type\":\"CN\"}",
			"subject[0].value", "is missing" },
		{ "\"type\":\"uri\"", "\"type\":\"url\"", "subject_alt_names[0].type",
			"one of dns" },
		{ "\"optional\":true", "\"optional\":1", "subject_alt_names[0].optional",
			"true or false" },
		{ "\"default\":\"365d\",", "", "validity.default", "is missing" },
		{ "\"max\":\"730d\"", "\"max\":\"2y\"", "validity.max", "a duration such as" },
		{ "\"max\":\"730d\"", "\"max\":730", "validity.max", "a text wanted" },
		{ "\"max\":\"730d\"", "\"max\":\"30d\"", "validity", "" },
		{ "\"before\":\"60d\",", "", "renewal.before", "is missing" },
		{ "\"overlap\":\"7d\"", "\"overlap\":\"70d\"", "renew", "" },
		{ "\"on_confirm\":\"supersede\"", "\"on_confirm\":\"forget\"", "on_confirm",
			"supersede, revoke" },
		{ "\"csr_extensions\":\"ignore\"", "\"csr_extensions\":\"grant\"", "csr_extensions",
			"ignore, refuse" },
		{ "\"one_live\":true", "\"one_live\":\"yes\"", "one_live",
			"true or false wanted, a text found" },
		{ "\"crl_distribution_point\":true,", "", "crl_distribution_point", "is missing" },
		{ "\"hourly_cap\":0", "\"hourly_cap\":-1", "hourly_cap", "whole number" },
		{ "\"hourly_cap\":0", "\"hourly_cap\":1.5", "hourly_cap", "whole number" },
		{ "[\"p\"]", "[\"p\",\"p\",\"p\",\"p\",\"p\"]", "iot.policies", "at most 4" },
		{ "[\"all\",", "[\"all\",\"b\",\"c\",\"d\",", "iot.thing_groups", "at most 4" },
		{ "[\"all\",", "[\"a/b\",", "thing_groups[0]", "wanted" },
		{ "\"preregister\":false", "\"preregister\":null", "iot.preregister",
			"null found" },
		/* The signer's own rules (ca_profile_check) come with the file's name as well. */
		{ "[\"ec-p256\",\"rsa-2048\"]", "[]", "key_types", "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct err err = { .text = "" };
		size_t count = 0;

		write_changed(CASES[i].from, CASES[i].to);
		if (profile_load_dir(dir, profiles, CA_PROFILES_MAX, &count, &err) !=
				ERR_ARGUMENT ||
			strcmp(err.code, "profile_invalid") != 0 ||
			strncmp(err.text, file, strlen(file)) != 0 ||
			strstr(err.text, CASES[i].want_field) == NULL ||
			strstr(err.text, CASES[i].want_rule) == NULL)
			fail_msg("%s -> %s: '%s'", CASES[i].from, CASES[i].to, err.text);
	}
}

static void
a_value_that_does_not_fit_is_refused(void **state)
{
	char value[CA_TEMPLATE_BYTES + 64];
	struct err err = { .text = "" };
	size_t count = 0;

	(void)state;
	(void)snprintf(value, sizeof(value), "\"value\":\"%0*d\"", CA_TEMPLATE_BYTES, 1);
	write_changed("\"value\":\"{device_id}\"", value);
	assert_int_equal(
		profile_load_dir(dir, profiles, CA_PROFILES_MAX, &count, &err), ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "subject[0].value: at most 255 octets wanted, 256 found"));
}

static void
a_file_that_is_too_large_or_absent_is_refused(void **state)
{
	static char blanks[65537];
	struct err err = { .text = "" };
	size_t count = 0;

	(void)state;
	memset(blanks, ' ', sizeof(blanks));
	write_text(blanks, sizeof(blanks));
	assert_int_equal(
		profile_load_dir(dir, profiles, CA_PROFILES_MAX, &count, &err), ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "at most 65536 octets wanted"));
	assert_int_equal(unlink(file), 0);
	assert_int_equal(
		profile_load_dir(dir, profiles, CA_PROFILES_MAX, &count, &err), ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "0 found"));
	assert_int_equal(profile_load_dir("/nonexistent", profiles, CA_PROFILES_MAX, &count, &err),
		ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "profiles_dir"));
}

static void
our_own_profiles_are_good(void **state)
{
	static const char *const WANT[] = { "admin", "device", "iot-verification", "ocsp", "server",
		"service", "station" };
	struct err err = { .text = "" };
	size_t count = 0;

	(void)state;
	if (profile_load_dir("certs", profiles, CA_PROFILES_MAX, &count, &err) != OK)
		fail_msg("%s", err.text);
	assert_int_equal(count, COUNT_OF(WANT));
	for (size_t i = 0; i < count; i++)
		assert_string_equal(profiles[i].name, WANT[i]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_profile_is_read),
		cmocka_unit_test(every_refusal_names_file_field_and_rule),
		cmocka_unit_test(a_value_that_does_not_fit_is_refused),
		cmocka_unit_test(a_file_that_is_too_large_or_absent_is_refused),
		cmocka_unit_test(our_own_profiles_are_good),
	};

	return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
