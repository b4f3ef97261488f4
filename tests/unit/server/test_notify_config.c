#include "server/notify/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"

static char dir[] = "/tmp/jitrca-notify-XXXXXX"; /* mkdtemp fills the end in */
static struct config config;
static struct notify_config *out;

static const struct {
	const char *name, *content;
	mode_t mode;
} FILES[] = {
	{ "key", "0123456789abcdef01234567\n", 0600 },
	{ "brief", "short\n", 0600 },
	{ "lines", "one\ntwo\n", 0600 },
	{ "open", "0123456789abcdef01234567\n", 0644 },
	{ "empty", "\n", 0600 },
	{ "notify.json", "", 0600 },
};

static int
set_up(void **state)
{
	struct err err;

	(void)state;
	out = mem_zalloc(sizeof(*out));
	if (ca_init(&err) != OK || mkdtemp(dir) == NULL || out == NULL)
		return -1;
	for (size_t i = 0; i < COUNT_OF(FILES); i++) {
		char path[128];
		FILE *file;

		snprintf(path, sizeof(path), "%s/%s", dir, FILES[i].name);
		file = fopen(path, "w");
		fputs(FILES[i].content, file);
		fclose(file);
		chmod(path, FILES[i].mode);
	}
	snprintf(config.notify_file, sizeof(config.notify_file), "%s/notify.json", dir);
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(FILES); i++) {
		char path[128];

		snprintf(path, sizeof(path), "%s/%s", dir, FILES[i].name);
		unlink(path);
	}
	mem_free(out);
	return rmdir(dir);
}

/* With @ for the directory. */
static enum status
read_text(const char *text, struct err *err)
{
	FILE *file = fopen(config.notify_file, "w");

	for (; *text != '\0'; text++)
		if (*text == '@' && text[1] == '/')
			fputs(dir, file);
		else
			fputc(*text, file);
	fclose(file);
	memset(out, 0, sizeof(*out));
	return notify_config_read(out, &config, err);
}

#define MAIL_TO(rest) "\"type\":\"email\",\"url\":" rest
#define HOOK_AT(rest) "\"type\":\"webhook\",\"url\":" rest
#define SNS_AT(arn) "\"type\":\"sns\",\"topic_arn\":\"" arn "\""
#define UDP "\"type\":\"syslog\",\"transport\":\"udp\""
#define MAIL "\"type\":\"email\",\"url\":\"smtp://mail.test:587\",\"from\":\"a@b.test\",\"to\":[\"c@d.test\"]"
#define HOOK "\"type\":\"webhook\",\"url\":\"https://h.test/x\",\"secret_file\":\"@/key\""
#define ONE(fields) "{\"channels\":{\"a\":{" fields "}},\"rules\":[]}"
#define RULE(fields) "{\"channels\":{\"a\":{" MAIL "}},\"rules\":[{" fields "}]}"

static void
a_file_is_read_with_its_defaults_and_comments(void **state)
{
	struct err err = { .text = "" };
	int64_t repeat_after_s = 0;

	(void)state;
	assert_int_equal(read_text("# a comment\n{\"channels\":{\n  # another, of \"a\"\n"
		"\"mail\":{" MAIL "},\"hook\":{" HOOK ",\"burst\":4,\"give_up_after\":\"2d\"}},\n"
		"\"rules\":[{\"channels\":[\"mail\"],\"kinds\":[\"iot_*\",\"crl_refused\"],"
		"\"except\":[\"iot_noise\"]},\n{\"channels\":[\"mail\",\"hook\"],\"severity\":\"critical\","
		"\"repeat_after\":\"5m\"}]}", &err), OK);
	assert_int_equal(out->channel_count, 2);
	assert_true(out->channels[0].starttls);
	assert_int_equal(out->channels[0].rate_per_hour, 60);
	assert_int_equal(out->channels[1].give_up_after_s, 2 * 86400);
	assert_int_equal(out->channels[1].secret.len, 24);
	assert_true(notify_config_wants(out, "mail", "iot_x", SEVERITY_MEDIUM, &repeat_after_s));
	assert_int_equal(repeat_after_s, 3600);
	assert_false(notify_config_wants(out, "mail", "iot_x", SEVERITY_LOW, &repeat_after_s));
	assert_false(notify_config_wants(out, "mail", "iot_noise", SEVERITY_HIGH, &repeat_after_s));
	assert_false(notify_config_wants(out, "mail", "crl_refused_not", SEVERITY_HIGH, &repeat_after_s));
	assert_false(notify_config_wants(out, "hook", "crl_refused", SEVERITY_HIGH, &repeat_after_s));
	assert_true(notify_config_wants(out, "hook", "whatever", SEVERITY_CRITICAL, &repeat_after_s));
	assert_int_equal(repeat_after_s, 300);
	notify_config_free(out);
}

/* Each is refused, and the text says where and what. */
static void
what_is_wrong_is_refused_by_name(void **state)
{
	static const struct {
		const char *text, *want;
	} CASES[] = {
		{ "", "notify.json:1: a JSON object wanted" },
		{ "# only\n\n[1]", "a JSON object wanted" },
		{ "{\"channels\":{},\n\"rules\":\n[}", "notify.json:3: " },
		{ "{\"channels\":{}}", "rules: " },
		{ "{\"channels\":{},\"rules\":[],\"rule\":[]}", "rule: " },
		{ "{\"channels\":{\"A b\":{" MAIL "}},\"rules\":[]}", "channels: names of" },
		{ "{\"channels\":{\"a\":1},\"rules\":[]}", "channels: an object" },
		{ ONE("\"type\":\"sms\""), "channels.a: type: " },
		{ ONE(MAIL ",\"secret_file\":\"@/key\""), "channels.a: secret_file: " },
		{ ONE(MAIL_TO("\"http://x\",\"from\":\"a@b\",\"to\":[\"c@d\"]")), "url: smtps://" },
		{ ONE(MAIL_TO("\"smtp://x/y\",\"from\":\"a@b\",\"to\":[\"c@d\"]")),
			"url: smtps://" },
		{ ONE(MAIL_TO("\"smtp://u:p@x\",\"from\":\"a@b\",\"to\":[\"c@d\"]")),
			"url: smtps://" },
		{ ONE(MAIL ",\"starttls\":\"none\""), "starttls: required wanted" },
		{ ONE(MAIL ",\"username\":\"u\""), "password_file: " },
		{ ONE(MAIL ",\"password_file\":\"@/key\""), "username: " },
		{ ONE(MAIL ",\"username\":\"u\",\"password_file\":\"@/open\""), "password_file: " },
		{ ONE(MAIL ",\"username\":\"u\",\"password_file\":\"@/lines\""), "one line" },
		{ ONE(MAIL ",\"username\":\"u\",\"password_file\":\"@/empty\""),
			"password_file: a secret" },
		{ ONE(MAIL_TO("\"smtps://x\",\"from\":\"a b@c\",\"to\":[\"c@d\"]")), "from: " },
		{ ONE(MAIL_TO("\"smtps://x\",\"from\":\"-oX@c\",\"to\":[\"c@d\"]")), "from: " },
		{ ONE(MAIL_TO("\"smtps://x\",\"from\":\"a@b\",\"to\":[\"<c@d>\"]")),
			"to: addresses" },
		{ ONE(MAIL_TO("\"smtps://x\",\"from\":\"a@b\",\"to\":[]")), "to: at least one" },
		{ ONE(HOOK_AT("\"http://h.test\",\"secret_file\":\"@/key\"")), "url: https://" },
		{ ONE(HOOK_AT("\"https://u@h.test\",\"secret_file\":\"@/key\"")), "url: https://" },
		{ ONE(HOOK_AT("\"https://h.test\",\"secret_file\":\"@/brief\"")), "24 octets" },
		{ ONE(HOOK_AT("\"https://h.test\",\"secret_file\":\"@/nowhere\"")),
			"secret_file: " },
		{ ONE(SNS_AT("arn:aws:sqs:eu-west-1:123456789012:x")), "topic_arn: " },
		{ ONE(SNS_AT("arn:aws:sns:eu-west-1:12:x")), "topic_arn: " },
		{ ONE(SNS_AT("arn:aws:sns")), "topic_arn: " },
		{ ONE(UDP), "host: " },
		{ ONE(UDP ",\"host\":\"a b\""), "host: " },
		{ ONE(UDP ",\"host\":\"h\",\"port\":0"), "port: " },
		{ ONE(UDP ",\"host\":\"h\",\"hostname\":\"a b\""), "hostname: " },
		{ ONE(HOOK ",\"rate_per_hour\":0"), "rate_per_hour: " },
		{ ONE(HOOK ",\"give_up_after\":\"30d\""), "give_up_after: a duration" },
		{ ONE(HOOK ",\"summary_after\":\"soon\""), "summary_after: a duration" },
		{ RULE("\"channels\":[\"b\"]"), "rules[0]: channels: there is no channel 'b'" },
		{ RULE("\"channels\":[]"), "rules[0]: channels: at least one" },
		{ RULE("\"channels\":[\"a\"],\"kinds\":[\"*x\"]"), "kinds: " },
		{ RULE("\"channels\":[\"a\"],\"severity\":\"loud\""), "severity: " },
		{ RULE("\"channels\":[\"a\"],\"repeat_after\":\"0s\""),
			"repeat_after: a duration" },
		{ RULE("\"channels\":[\"a\"],\"kind\":\"x\""), "kind: " },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct err err = { .text = "" };

		if (read_text(CASES[i].text, &err) == OK)
			fail_msg("case %zu was taken: %s", i, CASES[i].text);
		if (strstr(err.text, CASES[i].want) == NULL || strstr(err.text, "notify.json") == NULL)
			fail_msg("case %zu: '%s' is not in '%s'", i, CASES[i].want, err.text);
		if (err.status == ERR_ARGUMENT)
			assert_string_equal(err.code, "notify_invalid");
		notify_config_free(out);
	}
}

static void
without_a_file_nobody_is_told(void **state)
{
	static const struct config NONE = { .notify_file = "" };
	struct err err;

	(void)state;
	memset(out, 0, sizeof(*out));
	assert_int_equal(notify_config_read(out, &NONE, &err), OK);
	assert_int_equal(out->channel_count, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_file_is_read_with_its_defaults_and_comments),
		cmocka_unit_test(what_is_wrong_is_refused_by_name),
		cmocka_unit_test(without_a_file_nobody_is_told),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
