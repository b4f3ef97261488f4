/*
 * server/cli/cli.h - the administrator's subcommands: a thin client of the REST API over TLS. They read
 * JITRCA_URL, JITRCA_CA_BUNDLE and JITRCA_ADMIN_TOKEN, or --url, --ca-bundle and --token-file, and
 * print a table, or with --json what the server said.
 *
 * Exit codes: 0 done; 1 refused or out of reach (detail and code on stderr); 2 misused.
 */
#ifndef SERVER_CLI_CLI_H
#define SERVER_CLI_CLI_H

/* One subcommand of the program; argv[0] is its name. A table of them ends with a NULL name. */
struct cli_command {
	const char *name, *summary;
	int (*run)(int argc, char **argv);
};

extern const struct cli_command CLI_ADMIN_COMMANDS[];

/* `jitrca audit`: calls of the API, and what needs no server (server/cli/audit.c). */
int cli_audit(int argc, char **argv);

#endif
