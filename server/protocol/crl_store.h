/*
 * server/protocol/crl_store.h - the published CRLs as files, DATA_DIR/crl/CA/SCOPE.crl in DER (SCOPE:
 * full, delta, 00 … ff), so that large ones are served from them, and that a server that starts while
 * PostgreSQL is away has them to serve. The database is what counts: a file follows the committed row, and
 * one that is lost or spoilt costs nothing else. One thread at a time per list.
 */
#ifndef SERVER_PROTOCOL_CRL_STORE_H
#define SERVER_PROTOCOL_CRL_STORE_H

#include <stdbool.h>

#include "base/pile.h"
#include "ca/file.h"
#include "db/crl.h"

/* Where the lists of a CA are, and are made; the directory is there afterwards, if it can be made. */
MUST_USE enum status crl_store_dir(char out[FILE_PATH_BYTES], const char *data_dir, const char *ca_id,
	struct err *err);

/* Gives a list its name. ERR_UNAVAILABLE crl_store. */
MUST_USE enum status crl_store_keep(const char *data_dir, const struct db_crl *crl, struct pile *list,
	struct err *err);

/* Hands each list that is there to each(), which takes the pile; issuer_id is 0. Spoilt ones are left out. */
void crl_store_read(const char *data_dir,
	void (*each)(void *arg, const struct db_crl *crl, struct pile *list), void *arg);

/*
 * Says whose lists DATA_DIR/crl/CA holds, and deletes what was being made when a server died. False: those
 * of another certificate of that id, an earlier CA's; they are deleted.
 */
bool crl_store_claim(const char *data_dir, const char *ca_id, struct view certificate);

#endif
