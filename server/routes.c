#include "server/routes.h"

#include <stddef.h>

#include "server/api/api.h"
#include "server/api/health.h"
#include "server/protocol/crl.h"
#include "server/protocol/ocsp.h"

const struct route *const ROUTES[] = {
	CERTIFICATE_ROUTES,
	ROTATION_ROUTES,
	PRINCIPAL_ROUTES,
	STATION_ROUTES,
	MANIFEST_ROUTES,
	CA_ROUTES,
	DEVICE_ROUTES,
	AUDIT_ROUTES,
	AUDIT_CHECKPOINT_ROUTES,
	RETENTION_ROUTES,
	REVOCATION_ROUTES,
	BLOCKED_KEY_ROUTES,
	CRL_BUNDLE_ROUTES,
	IOT_ROUTES,
	IOT_WEBHOOK_ROUTES,
	NOTIFICATION_ROUTES,
	CRL_ROUTES,
	OCSP_ROUTES,
	HEALTH_ROUTES,
	OPENAPI_ROUTES,
	NULL,
};

const struct route *const ROUTES_STARTING[] = { HEALTH_ROUTES, CRL_ROUTES, OCSP_ROUTES, NULL };
