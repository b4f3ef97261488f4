/*
 * server/iotcore/internal.h - what the control plane's own parts share: the process, its users, the
 * way of a call. Handlers know op.h alone.
 */
#ifndef SERVER_IOTCORE_INTERNAL_H
#define SERVER_IOTCORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/http/route.h"
#include "server/iotcore/error.h"
#include "server/iotcore/op.h"

/* ---- users: credentials.c ---- */

#define ACCESS_KEY_BYTES 129
#define USERS_MAX 64

struct core_user {
	char access_key[ACCESS_KEY_BYTES];
	struct view secret; /* borrowed of the users */
	bool readonly;
};
struct core_users;
/*
 * `ACCESS_KEY SECRET_KEY [readonly]` lines; # begins a comment. ERR_ARGUMENT credentials_file: names the
 * line, never its content; also when others may read the file.
 */
MUST_USE enum status core_users_read(struct core_users **out, const char *path, struct err *err);
void core_users_free(struct core_users *users); /* wipes; NULL is welcome */
/* NULL: there is none. Access keys are names, not secrets. */
const struct core_user *core_users_find(const struct core_users *users, struct view access_key);

/* ---- quotas: quota.c ---- */

/*
 * A file of `OPERATION RATE_PER_SECOND` lines, "*" for all others; a bucket of one second's worth for
 * each operation. path "": no quotas. ERR_ARGUMENT quotas_file.
 */
struct core_quotas;
MUST_USE enum status core_quotas_read(struct core_quotas **out, const char *path, struct err *err);
void core_quotas_free(struct core_quotas *quotas); /* NULL is welcome */
/* ThrottlingException when the bucket of op is empty. quotas NULL: never. */
MUST_USE enum status core_quotas_take(struct core_quotas *quotas, const char *op, int64_t now_ms,
	struct err *err);

/* ---- signatures: signature.c ---- */

/* Who signed the request: AWS's exceptions say what is wrong with it. */
MUST_USE enum status core_verify(const struct core_user **user, struct request *request,
	const struct core *core, const struct core_users *users, struct err *err);

/* ---- changes: writes.c ---- */

struct change;
struct core_writes {
	pthread_mutex_t lock; /* for what follows */
	pthread_cond_t ended;
	struct change *first; /* nobody sees to them yet */
	struct change **last;
	bool led;             /* somebody sees to others */
};
void core_writes_begin(struct core_writes *writes);
/*
 * Runs the handler of a call that changes something, under the lock of the account's row, and commits:
 * together with others that wait for the same. It may be run twice, the first time for nothing.
 */
MUST_USE enum status core_write(struct core_writes *writes, struct call *call, struct err *err);

/* ---- calls: dispatch.c, call.c ---- */

struct core_process {
	struct core core;
	struct core_writes writes;
	struct core_users *users;
	struct core_quotas *quotas;
	struct http *http;
	int64_t started_ms;
	_Atomic bool ready; /* the account is there */
};

/*
 * The routes of the operations; each has its struct op as data. ERR_INTERNAL op_invalid: a table is
 * wrong. The caller frees them with dispatch_free(), after the router.
 */
struct dispatch;
MUST_USE enum status dispatch_new(struct dispatch **out, const struct op *const *tables, struct err *err);
const struct route *dispatch_routes(const struct dispatch *dispatch);
void dispatch_free(struct dispatch *dispatch); /* NULL is welcome */

/*
 * The tables as JSON: [{name, method, path, members: [{name, location, wire, type, required, min, max,
 * values, members}]}]. A new reference, or NULL. The tests hold it against AWS's model.
 */
json_t *dispatch_describe(const struct op *const *tables);

/* The text of a member that does not come in the body; NULL: none came. */
const char *call_member_text(const struct request *request, const struct member *member);

#define PAGE_KEY_BYTES 1500
#define PAGE_KEY_TEXT_BYTES 2200
/* The query members that the operation has for its page style; NULL: none. */
const struct member *page_members(const struct op *op);
/* Fills call->page. */
MUST_USE enum status page_read(struct call *call, struct err *err);

/* ---- base64.c: RFC 4648 4, with padding ---- */

/* out holds 4 * ((len + 2) / 3) + 1. */
void base64_encode(char *out, const uint8_t *data, size_t len);
/* False: malformed, or over capacity. */
MUST_USE bool base64_decode(uint8_t *out, size_t capacity, size_t *len, const char *text);

/* /healthz, /readyz, /metrics: health.c */
extern const struct route CORE_HEALTH_ROUTES[];

#endif
