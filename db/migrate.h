/*
 * db/migrate.h - the migration runner: forward only, each in a transaction of its own, under an
 * advisory lock, recorded with its checksum.
 */
#ifndef DB_MIGRATE_H
#define DB_MIGRATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct db_migration {
	int32_t version; /* 1, 2, 3 … without gaps */
	const char *name;
	const char *sql;
	size_t sql_len;
};

/* Embedded at build time from migrations/. */
extern const struct db_migration DB_MIGRATIONS[];
extern const size_t DB_MIGRATION_COUNT;

/*
 * Applies what is missing; *applied says how many. Makes schema jitrca and jitrca.schema_migration
 * itself. Concurrent runs wait for each other. ERR_CONFLICT: schema_newer (the database knows versions
 * that this program does not), schema_changed (an applied migration has another checksum).
 */
MUST_USE enum status db_migrate(const char *conninfo, const struct db_migration *migrations,
	size_t count, size_t *applied, struct err *err);
/* Says whether everything is applied, without changing anything: same errors, and ERR_CONFLICT
 * schema_older. */
MUST_USE enum status db_migrate_check(const char *conninfo, const struct db_migration *migrations,
	size_t count, struct err *err);

#endif
