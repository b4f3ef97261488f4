/* server/api/revocations.h - the receipt of a revocation of one certificate, for the call that makes it. */
#ifndef SERVER_API_REVOCATIONS_H
#define SERVER_API_REVOCATIONS_H

#include "db/certificate.h"
#include "server/http/request.h"

#define REVOCATION_ID_BYTES 33

/*
 * Makes the receipt of row's revocation (or hold), which this transaction has just made. id is what GET
 * /v1/revocations/{id} takes.
 */
MUST_USE enum status revocations_note_single(struct db_tx *tx, const struct request *request,
	const struct db_certificate *row, enum revocation_reason reason, const char *comment,
	int64_t now_s, char id[REVOCATION_ID_BYTES], struct err *err);

#endif
