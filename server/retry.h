/*
 * server/retry.h - a transaction that met a deadlock or a serialisation failure is run again: it says
 * nothing about what was asked. The one place that says how often.
 *
 *	unsigned tries = 0;
 *
 *	do
 *		status = change_once(…, err);
 *	while (retry_due(&tries, status, err));
 */
#ifndef SERVER_RETRY_H
#define SERVER_RETRY_H

#include <stdbool.h>

#include "base/err.h"

/* True, and counted in *tries, when err says database_retry and it was not tried too often yet. */
MUST_USE bool retry_due(unsigned *tries, enum status status, const struct err *err);

#endif
