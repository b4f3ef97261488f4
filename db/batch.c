#include "db/batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int
compare_serials(const void *a, const void *b, void *arg)
{
	const struct batch *batch = arg;

	return memcmp(batch_item(batch, *(const size_t *)a)->ref.serial.octets,
		batch_item(batch, *(const size_t *)b)->ref.serial.octets, SERIAL_BYTES);
}

enum status
batch_prepare(struct batch *b, struct err *err)
{
	b->work = mem_array(b->count, sizeof(*b->work));
	b->by_serial = mem_array(b->count, sizeof(*b->by_serial));
	b->pick = mem_array(b->count, sizeof(*b->pick));
	if (b->work == NULL || b->by_serial == NULL || b->pick == NULL)
		return err_memory(err);
	for (size_t i = 0; i < b->count; i++)
		b->by_serial[i] = i;
	qsort_r(b->by_serial, b->count, sizeof(*b->by_serial), compare_serials, b);
	return OK;
}

size_t
batch_index(const struct batch *b, const struct serial *serial)
{
	size_t low = 0;
	size_t high = b->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = memcmp(batch_item(b, b->by_serial[middle])->ref.serial.octets,
			serial->octets, SERIAL_BYTES);

		if (order == 0)
			return b->by_serial[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return b->count;
}

static enum db_array_type
column_type(enum column column)
{
	switch (column) {
	case COL_INDEX:
	case COL_INSTANCE:
	case COL_ISSUER:
	case COL_EXISTING_ISSUER:
	case COL_KEY_ISSUER:
	case COL_PREDECESSOR_ISSUER:
		return ARRAY_INT4;
	case COL_NOT_AFTER:
	case COL_NOT_BEFORE:
	case COL_ISSUED_AT:
	case COL_REVIVES:
	case COL_INTENT_ROUND:
		return ARRAY_INT8;
	case COL_PRINCIPAL:
	case COL_ASKER:
	case COL_NAMED:
	case COL_IDEMPOTENCY_KEY:
	case COL_IDENTITY:
	case COL_PROFILE:
	case COL_MANIFEST:
	case COL_THING_TYPE:
	case COL_ATTRIBUTES:
	case COL_SUBJECT:
		return ARRAY_TEXT;
	case COL_REQUEST_HASH:
	case COL_SERIAL:
	case COL_SPKI:
	case COL_EXISTING_SERIAL:
	case COL_KEY_SERIAL:
	case COL_DER:
	case COL_SHA256:
	case COL_PREDECESSOR_SERIAL:
		return ARRAY_BYTEA;
	case COL_OF_DEVICE:
	case COL_IS_SUCCESSOR:
	case COL_CHARGED:
		return ARRAY_BOOL;
	case COL_END:
		break;
	}
	return ARRAY_UNSET;
}

static enum status
add_text(struct db_array *array, const char *text, struct err *err)
{
	return db_array_add_text(array, text != NULL ? text : "", err);
}

static enum status
add_hash(struct db_array *array, const uint8_t hash[DB_SHA256_BYTES], struct err *err)
{
	return db_array_add_bytes(array, (struct view){ hash, DB_SHA256_BYTES }, err);
}

static const struct db_record_item *
record_of(const struct batch *b, size_t i)
{
	assert(b->records != NULL); /* these columns are taken by Record alone */
	return &b->records[i];
}

static enum status
column_add(struct db_array *array, const struct batch *b, size_t i, enum column column,
	struct err *err)
{
	const struct db_admit_item *item = batch_item(b, i);
	const struct work *work = &b->work[i];

	switch (column) {
	case COL_INDEX:
		return db_array_add_int(array, (int64_t)i, err);
	case COL_INSTANCE:
		return db_array_add_int(array, b->instance_id, err);
	case COL_PRINCIPAL:
		return add_text(array, item->principal_id, err);
	case COL_ASKER:
		return add_text(array, item->slot == SLOT_SUCCESSOR ? "" : item->principal_id, err);
	case COL_NAMED:
		return add_text(array, item->role_identity ? item->identity : "", err);
	case COL_IDEMPOTENCY_KEY:
		return add_text(array, item->idempotency_key, err);
	case COL_REQUEST_HASH:
		return add_hash(array, item->request_hash, err);
	case COL_ISSUER:
		return db_array_add_int(array, item->ref.issuer_id, err);
	case COL_SERIAL:
		return db_array_add_serial(array, &item->ref.serial, err);
	case COL_NOT_AFTER:
		return db_array_add_int(array,
			b->records != NULL ? b->records[i].not_after_s : item->not_after_s, err);
	case COL_IDENTITY:
		return add_text(array, item->identity, err);
	case COL_PROFILE:
		return add_text(array, item->profile, err);
	case COL_SPKI:
		return add_hash(array, item->spki_sha256, err);
	case COL_OF_DEVICE:
		return db_array_add_bool(array, batch_of_device(item), err);
	case COL_IS_SUCCESSOR:
		return db_array_add_bool(array, item->slot == SLOT_SUCCESSOR, err);
	case COL_MANIFEST:
		return add_text(array, item->manifest_id, err);
	case COL_CHARGED:
		return db_array_add_bool(array, item->manifest_charged, err);
	case COL_EXISTING_ISSUER:
		return db_array_add_int(array, item->existing.issuer_id, err);
	case COL_EXISTING_SERIAL:
		return db_array_add_serial(array, &item->existing.serial, err);
	case COL_KEY_ISSUER:
		return db_array_add_int(array, work->key_certificate.issuer_id, err);
	case COL_KEY_SERIAL:
		return db_array_add_serial(array, &work->key_certificate.serial, err);
	case COL_THING_TYPE:
		return add_text(array, item->thing_type, err);
	case COL_ATTRIBUTES:
		return add_text(array, item->attributes != NULL ? item->attributes : "{}", err);
	case COL_REVIVES:
		return db_array_add_int(array,
			item->revives_version > 0 ? item->revives_version : 1, err);
	case COL_INTENT_ROUND:
		return db_array_add_int(array, item->intent_round, err);
	case COL_DER:
		return db_array_add_bytes(array, record_of(b, i)->der, err);
	case COL_SHA256:
		return add_hash(array, record_of(b, i)->sha256, err);
	case COL_SUBJECT:
		return add_text(array, record_of(b, i)->subject, err);
	case COL_NOT_BEFORE:
		return db_array_add_int(array, record_of(b, i)->not_before_s, err);
	case COL_ISSUED_AT:
		return db_array_add_int(array, record_of(b, i)->issued_at_s, err);
	case COL_PREDECESSOR_ISSUER:
		return db_array_add_int(array, work->predecessor.issuer_id, err);
	case COL_PREDECESSOR_SERIAL:
		return db_array_add_serial(array, &work->predecessor.serial, err);
	case COL_END:
		break;
	}
	return err_set(err, ERR_INTERNAL, "column_unknown", "column %d", (int)column);
}

enum status
batch_fill(const struct batch *b, const enum column *takes, struct batch_arrays *arrays,
	struct db_param params[BATCH_COLUMNS_MAX], size_t *count, struct err *err)
{
	for (*count = 0; takes[*count] != COL_END; ++*count) {
		struct db_array *array = &arrays->at[*count];

		*array = (struct db_array)DB_ARRAY(column_type(takes[*count]));
		for (size_t p = 0; p < b->picked; p++)
			TRY(column_add(array, b, b->pick[p], takes[*count], err));
		params[*count] = db_array(array);
	}
	return OK;
}

enum status
batch_run(struct batch *b, const struct db_statement *statement, const enum column *takes,
	PGresult **rows, struct err *err)
{
	own_struct(batch_arrays) arrays = { 0 };
	struct db_param params[BATCH_COLUMNS_MAX];
	size_t count;

	if (b->picked == 0)
		return OK;
	TRY(batch_fill(b, takes, &arrays, params, &count, err));
	return db_run(b->tx, statement, (struct db_params){ params, count }, rows, err);
}

void
batch_pick_sorted(struct batch *b)
{
	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		batch_pick(b, b->by_serial[i]);
}

void
batch_pick_all(struct batch *b)
{
	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		batch_pick(b, i);
}

size_t
batch_row_index(struct db_row *row, const struct batch *b)
{
	int64_t i = db_row_int64(row);

	assert(i >= 0 && (size_t)i < b->count);
	return (size_t)i;
}
