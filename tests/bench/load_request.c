#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tests/bench/load.h"

static struct {
	struct bytes body; /* of post */
	char authorization[300];
} kept;

static void
must(enum status status, const struct err *err)
{
	if (status != OK)
		die("%s", err->text);
}

#define ADD(out, ...)                                                                              \
	do {                                                                                       \
		struct err add_err;                                                                \
		must(buf_format(out, &add_err, __VA_ARGS__), &add_err);                            \
	} while (0)

static void
read_whole(const char *path, struct bytes *out)
{
	static uint8_t data[1 << 20];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, data, sizeof(data)) : -1;
	struct err err;

	if (len < 0)
		die("%s: cannot be read", path);
	(void)close(fd);
	must(bytes_copy(out, (struct view){ data, (size_t)len }, &err), &err);
}

void
request_prepare(struct options *options)
{
	struct bytes token = { NULL, 0 };

	if (options->token_file != NULL) {
		read_whole(options->token_file, &token);
		while (token.len > 0 && token.data[token.len - 1] == '\n')
			token.len--;
		(void)snprintf(options->token, sizeof(options->token), "%.*s", (int)token.len,
			(const char *)token.data);
		(void)snprintf(kept.authorization, sizeof(kept.authorization),
			"Authorization: Bearer %s\r\n", options->token);
		bytes_free(&token);
	}
	if (options->body != NULL)
		read_whole(options->body, &kept.body);
	if (options->mode == MODE_ISSUE || options->mode == MODE_BATCH ||
		options->mode == MODE_CFSSL)
		csrs_open(options->csrs);
}

void
request_end(void)
{
	bytes_free(&kept.body);
	csrs_close();
}

size_t
request_items(const struct options *options)
{
	return options->mode == MODE_BATCH ? options->items : 1;
}

/* A CSR as a JSON string's inside: PEM with its line ends escaped. */
static void
add_csr(struct buf *out, uint64_t number)
{
	unsigned char text[CSRS_RECORD * 4 / 3 + 8];
	struct view der = csrs_at(number);
	int len = EVP_EncodeBlock(text, der.data, (int)der.len);
	struct err err;

	ADD(out, "-----BEGIN CERTIFICATE REQUEST-----\\n");
	for (int at = 0; at < len; at += 64) {
		int piece = len - at < 64 ? len - at : 64;

		must(buf_add(out, text + at, (size_t)piece, &err), &err);
		must(buf_add(out, "\\n", 2, &err), &err);
	}
	ADD(out, "-----END CERTIFICATE REQUEST-----\\n");
}

static void
add_item(const struct options *options, uint64_t number, bool with_key, struct buf *out)
{
	ADD(out, "{\"csr\":\"");
	add_csr(out, number);
	ADD(out, "\",\"device_id\":\"%s-%08" PRIu64 "\"", options->prefix, number);
	if (options->profile != NULL)
		ADD(out, ",\"profile\":\"%s\"", options->profile);
	if (with_key)
		ADD(out, ",\"idempotency_key\":\"%s-%08" PRIu64 "\"", options->prefix, number);
	ADD(out, "}");
}

static void
add_json(const struct options *options, uint64_t number, struct buf *out)
{
	uint64_t first = options->first + number * request_items(options);

	if (options->mode == MODE_ISSUE) {
		add_item(options, first, false, out);
	} else if (options->mode == MODE_BATCH) {
		ADD(out, "{\"requests\":[");
		for (size_t i = 0; i < options->items; i++) {
			if (i > 0)
				ADD(out, ",");
			add_item(options, first + i, true, out);
		}
		ADD(out, "]}");
	} else {
		ADD(out, "{\"certificate_request\":\"");
		add_csr(out, first);
		ADD(out, "\",\"hosts\":[\"%s-%08" PRIu64 "\"]}", options->prefix, first);
	}
}

static const char *
path_of(const struct options *options)
{
	if (options->path != NULL)
		return options->path;
	if (options->mode == MODE_ISSUE)
		return "/v1/certificates";
	if (options->mode == MODE_BATCH)
		return "/v1/certificates/batch";
	return options->mode == MODE_CFSSL ? "/api/v1/cfssl/sign" : "/healthz";
}

static void
add_head(const struct options *options, const char *method, const char *path, struct buf *out)
{
	ADD(out, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: jitrca-load\r\n%s", method, path,
		options->connect, kept.authorization);
}

/* The body is made first: its length stands in the head. */
static void
write_post(const struct options *options, uint64_t number, struct buf *out)
{
	static struct buf body = { .limit_bytes = 64 << 20 };
	struct view sent = view_of(&kept.body);
	struct err err;

	if (options->mode != MODE_POST) {
		body.len = 0;
		add_json(options, number, &body);
		sent = buf_view(&body);
	}
	add_head(options, "POST", path_of(options), out);
	if (options->mode == MODE_ISSUE)
		ADD(out, "Idempotency-Key: %s-%08" PRIu64 "\r\n", options->prefix,
			options->first + number);
	ADD(out, "Content-Type: %s\r\nContent-Length: %zu\r\n\r\n",
		options->content_type != NULL ? options->content_type : "application/json",
		sent.len);
	must(buf_add(out, sent.data, sent.len, &err), &err);
}

void
request_write(const struct options *options, uint64_t number, struct buf *out)
{
	out->len = 0;
	if (options->mode != MODE_GET && options->mode != MODE_HANDSHAKE &&
		options->mode != MODE_HOLD) {
		write_post(options, number, out);
		return;
	}
	add_head(options, "GET", path_of(options), out);
	if (options->if_none_match != NULL)
		ADD(out, "If-None-Match: %s\r\n", options->if_none_match);
	ADD(out, "\r\n");
}

void
request_warm(const struct options *options, struct buf *out)
{
	out->len = 0;
	add_head(options, "GET", "/healthz", out);
	ADD(out, "\r\n");
}
