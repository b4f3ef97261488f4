/*
 * db/iotcore_rule.h - the local IoT Core's topic rules, their HTTP destinations, and the messages that
 * are on their way to them, as rows. See db/iotcore_thing.h for locks and lists.
 *
 * The broker hands a message over with db_rule_event_add(), in the transaction that is its cause
 * (the registration of a certificate). `jitrca iotcore` is woken by NOTIFY iotcore_rule, takes what is
 * due, POSTs it to the confirmed destinations of matching rules and removes it.
 */
#ifndef DB_IOTCORE_RULE_H
#define DB_IOTCORE_RULE_H

#include "db/iotcore_thing.h"

#define DB_RULE_TOPIC_BYTES 257
#define DB_RULE_URL_BYTES 2001
#define DB_RULE_TOKEN_BYTES 65

/* ---- rules ---- */

struct db_rule {
	char name[DB_CORE_NAME_BYTES];
	char topic[DB_RULE_TOPIC_BYTES]; /* the filter of its FROM */
	struct view payload;             /* JSON: TopicRulePayload */
	bool disabled;
	int64_t created_us;
	void *rows; /* of db_rule_find: what the view points into */
};
void db_rule_free(struct db_rule *rule);
OWNER_STRUCT(db_rule, db_rule_free)

MUST_USE enum status db_rule_find(struct db_tx *tx, const char *name, bool *found, struct db_rule *out,
	struct err *err);
MUST_USE enum status db_rule_create(struct db_tx *tx, const char *name, const char *topic,
	const char *payload, bool disabled, struct err *err);
MUST_USE enum status db_rule_replace(struct db_tx *tx, const char *name, const char *topic,
	const char *payload, bool disabled, struct err *err);
MUST_USE enum status db_rule_disable(struct db_tx *tx, const char *name, bool disabled, struct err *err);
MUST_USE enum status db_rule_delete(struct db_tx *tx, const char *name, struct err *err);
MUST_USE enum status db_rule_count(struct db_tx *tx, int64_t *count, struct err *err);

typedef enum status db_rule_each(void *arg, const struct db_rule *rule, struct err *err);
MUST_USE enum status db_rule_list(struct db_tx *tx, const char *after, int64_t limit, db_rule_each *each,
	void *arg, struct err *err);
/* All that are not disabled. */
MUST_USE enum status db_rule_enabled(struct db_tx *tx, db_rule_each *each, void *arg, struct err *err);

/* ---- destinations ---- */

struct db_destination {
	char destination_id[DB_CORE_UUID_BYTES];
	char url[DB_RULE_URL_BYTES]; /* its confirmationUrl */
	char status[16];
	char reason[512];
	bool confirmed;
	int64_t created_us, updated_us;
};
/* id: anything; what is no UUID is not found. */
MUST_USE enum status db_destination_find(struct db_tx *tx, const char *id, bool *found,
	struct db_destination *out, struct err *err);
MUST_USE enum status db_destination_by_url(struct db_tx *tx, const char *url, bool *found,
	struct db_destination *out, struct err *err);
/* IN_PROGRESS, and its confirmation is due. base: where the API is, for enableUrl. */
MUST_USE enum status db_destination_create(struct db_tx *tx, const char *url, const char *token,
	const char *base, char id[DB_CORE_UUID_BYTES], struct err *err);
/* The same of one that is there: it must be confirmed anew. */
MUST_USE enum status db_destination_renew(struct db_tx *tx, const char *id, const char *token,
	const char *base, struct err *err);
MUST_USE enum status db_destination_set_status(struct db_tx *tx, const char *id, const char *status,
	struct err *err);
MUST_USE enum status db_destination_delete(struct db_tx *tx, const char *id, struct err *err);
MUST_USE enum status db_destination_count(struct db_tx *tx, int64_t *count, struct err *err);
/* ENABLED, once and for all tokens not older than most_s. *found false: there is no such token. */
MUST_USE enum status db_destination_confirm(struct db_tx *tx, const char *token, int64_t most_s,
	bool *found, struct err *err);

typedef enum status db_destination_each(void *arg, const struct db_destination *row, struct err *err);
MUST_USE enum status db_destination_list(struct db_tx *tx, const char *after, int64_t limit,
	db_destination_each *each, void *arg, struct err *err);

/* Whose confirmation is to be sent, up to limit. */
struct db_confirmation {
	char destination_id[DB_CORE_UUID_BYTES];
	char url[DB_RULE_URL_BYTES];
	char token[DB_RULE_TOKEN_BYTES];
	char base[512];
};
MUST_USE enum status db_confirmation_due(struct db_tx *tx, int64_t limit,
	enum status (*each)(void *arg, const struct db_confirmation *row, struct err *err), void *arg,
	struct err *err);
/*
 * It was sent, or could not be (failed: the destination's status becomes ERROR). Nothing happens when the
 * token was renewed or used meanwhile.
 */
MUST_USE enum status db_confirmation_done(struct db_tx *tx, const struct db_confirmation *confirmation,
	bool failed, const char *reason, struct err *err);

/* ---- messages ---- */

/* Whether a rule is enabled: without one, nobody need be woken for messages. */
MUST_USE enum status db_rules_any(struct db_tx *tx, bool *any, struct err *err);
/* Only where a rule is enabled: whether one matches is for who takes it. payload: UTF-8 without NUL. */
MUST_USE enum status db_rule_event_add(struct db_tx *tx, const char *topic, struct view payload,
	struct err *err);

struct db_rule_event {
	int64_t event_id;
	char topic[DB_RULE_TOPIC_BYTES];
	struct view payload;
	int64_t takes;  /* how often it was taken, with this time */
	int64_t age_s;
};
/* Takes up to limit that are due; they are due again after lease_s unless they are removed. */
MUST_USE enum status db_rule_event_take(struct db_tx *tx, int64_t limit, int64_t lease_s,
	enum status (*each)(void *arg, const struct db_rule_event *event, struct err *err), void *arg,
	struct err *err);
MUST_USE enum status db_rule_event_remove(struct db_tx *tx, int64_t event_id, struct err *err);
/* Due at once, as if it had not been taken: whoever took it must stop. */
MUST_USE enum status db_rule_event_release(struct db_tx *tx, int64_t event_id, struct err *err);

#endif
