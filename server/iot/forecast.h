/*
 * server/iot/forecast.h - what a revocation or hold of many certificates costs at a target's quotas: calls,
 * and how long at best until the last has taken effect there. Revocations go first, so only those that wait
 * already are ahead. At most: what IoT Core has never seen needs nothing, and is not told apart here.
 */
#ifndef SERVER_IOT_FORECAST_H
#define SERVER_IOT_FORECAST_H

#include "server/iot/target.h"

struct iot_forecast_ask {
	bool hold;            /* else revoked */
	int64_t certificates; /* of profiles that have policies there */
	int64_t policies;     /* attached to all of them together */
	int64_t ahead;        /* certificates that are being worked off; counted for time alone */
};

struct iot_forecast {
	int64_t calls;
	int64_t seconds;
};
void iot_forecast_make(struct iot_forecast *out, const struct iot_target *target,
	const struct iot_forecast_ask *ask);

/*
 * How many devices an hour may rotate at most, so that what it takes there keeps within the quotas: the
 * successor is let in, the predecessor taken out. policies: of the profile that has the most.
 */
int64_t iot_forecast_rotations_per_hour(const struct iot_target *target, int64_t policies);

#endif
