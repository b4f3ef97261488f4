#include "server/iot/missing.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "db/iot_missing.h"
#include "db/outbox.h"
#include "server/http/request.h"

/* No cursor of IoT Core's: those are base64. */
#define CURSOR "rows:"
/* Calls in a step: the walk is led by an open transaction. */
#define PORTION 10

bool
iot_missing_begun(const struct db_iot_walk *walk)
{
	return strncmp(walk->cursor, CURSOR, strlen(CURSOR)) == 0;
}

void
iot_missing_begin(struct db_iot_walk *walk)
{
	(void)snprintf(walk->cursor, sizeof(walk->cursor), CURSOR);
}

static enum status
find(struct iot_site *site, const struct db_iot_ca *ca, const struct db_iot_walk *walk,
	struct db_iot_missing *out, size_t *count, struct serial *next, bool *done, struct err *err)
{
	const char *at = walk->cursor + strlen(CURSOR);
	/* Without a CA there, what we registered ourselves is in no list of a CA's. */
	struct db_iot_missing_query query = { .target = site->target->name,
		.issuer_id = ca->issuer_id, .walk_started_s = walk->started_at_s,
		.unannounced = site->target->mode == IOT_MODE_DEFAULT };
	own_struct(db_tx) tx = { NULL, NULL };
	struct serial after;

	if (hex_decode(after.octets, SERIAL_BYTES, at, strlen(at)))
		query.after = &after;
	TRY(db_tx_begin(&tx, site->room->app->pool, err));
	return db_iot_missing_find(&tx, &query, out, PORTION, count, next, done, err);
}

/* A list may skip what moved while it was read: only the answer about this one counts. */
static enum status
ask(struct iot_site *site, const struct db_iot_missing *missing, bool *gone, struct err *err)
{
	own_struct(iot_certificate) found = { .status = IOT_STATUS_UNKNOWN };
	struct iot iot = iot_site_calls(site, AWS_PRIORITY_NORMAL);
	char id[IOT_ID_BYTES];
	enum status status;

	hex_encode(id, missing->sha256, DB_SHA256_BYTES);
	status = iot_describe_certificate(&iot, id, &found, err);
	*gone = status == ERR_NOT_FOUND;
	return *gone ? OK : status;
}

static enum status
repair(struct iot_site *site, struct db_tx *tx, const struct db_iot_missing *missing,
	const struct db_iot_walk *walk, struct err *err)
{
	char id[IOT_ID_BYTES];
	bool changed;

	TRY(db_iot_missing_gone(tx, site->target->name, missing, walk->started_at_s, &changed, err));
	if (!changed)
		return OK;
	if (missing->device_id[0] != '\0')
		return db_outbox_put_device(tx, missing->device_id, "reconcile", OUTBOX_UPKEEP, err);
	hex_encode(id, missing->sha256, DB_SHA256_BYTES);
	return db_outbox_put_certificate(tx, id, "reconcile", OUTBOX_UPKEEP, err);
}

static enum status
count_gone(struct db_iot_walk *walk, size_t count, struct err *err)
{
	own(json_t) drift = json_loads(walk->drift, 0, NULL);
	json_int_t before;
	size_t len;

	if (count == 0)
		return OK;
	if (drift == NULL)
		drift = json_object();
	before = json_integer_value(json_object_get(drift, "deleted_there"));
	if (json_object_set_new(drift, "deleted_there", json_integer(before + (json_int_t)count)) != 0)
		return err_memory(err);
	len = json_dumpb(drift, walk->drift, sizeof(walk->drift) - 1, JSON_COMPACT | JSON_SORT_KEYS);
	if (len == 0)
		return err_memory(err);
	assert(len < sizeof(walk->drift)); /* the kinds are few: see db/iot.h */
	walk->drift[len] = '\0';
	return OK;
}

static void
advance(struct iot_site *site, struct db_iot_walk *walk, const struct serial *next, bool done)
{
	char hex[SERIAL_TEXT_BYTES];

	hex_encode(hex, next->octets, SERIAL_BYTES);
	(void)snprintf(walk->cursor, sizeof(walk->cursor), "%s%s", done ? "" : CURSOR, done ? "" : hex);
	if (done)
		walk->finished_at_s = clock_wall_s(site->room->app->clock);
}

enum status
iot_missing_step(struct iot_site *site, const struct db_iot_ca *ca, struct db_iot_walk *walk,
	bool *done, struct err *err)
{
	struct db_iot_missing found[PORTION];
	bool gone[PORTION];
	own_struct(db_tx) tx = { NULL, NULL };
	struct serial next = { .octets = { 0 } };
	size_t gone_count = 0;
	size_t count;
	bool kept;

	TRY(find(site, ca, walk, found, &count, &next, done, err));
	for (size_t i = 0; i < count; i++)
		TRY(ask(site, &found[i], &gone[i], err));
	TRY(db_tx_begin(&tx, site->room->app->pool, err));
	for (size_t i = 0; i < count; i++) {
		gone_count += gone[i] ? 1 : 0;
		if (gone[i] && walk->repair)
			TRY(repair(site, &tx, &found[i], walk, err));
	}
	TRY(count_gone(walk, gone_count, err));
	advance(site, walk, &next, *done);
	TRY(db_iot_walk_put(&tx, walk, &kept, err));
	if (!kept) {
		*done = false; /* asked for anew meanwhile: the next step is that one's first */
		return OK;
	}
	if (walk->repair && gone_count > 0)
		TRY(db_outbox_notify(&tx, OUTBOX_TAKES, err));
	return db_tx_commit(&tx, err);
}
