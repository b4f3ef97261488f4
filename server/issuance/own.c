#include "server/issuance/own.h"

#include <stdio.h>

#include "base/mem.h"
#include "ca/digest.h"
#include "server/app.h"

typedef struct issuance_item issuance_item;
OWNER(issuance_item, mem_free)

enum status
issuance_own(struct app *app, const struct issuance_own *own, struct db_certificate *out,
	struct err *err)
{
	own_struct(ca_csr) csr = { .has_extensions = false };
	own(issuance_item) item = mem_zalloc(sizeof(*item));
	enum status status;

	if (item == NULL)
		return err_memory(err);
	item->profile = app_profile(app, own->profile);
	if (item->profile == NULL)
		return err_set(err, ERR_ARGUMENT, "profile_unknown",
			"there is no profile '%s' for this server's own certificates: certs/README.md",
			own->profile);
	TRY(bytes_copy(&csr.spki, own->spki, err));
	ca_sha256(csr.spki_sha256, own->spki);
	csr.key_type = own->key_type;
	item->csr = &csr;
	item->ca = own->ca;
	item->asker = ASKER_SERVER;
	item->actor = own->actor;
	item->slot = SLOT_MANY;
	item->validity_s = item->profile->validity_default_s;
	(void)snprintf(item->request.device_id, sizeof(item->request.device_id), "%s", own->name);
	(void)snprintf(item->attributes_json, sizeof(item->attributes_json), "{}");
	status = issuance_issue(app->issuance, item, err);
	*out = item->certificate;
	return status;
}
