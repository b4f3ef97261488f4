#include <stdio.h>
#include <strings.h>

#include "server/iotcore/policy_internal.h"

/* What stands behind "arn:…:<account>:" for each; "*" has no name of its own. */
static const struct {
	const char *name, *type;
} ACTIONS[POLICY_ACTION_COUNT] = {
	[POLICY_CONNECT] = { "iot:Connect", "client/" },
	[POLICY_PUBLISH] = { "iot:Publish", "topic/" },
	[POLICY_RETAIN_PUBLISH] = { "iot:RetainPublish", "topic/" },
	[POLICY_RECEIVE] = { "iot:Receive", "topic/" },
	[POLICY_SUBSCRIBE] = { "iot:Subscribe", "topicfilter/" },
	[POLICY_GET_RETAINED_MESSAGE] = { "iot:GetRetainedMessage", "topic/" },
	[POLICY_LIST_RETAINED_MESSAGES] = { "iot:ListRetainedMessages", "*" },
	[POLICY_GET_THING_SHADOW] = { "iot:GetThingShadow", "thing/" },
	[POLICY_UPDATE_THING_SHADOW] = { "iot:UpdateThingShadow", "thing/" },
	[POLICY_DELETE_THING_SHADOW] = { "iot:DeleteThingShadow", "thing/" },
	[POLICY_LIST_NAMED_SHADOWS_FOR_THING] = { "iot:ListNamedShadowsForThing", "*" },
	[POLICY_DESCRIBE_JOB_EXECUTION] = { "iot:DescribeJobExecution", "thing/" },
	[POLICY_GET_PENDING_JOB_EXECUTIONS] = { "iot:GetPendingJobExecutions", "thing/" },
	[POLICY_START_NEXT_PENDING_JOB_EXECUTION] = { "iot:StartNextPendingJobExecution",
		"thing/" },
	[POLICY_UPDATE_JOB_EXECUTION] = { "iot:UpdateJobExecution", "thing/" },
	[POLICY_ASSUME_ROLE_WITH_CERTIFICATE] = { "iot:AssumeRoleWithCertificate", "rolealias/" },
};

const char *
policy_action_name(enum policy_action action)
{
	if (action <= POLICY_NO_ACTION || action >= POLICY_ACTION_COUNT)
		return "";
	return ACTIONS[action].name;
}

enum policy_action
policy_action_by_name(struct view name)
{
	for (int action = POLICY_NO_ACTION + 1; action < POLICY_ACTION_COUNT; action++) {
		struct view known = view_text(ACTIONS[action].name);

		if (known.len == name.len &&
			strncasecmp((const char *)name.data, ACTIONS[action].name, name.len) == 0)
			return (enum policy_action)action;
	}
	return POLICY_NO_ACTION;
}

static bool
begins(struct view text, const char *with)
{
	struct view head = view_text(with);

	return text.len >= head.len && view_equal((struct view){ text.data, head.len }, head);
}

size_t
policy_resource_head(char out[POLICY_HEAD_BYTES], enum policy_action action, struct view region,
	struct view account)
{
	const char *partition = begins(region, "cn-")       ? "aws-cn"
	                        : begins(region, "us-gov-") ? "aws-us-gov"
	                                                    : "aws";
	int len;

	out[0] = '\0';
	if (action <= POLICY_NO_ACTION || action >= POLICY_ACTION_COUNT ||
		region.len > POLICY_HEAD_BYTES || account.len > POLICY_HEAD_BYTES)
		return 0;
	len = snprintf(out, POLICY_HEAD_BYTES, "arn:%s:iot:%.*s:%.*s:%s", partition,
		(int)region.len, (const char *)region.data, (int)account.len,
		(const char *)account.data, ACTIONS[action].type);
	if (len < 0 || len >= POLICY_HEAD_BYTES) {
		out[0] = '\0';
		return 0;
	}
	return (size_t)len;
}
