/*
 * Any octets as what AWS and its tools give us; the first one chooses: a shared file, an answer of
 * STS, an error, or a request to be verified. They end, and what comes out points into what went
 * in, within bounds.
 */
#include <assert.h>
#include <jansson.h>
#include <stdint.h>
#include <string.h>

#include "server/iot/aws_error.h"
#include "server/iot/aws_profile.h"
#include "server/iot/aws_sigv4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
within(struct view part, struct view whole)
{
	if (part.len > 0)
		assert(part.data >= whole.data && part.data + part.len <= whole.data + whole.len);
}

static void
profile(struct view text, bool is_config)
{
	struct aws_profile found = { .found = false };
	struct err err;

	if (aws_profile_read(&found, text, "two", is_config, &err) != OK)
		return;
	for (int i = 0; i < AWS_PROFILE_KEYS; i++) {
		within(found.values[i], text);
		assert(found.values[i].len == 0 || found.found);
		assert(found.values[i].len == 0 ||
			memchr(found.values[i].data, '\n', found.values[i].len) == NULL);
	}
}

static void
failure(struct view text)
{
	json_t *json = json_loadb((const char *)text.data, text.len, 0, NULL);
	struct aws_failure read = { .error = AWS_ERROR_UNSET };
	struct err err;

	aws_failure_read(&read, 400, "", json);
	assert(read.error > AWS_ERROR_NONE && read.error < AWS_ERROR_LOCAL);
	for (const char *at = read.message; *at != '\0'; at++)
		assert(*at >= 0x20 && *at < 0x7f);
	assert(aws_failure_err(&read, "Fuzz", &err) != OK);
	json_decref(json);
}

/* Fields between LFs: method, path, then names and values in turn. */
static void
request(struct view text)
{
	struct aws_field fields[64];
	struct view parts[128];
	size_t count = 0;
	struct aws_sigv4 sigv4 = { .query = fields, .headers = fields, .date = "20261124T161402Z",
		.region = view_text("r"), .service = view_text("iot") };
	char signature[AWS_SIGNATURE_BYTES];
	struct err err;

	while (count < 128 && text.len > 0) {
		const uint8_t *end = memchr(text.data, '\n', text.len);
		size_t len = end != NULL ? (size_t)(end - text.data) : text.len;

		parts[count++] = (struct view){ text.data, len };
		text.data += len + (end != NULL ? 1 : 0);
		text.len -= len + (end != NULL ? 1 : 0);
	}
	if (count < 4)
		return;
	sigv4.method = parts[0];
	sigv4.path = parts[1];
	for (size_t i = 0; 2 * i + 3 < count; i++)
		fields[sigv4.header_count++] =
			(struct aws_field){ parts[2 * i + 2], parts[2 * i + 3] };
	sigv4.query_count = sigv4.header_count;
	aws_sha256_hex(sigv4.body_sha256, text);
	if (aws_sigv4_signature(&sigv4, view_text("secret"), signature, &err) == OK)
		assert(strlen(signature) == AWS_SIGNATURE_BYTES - 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct view text = { data + 1, len - 1 };
	struct view value;

	if (len == 0)
		return 0;
	switch (data[0] % 5) {
	case 0:
	case 1: profile(text, data[0] % 5 == 1); break;
	case 2:
		if (aws_xml_value(text, "AccessKeyId", &value))
			within(value, text);
		break;
	case 3: failure(text); break;
	default: request(text); break;
	}
	return 0;
}
