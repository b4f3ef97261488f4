/*
 * server/iot/register_ca.h - our CAs in IoT Core: register (with the proof that we hold the key, where the
 * mode wants one), switch off, delete. What is there already is adopted. The state is kept (iot_ca) and
 * audited.
 */
#ifndef SERVER_IOT_REGISTER_CA_H
#define SERVER_IOT_REGISTER_CA_H

#include "server/iot/room.h"

struct iot_ca_change {
	struct iot_site *site;
	const struct app_ca *ca;
	const char *actor;
	const char *request_id;
};

/*
 * Active and with auto-registration on, whatever it was. ERR_CONFLICT iot_ca_template: it has a
 * registrationConfig, with which IoT Core provisions by itself; else as iot_api.h and the pipeline say.
 */
MUST_USE enum status iot_ca_register(const struct iot_ca_change *change, struct db_iot_ca *out,
	struct err *err);
/* Active, and no unknown certificate is registered by itself. ERR_NOT_FOUND iot_ca_not_registered. */
MUST_USE enum status iot_ca_stop_auto(const struct iot_ca_change *change, struct db_iot_ca *out,
	struct err *err);
/* No new device gets in by it; those that are registered stay. ERR_NOT_FOUND iot_ca_not_registered. */
MUST_USE enum status iot_ca_deactivate(const struct iot_ca_change *change, struct db_iot_ca *out,
	struct err *err);
/* The same, where it may never have been, or by a call whose outcome was not recorded. */
MUST_USE enum status iot_ca_withdraw(const struct iot_ca_change *change, struct db_iot_ca *out,
	struct err *err);
/* Deactivates and deletes it there. */
MUST_USE enum status iot_ca_delete(const struct iot_ca_change *change, struct db_iot_ca *out,
	struct err *err);

#endif
