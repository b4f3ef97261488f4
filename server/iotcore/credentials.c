#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ca/secret.h"
#include "server/iotcore/internal.h"

#define FILE_MAX_BYTES (32 * 1024)
#define SECRET_MAX_BYTES 128

struct core_users {
	struct secret file; /* the secrets point into it */
	struct core_user at[USERS_MAX];
	size_t count;
};

static enum status
bad(struct err *err, const char *path, unsigned line, const char *why)
{
	return err_set(err, ERR_ARGUMENT, "credentials_file", "%s:%u: %s", path, line, why);
}

static struct view
word(const char **at, const char *end)
{
	const char *from = *at;

	while (from < end && (*from == ' ' || *from == '\t' || *from == '\r'))
		from++;
	*at = from;
	while (*at < end && **at != ' ' && **at != '\t' && **at != '\r')
		(*at)++;
	return (struct view){ (const uint8_t *)from, (size_t)(*at - from) };
}

/* What a SigV4 credential may hold: printable, no slash, which ends it there. */
static bool
is_key(struct view key)
{
	for (size_t i = 0; i < key.len; i++)
		if (key.data[i] <= 0x20 || key.data[i] >= 0x7f || key.data[i] == '/' ||
			key.data[i] == ',')
			return false;
	return key.len > 0 && key.len < ACCESS_KEY_BYTES;
}

static enum status
read_line(struct core_users *users, const char *from, const char *end, const char *path,
	unsigned number, struct err *err)
{
	const char *at = from;
	struct view key = word(&at, end), secret = word(&at, end), mode = word(&at, end);
	struct core_user *user = &users->at[users->count];

	if (key.len == 0 || key.data[0] == '#')
		return OK;
	if (!is_key(key) || secret.len == 0 || secret.len > SECRET_MAX_BYTES ||
		word(&at, end).len > 0 || (mode.len > 0 && !view_equal_text(mode, "readonly")))
		return bad(err, path, number, "ACCESS_KEY SECRET_KEY [readonly] wanted");
	if (core_users_find(users, key) != NULL)
		return bad(err, path, number, "an access key stands there twice");
	if (users->count == USERS_MAX)
		return bad(err, path, number, "too many users");
	memcpy(user->access_key, key.data, key.len);
	user->secret = secret;
	user->readonly = mode.len > 0;
	users->count++;
	return OK;
}

typedef struct core_users users_handle;
OWNER(users_handle, core_users_free)

enum status
core_users_read(struct core_users **out, const char *path, struct err *err)
{
	own(users_handle) users = mem_zalloc(sizeof(*users));
	const char *at, *end;

	if (users == NULL)
		return err_memory(err);
	TRY(secret_read_file(&users->file, path, FILE_MAX_BYTES, err));
	at = (const char *)users->file.data;
	end = at + users->file.len;
	for (unsigned number = 1; at < end; number++) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		const char *stop = newline != NULL ? newline : end;

		TRY(read_line(users, at, stop, path, number, err));
		at = stop + 1;
	}
	if (users->count == 0)
		return bad(err, path, 1, "at least one user wanted");
	*out = give(users);
	return OK;
}

void
core_users_free(struct core_users *users)
{
	if (users == NULL)
		return;
	secret_free(&users->file);
	mem_free(users);
}

const struct core_user *
core_users_find(const struct core_users *users, struct view access_key)
{
	for (size_t i = 0; i < users->count; i++)
		if (view_equal_text(access_key, users->at[i].access_key))
			return &users->at[i];
	return NULL;
}
