/*
 * server/campaign_call.h - what a campaign's call does to a device's own window (server/rotation.h). Wherever
 * somebody is told when to rotate, it is asked: GET /v1/rotation and the renewal information.
 */
#ifndef SERVER_CAMPAIGN_CALL_H
#define SERVER_CAMPAIGN_CALL_H

#include "db/campaign.h"
#include "server/rotation.h"

/* A campaign asks before the device's own moment, never after it. True: it is due because of the campaign. */
MUST_USE bool campaign_call_apply(struct rotation_window *window, const struct db_campaign_call *call,
	int64_t now_s);

#endif
