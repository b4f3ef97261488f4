/* What the doctor sees from this machine: no server is needed, and none is disturbed. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ca/cert.h"
#include "ca/file.h"
#include "ca/pem.h"
#include "db/doctor.h"
#include "db/migrate.h"
#include "server/cli/doctor.h"
#include "server/profile/profile.h"

#define FILES_MAX 1000 /* of keys/: a CA has four, and there are few */
#define CERTIFICATE_MAX_BYTES 65536

typedef struct ca_profile ca_profile;
OWNER(ca_profile, mem_free)

static void
dir_close(DIR *dir)
{
	if (dir != NULL)
		(void)closedir(dir);
}
OWNER(DIR, dir_close)

/* ---- the configuration ---- */

static bool
check_config(struct doctor *doctor, const char *path, struct config *config)
{
	struct err err;

	if (config_load(config, path, &err) != OK) {
		doctor_say(doctor, DOCTOR_ERROR, "config",
			"Correct it: `jitrca config` prints every key with its rule. Nothing else "
			"here can be checked until then.", "%s (%s)", err.text, err.code);
		return false;
	}
	if (path == NULL)
		doctor_say(doctor, DOCTOR_NOTE, "config",
			"Name it: --config FILE, or JITRCA_CONFIG.",
			"there is no configuration file: environment and defaults are taken");
	else
		doctor_say(doctor, DOCTOR_OK, "config", NULL, "%.200s is well-formed", path);
	return true;
}

static void
check_profiles(struct doctor *doctor, const struct config *config)
{
	own(ca_profile) profiles = mem_array(CA_PROFILES_MAX, sizeof(*profiles));
	size_t count = 0;
	struct err err;

	if (profiles == NULL) {
		doctor->short_of_memory = true;
		return;
	}
	if (profile_load_dir(config->profiles_dir, profiles, CA_PROFILES_MAX, &count, &err) != OK)
		doctor_say(doctor, err.status == ERR_ARGUMENT ? DOCTOR_ERROR : DOCTOR_UNKNOWN,
			"profiles",
			"Correct it (certs/README.md): a server does not start with it.", "%s (%s)",
			err.text, err.code);
	else
		doctor_say(doctor, count > 0 ? DOCTOR_OK : DOCTOR_ERROR, "profiles",
			count > 0 ? NULL : "Put the certificate profiles there (certs/).",
			"%zu in %.200s", count, config->profiles_dir);
}

/* ---- files ---- */

/* Whether the file can be seen, and who else may do what with it (a mask of the mode). */
static bool
check_mode(struct doctor *doctor, const char *path, mode_t mask, enum doctor_severity absent,
	const char *when_absent)
{
	struct stat st;

	if (stat(path, &st) != 0) {
		bool there_is_none = errno == ENOENT || errno == ENOTDIR;

		doctor_say(doctor, there_is_none ? absent : DOCTOR_UNKNOWN, "files",
			there_is_none ?
				when_absent : "Run it as root, or as the user that owns the files.",
			"%.300s: %s", path, strerror(errno));
		return false;
	}
	if ((st.st_mode & mask) == 0)
		return true;
	doctor_say(doctor, DOCTOR_ERROR, "files",
		"Take it from group and others: chmod go-rwx. If others could read a key, count "
		"it as known to them.", "%.300s: mode %04o, but nobody else may have it", path,
		(unsigned)(st.st_mode & 07777));
	return false;
}

#define OTHERS (S_IRWXG | S_IRWXO)

static bool
has_suffix(const char *name, const char *suffix)
{
	size_t len = strlen(name);
	size_t tail = strlen(suffix);

	return len > tail && strcmp(name + len - tail, suffix) == 0;
}

/* A chain or a cross-certificate holds certificates that stand elsewhere for themselves. */
static bool
is_certificate(const char *name)
{
	return has_suffix(name, ".crt") && !has_suffix(name, ".chain.crt");
}

static enum status
check_certificate(struct doctor *doctor, const struct config *config, const char *path, const char *name,
	struct err *err)
{
	own_struct(bytes) pem = { NULL, 0 };
	own_struct(bytes) der = { NULL, 0 };
	struct ca_cert_view view;

	TRY(file_read(&pem, path, CERTIFICATE_MAX_BYTES, err));
	TRY(ca_pem_decode(&der, "CERTIFICATE", view_of(&pem), err));
	TRY(ca_cert_parse_any(&view, view_of(&der), err));
	doctor_judge_end(doctor, "ca_end", name, view.not_after_s, clock_wall_s(&CLOCK_SYSTEM),
		config->report_ca_expiring_s,
		"Begin a succession (docs/succession.md): jitrca init --successor ID, reload, "
		"then jitrca ca succession start.");
	return OK;
}

/* One entry of keys/; *bad counts keys that others may have. */
static void
check_key_file(struct doctor *doctor, const struct config *config, const char *dir, const char *name,
	size_t *keys, size_t *bad)
{
	char path[FILE_PATH_BYTES];
	struct err err;

	if (file_path(path, dir, name, "", &err) != OK)
		doctor_unknown(doctor, "files", NULL, &err);
	else if (has_suffix(name, ".key")) {
		++*keys;
		*bad += check_mode(doctor, path, OTHERS, DOCTOR_ERROR, "") ? 0 : 1;
	} else if (is_certificate(name) &&
		check_certificate(doctor, config, path, name, &err) != OK)
		doctor_unknown(doctor, "ca_end",
			"Compare the file with a backup, or with `jitrca ca list`.", &err);
}

static void
check_keys(struct doctor *doctor, const struct config *config, const char *keys_dir)
{
	own(DIR) dir = opendir(keys_dir);
	const struct dirent *entry;
	size_t keys = 0;
	size_t bad = 0;

	if (dir == NULL) {
		doctor_say(doctor, DOCTOR_UNKNOWN, "files",
			"Run it as root, or as the user that owns the files.", "%.300s: %s",
			keys_dir, strerror(errno));
		return;
	}
	for (size_t i = 0; i < FILES_MAX && (entry = readdir(dir)) != NULL; i++)
		check_key_file(doctor, config, keys_dir, entry->d_name, &keys, &bad);
	if (bad == 0)
		doctor_say(doctor, DOCTOR_OK, "files", NULL,
			"%zu sealed keys, which nobody else may read", keys);
}

static void
check_files(struct doctor *doctor, const struct config *config)
{
	static const char *const WANTED[] = { ".crt", ".key" };
	char dir[CONFIG_TEXT_BYTES + 8];
	char path[2 * CONFIG_TEXT_BYTES];

	if (!check_mode(doctor, config->data_dir, OTHERS, DOCTOR_ERROR,
		"Run `jitrca init`, or correct data_dir."))
		return;
	(void)snprintf(dir, sizeof(dir), "%s/keys", config->data_dir);
	if (!check_mode(doctor, dir, OTHERS, DOCTOR_ERROR, "Run `jitrca init`."))
		return;
	for (size_t i = 0; i < COUNT_OF(WANTED); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s%s", dir, config->issuing_ca, WANTED[i]);
		(void)check_mode(doctor, path, 0, DOCTOR_ERROR,
			"Bring it from a backup: the CA that issuing_ca names cannot issue without "
			"it.");
	}
	check_keys(doctor, config, dir);
	if (config->passphrase_file[0] != '\0' &&
		check_mode(doctor, config->passphrase_file, OTHERS, DOCTOR_ERROR,
			"Put the passphrase there (mode 0600): no server starts without it."))
		doctor_say(doctor, DOCTOR_OK, "files", NULL,
			"%.300s is there, and nobody else may read it", config->passphrase_file);
}

/* ---- the database ---- */

static void
check_migrations(struct doctor *doctor, const struct config *config, bool not_writable)
{
	struct err err;

	if (not_writable)
		doctor_say(doctor, DOCTOR_UNKNOWN, "migrations", "See the finding on standby first.",
			"could not be checked: no database answers that can be written to");
	else if (db_migrate_check(config->database_url, DB_MIGRATIONS, DB_MIGRATION_COUNT, &err) == OK)
		doctor_say(doctor, DOCTOR_OK, "migrations", NULL, "all %zu are applied",
			DB_MIGRATION_COUNT);
	else if (err.status == ERR_CONFLICT)
		doctor_say(doctor, DOCTOR_ERROR, "migrations",
			"Run `jitrca migrate` of the newest program, and then that program "
			"everywhere.", "%s (%s)", err.text, err.code);
	else
		doctor_unknown(doctor, "migrations", "See that database_url leads to the primary.",
			&err);
}

static void
check_database(struct doctor *doctor, const struct config *config)
{
	static const char *const NEED_IT[] = { "clock", "standby", "migrations" };
	int64_t before_s = clock_wall_s(&CLOCK_SYSTEM);
	struct db_doctor_server server;
	struct err err;

	if (db_doctor_visit(config->database_url, &server, &err) != OK) {
		doctor_say(doctor, DOCTOR_ERROR, "database",
			"See that PostgreSQL runs, that database_url leads to it, and that this "
			"user may connect.", "%s (%s)", err.text, err.code);
		for (size_t i = 0; i < COUNT_OF(NEED_IT); i++)
			doctor_say(doctor, DOCTOR_UNKNOWN, NEED_IT[i],
				"See the finding on the database first.",
				"could not be checked: the database does not answer");
		return;
	}
	doctor_judge_clock(doctor, server.now_s, before_s, clock_wall_s(&CLOCK_SYSTEM));
	doctor_say(doctor, DOCTOR_OK, "database", NULL,
		"PostgreSQL %" PRId64 ".%" PRId64 " answers", server.version / 10000,
		server.version % 10000);
	if (server.standby || server.read_only)
		doctor_say(doctor, DOCTOR_ERROR, "standby",
			"Name all hosts in database_url with target_session_attrs=read-write, or "
			"promote it.", "%s: a server finds none that it can write to",
			server.standby ? "only a standby answers" :
				"the database is read-only by configuration");
	else
		doctor_say(doctor, DOCTOR_OK, "standby", NULL,
			"the database is a primary; %" PRId64 " standbys follow it", server.standbys);
	check_migrations(doctor, config, server.standby || server.read_only);
}

bool
doctor_look_around(struct doctor *doctor, const char *config_path, struct config *config)
{
	if (!check_config(doctor, config_path, config))
		return false;
	check_profiles(doctor, config);
	check_files(doctor, config);
	doctor_check_disk(doctor, "disk", config->data_dir);
	doctor_judge_kernel_clock(doctor);
	check_database(doctor, config);
	return true;
}
