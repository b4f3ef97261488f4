/*
 * server/iotcore/op.h - the operations of the local IoT Core: a table says how a request of AWS IoT's
 * control plane (REST-JSON, API version 2015-05-28) looks and what its members may be; the dispatcher
 * (dispatch.c) checks the signature, reads and validates the members, opens the transaction, calls the
 * handler, commits and renders. A handler sees only valid input and says what AWS would answer.
 *
 *	const struct op THING_OPS[] = {
 *		{ .name = "CreateThing", .method = "POST", .path = "/things/{thingName}",
 *		  .tx = TX_WRITE, .handle = create_thing,
 *		  .members = (const struct member[]){
 *			{ .name = "thingName", .at = AT_PATH, MEMBER_THING_NAME },
 *			{ .name = "attributePayload", .at = AT_BODY, .type = MEMBER_STRUCT,
 *			  .members = ATTRIBUTE_PAYLOAD },
 *			{ 0 } } },
 *		{ .name = NULL },
 *	};
 *
 * Each table has one line in tables.h and one in tables.c. Members that a table does not name are
 * ignored, as AWS ignores them.
 *
 * Errors: a handler fails with iotcore_error(err, "ResourceNotFoundException", …), or hands on what
 * a callee said: ERR_ARGUMENT becomes InvalidRequestException, ERR_NOT_FOUND ResourceNotFoundException,
 * ERR_CONFLICT ConflictException, ERR_UNAVAILABLE ServiceUnavailableException, ERR_INTERNAL
 * InternalFailureException.
 *
 * Threads: a call belongs to one thread; struct core does not change while calls are served.
 */
#ifndef SERVER_IOTCORE_OP_H
#define SERVER_IOTCORE_OP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "db/db.h"
#include "server/http/request.h"

struct call;
struct core_user;

/* ---- what a request may hold ---- */

/* Texts: what AWS prints of the rule, and the rule. Handlers may have their own. */
struct pattern {
	const char *aws;                            /* "[a-zA-Z0-9:_-]+" */
	bool (*holds)(const char *text, size_t len); /* of valid UTF-8 without NUL */
};
extern const struct pattern PATTERN_THING_NAME; /* [a-zA-Z0-9:_-]+: types, groups, profiles too */
extern const struct pattern PATTERN_POLICY_NAME; /* [\w+=,.@-]+ */
extern const struct pattern PATTERN_HEX_ID;      /* (0x)?[a-fA-F0-9]+ */
extern const struct pattern PATTERN_DIGITS;      /* [0-9]+ */
extern const struct pattern PATTERN_RULE_NAME;   /* ^[a-zA-Z0-9_]+$ */
extern const struct pattern PATTERN_ATTRIBUTE_NAME;  /* [a-zA-Z0-9_.,@/:#-]+ */
extern const struct pattern PATTERN_ATTRIBUTE_VALUE; /* [a-zA-Z0-9_.,@/:#=\[\]-]* */
extern const struct pattern PATTERN_PRINTABLE;   /* [\p{Graph}\x20]*: descriptions */
extern const struct pattern PATTERN_MARKER;      /* [A-Za-z0-9+/]+={0,2} */

enum member_at {
	AT_UNSET = 0,
	AT_PATH,
	AT_QUERY,
	AT_HEADER,
	AT_BODY,
	AT_PAYLOAD, /* the whole body is this member (MEMBER_STRUCT) */
};

enum member_type {
	MEMBER_UNSET = 0,
	MEMBER_TEXT,
	MEMBER_FLAG,   /* true, false */
	MEMBER_NUMBER, /* whole, 64 bits */
	MEMBER_REAL,
	MEMBER_TIME,   /* body: epoch seconds, query: ISO 8601; call_time() */
	MEMBER_STRUCT, /* members: of the object */
	MEMBER_LIST,   /* members[0]: of each item (its name is "member") */
	MEMBER_MAP,    /* members[0]: of each key, members[1]: of each value */
};

struct member {
	const char *name;  /* as AWS's model calls it, and messages; NULL ends a table */
	enum member_at at; /* of members of an operation; inside of structures AT_UNSET */
	const char *wire;  /* the name of the header or query parameter; NULL: name */
	enum member_type type;
	bool required;
	int64_t least, most; /* characters of a text, items of a list or map, the number. Both 0: free */
	const struct pattern *pattern;   /* of a text */
	const char *const *values;       /* of a text: an enumeration, NULL at its end */
	const struct member *members;    /* see the types; a table ended by a NULL name */
};

/* The usual ones. */
#define MEMBER_THING_NAME                                                                          \
	.type = MEMBER_TEXT, .required = true, .least = 1, .most = 128,                            \
	.pattern = &PATTERN_THING_NAME
#define MEMBER_POLICY_NAME                                                                         \
	.type = MEMBER_TEXT, .required = true, .least = 1, .most = 128,                            \
	.pattern = &PATTERN_POLICY_NAME
#define MEMBER_HEX_ID                                                                              \
	.type = MEMBER_TEXT, .required = true, .least = 64, .most = 64, .pattern = &PATTERN_HEX_ID
/* [{"Key", "Value"}]; the dispatcher leaves them in the call for iotcore_tags_put(). */
extern const struct member TAG_MEMBERS[];
#define MEMBER_TAGS .type = MEMBER_LIST, .members = TAG_MEMBERS

/* ---- operations ---- */

enum op_tx {
	TX_UNSET = 0,
	TX_NONE,  /* no database: call->tx is NULL */
	TX_READ,  /* a transaction */
	TX_WRITE, /* one that holds the lock of iotcore.account from its start on; not for readonly users */
};

/* How a list goes on; the dispatcher adds and validates the query members. */
enum op_page {
	PAGE_NONE = 0,
	PAGE_MARKER,       /* pageSize, marker → nextMarker */
	PAGE_MARKER_ORDER, /* with isAscendingOrder; newest first without it */
	PAGE_TOKEN,        /* maxResults, nextToken → nextToken */
	PAGE_TOKEN_ONLY,   /* nextToken alone */
};

struct op {
	const char *name; /* "CreateThing"; NULL ends a table */
	const char *method;
	const char *path; /* "/things/{thingName}"; "/destinations/{arn+}": the last label takes slashes */
	enum op_tx tx;    /* must be set */
	enum status (*handle)(struct call *call, struct err *err);
	const struct member *members;  /* NULL: none */
	enum op_page page;
	int64_t page_most;             /* 0: 250 */
	int64_t page_default;          /* 0: 25 for markers, page_most for tokens */
	bool anyone;                   /* without a signature: confirmdestination alone */
};

/* ---- a call ---- */

struct core {
	char account[13]; /* "123456789012" */
	char region[64];
	char endpoint[256]; /* host, as DescribeEndpoint answers it */
	bool loopback_http_destinations; /* topic rules may send over plain HTTP to this machine */
	const struct clock *clock;
	struct db_pool *pool;
};

struct call {
	const struct core *core;
	const struct op *op;
	struct request *request;      /* request_id(), request_alloc(), request_peer_address() */
	const struct core_user *user; /* NULL: anyone */
	struct db_tx *tx;             /* by op->tx; the dispatcher commits it. NULL: TX_NONE */
	json_t *body;                 /* an object, empty when there was none; borrowed */
	json_t *reply;                /* NULL: an empty answer */
	int64_t now_s;
	struct page {
		int64_t limit;        /* rows wanted; ask for one more to learn whether there are more */
		const char *after;    /* the key behind which to go on; NULL: from the start */
		bool ascending;
	} page;
	/* Of ResourceAlreadyExistsException: iotcore_exists(). */
	char exists_id[129], exists_arn[320];
};

/*
 * The value of a member, wherever it came from; borrowed, lives as long as the request. NULL, fallback:
 * it is not there. Asking for a member that the table does not have is a bug (asserted).
 */
const char *call_text(const struct call *call, const char *name);
bool call_has(const struct call *call, const char *name);
bool call_flag(const struct call *call, const char *name, bool fallback);
int64_t call_number(const struct call *call, const char *name, int64_t fallback);
int64_t call_time(const struct call *call, const char *name, int64_t fallback_s);
/* AT_BODY and AT_PAYLOAD; validated. */
json_t *call_json(const struct call *call, const char *name);

/*
 * The answer, an object; taken also on failure. NULL, as json_pack gives when memory is short, is
 * ERR_UNAVAILABLE. Members that are absent must be left out ("s:s*"): AWS leaves them out.
 */
MUST_USE enum status call_reply(struct call *call, json_t *object, struct err *err);
/* Epoch seconds with milliseconds, as AWS's answers have times. A new reference, or NULL. */
json_t *iotcore_time(int64_t us);

/*
 * The rest of a list: sets nextMarker or nextToken in the answer, after call_reply(). key: of the last
 * row that was given; at most 1500 octets, any text. It comes back as page.after, of the same
 * operation only.
 */
MUST_USE enum status call_page_next(struct call *call, const char *key, struct err *err);

/* ---- names ---- */

#define IOTCORE_ARN_BYTES 320
/* "arn:aws:iot:REGION:ACCOUNT:" and the resource ("thing/x"), which is cut if it does not fit. */
void iotcore_arn(char out[IOTCORE_ARN_BYTES], const struct core *core, const char *fmt, ...) PRINTF(3, 4);
/*
 * What stands behind type ("thing/", "cert/", "thinggroup/") in an ARN of this account and region;
 * NULL: it is none of these.
 */
const char *iotcore_arn_resource(const struct core *core, const char *arn, const char *type);

/* ---- errors ---- */

/*
 * exception: a name of error.c's table, which knows its HTTP status. Returns a status other than OK.
 * The text is the message that the client sees, so it reads as AWS's.
 */
enum status iotcore_error(struct err *err, const char *exception, const char *fmt, ...) PRINTF(3, 4);
#define iotcore_error(...) err_failed(iotcore_error(__VA_ARGS__))
/* ResourceAlreadyExistsException with resourceId and resourceArn. */
enum status iotcore_exists(struct call *call, struct err *err, const char *id, const char *arn,
	const char *fmt, ...) PRINTF(5, 6);
#define iotcore_exists(...) err_failed(iotcore_exists(__VA_ARGS__))
/*
 * InvalidRequestException, "1 validation error detected: Value 'value' at 'member' failed to satisfy
 * constraint: Member must …". value NULL: null.
 */
enum status iotcore_invalid(struct err *err, const char *value, const char *member, const char *fmt,
	...) PRINTF(4, 5);
#define iotcore_invalid(...) err_failed(iotcore_invalid(__VA_ARGS__))
#define iotcore_error(...) err_failed(iotcore_error(__VA_ARGS__))
#define iotcore_exists(...) err_failed(iotcore_exists(__VA_ARGS__))
#define iotcore_invalid(...) err_failed(iotcore_invalid(__VA_ARGS__))

/* ---- tags: tag.c ---- */

/* Sets the tags of a call's member (a list of Key and Value; NULL: none) on a resource that is new. */
MUST_USE enum status iotcore_tags_put(struct call *call, const char *arn, const json_t *tags,
	struct err *err);
/* The resource is gone. */
MUST_USE enum status iotcore_tags_drop(struct call *call, const char *arn, struct err *err);

/* ---- the tables: tables.c ---- */

extern const struct op *const IOTCORE_OPS[]; /* NULL at the end */

#endif
