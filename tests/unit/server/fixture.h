/*
 * tests/unit/server/fixture.h - what the pipeline needs to run inside one test program: a database of
 * its own on the cluster that JITRCA_TEST_DATABASE_URL names, a CA in a temporary directory, a signer
 * behind a socketpair, and the app that binds them.
 */
#ifndef TESTS_UNIT_SERVER_FIXTURE_H
#define TESTS_UNIT_SERVER_FIXTURE_H

#include "tests/unit/base/test.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/digest.h"
#include "ca/key.h"
#include "ca/keystore.h"
#include "ca/secret.h"
#include "ca/signer.h"
#include "db/crl.h"
#include "db/issuer.h"
#include "db/migrate.h"
#include "db/principal.h"
#include "server/app.h"
#include "server/issuance/issuance.h"
#include "server/signer/link.h"

#define CHECK(call)                                                                                \
	do {                                                                                       \
		if ((call) != OK)                                                                  \
			fail_msg("%s:%d: %s: %s", __FILE__, __LINE__, err.code, err.text);         \
	} while (0)

#define DAY_S INT64_C(86400)

struct fixture {
	struct app app;
	char database_url[CONFIG_TEXT_BYTES];
	char database[64];
	char dir[64];
	struct db_session *session;
	struct ca_keystore *keystore;
	struct ca_signer_shared *shared;
	PGconn *sql; /* the test's own eyes */

	/* The signer's side. */
	pthread_t signer_thread;
	int signer_fd;
	bool signer_runs;
};

static PGconn *
fixture_connect(const char *url)
{
	PGconn *conn = PQconnectdb(url);

	if (PQstatus(conn) != CONNECTION_OK)
		fail_msg("cannot connect: %s", PQerrorMessage(conn));
	return conn;
}

UNUSED static void
fixture_exec(PGconn *conn, const char *sql)
{
	PGresult *result = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		fail_msg("%s: %s", sql, PQerrorMessage(conn));
	PQclear(result);
}

UNUSED static int64_t
fixture_number(struct fixture *f, const char *sql)
{
	PGresult *result = PQexec(f->sql, sql);
	int64_t number;

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		fail_msg("%s: %s", sql, PQerrorMessage(f->sql));
	number = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
	PQclear(result);
	return number;
}

/* A database of this program's own, with all migrations. */
static void
fixture_database(struct fixture *f)
{
	const char *url = getenv("JITRCA_TEST_DATABASE_URL");
	char sql[128];
	size_t applied;
	struct err err;
	PGconn *conn;

	if (url == NULL) {
		print_error("JITRCA_TEST_DATABASE_URL: a PostgreSQL for tests is wanted\n");
		exit(1);
	}
	conn = fixture_connect(url);
	(void)snprintf(f->database, sizeof(f->database), "unit_%ld", (long)getpid());
	(void)snprintf(sql, sizeof(sql), "CREATE DATABASE %s", f->database);
	fixture_exec(conn, sql);
	(void)snprintf(f->database_url, sizeof(f->database_url),
		"host='%s' port='%s' user='%s' dbname='%s'", PQhost(conn), PQport(conn), PQuser(conn),
		f->database);
	PQfinish(conn);
	CHECK(db_migrate(f->database_url, DB_MIGRATIONS, DB_MIGRATION_COUNT, &applied, &err));
	f->sql = fixture_connect(f->database_url);
	fixture_exec(f->sql, "SET client_min_messages = warning");
	CHECK(db_pool_new(&f->app.pool, f->database_url, 8, &err));
}

static void
fixture_drop_database(struct fixture *f)
{
	const char *url = getenv("JITRCA_TEST_DATABASE_URL");
	char sql[128];
	PGconn *conn = fixture_connect(url);

	PQfinish(f->sql);
	(void)snprintf(sql, sizeof(sql), "DROP DATABASE %s WITH (FORCE)", f->database);
	fixture_exec(conn, sql);
	PQfinish(conn);
}

static void
fixture_profiles(struct app *app)
{
	static const char *const NAMES[] = { "device", "station", "admin" };
	static const enum ca_role ROLES[] = { CA_ROLE_DEVICE, CA_ROLE_STATION, CA_ROLE_ADMIN };

	for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
		struct ca_profile *p = &app->profiles[i];

		*p = (struct ca_profile){
			.role = ROLES[i],
			.issuable_by = ROLES[i] == CA_ROLE_DEVICE ?
				ASKER_STATION | ASKER_ADMIN | ASKER_DEVICE : ASKER_ADMIN,
			.key_types = KEY_EC_P256,
			.key_usage = KU_DIGITAL_SIGNATURE,
			.eku = { "1.3.6.1.5.5.7.3.2" },
			.eku_count = 1,
			.subject = { { .type = RDN_CN, .value = "{device_id}" } },
			.subject_count = 1,
			.backdate_s = 300,
			.validity_default_s = 365 * DAY_S,
			.validity_max_s = 1095 * DAY_S,
			.renew_before_s = 60 * DAY_S,
			.renew_overlap_s = 7 * DAY_S,
			.on_confirm = ON_CONFIRM_SUPERSEDE,
			.csr_extensions = CSR_EXTENSIONS_IGNORE,
			.one_live = ROLES[i] == CA_ROLE_DEVICE,
			.crl_distribution_point = true,
			.authority_information_access = true,
			.hourly_cap = ROLES[i] == CA_ROLE_DEVICE ? 0 : 1000,
		};
		(void)snprintf(p->name, sizeof(p->name), "%s", NAMES[i]);
		ca_blake2b(p->hash, view_text(NAMES[i]));
	}
	app->profile_count = COUNT_OF(NAMES);
}

/* Writes a certificate chain into an app_ca, as the frontend does. */
static void
fixture_app_ca(struct app *app, const struct ca_keystore_entry *entry, int32_t issuer_id)
{
	struct app_ca *ca = &app->cas[app->ca_count++];
	struct ca_cert_view view;
	struct buf pem = { .limit_bytes = 65536 };
	struct err err;

	(void)snprintf(ca->ca_id, sizeof(ca->ca_id), "%s", entry->ca_id);
	ca->issuer_id = issuer_id;
	ca->can_sign = entry->key != NULL;
	CHECK(bytes_copy(&ca->certificate, view_of(&entry->certificate), &err));
	CHECK(ca_cert_parse(&view, view_of(&ca->certificate), &err));
	CHECK(bytes_copy(&ca->subject_name, view.subject, &err));
	ca->not_before_s = view.not_before_s;
	ca->not_after_s = view.not_after_s;
	CHECK(ca_pem_encode(&pem, "CERTIFICATE", view_of(&entry->certificate), &err));
	ca->chain_pem = buf_give(&pem);
	if (entry->chain_count > 0) {
		pem = (struct buf){ .limit_bytes = 65536 };
		CHECK(ca_pem_encode(&pem, "CERTIFICATE",
			view_of(&entry->chain[entry->chain_count - 1]), &err));
		ca->root_pem = buf_give(&pem);
	}
}

static int32_t
fixture_issuer(struct fixture *f, const struct ca_keystore_entry *entry)
{
	struct db_issuer issuer = {
		.certificate = entry->certificate, /* lent */
		.chain_count = entry->chain_count,
	};
	own_struct(db_tx) tx = { NULL, NULL };
	struct ca_cert_view view;
	int32_t issuer_id;
	struct err err;

	(void)snprintf(issuer.ca_id, sizeof(issuer.ca_id), "%s", entry->ca_id);
	(void)snprintf(issuer.kind, sizeof(issuer.kind), "issuing");
	(void)snprintf(issuer.status, sizeof(issuer.status), "active");
	(void)snprintf(issuer.subject, sizeof(issuer.subject), "CN=test");
	for (size_t i = 0; i < entry->chain_count; i++)
		issuer.chain[i] = entry->chain[i];
	CHECK(ca_cert_parse(&view, view_of(&entry->certificate), &err));
	issuer.not_before_s = view.not_before_s;
	issuer.not_after_s = view.not_after_s;
	ca_sha256(issuer.sha256, view_of(&entry->certificate));
	CHECK(db_tx_begin(&tx, f->app.pool, &err));
	CHECK(db_issuer_ensure(&tx, &issuer, &issuer_id, &err));
	CHECK(db_crl_scopes_ensure(&tx, issuer_id, &err));
	CHECK(db_tx_commit(&tx, &err));
	return issuer_id;
}

static void
fixture_authority(struct fixture *f)
{
	static const char PASSPHRASE[] = "a passphrase for tests";
	struct ca_ceremony ceremony = {
		.dir = f->dir,
		.passphrase = view_text(PASSPHRASE),
		.key_type = KEY_EC_P256,
		.organization = "Test",
		.ca_id = "root",
		.validity_s = 3650 * DAY_S,
		.public_http_url = "http://localhost:8080",
		.clock = &CLOCK_SYSTEM,
		.entropy = &ENTROPY_SYSTEM,
		.fast_seal = true,
	};
	own_struct(secret) kek = { NULL, 0 };
	struct err err;

	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/jitrca-unit-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	CHECK(ca_init(&err));
	CHECK(ca_keystore_make_root(&ceremony, NULL, &err));
	ceremony.ca_id = "issuing-1";
	ceremony.validity_s = 3000 * DAY_S;
	CHECK(ca_keystore_make_issuing(&ceremony, "root", NULL, &err));
	CHECK(ca_keystore_kek(&kek, f->dir, view_text(PASSPHRASE), &err));
	CHECK(ca_keystore_open(&f->keystore, f->dir, view_of(&(struct bytes){ kek.data, kek.len }),
		&err));
	CHECK(ca_trust_new(&f->app.trust, &err));
	for (size_t i = 0; i < ca_keystore_count(f->keystore); i++) {
		const struct ca_keystore_entry *entry = ca_keystore_at(f->keystore, i);
		struct view chain[CA_CHAIN_MAX];

		if (entry->is_root)
			continue;
		for (size_t j = 0; j < entry->chain_count; j++)
			chain[j] = view_of(&entry->chain[j]);
		CHECK(ca_trust_add(f->app.trust, entry->ca_id, view_of(&entry->certificate), chain,
			entry->chain_count, &err));
		fixture_app_ca(&f->app, entry, fixture_issuer(f, entry));
	}
	assert_int_equal(f->app.ca_count, 1);
	f->app.issuing = &f->app.cas[0];
	(void)snprintf(f->app.config.issuing_ca, sizeof(f->app.config.issuing_ca), "%s", f->app.cas[0].ca_id);
}

static void
fixture_remove_authority(struct fixture *f)
{
	static const char *const FILES[] = { "seal.params", "root.crt", "root.key", "root.chain.crt",
		"issuing-1.crt", "issuing-1.chain.crt", "issuing-1.key" };
	struct app_ca *ca = &f->app.cas[0];

	for (size_t i = 0; i < COUNT_OF(FILES); i++) {
		char path[128];

		(void)snprintf(path, sizeof(path), "%s/%s", f->dir, FILES[i]);
		(void)unlink(path);
	}
	if (rmdir(f->dir) != 0)
		print_message("left behind: %s\n", f->dir);
	ca_trust_free(f->app.trust);
	ca_keystore_free(f->keystore);
	bytes_free(&ca->certificate);
	bytes_free(&ca->subject_name);
	bytes_free(&ca->chain_pem);
	bytes_free(&ca->root_pem);
}

/* ---- the signer ---- */

static void *
fixture_serve(void *arg)
{
	struct fixture *f = arg;
	struct ca_signer *signer;
	struct err err;

	CHECK(ca_signer_local(&signer, f->shared, &err));
	(void)!ca_signer_serve(f->signer_fd, signer, &err);
	ca_signer_free(signer);
	return NULL;
}

static void
fixture_signer_start(struct fixture *f)
{
	struct ca_signer_setup setup = {
		.keystore = f->keystore,
		.profiles = f->app.profiles,
		.profile_count = f->app.profile_count,
		.public_http_url = "http://localhost:8080",
		.clock = &CLOCK_SYSTEM,
		.entropy = &ENTROPY_SYSTEM,
	};
	int fds[2];
	struct err err;

	CHECK(ca_signer_shared_new(&f->shared, &setup, &err));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	f->signer_fd = fds[1];
	assert_int_equal(pthread_create(&f->signer_thread, NULL, fixture_serve, f), 0);
	f->signer_runs = true;
	signer_link_connect(f->app.signer_issue, fds[0]);
}

/* As when the process dies: what it held prepared is gone. */
static void
fixture_signer_kill(struct fixture *f)
{
	if (!f->signer_runs)
		return;
	(void)shutdown(f->signer_fd, SHUT_RDWR);
	(void)pthread_join(f->signer_thread, NULL);
	(void)close(f->signer_fd);
	ca_signer_shared_free(f->shared);
	f->signer_runs = false;
}

/* ---- all of it ---- */

UNUSED static void
fixture_start(struct fixture *f)
{
	struct err err;

	*f = (struct fixture){ .app = { .clock = &CLOCK_SYSTEM, .audit_lane = 1 } };
	f->app.config.shutdown_timeout_ms = 5000;
	fixture_database(f);
	fixture_profiles(&f->app);
	fixture_authority(f);
	CHECK(db_session_begin(&f->session, f->database_url, &err));
	f->app.instance_id = db_session_instance_id(f->session);
	CHECK(signer_link_new(&f->app.signer_issue, &err));
	CHECK(issuance_start(&f->app.issuance, &f->app, &err));
	fixture_signer_start(f);
	fixture_exec(f->sql, "INSERT INTO jitrca.principal (principal_id, role, created_by)"
		" VALUES ('admin', 'admin', 'test')");
}

UNUSED static void
fixture_stop(struct fixture *f)
{
	issuance_stop(f->app.issuance);
	fixture_signer_kill(f);
	signer_link_free(f->app.signer_issue);
	db_session_end(f->session);
	db_pool_free(f->app.pool);
	fixture_remove_authority(f);
	fixture_drop_database(f);
}

/* ---- certificates wanted ---- */

/* A new key as a CSR whose proof of possession was verified: the pipeline wants no more of it. */
UNUSED static void
fixture_csr(struct ca_csr *csr)
{
	own(ca_key) key = NULL;
	struct err err;

	*csr = (struct ca_csr){ .key_type = KEY_EC_P256 };
	CHECK(ca_key_generate(&key, KEY_EC_P256, &err));
	CHECK(bytes_copy(&csr->spki, ca_key_spki(key), &err));
	ca_sha256(csr->spki_sha256, view_of(&csr->spki));
}

UNUSED static void
fixture_item(struct issuance_item *item, struct fixture *f, const char *device_id, struct ca_csr *csr)
{
	*item = (struct issuance_item){
		.profile = &f->app.profiles[0],
		.csr = csr,
		.asker = ASKER_ADMIN,
		.actor = "admin",
		.request_id = "0123456789abcdef0123456789abcdef",
		.slot = SLOT_CURRENT,
		.attributes_json = "{}",
	};
	(void)snprintf(item->request.device_id, sizeof(item->request.device_id), "%s", device_id);
	ca_blake2b(item->request_hash, view_text(device_id));
}

#endif
