/* jitrca: one program, many subcommands; each has --help. */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/attr.h"
#include "server/cli/cli.h"
#include "server/cli/doctor.h"
#include "server/cli/local.h"
#include "server/frontend.h"
#include "server/iotcore/main.h"
#include "server/signer/main.h"
#include "server/suggest.h"

#define COMMANDS_MAX 64

static const struct cli_command LOCAL_COMMANDS[] = {
	{ "init", "make keys, schema and the first administrator", local_init },
	{ "serve", "run the server", local_serve },
	{ "iotcore", "run the local IoT Core's control plane", local_iotcore },
	{ "migrate", "bring the database's schema up to date", local_migrate },
	{ "config", "check the configuration and print it, documented", local_config },
	{ "admin", "recover: a new administrator's token, by access to the database", local_admin },
	{ "dev", "a whole stack for development: database, CA, server", local_dev },
	{ "doctor", "what is wrong, or will be, and what to do", local_doctor },
	{ "health", "ask a server on this machine whether it is ready", local_health },
	{ "version", "print the version", local_version },
	{ NULL, NULL, NULL },
};

/* Started by `jitrca serve`, not by people. */
static const struct cli_command PROCESSES[] = {
	{ "signer", NULL, signer_main },
	{ "frontend", NULL, frontend_main },
	{ NULL, NULL, NULL },
};

static const struct cli_command *const TABLES[] = { LOCAL_COMMANDS, CLI_ADMIN_COMMANDS };

static const struct cli_command *
find(const struct cli_command *table, const char *name)
{
	for (; table->name != NULL; table++)
		if (strcmp(table->name, name) == 0)
			return table;
	return NULL;
}

static void
print_commands(const struct cli_command *table)
{
	for (; table->name != NULL; table++)
		printf("  %-12s %s\n", table->name, table->summary);
}

static int
help(void)
{
	printf("jitrca %s: a private certificate authority for device fleets\n\nUsage: jitrca "
	       "COMMAND [OPTION]..."
	       "\n\nOn the server:\n",
		JITRCA_VERSION);
	print_commands(LOCAL_COMMANDS);
	printf("\nOver its REST API:\n");
	print_commands(CLI_ADMIN_COMMANDS);
	printf("\nEach has --help.\n");
	return 0;
}

static int
unknown(const char *name)
{
	const char *names[COMMANDS_MAX];
	size_t count = 0;

	for (size_t i = 0; i < COUNT_OF(TABLES); i++)
		for (const struct cli_command *at = TABLES[i];
			at->name != NULL && count < COMMANDS_MAX; at++)
			names[count++] = at->name;
	fprintf(stderr,
		"jitrca: there is no command '%s'; did you mean '%s'? `jitrca --help` lists all.\n",
		name, suggest_nearest(name, names, count));
	return EXIT_MISUSED;
}

int
main(int argc, char **argv)
{
	const struct cli_command *command;

	if (argc < 2 || strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
		strcmp(argv[1], "-h") == 0) {
		(void)help();
		return argc < 2 ? EXIT_MISUSED : 0;
	}
	if (strcmp(argv[1], "--version") == 0)
		return local_version(1, argv);
	command = find(PROCESSES, argv[1]);
	if (command != NULL) {
		char name[16];

		/* /proc/self/exe would be called "exe" in ps. */
		(void)snprintf(name, sizeof(name), "jitrca-%s", command->name);
		(void)prctl(PR_SET_NAME, name);
	}
	for (size_t i = 0; command == NULL && i < COUNT_OF(TABLES); i++)
		command = find(TABLES[i], argv[1]);
	return command == NULL ? unknown(argv[1]) : command->run(argc - 1, argv + 1);
}
