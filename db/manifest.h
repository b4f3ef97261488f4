/* db/manifest.h - manifests (work orders) and their lines. */
#ifndef DB_MANIFEST_H
#define DB_MANIFEST_H

#include "db/db.h"

struct db_manifest {
	char manifest_id[DB_ID_BYTES];
	char station_id[DB_ID_BYTES];
	char profile[DB_PROFILE_BYTES];
	int64_t quantity, used, line_count;
	bool allow_replace;
	int64_t not_before_s, not_after_s, created_at_s, closed_at_s; /* closed 0: open */
	char created_by[DB_ID_BYTES];
};

/* ERR_CONFLICT manifest_exists; ERR_NOT_FOUND station_unknown. */
MUST_USE enum status db_manifest_create(struct db_tx *tx, const struct db_manifest *manifest,
	struct err *err);
MUST_USE enum status db_manifest_find(struct db_tx *tx, const char *manifest_id,
	struct db_manifest *out, struct err *err); /* ERR_NOT_FOUND manifest_unknown */
/* station_id NULL: all. */
MUST_USE enum status db_manifest_list(struct db_tx *tx, const char *station_id, const char *after,
	size_t limit, struct db_manifest *out, size_t *count, struct err *err);
MUST_USE enum status db_manifest_close(struct db_tx *tx, const char *manifest_id, bool *changed,
	struct err *err);

/*
 * Adds lines (COPY into a temporary table, then one INSERT): next() yields one device id a call, with
 * *id NULL at the end; a status from it ends the whole. All or nothing with the transaction; memory
 * does not grow with the count. A line that is there already is not added twice: *added counts the new
 * ones. ERR_ARGUMENT device_id_malformed is for next() to find, before it gets here.
 */
MUST_USE enum status db_manifest_add_lines(struct db_tx *tx, const char *manifest_id,
	enum status (*next)(void *arg, const char **id, struct err *err), void *arg,
	int64_t *added, struct err *err);

/* Streams lines in device_id order, with the certificate last issued on each (sha256 NULL: none). */
MUST_USE enum status db_manifest_export(struct db_tx *tx, const char *manifest_id,
	enum status (*line)(void *arg, const char *device_id, const struct serial *serial,
		const uint8_t *sha256, const char *status, int64_t used_at_s, struct err *err),
	void *arg, struct err *err);

/* What a station may still do: open manifests now, by id. */
MUST_USE enum status db_manifest_open(struct db_tx *tx, const char *station_id, int64_t now_s,
	struct db_manifest *out, size_t max, size_t *count, struct err *err);

#endif
