/* server/api/campaigns.h - a campaign that another resource's handler begins. */
#ifndef SERVER_API_CAMPAIGNS_H
#define SERVER_API_CAMPAIGNS_H

#include <jansson.h>

#include "db/campaign.h"

struct app;
struct request;

/*
 * Begins what body asks for as POST /v1/campaigns does; id says which. The same refusals. dry_run is not for
 * this call: with it nothing is begun and id is "".
 */
MUST_USE enum status campaigns_begin(struct app *app, struct request *request, json_t *body,
	char id[DB_CAMPAIGN_ID_BYTES], struct err *err);

#endif
