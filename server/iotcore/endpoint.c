/* DescribeEndpoint: one broker stands for every kind of endpoint. */
#include <string.h>

#include "server/iotcore/op.h"
#include "server/iotcore/tables.h"

static enum status
describe_endpoint(struct call *call, struct err *err)
{
	static const char *const TYPES[] = { "iot:Data", "iot:Data-ATS", "iot:Data-Beta",
		"iot:CredentialProvider", "iot:Jobs" };
	const char *type = call_text(call, "endpointType");
	bool known = type == NULL;

	for (size_t i = 0; !known && i < COUNT_OF(TYPES); i++)
		known = strcmp(TYPES[i], type) == 0;
	if (!known)
		return iotcore_error(err, "InvalidRequestException",
			"Endpoint type %.64s is not supported.", type);
	return call_reply(call, json_pack("{s:s}", "endpointAddress", call->core->endpoint), err);
}

const struct op ENDPOINT_OPS[] = {
	{ .name = "DescribeEndpoint",
		.method = "GET",
		.path = "/endpoint",
		.tx = TX_NONE,
		.handle = describe_endpoint,
		.members = (const struct member[]){ { .name = "endpointType",
							    .at = AT_QUERY,
							    .type = MEMBER_TEXT,
							    .most = 128 },
			{ .name = NULL } } },
	{ .name = NULL },
};
