#include "base/entropy.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static enum status
system_fill(struct entropy *self, uint8_t *out, size_t len, struct err *err)
{
	(void)self;
	while (len > 0) {
		ssize_t got = getrandom(out, len, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return err_set(err, ERR_UNAVAILABLE, "entropy", "getrandom: %s",
				strerror(errno));
		out += got;
		len -= (size_t)got;
	}
	return OK;
}

struct entropy ENTROPY_SYSTEM = { .fill = system_fill };

/* splitmix64: any seed gives a full-period sequence, which is all that a test needs. */
static enum status
fixed_fill(struct entropy *self, uint8_t *out, size_t len, struct err *err)
{
	(void)err;
	for (size_t i = 0; i < len; i++) {
		uint64_t z = self->state += UINT64_C(0x9e3779b97f4a7c15);

		z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
		out[i] = (uint8_t)((z ^ z >> 31) & 255);
	}
	return OK;
}

struct entropy
entropy_insecure_fixed(uint64_t seed)
{
	return (struct entropy){ .fill = fixed_fill, .state = seed };
}
