/*
 * server/iotcore/rule_worker.h - threads that send what topic rules have to send: woken by the
 * database, they ask new destinations for their confirmation and deliver what the broker wrote down.
 * A message is delivered at least once, unless its endpoint refuses it three times; what nobody could
 * deliver for ten minutes is dropped, for the log to tell.
 */
#ifndef SERVER_IOTCORE_RULE_WORKER_H
#define SERVER_IOTCORE_RULE_WORKER_H

#include "server/iotcore/op.h"

struct rule_worker;

/* Borrows core and the texts. ca_file: of destinations; "": the system's. */
MUST_USE enum status rule_worker_start(struct rule_worker **out, const struct core *core,
	const char *database_url, const char *ca_file, struct err *err);
/* Ends what is under way; it is delivered again after the next start. NULL is welcome. */
void rule_worker_stop(struct rule_worker *worker);

#endif
