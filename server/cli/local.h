/*
 * server/cli/local.h - subcommands that work on this machine: files and the database, not the REST API.
 * What they share: options, messages, the way to configuration and database.
 */
#ifndef SERVER_CLI_LOCAL_H
#define SERVER_CLI_LOCAL_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "ca/secret.h"
#include "db/db.h"
#include "server/config.h"

int local_init(int argc, char **argv);
int local_migrate(int argc, char **argv);
int local_serve(int argc, char **argv);
int local_config(int argc, char **argv);
int local_health(int argc, char **argv);
int local_version(int argc, char **argv);
int local_admin(int argc, char **argv);
int local_dev(int argc, char **argv);

#define EXIT_REFUSED 1
#define EXIT_MISUSED 2

/* One option of a subcommand; a table ends with a NULL name. text or flag gets it. */
struct local_option {
	const char *name; /* "config": --config */
	const char *value; /* "FILE", or NULL for a flag */
	const char *about;
	const char **text;
	bool *flag;
};

/*
 * Reads argv (argv[0] is the subcommand's name). True: go on. False: *exit_status says how to end, the
 * help or the error is printed. usage: "jitrca init [OPTION]…"; no other arguments are taken.
 */
MUST_USE bool local_options(int argc, char **argv, const char *usage, const char *about,
	const struct local_option *options, int *exit_status);

/* "jitrca init: text (code)" on stderr; returns EXIT_REFUSED. */
int local_failed(const char *command, const struct err *err);

/* path NULL: $JITRCA_CONFIG, else /etc/jitrca/jitrca.conf if it is there, else none. */
const char *local_config_path(const char *path);

/* Migrates; *applied says how many steps were missing. */
MUST_USE enum status local_database_migrate(const struct config *config, size_t *applied,
	struct err *err);

/* Whom an admin's token is for, and how that is recorded. */
struct local_admin_grant {
	const char *principal_id;
	const char *token_file;
	const char *action; /* of the audit record */
	bool renew;         /* also for one that exists: enabled again, with a new token */
};
/*
 * Makes the principal (role admin) and a token, whose text goes into token_file (0600) alone; one
 * transaction with its audit record. *made false: the principal is there and renew is not set.
 */
MUST_USE enum status local_grant_admin(const struct config *config, const struct local_admin_grant *grant,
	bool *made, struct err *err);

/* A station for development, open to device-1 … device-1000, and a token for it in token_file; done once. */
MUST_USE enum status local_grant_demo_station(const struct config *config, const char *station_id,
	const char *token_file, bool *made, struct err *err);

#endif
