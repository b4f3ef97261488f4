#include "server/iot/astray.h"

#include <string.h>

#include "db/device.h"
#include "db/iot.h"
#include "db/iot_missing.h"
#include "db/outbox.h"
#include "server/app.h"

/* AWS lets a thing be in ten. */
#define GROUPS_MAX 20

bool
iot_astray_asks(const struct app *app)
{
	for (size_t i = 0; i < app->profile_count; i++)
		if (app->profiles[i].thing_group_count > 0)
			return true;
	return false;
}

/* *profile NULL: its groups are of no interest. */
static enum status
look_up(struct iot_site *site, const struct iot_certificate *item, char device_id[DB_ID_BYTES],
	const struct ca_profile **profile, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_iot_certificate row;
	uint8_t sha256[DB_SHA256_BYTES];
	struct db_device device;
	bool found;

	*profile = NULL;
	if (item->status != IOT_STATUS_ACTIVE ||
	    !hex_decode(sha256, sizeof(sha256), item->id, strlen(item->id)))
		return OK;
	TRY(db_tx_begin(&tx, site->room->app->pool, err));
	TRY(db_iot_certificate_find(&tx, site->target->name, sha256, &row, &found, err));
	if (!found || row.device_id[0] == '\0' ||
	    (row.status != CERT_ACTIVE && row.status != CERT_PENDING_CONFIRMATION))
		return OK;
	TRY(db_device_find(&tx, row.device_id, &device, err));
	if (strcmp(device.status, "active") != 0)
		return OK;
	memcpy(device_id, row.device_id, sizeof(row.device_id));
	*profile = app_profile(site->room->app, row.profile);
	return OK;
}

static bool
holds(const struct iot_name *names, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(names[i].text, name) == 0)
			return true;
	return false;
}

static enum status
ask(struct iot_site *site, const char *thing, const struct ca_profile *profile, bool *astray,
	struct err *err)
{
	struct iot iot = iot_site_calls(site, AWS_PRIORITY_NORMAL);
	struct iot_cursor cursor = { .done = false };
	struct iot_name there[GROUPS_MAX];
	size_t count = 0;
	enum status status;

	status = iot_list_thing_groups_for_thing(&iot, thing, &cursor, there, GROUPS_MAX, &count, err);
	*astray = status == ERR_NOT_FOUND;
	if (*astray)
		return OK;
	TRY(status);
	for (size_t i = 0; i < profile->thing_group_count && !*astray; i++)
		*astray = !holds(there, count, profile->thing_groups[i]);
	return OK;
}

enum status
iot_astray_find(struct iot_site *site, const struct iot_certificate *items, size_t count, bool *astray,
	struct err *err)
{
	memset(astray, 0, count * sizeof(*astray));
	if (!iot_astray_asks(site->room->app))
		return OK;
	for (size_t i = 0; i < count; i++) {
		const struct ca_profile *profile;
		char device_id[DB_ID_BYTES];

		TRY(look_up(site, &items[i], device_id, &profile, err));
		if (profile != NULL && profile->thing_group_count > 0)
			TRY(ask(site, device_id, profile, &astray[i], err));
	}
	return OK;
}

enum status
iot_astray_repair(struct iot_site *site, struct db_tx *tx, const char *device_id, struct err *err)
{
	TRY(db_iot_device_forget(tx, site->target->name, device_id, err));
	return db_outbox_put_device(tx, device_id, "reconcile", OUTBOX_UPKEEP, err);
}
