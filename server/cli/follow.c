#include "server/cli/follow.h"

#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "server/http/request.h"

#define EVENT_MAX_BYTES ((size_t)1 << 20)
#define TAG_BYTES 64
#define LINE_BYTES 400
/* A server that restarts is back within a minute; one that is away longer is worth a word. */
#define LINKS_MAX 30
#define PAUSE_S 2

struct follow {
	const struct client_setup *setup;
	struct buf line; /* of the event stream, as far as it has come */
	char id[TAG_BYTES], next_id[TAG_BYTES];
	char said[LINE_BYTES];
	json_t *receipt; /* owned; NULL: none yet */
	bool heard;      /* on this link */
};

static void
follow_free(struct follow *follow)
{
	buf_free(&follow->line);
	json_decref(follow->receipt);
}
OWNER_STRUCT(follow, follow_free)

static const char *
text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL ? text : "-";
}

/* "running 4200 of 10000; crl done, full running, …" */
static void
say(struct follow *follow)
{
	const json_t *receipt = follow->receipt;
	json_t *targets = json_object_get(receipt, "targets");
	char line[LINE_BYTES];
	const char *name;
	json_t *target;
	size_t len = (size_t)snprintf(line, sizeof(line), "%.16s: %lld of %lld revoked",
		text_of(receipt, "state"), (long long)json_integer_value(json_object_get(receipt, "revoked")),
		(long long)json_integer_value(json_object_get(receipt, "matched")));

	json_object_foreach(targets, name, target)
		if (len < sizeof(line))
			len += (size_t)snprintf(line + len, sizeof(line) - len, ", %.16s %.24s", name,
				text_of(target, "state"));
	for (char *at = line; *at != '\0'; at++)
		if (*at < ' ' || *at > '~')
			*at = '?';
	if (strcmp(line, follow->said) == 0)
		return;
	memcpy(follow->said, line, sizeof(line));
	(void)fprintf(stderr, "%s\n", line);
}

/* WHATWG HTML 9.2.6, as far as our server uses it: one line of data for each event. */
static void
take_line(struct follow *follow, const char *line, size_t len)
{
	if (len > 4 && memcmp(line, "id: ", 4) == 0) {
		(void)snprintf(follow->next_id, sizeof(follow->next_id), "%.*s", (int)(len - 4), line + 4);
	} else if (len > 6 && memcmp(line, "data: ", 6) == 0) {
		json_t *receipt = json_loadb(line + 6, len - 6, 0, NULL);

		if (receipt == NULL)
			return;
		json_decref(follow->receipt);
		follow->receipt = receipt;
		memcpy(follow->id, follow->next_id, sizeof(follow->id));
		say(follow);
	}
}

static bool
take(void *arg, const char *data, size_t len)
{
	struct follow *follow = arg;
	struct err err;

	follow->heard = true;
	while (len > 0) {
		const char *end = memchr(data, '\n', len);
		size_t part = end != NULL ? (size_t)(end - data) : len;

		if (buf_add(&follow->line, data, part, &err) != OK)
			return false;
		if (end == NULL)
			return true;
		take_line(follow, (const char *)follow->line.data, follow->line.len);
		follow->line.len = 0;
		data += part + 1;
		len -= part + 1;
	}
	return true;
}

static enum status
refused(const struct client_answer *answer, struct err *err)
{
	own(json_t) json = json_loadb((const char *)answer->body.data, answer->body.len, 0, NULL);
	const char *code = json_string_value(json_object_get(json, "code"));

	/* 503: too many follow, or the server is being stopped; another time, then. */
	return err_set(err, answer->status == 503 ? ERR_UNAVAILABLE : ERR_DENIED,
		code != NULL ? code : "answer_unknown", "HTTP status %ld: %s", answer->status,
		text_of(json, "detail"));
}

/* One link, until it ends. */
static enum status
follow_once(struct follow *follow, const char *path, struct err *err)
{
	own_struct(client_answer) answer = { .status = 0 };
	char last[TAG_BYTES + 32];
	const struct client_call call = { .method = "GET", .path = path, .accept = "text/event-stream",
		.header = follow->id[0] != '\0' ? last : NULL, .take = take, .take_arg = follow };

	(void)snprintf(last, sizeof(last), "Last-Event-ID: %s", follow->id);
	follow->heard = false;
	follow->line.len = 0;
	TRY(client_run(follow->setup, &call, &answer, err));
	return answer.status / 100 == 2 ? OK : refused(&answer, err);
}

static bool
is_over(const struct follow *follow)
{
	const char *state = text_of(follow->receipt, "state");

	return json_is_true(json_object_get(follow->receipt, "complete")) || strcmp(state, "rejected") == 0 ||
	       strcmp(state, "expired") == 0;
}

enum status
follow_receipt(const struct client_setup *setup, const char *revocation_id, json_t **out,
	struct err *err)
{
	own_struct(follow) follow = { .setup = setup, .line = { .limit_bytes = EVENT_MAX_BYTES } };
	const struct timespec pause = { .tv_sec = PAUSE_S };
	enum status status = OK;
	char path[128];

	(void)snprintf(path, sizeof(path), "/v1/revocations/%.64s", revocation_id);
	for (unsigned links = 0; links < LINKS_MAX && !is_over(&follow); links++) {
		/* The server ends a stream that lasts; who knows how the receipt goes on is let in again. */
		if (links > 0)
			(void)nanosleep(&pause, NULL);
		status = follow_once(&follow, path, err);
		if (status != OK && status != ERR_UNAVAILABLE)
			return status;
		if (follow.heard)
			links = 0;
	}
	if (!is_over(&follow))
		return status != OK ? status : err_set(err, ERR_UNAVAILABLE, "server_unreachable",
			"the receipt's stream ends again and again");
	*out = give(follow.receipt);
	if (!json_is_true(json_object_get(*out, "complete")))
		return err_set(err, ERR_DENIED, "revocation_void",
			"the revocation is %s: nothing was revoked", text_of(*out, "state"));
	return OK;
}
