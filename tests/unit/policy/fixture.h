/* What the tests of the policy evaluator share: a device, its place, and a document in single
 * quotes. */
#ifndef TESTS_UNIT_POLICY_FIXTURE_H
#define TESTS_UNIT_POLICY_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/iotcore/policy_internal.h"

#define HEAD "arn:aws:iot:eu-central-1:123456789012:"
#define V(text)                                                                                    \
	{                                                                                          \
		(const uint8_t *)(text), sizeof(text) - 1                                          \
	}

/* 2026-11-24T16:00:00Z */
#define NOW_S INT64_C(1795536000)

static const struct policy_pair ATTRIBUTES[] = {
	{ V("model"), V("m1") },
	{ V("site"), V("Hall 3") },
	{ V("count"), V("42") },
	{ V("odd"), V("a*b") },
	{ V("empty"), V("") },
	{ V("until"), V("2026-11-24T18:00:00Z") },
	{ V("net"), V("192.0.2.0/24") },
	{ V("home"), V("192.0.2.7") },
};

static const struct policy_pair CERTIFICATE[] = {
	{ V("iot:Certificate.Subject.CommonName"), V("sn-1") },
	{ V("iot:Certificate.Subject.Organization"), V("Example, Inc.") },
	{ V("iot:Certificate.Subject.OrganizationalUnit"), V("one") },
	{ V("iot:Certificate.Subject.OrganizationalUnit"), V("two") },
	{ V("iot:Certificate.Subject.OrganizationalUnit"), V("three") },
	{ V("iot:Certificate.Subject.OrganizationalUnit"), V("four") },
	{ V("iot:Certificate.Subject.OrganizationalUnit"), V("five") },
	{ V("iot:Certificate.Subject.OrganizationalUnit"), V("six") },
	{ V("iot:Certificate.Issuer.CommonName"), V("Issuing CA") },
	{ V("iot:Certificate.SerialNumber"), V("0142") },
};

static inline struct policy_context
device_context(void)
{
	struct policy_context context = {
		.now_s = NOW_S,
		.client_id = view_text("sn-1"),
		.certificate_id = view_text("0123456789abcdef"),
		.secure_transport = POLICY_YES,
		.thing_name = view_text("sn-1"),
		.thing_type = view_text("sensor"),
		.thing_attributes = ATTRIBUTES,
		.thing_attribute_count = COUNT_OF(ATTRIBUTES),
		.thing_attached = POLICY_YES,
		.certificate = CERTIFICATE,
		.certificate_count = COUNT_OF(CERTIFICATE),
	};

	assert_true(policy_address_parse(&context.source, view_text("192.0.2.7")));
	return context;
}

/* Documents are written with ' for " and @ for the head of this account's ARNs. */
static inline char *
document_text(const char *quoted)
{
	size_t len = strlen(quoted), at = 0;
	char *text = test_malloc(len * sizeof(HEAD) + 1);

	for (size_t i = 0; i < len; i++) {
		if (quoted[i] == '@') {
			memcpy(text + at, HEAD, sizeof(HEAD) - 1);
			at += sizeof(HEAD) - 1;
		} else {
			text[at++] = quoted[i] == '\'' ? '"' : quoted[i];
		}
	}
	text[at] = '\0';
	return text;
}

static inline enum status
document_parse(struct policy **out, const char *quoted, struct err *err)
{
	char *text = document_text(quoted);
	enum status status = policy_parse(out, view_text(text), err);

	test_free(text);
	return status;
}

static inline struct policy *
document(const char *quoted)
{
	struct policy *parsed = NULL;
	struct err err = { 0 };

	if (document_parse(&parsed, quoted, &err) != OK)
		fail_msg("%s\n%s", quoted, err.text);
	return parsed;
}

/* resource: "topic/a", behind the head; or a whole ARN. */
static inline enum policy_verdict
ask(const struct policy *parsed, enum policy_action action, const char *resource,
	const struct policy_context *context, struct policy_decision *out)
{
	struct policy_resource whole = { view_text(HEAD), view_text(resource) };

	if (strncmp(resource, "arn:", 4) == 0)
		whole.head = (struct view){ 0 };
	return policy_decide(&parsed, 1, action, whole, context, out);
}

#endif
