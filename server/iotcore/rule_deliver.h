/*
 * server/iotcore/rule_deliver.h - what topic rules send over HTTP: messages to the destinations of
 * matching rules, and the request that asks a destination for its confirmation; as AWS sends them.
 * POST, 3 s for each try, three tries on 429, 5xx and broken links, no redirects, TLS verified.
 *
 * Actions other than http (republish, sqs, sns, lambda) are kept with a rule and done by nobody here.
 *
 * Threads: any number at once.
 */
#ifndef SERVER_IOTCORE_RULE_DELIVER_H
#define SERVER_IOTCORE_RULE_DELIVER_H

#include "db/iotcore_rule.h"
#include "server/iotcore/op.h"

struct aws_transport;

struct rule_sender {
	const struct core *core;
	struct aws_transport *transport;
	const char *ca_file; /* of destinations; NULL: the system's */
};

/*
 * POSTs payload to every HTTP action of an enabled rule whose filter matches topic and whose URL a
 * confirmed and enabled destination covers. Returns when each has it or was given up, which the log
 * says. ERR_UNAVAILABLE: the database is away, or the transport is stopped; some may have it.
 */
MUST_USE enum status rule_deliver(const struct rule_sender *sender, const char *topic,
	const char *payload, struct err *err);

/* Asks for the confirmation and records what came of it. */
MUST_USE enum status rule_ask_confirmation(const struct rule_sender *sender,
	const struct db_confirmation *confirmation, struct err *err);

#endif
