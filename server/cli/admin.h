/*
 * server/cli/admin.h - the administrator's subcommands as a table: name, method, path, fields. One
 * function reads the arguments of any of them into a call, one makes the call and prints the answer.
 */
#ifndef SERVER_CLI_ADMIN_H
#define SERVER_CLI_ADMIN_H

#include <jansson.h>
#include <stdbool.h>

#include "server/cli/client.h"

/* Where an argument goes. Zero is refused. */
enum admin_where {
	ADMIN_NOWHERE = 0,
	ADMIN_PATH,     /* positional, in this order, into the {name} of the path */
	ADMIN_QUERY,    /* --name TEXT, in the query */
	ADMIN_HEADER,   /* --name TEXT, as the header `about` names */
	ADMIN_TEXT,     /* --name TEXT, a string of the body */
	ADMIN_INT,      /* --name N, an integer of the body */
	ADMIN_FLAG,     /* --name, true in the body */
	ADMIN_LIST,     /* --name A,B, an array of strings of the body */
	ADMIN_FILE,     /* --name FILE, its content as a string of the body */
	ADMIN_PAIR,     /* --name KEY=VALUE, repeatable: a member of the object that the field names */
	ADMIN_SELECTOR, /* --name TEXT, a member of the body's selector */
	ADMIN_SELECTOR_LIST, /* --name A,B, an array of strings there */
	ADMIN_SELECTOR_FLAG, /* --name, true there, under its key */
	ADMIN_SELECTOR_PAIR, /* --name KEY=VALUE, repeatable: a member of the object there, under its key */
	ADMIN_UPLOAD,   /* positional, last: a file (- is stdin) that is the body */
	ADMIN_FOLLOW,   /* --name: the receipt that the answer names is followed to its end, and printed */
};

struct admin_field {
	const char *name; /* of the API; the option is the same with - for _ */
	enum admin_where where;
	bool required;
	const char *value; /* "TEXT" in the help */
	const char *about;
	const char *key;   /* the API's name where it differs; ADMIN_HEADER: the header's name */
};

#define ADMIN_FIELDS_MAX 20

struct admin_verb {
	const char *name, *summary;
	const char *method, *path;
	struct admin_field fields[ADMIN_FIELDS_MAX];
	struct {
		const char *name, *value;
	} constant;          /* a string of the body that no argument gives; a NULL name: none */
	const char *list;    /* the answer's array; NULL: one object */
	const char *columns; /* of the table */
	const char *upload_type; /* of ADMIN_UPLOAD; NULL: by the file's name */
	bool follow;         /* as if --follow were given */
	bool download;       /* the answer is a file: stdout or --out FILE */
	bool save_pem;       /* --out FILE keeps certificate and chain */
	const char *must;    /* a member that must be true, or the exit code is 1 */
};

struct admin_group {
	const char *name, *summary;
	const struct admin_verb *verbs; /* ended by one without a name */
};

extern const struct admin_group ADMIN_GROUPS[]; /* ended by one without a name */

/* The arguments, read. */
struct admin_call {
	const struct admin_verb *verb;
	struct client_setup setup;
	bool json, all, help, follow;
	const char *out;    /* --out */
	const char *upload; /* ADMIN_UPLOAD */
	const char *header; /* with `Name: ` before it */
	char header_text[320];
	struct buf path; /* with the query, encoded, NUL-terminated */
	bool has_query;
	json_t *body; /* NULL: none */
};
void admin_call_free(struct admin_call *call);
OWNER_STRUCT(admin_call, admin_call_free)

/*
 * argv[0] is the verb's name. ERR_ARGUMENT usage: the text says what is wrong. Files named by ADMIN_FILE
 * are read; nothing is sent.
 */
MUST_USE enum status admin_parse(struct admin_call *out, const struct admin_verb *verb, int argc,
	char **argv, struct err *err);

/* One of the subcommands: argv[0] is the group's name. The program's exit code. */
int admin_main(const char *group, int argc, char **argv);

#endif
