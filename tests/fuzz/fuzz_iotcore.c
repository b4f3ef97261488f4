/*
 * What strangers may send to the local IoT Core before anybody knows who they are: the signature of a
 * request (first octet even), and the members of an operation (odd; the second octet says which).
 *
 * A request is "METHOD PATH?QUERY", header lines, an empty line and a body. Only the kept seed is signed
 * with the secret, so nothing else is ever let in.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/mem.h"
#include "ca/secret.h"
#include "server/http/internal.h"
#include "server/iotcore/internal.h"
#include "server/iotcore/member.h"

#define NOW_S 1795500000 /* 2026-11-24T06:00:00Z */
#define ACCESS_KEY "AKIAFUZZ"
#define SECRET "fuzz+secret/of+nobody"
#define HEADERS_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Stands in for libmicrohttpd's connection: the headers that request_headers() walks over. */
static struct {
	const char *name, *value;
} headers[HEADERS_MAX];
static size_t header_count;

int
MHD_get_connection_values(struct MHD_Connection *connection, enum MHD_ValueKind kind,
	MHD_KeyValueIterator iterator, void *cls)
{
	(void)connection;
	for (size_t i = 0; i < header_count; i++)
		if (iterator(cls, kind, headers[i].name, headers[i].value) != MHD_YES)
			break;
	return (int)header_count;
}

static struct core_users *
users_made(void)
{
	static struct core_users *users;
	char path[] = "/tmp/jitrca-fuzz-XXXXXX";
	struct err err;
	int fd;

	if (users != NULL)
		return users;
	assert(ca_init(&err) == OK);
	fd = mkstemp(path);
	assert(fd >= 0 && dprintf(fd, ACCESS_KEY " " SECRET "\n") > 0);
	assert(core_users_read(&users, path, &err) == OK);
	(void)close(fd);
	(void)unlink(path);
	return users;
}

/* The line at *at without its end, which is moved on; NULL: there is none. */
static char *
line(char **at)
{
	char *from = *at;
	char *end = strchr(from, '\n');

	if (end == NULL)
		return NULL;
	*end = '\0';
	*at = end + 1;
	return from;
}

static bool
read_request(struct request *request, char *text)
{
	char *target = line(&text);
	char *path = target != NULL ? strchr(target, ' ') : NULL;
	char *query = path != NULL ? strchr(path, '?') : NULL;
	struct err err;
	char *field;

	if (path == NULL)
		return false;
	*path++ = '\0';
	if (query != NULL)
		*query++ = '\0';
	request->method = target;
	request->path = path;
	request->query_text = query != NULL ? query : "";
	header_count = 0;
	while ((field = line(&text)) != NULL && *field != '\0' && header_count < HEADERS_MAX) {
		char *colon = strchr(field, ':');

		if (colon == NULL)
			return false;
		*colon = '\0';
		headers[header_count].name = field;
		headers[header_count++].value = colon + 1 + strspn(colon + 1, " ");
	}
	request->body = (struct buf){ .limit_bytes = 1 << 20 };
	return buf_add(&request->body, text, strlen(text), &err) == OK;
}

static void
signature(char *text)
{
	const struct clock clock = clock_fixed(NOW_S);
	const struct core core = { .account = "123456789012", .region = "eu-central-1", .clock = &clock };
	struct request *request = mem_zalloc(sizeof(*request));
	const struct core_user *user = NULL;
	struct err err = { .status = OK };
	bool known = strstr(text, SECRET) != NULL; /* who says it may hear it again */

	assert(request != NULL);
	if (read_request(request, text)) {
		enum status status = core_verify(&user, request, &core, users_made(), &err);

		assert(status != OK || strcmp(user->access_key, ACCESS_KEY) == 0);
		assert(status == OK || (err.code[0] != '\0' && (known || strstr(err.text, SECRET) == NULL)));
	}
	buf_free(&request->body);
	while (request->chunks != NULL) {
		struct chunk *next = request->chunks->next;

		mem_free(request->chunks);
		request->chunks = next;
	}
	mem_free(request);
}

static const struct op *
operation(uint8_t number)
{
	for (const struct op *const *table = IOTCORE_OPS; *table != NULL; table++)
		for (const struct op *op = *table; op->name != NULL; op++)
			if (number-- == 0)
				return op;
	return IOTCORE_OPS[0];
}

static void
members(uint8_t number, const char *text)
{
	const struct op *op = operation(number);
	json_t *json = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
	struct member_report report = { .count = 0 };
	struct err err = { .status = OK };

	for (const struct member *one = op->members; one != NULL && one->name != NULL; one++) {
		if (one->at == AT_BODY)
			member_check_json(one, json_object_get(json, one->name), &report);
		else if (one->at == AT_PAYLOAD)
			member_check_json(one, json, &report);
		else
			member_check_text(one, text, &report);
		assert(report.len < sizeof(report.text) && strlen(report.text) == report.len);
	}
	assert((member_report_end(&report, &err) == OK) == (report.count == 0));
	json_decref(json);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text;

	if (len < 2)
		return 0;
	text = mem_zalloc(len - 1);
	assert(text != NULL);
	memcpy(text, data + 2, len - 2);
	if (data[0] % 2 == 0)
		signature(text);
	else
		members(data[1], text);
	mem_free(text);
	return 0;
}
