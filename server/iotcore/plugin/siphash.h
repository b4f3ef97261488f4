/*
 * server/iotcore/plugin/siphash.h - SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input
 * PRF", 2012), 64 bits, keyed. Whoever does not know the key cannot find two texts of one hash: so
 * names that clients choose fill no chain on purpose, and a decision kept under a topic's hash is
 * that topic's.
 */
#ifndef SERVER_IOTCORE_PLUGIN_SIPHASH_H
#define SERVER_IOTCORE_PLUGIN_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct siphash_key {
	uint64_t k[2];
};

uint64_t siphash(const struct siphash_key *key, const void *data, size_t len);

#endif
