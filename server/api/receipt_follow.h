/*
 * server/api/receipt_follow.h - who wants to know how a receipt goes on: as a stream of server-sent events
 * (WHATWG HTML 9.2), or with one answer once all is done (RFC 7240 4.3, Prefer: wait). No thread waits for
 * either: one looks at all receipts that are followed, each once however many follow it.
 */
#ifndef SERVER_API_RECEIPT_FOLLOW_H
#define SERVER_API_RECEIPT_FOLLOW_H

#include "server/http/request.h"

struct app;
struct receipt_follow;

MUST_USE enum status receipt_follow_start(struct receipt_follow **out, struct app *app, struct err *err);
/* Ends streams, and answers who waits: before http_stop. Later ones are refused. */
void receipt_follow_stop(struct receipt_follow *follow);
void receipt_follow_free(struct receipt_follow *follow); /* stopped, or NULL */

/*
 * Answers request with the receipt of that id: by what it accepts and prefers at once, as it goes on, or
 * at the end. ERR_NOT_FOUND revocation_unknown; ERR_UNAVAILABLE receipt_followers_full, server_stopping.
 */
MUST_USE enum status receipt_follow_reply(struct app *app, struct request *request, const char *id,
	struct err *err);

#endif
