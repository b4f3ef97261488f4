/*
 * sigv4_call - for tests: one JSON object a line on stdin, one a line on stdout. In: method, path,
 * query
 * [[name, value] …], headers [[name, value] …], body, date, access_key, secret_key, region,
 * service; octets are hex. Out: canonical (hex), authorization; or code.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "server/iot/aws_sigv4.h"

#define FIELDS_MAX 200
#define VALUES_MAX (2 * 2 * FIELDS_MAX + 16)

/* What one line decoded to; freed with it. */
struct line {
	struct bytes values[VALUES_MAX];
	size_t count;
};

static struct view
octets(struct line *line, const json_t *hex)
{
	size_t len = json_string_length(hex) / 2;
	struct bytes *value = &line->values[line->count++];

	value->data = mem_zalloc(len);
	value->len = len;
	if (value->data == NULL || !hex_decode(value->data, len, json_string_value(hex), 2 * len))
		abort();
	return view_of(value);
}

static struct view
member(struct line *line, const json_t *root, const char *name)
{
	return octets(line, json_object_get(root, name));
}

static size_t
fields(struct line *line, struct aws_field *out, const json_t *array)
{
	size_t count = json_array_size(array);

	if (count > FIELDS_MAX)
		abort();
	for (size_t i = 0; i < count; i++) {
		const json_t *pair = json_array_get(array, i);

		out[i].name = octets(line, json_array_get(pair, 0));
		out[i].value = octets(line, json_array_get(pair, 1));
	}
	return count;
}

static enum status
answer(struct line *line, const json_t *root, struct err *err)
{
	own_struct(buf) canonical = { .limit_bytes = AWS_CANONICAL_MAX_BYTES };
	own_struct(buf) authorization = { .limit_bytes = AWS_CANONICAL_MAX_BYTES };
	own_struct(bytes) hex = { NULL, 0 };
	struct aws_field query[FIELDS_MAX], headers[FIELDS_MAX];
	struct aws_sigv4 request = { .query = query, .headers = headers };

	request.method = member(line, root, "method");
	request.path = member(line, root, "path");
	request.region = member(line, root, "region");
	request.service = member(line, root, "service");
	request.query_count = fields(line, query, json_object_get(root, "query"));
	request.header_count = fields(line, headers, json_object_get(root, "headers"));
	aws_sha256_hex(request.body_sha256, member(line, root, "body"));
	(void)snprintf(request.date, sizeof(request.date), "%s",
		json_string_value(json_object_get(root, "date")));
	TRY(aws_sigv4_canonical(&request, &canonical, err));
	TRY(aws_sigv4_authorization(&request, member(line, root, "access_key"),
		member(line, root, "secret_key"), &authorization, err));
	hex.data = mem_zalloc(2 * canonical.len + 1);
	if (hex.data == NULL)
		return err_memory(err);
	hex_encode((char *)hex.data, canonical.data, canonical.len);
	printf("{\"canonical\":\"%s\",\"authorization\":\"%.*s\"}\n", (const char *)hex.data,
		(int)authorization.len, (const char *)authorization.data);
	return OK;
}

int
main(void)
{
	static struct line line;
	json_t *root;

	while ((root = json_loadf(stdin, JSON_DISABLE_EOF_CHECK, NULL)) != NULL) {
		struct err err;

		line.count = 0;
		if (answer(&line, root, &err) != OK)
			printf("{\"code\":\"%s\"}\n", err.code);
		(void)fflush(stdout);
		for (size_t i = 0; i < line.count; i++)
			bytes_free(&line.values[i]);
		json_decref(root);
	}
	return 0;
}
