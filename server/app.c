#include "server/app.h"

#include <string.h>

const struct ca_profile *
app_profile(const struct app *app, const char *name)
{
	for (size_t i = 0; i < app->profile_count; i++)
		if (strcmp(app->profiles[i].name, name) == 0)
			return &app->profiles[i];
	return NULL;
}

const struct app_ca *
app_ca_by_id(const struct app *app, const char *ca_id)
{
	for (size_t i = 0; i < app->ca_count; i++)
		if (strcmp(app->cas[i].ca_id, ca_id) == 0)
			return &app->cas[i];
	return NULL;
}

const struct app_ca *
app_ca_by_issuer(const struct app *app, int32_t issuer_id)
{
	for (size_t i = 0; i < app->ca_count; i++)
		if (app->cas[i].issuer_id == issuer_id)
			return &app->cas[i];
	return NULL;
}
