/*
 * server/protocol/ocsp.h - the OCSP responder (RFC 6960, RFC 5019, RFC 9654): POST /ocsp and
 * GET /ocsp/<base64>, for every CA whose key is here.
 *
 * What was asked before is answered from memory on the thread that read it, as long as this server may
 * believe what it remembers (server/freshness.h). All else goes to one thread, which takes whatever
 * arrived while it was at work: one look-up in the database for all, one exchange with the signer, then
 * the answers. It also has a responder's certificate issued to each CA that was asked about, through the
 * pipeline as any other, and renewed when half of its life is over.
 *
 * Nothing is said that the database did not say: while it is away, or what is remembered is not to be
 * believed, the answer is tryLater.
 */
#ifndef SERVER_PROTOCOL_OCSP_H
#define SERVER_PROTOCOL_OCSP_H

#include "server/http/route.h"

struct app;
struct ocsp;

/* The CAs of app are known, and its pipeline runs. */
MUST_USE enum status ocsp_start(struct ocsp **out, struct app *app, struct err *err);
/* Answers what waits, and joins the thread; ocsp_changed may still be called. NULL is welcome. */
void ocsp_stop(struct ocsp *ocsp);
void ocsp_free(struct ocsp *ocsp); /* stopped, or NULL */

/* A notification of jitrca_revocation: what is remembered of the serials in it is forgotten. */
void ocsp_changed(struct ocsp *ocsp, const char *payload);
/* What was notified was not heard for a while: forgets everything. */
void ocsp_forget_all(struct ocsp *ocsp);

/* "" or why answers cannot be signed. */
void ocsp_trouble(struct ocsp *ocsp, char *why, size_t size);
/* Prometheus text, appended. */
MUST_USE enum status ocsp_metrics_print(struct ocsp *ocsp, struct buf *out, struct err *err);

extern const struct route OCSP_ROUTES[];

#endif
