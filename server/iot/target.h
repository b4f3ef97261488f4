/*
 * server/iot/target.h - where IoT Core is: one account and Region, or one local IoT Core, each an entry of
 * the file that iot_targets_file names. Read once, before privileges are dropped: what it points to (the
 * webhook's secret) may be root's. Not changed afterwards.
 */
#ifndef SERVER_IOT_TARGET_H
#define SERVER_IOT_TARGET_H

#include <stdbool.h>

#include "base/err.h"
#include "ca/secret.h"
#include "db/iot.h"
#include "server/config.h"
#include "server/iot/iot_api.h"

#define IOT_TARGETS_MAX 8
#define IOT_QUOTAS_MAX 32
#define IOT_HEADER_DEFAULT "x-jitrca-webhook-secret"

struct iot_target {
	char name[DB_TARGET_BYTES]; /* [a-z0-9][a-z0-9-]{0,31} */
	char region[64];
	char account[13];           /* twelve digits */
	char endpoint_url[CONFIG_TEXT_BYTES]; /* "": AWS's own */
	char ca_file[CONFIG_TEXT_BYTES];      /* of the endpoint; "": the system's */
	char profile[65];           /* of the shared credentials files; "": the standard chain */
	enum iot_mode mode;         /* how our CAs are registered */
	struct {
		char host[IOT_HOST_BYTES]; /* "": no subscription */
		int64_t port;
		bool shared;               /* $share/…: every server consumes; AWS, not Mosquitto 2.0 */
		char ca_file[CONFIG_TEXT_BYTES];
	} mqtt;
	struct {
		struct secret secret;      /* empty: no webhook for this target */
		char header[65];           /* lower case */
		char host[IOT_HOST_BYTES]; /* of enableUrl; "": iot.REGION.amazonaws.com */
	} webhook;
	struct aws_quota quotas[IOT_QUOTAS_MAX];
	char quota_names[IOT_QUOTAS_MAX][AWS_NAME_BYTES];
	size_t quota_count;
	char policies_dir[CONFIG_TEXT_BYTES]; /* NAME.json; default: profiles_dir/policies */
	char quarantine_group[IOT_NAME_BYTES], quarantine_policy[IOT_NAME_BYTES];
};

struct iot_targets {
	struct iot_target at[IOT_TARGETS_MAX];
	size_t count;
};

/*
 * Reads the file of config, if one is named. ERR_ARGUMENT iot_targets_invalid: file, entry, field, rule.
 * The secrets are the caller's to free, also on failure.
 */
MUST_USE enum status iot_targets_read(struct iot_targets *out, const struct config *config,
	struct err *err);
void iot_targets_free(struct iot_targets *targets);

/* "arn:aws:iot:REGION:ACCOUNT:cert/ID" */
void iot_target_cert_arn(char out[IOT_ARN_BYTES], const struct iot_target *target, const char *id);
void iot_target_group_arn(char out[IOT_ARN_BYTES], const struct iot_target *target,
	const char *group);

#endif
