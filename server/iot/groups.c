#include "server/iot/groups.h"

#include <string.h>

static bool
is_live(const struct db_iot_certificate *certificate)
{
	return certificate->status == CERT_ACTIVE ||
		certificate->status == CERT_PENDING_CONFIRMATION;
}

void
iot_groups_of(struct iot_groups *out, const struct app *app,
	const struct db_iot_certificate *certificates, size_t count, bool live)
{
	out->count = 0;
	for (size_t i = 0; i < count; i++) {
		const struct ca_profile *profile = app_profile(app, certificates[i].profile);

		if (profile == NULL || (live && !is_live(&certificates[i])))
			continue;
		for (size_t k = 0; k < profile->thing_group_count; k++)
			if (!iot_groups_hold(out, profile->thing_groups[k]))
				out->at[out->count++] = profile->thing_groups[k];
	}
}

bool
iot_groups_hold(const struct iot_groups *groups, const char *name)
{
	for (size_t i = 0; i < groups->count; i++)
		if (strcmp(groups->at[i], name) == 0)
			return true;
	return false;
}

bool
iot_groups_next(const char **given, char name[IOT_NAME_BYTES])
{
	size_t len = strcspn(*given, "\n");

	if (len == 0 || len >= IOT_NAME_BYTES)
		return false;
	memcpy(name, *given, len);
	name[len] = '\0';
	*given += len + ((*given)[len] == '\n');
	return true;
}

bool
iot_groups_left_over(const struct iot_groups *wanted, const char *given)
{
	char name[IOT_NAME_BYTES];

	while (iot_groups_next(&given, name))
		if (!iot_groups_hold(wanted, name))
			return true;
	return false;
}
