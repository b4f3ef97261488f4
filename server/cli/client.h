/*
 * server/cli/client.h - one call of the REST API over TLS (libcurl). The server is checked against the
 * CA bundle given, no other; redirects are not followed; the token goes to https:// only.
 */
#ifndef SERVER_CLI_CLIENT_H
#define SERVER_CLI_CLIENT_H

#include <stdio.h>

#include "base/bytes.h"
#include "base/err.h"

struct client_setup {
	const char *url;        /* "https://ca.example.com:8443"; a trailing / is dropped */
	const char *ca_bundle;  /* PEM file; NULL: the system's */
	const char *token_file; /* NULL: JITRCA_ADMIN_TOKEN, or none */
	long timeout_ms;        /* for a whole call; 0: as long as something comes */
};

struct client_call {
	const char *method;
	const char *path;          /* with its query, encoded */
	const char *content_type;  /* NULL: no body */
	struct view body;          /* or: */
	FILE *upload;              /* the body, from where it stands; borrowed */
	const char *header;        /* "Idempotency-Key: …", or NULL */
	const char *accept;        /* "text/event-stream", or NULL */
	FILE *download;            /* where a good answer goes instead of body; borrowed, or NULL */
	/* Or here, piece by piece as it comes; false ends it. NULL: nowhere. */
	bool (*take)(void *arg, const char *data, size_t len);
	void *take_arg;
};

struct client_answer {
	long status;
	char content_type[80];
	struct buf body;
};
void client_answer_free(struct client_answer *answer);
OWNER_STRUCT(client_answer, client_answer_free)

/* Any HTTP status is OK here. ERR_UNAVAILABLE server_unreachable; ERR_ARGUMENT url_malformed; secret_*. */
MUST_USE enum status client_run(const struct client_setup *setup, const struct client_call *call,
	struct client_answer *answer, struct err *err);

#endif
