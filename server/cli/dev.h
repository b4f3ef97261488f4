/*
 * server/cli/dev.h - the parts of `jitrca dev`: processes, a PostgreSQL cluster of its own, and the local
 * IoT Core with its broker.
 */
#ifndef SERVER_CLI_DEV_H
#define SERVER_CLI_DEV_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

#define DEV_PATH_BYTES 400 /* all paths fit into a configuration's value */
#define DEV_FILE_BYTES (DEV_PATH_BYTES + 64)

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

/* As IoT Core has them. */
#define DEV_IOT_ACCOUNT "123456789012"
#define DEV_IOT_REGION "eu-central-1"

struct dev_iot {
	const char *dir, *self, *config_path, *database_url, *ca_id; /* borrowed */
	int port_core, port_broker;
	char access_key[21], secret_key[41];
	pid_t core, broker;
};
/* Keys (made once), credentials as AWS's clients read them, the target; before the configuration is read. */
MUST_USE enum status dev_iot_prepare(struct dev_iot *iot, struct err *err);
/* The schema must be there; returns when it listens. */
MUST_USE enum status dev_iot_start_core(struct dev_iot *iot, struct err *err);
/* The server must run: it signs the broker's certificate. Returns when the broker listens. */
MUST_USE enum status dev_iot_start_broker(struct dev_iot *iot, struct err *err);
/* Our issuing CA with the local core; done already is well. */
MUST_USE enum status dev_iot_register_ca(const struct dev_iot *iot, struct err *err);
/* ERR_UNAVAILABLE dev_program: one of them has ended by itself. */
MUST_USE enum status dev_iot_check(struct dev_iot *iot, struct err *err);
void dev_iot_stop(struct dev_iot *iot);

bool dev_port_answers(int port); /* on 127.0.0.1 */

#endif
