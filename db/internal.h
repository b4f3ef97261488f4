/* db/internal.h - a connection as pool.c and run.c share it. Not for the entities. */
#ifndef DB_INTERNAL_H
#define DB_INTERNAL_H

#include "db/run.h"

#define DB_PREPARED_SLOTS 512 /* a power of two, well above the number of our statements */

struct db_conn {
	struct db_conn *next; /* in the pool's idle list */
	PGconn *pg;
	bool broken;         /* not to be used again */
	bool in_transaction;
	char constraint[64]; /* that the last failed statement broke */
	size_t prepared_count;
	const struct db_statement *prepared[DB_PREPARED_SLOTS]; /* open addressing by pointer */
};

/* Opens a connection set up as this room wants it; ERR_UNAVAILABLE database_away. */
MUST_USE enum status db_conn_open(struct db_conn **out, const char *conninfo, struct err *err);
void db_conn_close(struct db_conn *conn);
MUST_USE enum status db_conn_command(struct db_conn *conn, const char *sql, struct err *err);

#endif
