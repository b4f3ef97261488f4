/*
 * server/iotcore/registry.h - what the operations on things, types, groups, principals, profiles and
 * rules share: lists by pages, attributes, JSON of the database, and AWS's words for what is not there.
 */
#ifndef SERVER_IOTCORE_REGISTRY_H
#define SERVER_IOTCORE_REGISTRY_H

#include "base/bytes.h"
#include "db/iotcore_thing.h"
#include "server/iotcore/op.h"

/* A name that may be absent. */
#define MEMBER_NAME_OPTIONAL                                                                       \
	.type = MEMBER_TEXT, .least = 1, .most = 128, .pattern = &PATTERN_THING_NAME
#define DESCRIPTION_MOST 2028
#define ARN_MOST 2048

/* ---- lists ---- */

/*
 * Collects a page: ask the database for listing_limit() rows behind listing_after(), which is one more
 * than the page holds, add each, end. What is collected is freed with the listing.
 */
struct listing {
	struct call *call;
	json_t *items;
	bool more;
	char last[1024]; /* the key of the last item on the page */
};
void listing_free(struct listing *listing);
OWNER_STRUCT(listing, listing_free)

MUST_USE enum status listing_begin(struct listing *listing, struct call *call, struct err *err);
int64_t listing_limit(const struct listing *listing);
const char *listing_after(const struct listing *listing); /* "": from the start */
/* Takes item, also on failure; NULL is ERR_UNAVAILABLE. */
MUST_USE enum status listing_add(struct listing *listing, const char *key, json_t *item,
	struct err *err);
/* Answers {name: items} and the token of the next page. */
MUST_USE enum status listing_end(struct listing *listing, const char *name, struct err *err);

/* For lists of bare names: arg is the listing. */
db_name_each listing_add_name;

/* ---- JSON ---- */

/* As text, in the request's memory; NULL: memory is short. */
const char *registry_dump(const struct call *call, const json_t *json);
/* What the database holds as JSON: a new reference. ERR_INTERNAL core_json: it is none. */
MUST_USE enum status registry_load(json_t **out, struct view text, struct err *err);
/* Into an object that is being built; takes value, also on failure. */
MUST_USE enum status registry_set(json_t *object, const char *name, json_t *value, struct err *err);
/* The same, of a text that is left out when it is empty. */
MUST_USE enum status registry_set_text(json_t *object, const char *name, struct view text,
	struct err *err);

/* A copy with nothing but what the table names, and without nulls; of a valid request. */
MUST_USE enum status registry_known(json_t **out, const struct member *members, const json_t *object,
	struct err *err);

/* ---- attributes ---- */

/* {attributes, merge}: of things and groups. */
extern const struct member ATTRIBUTE_PAYLOAD_MEMBERS[];
/*
 * What attributes become of `before` (an object) by a payload (NULL: nothing changes): all are
 * replaced, or with merge joined; empty values remove theirs. A new reference.
 */
MUST_USE enum status attributes_apply(json_t **out, const json_t *before, const json_t *payload,
	struct err *err);

/* ---- checks: AWS's exceptions ---- */

enum status thing_missing(struct err *err, const char *name);
enum status thing_type_missing(struct err *err, const char *name);
enum status group_missing(struct err *err, const char *name);
MUST_USE enum status thing_wanted(struct call *call, const char *name, struct err *err);
MUST_USE enum status group_wanted(struct call *call, const char *name, struct err *err);
/* VersionConflictException when the call expects another version than the resource has. */
MUST_USE enum status version_wanted(struct call *call, const char *what, const char *name,
	int64_t version, struct err *err);

#endif
