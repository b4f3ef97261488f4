/* base/entropy.h - randomness, handed in so that tests can fix it. */
#ifndef BASE_ENTROPY_H
#define BASE_ENTROPY_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct entropy {
	/* Fills all of out or fails; ERR_UNAVAILABLE (entropy). */
	enum status (*fill)(struct entropy *self, uint8_t *out, size_t len, struct err *err);
	uint64_t state; /* of entropy_fixed */
};

/* The kernel's CSPRNG (getrandom(2)). Safe from any thread. */
extern struct entropy ENTROPY_SYSTEM;
/* A repeatable sequence. For tests only; never for a key or a serial that leaves the machine. */
struct entropy entropy_insecure_fixed(uint64_t seed);

MUST_USE static inline enum status
entropy_fill(struct entropy *entropy, uint8_t *out, size_t len, struct err *err)
{
	return entropy->fill(entropy, out, len, err);
}

#endif
