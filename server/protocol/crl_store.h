/*
 * server/protocol/crl_store.h - the published CRLs as files, DATA_DIR/crl/CA/SCOPE.crl in DER (SCOPE:
 * full, 00 … ff), so that a server that starts while PostgreSQL is away has them to serve. The database
 * is what counts: a file follows the committed row, and one that is lost or spoilt costs nothing else.
 * One thread at a time per list.
 */
#ifndef SERVER_PROTOCOL_CRL_STORE_H
#define SERVER_PROTOCOL_CRL_STORE_H

#include <stdbool.h>

#include "db/crl.h"

/* Whole or not at all. ERR_UNAVAILABLE crl_store. */
MUST_USE enum status crl_store_write(const char *data_dir, const struct db_crl *crl, struct err *err);

/* Hands each list that is there to each(), which takes it; issuer_id is 0. Spoilt ones are left out. */
void crl_store_read(const char *data_dir, void (*each)(void *arg, struct db_crl *crl), void *arg);

/*
 * Says whose lists DATA_DIR/crl/CA holds. False: those of another certificate of that id, an earlier CA's;
 * they are deleted.
 */
bool crl_store_claim(const char *data_dir, const char *ca_id, struct view certificate);

#endif
