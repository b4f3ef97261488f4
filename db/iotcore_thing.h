/*
 * db/iotcore_thing.h - the local IoT Core's things, their types and their principals, as rows. What AWS
 * allows is decided by the caller, who holds the lock of iotcore.account whenever it writes
 * (db/iotcore_account.h), so what it has read is still so.
 *
 * Lists run behind `after` ("": from the start) in the order of names and give up to limit rows; what a
 * view points at lives until each() returns, whose failure ends the list.
 */
#ifndef DB_IOTCORE_THING_H
#define DB_IOTCORE_THING_H

#include "db/db.h"

#define DB_CORE_NAME_BYTES 129 /* of things, types, groups, policies, profiles, rules */
#define DB_CORE_UUID_BYTES 37
#define DB_CORE_CERTIFICATE_BYTES 65

/* ---- things ---- */

struct db_thing {
	char name[DB_CORE_NAME_BYTES];
	char thing_id[DB_CORE_UUID_BYTES];
	char type[DB_CORE_NAME_BYTES]; /* "": none */
	struct bytes attributes;       /* a JSON object of strings */
	int64_t version;
};
void db_thing_free(struct db_thing *thing);
OWNER_STRUCT(db_thing, db_thing_free)

MUST_USE enum status db_thing_find(struct db_tx *tx, const char *name, bool *found, struct db_thing *out,
	struct err *err);
MUST_USE enum status db_thing_exists(struct db_tx *tx, const char *name, bool *found, struct err *err);
/* type NULL: none. attributes: JSON. Gives the thing's id. */
/* *made false: there is one of that name, or the type is missing or deprecated. */
MUST_USE enum status db_thing_create(struct db_tx *tx, const char *name, const char *type,
	const char *attributes, char thing_id[DB_CORE_UUID_BYTES], bool *made, struct err *err);
/* Sets both, and the next version. */
MUST_USE enum status db_thing_update(struct db_tx *tx, const char *name, const char *type,
	const char *attributes, struct err *err);
/* Its memberships of groups go with it. Nothing happens when there is none. */
MUST_USE enum status db_thing_delete(struct db_tx *tx, const char *name, struct err *err);

struct db_thing_row {
	char name[DB_CORE_NAME_BYTES];
	char type[DB_CORE_NAME_BYTES];
	struct view attributes;
	int64_t version;
};
struct db_thing_filter {
	const char *type;      /* NULL: any */
	const char *attribute; /* NULL: any; with value */
	const char *value;
	bool prefix;           /* the value begins with it */
};
MUST_USE enum status db_thing_list(struct db_tx *tx, const struct db_thing_filter *filter,
	const char *after, int64_t limit,
	enum status (*each)(void *arg, const struct db_thing_row *row, struct err *err), void *arg,
	struct err *err);

/* ---- types ---- */

struct db_thing_type {
	char name[DB_CORE_NAME_BYTES];
	char thing_type_id[DB_CORE_UUID_BYTES];
	struct view description; /* of a list's row or of rows */
	struct view searchable;  /* names, one a line */
	int64_t created_us;
	int64_t deprecated_us; /* 0: not */
	void *rows;            /* what the views point into; db_thing_type_free() */
};
void db_thing_type_free(struct db_thing_type *type);
OWNER_STRUCT(db_thing_type, db_thing_type_free)

MUST_USE enum status db_thing_type_find(struct db_tx *tx, const char *name, bool *found,
	struct db_thing_type *out, struct err *err);
/* searchable: names, one a line; "" for none. */
MUST_USE enum status db_thing_type_create(struct db_tx *tx, const char *name, const char *description,
	const char *searchable, char thing_type_id[DB_CORE_UUID_BYTES], struct err *err);
/* at_s 0: it is in use again. */
MUST_USE enum status db_thing_type_deprecate(struct db_tx *tx, const char *name, int64_t at_s,
	struct err *err);
MUST_USE enum status db_thing_type_used(struct db_tx *tx, const char *name, bool *used, struct err *err);
MUST_USE enum status db_thing_type_delete(struct db_tx *tx, const char *name, struct err *err);
/* name NULL: all. */
MUST_USE enum status db_thing_type_list(struct db_tx *tx, const char *name, const char *after,
	int64_t limit,
	enum status (*each)(void *arg, const struct db_thing_type *row, struct err *err), void *arg,
	struct err *err);

/* ---- principals: certificates, by their ids ---- */

MUST_USE enum status db_principal_certificate_exists(struct db_tx *tx, const char *certificate_id,
	bool *found, struct err *err);
/* How a certificate is attached to other things than this one; and to this one. */
struct db_thing_principal {
	bool thing_exists, certificate_exists;
	bool attached, exclusive; /* to this thing */
	bool elsewhere;           /* to another one */
	bool exclusive_elsewhere;
};
MUST_USE enum status db_thing_principal_find(struct db_tx *tx, const char *thing,
	const char *certificate_id, struct db_thing_principal *out, struct err *err);
/* Anew, or with another exclusive. */
/* *done: both exist, and the certificate was attached to nothing. Else nothing is done. */
MUST_USE enum status db_thing_principal_attach_first(struct db_tx *tx, const char *thing,
	const char *certificate_id, bool exclusive, bool *done, struct err *err);
MUST_USE enum status db_thing_principal_attach(struct db_tx *tx, const char *thing,
	const char *certificate_id, bool exclusive, struct err *err);
MUST_USE enum status db_thing_principal_detach(struct db_tx *tx, const char *thing,
	const char *certificate_id, bool *was_attached, struct err *err);
MUST_USE enum status db_thing_has_principals(struct db_tx *tx, const char *thing, bool *has,
	struct err *err);

typedef enum status db_name_each(void *arg, const char *name, struct err *err);
/* Certificate ids of a thing; names of a certificate's things. */
MUST_USE enum status db_thing_principal_list(struct db_tx *tx, const char *thing, const char *after,
	int64_t limit, db_name_each *each, void *arg, struct err *err);
MUST_USE enum status db_principal_thing_list(struct db_tx *tx, const char *certificate_id,
	const char *after, int64_t limit, db_name_each *each, void *arg, struct err *err);

#endif
