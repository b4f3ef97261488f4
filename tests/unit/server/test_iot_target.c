#include "server/iot/target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/jitrca-target-XXXXXX";
static struct config config;
static struct iot_targets targets;

static int
set_up(void **state)
{
	struct err err;
	char path[128];
	FILE *file;

	(void)state;
	if (ca_init(&err) != OK || mkdtemp(dir) == NULL)
		return -1;
	snprintf(config.iot_targets_file, sizeof(config.iot_targets_file), "%s/targets.json", dir);
	snprintf(config.profiles_dir, sizeof(config.profiles_dir), "/profiles");
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, i == 0 ? "secret" : "brief");
		file = fopen(path, "w");
		fputs(i == 0 ? "0123456789abcdef\n" : "short\n", file);
		fclose(file);
		chmod(path, 0600);
	}
	return 0;
}

static int
tear_down(void **state)
{
	static const char *const NAMES[] = { "targets.json", "secret", "brief" };
	char path[128];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, NAMES[i]);
		unlink(path);
	}
	return rmdir(dir);
}

static enum status
read_text(const char *text, struct err *err)
{
	FILE *file = fopen(config.iot_targets_file, "w");

	for (; *text != '\0'; text++)
		if (*text == '@')
			fputs(dir, file);
		else
			fputc(*text, file);
	fclose(file);
	return iot_targets_read(&targets, &config, err);
}

#define GOOD "\"name\":\"a\",\"region\":\"eu-west-1\",\"account\":\"123456789012\""

static void
a_target_is_read_with_its_defaults(void **state)
{
	struct err err = { .text = "" };
	char arn[IOT_ARN_BYTES];

	(void)state;
	if (read_text("[{" GOOD ",\"mqtt\":{\"host\":\"h\",\"shared\":true},\"webhook\":{\"secret_file\":"
		"\"@/secret\"},\"quotas\":{\"CreateThing\":7.5}},{\"name\":\"cn\",\"region\":"
		"\"cn-north-1\",\"account\":\"000000000001\",\"certificate_mode\":\"DEFAULT\"}]", &err)
		!= OK)
		fail_msg("%s", err.text);
	assert_int_equal(targets.count, 2);
	assert_int_equal(targets.at[0].mode, IOT_MODE_SNI_ONLY);
	assert_int_equal(targets.at[0].mqtt.port, 8883);
	assert_true(targets.at[0].mqtt.shared);
	assert_string_equal(targets.at[0].policies_dir, "/profiles/policies");
	assert_string_equal(targets.at[0].quarantine_group, "jitrca-quarantine");
	assert_string_equal(targets.at[0].webhook.header, "x-jitrca-webhook-secret");
	assert_int_equal(targets.at[0].webhook.secret.len, 16); /* without the line's end */
	assert_int_equal(targets.at[0].quota_count, 1);
	assert_true(targets.at[0].quotas[0].per_second > 7.4);
	assert_int_equal(targets.at[1].mode, IOT_MODE_DEFAULT);
	assert_string_equal(targets.at[1].mqtt.host, "");
	iot_target_cert_arn(arn, &targets.at[1], "ab");
	assert_string_equal(arn, "arn:aws-cn:iot:cn-north-1:000000000001:cert/ab");
	iot_targets_free(&targets);
}

static void
each_refusal_names_entry_field_and_rule(void **state)
{
	static const struct {
		const char *text, *want; /* a part of the error's text */
	} CASES[] = {
		{ "", "JSON wanted" },
		{ "{}", "an array" },
		{ "[1]", "an array of objects" },
		{ "[{\"name\":\"a\",\"name\":\"a\"}]", "JSON wanted" },
		{ "[{\"region\":\"r\",\"account\":\"123456789012\"}]", "name" },
		{ "[{\"name\":\"A\",\"region\":\"r\",\"account\":\"123456789012\"}]", "name: [a-z0-9]" },
		{ "[{\"name\":\"-a\",\"region\":\"r\",\"account\":\"123456789012\"}]", "name: [a-z0-9]" },
		{ "[{\"name\":\"a\",\"account\":\"123456789012\"}]", "region" },
		{ "[{\"name\":\"a\",\"region\":\"r\",\"account\":\"12345678901\"}]", "account: twelve" },
		{ "[{\"name\":\"a\",\"region\":\"r\",\"account\":123456789012}]", "account" },
		{ "[{" GOOD ",\"certificate_mode\":\"sni\"}]", "certificate_mode" },
		{ "[{" GOOD ",\"colour\":\"red\"}]", "colour" },
		{ "[{" GOOD ",\"mqtt\":{}}]", "mqtt: host" },
		{ "[{" GOOD ",\"mqtt\":{\"host\":\"h\",\"port\":0}}]", "mqtt: port" },
		{ "[{" GOOD ",\"mqtt\":{\"host\":\"h h\"}}]", "mqtt: host" },
		{ "[{" GOOD ",\"webhook\":{}}]", "webhook: secret_file" },
		{ "[{" GOOD ",\"webhook\":{\"secret_file\":\"@/brief\"}}]", "16 to 512" },
		{ "[{" GOOD ",\"webhook\":{\"secret_file\":\"@/secret\",\"header\":\"X-A\"}}]",
		  "lower case" },
		{ "[{" GOOD ",\"quotas\":{\"CreateThing\":0}}]", "above 0" },
		{ "[{" GOOD ",\"quotas\":{\"CreateThing\":\"1\"}}]", "above 0" },
		{ "[{" GOOD ",\"quarantine\":{\"group\":\"a b\"}}]", "group" },
		{ "[{" GOOD "},{" GOOD "}]", "each target's own" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct err err = { .text = "" };

		if (read_text(CASES[i].text, &err) != ERR_ARGUMENT)
			fail_msg("%s: %s", CASES[i].text, err.text);
		assert_string_equal(err.code, "iot_targets_invalid");
		if (strstr(err.text, CASES[i].want) == NULL || strstr(err.text, dir) == NULL)
			fail_msg("%s: '%s' wanted, '%s' found", CASES[i].text, CASES[i].want, err.text);
		iot_targets_free(&targets);
	}
}

static void
no_file_is_no_target(void **state)
{
	struct config none = { .iot_targets_file = "" };
	struct err err;

	(void)state;
	assert_int_equal(iot_targets_read(&targets, &none, &err), OK);
	assert_int_equal(targets.count, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_target_is_read_with_its_defaults),
		cmocka_unit_test(each_refusal_names_entry_field_and_rule),
		cmocka_unit_test(no_file_is_no_target),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
