/*
 * db/iotcore_broker.h - what the broker's plugin asks of the local IoT Core's tables: everything
 * that it must know to decide, read whole or followed change by change; certificates that it
 * registers; who is connected.
 *
 * The plugin has one connection and one thread for it. Lists within a row come as text, one name a
 * line; attributes as lines of name and value in turn. What a view points at lives until each()
 * returns.
 */
#ifndef DB_IOTCORE_BROKER_H
#define DB_IOTCORE_BROKER_H

#include "db/db.h"

#define DB_IOTCORE_KEY_BYTES 129 /* names: 128 and NUL */

/*
 * A connection that listens on iotcore_change and iotcore_registry_event. When its link breaks, end it and
 * begin anew.
 */
struct db_broker;
MUST_USE enum status db_broker_begin(struct db_broker **out, const char *conninfo, struct err *err);
/* For who sends what rules have to send: listens on iotcore_rule (db/iotcore_rule.h) instead. */
MUST_USE enum status db_broker_begin_rules(
	struct db_broker **out, const char *conninfo, struct err *err);
/* For who only wants to know whether the database answers: listens on nothing. */
MUST_USE enum status db_broker_begin_watch(
	struct db_broker **out, const char *conninfo, struct err *err);
void db_broker_end(struct db_broker *broker); /* NULL is welcome */
/* From another thread, while it is not being ended: whoever waits in it for the database fails at once. */
void db_broker_cut(struct db_broker *broker);
/* Asks something without waiting; while db_broker_asked says true, db_broker_wait waits for the answer. */
MUST_USE enum status db_broker_ask(struct db_broker *broker, struct err *err);
bool db_broker_asked(const struct db_broker *broker);

/*
 * Waits up to wait_ms for a notification or for wake_fd to become readable; *notified says whether
 * one came. ERR_UNAVAILABLE: the link is gone.
 */
MUST_USE enum status db_broker_wait(
	struct db_broker *broker, int wait_ms, int wake_fd, bool *notified, struct err *err);
/* Whether there may be registry events (db/iotcore_event.h) since this was last asked. */
bool db_broker_event_heard(struct db_broker *broker);

/* A transaction that writes nothing and sees one moment; and one that writes, READ COMMITTED. */
MUST_USE enum status db_broker_read(struct db_broker *broker, struct db_tx *tx, struct err *err);
MUST_USE enum status db_broker_write(struct db_broker *broker, struct db_tx *tx, struct err *err);

struct db_broker_account {
	char account_id[13];
	char region[64];
	int64_t change_seq; /* the last one committed */
};
/* ERR_UNAVAILABLE iotcore_account_missing: nobody has set the local IoT Core up yet. */
MUST_USE enum status db_broker_account(
	struct db_tx *tx, struct db_broker_account *out, struct err *err);

enum db_broker_kind {
	BROKER_UNSET = 0,
	BROKER_CA,
	BROKER_CERTIFICATE,
	BROKER_THING,
	BROKER_GROUP,
	BROKER_POLICY,
	BROKER_KINDS,
};

struct db_broker_change {
	int64_t seq;
	enum db_broker_kind kind;
	char key[DB_IOTCORE_KEY_BYTES];
};
/* What was changed after a number, in order, up to max. */
MUST_USE enum status db_broker_changes(struct db_tx *tx, int64_t after_seq,
	struct db_broker_change *out, size_t max, size_t *count, struct err *err);

/* Only the member of the row's kind is filled. */
struct db_broker_row {
	enum db_broker_kind kind;
	struct view key; /* certificate id in hex, or name */
	struct {
		struct view der;
		bool active, auto_registration;
	} ca;
	struct {
		struct view ca_id; /* empty: registered without one */
		struct view status;
		int64_t created_at_ms;
		struct view policies;
		struct view things; /* '!' before the name: attached exclusively */
	} certificate;
	struct {
		struct view type;
		struct view attributes;
		struct view groups;
	} thing;
	struct {
		struct view parent;
		struct view policies;
	} group;
	struct {
		struct view document; /* of the default version */
	} policy;
};

/* All rows of a kind. A status from each() ends it and is returned. */
MUST_USE enum status db_broker_all(struct db_tx *tx, enum db_broker_kind kind,
	enum status (*each)(void *arg, const struct db_broker_row *row, struct err *err), void *arg,
	struct err *err);
/* Those of these keys that exist. */
MUST_USE enum status db_broker_some(struct db_tx *tx, enum db_broker_kind kind,
	const char *const *keys, size_t count,
	enum status (*each)(void *arg, const struct db_broker_row *row, struct err *err), void *arg,
	struct err *err);

/*
 * Whom a change of things, or of policies, concerns: certificates attached to any of the things;
 * targets
 * ("cert/<id>", "thinggroup/<name>") that any of the policies is attached to. *more: there are more
 * than DB_BROKER_CONCERNED_MAX, and none was told.
 */
#define DB_BROKER_CONCERNED_MAX 1000
MUST_USE enum status db_broker_principals(struct db_tx *tx, const char *const *things, size_t count,
	void (*each)(void *arg, const char *certificate_id), void *arg, bool *more,
	struct err *err);
MUST_USE enum status db_broker_targets(struct db_tx *tx, const char *const *policies, size_t count,
	void (*each)(void *arg, const char *target), void *arg, bool *more, struct err *err);

/* A certificate seen at a CONNECT that no row knows. */
struct db_broker_registration {
	const char *certificate_id;
	const char *ca_id;
	const char *pem;
	int64_t not_before_s, not_after_s;
};
/*
 * Inserts as PENDING_ACTIVATION what is new and whose CA is ACTIVE with auto-registration; then
 * each() gets those of the list that are PENDING_ACTIVATION now. Ids are not repeated within one
 * list.
 */
MUST_USE enum status db_broker_register(struct db_tx *tx, const struct db_broker_registration *list,
	size_t count,
	void (*each)(
		void *arg, const char *certificate_id, const char *ca_id, int64_t created_at_ms),
	void *arg, struct err *err);

struct db_broker_session {
	const char *client_id;
	const char *certificate_id;
	const char *thing; /* NULL: none */
	const char *address;
	bool connected;
	int64_t version; /* an older one changes nothing */
};
/* Client ids are not repeated within one list. */
MUST_USE enum status db_broker_sessions(
	struct db_tx *tx, const struct db_broker_session *list, size_t count, struct err *err);
/* Nobody is connected: the broker starts. */
MUST_USE enum status db_broker_sessions_reset(struct db_tx *tx, struct err *err);

#endif
