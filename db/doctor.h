/*
 * db/doctor.h - what `jitrca doctor` asks the database: what kind of server it is, what waits in the
 * outbox, when the fleet's certificates end, how fast the CRLs grow. Each answer costs the same with
 * a thousand devices and with a hundred million: counts stop at a limit, and what would have to read
 * everything is sampled.
 */
#ifndef DB_DOCTOR_H
#define DB_DOCTOR_H

#include "db/db.h"

/* What the server at the other end is. */
struct db_doctor_server {
	bool standby;      /* it replays another's log and takes no writes */
	bool read_only;    /* new transactions are read-only by configuration */
	bool synchronous;  /* a commit is on the disk when it is answered */
	bool fsync;        /* and what it thinks is on the disk is there */
	int64_t version;   /* 150004 */
	int64_t now_s;     /* its clock */
	int64_t standbys;  /* that follow it by now */
	int64_t connections, connections_max; /* of all clients; the latter without the superuser's */
};
/*
 * By a connection of its own, for who is not the server: to where a server would go, or else to whatever
 * answers, so that a standby without its primary is told apart from nothing. ERR_UNAVAILABLE database_away.
 */
MUST_USE enum status db_doctor_visit(const char *conninfo, struct db_doctor_server *out, struct err *err);
/* In a transaction, as all below. */
MUST_USE enum status db_doctor_server(struct db_tx *tx, struct db_doctor_server *out, struct err *err);
/* First of all in it: no statement takes longer than 5 s, or waits longer than 1 s for a lock. */
MUST_USE enum status db_doctor_patience(struct db_tx *tx, struct err *err);

/* Counts end here: "more than ten thousand" is all that a doctor need know. */
#define DB_DOCTOR_COUNT_MAX 10000
struct db_doctor_outbox {
	int64_t waiting[3]; /* by priority (db/outbox.h), at most DB_DOCTOR_COUNT_MAX */
	int64_t oldest_s[3]; /* age of the oldest among those; 0: none */
	int64_t dead;       /* likewise counted */
};
MUST_USE enum status db_doctor_outbox(struct db_tx *tx, struct db_doctor_outbox *out, struct err *err);

/* The weeks in which most active certificates of devices end, the fullest first. */
#define DB_DOCTOR_WEEKS_MAX 600 /* what a plan looks ahead: eleven years */
/* So many pages of the table are read, whatever its size: some 25 000 certificates. */
#define DB_DOCTOR_SAMPLE_PAGES 4000
struct db_doctor_week {
	int64_t week_s; /* its Monday, 00:00 UTC */
	int64_t count;  /* in the sample */
};
struct db_doctor_fleet {
	struct db_doctor_week weeks[DB_DOCTOR_WEEKS_MAX];
	size_t week_count;
	int64_t sampled; /* certificates in all weeks */
	double percent;  /* of the pages that were read; 100: all, so that counts are exact */
};
MUST_USE enum status db_doctor_fleet(struct db_tx *tx, int64_t now_s, struct db_doctor_fleet *out,
	struct err *err);

/* Of one issuer's revoked certificates, up to DB_DOCTOR_REVOKED_MAX that are as good as drawn by lot. */
#define DB_DOCTOR_REVOKED_MAX 20000
struct db_doctor_revoked {
	int64_t looked;  /* at so many that have not expired */
	int64_t recent;  /* of those, revoked since recent_s */
	int64_t ending;  /* and expiring before ending_s */
};
MUST_USE enum status db_doctor_revoked(struct db_tx *tx, int32_t issuer_id, int64_t now_s, int64_t recent_s,
	int64_t ending_s, struct db_doctor_revoked *out, struct err *err);

#endif
