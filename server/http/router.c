#include "server/http/route.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "server/http/internal.h"

/* Of our own tables; a house with more needs another search than a walk. */
#define ROUTES_MAX 256
#define SEGMENTS_MAX 8
/* Of a path that is asked for: a last label that takes slashes may have that many. */
#define PARTS_MAX 64

/* One part of a path between slashes: a text, or before{name}after. */
struct segment {
	char *before, *name, *after; /* name NULL: all is in before */
};

struct entry {
	const struct route *route;
	size_t segment_count;
	struct segment segments[SEGMENTS_MAX];
	bool greedy; /* the last one stands for all that is left */
	/* how narrow each segment is: '2' text, '1' with a fix part, '0' any, '/' any and more */
	char rank[SEGMENTS_MAX + 1];
};

struct router {
	size_t count;
	struct entry *entries; /* the narrowest first, so that the first that matches is the one */
};

static enum status
bad(struct err *err, const struct route *route, const char *why)
{
	return err_set(err, ERR_INTERNAL, "route_invalid", "route %s %s: %s",
		route->method != NULL ? route->method : "?",
		route->path != NULL ? route->path : "?", why);
}

static char *
copy_part(const char *text, size_t len)
{
	char *out = mem_alloc(len + 1);

	if (out != NULL) {
		memcpy(out, text, len);
		out[len] = '\0';
	}
	return out;
}

/* {name+}: alone in its segment, which is the last. */
static enum status
compile_greedy(struct entry *entry, struct segment *segment, char next, struct err *err)
{
	size_t last = strlen(segment->name) - 1;

	if (segment->name[last] != '+')
		return OK;
	if (next != '\0' || last == 0 || segment->before[0] != '\0' || segment->after[0] != '\0')
		return bad(err, entry->route, "{name+} alone, at the end wanted");
	segment->name[last] = '\0';
	entry->greedy = true;
	entry->rank[entry->segment_count - 1] = '/';
	return OK;
}

static enum status
compile_segment(struct entry *entry, const char *text, size_t len, struct err *err)
{
	struct segment *segment = &entry->segments[entry->segment_count];
	const char *open = memchr(text, '{', len);
	const char *close = memchr(text, '}', len);

	if (entry->segment_count == SEGMENTS_MAX)
		return bad(err, entry->route, "too many segments");
	if (len == 0 || (open == NULL) != (close == NULL) || (open != NULL && close < open + 2))
		return bad(err, entry->route, "malformed path");
	entry->rank[entry->segment_count] = open == NULL                       ? '2'
	                                    : len > (size_t)(close - open) + 1 ? '1'
	                                                                       : '0';
	entry->segment_count++;
	segment->before = copy_part(text, open == NULL ? len : (size_t)(open - text));
	if (segment->before == NULL)
		return err_memory(err);
	if (open == NULL)
		return OK;
	segment->name = copy_part(open + 1, (size_t)(close - open) - 1);
	segment->after = copy_part(close + 1, (size_t)(text + len - close) - 1);
	if (segment->name == NULL || segment->after == NULL)
		return err_memory(err);
	if (strpbrk(segment->after, "{}") != NULL || strchr(segment->name, '{') != NULL)
		return bad(err, entry->route, "one {name} in a segment wanted");
	return compile_greedy(entry, segment, text[len], err);
}

static enum status
compile_path(struct entry *entry, struct err *err)
{
	const char *at = entry->route->path;
	size_t params = 0;

	if (*at != '/')
		return bad(err, entry->route, "malformed path");
	while (*at == '/') {
		size_t len = strcspn(++at, "/");

		TRY(compile_segment(entry, at, len, err));
		at += len;
	}
	for (size_t i = 0; i < entry->segment_count; i++)
		params += entry->segments[i].name != NULL;
	if (params > PARAMS_MAX)
		return bad(err, entry->route, "too many {names}");
	return OK;
}

static enum status
check_route(const struct route *route, struct err *err)
{
	static const char *const METHODS[] = { "GET", "POST", "PUT", "PATCH", "DELETE" };
	const unsigned kinds = LISTENER_HTTPS | LISTENER_STATIONS | LISTENER_HTTP;
	bool known = false;
	size_t query = 0;

	for (size_t i = 0; i < COUNT_OF(METHODS); i++)
		known |= strcmp(METHODS[i], route->method) == 0;
	if (!known)
		return bad(err, route, "an unknown method");
	if (route->path == NULL)
		return bad(err, route, "no path");
	if (route->handle == NULL)
		return bad(err, route, "no handler");
	if (route->roles == 0)
		return bad(err, route, "no roles");
	if ((route->roles & ROLE_ANYONE) != 0 && route->roles != ROLE_ANYONE)
		return bad(err, route, "anyone and a role");
	if ((route->roles & ROLE_DEVICE_GRACE) != 0 && (route->roles & ROLE_DEVICE) == 0)
		return bad(err, route, "grace without the device's role");
	if ((route->listeners & ~kinds) != 0)
		return bad(err, route, "an unknown listener");
	if ((route->listeners & LISTENER_HTTP) != 0 && route->roles != ROLE_ANYONE)
		return bad(err, route, "a role on the plain listener");
	/* Authentication asks the database: it would block every connection of the thread. */
	if (route->inline_ok && route->roles != ROLE_ANYONE)
		return bad(err, route, "inline_ok with a role");
	if (route->spool && route->inline_ok)
		return bad(err, route, "inline_ok with spool");
	for (const char *const *name = route->query; name != NULL && *name != NULL; name++)
		query++;
	if (query > QUERY_MAX)
		return bad(err, route, "too many query parameters");
	return OK;
}

static int
compare_entries(const void *a, const void *b)
{
	const struct entry *left = a, *right = b;
	int by_rank = strcmp(right->rank, left->rank);

	return by_rank != 0 ? by_rank : strcmp(left->route->path, right->route->path);
}

/* True if some path would fit both equally: the names of parameters do not tell paths apart. */
static bool
same_place(const struct entry *a, const struct entry *b)
{
	if (strcmp(a->rank, b->rank) != 0)
		return false;
	for (size_t i = 0; i < a->segment_count; i++) {
		const struct segment *left = &a->segments[i], *right = &b->segments[i];

		if (strcmp(left->before, right->before) != 0)
			return false;
		if (left->name != NULL && strcmp(left->after, right->after) != 0)
			return false;
	}
	return true;
}

static enum status
check_no_two(const struct router *router, struct err *err)
{
	for (size_t i = 0; i < router->count; i++)
		for (size_t j = i + 1; j < router->count; j++) {
			const struct entry *a = &router->entries[i], *b = &router->entries[j];

			if (strcmp(a->route->method, b->route->method) == 0 && same_place(a, b))
				return bad(err, a->route, "stands there twice");
		}
	return OK;
}

typedef struct router router_handle;
OWNER(router_handle, router_free)

enum status
router_new(struct router **out, const struct route *const *tables, struct err *err)
{
	own(router_handle) router = mem_zalloc(sizeof(*router));
	size_t count = 0;

	if (router == NULL)
		return err_memory(err);
	for (const struct route *const *table = tables; *table != NULL; table++)
		for (const struct route *route = *table; route->method != NULL; route++)
			count++;
	if (count > ROUTES_MAX)
		return err_set(err, ERR_INTERNAL, "route_invalid",
			"at most %d routes wanted, %zu found", ROUTES_MAX, count);
	router->entries = mem_array(count + 1, sizeof(*router->entries));
	if (router->entries == NULL)
		return err_memory(err);
	for (const struct route *const *table = tables; *table != NULL; table++)
		for (const struct route *route = *table; route->method != NULL; route++) {
			struct entry *entry = &router->entries[router->count++];

			entry->route = route;
			TRY(check_route(route, err));
			TRY(compile_path(entry, err));
		}
	TRY(check_no_two(router, err));
	qsort(router->entries, router->count, sizeof(*router->entries), compare_entries);
	*out = give(router);
	return OK;
}

void
router_free(struct router *router)
{
	if (router == NULL)
		return;
	for (size_t i = 0; i < router->count; i++)
		for (size_t k = 0; k < router->entries[i].segment_count; k++) {
			mem_free(router->entries[i].segments[k].before);
			mem_free(router->entries[i].segments[k].name);
			mem_free(router->entries[i].segments[k].after);
		}
	mem_free(router->entries);
	mem_free(router);
}

size_t
router_count(const struct router *router)
{
	return router->count;
}

const struct route *
router_route(const struct router *router, size_t index)
{
	return router->entries[index].route;
}

/* Cuts what stands between before and after out of text, in place; NULL: it does not fit. */
static char *
fit(const struct segment *segment, char *text, size_t *len)
{
	size_t before = strlen(segment->before);
	size_t after = strlen(segment->after);
	size_t all = strlen(text);

	/* A parameter is never empty. */
	if (all <= before + after || strncmp(text, segment->before, before) != 0 ||
		strcmp(text + all - after, segment->after) != 0)
		return NULL;
	*len = all - before - after;
	return text + before;
}

static bool
matches(const struct entry *entry, char *const *segments, size_t count)
{
	size_t len;

	if (entry->greedy ? entry->segment_count > count : entry->segment_count != count)
		return false;
	/* Most are another place from the first letter on. */
	if (entry->segments[0].name == NULL && entry->segments[0].before[0] != segments[0][0])
		return false;
	for (size_t i = 0; i < entry->segment_count; i++) {
		const struct segment *wanted = &entry->segments[i];

		if (wanted->name == NULL ? strcmp(wanted->before, segments[i]) != 0
					 : fit(wanted, segments[i], &len) == NULL)
			return false;
	}
	return true;
}

/* Puts the slashes back between decoded parts, in place; each stands behind the one before. */
static void
join(char *const *segments, size_t count)
{
	size_t len = strlen(segments[0]);

	for (size_t i = 1; i < count; i++) {
		size_t more = strlen(segments[i]);

		segments[0][len] = '/';
		memmove(segments[0] + len + 1, segments[i], more + 1);
		len += 1 + more;
	}
}

static void
take_params(const struct entry *entry, char *const *segments, size_t count, struct match *out)
{
	assert(entry->segment_count >= 1 && entry->segment_count <= count); /* it matched */
	if (entry->greedy)
		join(segments + entry->segment_count - 1, count - entry->segment_count + 1);
	for (size_t i = 0; i < entry->segment_count; i++) {
		size_t len = 0;
		char *value;

		if (entry->segments[i].name == NULL)
			continue;
		value = fit(&entry->segments[i], segments[i], &len);
		assert(value != NULL); /* it matched already */
		value[len] = '\0';
		out->params[out->param_count++] =
			(struct pair){ .name = entry->segments[i].name, .value = value };
	}
}

static unsigned
listeners_of(const struct route *route)
{
	return route->listeners != 0 ? route->listeners : LISTENER_HTTPS | LISTENER_STATIONS;
}

static void
add_method(char allow[ALLOW_BYTES], const char *method)
{
	size_t len = strlen(allow);

	(void)snprintf(allow + len, ALLOW_BYTES - len, "%s%s", len > 0 ? ", " : "", method);
	if (strcmp(method, "GET") == 0)
		add_method(allow, "HEAD");
}

/* Splits path at its slashes and decodes each part, in place. */
static enum status
split(char *path, char *segments[PARTS_MAX], size_t *count, struct err *err)
{
	char *rest = path;
	size_t found = 0;

	while (rest != NULL) {
		char *part = rest + 1; /* behind the slash */

		rest = strchr(part, '/');
		if (rest != NULL)
			*rest = '\0';
		if (!uri_decode(part, false))
			return err_set(err, ERR_ARGUMENT, "path_malformed",
				"path: percent-encoded UTF-8 without control characters wanted");
		if (found == PARTS_MAX)
			return err_set(err, ERR_NOT_FOUND, "not_found",
				"there is nothing here: at most %d parts of a path wanted",
				PARTS_MAX);
		segments[found++] = part;
	}
	*count = found;
	return OK;
}

enum status
router_match(const struct router *router, enum listener_kind kind, const char *method, char *path,
	struct match *out, char allow[ALLOW_BYTES], struct err *err)
{
	bool head = strcmp(method, "HEAD") == 0;
	const char *wanted = head ? "GET" : method;
	const struct entry *place = NULL;
	char *segments[PARTS_MAX];
	size_t count = 0;

	allow[0] = '\0';
	*out = (struct match){ .route = NULL };
	if (path[0] != '/')
		return err_set(err, ERR_ARGUMENT, "path_malformed", "path: a leading slash wanted");
	TRY(split(path, segments, &count, err));
	for (size_t i = 0; i < router->count; i++) {
		const struct entry *entry = &router->entries[i];

		if ((listeners_of(entry->route) & kind) == 0 || !matches(entry, segments, count))
			continue;
		/* Wider patterns behind the narrowest one do not count, as a rule. */
		if (place != NULL && !same_place(place, entry) && !entry->route->lenient)
			break;
		place = entry;
		add_method(allow, entry->route->method);
		if (strcmp(entry->route->method, wanted) != 0)
			continue;
		out->route = entry->route;
		out->index = i;
		out->head = head;
		take_params(entry, segments, count, out);
		return OK;
	}
	if (place == NULL)
		return err_set(err, ERR_NOT_FOUND, "not_found", "there is nothing here");
	return err_set(err, ERR_ARGUMENT, "method_not_allowed", "method: one of %s wanted", allow);
}
