#include "db/receipt.h"

#include <string.h>

#include "db/filter.h"
#include "db/run.h"

/*
 * Lock order: bulk_revocation, then what db/revocation.c takes (crl_scope among it), then revocation_list.
 * Who publishes takes crl_scope and then revocation_list as well.
 */

enum {
	/* Leads of a selection's own, behind those of a filter. */
	LEAD_DEVICES = LEADS,
	LEAD_KEY,
	SELECTION_LEADS,
};

enum {
	PATIENCE,
	BULK_CREATE,
	BULK_MATCHED,
	BULK_FIND,
	BULK_LIST,
	BULK_NEXT,
	BULK_ADVANCE,
	BULK_LOOK_AGAIN,
	BULK_LOCK,
	BULK_DECIDE,
	BULK_EXPIRE,
	TARGETS,
	TARGETS_DONE,
	TARGETS_LISTS,
	TARGETS_COUNT,
	LISTS,
	SITES,
	LOOK_NEXT,
	LOOK_SITES,
	LOOK_SETTLE,
	OLD_COUNT,
	OLD_NEXT,
	OLD_TARGETS,
	OLD_LISTS,
	OLD_SITES,
	OLD_DELIVERIES,
	OLD_RECEIPT,
	RADIUS, /* and one for each lead */
	FREEZE = RADIUS + SELECTION_LEADS,
	STATEMENTS = FREEZE + SELECTION_LEADS,
};

/* What is settled, or never came to anything. */
#define OLD_SQL                                                                                    \
	"b.state IN ('done', 'rejected', 'expired') AND b.finished_at < " SQL_AT_S("$1")               \
	" AND (b.state <> 'done' OR b.settled_at IS NOT NULL)"

/* A selection of a million is read and written once; for this transaction only. */
#define LONG "5min"

#define BULK_COLUMNS_BUT(selector)                                                                 \
	"b.revocation_id, b.state, b.actor, b.request_id, b.reason, b.comment, " selector ", b.matched," \
	" b.revoked, " SQL_S("b.issued_until") ", b.cursor_issuer, b.cursor_serial, "                  \
	SQL_S("b.created_at") ", " SQL_S("b.finished_at") ", b.pass, " SQL_S("b.again_from") ", "      \
	SQL_S("b.decide_until") ", " SQL_S("b.decided_at") ", b.decided_by, b.decision, "              \
	SQL_S("b.settled_at")
#define BULK_COLUMNS BULK_COLUMNS_BUT("b.selector")
#define BULK_COLUMN_COUNT 21
/* All that can have been issued when the bulk was asked for has its intent by then: issued_until is in
 * whole seconds, and clocks differ a little. */
#define BULK_SETTLED "(b.issued_until + interval '1500 milliseconds')"

#define SELECTION_PARAMS (FILTER_PARAMS + 3)
#define LEAD_SQL_DEVICES " AND c.device_id = ANY ($14::text[])"
/* A key has one identity: its claim names whose certificates can have it. */
#define LEAD_SQL_KEY                                                                               \
	" AND c.device_id = (SELECT k.identity FROM jitrca.key_claim k"                                \
	" WHERE k.spki_sha256 = $15::bytea)"
#define LIVE_SQL " c.status <> 'revoked' AND c.not_after > to_timestamp($11::bigint)"
#define MEANT_SQL(lead)                                                                            \
	FILTER_SQL lead                                                                                \
	" AND ($14::text[] IS NULL OR c.device_id = ANY ($14::text[]))"                                \
	" AND ($15::bytea IS NULL OR c.spki_sha256 = $15::bytea)"                                      \
	" AND ($16::text IS NULL OR (c.of_device AND EXISTS (SELECT FROM jitrca.device a"              \
	" WHERE a.device_id = c.device_id AND a.attributes::jsonb @> $16::text::jsonb)))"

/*
 * One pass over what is meant: totals, then the largest stations and profiles. f: what else works of the
 * devices' slots. e: certificate_issued, up to the first one that is left out.
 */
#define RADIUS_SQL(lead)                                                                           \
	"WITH m AS MATERIALIZED (SELECT c.issuer_id, c.serial, c.device_id, c.of_device,"              \
	" c.principal_id, c.profile, c.status FROM jitrca.certificate c WHERE " MEANT_SQL(lead)        \
	" AND" LIVE_SQL "),"                                                                           \
	" st AS MATERIALIZED (SELECT m.principal_id AS key, count(*) AS n FROM m"                      \
	" JOIN jitrca.station s ON s.principal_id = m.principal_id GROUP BY 1),"                       \
	" d AS MATERIALIZED (SELECT DISTINCT m.device_id FROM m WHERE m.of_device),"                   \
	" f AS MATERIALIZED (SELECT o.device_id, bool_or(c.status = 'active') AS confirmed"            \
	" FROM (SELECT r.* FROM (SELECT d.device_id, v.issuer_id, v.serial FROM d"                     \
	" JOIN jitrca.device_slot s ON s.device_id = d.device_id,"                                     \
	" LATERAL (VALUES (s.current_issuer, s.current_serial),"                                       \
	" (s.successor_issuer, s.successor_serial)) AS v(issuer_id, serial)"                           \
	" WHERE v.serial IS NOT NULL) r LEFT JOIN m ON m.issuer_id = r.issuer_id"                      \
	" AND m.serial = r.serial WHERE m.serial IS NULL) o,"                                          \
	" LATERAL (SELECT c.status, c.not_after FROM jitrca.certificate c"                             \
	" WHERE c.expiry_month = jitrca.serial_month(o.serial) AND c.issuer_id = o.issuer_id"          \
	" AND c.serial = o.serial OFFSET 0) c WHERE c.status IN ('active', 'pending_confirmation')"    \
	" AND c.not_after > to_timestamp($11::bigint) GROUP BY 1),"                                    \
	" l AS MATERIALIZED (SELECT d.device_id, (SELECT max(greatest(x.first_seen_at, x.event_at))"   \
	" FROM jitrca.iot_certificate x WHERE x.device_id = d.device_id) AS at FROM d),"               \
	" g AS MATERIALIZED (SELECT count(*) AS n FROM m WHERE m.status <> 'held'"                     \
	" GROUP BY m.issuer_id, jitrca.serial_shard(m.serial))"                                        \
	" SELECT 'c', '', count(*) FROM m"                                                             \
	" UNION ALL SELECT 'd', '', count(*) FROM d"                                                   \
	" UNION ALL SELECT 's', '', count(*) FROM st"                                                  \
	" UNION ALL SELECT 'k', '', count(*) FROM f WHERE f.confirmed"                                 \
	" UNION ALL SELECT 'u', '', count(*) FROM f WHERE NOT f.confirmed"                             \
	" UNION ALL SELECT CASE WHEN l.at IS NULL THEN '0' WHEN l.at > now() - interval '1 day'"       \
	" THEN '1' WHEN l.at > now() - interval '7 days' THEN '7'"                                     \
	" WHEN l.at > now() - interval '30 days' THEN '3' ELSE '9' END, '', count(*) FROM l GROUP BY 1" \
	" UNION ALL SELECT 'g', '', count(*) FROM g"                                                   \
	" UNION ALL SELECT 'G', '', coalesce(max(g.n), 0) FROM g"                                      \
	" UNION ALL SELECT 'n', '', coalesce(sum(g.n), 0)::bigint FROM g"                              \
	" UNION ALL SELECT 'e', '', CASE WHEN EXISTS (SELECT FROM jitrca.certificate c"                \
	" WHERE c.of_device AND" LIVE_SQL " AND (" MEANT_SQL("") ") IS NOT TRUE) THEN 0::bigint"       \
	" ELSE 1::bigint END"                                                                          \
	" UNION ALL (SELECT 'S', key, n FROM st ORDER BY n DESC, key LIMIT 50)"                        \
	" UNION ALL (SELECT 'P', profile, count(*) AS n FROM m GROUP BY profile"                       \
	" ORDER BY n DESC, profile LIMIT 20)"
#define FREEZE_SQL(lead)                                                                           \
	"INSERT INTO jitrca.revocation_target (revocation_id, issuer_id, serial)"                      \
	" SELECT $17::text, c.issuer_id, c.serial FROM jitrca.certificate c WHERE " MEANT_SQL(lead)    \
	" AND" LIVE_SQL " ON CONFLICT DO NOTHING"
#define RADIUS_ENTRY(lead, text)                                                                   \
	[RADIUS + (lead)] = {                                                                      \
		.name = "selection_radius_" text, .params = SELECTION_PARAMS, .columns = 3,        \
		.rows = ROWS_ANY
#define FREEZE_ENTRY(lead, text)                                                                   \
	[FREEZE + (lead)] = {                                                                      \
		.name = "selection_freeze_" text, .params = SELECTION_PARAMS + 1, .columns = 0,    \
		.rows = ROWS_NONE
#define SELECTION_ENTRIES(lead, text, narrowed_by)                                                 \
	RADIUS_ENTRY(lead, text), .sql = RADIUS_SQL(narrowed_by) },                                \
	FREEZE_ENTRY(lead, text), .sql = FREEZE_SQL(narrowed_by) }

static const struct db_statement SQL[STATEMENTS] = {
	[PATIENCE] = {
		.name = "selection_patience", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT set_config('statement_timeout', '" LONG "', true)",
	},
	[BULK_CREATE] = {
		.name = "bulk_create", .params = 10, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.bulk_revocation (revocation_id, state, actor, request_id, reason,"
		       " comment, selector, matched, issued_until, again_from, decide_until, finished_at,"
		       " revoked) VALUES ($1::text, $2::text, $3::text, $4::text, $5::smallint, $6::text,"
		       " $7::text, $10::bigint, to_timestamp($8::bigint),"
		       " least(to_timestamp($8::bigint), (SELECT min(t.created_at) FROM jitrca.intent t))"
		       " - interval '5 minutes', " SQL_AT_S("$9") ","
		       " CASE WHEN $2::text = 'done' THEN now() END,"
		       " CASE WHEN $2::text = 'done' THEN $10::bigint ELSE 0 END)",
	},
	[BULK_MATCHED] = { /* bulk_revocation_pkey */
		.name = "bulk_matched", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.bulk_revocation b SET matched = b.matched + $2::bigint"
		       " WHERE b.revocation_id = $1::text",
	},
	[BULK_FIND] = { /* bulk_revocation_pkey */
		.name = "bulk_find", .params = 1, .columns = BULK_COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "SELECT " BULK_COLUMNS " FROM jitrca.bulk_revocation b"
		       " WHERE b.revocation_id = $1::text AND NOT b.dropped",
	},
	[BULK_LIST] = { /* bulk_revocation_created */
		.name = "bulk_list", .params = 4, .columns = BULK_COLUMN_COUNT + 1, .rows = ROWS_ANY,
		.sql = "SELECT " SQL_US("b.created_at") ", " BULK_COLUMNS_BUT("''")
		       " FROM jitrca.bulk_revocation b"
		       " WHERE (b.created_at, b.revocation_id) < (" SQL_AT_US("$1") ", $2::text)"
		       " AND ($3::text IS NULL OR b.state = $3::text) AND NOT b.dropped"
		       " ORDER BY b.created_at DESC, b.revocation_id DESC LIMIT $4::bigint",
	},
	[BULK_NEXT] = {
		/* bulk_revocation_running; for a second look intent_round, which holds what is under way.
		 * Read after its conditions, so that nothing is recorded between the two. */
		.name = "bulk_next", .params = 0, .columns = BULK_COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " BULK_COLUMNS " FROM jitrca.bulk_revocation b WHERE b.state = 'running'"
		       " AND (b.pass = 1 OR (now() > " BULK_SETTLED " AND NOT EXISTS (SELECT"
		       " FROM jitrca.intent t WHERE t.created_at <= " BULK_SETTLED ")))"
		       " ORDER BY b.revocation_id LIMIT 1 FOR NO KEY UPDATE OF b SKIP LOCKED",
	},
	[BULK_ADVANCE] = { /* bulk_revocation_pkey */
		.name = "bulk_advance", .params = 5, .columns = 1, .rows = ROWS_ANY,
		.sql = "UPDATE jitrca.bulk_revocation b SET revoked = b.revoked + $2::bigint,"
		       " cursor_issuer = coalesce($3::int, b.cursor_issuer),"
		       " cursor_serial = coalesce($4::bytea, b.cursor_serial),"
		       " state = CASE WHEN $5::bool THEN 'done' ELSE b.state END,"
		       " finished_at = CASE WHEN $5::bool THEN coalesce(b.finished_at, now())"
		       " ELSE b.finished_at END WHERE b.revocation_id = $1::text RETURNING b.revocation_id",
	},
	[BULK_LOOK_AGAIN] = { /* bulk_revocation_pkey */
		.name = "bulk_look_again", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.bulk_revocation b SET pass = 2, cursor_issuer = NULL,"
		       " cursor_serial = NULL WHERE b.revocation_id = $1::text",
	},
	[BULK_LOCK] = { /* bulk_revocation_pkey, principal_pkey */
		.name = "bulk_lock", .params = 1, .columns = 5, .rows = ROWS_MAYBE,
		.sql = "SELECT b.state, b.actor, b.decided_by, b.decide_until <= now(),"
		       " (SELECT p.disabled_at IS NOT NULL FROM jitrca.principal p"
		       " WHERE p.principal_id = b.actor)"
		       " FROM jitrca.bulk_revocation b WHERE b.revocation_id = $1::text"
		       " FOR NO KEY UPDATE OF b",
	},
	[BULK_DECIDE] = { /* the row is locked already */
		.name = "bulk_decide", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.bulk_revocation b SET state = $2::text, decided_at = now(),"
		       " decided_by = $3::text, decision = $4::text,"
		       " finished_at = CASE WHEN $2::text = 'rejected' THEN now() END"
		       " WHERE b.revocation_id = $1::text",
	},
	[BULK_EXPIRE] = { /* bulk_revocation_waiting */
		.name = "bulk_expire", .params = 0, .columns = 1, .rows = ROWS_ANY,
		.sql = "UPDATE jitrca.bulk_revocation b SET state = 'expired', finished_at = now()"
		       " FROM (SELECT w.revocation_id FROM jitrca.bulk_revocation w"
		       " WHERE w.state = 'waiting' AND w.decide_until <= now()"
		       " ORDER BY w.decide_until LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) x"
		       " WHERE b.revocation_id = x.revocation_id RETURNING b.revocation_id",
	},
	[TARGETS] = { /* revocation_target_pkey; of each certificate_pkey, revocation_pkey, its list */
		.name = "revocation_targets", .params = 5, .columns = 12, .rows = ROWS_ANY,
		.sql = "SELECT t.issuer_id, t.serial, c.sha256, c.device_id, coalesce(c.status, 'active'),"
		       " " SQL_S("c.not_after") ", t.outcome, " SQL_US("t.done_at") ", "
		       SQL_S("r.revoked_at") ", l.number, " SQL_US("l.done_at") ", l.sha256"
		       " FROM (SELECT * FROM jitrca.revocation_target t WHERE t.revocation_id = $1::text"
		       " AND (t.issuer_id, t.serial) > ($2::int, $3::bytea)"
		       " AND (NOT $4::bool OR t.outcome IS NULL)"
		       " ORDER BY t.issuer_id, t.serial LIMIT $5::bigint) t"
		       " LEFT JOIN LATERAL (SELECT c.sha256, c.device_id, c.status, c.not_after"
		       " FROM jitrca.certificate c WHERE c.expiry_month = jitrca.serial_month(t.serial)"
		       " AND c.issuer_id = t.issuer_id AND c.serial = t.serial OFFSET 0) c ON true"
		       " LEFT JOIN jitrca.revocation r ON r.issuer_id = t.issuer_id AND r.serial = t.serial"
		       " LEFT JOIN jitrca.revocation_list l ON l.revocation_id = $1::text"
		       " AND l.issuer_id = t.issuer_id AND l.scope = jitrca.serial_shard(t.serial)"
		       " AND t.outcome IN ('revoked', 'held') ORDER BY t.issuer_id, t.serial",
	},
	[TARGETS_DONE] = { /* revocation_target_pkey */
		.name = "revocation_targets_done", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.revocation_target AS t"
		       " (revocation_id, issuer_id, serial, outcome, done_at)"
		       " SELECT $1::text, i.issuer, i.serial, i.outcome, clock_timestamp()"
		       " FROM unnest($2::int[], $3::bytea[], $4::text[]) AS i(issuer, serial, outcome)"
		       " ON CONFLICT (revocation_id, issuer_id, serial) DO UPDATE"
		       " SET outcome = EXCLUDED.outcome, done_at = EXCLUDED.done_at",
	},
	[TARGETS_LISTS] = {
		/* crl_scope_pkey: who revoked them has the rows locked, so wanted is what it made of it. */
		.name = "revocation_targets_lists", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.revocation_list AS l"
		       " (revocation_id, issuer_id, scope, wanted, marked_at)"
		       " SELECT $1::text, s.issuer_id, s.scope, s.wanted, clock_timestamp()"
		       " FROM (SELECT DISTINCT x.issuer, x.scope"
		       " FROM unnest($2::int[], $3::bytea[], $4::text[]) AS i(issuer, serial, outcome),"
		       " LATERAL (VALUES (i.issuer, (-2)::smallint), (i.issuer, (-1)::smallint),"
		       " (i.issuer, jitrca.serial_shard(i.serial))) AS x(issuer, scope)"
		       " WHERE i.outcome IN ('revoked', 'held')) y"
		       " JOIN jitrca.crl_scope s ON s.issuer_id = y.issuer AND s.scope = y.scope"
		       " ORDER BY 2, 3 ON CONFLICT (revocation_id, issuer_id, scope) DO UPDATE"
		       " SET wanted = EXCLUDED.wanted, marked_at = EXCLUDED.marked_at, number = NULL,"
		       " sha256 = NULL, done_at = NULL",
	},
	[TARGETS_COUNT] = { /* revocation_target_pkey */
		.name = "revocation_targets_count", .params = 1, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT coalesce(t.outcome, ''), count(*) FROM jitrca.revocation_target t"
		       " WHERE t.revocation_id = $1::text GROUP BY 1",
	},
	[LISTS] = { /* revocation_list_pkey */
		.name = "receipt_lists", .params = 2, .columns = 6, .rows = ROWS_ANY,
		.sql = "SELECT l.issuer_id, l.scope, " SQL_US("l.marked_at") ", " SQL_US("l.done_at")
		       ", l.number, l.sha256 FROM jitrca.revocation_list l"
		       " WHERE l.revocation_id = $1::text ORDER BY l.issuer_id, l.scope LIMIT $2::bigint",
	},
	[SITES] = { /* revocation_site_pkey */
		.name = "receipt_sites", .params = 2, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT s.target, s.seen, s.done, " SQL_S("s.read_back_at")
		       " FROM jitrca.revocation_site s WHERE s.revocation_id = $1::text"
		       " ORDER BY s.target LIMIT $2::bigint",
	},
	[LOOK_NEXT] = { /* bulk_revocation_unsettled */
		.name = "receipt_look_next", .params = 1, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT b.revocation_id FROM jitrca.bulk_revocation b WHERE b.state = 'done'"
		       " AND b.settled_at IS NULL AND b.revocation_id > $1::text"
		       " ORDER BY b.revocation_id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED",
	},
	[LOOK_SITES] = {
		/* revocation_target_pkey; of each revocation_pkey (a hold may have been lifted) and
		 * iot_certificate_serial. */
		.name = "receipt_look_sites", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.revocation_site AS s"
		       " (revocation_id, target, seen, done, read_back_at)"
		       " SELECT $1::text, a.target, count(x.target), count(x.target) FILTER"
		       " (WHERE x.status IN ('REVOKED', 'DELETED') OR (x.held AND x.status = 'INACTIVE')),"
		       " max(x.observed_at) FROM unnest($2::text[]) AS a(target) LEFT JOIN"
		       " (SELECT i.target, i.status, i.observed_at, r.reason = 6 AS held"
		       " FROM jitrca.revocation_target t JOIN jitrca.revocation r"
		       " ON r.issuer_id = t.issuer_id AND r.serial = t.serial"
		       " JOIN jitrca.iot_certificate i ON i.issuer_id = t.issuer_id AND i.serial = t.serial"
		       " WHERE t.revocation_id = $1::text) x ON x.target = a.target GROUP BY a.target"
		       " ON CONFLICT (revocation_id, target) DO UPDATE SET seen = EXCLUDED.seen,"
		       " done = EXCLUDED.done, read_back_at = EXCLUDED.read_back_at",
	},
	[LOOK_SETTLE] = {
		/* bulk_revocation_pkey; outbox_due. What was in the outbox when the last was revoked may
		 * still become known to IoT Core. */
		.name = "receipt_look_settle", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.bulk_revocation b SET settled_at = now()"
		       " WHERE b.revocation_id = $1::text"
		       " AND NOT EXISTS (SELECT FROM jitrca.revocation_site s"
		       " WHERE s.revocation_id = $1::text AND s.target = ANY ($2::text[])"
		       " AND s.done < s.seen)"
		       " AND (cardinality($2::text[]) = 0 OR NOT EXISTS (SELECT FROM jitrca.outbox o"
		       " WHERE o.failed_at IS NULL AND o.priority = 0 AND o.created_at <= b.finished_at))",
	},
	[OLD_COUNT] = { /* bulk_revocation_finished */
		.name = "retention_count_receipts", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(*) FROM jitrca.bulk_revocation b WHERE " OLD_SQL,
	},
	[OLD_NEXT] = { /* bulk_revocation_finished, bulk_revocation_pkey */
		.name = "retention_receipt_next", .params = 1, .columns = 2, .rows = ROWS_ANY,
		.sql = "UPDATE jitrca.bulk_revocation r SET dropped = true FROM"
		       " (SELECT b.revocation_id FROM jitrca.bulk_revocation b WHERE " OLD_SQL
		       " ORDER BY b.finished_at, b.revocation_id LIMIT 1 FOR UPDATE SKIP LOCKED) o"
		       " WHERE r.revocation_id = o.revocation_id RETURNING r.revocation_id, r.matched",
	},
	[OLD_TARGETS] = { /* revocation_target_pkey, from its beginning */
		.name = "retention_receipt_targets", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.revocation_target t USING (SELECT o.issuer_id, o.serial"
		       " FROM jitrca.revocation_target o WHERE o.revocation_id = $1::text"
		       " ORDER BY o.issuer_id, o.serial LIMIT $2::bigint) old"
		       " WHERE t.revocation_id = $1::text AND t.issuer_id = old.issuer_id"
		       " AND t.serial = old.serial",
	},
	[OLD_LISTS] = { /* revocation_list_pkey */
		.name = "retention_receipt_lists", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.revocation_list l WHERE l.revocation_id = $1::text",
	},
	[OLD_SITES] = { /* revocation_site_pkey */
		.name = "retention_receipt_sites", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.revocation_site s WHERE s.revocation_id = $1::text",
	},
	[OLD_DELIVERIES] = { /* notification_revocation; they go as others do */
		.name = "retention_receipt_deliveries", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.notification n SET revocation_id = NULL"
		       " WHERE n.revocation_id = $1::text",
	},
	[OLD_RECEIPT] = { /* bulk_revocation_pkey */
		.name = "retention_receipt", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.bulk_revocation b WHERE b.revocation_id = $1::text",
	},
	SELECTION_ENTRIES(LEAD_ISSUED, "issued", LEAD_SQL_ISSUED),
	SELECTION_ENTRIES(LEAD_DEVICE, "device", LEAD_SQL_DEVICE),
	SELECTION_ENTRIES(LEAD_PRINCIPAL, "principal", LEAD_SQL_PRINCIPAL),
	SELECTION_ENTRIES(LEAD_MANIFEST, "manifest", LEAD_SQL_MANIFEST),
	SELECTION_ENTRIES(LEAD_STATUS, "status", LEAD_SQL_STATUS),
	SELECTION_ENTRIES(LEAD_PROFILE, "profile", LEAD_SQL_PROFILE),
	/* All that is counted is read, so the months are enough. */
	SELECTION_ENTRIES(LEAD_END, "end", LEAD_SQL_ISSUED),
	SELECTION_ENTRIES(LEAD_LIVE, "live", " AND c.status = 'active'"),
	SELECTION_ENTRIES(LEAD_ENDED, "ended", LEAD_SQL_STATUS),
	SELECTION_ENTRIES(LEAD_PRINCIPAL_ENDED, "principal_ended", LEAD_SQL_PRINCIPAL_ENDED),
	SELECTION_ENTRIES(LEAD_DEVICES, "devices", LEAD_SQL_DEVICES), /* certificate_device */
	SELECTION_ENTRIES(LEAD_KEY, "key", LEAD_SQL_KEY),             /* key_claim_pkey, certificate_device */
};

const struct db_table DB_TABLE_RECEIPT = { SQL, COUNT_OF(SQL) };

/* ---- selections ---- */

static unsigned
selection_lead(const struct db_selection *selection)
{
	if (selection->spki_sha256 != NULL)
		return LEAD_KEY;
	if (selection->device_ids != NULL)
		return LEAD_DEVICES;
	return filter_lead(&selection->filter);
}

/* devices is the caller's, for the parameters borrow it. */
static enum status
selection_params(struct db_param out[SELECTION_PARAMS], const struct db_selection *selection,
	struct db_array *devices, struct err *err)
{
	filter_params(out, &selection->filter);
	for (size_t i = 0; i < selection->device_id_count; i++)
		TRY(db_array_add_text(devices, selection->device_ids[i], err));
	out[FILTER_PARAMS] = selection->device_ids != NULL ? db_array(devices) : db_null();
	out[FILTER_PARAMS + 1] = db_octets(selection->spki_sha256, DB_SHA256_BYTES);
	out[FILTER_PARAMS + 2] = db_text(selection->attributes);
	return OK;
}

static void
radius_line(struct db_blast_line *lines, size_t *count, size_t max, const char *key, int64_t n)
{
	if (*count == max)
		return;
	memcpy(lines[*count].key, key, DB_ID_BYTES);
	lines[(*count)++].count = n;
}

static void
radius_take(struct db_blast_radius *out, char what, const char *key, int64_t n)
{
	static const struct { char what; size_t at; } TOTALS[] = {
		{ 'c', offsetof(struct db_blast_radius, certificates) },
		{ 'd', offsetof(struct db_blast_radius, devices) },
		{ 's', offsetof(struct db_blast_radius, stations) },
		{ 'k', offsetof(struct db_blast_radius, keep_confirmed) },
		{ 'u', offsetof(struct db_blast_radius, keep_unconfirmed) },
		{ '1', offsetof(struct db_blast_radius, seen_day) },
		{ '7', offsetof(struct db_blast_radius, seen_week) },
		{ '3', offsetof(struct db_blast_radius, seen_month) },
		{ '9', offsetof(struct db_blast_radius, seen_before) },
		{ '0', offsetof(struct db_blast_radius, seen_never) },
		{ 'g', offsetof(struct db_blast_radius, lists) },
		{ 'G', offsetof(struct db_blast_radius, largest_list) },
		{ 'n', offsetof(struct db_blast_radius, entries) },
	};

	for (size_t i = 0; i < COUNT_OF(TOTALS); i++)
		if (TOTALS[i].what == what)
			*(int64_t *)(void *)((char *)out + TOTALS[i].at) = n;
	if (what == 'e')
		out->everything = n == 1;
	if (what == 'S')
		radius_line(out->by_station, &out->by_station_count, COUNT_OF(out->by_station), key, n);
	if (what == 'P')
		radius_line(out->by_profile, &out->by_profile_count, COUNT_OF(out->by_profile), key, n);
}

enum status
db_selection_radius(struct db_tx *tx, const struct db_selection *selection, struct db_blast_radius *out,
	struct err *err)
{
	own_struct(db_array) devices = DB_ARRAY(ARRAY_TEXT);
	struct db_param params[SELECTION_PARAMS];
	own(PGresult) rows = NULL;

	*out = (struct db_blast_radius){ 0 };
	TRY(selection_params(params, selection, &devices, err));
	TRY(db_run(tx, &SQL[PATIENCE], DB_NO_PARAMS, NULL, err));
	TRY(db_run(tx, &SQL[RADIUS + selection_lead(selection)],
		(struct db_params){ params, SELECTION_PARAMS }, &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		char what = db_row_char(&row);
		char key[DB_ID_BYTES] = { 0 };
		int64_t n;

		db_row_text(&row, key, sizeof(key));
		n = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		radius_take(out, what, key, n);
	}
	out->cut_off = out->devices - out->keep_confirmed - out->keep_unconfirmed;
	return OK;
}

/* ---- the receipt ---- */

static const char *const STATES[] = { [BULK_UNSET] = "unset", [BULK_WAITING] = "waiting",
	[BULK_RUNNING] = "running", [BULK_DONE] = "done", [BULK_REJECTED] = "rejected",
	[BULK_EXPIRED] = "expired" };

const char *
bulk_state_name(enum bulk_state state)
{
	return STATES[state];
}

bool
bulk_state_parse(enum bulk_state *out, const char *name)
{
	for (size_t i = BULK_UNSET + 1; i < COUNT_OF(STATES); i++)
		if (strcmp(STATES[i], name) == 0) {
			*out = (enum bulk_state)i;
			return true;
		}
	return false;
}

static enum status
revocation_unknown(const char *revocation_id, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "revocation_unknown", "revocation: there is no %s",
		revocation_id);
}

enum status
db_bulk_create(struct db_tx *tx, const struct db_bulk *bulk, struct err *err)
{
	return db_run(tx, &SQL[BULK_CREATE], DB_PARAMS(db_text(bulk->revocation_id),
		db_text(bulk_state_name(bulk->state)), db_text(bulk->actor), db_text(bulk->request_id),
		db_int64(bulk->reason), db_text(bulk->comment), db_text(bulk->selector),
		db_int64(bulk->issued_until_s), db_int64_or_null(bulk->decide_until_s),
		db_int64(bulk->matched)), NULL, err);
}

enum status
db_bulk_freeze(struct db_tx *tx, const char *revocation_id, const struct db_selection *selection,
	int64_t *count, struct err *err)
{
	own_struct(db_array) devices = DB_ARRAY(ARRAY_TEXT);
	struct db_param params[SELECTION_PARAMS + 1];
	own(PGresult) rows = NULL;

	TRY(selection_params(params, selection, &devices, err));
	params[SELECTION_PARAMS] = db_text(revocation_id);
	TRY(db_run(tx, &SQL[PATIENCE], DB_NO_PARAMS, NULL, err));
	TRY(db_run(tx, &SQL[FREEZE + selection_lead(selection)],
		(struct db_params){ params, SELECTION_PARAMS + 1 }, &rows, err));
	*count = db_affected(rows);
	return db_run(tx, &SQL[BULK_MATCHED], DB_PARAMS(db_text(revocation_id), db_int64(*count)), NULL,
		err);
}

static enum status
bulk_read(struct db_row *row, struct db_bulk *out, struct err *err)
{
	char state[9];

	*out = (struct db_bulk){ .state = BULK_UNSET };
	db_row_text(row, out->revocation_id, sizeof(out->revocation_id));
	db_row_text(row, state, sizeof(state));
	db_row_text(row, out->actor, sizeof(out->actor));
	db_row_text(row, out->request_id, sizeof(out->request_id));
	out->reason = (enum revocation_reason)db_row_int32(row);
	db_row_text(row, out->comment, sizeof(out->comment));
	db_row_text(row, out->selector, sizeof(out->selector));
	out->matched = db_row_int64(row);
	out->revoked = db_row_int64(row);
	out->issued_until_s = db_row_int64(row);
	db_row_ref(row, &out->cursor);
	out->created_at_s = db_row_int64(row);
	out->finished_at_s = db_row_int64(row);
	out->second_look = db_row_int32(row) == 2;
	out->again_from_s = db_row_int64(row);
	out->decide_until_s = db_row_int64(row);
	out->decided_at_s = db_row_int64(row);
	db_row_text(row, out->decided_by, sizeof(out->decided_by));
	db_row_text(row, out->decision, sizeof(out->decision));
	out->settled_at_s = db_row_int64(row);
	TRY(db_row_end(row, err));
	if (!bulk_state_parse(&out->state, state))
		return err_set(err, ERR_INTERNAL, "database_shape", "revocation: state %s found", state);
	return OK;
}

enum status
db_bulk_find(struct db_tx *tx, const char *revocation_id, struct db_bulk *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[BULK_FIND], DB_PARAMS(db_text(revocation_id)), &rows, err));
	if (db_rows(rows) == 0)
		return revocation_unknown(revocation_id, err);
	row = db_row(rows, 0);
	return bulk_read(&row, out, err);
}

/* Beyond all times that are stored. */
#define LAST_US (INT64_C(253402300799) * 1000000)

enum status
db_bulk_list(struct db_tx *tx, enum bulk_state state, int64_t before_us, const char *before_id,
	size_t limit, struct db_bulk *out, int64_t *last_us, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[BULK_LIST], DB_PARAMS(db_int64(before_us != 0 ? before_us : LAST_US),
		db_text(before_id), db_text(state != BULK_UNSET ? bulk_state_name(state) : NULL),
		db_int64((int64_t)limit)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		*last_us = db_row_int64(&row);
		TRY(bulk_read(&row, &out[r], err));
	}
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_bulk_next(struct db_tx *tx, struct db_bulk *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[BULK_NEXT], DB_NO_PARAMS, &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "revocation_unknown",
			"revocation: none is running");
	row = db_row(rows, 0);
	return bulk_read(&row, out, err);
}

enum status
db_bulk_advance(struct db_tx *tx, const char *revocation_id, int64_t revoked_now,
	const struct db_cert_ref *cursor, bool finished, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[BULK_ADVANCE], DB_PARAMS(db_text(revocation_id), db_int64(revoked_now),
		db_int64_or_null(cursor != NULL ? cursor->issuer_id : 0),
		db_serial(cursor != NULL ? &cursor->serial : NULL), db_bool(finished)), &rows, err));
	return db_rows(rows) > 0 ? OK : revocation_unknown(revocation_id, err);
}

enum status
db_bulk_look_again(struct db_tx *tx, const char *revocation_id, struct err *err)
{
	return db_run(tx, &SQL[BULK_LOOK_AGAIN], DB_PARAMS(db_text(revocation_id)), NULL, err);
}

enum status
db_bulk_decide(struct db_tx *tx, const char *revocation_id, enum bulk_state state, const char *by,
	const char *comment, bool *changed, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;
	char found[9], actor[DB_ID_BYTES], decided_by[DB_ID_BYTES];
	bool late, requester_disabled;

	*changed = false;
	TRY(db_run(tx, &SQL[BULK_LOCK], DB_PARAMS(db_text(revocation_id)), &rows, err));
	if (db_rows(rows) == 0)
		return revocation_unknown(revocation_id, err);
	row = db_row(rows, 0);
	db_row_text(&row, found, sizeof(found));
	db_row_text(&row, actor, sizeof(actor));
	db_row_text(&row, decided_by, sizeof(decided_by));
	late = db_row_bool(&row);
	requester_disabled = db_row_bool(&row);
	TRY(db_row_end(&row, err));

	/* The requester may take it back, but never confirm it: whatever it shows, it is the same one. */
	if (state == BULK_RUNNING && strcmp(actor, by) == 0)
		return err_set(err, ERR_DENIED, "approval_by_requester",
			"revocation: another administrator than %s wanted, who asked for it", actor);
	if (decided_by[0] != '\0' && strcmp(decided_by, by) == 0 &&
	    (strcmp(found, "rejected") == 0) == (state == BULK_REJECTED))
		return OK; /* asked again: the answer was lost */
	if (strcmp(found, "waiting") != 0 || late)
		return err_set(err, ERR_CONFLICT, "revocation_decided",
			"revocation: one that waits for approval wanted, %s found",
			late ? "an expired one" : found);
	if (state == BULK_RUNNING && requester_disabled)
		return err_set(err, ERR_DENIED, "requester_disabled",
			"revocation: %s, who asked for it, is disabled", actor);
	*changed = true;
	return db_run(tx, &SQL[BULK_DECIDE], DB_PARAMS(db_text(revocation_id),
		db_text(bulk_state_name(state)), db_text(by), db_text(comment)), NULL, err);
}

enum status
db_bulk_expire(struct db_tx *tx, char revocation_id[33], bool *found, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[BULK_EXPIRE], DB_NO_PARAMS, &rows, err));
	*found = db_rows(rows) > 0;
	if (!*found)
		return OK;
	row = db_row(rows, 0);
	db_row_text(&row, revocation_id, 33);
	return db_row_end(&row, err);
}

/* ---- targets ---- */

static enum status
target_read(struct db_row *row, struct db_target *out, struct err *err)
{
	*out = (struct db_target){ .exists = false };
	db_row_ref(row, &out->ref);
	out->exists = db_row_octets(row, out->sha256, DB_SHA256_BYTES);
	db_row_text(row, out->device_id, sizeof(out->device_id));
	out->status = db_row_cert_status(row);
	out->not_after_s = db_row_int64(row);
	db_row_text(row, out->outcome, sizeof(out->outcome));
	out->done_at_us = db_row_int64(row);
	out->revoked_at_s = db_row_int64(row);
	out->list_number = db_row_int64(row);
	out->listed_at_us = db_row_int64(row);
	(void)db_row_octets(row, out->list_sha256, DB_SHA256_BYTES);
	return db_row_end(row, err);
}

enum status
db_targets(struct db_tx *tx, const char *revocation_id, const struct db_cert_ref *after, bool open,
	size_t limit, struct db_target *out, size_t *count, struct err *err)
{
	static const uint8_t BEFORE_ALL[1] = { 0 };
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TARGETS], DB_PARAMS(db_text(revocation_id), db_int64(after->issuer_id),
		after->issuer_id != 0 ? db_serial(&after->serial) : db_octets(BEFORE_ALL, 1),
		db_bool(open), db_int64((int64_t)limit)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		TRY(target_read(&row, &out[r], err));
	}
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_targets_done(struct db_tx *tx, const char *revocation_id, const struct db_target *targets,
	size_t count, struct err *err)
{
	own_struct(db_array) issuers = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) serials = DB_ARRAY(ARRAY_BYTEA);
	own_struct(db_array) outcomes = DB_ARRAY(ARRAY_TEXT);

	for (size_t i = 0; i < count; i++) {
		if (targets[i].outcome[0] == '\0')
			continue;
		TRY(db_array_add_int(&issuers, targets[i].ref.issuer_id, err));
		TRY(db_array_add_serial(&serials, &targets[i].ref.serial, err));
		TRY(db_array_add_text(&outcomes, targets[i].outcome, err));
	}
	if (issuers.count == 0)
		return OK;
	for (size_t step = TARGETS_DONE; step <= TARGETS_LISTS; step++)
		TRY(db_run(tx, &SQL[step], DB_PARAMS(db_text(revocation_id), db_array(&issuers),
			db_array(&serials), db_array(&outcomes)), NULL, err));
	return OK;
}

enum status
db_targets_count(struct db_tx *tx, const char *revocation_id, struct db_outcomes *out, struct err *err)
{
	static const struct { const char *outcome; size_t at; } COUNTS[] = {
		{ "", offsetof(struct db_outcomes, open) },
		{ "revoked", offsetof(struct db_outcomes, revoked) },
		{ "held", offsetof(struct db_outcomes, held) },
		{ "already_revoked", offsetof(struct db_outcomes, already_revoked) },
		{ "expired", offsetof(struct db_outcomes, expired) },
		{ "superseded", offsetof(struct db_outcomes, superseded) },
	};
	own(PGresult) rows = NULL;

	*out = (struct db_outcomes){ 0 };
	TRY(db_run(tx, &SQL[TARGETS_COUNT], DB_PARAMS(db_text(revocation_id)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		char outcome[16];
		int64_t n;

		db_row_text(&row, outcome, sizeof(outcome));
		n = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		for (size_t i = 0; i < COUNT_OF(COUNTS); i++)
			if (strcmp(COUNTS[i].outcome, outcome) == 0)
				*(int64_t *)(void *)((char *)out + COUNTS[i].at) = n;
	}
	return OK;
}

/* ---- proof ---- */

enum status
db_receipt_lists(struct db_tx *tx, const char *revocation_id, struct db_receipt_list *out, size_t max,
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[LISTS], DB_PARAMS(db_text(revocation_id), db_int64((int64_t)max)), &rows,
		err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		out[r].issuer_id = db_row_int32(&row);
		out[r].scope = (int16_t)db_row_int32(&row);
		out[r].marked_at_us = db_row_int64(&row);
		out[r].done_at_us = db_row_int64(&row);
		out[r].number = db_row_int64(&row);
		(void)db_row_octets(&row, out[r].sha256, DB_SHA256_BYTES);
		TRY(db_row_end(&row, err));
	}
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_receipt_sites(struct db_tx *tx, const char *revocation_id, struct db_receipt_site *out, size_t max,
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[SITES], DB_PARAMS(db_text(revocation_id), db_int64((int64_t)max)), &rows,
		err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		db_row_text(&row, out[r].target, sizeof(out[r].target));
		out[r].seen = db_row_int64(&row);
		out[r].done = db_row_int64(&row);
		out[r].read_back_at_s = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_receipt_look(struct db_tx *tx, const char *const *targets, size_t target_count, char after[33],
	bool *found, struct err *err)
{
	own_struct(db_array) names = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;
	struct db_row row;

	for (size_t i = 0; i < target_count; i++)
		TRY(db_array_add_text(&names, targets[i], err));
	TRY(db_run(tx, &SQL[LOOK_NEXT], DB_PARAMS(db_text(after)), &rows, err));
	*found = db_rows(rows) > 0;
	if (!*found)
		return OK;
	row = db_row(rows, 0);
	db_row_text(&row, after, 33);
	TRY(db_row_end(&row, err));
	TRY(db_run(tx, &SQL[PATIENCE], DB_NO_PARAMS, NULL, err));
	TRY(db_run(tx, &SQL[LOOK_SITES], DB_PARAMS(db_text(after), db_array(&names)), NULL, err));
	return db_run(tx, &SQL[LOOK_SETTLE], DB_PARAMS(db_text(after), db_array(&names)), NULL, err);
}

/* ---- retention ---- */

enum status
db_retention_count_receipts(struct db_tx *tx, int64_t before_s, int64_t *count, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[OLD_COUNT], DB_PARAMS(db_int64(before_s)), &rows, err));
	row = db_row(rows, 0);
	*count = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_retention_receipt(struct db_tx *tx, int64_t before_s, size_t max, char revocation_id[33],
	int64_t *certificates, bool *found, bool *gone, struct err *err)
{
	own(PGresult) rows = NULL;
	own(PGresult) done = NULL;
	struct db_row row;

	*gone = false;
	TRY(db_run(tx, &SQL[OLD_NEXT], DB_PARAMS(db_int64(before_s)), &rows, err));
	*found = db_rows(rows) > 0;
	if (!*found)
		return OK;
	row = db_row(rows, 0);
	db_row_text(&row, revocation_id, 33);
	*certificates = db_row_int64(&row);
	TRY(db_row_end(&row, err));
	TRY(db_run(tx, &SQL[OLD_TARGETS], DB_PARAMS(db_text(revocation_id), db_int64((int64_t)max)), &done,
		err));
	if ((size_t)db_affected(done) == max)
		return OK;
	for (size_t step = OLD_LISTS; step <= OLD_RECEIPT; step++)
		TRY(db_run(tx, &SQL[step], DB_PARAMS(db_text(revocation_id)), NULL, err));
	*gone = true;
	return OK;
}
