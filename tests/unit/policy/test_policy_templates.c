/* certs/policies: the documents that devices get, put through the evaluator. Run from the top of
 * the tree. */
#include <dirent.h>

#include "tests/unit/policy/fixture.h"

#define FOLDER "certs/policies/"

static struct policy *template(const char *name)
{
	struct policy *parsed = NULL;
	struct err err = { 0 };
	char path[128], text[POLICY_DOCUMENT_MAX_CHARS * 2];

	(void)snprintf(path, sizeof(path), FOLDER "%s.json", name);
	FILE *file = fopen(path, "r");
	if (file == NULL)
		fail_msg("%s cannot be read", path);
	struct view json = { (uint8_t *)text, fread(text, 1, sizeof(text), file) };
	(void)fclose(file);
	assert_true(json.len < sizeof(text));
	assert_in_range(policy_document_chars(json), 1, POLICY_DOCUMENT_MAX_CHARS);
	if (policy_parse(&parsed, json, &err) != OK)
		fail_msg("%s: %s", path, err.text);
	return parsed;
}

static void
every_document_there_is_a_policy(void **state)
{
	DIR *folder = opendir(FOLDER);
	const struct dirent *entry;
	size_t count = 0;

	(void)state;
	assert_non_null(folder);
	while ((entry = readdir(folder)) != NULL) {
		const char *end = strstr(entry->d_name, ".json");
		char name[64];

		if (end == NULL)
			continue;
		assert_string_equal(end, ".json");
		(void)snprintf(
			name, sizeof(name), "%.*s", (int)(end - entry->d_name), entry->d_name);
		policy_free(template(name));
		count++;
	}
	(void)closedir(folder);
	assert_true(count >= 2);
}

struct attempt {
	enum policy_action action;
	const char *resource;
	bool want;
};

static void
try_all(const struct policy *parsed, const struct attempt *attempts, size_t count,
	const struct policy_context *context)
{
	for (size_t i = 0; i < count; i++) {
		struct policy_decision decision;
		enum policy_verdict verdict =
			ask(parsed, attempts[i].action, attempts[i].resource, context, &decision);

		if ((verdict == POLICY_ALLOWED) != attempts[i].want)
			fail_msg("%s %s: %d", policy_action_name(attempts[i].action),
				attempts[i].resource, (int)verdict);
	}
}

static void
a_device_has_its_own_topics_only(void **state)
{
	static const struct attempt ATTEMPTS[] = {
		{ POLICY_CONNECT, "client/sn-1", true },
		{ POLICY_CONNECT, "client/sn-2", false },
		{ POLICY_CONNECT, "client/sn-1x", false },
		{ POLICY_CONNECT, "client/*", false },
		{ POLICY_PUBLISH, "topic/devices/sn-1/temperature", true },
		{ POLICY_PUBLISH, "topic/devices/sn-1/a/b", true },
		{ POLICY_RETAIN_PUBLISH, "topic/devices/sn-1/state", true },
		{ POLICY_RECEIVE, "topic/devices/sn-1/command", true },
		{ POLICY_SUBSCRIBE, "topicfilter/devices/sn-1/command", true },
		{ POLICY_SUBSCRIBE, "topicfilter/devices/sn-1/#", true },
		{ POLICY_SUBSCRIBE, "topicfilter/devices/sn-1/+/x", true },
		{ POLICY_PUBLISH, "topic/devices/sn-1", false },
		{ POLICY_PUBLISH, "topic/devices/sn-11/x", false },
		{ POLICY_PUBLISH, "topic/devices/sn-2/x", false },
		{ POLICY_PUBLISH, "topic/devices", false },
		{ POLICY_PUBLISH, "topic/x/devices/sn-1/y", false },
		{ POLICY_PUBLISH, "topic/$aws/things/sn-1/shadow/update", false },
		{ POLICY_RECEIVE, "topic/devices/sn-2/command", false },
		{ POLICY_SUBSCRIBE, "topicfilter/#", false },
		{ POLICY_SUBSCRIBE, "topicfilter/devices/#", false },
		{ POLICY_SUBSCRIBE, "topicfilter/devices/+/command", false },
		{ POLICY_SUBSCRIBE, "topicfilter/+/sn-1/#", false },
		{ POLICY_SUBSCRIBE, "topicfilter/devices/sn-2/#", false },
		{ POLICY_SUBSCRIBE, "topicfilter/$share/g/devices/sn-1/#", false },
		{ POLICY_GET_THING_SHADOW, "thing/sn-1", false },
		{ POLICY_GET_RETAINED_MESSAGE, "topic/devices/sn-1/state", false },
		{ POLICY_LIST_RETAINED_MESSAGES, "*", false },
		{ POLICY_UPDATE_JOB_EXECUTION, "thing/sn-1", false },
		{ POLICY_ASSUME_ROLE_WITH_CERTIFICATE, "rolealias/x", false },
		{ POLICY_PUBLISH, "arn:aws:iot:us-east-1:999999999999:topic/devices/sn-1/x", true },
	};
	struct policy *parsed = template("jitrca-device");
	struct policy_context context = device_context();

	(void)state;
	try_all(parsed, ATTEMPTS, COUNT_OF(ATTEMPTS), &context);
	context.connect_attributes = POLICY_CONNECT_PERSISTENT | POLICY_CONNECT_LAST_WILL;
	try_all(parsed, ATTEMPTS, 4, &context);
	policy_free(parsed);
}

static void
who_is_no_thing_has_nothing(void **state)
{
	static const struct attempt ATTEMPTS[] = {
		{ POLICY_CONNECT, "client/sn-1", false },
		{ POLICY_CONNECT, "client/", false },
		{ POLICY_CONNECT, "client/${iot:Connection.Thing.ThingName}", false },
		{ POLICY_PUBLISH, "topic/devices/sn-1/x", false },
		{ POLICY_PUBLISH, "topic/devices//x", false },
		{ POLICY_SUBSCRIBE, "topicfilter/devices//#", false },
	};
	static const char *const NAMES[] = { "jitrca-device", "jitrca-quarantine" };
	struct policy_context context = device_context();

	(void)state;
	context.thing_name = (struct view){ 0 };
	context.thing_attached = POLICY_NO;
	for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
		struct policy *parsed = template(NAMES[i]);

		try_all(parsed, ATTEMPTS, COUNT_OF(ATTEMPTS), &context);
		policy_free(parsed);
	}
}

/* Also beside the device's own policy, and whatever else is attached. */
static void
quarantine_leaves_the_connection_only(void **state)
{
	static const struct attempt ATTEMPTS[] = {
		{ POLICY_CONNECT, "client/sn-1", true },
		{ POLICY_CONNECT, "client/sn-2", false },
		{ POLICY_PUBLISH, "topic/devices/sn-1/x", false },
		{ POLICY_RETAIN_PUBLISH, "topic/devices/sn-1/x", false },
		{ POLICY_RECEIVE, "topic/devices/sn-1/x", false },
		{ POLICY_SUBSCRIBE, "topicfilter/devices/sn-1/#", false },
		{ POLICY_GET_THING_SHADOW, "thing/sn-1", false },
		{ POLICY_ASSUME_ROLE_WITH_CERTIFICATE, "rolealias/x", false },
		{ POLICY_LIST_NAMED_SHADOWS_FOR_THING, "*", false },
	};
	struct policy *quarantine = template("jitrca-quarantine");
	struct policy *device = template("jitrca-device");
	struct policy *all =
		document("{'Statement':{'Effect':'Allow','Action':'*','Resource':'*'}}");
	const struct policy *const attached[] = { device, all, quarantine };
	const struct policy_context context = device_context();

	(void)state;
	try_all(quarantine, ATTEMPTS, COUNT_OF(ATTEMPTS), &context);
	for (int action = POLICY_NO_ACTION + 1; action < POLICY_ACTION_COUNT; action++) {
		struct policy_resource resource = { view_text(HEAD),
			view_text("topic/devices/sn-1/x") };
		struct policy_decision decision;

		if (action == POLICY_CONNECT)
			continue;
		assert_int_equal(policy_decide(attached, 3, (enum policy_action)action, resource,
					 &context, &decision),
			POLICY_EXPLICIT_DENY);
		assert_true(view_equal_text(decision.sid, "NothingElse"));
	}
	policy_free(quarantine);
	policy_free(device);
	policy_free(all);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_document_there_is_a_policy),
		cmocka_unit_test(a_device_has_its_own_topics_only),
		cmocka_unit_test(who_is_no_thing_has_nothing),
		cmocka_unit_test(quarantine_leaves_the_connection_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
