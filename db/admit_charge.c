#include "db/admit.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
	ADMIT_LINES,
	ADMIT_MANIFEST_LOCK,
	ADMIT_STATION_LOCK,
	ADMIT_CHARGE,
	STATEMENTS,
};

/* Whether a manifest may be used now: o open, n not yet valid, x expired, c closed. */
#define MANIFEST_STATE                                                                             \
	"CASE WHEN m.closed_at IS NOT NULL THEN 'c' WHEN now() < m.not_before THEN 'n'"                \
	" WHEN now() >= m.not_after THEN 'x' ELSE 'o' END"

static const struct db_statement SQL[STATEMENTS] = {
	[ADMIT_LINES] = { /* manifest_line_pkey, manifest_pkey */
		.name = "admit_lines", .params = 4, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, l.manifest_id, l.used_at IS NOT NULL, " MANIFEST_STATE
		       " FROM unnest($1::int[], $2::text[], $3::text[], $4::text[])"
		       " AS i(idx, station, profile, device_id)"
		       " JOIN jitrca.manifest_line l ON l.device_id = i.device_id"
		       " JOIN jitrca.manifest m ON m.manifest_id = l.manifest_id"
		       " AND m.station_id = i.station AND m.profile = i.profile"
		       " ORDER BY i.idx, l.manifest_id",
	},
	[ADMIT_MANIFEST_LOCK] = { /* manifest_pkey */
		.name = "admit_manifest_lock", .params = 1, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT m.manifest_id, m.quantity - m.used, m.allow_replace, " MANIFEST_STATE
		       " FROM jitrca.manifest m WHERE m.manifest_id = ANY ($1::text[])"
		       " ORDER BY m.manifest_id FOR NO KEY UPDATE",
	},
	[ADMIT_STATION_LOCK] = { /* station_pkey */
		.name = "admit_station_lock", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT s.principal_id, floor(" ADMIT_BUCKET_NOW " * 1000)::bigint, s.rate_per_minute"
		       " FROM jitrca.station s WHERE s.principal_id = ANY ($1::text[])"
		       " ORDER BY s.principal_id FOR NO KEY UPDATE",
	},
	[ADMIT_CHARGE] = { /* manifests and stations are locked already, lines behind their device's slot */
		.name = "admit_charge", .params = 6, .columns = 1, .rows = ROWS_ONE,
		.sql = "WITH i AS MATERIALIZED (SELECT * FROM"
		       " unnest($1::text[], $2::text[], $3::text[], $4::bool[], $5::int[], $6::bytea[])"
		       " AS i(identity, station, manifest_id, charged, issuer, serial)),"
		       " manifests AS (UPDATE jitrca.manifest m SET used = m.used + q.units FROM"
		       " (SELECT i.manifest_id, count(*) AS units FROM i WHERE i.charged GROUP BY 1) q"
		       " WHERE m.manifest_id = q.manifest_id),"
		       " stations AS (UPDATE jitrca.station s SET bucket = " ADMIT_BUCKET_NOW " - q.units,"
		       " bucket_at = clock_timestamp() FROM"
		       " (SELECT i.station, count(*) AS units FROM i GROUP BY 1) q"
		       " WHERE s.principal_id = q.station),"
		       " lines AS (UPDATE jitrca.manifest_line l SET used_at = now(), issuer_id = i.issuer,"
		       " serial = i.serial FROM i WHERE i.charged"
		       " AND l.device_id = i.identity AND l.manifest_id = i.manifest_id"
		       " AND l.used_at IS NULL RETURNING 1)"
		       " SELECT count(*) FROM lines",
	},
};

const struct db_table DB_TABLE_ADMIT_CHARGE = { SQL, COUNT_OF(SQL) };

static const enum column TAKES[STATEMENTS][BATCH_COLUMNS_MAX] = {
	[ADMIT_LINES] = { COL_INDEX, COL_PRINCIPAL, COL_PROFILE, COL_IDENTITY },
	[ADMIT_CHARGE] = { COL_IDENTITY, COL_PRINCIPAL, COL_MANIFEST, COL_CHARGED, COL_ISSUER, COL_SERIAL },
};

static enum status
run_over(struct batch *b, size_t statement, PGresult **rows, struct err *err)
{
	return batch_run(b, &SQL[statement], TAKES[statement], rows, err);
}

/* Reads the lines of those that need one. */
static enum status
read_lines(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && b->items[i].needs_manifest)
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_LINES, &rows, err));
	b->line_count = (size_t)batch_row_count(rows);
	b->lines = mem_array(b->line_count, sizeof(*b->lines));
	if (b->lines == NULL)
		return err_memory(err);
	for (size_t r = 0; r < b->line_count; r++) {
		struct db_row row = db_row(rows, (int)r);
		struct work *work = &b->work[batch_row_index(&row, b)];

		if (work->line_count++ == 0)
			work->first_line = r;
		db_row_text(&row, b->lines[r].manifest_id, DB_ID_BYTES);
		b->lines[r].used = db_row_bool(&row);
		b->lines[r].state = db_row_char(&row);
		TRY(db_row_end(&row, err));
	}
	for (size_t p = 0; p < b->picked; p++) {
		struct db_admit_item *item = &b->items[b->pick[p]];

		if (b->work[b->pick[p]].line_count == 0)
			admit_refuse(item, ERR_DENIED, "device_not_in_manifest",
				"device: %s is on no manifest of station %s for profile %s",
				item->identity, item->principal_id, item->profile);
	}
	return OK;
}

/* A manifest or a station as this call has locked it. */
struct purse {
	char id[DB_ID_BYTES];
	int64_t left;         /* units; thousandths of a token */
	int64_t per_minute;   /* station */
	bool allow_replace;   /* manifest */
	char state;           /* manifest */
};

struct purses {
	struct purse *entries; /* by id */
	size_t count;
};

static void
purses_free(struct purses *purses)
{
	mem_free(purses->entries);
}
OWNER_STRUCT(purses, purses_free)

static int
compare_purse(const void *key, const void *purse)
{
	return strcmp(key, ((const struct purse *)purse)->id);
}

static struct purse *
purse_find(const struct purses *purses, const char *id)
{
	return bsearch(id, purses->entries, purses->count,
		sizeof(*purses->entries), compare_purse);
}

/* Locks manifests or stations in the order of their ids, which is the order they come in. */
static enum status
purses_lock(struct purses *out, struct batch *b, size_t statement, struct db_array *ids,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(b->tx, &SQL[statement], DB_PARAMS(db_array(ids)), &rows, err));
	out->count = (size_t)db_rows(rows);
	out->entries = mem_array(out->count, sizeof(*out->entries));
	if (out->entries == NULL)
		return err_memory(err);
	for (size_t r = 0; r < out->count; r++) {
		struct db_row row = db_row(rows, (int)r);
		struct purse *purse = &out->entries[r];

		db_row_text(&row, purse->id, sizeof(purse->id));
		purse->left = db_row_int64(&row);
		if (statement == ADMIT_STATION_LOCK) {
			purse->per_minute = db_row_int64(&row);
		} else {
			purse->allow_replace = db_row_bool(&row);
			purse->state = db_row_char(&row);
		}
		TRY(db_row_end(&row, err));
	}
	return OK;
}

/* How far a line gets an item; the furthest is chosen, and the furthest refusal told. */
enum fit { FIT_NONE, FIT_CLOSED, FIT_EXPIRED, FIT_NOT_YET, FIT_QUOTA, FIT_REPLACE, FIT_CHARGE, FIT_FREE };

static enum fit
fit_of(const struct line *line, const struct purse *manifest, const struct db_admit_item *item,
	const struct work *work)
{
	char state = manifest != NULL ? manifest->state : line->state;

	if (state == 'c')
		return FIT_CLOSED;
	if (state == 'x')
		return FIT_EXPIRED;
	if (state == 'n' || manifest == NULL) /* opened since it was read: soon enough next time */
		return FIT_NOT_YET;
	/* Only a device's slot says that what the line was used for has ended: without one, a line
	 * would be good for any number of certificates. */
	if (line->used ? item->slot == SLOT_MANY : manifest->left < 1)
		return FIT_QUOTA;
	/* A line is good for one certificate; a second one, also after a revocation, is rework. */
	if ((work->replacing || work->reviving || line->used) && !manifest->allow_replace)
		return FIT_REPLACE;
	return line->used ? FIT_FREE : FIT_CHARGE;
}

static void
refuse_fit(struct db_admit_item *item, const struct work *work, enum fit fit, const char *manifest_id)
{
	switch (fit) {
	case FIT_CLOSED:
		admit_refuse(item, ERR_DENIED, "manifest_closed", "manifest: %s is closed", manifest_id);
		return;
	case FIT_EXPIRED:
		admit_refuse(item, ERR_DENIED, "manifest_expired", "manifest: %s has expired", manifest_id);
		return;
	case FIT_NOT_YET:
		admit_refuse(item, ERR_DENIED, "manifest_not_yet_valid", "manifest: %s is not yet valid",
			manifest_id);
		return;
	case FIT_QUOTA:
		admit_refuse(item, ERR_TOO_MANY, "quota_exhausted", "manifest: the quota of %s is used up",
			manifest_id);
		return;
	case FIT_REPLACE:
		if (work->reviving)
			admit_refuse(item, ERR_DENIED, "device_decommissioned",
				"device: %s is decommissioned and manifest %s allows no replacement",
				item->identity, manifest_id);
		else
			admit_refuse(item, ERR_DENIED, "replace_not_allowed",
				"replace: manifest %s allows no second certificate for a device",
				manifest_id);
		return;
	case FIT_NONE:
	case FIT_CHARGE:
	case FIT_FREE:
		break;
	}
	assert(false && "a line that fits is not refused");
}

/* Chooses an item's line, and takes its unit and the station's token from the purses. */
static void
charge(struct batch *b, size_t i, const struct purses *manifests, const struct purses *stations)
{
	struct db_admit_item *item = &b->items[i];
	const struct work *work = &b->work[i];
	struct purse *station = purse_find(stations, item->principal_id);
	const struct line *best = NULL;
	enum fit best_fit = FIT_NONE;

	for (size_t l = work->first_line; l < work->first_line + work->line_count; l++) {
		enum fit fit = fit_of(&b->lines[l], purse_find(manifests, b->lines[l].manifest_id),
			item, work);

		if (fit > best_fit) {
			best = &b->lines[l];
			best_fit = fit;
		}
	}
	assert(best != NULL);
	if (best_fit < FIT_CHARGE) {
		refuse_fit(item, work, best_fit, best->manifest_id);
		return;
	}
	if (station == NULL || station->left < 1000) {
		int64_t per_minute = station != NULL ? station->per_minute : 1;
		int64_t missing = 1000 - (station != NULL ? station->left : 0);

		admit_refuse(item, ERR_TOO_MANY, "station_rate_exceeded",
			"station: %s may have %lld certificates a minute", item->principal_id,
			(long long)per_minute);
		item->refusal.retry_after_s = (missing * 60 + per_minute * 1000 - 1) /
			(per_minute * 1000);
		return;
	}
	station->left -= 1000;
	memcpy(item->manifest_id, best->manifest_id, sizeof(item->manifest_id));
	item->manifest_charged = item->line_told = best_fit == FIT_CHARGE;
	if (item->manifest_charged)
		purse_find(manifests, best->manifest_id)->left--;
}

enum status
admit_charge(struct batch *b, struct err *err)
{
	own_struct(db_array) manifest_ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) station_ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(purses) manifests = { 0 };
	own_struct(purses) stations = { 0 };
	own(PGresult) rows = NULL;
	int64_t charged = 0;
	struct db_row row;

	TRY(read_lines(b, err));
	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && b->items[i].needs_manifest)
			batch_pick(b, i);
	if (b->picked == 0)
		return OK;
	for (size_t p = 0; p < b->picked; p++) {
		const struct work *work = &b->work[b->pick[p]];

		for (size_t l = work->first_line; l < work->first_line + work->line_count; l++)
			if (b->lines[l].state == 'o')
				TRY(db_array_add_text(&manifest_ids, b->lines[l].manifest_id, err));
		TRY(db_array_add_text(&station_ids, b->items[b->pick[p]].principal_id, err));
	}
	TRY(purses_lock(&manifests, b, ADMIT_MANIFEST_LOCK, &manifest_ids, err));
	TRY(purses_lock(&stations, b, ADMIT_STATION_LOCK, &station_ids, err));
	for (size_t p = 0; p < b->picked; p++)
		charge(b, b->pick[p], &manifests, &stations);

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && b->items[i].needs_manifest) {
			batch_pick(b, i);
			charged += b->items[i].manifest_charged ? 1 : 0;
		}
	if (b->picked == 0)
		return OK;
	TRY(run_over(b, ADMIT_CHARGE, &rows, err));
	row = db_row(rows, 0);
	/* Only where an identity has no slot that shuts others out, two calls may meet on a line. */
	if (db_row_int64(&row) != charged)
		return err_set(err, ERR_UNAVAILABLE, "database_retry",
			"manifest: a line was used by another request meanwhile");
	return db_row_end(&row, err);
}
