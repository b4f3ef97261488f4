/*
 * base/err.h - the one error: a status to decide on, a stable code for clients, a text for people.
 *
 * Every function that can fail returns enum status and takes `struct err *err` last. err is filled
 * whenever the result is not OK and untouched otherwise. It has a fixed size, for an error must not
 * allocate. The text names field, rule, wanted and found; it never holds a secret, a PEM or a token.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <assert.h>
#include <stdint.h>

#include "base/attr.h"

/* Zero is the status that somebody forgot to set: our fault. */
enum status {
	ERR_INTERNAL = 0,    /* our fault */
	OK = 1,
	ERR_ARGUMENT,        /* malformed, or breaks a rule */
	ERR_UNAUTHENTICATED, /* who is asking is not known */
	ERR_DENIED,          /* understood, not allowed */
	ERR_NOT_FOUND,
	ERR_CONFLICT,        /* exists already, or has changed */
	ERR_TOO_LARGE,       /* over a named limit */
	ERR_TOO_MANY,        /* too often */
	ERR_UNAVAILABLE,     /* database or signer away, memory short; trying again may help */
};

#define ERR_CODE_BYTES 48
#define ERR_TEXT_BYTES 512

struct err {
	enum status status;
	char code[ERR_CODE_BYTES]; /* stable, [a-z0-9_]+, listed in docs/errors.md */
	char text[ERR_TEXT_BYTES];
	int64_t retry_after_s; /* 0: the edge chooses; only for ERR_TOO_MANY and ERR_UNAVAILABLE */
};

/* Fills err (cutting at its size) and returns status, so that `return err_set(…)` reads well. */
enum status err_set(struct err *err, enum status status, const char *code, const char *fmt, ...)
	PRINTF(4, 5);

/* Puts "context: " in front of the text; returns err->status. */
enum status err_wrap(struct err *err, const char *fmt, ...) PRINTF(2, 3);

/* ERR_UNAVAILABLE, code out_of_memory. */
enum status err_memory(struct err *err);

/*
 * What tells of a failure never answers OK. That stands here, where each caller's compiler and analyzers
 * read it, for they see one file at a time.
 */
#define err_failed(call)                                                                           \
	__extension__({                                                                            \
		enum status failed_ = (call);                                                      \
		assert(failed_ != OK);                                                             \
		failed_;                                                                           \
	})

#define err_set(...) err_failed(err_set(__VA_ARGS__))
#define err_wrap(...) err_failed(err_wrap(__VA_ARGS__))
#define err_memory(...) err_failed(err_memory(__VA_ARGS__))

/* "ERR_ARGUMENT" and so on, for logs and tests. */
const char *status_name(enum status status);

/* Leaves the function with the status of a call that failed. */
#define TRY(call)                                                                                  \
	do {                                                                                       \
		enum status try_status_ = (call);                                                  \
		if (try_status_ != OK)                                                             \
			return try_status_;                                                        \
	} while (0)

#endif
