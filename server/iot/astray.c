#include "server/iot/astray.h"

#include <string.h>

#include "db/device.h"
#include "db/iot.h"
#include "db/iot_missing.h"
#include "db/outbox.h"
#include "server/app.h"
#include "server/iot/groups.h"

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

const char *
iot_astray_kind(enum iot_astray astray)
{
	static const char *const KINDS[] = { "", "thing_group_missing", "thing_group_left_over" };

	return KINDS[astray];
}

struct look {
	char device_id[DB_ID_BYTES];
	const struct ca_profile *profile; /* NULL: its groups are of no interest */
	bool left_over;
};

static enum status
look_for_left_over(struct iot_site *site, struct db_tx *tx, struct look *look, struct err *err)
{
	struct db_iot_certificate certificates[IOT_PLAN_CERTIFICATES_MAX];
	struct db_iot_device device = { .device_id = look->device_id, .certificates = certificates };
	struct iot_groups wanted;

	TRY(db_iot_devices_read(tx, site->target->name, &device, 1, IOT_PLAN_CERTIFICATES_MAX, err));
	iot_groups_of(&wanted, site->room->app, certificates, device.count, true);
	look->left_over = iot_groups_left_over(&wanted, device.given);
	return OK;
}

static enum status
look_up(struct iot_site *site, const struct iot_certificate *item, struct look *look, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_iot_certificate row;
	uint8_t sha256[DB_SHA256_BYTES];
	struct db_device device;
	bool found;

	*look = (struct look){ .profile = NULL };
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
	memcpy(look->device_id, row.device_id, sizeof(row.device_id));
	look->profile = app_profile(site->room->app, row.profile);
	return look_for_left_over(site, &tx, look, err);
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
ask(struct iot_site *site, const struct look *look, enum iot_astray *astray, struct err *err)
{
	struct iot iot = iot_site_calls(site, AWS_PRIORITY_NORMAL);
	struct iot_cursor cursor = { .done = false };
	const struct ca_profile *profile = look->profile;
	struct iot_name there[GROUPS_MAX];
	size_t count = 0;
	enum status status;

	status = iot_list_thing_groups_for_thing(&iot, look->device_id, &cursor, there, GROUPS_MAX,
		&count, err);
	if (status == ERR_NOT_FOUND)
		*astray = IOT_ASTRAY_MISSING;
	if (status != OK)
		return status == ERR_NOT_FOUND ? OK : status;
	for (size_t i = 0; i < profile->thing_group_count; i++)
		if (!holds(there, count, profile->thing_groups[i]))
			*astray = IOT_ASTRAY_MISSING;
	return OK;
}

static enum status
any_given(struct iot_site *site, bool *any, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, site->room->app->pool, err));
	return db_iot_groups_any(&tx, site->target->name, any, err);
}

enum status
iot_astray_find(struct iot_site *site, const struct iot_certificate *items, size_t count,
	enum iot_astray *astray, struct err *err)
{
	bool any = iot_astray_asks(site->room->app);

	memset(astray, 0, count * sizeof(*astray));
	if (!any)
		TRY(any_given(site, &any, err));
	for (size_t i = 0; any && i < count; i++) {
		struct look look;

		TRY(look_up(site, &items[i], &look, err));
		if (look.left_over)
			astray[i] = IOT_ASTRAY_LEFT_OVER;
		/* What is missing is repaired with what is left over, but not the other way round. */
		if (look.profile != NULL && look.profile->thing_group_count > 0)
			TRY(ask(site, &look, &astray[i], err));
	}
	return OK;
}

enum status
iot_astray_repair(struct iot_site *site, struct db_tx *tx, const char *device_id,
	enum iot_astray astray, struct err *err)
{
	/* The worker finds nothing applied, and applies all of it. */
	if (astray == IOT_ASTRAY_MISSING)
		TRY(db_iot_device_forget(tx, site->target->name, device_id, err));
	return db_outbox_put_device(tx, device_id, "reconcile", OUTBOX_UPKEEP, err);
}
