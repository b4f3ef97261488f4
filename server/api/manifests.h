/* server/api/manifests.h - what others show and check of manifests. */
#ifndef SERVER_API_MANIFESTS_H
#define SERVER_API_MANIFESTS_H

#include <jansson.h>

#include "db/manifest.h"

struct app;

/*
 * {id, station, profile, quantity, used, left, line_count, allow_replace, not_before, not_after,
 * created_by, created_at, closed_at}; NULL: memory is short.
 */
json_t *manifests_render(const struct db_manifest *manifest);

/* May stations ask for this profile? ERR_ARGUMENT profile_unknown, profile_not_for_stations. */
MUST_USE enum status manifests_check_profile(const struct app *app, const char *profile,
	struct err *err);

#endif
