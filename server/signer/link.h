/*
 * server/signer/link.h - the frontend's end of a channel to the signer process. The supervisor hands
 * over a new descriptor whenever it has restarted the signer; until then every call answers
 * ERR_UNAVAILABLE signer_away with retry_after_s 1.
 */
#ifndef SERVER_SIGNER_LINK_H
#define SERVER_SIGNER_LINK_H

#include "ca/signer.h"

struct signer_link;

MUST_USE enum status signer_link_new(struct signer_link **out, struct err *err);
void signer_link_free(struct signer_link *link);
/*
 * What a fresh signer is told before it does anything else: the block list (server/issuance/). Called
 * on the thread that acquires; until it has answered OK once, the signer is not handed out. Set before
 * the first acquire.
 */
void signer_link_greet(struct signer_link *link,
	enum status (*greet)(void *arg, struct ca_signer *signer, struct err *err), void *arg);
/* A new descriptor from the supervisor; taken. From any thread; never waits for a call under way. */
void signer_link_connect(struct signer_link *link, int fd);
/*
 * Borrows the signer for one sequence of calls; locks the link until signer_link_release. generation
 * changes with every connect: handles of another generation are gone.
 */
MUST_USE enum status signer_link_acquire(struct signer_link *link, struct ca_signer **out,
	uint64_t *generation, struct err *err);
/* broken: a call answered signer_away; the link drops the signer and waits for a new one. */
void signer_link_release(struct signer_link *link, bool broken);
bool signer_link_up(struct signer_link *link);

#endif
