/*
 * Which IoT policies allow more than a device's own. Two ways at once: what is written (a wildcard for all
 * actions or all resources), and what the evaluator says to a stranger who asks for what no device should
 * have, which also finds what is written in another way.
 */
#include <stdio.h>
#include <string.h>

#include "ca/file.h"
#include "server/api/api.h"
#include "server/iotcore/policy.h"
#include "server/http/request.h"
#include "server/report/internal.h"

#define PAGE 100
/* More policies than AWS lets an account have are not looked at. */
#define PAGES_MAX 100
#define NAME_BYTES 129
#define STRANGER "jitrca-report-stranger"
#define HEAD "arn:aws:iot:eu-central-1:123456789012:"

struct judged {
	struct report_work *work;
	const char *name, *source;
	char last[NAME_BYTES];
};

static enum status
find(struct judged *j, enum report_finding which, const char *detail, struct err *err)
{
	return report_find(j->work, which, json_pack("{s:s, s:s, s:s}", "policy", j->name, "source",
		j->source, "detail", detail), err);
}

static const struct {
	enum policy_action action;
	const char *resource, *why;
} PROBES[] = {
	{ POLICY_CONNECT, "client/" STRANGER "-2", "iot:Connect as any client id" },
	{ POLICY_PUBLISH, "topic/" STRANGER "/x", "iot:Publish to any topic" },
	{ POLICY_RECEIVE, "topic/" STRANGER "/x", "iot:Receive from any topic" },
	{ POLICY_SUBSCRIBE, "topicfilter/#", "iot:Subscribe to #" },
	{ POLICY_UPDATE_THING_SHADOW, "thing/" STRANGER "-2", "iot:UpdateThingShadow of any thing" },
	{ POLICY_GET_THING_SHADOW, "thing/" STRANGER "-2", "iot:GetThingShadow of any thing" },
};

/* Whose thing is another than what it asks for, over TLS, with a clean session. */
static enum status
probe(struct judged *j, const struct policy *policy, struct err *err)
{
	const struct policy_context context = { .now_s = j->work->now_s,
		.client_id = view_text(STRANGER "-2"), .secure_transport = POLICY_YES,
		.thing_attached = POLICY_NO };

	for (size_t i = 0; i < COUNT_OF(PROBES); i++) {
		const struct policy *const policies[] = { policy };
		const struct policy_resource resource = { view_text(HEAD),
			view_text(PROBES[i].resource) };
		struct policy_decision decision;

		if (policy_decide(policies, 1, PROBES[i].action, resource, &context, &decision) ==
		    POLICY_ALLOWED)
			TRY(find(j, FINDING_POLICY_BROAD, PROBES[i].why, err));
	}
	return OK;
}

static bool
any_is(const json_t *value, bool (*test)(const char *text))
{
	size_t i;
	const json_t *one;

	if (json_is_string(value))
		return test(json_string_value(value));
	json_array_foreach(value, i, one)
		if (json_is_string(one) && test(json_string_value(one)))
			return true;
	return false;
}

static bool
is_all_actions(const char *text)
{
	return strcmp(text, "*") == 0 || strcmp(text, "iot:*") == 0;
}

/* A star alone, and an ARN whose last part is one, or a kind and one; but not what is below a name. */
static bool
is_all_resources(const char *text)
{
	static const char *const ENDS[] = { ":*", "topic/*", "topicfilter/*", "client/*", "thing/*" };
	const char *kind = strrchr(text, ':');

	if (strcmp(text, "*") == 0)
		return true;
	for (size_t i = 0; kind != NULL && i < COUNT_OF(ENDS); i++)
		if (strcmp(ENDS[i][0] == ':' ? kind : kind + 1, ENDS[i]) == 0)
			return true;
	return false;
}

static enum status
read_statement(struct judged *j, const json_t *statement, struct err *err)
{
	const char *effect = json_string_value(json_object_get(statement, "Effect"));

	if (effect == NULL || strcmp(effect, "Allow") != 0)
		return OK;
	if (any_is(json_object_get(statement, "Action"), is_all_actions))
		TRY(find(j, FINDING_POLICY_BROAD, "Allow of all actions", err));
	if (json_object_get(statement, "NotAction") != NULL)
		TRY(find(j, FINDING_POLICY_BROAD, "Allow of all actions but some", err));
	if (any_is(json_object_get(statement, "Resource"), is_all_resources))
		TRY(find(j, FINDING_POLICY_BROAD, "Allow on all resources of a kind", err));
	if (json_object_get(statement, "NotResource") != NULL)
		TRY(find(j, FINDING_POLICY_BROAD, "Allow on all resources but some", err));
	return OK;
}

static enum status
read_statements(struct judged *j, struct view document, struct err *err)
{
	own(json_t) json = json_loadb((const char *)document.data, document.len, 0, NULL);
	const json_t *statements = json_object_get(json, "Statement");
	const json_t *one;
	size_t i;

	if (json_is_object(statements))
		return read_statement(j, statements, err);
	json_array_foreach(statements, i, one)
		TRY(read_statement(j, one, err));
	return OK;
}

static enum status
judge(struct judged *j, struct view document, struct err *err)
{
	own(iot_policy) policy = NULL;
	struct err why;
	enum status status = policy_parse(&policy, document, &why);

	if (status == ERR_ARGUMENT)
		return find(j, FINDING_POLICY_UNREAD, why.text, err);
	if (status != OK) {
		*err = why;
		return status;
	}
	TRY(read_statements(j, document, err));
	return probe(j, policy, err);
}

/* ---- those that profiles attach ---- */

static enum status
judge_file(struct report_work *work, const char *directory, const char *name, struct err *err)
{
	own_struct(bytes) text = { NULL, 0 };
	struct judged j = { .work = work, .name = name, .source = "profile" };
	char path[2 * CONFIG_TEXT_BYTES];
	struct err why;

	(void)snprintf(path, sizeof(path), "%s/%s.json", directory, name);
	if (file_read(&text, path, POLICY_DOCUMENT_MAX_BYTES, &why) != OK)
		return find(&j, FINDING_POLICY_UNREAD, why.text, err);
	return judge(&j, view_of(&text), err);
}

static bool
named_before(const struct app *app, size_t profile, size_t policy)
{
	const char *name = app->profiles[profile].policies[policy];

	for (size_t p = 0; p <= profile; p++)
		for (size_t i = 0; i < app->profiles[p].policy_count; i++) {
			if (p == profile && i == policy)
				return false;
			if (strcmp(app->profiles[p].policies[i], name) == 0)
				return true;
		}
	return false;
}

static enum status
judge_profiles(struct report_work *work, const char *directory, struct err *err)
{
	const struct app *app = work->app;

	for (size_t p = 0; p < app->profile_count; p++)
		for (size_t i = 0; i < app->profiles[p].policy_count; i++)
			if (!named_before(app, p, i))
				TRY(judge_file(work, directory, app->profiles[p].policies[i], err));
	return OK;
}

/* ---- those of the local IoT Core ---- */

static enum status
judge_row(void *arg, const char *name, struct view document, bool attached, struct err *err)
{
	struct judged *j = arg;

	(void)snprintf(j->last, sizeof(j->last), "%s", name);
	j->name = name;
	j->source = attached ? "local IoT Core, attached" : "local IoT Core, not attached";
	return judge(j, document, err);
}

enum status
report_policies(struct report_work *work, struct db_tx *tx, const char *const *directories,
	size_t count, struct err *err)
{
	struct judged j = { .work = work };
	size_t rows = PAGE;

	for (size_t i = 0; i < count; i++)
		TRY(judge_profiles(work, directories[i], err));
	for (unsigned page = 0; page < PAGES_MAX && rows == PAGE; page++) {
		char after[NAME_BYTES];

		(void)snprintf(after, sizeof(after), "%s", j.last);
		TRY(db_report_policies(tx, after, PAGE, judge_row, &j, &rows, err));
	}
	return OK;
}
