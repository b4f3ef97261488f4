/*
 * iot_call - for tests: the client of IoT Core, called from outside. argv[1] is the configuration
 * (JSON); then one JSON object a line on stdin: {"op": …, arguments}, one a line on stdout:
 * {"status", "result"} or
 * {"status", "code", "text", "failure"}. Credentials come from the environment, as the chain finds
 * them.
 */
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/iot/aws_credentials.h"
#include "server/iot/iot_api.h"

#define PAGE IOT_PAGE_MAX
#define QUOTAS_MAX 64
#define THREADS_MAX 64

static struct aws_client *CLIENT;
static struct aws_credentials *CREDENTIALS;

struct call {
	struct iot iot;
	const json_t *in;
	json_t *out; /* an object */
	struct err err;
};

static const char *
text(const struct call *call, const char *name)
{
	return json_string_value(json_object_get(call->in, name));
}

static bool
flag(const struct call *call, const char *name)
{
	return json_is_true(json_object_get(call->in, name));
}

static int64_t
number(const json_t *in, const char *name)
{
	return json_integer_value(json_object_get(in, name));
}

static void
put(struct call *call, const char *name, const char *value)
{
	json_object_set_new(call->out, name, json_string(value));
}

static void
put_bytes(struct call *call, const char *name, const struct bytes *value)
{
	json_object_set_new(call->out, name,
		json_stringn(value->len > 0 ? (const char *)value->data : "", value->len));
}

static void
put_number(struct call *call, const char *name, int64_t value)
{
	json_object_set_new(call->out, name, json_integer(value));
}

static void
put_made(struct call *call, const struct iot_made *made)
{
	put(call, "arn", made->arn);
	put(call, "id", made->id);
}

/* Strings of an array, borrowed. */
static size_t
texts(const struct call *call, const char *name, const char **out, size_t max)
{
	const json_t *array = json_object_get(call->in, name);
	size_t count = json_array_size(array) < max ? json_array_size(array) : max;

	for (size_t i = 0; i < count; i++)
		out[i] = json_string_value(json_array_get(array, i));
	return count;
}

/* ---- certificates ---- */

static enum status
get_registration_code(struct call *c)
{
	char code[IOT_ID_BYTES];

	TRY(iot_get_registration_code(&c->iot, code, &c->err));
	put(c, "code", code);
	return OK;
}

static enum status
register_ca_certificate(struct call *c)
{
	struct iot_register_ca spec = { .ca_pem = text(c, "ca_pem"),
		.verification_pem = text(c, "verification_pem"),
		.mode = flag(c, "sni_only") ? IOT_MODE_SNI_ONLY : IOT_MODE_DEFAULT,
		.active = flag(c, "active"),
		.auto_registration = flag(c, "auto_registration") };
	struct iot_made made;

	TRY(iot_register_ca_certificate(&c->iot, &spec, &made, &c->err));
	put_made(c, &made);
	return OK;
}

static void
put_ca(struct call *c, const struct iot_ca_certificate *ca)
{
	put(c, "arn", ca->arn);
	put(c, "id", ca->id);
	put(c, "status", iot_status_name(ca->status));
	put_number(c, "creation_s", ca->creation_s);
	put_number(c, "mode", ca->mode);
	put_number(c, "auto_registration", ca->auto_registration);
	put_bytes(c, "pem", &ca->pem);
}

static enum status
describe_ca_certificate(struct call *c)
{
	own_struct(iot_ca_certificate) ca = { .status = IOT_STATUS_UNKNOWN };

	TRY(iot_describe_ca_certificate(&c->iot, text(c, "id"), &ca, &c->err));
	put_ca(c, &ca);
	return OK;
}

static enum status
update_ca_certificate(struct call *c)
{
	return iot_update_ca_certificate(&c->iot, text(c, "id"),
		iot_status_parse(text(c, "new_status")),
		(enum iot_switch)number(c->in, "auto_registration"), &c->err);
}

static enum status
delete_ca_certificate(struct call *c)
{
	return iot_delete_ca_certificate(&c->iot, text(c, "id"), &c->err);
}

static enum status
register_certificate(struct call *c)
{
	struct iot_made made;

	TRY(iot_register_certificate(&c->iot, text(c, "pem"), text(c, "ca_pem"),
		iot_status_parse(text(c, "certificate_status")), &made, &c->err));
	put_made(c, &made);
	return OK;
}

static enum status
register_certificate_without_ca(struct call *c)
{
	struct iot_made made;

	TRY(iot_register_certificate_without_ca(&c->iot, text(c, "pem"),
		iot_status_parse(text(c, "certificate_status")), &made, &c->err));
	put_made(c, &made);
	return OK;
}

static enum status
describe_certificate(struct call *c)
{
	own_struct(iot_certificate) certificate = { .status = IOT_STATUS_UNKNOWN };

	TRY(iot_describe_certificate(&c->iot, text(c, "id"), &certificate, &c->err));
	put(c, "arn", certificate.arn);
	put(c, "id", certificate.id);
	put(c, "status", iot_status_name(certificate.status));
	put(c, "ca_id", certificate.ca_id);
	put_number(c, "mode", certificate.mode);
	put_number(c, "creation_s", certificate.creation_s);
	put_number(c, "not_before_s", certificate.not_before_s);
	put_number(c, "not_after_s", certificate.not_after_s);
	put_bytes(c, "pem", &certificate.pem);
	return OK;
}

static enum status
update_certificate(struct call *c)
{
	return iot_update_certificate(
		&c->iot, text(c, "id"), iot_status_parse(text(c, "new_status")), &c->err);
}

static enum status
delete_certificate(struct call *c)
{
	return iot_delete_certificate(&c->iot, text(c, "id"), flag(c, "force"), &c->err);
}

/* ---- things ---- */

static struct iot_thing_spec
thing_spec(const struct call *c, struct aws_pair pairs[IOT_ATTRIBUTES_MAX])
{
	struct iot_thing_spec spec = { .name = text(c, "name"),
		.type = text(c, "type"),
		.attributes = pairs,
		.merge = flag(c, "merge"),
		.remove_type = flag(c, "remove_type"),
		.expected_version = number(c->in, "expected_version") };
	json_t *object = json_object_get(c->in, "attributes");

	for (void *at = json_object_iter(object);
		at != NULL && spec.attribute_count < IOT_ATTRIBUTES_MAX;
		at = json_object_iter_next(object, at))
		pairs[spec.attribute_count++] = (struct aws_pair){ json_object_iter_key(at),
			json_string_value(json_object_iter_value(at)) };
	return spec;
}

static enum status
create_thing(struct call *c)
{
	struct aws_pair pairs[IOT_ATTRIBUTES_MAX];
	struct iot_thing_spec spec = thing_spec(c, pairs);
	struct iot_made made;

	TRY(iot_create_thing(&c->iot, &spec, &made, &c->err));
	put_made(c, &made);
	return OK;
}

static enum status
update_thing(struct call *c)
{
	struct aws_pair pairs[IOT_ATTRIBUTES_MAX];
	struct iot_thing_spec spec = thing_spec(c, pairs);

	return iot_update_thing(&c->iot, &spec, &c->err);
}

static enum status
delete_thing(struct call *c)
{
	return iot_delete_thing(
		&c->iot, text(c, "name"), number(c->in, "expected_version"), &c->err);
}

static enum status
describe_thing(struct call *c)
{
	own_struct(iot_thing) thing = { .version = 0 };
	json_t *attributes = json_object();

	json_object_set_new(c->out, "attributes", attributes);
	TRY(iot_describe_thing(&c->iot, text(c, "name"), &thing, &c->err));
	put(c, "name", thing.name);
	put(c, "arn", thing.arn);
	put(c, "type", thing.type);
	put_number(c, "version", thing.version);
	for (size_t i = 0; i < thing.attribute_count; i++)
		json_object_set_new(attributes, thing.attributes[i].name,
			json_string(iot_thing_attribute(&thing, thing.attributes[i].name)));
	return OK;
}

static enum status
create_thing_type(struct call *c)
{
	const char *names[4];
	size_t count = texts(c, "searchable", names, 4);
	struct iot_made made;

	TRY(iot_create_thing_type(
		&c->iot, text(c, "name"), text(c, "description"), names, count, &made, &c->err));
	put_made(c, &made);
	return OK;
}

static enum status
describe_thing_type(struct call *c)
{
	struct iot_thing_type type;

	TRY(iot_describe_thing_type(&c->iot, text(c, "name"), &type, &c->err));
	put(c, "name", type.name);
	put(c, "arn", type.arn);
	put(c, "description", type.description);
	put_number(c, "deprecated", type.deprecated);
	return OK;
}

static enum status
create_thing_group(struct call *c)
{
	struct iot_made made;

	TRY(iot_create_thing_group(&c->iot, text(c, "name"), text(c, "parent"),
		text(c, "description"), &made, &c->err));
	put_made(c, &made);
	return OK;
}

static enum status
add_thing_to_thing_group(struct call *c)
{
	return iot_add_thing_to_thing_group(&c->iot, text(c, "group"), text(c, "thing"), &c->err);
}

static enum status
remove_thing_from_thing_group(struct call *c)
{
	return iot_remove_thing_from_thing_group(
		&c->iot, text(c, "group"), text(c, "thing"), &c->err);
}

static enum status
attach_thing_principal(struct call *c)
{
	return iot_attach_thing_principal(&c->iot, text(c, "thing"), text(c, "principal"), &c->err);
}

static enum status
detach_thing_principal(struct call *c)
{
	return iot_detach_thing_principal(&c->iot, text(c, "thing"), text(c, "principal"), &c->err);
}

/* ---- policies ---- */

static void
put_policy(struct call *c, const struct iot_policy *policy)
{
	put(c, "name", policy->name);
	put(c, "arn", policy->arn);
	put(c, "version", policy->version);
	put_bytes(c, "document", &policy->document);
}

static enum status
create_policy(struct call *c)
{
	own_struct(iot_policy) policy = { .document = { NULL, 0 } };

	TRY(iot_create_policy(&c->iot, text(c, "name"), text(c, "document"), &policy, &c->err));
	put_policy(c, &policy);
	return OK;
}

static enum status
get_policy(struct call *c)
{
	own_struct(iot_policy) policy = { .document = { NULL, 0 } };

	TRY(iot_get_policy(&c->iot, text(c, "name"), &policy, &c->err));
	put_policy(c, &policy);
	return OK;
}

static enum status
create_policy_version(struct call *c)
{
	struct iot_policy_version version;

	TRY(iot_create_policy_version(&c->iot, text(c, "name"), text(c, "document"),
		flag(c, "set_default"), &version, &c->err));
	put(c, "id", version.id);
	put_number(c, "is_default", version.is_default);
	return OK;
}

static enum status
set_default_policy_version(struct call *c)
{
	return iot_set_default_policy_version(
		&c->iot, text(c, "name"), text(c, "version"), &c->err);
}

static enum status
delete_policy_version(struct call *c)
{
	return iot_delete_policy_version(&c->iot, text(c, "name"), text(c, "version"), &c->err);
}

static enum status
list_policy_versions(struct call *c)
{
	struct iot_policy_version versions[IOT_POLICY_VERSIONS_MAX];
	json_t *array = json_array();
	size_t count;

	json_object_set_new(c->out, "items", array);
	TRY(iot_list_policy_versions(&c->iot, text(c, "name"), versions, &count, &c->err));
	for (size_t i = 0; i < count; i++)
		json_array_append_new(
			array, json_pack("{s:s, s:b, s:I}", "id", versions[i].id, "is_default",
				       (int)versions[i].is_default, "creation_s",
				       (json_int_t)versions[i].creation_s));
	return OK;
}

static enum status
attach_policy(struct call *c)
{
	return iot_attach_policy(&c->iot, text(c, "name"), text(c, "target"), &c->err);
}

static enum status
detach_policy(struct call *c)
{
	return iot_detach_policy(&c->iot, text(c, "name"), text(c, "target"), &c->err);
}

/* ---- endpoint, rules, events ---- */

static enum status
describe_endpoint(struct call *c)
{
	char host[IOT_HOST_BYTES];

	TRY(iot_describe_endpoint(&c->iot, text(c, "type"), host, &c->err));
	put(c, "host", host);
	return OK;
}

static void
put_destination(struct call *c, const struct iot_destination *destination)
{
	put(c, "arn", destination->arn);
	put(c, "url", destination->url);
	put(c, "reason", destination->reason);
	put_number(c, "status", destination->status);
}

static enum status
create_topic_rule_destination(struct call *c)
{
	struct iot_destination destination;

	TRY(iot_create_topic_rule_destination(&c->iot, text(c, "url"), &destination, &c->err));
	put_destination(c, &destination);
	return OK;
}

static enum status
confirm_topic_rule_destination(struct call *c)
{
	return iot_confirm_topic_rule_destination(&c->iot, text(c, "token"), &c->err);
}

static enum status
get_topic_rule_destination(struct call *c)
{
	struct iot_destination destination;

	TRY(iot_get_topic_rule_destination(&c->iot, text(c, "arn"), &destination, &c->err));
	put_destination(c, &destination);
	return OK;
}

static enum status
update_topic_rule_destination(struct call *c)
{
	return iot_update_topic_rule_destination(&c->iot, text(c, "arn"),
		(enum iot_destination_status)number(c->in, "destination_status"), &c->err);
}

static enum status
create_topic_rule(struct call *c)
{
	return iot_create_topic_rule(
		&c->iot, text(c, "name"), json_object_get(c->in, "payload"), &c->err);
}

static enum status
replace_topic_rule(struct call *c)
{
	return iot_replace_topic_rule(
		&c->iot, text(c, "name"), json_object_get(c->in, "payload"), &c->err);
}

static enum status
delete_topic_rule(struct call *c)
{
	return iot_delete_topic_rule(&c->iot, text(c, "name"), &c->err);
}

static enum status
get_topic_rule(struct call *c)
{
	json_t *rule;

	TRY(iot_get_topic_rule(&c->iot, text(c, "name"), &rule, &c->err));
	json_object_set_new(c->out, "rule", rule);
	return OK;
}

static enum status
update_event_configurations(struct call *c)
{
	const char *types[16];
	size_t count = texts(c, "types", types, 16);

	return iot_update_event_configurations(&c->iot, types, count, flag(c, "enabled"), &c->err);
}

/* ---- lists: all pages, as texts; the pages are counted ---- */

union items {
	struct iot_certificate certificates[PAGE];
	struct iot_ca_certificate cas[PAGE];
	struct iot_name names[PAGE];
	struct iot_arn arns[PAGE];
	struct iot_destination destinations[PAGE];
};

static const char *
item_text(const char *op, const union items *items, size_t i)
{
	if (strcmp(op, "list_ca_certificates") == 0)
		return items->cas[i].id;
	if (strstr(op, "certificates") != NULL)
		return items->certificates[i].id;
	if (strcmp(op, "list_thing_principals") == 0)
		return items->arns[i].text;
	if (strcmp(op, "list_topic_rule_destinations") == 0)
		return items->destinations[i].arn;
	return items->names[i].text;
}

static enum status
one_page(struct call *c, const char *op, struct iot_cursor *cursor, union items *items, size_t max,
	size_t *count)
{
	bool newest = flag(c, "newest_first");

	if (strcmp(op, "list_ca_certificates") == 0)
		return iot_list_ca_certificates(&c->iot, cursor, items->cas, max, count, &c->err);
	if (strcmp(op, "list_certificates") == 0)
		return iot_list_certificates(
			&c->iot, newest, cursor, items->certificates, max, count, &c->err);
	if (strcmp(op, "list_certificates_by_ca") == 0)
		return iot_list_certificates_by_ca(&c->iot, text(c, "ca_id"), newest, cursor,
			items->certificates, max, count, &c->err);
	if (strcmp(op, "list_thing_groups_for_thing") == 0)
		return iot_list_thing_groups_for_thing(
			&c->iot, text(c, "thing"), cursor, items->names, max, count, &c->err);
	if (strcmp(op, "list_thing_principals") == 0)
		return iot_list_thing_principals(
			&c->iot, text(c, "thing"), cursor, items->arns, max, count, &c->err);
	if (strcmp(op, "list_principal_things") == 0)
		return iot_list_principal_things(
			&c->iot, text(c, "principal"), cursor, items->names, max, count, &c->err);
	if (strcmp(op, "list_attached_policies") == 0)
		return iot_list_attached_policies(&c->iot, text(c, "target"), flag(c, "recursive"),
			cursor, items->names, max, count, &c->err);
	return iot_list_topic_rule_destinations(
		&c->iot, cursor, items->destinations, max, count, &c->err);
}

static enum status
list(struct call *c)
{
	const char *op = text(c, "op");
	struct iot_cursor cursor = { .done = false };
	union items *items = mem_zalloc(sizeof(*items));
	size_t max = (size_t)number(c->in, "page"), count = 0;
	json_t *array = json_array();
	enum status status = OK;
	int64_t pages = 0;

	if (items == NULL)
		abort();
	json_object_set_new(c->out, "items", array);
	while (status == OK && !cursor.done) {
		status = one_page(c, op, &cursor, items, max > 0 ? max : PAGE, &count);
		for (size_t i = 0; status == OK && i < count; i++)
			json_array_append_new(array, json_string(item_text(op, items, i)));
		pages++;
	}
	put_number(c, "pages", pages);
	mem_free(items);
	return status;
}

/* ---- what the client says of itself ---- */

static void
add_stats(void *arg, const struct aws_operation_stats *stats)
{
	json_t *results = json_object();
	json_t *entry = json_pack("{s:I, s:I, s:I, s:I, s:I, s:o}", "calls",
		(json_int_t)stats->calls, "attempts", (json_int_t)stats->attempts, "retries",
		(json_int_t)stats->retries, "throttles", (json_int_t)stats->throttles, "paced_ms",
		(json_int_t)stats->paced_ms, "results", results);

	for (int i = 0; i < AWS_ERROR_COUNT; i++)
		if (stats->results[i] > 0)
			json_object_set_new(results, aws_error_name((enum aws_error)i),
				json_integer(stats->results[i]));
	json_object_set_new(arg, stats->operation, entry);
}

static enum status
stats(struct call *c)
{
	aws_client_stats(CLIENT, add_stats, c->out);
	return OK;
}

static enum status
health(struct call *c)
{
	struct aws_health found;

	aws_client_health(CLIENT, &found);
	put(c, "breaker", aws_breaker_name(found.breaker));
	put(c, "last", found.last.message);
	put_number(c, "opened", found.breaker_opened);
	put_number(c, "in_flight", found.in_flight);
	return OK;
}

static enum status
metrics(struct call *c)
{
	own_struct(buf) out = { .limit_bytes = 1 << 20 };

	TRY(aws_print_metrics(&CLIENT, 1, &out, &c->err));
	json_object_set_new(c->out, "text", json_stringn((const char *)out.data, out.len));
	return OK;
}

static enum status
credentials(struct call *c)
{
	own_struct(aws_keys) keys = { .source = NULL };

	TRY(aws_credentials_get(CREDENTIALS, &keys, &c->err));
	put(c, "access_key", keys.access_key);
	json_object_set_new(c->out, "secret_key",
		json_stringn((const char *)keys.secret_key.data, keys.secret_key.len));
	json_object_set_new(c->out, "session_token", json_stringn(keys.session_token.len > 0 ?
		(const char *)keys.session_token.data : "", keys.session_token.len));
	put(c, "source", keys.source);
	put_number(c, "expires_s", keys.expires_s);
	return OK;
}

static enum status
doubt(struct call *c)
{
	(void)c;
	aws_credentials_doubt(CREDENTIALS);
	return OK;
}

static void *
stop_later(void *arg)
{
	struct timespec pause = { .tv_nsec = 300000000 };

	(void)nanosleep(&pause, NULL); /* long enough for the calls to hang */
	aws_client_stop(arg);
	return NULL;
}

static json_t *run(const json_t *in);

static struct {
	const json_t *call;
	_Atomic int64_t left;
	pthread_mutex_t lock;
	json_t *codes; /* code → count */
} REPEAT = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *
repeat_thread(void *arg)
{
	(void)arg;
	while (atomic_fetch_sub(&REPEAT.left, 1) > 0) {
		json_t *answer = run(REPEAT.call);
		const char *code = json_string_value(json_object_get(answer, "code"));

		(void)pthread_mutex_lock(&REPEAT.lock);
		code = code != NULL ? code : "ok";
		json_object_set_new(REPEAT.codes, code,
			json_integer(json_integer_value(json_object_get(REPEAT.codes, code)) + 1));
		(void)pthread_mutex_unlock(&REPEAT.lock);
		json_decref(answer);
	}
	return NULL;
}

/* "then": {…}: one more call, made while the others are under way. */
static void
then(struct call *c)
{
	const json_t *call = json_object_get(c->in, "then");
	struct timespec pause = { .tv_nsec = 100000000 };
	json_t *answer;

	if (call == NULL)
		return;
	(void)nanosleep(&pause, NULL); /* so that they wait by then */
	answer = run(call);
	put(c, "then", json_string_value(json_object_get(answer, "status")));
	json_decref(answer);
}

/* {"call": {…}, "count": n, "threads": n, "stop": true}: how often each code came, and how long it
 * took. */
static enum status
repeat(struct call *c)
{
	pthread_t threads[THREADS_MAX], stopper;
	size_t count = (size_t)number(c->in, "threads");
	int64_t start_us = clock_mono_us();

	REPEAT.call = json_object_get(c->in, "call");
	REPEAT.left = number(c->in, "count");
	REPEAT.codes = json_object();
	json_object_set_new(c->out, "codes", REPEAT.codes);
	for (size_t i = 0; i < count && i < THREADS_MAX; i++)
		if (pthread_create(&threads[i], NULL, repeat_thread, NULL) != 0)
			abort();
	if (flag(c, "stop") && pthread_create(&stopper, NULL, stop_later, CLIENT) != 0)
		abort();
	then(c);
	for (size_t i = 0; i < count && i < THREADS_MAX; i++)
		(void)pthread_join(threads[i], NULL);
	if (flag(c, "stop"))
		(void)pthread_join(stopper, NULL);
	put_number(c, "elapsed_ms", (clock_mono_us() - start_us) / 1000);
	return OK;
}

/* ---- lines ---- */

#define CALL(name) { #name, name }
#define LIST(name) { #name, list }
static const struct {
	const char *op;
	enum status (*run)(struct call *call);
} CALLS[] = {
	CALL(get_registration_code),
	CALL(register_ca_certificate),
	CALL(describe_ca_certificate),
	CALL(update_ca_certificate),
	CALL(delete_ca_certificate),
	LIST(list_ca_certificates),
	CALL(register_certificate),
	CALL(register_certificate_without_ca),
	CALL(describe_certificate),
	CALL(update_certificate),
	CALL(delete_certificate),
	LIST(list_certificates),
	LIST(list_certificates_by_ca),
	CALL(create_thing),
	CALL(update_thing),
	CALL(delete_thing),
	CALL(describe_thing),
	CALL(create_thing_type),
	CALL(describe_thing_type),
	CALL(create_thing_group),
	CALL(add_thing_to_thing_group),
	CALL(remove_thing_from_thing_group),
	LIST(list_thing_groups_for_thing),
	CALL(attach_thing_principal),
	CALL(detach_thing_principal),
	LIST(list_thing_principals),
	LIST(list_principal_things),
	CALL(create_policy),
	CALL(get_policy),
	CALL(create_policy_version),
	CALL(set_default_policy_version),
	CALL(delete_policy_version),
	CALL(list_policy_versions),
	CALL(attach_policy),
	CALL(detach_policy),
	LIST(list_attached_policies),
	CALL(describe_endpoint),
	CALL(create_topic_rule_destination),
	CALL(confirm_topic_rule_destination),
	CALL(get_topic_rule_destination),
	CALL(update_topic_rule_destination),
	LIST(list_topic_rule_destinations),
	CALL(create_topic_rule),
	CALL(replace_topic_rule),
	CALL(delete_topic_rule),
	CALL(get_topic_rule),
	CALL(update_event_configurations),
	CALL(stats),
	CALL(health),
	CALL(metrics),
	CALL(credentials),
	CALL(doubt),
	CALL(repeat),
};

static json_t *
run(const json_t *in)
{
	struct call call = { .in = in, .out = json_object(), .iot = { .client = CLIENT } };
	enum status status = ERR_INTERNAL;
	json_t *answer;

	call.iot.priority = flag(&call, "urgent") ? AWS_PRIORITY_URGENT : AWS_PRIORITY_NORMAL;
	call.iot.timeout_ms = number(in, "timeout_ms");
	(void)err_set(&call.err, ERR_INTERNAL, "unknown_op", "iot_call does not know it");
	for (size_t i = 0; i < COUNT_OF(CALLS); i++)
		if (strcmp(CALLS[i].op, text(&call, "op")) == 0)
			status = CALLS[i].run(&call);
	if (status == OK) {
		answer = json_pack("{s:s, s:o}", "status", "OK", "result", call.out);
	} else {
		answer = json_pack("{s:s, s:s, s:s, s:o, s:{s:s, s:I, s:s, s:s, s:s, s:s, s:I}}",
			"status", status_name(status), "code", call.err.code, "text", call.err.text,
			"result", call.out, "failure", "error",
			aws_error_name(call.iot.failure.error), "http_status",
			(json_int_t)call.iot.failure.http_status, "type", call.iot.failure.type,
			"message", call.iot.failure.message, "resource_arn",
			call.iot.failure.resource_arn, "request_id", call.iot.failure.request_id,
			"attempts", (json_int_t)call.iot.failure.attempts);
	}
	if (answer == NULL)
		abort();
	return answer;
}

static size_t
read_quotas(const json_t *config, struct aws_quota quotas[QUOTAS_MAX])
{
	json_t *object = json_object_get(config, "quotas");
	size_t count = 0;

	for (void *at = json_object_iter(object); at != NULL && count < QUOTAS_MAX;
		at = json_object_iter_next(object, at))
		quotas[count++] = (struct aws_quota){ .operation = json_object_iter_key(at),
			.per_second = json_number_value(json_object_iter_value(at)) };
	return count;
}

/* A clock that is ahead: hours pass between two lines by {"op": "credentials", "ahead_s": …}. */
static int64_t AHEAD_S;

static int64_t
ahead_wall_s(const struct clock *clock)
{
	(void)clock;
	return clock_wall_s(&CLOCK_SYSTEM) + AHEAD_S;
}

static int64_t
system_mono_ms(const struct clock *clock)
{
	(void)clock;
	return clock_mono_ms(&CLOCK_SYSTEM);
}

int
main(int argc, char **argv)
{
	static const struct clock CLOCK = { .wall_s = ahead_wall_s, .mono_ms = system_mono_ms };
	json_t *config = argc == 2 ? json_loads(argv[1], 0, NULL) : NULL;
	const struct call settings = { .in = config };
	struct aws_quota quotas[QUOTAS_MAX];
	struct aws_credentials_config chain = { .profile = text(&settings, "profile"),
		.region = text(&settings, "region"),
		.ca_file = text(&settings, "ca_file"),
		.clock = &CLOCK };
	struct aws_client_config setup = { .name = text(&settings, "name"),
		.region = text(&settings, "region"),
		.endpoint_url = text(&settings, "endpoint_url"),
		.ca_file = text(&settings, "ca_file"),
		.connections_max = (unsigned)number(config, "connections_max"),
		.connect_timeout_ms = number(config, "connect_timeout_ms"),
		.attempt_timeout_ms = number(config, "attempt_timeout_ms"),
		.call_timeout_ms = number(config, "call_timeout_ms"),
		.attempts_max = (unsigned)number(config, "attempts_max"),
		.breaker = { .failures = (unsigned)number(config, "breaker_failures"),
			.open_ms = number(config, "breaker_open_ms") },
		.quotas = quotas,
		.quota_count = read_quotas(config, quotas) };
	struct err err;
	json_t *line;

	log_setup(2, LOG_DEBUG, "iot_call");
	if (aws_credentials_new(&CREDENTIALS, &chain, &err) == OK) {
		setup.credentials = CREDENTIALS;
		if (aws_client_new(&CLIENT, &setup, &err) != OK)
			CLIENT = NULL;
	}
	if (CLIENT == NULL) {
		printf("{\"code\":\"%s\"}\n", err.code);
		json_decref(config);
		aws_credentials_free(CREDENTIALS);
		return 1;
	}
	printf("{}\n");
	(void)fflush(stdout);
	while ((line = json_loadf(stdin, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
		json_t *answer;

		AHEAD_S += number(line, "ahead_s");
		answer = run(line);
		(void)json_dumpf(answer, stdout, JSON_COMPACT);
		(void)putchar('\n');
		(void)fflush(stdout);
		json_decref(answer);
		json_decref(line);
	}
	aws_client_stop(CLIENT);
	aws_client_free(CLIENT);
	aws_credentials_free(CREDENTIALS);
	json_decref(config);
	return 0;
}
