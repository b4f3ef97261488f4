/* tests/unit/plugin/world.h - rows as the database would give them, for a registry. */
#ifndef TESTS_UNIT_PLUGIN_WORLD_H
#define TESTS_UNIT_PLUGIN_WORLD_H

#include "tests/unit/base/test.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/iotcore/plugin/registry.h"

#define ID(digit) digit digit digit digit digit digit digit digit
#define ID64(pair) ID(pair) ID(pair) ID(pair) ID(pair)

UNUSED static const struct siphash_key KEY = { { 0x0706050403020100u, 0x0f0e0d0c0b0a0908u } };

#define ALLOW_ALL                                                                                  \
	"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"iot:*\","   \
	"\"Resource\":\"*\"}]}"
#define DENY_ALL                                                                                   \
	"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Deny\",\"Action\":\"iot:*\","    \
	"\"Resource\":\"*\"}]}"

UNUSED static struct db_broker_row
policy_row(const char *name, const char *document)
{
	return (struct db_broker_row){ .kind = BROKER_POLICY,
		.key = view_text(name),
		.policy.document = view_text(document) };
}

UNUSED static struct db_broker_row
group_row(const char *name, const char *parent, const char *policies)
{
	return (struct db_broker_row){ .kind = BROKER_GROUP,
		.key = view_text(name),
		.group = { .parent = view_text(parent), .policies = view_text(policies) } };
}

UNUSED static struct db_broker_row
thing_row(const char *name, const char *attributes, const char *groups)
{
	return (struct db_broker_row){ .kind = BROKER_THING,
		.key = view_text(name),
		.thing = { .type = view_text("meter"),
			.attributes = view_text(attributes),
			.groups = view_text(groups) } };
}

UNUSED static struct db_broker_row
certificate_row(const char *id, const char *status, const char *policies, const char *things)
{
	return (struct db_broker_row){ .kind = BROKER_CERTIFICATE,
		.key = view_text(id),
		.certificate = { .ca_id = view_text(ID64("ca")),
			.status = view_text(status),
			.created_at_ms = 1700000000123,
			.policies = view_text(policies),
			.things = view_text(things) } };
}

UNUSED static void
put(struct registry *registry, struct db_broker_row row)
{
	struct err err = { .status = ERR_INTERNAL };

	if (registry_put(registry, &row, &err) != OK)
		fail_msg("%s %s", err.code, err.text);
}

UNUSED static const uint8_t *
id_octets(const char *id)
{
	static uint8_t octets[REGISTRY_ID_BYTES];

	assert_true(hex_decode(octets, sizeof(octets), id, strlen(id)));
	return octets;
}

#endif
