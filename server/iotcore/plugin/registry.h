/*
 * server/iotcore/plugin/registry.h - what the broker knows of the local IoT Core: CAs,
 * certificates, things, groups, policies, in memory, so that no decision waits for PostgreSQL.
 *
 * One thread writes (the plugin's own, which follows the database); any may read. One mutex guards
 * it, held for a look-up or the exchange of one row, never across I/O. A policy is compiled outside
 * of it, and is counted: a grant keeps it alive.
 *
 * Memory for a certificate: 72 octets, its names' text (policies and things: typically 40), 16 of
 * the heap and 8 to 16 of the table: some 150 octets. A thing has 40 and its texts. A million
 * devices: 300 MB at most.
 */
#ifndef SERVER_IOTCORE_PLUGIN_REGISTRY_H
#define SERVER_IOTCORE_PLUGIN_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"
#include "db/iotcore_broker.h"
#include "server/iotcore/plugin/siphash.h"
#include "server/iotcore/policy.h"

#define REGISTRY_ID_BYTES 32 /* SHA-256 of the DER */

struct registry;
/* key is that of its tables, copied: random, and the same for all that are exchanged. */
MUST_USE enum status registry_new(
	struct registry **out, const struct siphash_key *key, struct err *err);
void registry_free(struct registry *registry); /* NULL is welcome; grants may outlive it */
typedef struct registry own_registry;          /* for own() */
OWNER(own_registry, registry_free)

/*
 * Writing. put inserts or replaces; drop forgets, also what is not there. A policy's document that
 * cannot be parsed is kept as one that refuses everything: it may have been meant to deny.
 */
MUST_USE enum status registry_put(
	struct registry *registry, const struct db_broker_row *row, struct err *err);
void registry_drop(struct registry *registry, enum db_broker_kind kind, const char *key);
/*
 * Takes the content of from (made with the same key), which is empty afterwards, for its own: a
 * whole reload shows at once.
 */
void registry_exchange(struct registry *registry, struct registry *from);
/* Keys of a kind that are in the registry. */
size_t registry_count(const struct registry *registry, enum db_broker_kind kind);

/* Reading. */
enum registry_status {
	REGISTRY_UNKNOWN = 0,
	REGISTRY_PENDING_ACTIVATION,
	REGISTRY_ACTIVE,
	REGISTRY_OTHER, /* INACTIVE, REVOKED, PENDING_TRANSFER: not let in */
};

struct registry_certificate {
	enum registry_status status;
	bool has_ca;
	uint8_t ca_id[REGISTRY_ID_BYTES];
	int64_t created_at_ms;
};
/* Status REGISTRY_UNKNOWN: there is none. */
void registry_certificate(struct registry *registry, const uint8_t id[REGISTRY_ID_BYTES],
	struct registry_certificate *out);

/* Grows with every change of a CA. */
uint64_t registry_ca_generation(const struct registry *registry);
/* Whether new certificates of this CA may be registered: it is ACTIVE, and set to. */
bool registry_ca_registers(struct registry *registry, const uint8_t id[REGISTRY_ID_BYTES]);
/* Calls each() under the mutex for each CA that registers, with its DER. */
void registry_cas(struct registry *registry, void (*each)(void *arg, struct view der), void *arg);

/*
 * What a certificate may do under a client id: the policies attached to it and to the groups, and
 * the groups' ancestors, of all things that it is attached to. The thing of the policy variables is
 * the one attached exclusively, else the one named as the client id, if the certificate is attached
 * to it.
 */
struct registry_grant {
	enum registry_status status;
	/* Something could not be held (memory, too many policies) or understood (a document). */
	bool broken;
	size_t policy_count;
	const struct policy **policies; /* each counted; NULLs are none */
	bool has_thing;
	bool exclusive; /* to this thing alone */
	struct view thing_name, thing_type;
	struct policy_pair *attributes;
	size_t attribute_count;
};
#define REGISTRY_POLICIES_MAX 256
#define REGISTRY_DEPTH_MAX 16 /* of groups; AWS: 7 */

/* Never NULL but when memory is short (then it is as good as denied). Back with
 * registry_grant_free. */
struct registry_grant *registry_grant(
	struct registry *registry, const uint8_t id[REGISTRY_ID_BYTES], struct view client_id);
void registry_grant_free(struct registry_grant *grant); /* NULL is welcome */

#endif
