#include "server/iot/forecast.h"

#include <stddef.h>

/* What server/iot/apply.c does for one certificate; a policy is detached by a call of its own. */
static const char *const REVOKE[] = { "UpdateCertificate", "DetachThingPrincipal",
	"ListAttachedPolicies", NULL };
static const char *const HOLD[] = { "UpdateCertificate", "CreateThing", "DescribeThing",
	"ListAttachedPolicies", "AttachThingPrincipal", NULL };

static double
seconds_of(const struct iot_target *target, const char *operation, int64_t calls)
{
	return (double)calls /
		aws_quota_find(target->quotas, target->quota_count, operation).per_second;
}

void
iot_forecast_make(struct iot_forecast *out, const struct iot_target *target,
	const struct iot_forecast_ask *ask)
{
	const char *const *operations = ask->hold ? HOLD : REVOKE;
	/* Those ahead have at least the one policy that every device has. */
	int64_t detached = ask->hold ? 0 : ask->policies + ask->ahead;
	double slowest = seconds_of(target, "DetachPolicy", detached);

	out->calls = ask->hold ? 0 : ask->policies;
	for (; *operations != NULL; operations++) {
		double seconds = seconds_of(target, *operations, ask->certificates + ask->ahead);

		out->calls += ask->certificates;
		if (seconds > slowest)
			slowest = seconds;
	}
	out->seconds = (int64_t)(slowest + 0.999);
}

/* For one device; each attached policy is one call more, and is detached by one. */
static const struct { const char *operation; int64_t calls; } ROTATE[] = {
	{ "UpdateCertificate", 2 }, { "AttachThingPrincipal", 1 }, { "DetachThingPrincipal", 1 },
	{ "DescribeThing", 1 }, { "ListAttachedPolicies", 2 },
};

int64_t
iot_forecast_rotations_per_hour(const struct iot_target *target, int64_t policies)
{
	double slowest = seconds_of(target, "AttachPolicy", policies);
	double detach = seconds_of(target, "DetachPolicy", policies);

	if (detach > slowest)
		slowest = detach;
	for (size_t i = 0; i < sizeof(ROTATE) / sizeof(ROTATE[0]); i++) {
		double seconds = seconds_of(target, ROTATE[i].operation, ROTATE[i].calls);

		if (seconds > slowest)
			slowest = seconds;
	}
	return (int64_t)(3600 / slowest);
}
