/* server/cli/dev.h - the parts of `jitrca dev`: processes, and a PostgreSQL cluster of its own. */
#ifndef SERVER_CLI_DEV_H
#define SERVER_CLI_DEV_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

#define DEV_PATH_BYTES 400 /* all paths fit into a configuration's value */

/* How a program is started. */
struct dev_program {
	const char *const *argv; /* argv[0] is its path; NULL-terminated */
	bool as_postgres;        /* when root: as user postgres */
	int end_with;            /* the signal that it gets when we die */
	const char *output;      /* a file that stdout and stderr are appended to; NULL: ours */
	bool own_group;          /* Ctrl-C does not reach it: we end it in order */
};
MUST_USE enum status dev_spawn(const struct dev_program *program, pid_t *pid, struct err *err);
/* Runs it to its end; ERR_UNAVAILABLE dev_program when that is not success. */
MUST_USE enum status dev_run(const struct dev_program *program, struct err *err);
/* Signals it and waits, at most limit_ms; then kills it. pid 0: nothing. */
void dev_end(pid_t *pid, int sig, int limit_ms);

struct dev_postgres {
	char bin[DEV_PATH_BYTES]; /* where initdb and postgres are */
	char dir[DEV_PATH_BYTES]; /* data/, the socket, log */
	char url[DEV_PATH_BYTES];
	pid_t pid;
};
/*
 * Makes the cluster under dir unless it is there (with role and database `jitrca`), starts it on a Unix
 * socket alone, and waits until it answers. When its user could not reach dir, it lies in
 * /var/lib or /var/tmp and dir is a symbolic link to it.
 */
MUST_USE enum status dev_postgres_start(struct dev_postgres *postgres, const char *dir, struct err *err);
void dev_postgres_stop(struct dev_postgres *postgres);

#endif
