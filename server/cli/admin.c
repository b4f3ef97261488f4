#include "server/cli/admin.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "server/cli/follow.h"
#include "server/cli/table.h"
#include "server/http/request.h"
#include "server/suggest.h"

#define EXIT_DONE 0
#define EXIT_REFUSED 1
#define EXIT_MISUSED 2

#define PATH_MAX_BYTES 3500
#define FILE_MAX_BYTES ((size_t)64 * 1024)
#define NAME_BYTES 64
#define CURSOR_ROOM 1024 /* a cursor is under 200 octets; each may take three */
/* A page holds 1000 rows at most: a hundred million of them. */
#define PAGES_MAX 100000

struct common {
	const char *name, *value, *about;
};

static const struct common COMMON[] = {
	{ "url", "URL", "the server; $JITRCA_URL" },
	{ "ca-bundle", "FILE", "whom to trust; $JITRCA_CA_BUNDLE" },
	{ "token-file", "FILE", "the token, mode 0600; $JITRCA_ADMIN_TOKEN holds it itself" },
	{ "json", NULL, "print what the server said" },
	{ "help", NULL, "this text" },
};

void
admin_call_free(struct admin_call *call)
{
	buf_free(&call->path);
	json_decref(give(call->body));
}

static enum status
misused(struct err *err, const char *what, const char *name)
{
	return err_set(err, ERR_ARGUMENT, "usage", "%s%s%s", what, name != NULL ? ": " : "",
		name != NULL ? name : "");
}

/* "device_id" → "device-id" */
static void
option_name(char out[NAME_BYTES], const struct admin_field *field)
{
	(void)snprintf(out, NAME_BYTES, "%s", field->name);
	for (char *at = out; *at != '\0'; at++)
		if (*at == '_')
			*at = '-';
}

static const char *
key_of(const struct admin_field *field)
{
	return field->key != NULL ? field->key : field->name;
}

static bool
positional(const struct admin_field *field)
{
	return field->where == ADMIN_PATH || field->where == ADMIN_UPLOAD;
}

/* ---- building the call ---- */

/* RFC 3986 2.3: all but the unreserved octets. */
static enum status
add_encoded(struct buf *path, const char *text, struct err *err)
{
	static const char PLAIN[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

	for (; *text != '\0'; text++)
		TRY(strchr(PLAIN, *text) != NULL ? buf_add(path, text, 1, err) :
						   buf_format(path, err, "%%%02X", (unsigned char)*text));
	return OK;
}

static enum status
add_query(struct admin_call *call, const char *key, const char *text, struct err *err)
{
	TRY(buf_format(&call->path, err, "%c%s=", call->has_query ? '&' : '?', key));
	call->has_query = true;
	return add_encoded(&call->path, text, err);
}

/* The template with its {names} filled in order from the positional arguments. */
static bool
is_flag(const struct admin_field *field)
{
	return field->where == ADMIN_FLAG || field->where == ADMIN_SELECTOR_FLAG ||
	       field->where == ADMIN_FOLLOW;
}

static bool
repeats(const struct admin_field *field)
{
	return field->where == ADMIN_PAIR || field->where == ADMIN_SELECTOR_PAIR;
}

static enum status
make_path(struct admin_call *call, const char *const *values, struct err *err)
{
	const char *at = call->verb->path;

	call->has_query = strchr(at, '?') != NULL;
	while (*at != '\0') {
		size_t len = strcspn(at, "{");

		TRY(buf_add(&call->path, at, len, err));
		at += len;
		if (*at == '{') {
			assert(*values != NULL); /* check_all_given: as many as the path has names */
			if (strcmp(*values, ".") == 0 || strcmp(*values, "..") == 0 || **values == '\0')
				return misused(err, "no such id", *values);
			TRY(add_encoded(&call->path, *values++, err));
			at = strchr(at, '}') + 1;
		}
	}
	return OK;
}

static enum status
set_member(struct admin_call *call, const char *object, const char *key, json_t *value,
	struct err *err)
{
	json_t *into;

	if (call->body == NULL)
		call->body = json_object();
	into = call->body;
	if (object != NULL) {
		into = json_object_get(call->body, object);
		if (into == NULL) {
			into = json_object();
			if (json_object_set_new(call->body, object, into) != 0)
				into = NULL;
		}
	}
	if (json_object_set_new(into, key, value) != 0)
		return value == NULL ? misused(err, "not UTF-8", key) : err_memory(err);
	return OK;
}

static enum status
set_int(struct admin_call *call, const struct admin_field *field, const char *text, struct err *err)
{
	char *end;
	long long number;

	errno = 0;
	number = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0')
		return misused(err, "a whole number wanted", field->name);
	return set_member(call, NULL, field->name, json_integer(number), err);
}

static enum status
set_list(struct admin_call *call, const char *object, const struct admin_field *field, const char *text,
	struct err *err)
{
	own(json_t) list = json_array();

	for (size_t len; list != NULL && *text != '\0'; text += len + (text[len] == ',')) {
		len = strcspn(text, ",");
		if (json_array_append_new(list, json_stringn(text, len)) != 0)
			return misused(err, "not UTF-8", field->name);
	}
	return set_member(call, object, field->name, give(list), err);
}

static enum status
set_file(struct admin_call *call, const struct admin_field *field, const char *name, struct err *err)
{
	own(str) text = mem_alloc(FILE_MAX_BYTES + 1);
	FILE *file = fopen(name, "re");
	size_t len = 0;

	if (file != NULL && text != NULL)
		len = fread(text, 1, FILE_MAX_BYTES + 1, file);
	if (file != NULL)
		(void)fclose(file);
	if (text == NULL)
		return err_memory(err);
	if (file == NULL || len == 0 || len > FILE_MAX_BYTES)
		return misused(err, "cannot be read, is empty or too large", name);
	return set_member(call, NULL, field->name, json_stringn(text, len), err);
}

/* One deeper than set_member goes. */
static enum status
set_selector_pair(struct admin_call *call, const struct admin_field *field, const char *key,
	const char *value, struct err *err)
{
	const json_t *selector = call->body != NULL ? json_object_get(call->body, "selector") : NULL;
	json_t *into = json_object_get(selector, key_of(field));

	if (into == NULL) {
		into = json_object();
		TRY(set_member(call, "selector", key_of(field), into, err));
	}
	return json_object_set_new(into, key, json_string(value)) == 0 ? OK :
		misused(err, "not UTF-8", field->name);
}

static enum status
set_pair(struct admin_call *call, const struct admin_field *field, const char *text, struct err *err)
{
	const char *equals = strchr(text, '=');
	char key[NAME_BYTES];

	if (equals == NULL || equals == text || (size_t)(equals - text) >= sizeof(key))
		return misused(err, "NAME=VALUE wanted", field->name);
	(void)snprintf(key, sizeof(key), "%.*s", (int)(equals - text), text);
	if (field->where == ADMIN_PAIR)
		return set_member(call, key_of(field), key, json_string(equals + 1), err);
	return set_selector_pair(call, field, key, equals + 1, err);
}

static enum status
set_header(struct admin_call *call, const struct admin_field *field, const char *text,
	struct err *err)
{
	if (strpbrk(text, "\r\n") != NULL || snprintf(call->header_text, sizeof(call->header_text), "%s: %s",
		key_of(field), text) >= (int)sizeof(call->header_text))
		return misused(err, "too long, or more than a line", field->name);
	call->header = call->header_text;
	return OK;
}

static enum status
set_option(struct admin_call *call, const struct admin_field *field, const char *text,
	struct err *err)
{
	switch (field->where) {
	case ADMIN_QUERY:
		return add_query(call, key_of(field), text, err);
	case ADMIN_HEADER:
		return set_header(call, field, text, err);
	case ADMIN_TEXT:
		return set_member(call, NULL, field->name, json_string(text), err);
	case ADMIN_INT:
		return set_int(call, field, text, err);
	case ADMIN_FLAG:
		return set_member(call, NULL, field->name, json_true(), err);
	case ADMIN_LIST:
		return set_list(call, NULL, field, text, err);
	case ADMIN_FILE:
		return set_file(call, field, text, err);
	case ADMIN_PAIR:
		return set_pair(call, field, text, err);
	case ADMIN_SELECTOR:
		return set_member(call, "selector", field->name, json_string(text), err);
	case ADMIN_SELECTOR_LIST:
		return set_list(call, "selector", field, text, err);
	case ADMIN_SELECTOR_FLAG:
		return set_member(call, "selector", key_of(field), json_true(), err);
	case ADMIN_SELECTOR_PAIR:
		return set_pair(call, field, text, err);
	case ADMIN_FOLLOW:
		call->follow = true;
		return OK;
	case ADMIN_NOWHERE:
	case ADMIN_PATH:
	case ADMIN_UPLOAD:
		break;
	}
	return err_set(err, ERR_INTERNAL, "usage", "%s is no option", field->name);
}

/* ---- reading the arguments ---- */

struct reader {
	struct admin_call *call;
	int argc, at;
	char **argv;
	bool given[ADMIN_FIELDS_MAX];
	const char *positionals[ADMIN_FIELDS_MAX];
	size_t positional_count;
	const char *options[ADMIN_FIELDS_MAX]; /* values, set once the path stands */
};

/* The text behind "--name=", or the next argument. */
static enum status
option_value(struct reader *r, const char *name, const char *attached, const char **out,
	struct err *err)
{
	if (attached != NULL) {
		*out = attached;
		return OK;
	}
	if (r->at + 1 >= r->argc)
		return misused(err, "a value wanted for", name);
	*out = r->argv[++r->at];
	return OK;
}

/* Options that every verb has, or that its kind has. *known false: none of them. */
static enum status
read_common(struct reader *r, const char *name, const char *attached, bool *known, struct err *err)
{
	struct admin_call *call = r->call;
	const struct {
		const char *name;
		const char **text;
		bool *flag;
		bool here;
	} options[] = {
		{ "url", &call->setup.url, NULL, true },
		{ "ca-bundle", &call->setup.ca_bundle, NULL, true },
		{ "token-file", &call->setup.token_file, NULL, true },
		{ "json", NULL, &call->json, true },
		{ "help", NULL, &call->help, true },
		{ "all", NULL, &call->all, call->verb->list != NULL },
		{ "out", &call->out, NULL, call->verb->download || call->verb->save_pem },
	};

	*known = false;
	for (size_t i = 0; i < COUNT_OF(options) && !*known; i++) {
		if (!options[i].here || strcmp(options[i].name, name) != 0)
			continue;
		*known = true;
		if (options[i].text != NULL)
			return option_value(r, name, attached, options[i].text, err);
		if (attached != NULL)
			return misused(err, "takes no value", name);
		*options[i].flag = true;
	}
	return OK;
}

static enum status
unknown_option(const struct admin_verb *verb, const char *name, struct err *err)
{
	char names[ADMIN_FIELDS_MAX + COUNT_OF(COMMON)][NAME_BYTES];
	const char *list[COUNT_OF(names)];
	size_t count = 0;

	for (size_t i = 0; i < ADMIN_FIELDS_MAX && verb->fields[i].name != NULL; i++)
		if (!positional(&verb->fields[i]))
			option_name(names[count++], &verb->fields[i]);
	for (size_t i = 0; i < COUNT_OF(COMMON); i++)
		(void)snprintf(names[count++], NAME_BYTES, "%s", COMMON[i].name);
	for (size_t i = 0; i < count; i++)
		list[i] = names[i];
	return err_set(err, ERR_ARGUMENT, "usage", "there is no option --%s; did you mean --%s?", name,
		suggest_nearest(name, list, count));
}

static enum status
read_own(struct reader *r, const char *name, const char *attached, struct err *err)
{
	const struct admin_verb *verb = r->call->verb;
	char option[NAME_BYTES];

	for (size_t i = 0; i < ADMIN_FIELDS_MAX && verb->fields[i].name != NULL; i++) {
		const struct admin_field *field = &verb->fields[i];

		option_name(option, field);
		if (positional(field) || strcmp(option, name) != 0)
			continue;
		if (r->given[i] && !repeats(field))
			return misused(err, "given twice", name);
		r->given[i] = true;
		if (is_flag(field) && attached != NULL)
			return misused(err, "takes no value", name);
		if (!is_flag(field))
			TRY(option_value(r, name, attached, &r->options[i], err));
		return repeats(field) ? set_option(r->call, field, r->options[i], err) : OK;
	}
	return unknown_option(verb, name, err);
}

static enum status
read_argument(struct reader *r, struct err *err)
{
	const char *text = r->argv[r->at];
	const char *attached = strchr(text, '=');
	char name[NAME_BYTES];
	bool known;

	if (strcmp(text, "-h") == 0)
		text = "--help";
	if (strncmp(text, "--", 2) != 0) {
		if (r->positional_count == ADMIN_FIELDS_MAX)
			return misused(err, "too many arguments", NULL);
		r->positionals[r->positional_count++] = text;
		return OK;
	}
	(void)snprintf(name, sizeof(name), "%.*s",
		(int)(attached != NULL ? (size_t)(attached - text) - 2 : strlen(text + 2)), text + 2);
	if (attached != NULL)
		attached++;
	TRY(read_common(r, name, attached, &known, err));
	return known ? OK : read_own(r, name, attached, err);
}

static enum status
check_all_given(struct reader *r, struct err *err)
{
	const struct admin_verb *verb = r->call->verb;
	size_t wanted = 0;

	for (size_t i = 0; i < ADMIN_FIELDS_MAX && verb->fields[i].name != NULL; i++) {
		const struct admin_field *field = &verb->fields[i];
		char option[NAME_BYTES];

		option_name(option, field);
		if (positional(field)) {
			if (wanted == r->positional_count)
				return misused(err, "missing argument", field->name);
			if (field->where == ADMIN_UPLOAD)
				r->call->upload = r->positionals[wanted];
			wanted++;
		} else if (field->required && !r->given[i]) {
			return misused(err, "missing option --", option);
		}
	}
	if (r->positional_count > wanted)
		return misused(err, "one argument too many", r->positionals[wanted]);
	return OK;
}

enum status
admin_parse(struct admin_call *out, const struct admin_verb *verb, int argc, char **argv,
	struct err *err)
{
	struct reader r = { .call = out, .argc = argc, .argv = argv };

	*out = (struct admin_call){ .verb = verb, .follow = verb->follow,
		.path = { .limit_bytes = PATH_MAX_BYTES } };
	out->setup.url = getenv("JITRCA_URL");
	out->setup.ca_bundle = getenv("JITRCA_CA_BUNDLE");
	for (r.at = 1; r.at < argc && !out->help; r.at++)
		TRY(read_argument(&r, err));
	if (out->help)
		return OK;
	TRY(check_all_given(&r, err));
	TRY(make_path(out, r.positionals, err));
	for (size_t i = 0; i < ADMIN_FIELDS_MAX && verb->fields[i].name != NULL; i++)
		if (r.given[i] && !repeats(&verb->fields[i]))
			TRY(set_option(out, &verb->fields[i], r.options[i], err));
	if (verb->constant.name != NULL)
		TRY(set_member(out, NULL, verb->constant.name, json_string(verb->constant.value), err));
	TRY(buf_add(&out->path, "", 1, err));
	if (out->setup.url == NULL || out->setup.url[0] == '\0')
		return misused(err, "where is the server? --url or JITRCA_URL wanted", NULL);
	return OK;
}

/* ---- help ---- */

static void
help_line(const char *name, const char *value, const char *about)
{
	char left[2 * NAME_BYTES];

	(void)snprintf(left, sizeof(left), "--%s%s%s", name, value != NULL ? " " : "",
		value != NULL ? value : "");
	printf("  %-28s %s\n", left, about);
}

static void
help_verb(const char *group, const struct admin_verb *verb)
{
	char option[NAME_BYTES];

	printf("Usage: jitrca %s %s", group, verb->name);
	for (size_t i = 0; i < ADMIN_FIELDS_MAX && verb->fields[i].name != NULL; i++)
		if (positional(&verb->fields[i]))
			printf(" <%s>", verb->fields[i].name);
	printf(" [OPTION]...\n\n%s\n\n", verb->summary);
	for (size_t i = 0; i < ADMIN_FIELDS_MAX && verb->fields[i].name != NULL; i++)
		if (positional(&verb->fields[i]))
			printf("  <%s>%*s %s\n", verb->fields[i].name,
				(int)(26 - strlen(verb->fields[i].name)), "", verb->fields[i].about);
	printf("\nOptions:\n");
	for (size_t i = 0; i < ADMIN_FIELDS_MAX && verb->fields[i].name != NULL; i++) {
		const struct admin_field *field = &verb->fields[i];
		char about[200];

		if (positional(field))
			continue;
		option_name(option, field);
		(void)snprintf(about, sizeof(about), "%s%s", field->about,
			field->required ? " (required)" : "");
		help_line(option, field->value, about);
	}
	if (verb->list != NULL)
		help_line("all", NULL, "every page");
	if (verb->download || verb->save_pem)
		help_line("out", "FILE",
			verb->download ? "instead of stdout" : "keep certificate and chain, PEM");
	for (size_t i = 0; i < COUNT_OF(COMMON); i++)
		help_line(COMMON[i].name, COMMON[i].value, COMMON[i].about);
}

static void
help_group(const struct admin_group *group)
{
	printf("Usage: jitrca %s VERB [OPTION]...\n\n", group->name);
	for (const struct admin_verb *verb = group->verbs; verb->name != NULL; verb++)
		printf("  %-20s %s\n", verb->name, verb->summary);
	printf("\nEach has --help.\n");
}

/* ---- running ---- */

static enum status
open_file(FILE **out, const char *name, const char *mode, FILE *standard, struct err *err)
{
	*out = strcmp(name, "-") == 0 ? standard : fopen(name, mode);
	if (*out == NULL)
		return err_set(err, ERR_ARGUMENT, "file", "%s: cannot be opened: %s", name,
			strerror(errno));
	return OK;
}

static enum status
close_file(FILE *file, struct err *err)
{
	bool good = fflush(file) == 0 && !ferror(file);

	if (file != stdout && file != stdin)
		good = fclose(file) == 0 && good;
	return good ? OK : err_set(err, ERR_UNAVAILABLE, "file", "cannot be written");
}

static const char *
upload_type(const char *name)
{
	const char *dot = strrchr(name, '.');

	if (dot != NULL && strcmp(dot, ".json") == 0)
		return "application/json";
	if (dot != NULL && (strcmp(dot, ".ndjson") == 0 || strcmp(dot, ".jsonl") == 0))
		return "application/x-ndjson";
	return "text/csv";
}

/* Sends it; the files of --out and of an upload live for the call. */
static enum status
send_call(const struct admin_call *call, const char *path, struct client_answer *answer,
	struct err *err)
{
	own_struct(bytes) body = { NULL, 0 };
	struct client_call http = { .method = call->verb->method, .path = path, .header = call->header };
	enum status status;

	if (call->body != NULL) {
		size_t len = json_dumpb(call->body, NULL, 0, JSON_COMPACT);

		body.data = mem_alloc(len);
		if (body.data == NULL)
			return err_memory(err);
		body.len = json_dumpb(call->body, (char *)body.data, len, JSON_COMPACT);
		http.body = view_of(&body);
		http.content_type = "application/json";
	}
	if (call->upload != NULL) {
		http.content_type = call->verb->upload_type != NULL ? call->verb->upload_type :
			upload_type(call->upload);
		TRY(open_file(&http.upload, call->upload, "re", stdin, err));
	}
	status = OK;
	if (call->verb->download)
		status = open_file(&http.download, call->out != NULL ? call->out : "-", "we", stdout, err);
	if (status == OK)
		status = client_run(&call->setup, &http, answer, err);
	if (http.upload != NULL && http.upload != stdin)
		(void)fclose(http.upload);
	if (http.download != NULL) {
		struct err close_err;

		if (close_file(http.download, &close_err) != OK && status == OK) {
			*err = close_err;
			status = close_err.status;
		}
	}
	return status;
}

/* What the server refused, as its problem says it. */
static enum status
refusal(const struct client_answer *answer, const json_t *json, struct err *err)
{
	const char *code = json_string_value(json_object_get(json, "code"));
	const char *detail = json_string_value(json_object_get(json, "detail"));
	const char *title = json_string_value(json_object_get(json, "title"));

	if (code == NULL)
		return err_set(err, ERR_UNAVAILABLE, "answer_unknown", "HTTP status %ld", answer->status);
	if (detail == NULL)
		detail = title != NULL ? title : "refused";
	return err_set(err, ERR_DENIED, code, "%s", detail);
}

static enum status
save_pem(const struct admin_call *call, const json_t *json, struct err *err)
{
	const char *certificate = json_string_value(json_object_get(json, "certificate"));
	const char *chain = json_string_value(json_object_get(json, "chain"));
	FILE *file;

	if (call->out == NULL || certificate == NULL || chain == NULL)
		return OK;
	TRY(open_file(&file, call->out, "we", stdout, err));
	(void)fputs(certificate, file);
	(void)fputs(chain, file);
	return close_file(file, err);
}

static void
print_json(json_t *json)
{
	(void)json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	(void)fputc('\n', stdout);
}

static void
print_answer(const struct admin_call *call, json_t *json, bool last)
{
	const json_t *next = json_object_get(json, "next_cursor");

	if (call->json) {
		print_json(json);
		return;
	}
	if (call->verb->list == NULL) {
		table_object(stdout, json);
		return;
	}
	table_list(stdout, json_object_get(json, call->verb->list), call->verb->columns);
	if (last && json_is_string(next))
		(void)fprintf(stderr, "There is more: --all, or --cursor %s\n", json_string_value(next));
}

/* False: the answer names no receipt, for it was a dry run or changed nothing. */
static bool
names_receipt(const struct admin_call *call, const json_t *json)
{
	return call->follow && json_is_string(json_object_get(json, "revocation_id"));
}

/* One that ended without effect is shown as well. */
static enum status
follow_answer(const struct admin_call *call, const json_t *json, struct err *err)
{
	own(json_t) receipt = NULL;
	enum status status = follow_receipt(&call->setup,
		json_string_value(json_object_get(json, "revocation_id")), &receipt, err);

	if (receipt != NULL && call->json)
		print_json(receipt);
	else if (receipt != NULL)
		table_object(stdout, receipt);
	return status;
}

/* One request and its answer; *cursor (owned by the caller) says where the next page is. */
static enum status
run_page(const struct admin_call *call, const char *path, char cursor[PATH_MAX_BYTES],
	struct err *err)
{
	own_struct(client_answer) answer = { .status = 0 };
	own(json_t) json = NULL;
	const char *next;

	cursor[0] = '\0';
	TRY(send_call(call, path, &answer, err));
	json = json_loadb((const char *)answer.body.data, answer.body.len, 0, NULL);
	if (answer.status < 200 || answer.status > 299)
		return refusal(&answer, json, err);
	if (call->verb->download || answer.status == 204)
		return OK;
	if (json == NULL)
		return err_set(err, ERR_UNAVAILABLE, "answer_unknown", "the answer is not JSON");
	if (names_receipt(call, json))
		return follow_answer(call, json, err);
	next = json_string_value(json_object_get(json, "next_cursor"));
	if (call->all && next != NULL)
		(void)snprintf(cursor, PATH_MAX_BYTES, "%s", next);
	print_answer(call, json, !call->all);
	if (call->verb->save_pem)
		TRY(save_pem(call, json, err));
	if (call->verb->must != NULL && !json_is_true(json_object_get(json, call->verb->must)))
		return err_set(err, ERR_DENIED, "audit_broken", "the audit log does not hold");
	return OK;
}

static enum status
run_call(const struct admin_call *call, struct err *err)
{
	char cursor[PATH_MAX_BYTES];

	TRY(run_page(call, (const char *)call->path.data, cursor, err));
	for (size_t page = 1; cursor[0] != '\0' && page < PAGES_MAX; page++) {
		own_struct(buf) path = { .limit_bytes = PATH_MAX_BYTES + CURSOR_ROOM };

		TRY(buf_add(&path, call->path.data, call->path.len - 1, err));
		TRY(buf_format(&path, err, "%ccursor=", call->has_query ? '&' : '?'));
		TRY(add_encoded(&path, cursor, err));
		TRY(buf_add(&path, "", 1, err));
		TRY(run_page(call, (const char *)path.data, cursor, err));
	}
	return OK;
}

static const struct admin_group *
find_group(const char *name)
{
	const struct admin_group *group = ADMIN_GROUPS;

	while (group->name != NULL && strcmp(group->name, name) != 0)
		group++;
	return group->name != NULL ? group : NULL;
}

static const struct admin_verb *
find_verb(const struct admin_group *group, const char *name)
{
	const char *names[ADMIN_FIELDS_MAX];
	size_t count = 0;

	for (const struct admin_verb *verb = group->verbs; verb->name != NULL; verb++) {
		if (strcmp(verb->name, name) == 0)
			return verb;
		if (count < COUNT_OF(names))
			names[count++] = verb->name;
	}
	(void)fprintf(stderr, "jitrca %s: there is no '%s'; did you mean '%s'?\n", group->name, name,
		suggest_nearest(name, names, count));
	return NULL;
}

/* A verb of two words, "succession status". */
static const struct admin_verb *
find_pair(const struct admin_group *group, int argc, char **argv)
{
	char name[NAME_BYTES];

	if (argc < 3)
		return NULL;
	(void)snprintf(name, sizeof(name), "%s %s", argv[1], argv[2]);
	for (const struct admin_verb *verb = group->verbs; verb->name != NULL; verb++)
		if (strcmp(verb->name, name) == 0)
			return verb;
	return NULL;
}

static int
run_verb(const struct admin_group *group, const struct admin_verb *verb, int argc, char **argv)
{
	own_struct(admin_call) call = { .verb = NULL };
	struct err err;
	bool parsed = false;

	if (admin_parse(&call, verb, argc, argv, &err) == OK) {
		parsed = true;
		if (call.help) {
			help_verb(group->name, verb);
			return EXIT_DONE;
		}
		if (run_call(&call, &err) == OK)
			return fflush(stdout) == 0 ? EXIT_DONE : EXIT_REFUSED;
	}
	(void)fflush(stdout);
	if (parsed)
		(void)fprintf(stderr, "jitrca %s %s: %s (%s)\n", group->name, verb->name, err.text,
			err.code);
	else
		(void)fprintf(stderr, "jitrca %s %s: %s; see --help\n", group->name, verb->name, err.text);
	return parsed ? EXIT_REFUSED : EXIT_MISUSED;
}

int
admin_main(const char *name, int argc, char **argv)
{
	const struct admin_group *group = find_group(name);
	const struct admin_verb *verb;

	if (group == NULL)
		return EXIT_MISUSED;
	if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		help_group(group);
		return argc < 2 ? EXIT_MISUSED : EXIT_DONE;
	}
	verb = find_pair(group, argc, argv);
	if (verb != NULL)
		return run_verb(group, verb, argc - 2, argv + 2);
	verb = find_verb(group, argv[1]);
	return verb == NULL ? EXIT_MISUSED : run_verb(group, verb, argc - 1, argv + 1);
}
