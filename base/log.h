/*
 * base/log.h - one event, one JSON object, one line on stderr: ts, level, event, request_id, fields.
 * Written whole with one write(2), so lines of several processes do not mix. Safe from any thread.
 * The sink and the level are set before the first thread starts and not changed after.
 *
 *   log_event(LOG_INFO, "crl_published", NULL, LOG_STR("ca", id), LOG_INT("entries", n));
 *
 * Never log a secret, a PEM or a query parameter.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "base/err.h"

enum log_level {
	LOG_DEBUG = 1, /* explains */
	LOG_INFO,      /* records */
	LOG_WARN,      /* odd but handled */
	LOG_ERROR,     /* wants a human */
};

enum log_kind { LOG_KIND_END = 0, LOG_KIND_NONE, LOG_KIND_STR, LOG_KIND_VIEW, LOG_KIND_INT, LOG_KIND_BOOL };

struct log_field {
	const char *key;
	enum log_kind kind;
	union {
		const char *text; /* NULL becomes null */
		struct view view; /* foreign octets, escaped */
		int64_t number;
		bool flag;
	} value;
};

#define LOG_STR(k, v) { .key = (k), .kind = LOG_KIND_STR, .value.text = (v) }
#define LOG_VIEW(k, v) { .key = (k), .kind = LOG_KIND_VIEW, .value.view = (v) }
#define LOG_INT(k, v) { .key = (k), .kind = LOG_KIND_INT, .value.number = (int64_t)(v) }
#define LOG_BOOL(k, v) { .key = (k), .kind = LOG_KIND_BOOL, .value.flag = (v) }

/*
 * request_id may be NULL. Fields may be none (the first entry makes that legal C). A line over 8 KiB is
 * cut, still valid JSON.
 */
#define log_event(level, event, request_id, ...)                                                   \
	log_write((level), (event), (request_id),                                                  \
		(const struct log_field[]){ { .kind = LOG_KIND_NONE }, ##__VA_ARGS__,              \
			{ .kind = LOG_KIND_END } })

void log_write(enum log_level level, const char *event, const char *request_id,
	const struct log_field *fields);

/* Logs what err says, with its status and code. */
void log_error(enum log_level level, const char *event, const char *request_id,
	const struct err *err);

/* process is a short name that stands in every line ("supervisor"); kept, not copied. */
void log_setup(int fd, enum log_level least, const char *process);
bool log_level_parse(enum log_level *out, const char *text); /* "debug" … "error" */

#endif
