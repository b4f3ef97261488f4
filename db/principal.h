/* db/principal.h - principals, their tokens, and stations. */
#ifndef DB_PRINCIPAL_H
#define DB_PRINCIPAL_H

#include "db/db.h"

struct db_principal {
	char principal_id[DB_ID_BYTES];
	char role[16]; /* admin, operator, auditor, station */
	char description[257];
	char created_by[DB_ID_BYTES];
	int64_t created_at_s;
	int64_t disabled_at_s; /* 0: enabled */
};

/* ERR_CONFLICT principal_exists. */
MUST_USE enum status db_principal_create(struct db_tx *tx, const struct db_principal *principal,
	struct err *err);
/* ERR_NOT_FOUND principal_unknown. */
MUST_USE enum status db_principal_find(struct db_tx *tx, const char *principal_id,
	struct db_principal *out, struct err *err);
/* By id, after `after` (NULL: from the start); role NULL: all but stations. */
MUST_USE enum status db_principal_list(struct db_tx *tx, const char *role, const char *after,
	size_t limit, struct db_principal *out, size_t *count, struct err *err);
/* Disabling and enabling; *changed false: it was so. ERR_CONFLICT last_admin: the last enabled admin. */
MUST_USE enum status db_principal_set_disabled(struct db_tx *tx, const char *principal_id,
	bool disabled, bool *changed, struct err *err);

struct db_token {
	char token_id[17];
	char principal_id[DB_ID_BYTES];
	uint8_t hash[32]; /* BLAKE2b-256 of the token; not read back by list */
	char description[257];
	char created_by[DB_ID_BYTES];
	int64_t created_at_s, expires_at_s, revoked_at_s; /* revoked 0: not */
};

MUST_USE enum status db_token_create(struct db_tx *tx, const struct db_token *token, struct err *err);
MUST_USE enum status db_token_list(struct db_tx *tx, const char *principal_id, const char *after,
	size_t limit, struct db_token *out, size_t *count, struct err *err);
/* ERR_NOT_FOUND token_unknown; repeated: *changed false. */
MUST_USE enum status db_token_revoke(struct db_tx *tx, const char *principal_id, const char *token_id,
	bool *changed, struct err *err);
/*
 * The token of a hash with its principal. *found says whether there is one: whether it is expired,
 * revoked or its principal disabled is the caller's to judge, so that all refusals cost the same.
 */
MUST_USE enum status db_token_by_hash(struct db_tx *tx, const uint8_t hash[32], bool *found,
	struct db_token *token, struct db_principal *principal, struct err *err);

struct db_station {
	struct db_principal principal;
	char profiles[8][DB_PROFILE_BYTES];
	size_t profile_count;
	int32_t rate_per_minute;
};
/* Makes the principal (role station) and the station. ERR_CONFLICT principal_exists. */
MUST_USE enum status db_station_create(struct db_tx *tx, const struct db_station *station,
	struct err *err);
MUST_USE enum status db_station_find(struct db_tx *tx, const char *station_id, struct db_station *out,
	struct err *err); /* ERR_NOT_FOUND station_unknown */
MUST_USE enum status db_station_list(struct db_tx *tx, const char *after, size_t limit,
	struct db_station *out, size_t *count, struct err *err);
/* Profiles and rate. */
MUST_USE enum status db_station_update(struct db_tx *tx, const struct db_station *station,
	struct err *err);

#endif
