/*
 * db/iotcore_certificate.h - device certificates that are registered with the local IoT Core. As for
 * db/iotcore_ca.h; REVOKED is final there by a trigger.
 */
#ifndef DB_IOTCORE_CERTIFICATE_H
#define DB_IOTCORE_CERTIFICATE_H

#include "db/iotcore_ca.h"

struct db_iotcore_certificate {
	char certificate_id[DB_IOTCORE_ID_BYTES];
	char ca_certificate_id[DB_IOTCORE_ID_BYTES]; /* "": registered without one */
	char status[20];
	char mode[10];
	struct bytes pem; /* owned: db_iotcore_certificate_free() */
	int64_t not_before_s, not_after_s, created_us, modified_us;
	char generation[37];
	int32_t customer_version;
};
void db_iotcore_certificate_free(struct db_iotcore_certificate *certificate); /* may run twice */
OWNER_STRUCT(db_iotcore_certificate, db_iotcore_certificate_free)

/* False in *made: it is there already. */
MUST_USE enum status db_iotcore_certificate_insert(struct db_tx *tx,
	const struct db_iotcore_certificate *certificate, bool *made, struct err *err);
/* ERR_NOT_FOUND iotcore_unknown. */
MUST_USE enum status db_iotcore_certificate_find(struct db_tx *tx, const char *certificate_id,
	struct db_iotcore_certificate *out, struct err *err);
/* *done false: there is none, it has that status, or it has one that is not left. */
MUST_USE enum status db_iotcore_certificate_set_status(struct db_tx *tx, const char *certificate_id,
	const char *status, bool *done, struct err *err);
/* How many things and policies hold it. */
MUST_USE enum status db_iotcore_certificate_held(struct db_tx *tx, const char *certificate_id,
	int64_t *things, int64_t *policies, struct err *err);
/* With the policies attached to it; ERR_CONFLICT database_reference: a thing is. */
MUST_USE enum status db_iotcore_certificate_delete(struct db_tx *tx, const char *certificate_id,
	struct err *err);
/* A page (db/iotcore_ca.h); ca_certificate_id NULL: of all. Without PEM. */
MUST_USE enum status db_iotcore_certificate_list(struct db_tx *tx, const struct db_iotcore_page *page,
	const char *ca_certificate_id,
	enum status (*each)(void *arg, const struct db_iotcore_certificate *certificate,
		struct err *err),
	void *arg, struct err *err);

#endif
