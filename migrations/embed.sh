#!/bin/sh
# embed.sh 0001_name.sql …: writes the C table of the migrations to stdout (see db/migrate.h).
set -eu
echo '/* Made by migrations/embed.sh. */'
echo '#include "db/migrate.h"'
for file in "$@"; do
	name=$(basename "$file" .sql)
	printf 'static const char SQL_%s[] =\n' "$name"
	od -An -v -to1 "$file" | sed 's/ *\([0-7][0-7]*\)/\\\1/g; s/.*/\t"&"/'
	printf ';\n'
done
echo 'const struct db_migration DB_MIGRATIONS[] = {'
for file in "$@"; do
	name=$(basename "$file" .sql)
	version=$(echo "${name%%_*}" | sed 's/^0*//')
	printf '\t{ .version = %s, .name = "%s", .sql = SQL_%s, .sql_len = sizeof(SQL_%s) - 1 },\n' \
		"$version" "$name" "$name" "$name"
done
echo '};'
echo 'const size_t DB_MIGRATION_COUNT = sizeof(DB_MIGRATIONS) / sizeof(DB_MIGRATIONS[0]);'
