/* Arguments of the administrator's subcommands, and how answers are shown. */
#include "server/cli/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "base/mem.h"
#include "server/cli/cli.h"
#include "server/cli/table.h"
#include "tests/unit/base/test.h"

#define ARGS_MAX 16

static const struct admin_verb *
verb_of(const char *group_name, const char *name)
{
	for (const struct admin_group *group = ADMIN_GROUPS; group->name != NULL; group++)
		for (const struct admin_verb *verb = group->verbs; verb->name != NULL; verb++)
			if (strcmp(group->name, group_name) == 0 && strcmp(verb->name, name) == 0)
				return verb;
	fail_msg("there is no %s %s", group_name, name);
	return NULL;
}

/* Parses "group verb args…", split at single spaces. */
static enum status
parse(struct admin_call *out, const char *line, char *store, struct err *err)
{
	char *argv[ARGS_MAX];
	int argc = 0;

	(void)snprintf(store, 512, "%s", line);
	for (char *at = store, *word; (word = strsep(&at, " ")) != NULL && argc < ARGS_MAX;)
		argv[argc++] = word;
	if (argc > 2 && strcmp(argv[1], "succession") == 0) { /* a verb of two words */
		char name[64];

		(void)snprintf(name, sizeof(name), "%s %s", argv[1], argv[2]);
		return admin_parse(out, verb_of(argv[0], name), argc - 2, argv + 2, err);
	}
	return admin_parse(out, verb_of(argv[0], argv[1]), argc - 1, argv + 1, err);
}

struct good {
	const char *line, *want_method, *want_path, *want_body;
};

static const struct good GOOD[] = {
	{ "ca list", "GET", "/v1/cas", NULL },
	{ "ca show issuing-1", "GET", "/v1/cas/issuing-1", NULL },
	{ "ca succession start issuing-1 --successor issuing-2", "POST", "/v1/cas/issuing-1/successor",
	  "{\"successor\":\"issuing-2\"}" },
	{ "ca succession status issuing-1", "GET", "/v1/cas/issuing-1/succession", NULL },
	{ "ca succession retire issuing-1", "POST", "/v1/cas/issuing-1/succession",
	  "{\"to\":\"retiring\"}" },
	{ "ca succession back --to issuing issuing-1", "POST", "/v1/cas/issuing-1/succession",
	  "{\"to\":\"issuing\"}" },
	{ "cert list --device-id d:1 --status=active", "GET",
	  "/v1/certificates?device_id=d%3A1&status=active", NULL },
	{ "cert list --issued-after 2026-01-01T00:00:00+01:00", "GET",
	  "/v1/certificates?issued_after=2026-01-01T00%3A00%3A00%2B01%3A00", NULL },
	{ "cert revoke --reason superseded abcd", "POST", "/v1/certificates/abcd/revoke",
	  "{\"reason\":\"superseded\"}" },
	{ "cert show ../audit", "GET", "/v1/certificates/..%2Faudit", NULL },
	{ "device quarantine d-1", "POST", "/v1/devices/d-1/quarantine", NULL },
	{ "principal create --id p --role admin", "POST", "/v1/principals",
	  "{\"id\":\"p\",\"role\":\"admin\"}" },
	{ "station create --id s --profiles device,station --rate-per-minute 5", "POST", "/v1/stations",
	  "{\"id\":\"s\",\"profiles\":[\"device\",\"station\"],\"rate_per_minute\":5}" },
	{ "token create station s --valid-for 1d", "POST", "/v1/stations/s/tokens",
	  "{\"valid_for\":\"1d\"}" },
	{ "token revoke principal p 0123", "DELETE", "/v1/principals/p/tokens/0123", NULL },
	{ "manifest create --id m --station s --quantity 10 --allow-replace", "POST", "/v1/manifests",
	  "{\"allow_replace\":true,\"id\":\"m\",\"quantity\":10,\"station\":\"s\"}" },
	{ "manifest add m ids.csv", "PUT", "/v1/manifests/m/devices", NULL },
	{ "manifest export m --issued true --out x", "GET", "/v1/manifests/m/export?issued=true", NULL },
	{ "revocation create --station s --profile device --reason superseded --dry-run", "POST",
	  "/v1/revocations",
	  "{\"dry_run\":true,\"reason\":\"superseded\","
	  "\"selector\":{\"profile\":\"device\",\"station\":\"s\"}}" },
	{ "audit verify", "GET", "/v1/audit/verify", NULL },
};

static void
arguments_become_the_call_that_they_mean(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(GOOD); i++) {
		own_struct(admin_call) call = { .verb = NULL };
		char store[512];
		struct err err;

		if (parse(&call, GOOD[i].line, store, &err) != OK)
			fail_msg("%s: %s", GOOD[i].line, err.text);
		assert_string_equal(call.verb->method, GOOD[i].want_method);
		assert_string_equal((const char *)call.path.data, GOOD[i].want_path);
		if (GOOD[i].want_body == NULL) {
			assert_null(call.body);
		} else {
			char *body = json_dumps(call.body, JSON_COMPACT | JSON_SORT_KEYS);

			assert_string_equal(body, GOOD[i].want_body);
			mem_free(body);
		}
	}
}

struct bad {
	const char *line, *want;
};

static const struct bad BAD[] = {
	{ "cert show", "missing argument: id" },
	{ "cert show a b", "one argument too many: b" },
	{ "cert revoke a", "missing option --: reason" },
	{ "cert revoke a --reason", "a value wanted for: reason" },
	{ "cert revoke a --reason x --reason y", "given twice: reason" },
	{ "cert list --devise-id x", "did you mean --device-id?" },
	{ "cert list --json=1", "takes no value: json" },
	{ "cert list --out x", "there is no option --out" },
	{ "manifest create --id m --station s --quantity ten", "a whole number wanted: quantity" },
	{ "manifest create --id m --station s --quantity 99999999999999999999", "a whole number wanted" },
	{ "manifest create --id m --station s --quantity 1 --allow-replace=no", "takes no value" },
	{ "cert issue --csr /nonexistent --device-id d", "cannot be read" },
	{ "device show ..", "no such id" },
	{ "device show ", "no such id" },
};

static void
each_misuse_is_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(BAD); i++) {
		own_struct(admin_call) call = { .verb = NULL };
		char store[512];
		struct err err;

		if (parse(&call, BAD[i].line, store, &err) == OK)
			fail_msg("accepted: %s", BAD[i].line);
		assert_string_equal(err.code, "usage");
		if (strstr(err.text, BAD[i].want) == NULL)
			fail_msg("%s: '%s' wanted, '%s' found", BAD[i].line, BAD[i].want, err.text);
	}
}

static void
the_server_must_be_named(void **state)
{
	own_struct(admin_call) call = { .verb = NULL };
	char store[512];
	struct err err;

	(void)state;
	assert_int_equal(unsetenv("JITRCA_URL"), 0);
	assert_int_equal(parse(&call, "ca list", store, &err), ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "JITRCA_URL"));
	assert_int_equal(setenv("JITRCA_URL", "https://localhost", 1), 0);
}

static void
help_asks_for_nothing_else(void **state)
{
	own_struct(admin_call) call = { .verb = NULL };
	char store[512];
	struct err err;

	(void)state;
	assert_int_equal(parse(&call, "cert revoke --help", store, &err), OK);
	assert_true(call.help);
}

/* The token would go over the wire in clear. */
static void
only_https_is_spoken(void **state)
{
	const struct client_setup setup = { .url = "http://localhost:1" };
	const struct client_call call = { .method = "GET", .path = "/" };
	own_struct(client_answer) answer = { .status = 0 };
	struct err err;

	(void)state;
	assert_int_equal(client_run(&setup, &call, &answer, &err), ERR_ARGUMENT);
	assert_string_equal(err.code, "url_malformed");
}

/* Every verb's path has a positional argument for each of its {names}, in their order. */
static void
the_table_is_sound(void **state)
{
	(void)state;
	for (const struct admin_group *group = ADMIN_GROUPS; group->name != NULL; group++)
		for (const struct admin_verb *verb = group->verbs; verb->name != NULL; verb++) {
			const char *at = verb->path;

			for (size_t i = 0; i < ADMIN_FIELDS_MAX && verb->fields[i].name != NULL; i++) {
				char want[64];

				assert_non_null(verb->fields[i].about);
				assert_int_not_equal(verb->fields[i].where, ADMIN_NOWHERE);
				if (verb->fields[i].where != ADMIN_PATH)
					continue;
				(void)snprintf(want, sizeof(want), "{%s}", verb->fields[i].name);
				at = strstr(at, want);
				if (at == NULL)
					fail_msg("%s %s: no %s", group->name, verb->name, want);
				at++;
			}
			assert_null(strchr(at, '{'));
			if ((verb->list != NULL) != (verb->columns != NULL))
				fail_msg("%s %s: list without columns", group->name, verb->name);
		}
}

static void
every_group_is_a_command(void **state)
{
	size_t count = 0;

	(void)state;
	for (const struct admin_group *group = ADMIN_GROUPS; group->name != NULL; group++, count++)
		assert_string_equal(CLI_ADMIN_COMMANDS[count].name, group->name);
	assert_null(CLI_ADMIN_COMMANDS[count].name);
}

static void
tables_align_and_hold_back_control_characters(void **state)
{
	static const char JSON[] = "[{\"id\": \"a\", \"n\": 7, \"x\": {\"y\": null}},"
				   " {\"id\": \"ä\\u001b[2J\", \"n\": true, \"x\": {\"y\": \"z\"}}]";
	json_t *rows = json_loads(JSON, 0, NULL);
	char text[512];
	FILE *out = fmemopen(text, sizeof(text), "w");

	(void)state;
	assert_non_null(rows);
	assert_non_null(out);
	table_list(out, rows, "id n x.y");
	assert_int_equal(fclose(out), 0);
	assert_string_equal(text, "ID     N    Y\n"
				  "a      7    -\n"
				  "ä?[2J  yes  z\n");
	json_decref(rows);
}

static void
objects_show_what_is_in_them(void **state)
{
	static const char JSON[] = "{\"ok\": true, \"outbox\": {\"dead\": 0, \"takes\": {\"waiting\": 2}},"
				   " \"targets\": [{\"name\": \"local\", \"seen\": []}], \"cas\": []}";
	json_t *object = json_loads(JSON, 0, NULL);
	char text[512];
	FILE *out = fmemopen(text, sizeof(text), "w");

	(void)state;
	assert_non_null(object);
	assert_non_null(out);
	table_object(out, object);
	assert_int_equal(fclose(out), 0);
	assert_string_equal(text, "ok                    yes\n"
				  "outbox.dead           0\n"
				  "outbox.takes.waiting  2\n"
				  "cas                   []\n"
				  "\n"
				  "targets\n"
				  "NAME   SEEN\n"
				  "local  []\n");
	json_decref(object);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arguments_become_the_call_that_they_mean),
		cmocka_unit_test(each_misuse_is_named),
		cmocka_unit_test(the_server_must_be_named),
		cmocka_unit_test(help_asks_for_nothing_else),
		cmocka_unit_test(only_https_is_spoken),
		cmocka_unit_test(the_table_is_sound),
		cmocka_unit_test(every_group_is_a_command),
		cmocka_unit_test(tables_align_and_hold_back_control_characters),
		cmocka_unit_test(objects_show_what_is_in_them),
	};

	if (setenv("JITRCA_URL", "https://localhost", 1) != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
