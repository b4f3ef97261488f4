#include "server/cli/notify.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "server/cli/admin.h"
#include "server/cli/table.h"
#include "server/http/request.h"

/* An attempt takes a minute at most (timeout_ms), and may wait for the one before it. */
#define WAIT_MS 90000
/* There is no event to wait for at the end of an API: it is asked. */
#define ASK_MS 100

enum { EXIT_DONE = 0, EXIT_REFUSED = 1, EXIT_MISUSED = 2 };

static const struct admin_verb TEST = { .name = "test", .summary = "send a test message and wait",
	.method = "POST", .path = "/v1/notifications/test",
	.fields = { { .name = "channel", .where = ADMIN_TEXT, .required = true, .value = "NAME",
		.about = "one of notify_file" } } };

static enum status
ask(const struct client_setup *setup, const struct client_call *http, json_t **out, struct err *err)
{
	own_struct(client_answer) answer = { .status = 0 };
	own(json_t) json = NULL;
	const char *code, *detail;

	TRY(client_run(setup, http, &answer, err));
	json = json_loadb((const char *)answer.body.data, answer.body.len, 0, NULL);
	if (answer.status / 100 == 2 && json_is_object(json)) {
		*out = give(json);
		return OK;
	}
	code = json_string_value(json_object_get(json, "code"));
	detail = json_string_value(json_object_get(json, "detail"));
	if (code == NULL)
		return err_set(err, ERR_UNAVAILABLE, "answer_unknown", "HTTP status %ld", answer.status);
	return err_set(err, ERR_DENIED, code, "%s", detail != NULL ? detail : "refused");
}

static enum status
begin(const struct admin_call *call, json_t **out, struct err *err)
{
	char body[128];
	size_t len = json_dumpb(call->body, body, sizeof(body), JSON_COMPACT);
	const struct client_call http = { .method = "POST", .path = TEST.path,
		.content_type = "application/json", .body = { (const uint8_t *)body, len } };

	if (len == 0 || len > sizeof(body))
		return err_set(err, ERR_ARGUMENT, "usage", "channel: at most 32 octets wanted");
	return ask(&call->setup, &http, out, err);
}

/* Tried once at least: the first error is what somebody who tests wants to see. */
static bool
is_over(const json_t *json)
{
	const char *state = json_string_value(json_object_get(json, "state"));

	return state == NULL || strcmp(state, "waiting") != 0 ||
	       json_integer_value(json_object_get(json, "attempts")) > 0;
}

static enum status
run_test(const struct admin_call *call, json_t **out, struct err *err)
{
	const struct timespec pause = { .tv_nsec = ASK_MS * 1000000 };
	int64_t end_ms = clock_mono_ms(&CLOCK_SYSTEM) + WAIT_MS;
	char path[128];

	TRY(begin(call, out, err));
	(void)snprintf(path, sizeof(path), "/v1/notifications/%.64s",
		json_string_value(json_object_get(*out, "notification_id")));
	while (!is_over(*out) && clock_mono_ms(&CLOCK_SYSTEM) < end_ms) {
		const struct client_call http = { .method = "GET", .path = path };

		(void)nanosleep(&pause, NULL);
		json_decref(give(*out));
		TRY(ask(&call->setup, &http, out, err));
	}
	return OK;
}

static int
show(const struct admin_call *call, json_t *json)
{
	const char *state = json_string_value(json_object_get(json, "state"));
	const char *why = json_string_value(json_object_get(json_object_get(json, "error"), "text"));

	if (call->json) {
		(void)json_dumpf(json, stdout, JSON_INDENT(2));
		(void)fputc('\n', stdout);
	} else {
		table_object(stdout, json);
	}
	if (state != NULL && strcmp(state, "sent") == 0)
		return EXIT_DONE;
	(void)fprintf(stderr, "jitrca notify test: not sent%s%s\n", why != NULL ? ": " : " yet",
		why != NULL ? why : "");
	return EXIT_REFUSED;
}

/* `notify test CHANNEL`: the table of subcommands knows fields of a body by their option only. */
static int
test_main(int argc, char **argv)
{
	own_struct(admin_call) call = { .verb = NULL };
	own(json_t) json = NULL;
	char *with_option[64];
	struct err err;
	int count = 0;

	for (int i = 0; i < argc && count < 60; i++) {
		static char option[] = "--channel";

		if (i == 1 && argv[i][0] != '-')
			with_option[count++] = option;
		with_option[count++] = argv[i];
	}
	with_option[count] = NULL;
	if (admin_parse(&call, &TEST, count, with_option, &err) != OK) {
		(void)fprintf(stderr, "jitrca notify test: %s\nUsage: jitrca notify test CHANNEL\n",
			err.text);
		return EXIT_MISUSED;
	}
	if (call.help) {
		(void)printf("Usage: jitrca notify test CHANNEL [--json] [--url URL] [--ca-bundle FILE]"
			     " [--token-file FILE]\n"
			     "Sends a test message and waits for what becomes of it.\n");
		return EXIT_DONE;
	}
	if (run_test(&call, &json, &err) != OK) {
		(void)fprintf(stderr, "jitrca notify test: %s (%s)\n", err.text, err.code);
		return EXIT_REFUSED;
	}
	return show(&call, json);
}

int
notify_cli_main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "test") == 0)
		return test_main(argc - 1, argv + 1);
	return admin_main(argv[0], argc, argv);
}
