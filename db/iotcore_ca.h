/*
 * db/iotcore_ca.h - CA certificates that are registered with the local IoT Core. Certificates are bytes,
 * states are AWS's words. What changes here is followed in iotcore.change; the caller holds
 * db_iotcore_account_lock.
 */
#ifndef DB_IOTCORE_CA_H
#define DB_IOTCORE_CA_H

#include "db/db.h"

#define DB_IOTCORE_ID_BYTES 65 /* certificate ids: 64 hex digits and NUL */

struct db_iotcore_ca {
	char certificate_id[DB_IOTCORE_ID_BYTES];
	char status[20]; /* ACTIVE, INACTIVE */
	char mode[10];   /* DEFAULT, SNI_ONLY */
	bool auto_registration;
	struct bytes pem;                 /* owned: db_iotcore_ca_free() */
	struct bytes der;                 /* of inserts and of those for an issuer; else empty */
	struct bytes subject;             /* of inserts: DER of the name */
	struct bytes registration_config; /* JSON; empty: none */
	int64_t not_before_s, not_after_s, created_us, modified_us;
	char generation[37];
	int32_t customer_version;
};
void db_iotcore_ca_free(struct db_iotcore_ca *ca); /* may run twice */
OWNER_STRUCT(db_iotcore_ca, db_iotcore_ca_free)

/* False in *made: it is there already. Times, generation and version are the database's. */
MUST_USE enum status db_iotcore_ca_insert(struct db_tx *tx, const struct db_iotcore_ca *ca, bool *made,
	struct err *err);
/* How many have this subject. */
MUST_USE enum status db_iotcore_ca_count_subject(struct db_tx *tx, struct view subject, int64_t *count,
	struct err *err);
/* ERR_NOT_FOUND iotcore_unknown. */
MUST_USE enum status db_iotcore_ca_find(struct db_tx *tx, const char *certificate_id,
	struct db_iotcore_ca *out, struct err *err);
/* Writes status, auto_registration and registration_config, and counts customer_version up. */
MUST_USE enum status db_iotcore_ca_update(struct db_tx *tx, const struct db_iotcore_ca *ca,
	struct err *err);
MUST_USE enum status db_iotcore_ca_delete(struct db_tx *tx, const char *certificate_id,
	struct err *err);

/*
 * A page in the order of (created_us, certificate_id). after_us and after_id: behind that one; 0 and
 * "": from the start. template_name NULL: all. Without PEM.
 */
struct db_iotcore_page {
	int64_t after_us;
	const char *after_id;
	bool ascending;
	int64_t limit;
};
MUST_USE enum status db_iotcore_ca_list(struct db_tx *tx, const struct db_iotcore_page *page,
	const char *template_name,
	enum status (*each)(void *arg, const struct db_iotcore_ca *ca, struct err *err), void *arg,
	struct err *err);
/* Those with this subject, with their DER, at most ten: who may have issued a certificate. */
MUST_USE enum status db_iotcore_ca_by_subject(struct db_tx *tx, struct view subject,
	enum status (*each)(void *arg, const struct db_iotcore_ca *ca, struct err *err), void *arg,
	struct err *err);

#endif
