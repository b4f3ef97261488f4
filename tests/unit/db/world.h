/*
 * tests/unit/db/world.h - a database of its own for one test program, on the server that
 * JITRCA_TEST_DATABASE_URL names, with the schema, an issuer, a station and shorthands to issue with.
 */
#ifndef TESTS_UNIT_DB_WORLD_H
#define TESTS_UNIT_DB_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <libpq-fe.h>

#include "base/entropy.h"
#include "db/certificate.h"
#include "db/crl.h"
#include "db/device.h"
#include "db/issuance.h"
#include "db/migrate.h"
#include "db/revocation.h"
#include "db/run.h"

#define MUST(call)                                                                                 \
	do {                                                                                       \
		struct err err_ = { 0 };                                                           \
		struct err *err = &err_;                                                           \
		if ((call) != OK)                                                                  \
			fail_msg("%s: %s: %s", #call, err_.code, err_.text);                       \
	} while (0)
#define MUST_FAIL(call, want_status, want_code)                                                    \
	do {                                                                                       \
		struct err err_ = { 0 };                                                           \
		struct err *err = &err_;                                                           \
		assert_string_equal(status_name(call), status_name(want_status));                  \
		assert_string_equal(err_.code, (want_code));                                       \
	} while (0)

static char world_url[1024];
static char world_base[900];
static char world_name[64];
static PGconn *world_pg;      /* autocommit, for looking and arranging */
static struct db_pool *world_pool;
static int64_t world_now;
static uint64_t world_drawn;  /* serials, keys */

/* Runs SQL and gives the first value, "" for none. The text lives until the next call. */
UNUSED static const char *
sql(const char *fmt, ...)
{
	static char value[1024];
	char text[4096];
	va_list args;
	PGresult *rows;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	rows = PQexec(world_pg, text);
	if (PQresultStatus(rows) != PGRES_TUPLES_OK && PQresultStatus(rows) != PGRES_COMMAND_OK)
		fail_msg("%s: %s", text, PQresultErrorMessage(rows));
	snprintf(value, sizeof(value), "%s",
		PQntuples(rows) > 0 && PQnfields(rows) > 0 ? PQgetvalue(rows, 0, 0) : "");
	PQclear(rows);
	return value;
}

UNUSED static int64_t
count(const char *fmt, ...)
{
	char text[2048];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return strtoll(sql("SELECT count(*) FROM %s%s", text[0] == '(' ? "" : "jitrca.",
		text), NULL, 10);
}

/* Expects SQL to be refused with this SQLSTATE. */
UNUSED static void
sql_refused(const char *state, const char *text)
{
	PGresult *rows = PQexec(world_pg, text);
	const char *found = PQresultErrorField(rows, PG_DIAG_SQLSTATE);

	if (found == NULL || strcmp(found, state) != 0)
		fail_msg("%s: %s wanted, %s found", text, state, found != NULL ? found : "success");
	PQclear(rows);
}

/* Puts dbname at the end of a connection string of either form. */
static void
world_dsn(char *out, size_t size, const char *base, const char *dbname)
{
	if (strncmp(base, "postgres", 8) == 0) {
		const char *slash = strchr(strstr(base, "//") + 2, '/');
		const char *query = strchr(base, '?');
		size_t head = slash != NULL && (query == NULL || slash < query) ?
			(size_t)(slash - base) : query != NULL ? (size_t)(query - base) : strlen(base);

		snprintf(out, size, "%.*s/%s%s", (int)head, base, dbname, query != NULL ? query : "");
	} else {
		snprintf(out, size, "%s dbname=%s", base, dbname);
	}
}

UNUSED static int
world_setup(void **state)
{
	const char *url = getenv("JITRCA_TEST_DATABASE_URL");
	PGconn *admin;
	PGresult *rows;
	char text[128];

	(void)state;
	if (url == NULL) {
		fprintf(stderr, "JITRCA_TEST_DATABASE_URL is not set\n");
		return -1;
	}
	snprintf(world_base, sizeof(world_base), "%s", url);
	snprintf(world_name, sizeof(world_name), "jitrca_unit_%ld", (long)getpid());
	admin = PQconnectdb(world_base);
	snprintf(text, sizeof(text), "CREATE DATABASE %s TEMPLATE template0 ENCODING 'UTF8'", world_name);
	rows = PQexec(admin, text);
	if (PQresultStatus(rows) != PGRES_COMMAND_OK)
		fprintf(stderr, "%s", PQresultErrorMessage(rows));
	PQclear(rows);
	PQfinish(admin);
	world_dsn(world_url, sizeof(world_url), world_base, world_name);
	world_pg = PQconnectdb(world_url);
	if (PQstatus(world_pg) != CONNECTION_OK)
		return -1;
	PQclear(PQexec(world_pg, "CREATE SCHEMA jitrca; SET client_min_messages = warning"));
	for (size_t i = 0; i < DB_MIGRATION_COUNT; i++) {
		rows = PQexec(world_pg, DB_MIGRATIONS[i].sql);
		if (PQresultStatus(rows) != PGRES_COMMAND_OK) {
			fprintf(stderr, "%s", PQresultErrorMessage(rows));
			return -1;
		}
		PQclear(rows);
	}
	MUST(db_pool_new(&world_pool, world_url, 40, err));
	world_now = time(NULL);
	sql("INSERT INTO jitrca.issuer (ca_id, kind, subject, certificate, chain, sha256, not_before,"
	    " not_after) SELECT 'ca' || n, 'issuing', 'CN=ca', '\\x00', '{}', sha256(n::text::bytea),"
	    " now() - interval '10 years', now() + interval '20 years' FROM generate_series(1, 2) n");
	sql("INSERT INTO jitrca.principal (principal_id, role, created_by) VALUES"
	    " ('admin', 'admin', 'x'), ('st', 'station', 'x'), ('st2', 'station', 'x'),"
	    " ('gone', 'station', 'x')");
	sql("INSERT INTO jitrca.station (principal_id, profiles, rate_per_minute, bucket)"
	    " SELECT principal_id, '{device,short}', 1000000, 1000000 FROM jitrca.principal"
	    " WHERE role = 'station'");
	for (int32_t add = 0; add <= 24; add++)
		MUST(db_issuance_ensure_month(world_pool,
			expiry_month(world_now) - 2 + add, err));
	return 0;
}

UNUSED static int
world_teardown(void **state)
{
	PGconn *admin;
	char text[128];

	(void)state;
	db_pool_free(world_pool);
	PQfinish(world_pg);
	admin = PQconnectdb(world_base);
	snprintf(text, sizeof(text), "DROP DATABASE %s WITH (FORCE)", world_name);
	PQclear(PQexec(admin, text));
	PQfinish(admin);
	return 0;
}

/* The n-th key of the world. */
UNUSED static void
key_of(uint8_t out[32], uint64_t n)
{
	memset(out, 0xab, 32);
	memcpy(out, &n, sizeof(n));
}

UNUSED static struct db_cert_ref
draw_ref(int64_t not_after_s)
{
	struct db_cert_ref ref = { .issuer_id = 1 };

	MUST(serial_draw(&ref.serial, not_after_s, &ENTROPY_SYSTEM, err));
	return ref;
}

/* An admin asks for a device's certificate with a new key; 90 days. */
UNUSED static struct db_admit_item
ask(const char *device_id)
{
	struct db_admit_item item = {
		.principal_id = "admin", .identity = device_id, .profile = "device",
		.slot = SLOT_CURRENT, .thing_type = "sensor", .attributes = "{}",
		.not_after_s = world_now + 90 * 86400,
	};

	item.ref = draw_ref(item.not_after_s);
	key_of(item.spki_sha256, __atomic_add_fetch(&world_drawn, 1, __ATOMIC_RELAXED));
	return item;
}

/* A station asks. */
UNUSED static struct db_admit_item
ask_station(const char *station_id, const char *device_id)
{
	struct db_admit_item item = ask(device_id);

	item.principal_id = station_id;
	item.needs_manifest = true;
	return item;
}

UNUSED static struct db_admit_item
ask_successor(const char *device_id, const struct db_cert_ref *predecessor)
{
	struct db_admit_item item = ask(device_id);

	item.principal_id = device_id;
	item.slot = SLOT_SUCCESSOR;
	item.predecessor = *predecessor;
	return item;
}

UNUSED static void
admit_as(int32_t instance_id, struct db_admit_item *items, size_t n)
{
	own_struct(db_tx) tx = { 0 };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_issuance_admit(&tx, instance_id, items, n, err));
	MUST(db_tx_commit(&tx, err));
}

UNUSED static void
admit(struct db_admit_item *items, size_t n)
{
	admit_as(1, items, n);
}

UNUSED static void
admit_wants(struct db_admit_item *item, enum db_admission want)
{
	admit(item, 1);
	if (item->admission != want)
		fail_msg("admission %d wanted, %d found (%s: %s)", (int)want, (int)item->admission,
			item->refusal.code, item->refusal.text);
}

UNUSED static void
admit_refused(struct db_admit_item *item, enum status status, const char *code)
{
	admit_wants(item, ADMISSION_REFUSED);
	assert_string_equal(item->refusal.code, code);
	assert_string_equal(status_name(item->refusal.status), status_name(status));
}

/* What Record is told of an admitted item; DER and digest are made up. */
UNUSED static struct db_record_item
record_of(const struct db_admit_item *item)
{
	struct db_record_item record = {
		.admitted = item, .der = { (const uint8_t *)"der", 3 }, .subject = "CN=x",
		.not_before_s = world_now - 300, .not_after_s = item->not_after_s,
		.issued_at_s = world_now,
	};

	memcpy(record.sha256, item->ref.serial.octets, SERIAL_BYTES);
	return record;
}

UNUSED static enum status
try_record(const struct db_admit_item *items, size_t n, struct err *err)
{
	own_struct(db_tx) tx = { 0 };
	struct db_record_item *records = calloc(n, sizeof(*records));
	enum status status;
	bool plain = false;

	for (size_t i = 0; i < n; i++)
		records[i] = record_of(&items[i]);
	/* As the server does it: the plain way where it goes. */
	status = db_tx_begin(&tx, world_pool, err);
	if (status == OK)
		status = db_issuance_record_plain(&tx, records, n, NULL, 0, true, &plain, err);
	if (status == OK && !plain)
		status = db_tx_restart(&tx, err);
	if (status == OK && !plain)
		status = db_issuance_record(&tx, records, n, err);
	if (status == OK)
		status = db_tx_commit(&tx, err);
	free(records);
	return status;
}

UNUSED static void
record(const struct db_admit_item *items, size_t n)
{
	MUST(try_record(items, n, err));
}

/* Admits and records one. */
UNUSED static struct db_cert_ref
issue(struct db_admit_item item)
{
	admit_wants(&item, ADMISSION_ADMITTED);
	record(&item, 1);
	return item.ref;
}

UNUSED static struct db_revoke_result
revoke_one(const struct db_cert_ref *ref, enum revocation_reason reason)
{
	own_struct(db_tx) tx = { 0 };
	struct db_revoke_result result = { 0 };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_revoke(&tx, ref, reason, world_now, &result, err));
	MUST(db_tx_commit(&tx, err));
	return result;
}

UNUSED static bool
confirm(const struct db_cert_ref *ref, bool revoke_old)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref predecessor;
	bool changed = false;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_confirm(&tx, ref, revoke_old, world_now, &predecessor, &changed, err));
	MUST(db_tx_commit(&tx, err));
	return changed;
}

UNUSED static enum cert_status
status_of(const struct db_cert_ref *ref)
{
	own_struct(db_tx) tx = { 0 };
	own_struct(db_certificate) certificate = { 0 };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_certificate_by_ref(&tx, ref, &certificate, err));
	return certificate.status;
}

UNUSED static const char *
hex(const struct db_cert_ref *ref)
{
	static char text[4][SERIAL_TEXT_BYTES];
	static unsigned next;
	char *out = text[next++ % 4];

	serial_format(out, &ref->serial);
	return out;
}

#endif
