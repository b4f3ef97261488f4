#include "server/cli/local.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/entropy.h"
#include "base/mem.h"
#include "ca/digest.h"
#include "db/manifest.h"
#include "db/migrate.h"
#include "db/principal.h"
#include "server/app.h"
#include "server/audit.h"
#include "server/http/fields.h"
#include "server/supervisor.h"

#define OPTIONS_MAX 16
#define CONFIG_STANDARD "/etc/jitrca/jitrca.conf"
/* The audit log's lane of the command line; servers have theirs below. */
#define AUDIT_LANE 1000
#define ACTOR "local"

/* ---- options ---- */

static void
print_help(const char *usage, const char *about, const struct local_option *options)
{
	printf("Usage: %s\n\n%s\n\nOptions:\n", usage, about);
	for (; options->name != NULL; options++) {
		char left[64];

		(void)snprintf(left, sizeof(left), "--%s%s%s", options->name,
			options->value != NULL ? " " : "",
			options->value != NULL ? options->value : "");
		printf("  %-24s %s\n", left, options->about);
	}
	printf("  %-24s %s\n", "--help", "this text");
}

bool
local_options(int argc, char **argv, const char *usage, const char *about,
	const struct local_option *options, int *exit_status)
{
	struct option table[OPTIONS_MAX + 2];
	size_t count = 0;
	int found;

	memset(table, 0, sizeof(table));
	for (; count < OPTIONS_MAX && options[count].name != NULL; count++)
		table[count] = (struct option){ options[count].name,
			options[count].value != NULL ? required_argument : no_argument, NULL,
			(int)count + 256 };
	table[count] = (struct option){ "help", no_argument, NULL, 'h' };

	optind = 1;
	*exit_status = EXIT_MISUSED;
	while ((found = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (found == 'h') {
			print_help(usage, about, options);
			*exit_status = 0;
			return false;
		}
		if (found < 256) {
			fprintf(stderr, "Usage: %s\nTry --help.\n", usage);
			return false;
		}
		if (options[found - 256].value != NULL)
			*options[found - 256].text = optarg;
		else
			*options[found - 256].flag = true;
	}
	if (optind < argc) {
		fprintf(stderr, "jitrca: '%s' is too much\nUsage: %s\nTry --help.\n", argv[optind],
			usage);
		return false;
	}
	return true;
}

int
local_failed(const char *command, const struct err *err)
{
	fprintf(stderr, "jitrca %s: %s (%s)\n", command, err->text, err->code);
	return EXIT_REFUSED;
}

const char *
local_config_path(const char *path)
{
	if (path != NULL)
		return path;
	path = getenv("JITRCA_CONFIG");
	if (path != NULL && path[0] != '\0')
		return path;
	return access(CONFIG_STANDARD, F_OK) == 0 ? CONFIG_STANDARD : NULL;
}

/* ---- the database ---- */

enum status
local_database_migrate(const struct config *config, size_t *applied, struct err *err)
{
	return db_migrate(config->database_url, DB_MIGRATIONS, DB_MIGRATION_COUNT, applied, err);
}

static enum status
make_token(struct db_token *token, char text[TOKEN_TEXT_BYTES], const struct config *config,
	const char *principal_id, struct err *err)
{
	uint8_t id[8];

	memset(token, 0, sizeof(*token));
	TRY(entropy_fill(&ENTROPY_SYSTEM, id, sizeof(id), err));
	TRY(token_draw(text, err));
	hex_encode(token->token_id, id, sizeof(id));
	ca_blake2b(token->hash, view_text(text));
	(void)snprintf(token->principal_id, sizeof(token->principal_id), "%s", principal_id);
	(void)snprintf(token->description, sizeof(token->description),
		"made on the server's command line");
	(void)snprintf(token->created_by, sizeof(token->created_by), ACTOR);
	token->created_at_s = clock_wall_s(&CLOCK_SYSTEM);
	token->expires_at_s = token->created_at_s + config->token_validity_max_s;
	return OK;
}

static enum status
ensure_principal(
	struct db_tx *tx, const struct local_admin_grant *grant, bool *fresh, struct err *err)
{
	struct db_principal principal;
	enum status status;
	bool changed;

	memset(&principal, 0, sizeof(principal));
	status = db_principal_find(tx, grant->principal_id, &principal, err);
	*fresh = status == ERR_NOT_FOUND;
	if (status == OK && strcmp(principal.role, "admin") != 0)
		return err_set(err, ERR_CONFLICT, "principal_exists",
			"principal '%s' is there with role %s", grant->principal_id,
			principal.role);
	if (status == OK)
		return grant->renew ? db_principal_set_disabled(
					      tx, grant->principal_id, false, &changed, err)
		                    : OK;
	if (status != ERR_NOT_FOUND)
		return status;
	(void)snprintf(
		principal.principal_id, sizeof(principal.principal_id), "%s", grant->principal_id);
	(void)snprintf(principal.role, sizeof(principal.role), "admin");
	(void)snprintf(principal.description, sizeof(principal.description),
		"made on the server's command line");
	(void)snprintf(principal.created_by, sizeof(principal.created_by), ACTOR);
	principal.created_at_s = clock_wall_s(&CLOCK_SYSTEM);
	return db_principal_create(tx, &principal, err);
}

static enum status
record(struct db_tx *tx, const char *action, const char *kind, const struct db_token *token,
	struct err *err)
{
	struct app *app = mem_zalloc(sizeof(*app)); /* audit_write wants its lane */
	json_t *detail = json_pack("{s:s}", "token_id", token->token_id);
	char object[DB_ID_BYTES + 16];
	struct audit_item item = { .object = object, .detail = detail };
	struct audit_entry entry = { .action = action,
		.actor = ACTOR,
		.items = &item,
		.item_count = 1,
		.at_s = token->created_at_s };
	enum status status = err_memory(err);

	(void)snprintf(object, sizeof(object), "%s:%s", kind, token->principal_id);
	if (app != NULL && detail != NULL) {
		app->clock = &CLOCK_SYSTEM;
		app->audit_lane = AUDIT_LANE;
		status = audit_write(app, tx, &entry, err);
	}
	json_decref(detail);
	mem_free(app);
	return status;
}

/* A file of that name is of an earlier run or another database: it is kept beside. */
static enum status
write_token(const char *path, const char *text, struct err *err)
{
	char line[TOKEN_TEXT_BYTES + 1];
	char old[4096];

	(void)snprintf(old, sizeof(old), "%s.old", path);
	if (rename(path, old) != 0 && errno != ENOENT)
		return err_set(err, ERR_UNAVAILABLE, "file_write", "%s: %s", path, strerror(errno));
	(void)snprintf(line, sizeof(line), "%s\n", text);
	return secret_write_file(view_text(line), path, err);
}

typedef struct db_pool db_pool;
OWNER(db_pool, db_pool_free)

enum status
local_grant_admin(const struct config *config, const struct local_admin_grant *grant, bool *made,
	struct err *err)
{
	own(db_pool) pool = NULL;
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_token token;
	char text[TOKEN_TEXT_BYTES];
	bool fresh = false;

	TRY(db_pool_new(&pool, config->database_url, 1, err));
	TRY(db_tx_begin(&tx, pool, err));
	TRY(ensure_principal(&tx, grant, &fresh, err));
	*made = fresh || grant->renew;
	if (!*made)
		return OK;
	TRY(make_token(&token, text, config, grant->principal_id, err));
	TRY(db_token_create(&tx, &token, err));
	TRY(record(&tx, grant->action, "principal", &token, err));
	/* Before the commit: a token that nobody can read would be lost, one that is not valid is
	 * not. */
	TRY(write_token(grant->token_file, text, err));
	return db_tx_commit(&tx, err);
}

/* ---- a station for development ---- */

#define DEMO_DEVICES 1000
#define DEMO_RATE_PER_MINUTE 100000

struct demo_line {
	int number;
	char id[DB_ID_BYTES];
};

static enum status
next_demo_device(void *arg, const char **id, struct err *err)
{
	struct demo_line *at = arg;

	(void)err;
	*id = NULL;
	if (at->number >= DEMO_DEVICES)
		return OK;
	(void)snprintf(at->id, sizeof(at->id), "device-%d", ++at->number);
	*id = at->id;
	return OK;
}

static enum status
make_demo(struct db_tx *tx, const char *station_id, struct err *err)
{
	struct demo_line at = { .number = 0 };
	int64_t now_s = clock_wall_s(&CLOCK_SYSTEM);
	struct db_station station = { .profiles = { "device" },
		.profile_count = 1,
		.rate_per_minute = DEMO_RATE_PER_MINUTE };
	struct db_manifest manifest = { .manifest_id = "demo",
		.profile = "device",
		.quantity = DEMO_DEVICES,
		.allow_replace = true,
		.not_before_s = now_s - 60,
		.not_after_s = now_s + INT64_C(10) * 365 * 86400,
		.created_at_s = now_s };
	int64_t added = 0;

	(void)snprintf(station.principal.principal_id, sizeof(station.principal.principal_id), "%s",
		station_id);
	(void)snprintf(station.principal.role, sizeof(station.principal.role), "station");
	(void)snprintf(station.principal.description, sizeof(station.principal.description),
		"for development");
	(void)snprintf(station.principal.created_by, sizeof(station.principal.created_by), ACTOR);
	station.principal.created_at_s = now_s;
	(void)snprintf(manifest.station_id, sizeof(manifest.station_id), "%s", station_id);
	(void)snprintf(manifest.created_by, sizeof(manifest.created_by), ACTOR);
	TRY(db_station_create(tx, &station, err));
	TRY(db_manifest_create(tx, &manifest, err));
	return db_manifest_add_lines(tx, manifest.manifest_id, next_demo_device, &at, &added, err);
}

enum status
local_grant_demo_station(const struct config *config, const char *station_id,
	const char *token_file, bool *made, struct err *err)
{
	own(db_pool) pool = NULL;
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_station station;
	struct db_token token;
	char text[TOKEN_TEXT_BYTES];
	enum status status;

	TRY(db_pool_new(&pool, config->database_url, 1, err));
	TRY(db_tx_begin(&tx, pool, err));
	status = db_station_find(&tx, station_id, &station, err);
	*made = status == ERR_NOT_FOUND;
	if (!*made)
		return status;
	TRY(make_demo(&tx, station_id, err));
	TRY(make_token(&token, text, config, station_id, err));
	TRY(db_token_create(&tx, &token, err));
	TRY(record(&tx, "station.create", "station", &token, err));
	TRY(write_token(token_file, text, err));
	return db_tx_commit(&tx, err);
}

/* ---- the small subcommands ---- */

int
local_version(int argc, char **argv)
{
	static const struct local_option OPTIONS[] = { { .name = NULL } };
	int exit_status;

	if (!local_options(argc, argv, "jitrca version", "Prints the program's version.", OPTIONS,
		    &exit_status))
		return exit_status;
	printf("jitrca %s, schema %zu\n", JITRCA_VERSION, DB_MIGRATION_COUNT);
	return 0;
}

#define CONFIG_OPTION(variable)                                                                    \
	{                                                                                          \
		.name = "config", .value = "FILE",                                                 \
		.about = "the configuration (" CONFIG_STANDARD ")", .text = &(variable)            \
	}

int
local_config(int argc, char **argv)
{
	const char *path = NULL;
	const struct local_option options[] = { CONFIG_OPTION(path), { .name = NULL } };
	struct config config;
	struct err err;
	int exit_status;

	if (!local_options(argc, argv, "jitrca config [--config FILE]",
		    "Checks the configuration and prints it with every key, its meaning and "
	            "default.",
		    options, &exit_status))
		return exit_status;
	if (config_load(&config, local_config_path(path), &err) != OK)
		return local_failed("config", &err);
	config_print_documented(&config);
	return 0;
}

int
local_serve(int argc, char **argv)
{
	const char *path = NULL;
	const struct local_option options[] = { CONFIG_OPTION(path), { .name = NULL } };
	int exit_status;

	if (!local_options(argc, argv, "jitrca serve [--config FILE]",
		    "Runs the server in the foreground. SIGTERM finishes what is in flight, SIGHUP "
	            "reads the\n"
		    "configuration and the profiles again.",
		    options, &exit_status))
		return exit_status;
	return supervisor_run(local_config_path(path));
}

int
local_migrate(int argc, char **argv)
{
	const char *path = NULL;
	const struct local_option options[] = { CONFIG_OPTION(path), { .name = NULL } };
	struct config config;
	struct err err;
	size_t applied = 0;
	int exit_status;

	if (!local_options(argc, argv, "jitrca migrate [--config FILE]",
		    "Brings the database's schema up to this program's.", options, &exit_status))
		return exit_status;
	if (config_load(&config, local_config_path(path), &err) != OK ||
		local_database_migrate(&config, &applied, &err) != OK)
		return local_failed("migrate", &err);
	printf("%zu of %zu migrations applied now\n", applied, DB_MIGRATION_COUNT);
	return 0;
}

int
local_admin(int argc, char **argv)
{
	static const char USAGE[] =
		"jitrca admin recover [--principal ID] [--token-file FILE] [--config FILE]";
	const char *path = NULL;
	const char *principal = "admin";
	const char *token_file = NULL;
	const struct local_option options[] = {
		{ .name = "principal",
			.value = "ID",
			.about = "the administrator (admin)",
			.text = &principal },
		{ .name = "token-file",
			.value = "FILE",
			.about = "where the token goes (data_dir/admin.token)",
			.text = &token_file },
		CONFIG_OPTION(path),
		{ .name = NULL },
	};
	char standard[CONFIG_TEXT_BYTES + 16];
	struct local_admin_grant grant;
	struct config config;
	struct err err;
	bool made = false;
	int exit_status;
	bool recover = argc > 1 && strcmp(argv[1], "recover") == 0;

	if (!recover && (argc < 2 || argv[1][0] != '-')) {
		fprintf(stderr, "Usage: %s\nTry --help.\n", USAGE);
		return EXIT_MISUSED;
	}
	if (!local_options(recover ? argc - 1 : argc, recover ? argv + 1 : argv, USAGE,
		    "Gives an administrator a new token, or makes one, by access to the database. "
	            "It is audited.",
		    options, &exit_status))
		return exit_status;
	if (!recover) {
		fprintf(stderr, "Usage: %s\n", USAGE);
		return EXIT_MISUSED;
	}
	if (!fields_is_id(principal)) {
		fprintf(stderr, "jitrca admin recover: --principal: [A-Za-z0-9:_-]{1,64} wanted\n");
		return EXIT_MISUSED;
	}
	if (config_load(&config, local_config_path(path), &err) != OK || ca_init(&err) != OK)
		return local_failed("admin recover", &err);
	(void)snprintf(standard, sizeof(standard), "%s/admin.token", config.data_dir);
	grant = (struct local_admin_grant){ .principal_id = principal,
		.action = "admin.recover",
		.token_file = token_file != NULL ? token_file : standard,
		.renew = true };
	if (local_grant_admin(&config, &grant, &made, &err) != OK)
		return local_failed("admin recover", &err);
	printf("principal %s (admin): new token in %s\n", principal, grant.token_file);
	return 0;
}
