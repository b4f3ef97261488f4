/*
 * server/manifest_reader.h - device ids out of an uploaded file, one at a time, in memory that does not
 * grow with the file.
 *
 * CSV (RFC 4180) of one column: lines end in LF or CRLF, the first may begin with a byte order mark and
 * may be the header `device_id`; empty lines are skipped; a field may be quoted. JSON (RFC 8259): one
 * array of strings. NDJSON: one string, or one object {"device_id": …}, a line. An id is
 * [A-Za-z0-9:_-]{1,64}; nothing is trimmed.
 *
 * Errors name the line: "line 17: device_id: …". ERR_ARGUMENT: device_id_malformed, csv_malformed (more
 * than one column, a quote out of place), json_malformed, field_type (not a string), manifest_empty (no
 * id at all). One thread.
 */
#ifndef SERVER_MANIFEST_READER_H
#define SERVER_MANIFEST_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum manifest_format {
	MANIFEST_FORMAT_UNSET = 0, /* refused */
	MANIFEST_CSV,
	MANIFEST_JSON,
	MANIFEST_NDJSON,
};

/* False: none of text/csv, application/json, application/x-ndjson. */
MUST_USE bool manifest_format_parse(enum manifest_format *out, const char *content_type);

#define MANIFEST_READ_BYTES (16 * 1024)
/* An id is 64 characters; a line of NDJSON holds one in an object, each character perhaps escaped. */
#define MANIFEST_LINE_BYTES 1024

struct manifest_reader { /* all the reader's */
	int fd; /* borrowed */
	enum manifest_format format;
	int64_t line;  /* of the octet that is read next, from 1 */
	int64_t count; /* ids given so far */
	bool begun, ended;
	uint8_t octets[MANIFEST_READ_BYTES];
	size_t at, filled;
	char id[MANIFEST_LINE_BYTES];
	size_t len;
};

/* Reads fd from where it stands. fd and reader outlive the reading. */
void manifest_reader_init(struct manifest_reader *reader, int fd, enum manifest_format format);

/*
 * The next id, which lives until the next call; NULL at the end. arg is a struct manifest_reader: the
 * shape that db_manifest_add_lines wants.
 */
MUST_USE enum status manifest_reader_next(void *arg, const char **id, struct err *err);

#endif
