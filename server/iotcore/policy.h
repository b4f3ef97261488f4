/*
 * server/iotcore/policy.h - AWS IoT policies: parsing, and deciding one action on one resource.
 *
 * Source: AWS IoT Core developer guide ("AWS IoT Core policies") and the IAM user guide's grammar;
 * docs/iot-policies.md is the page for users, with every difference to AWS and all that could not
 * be verified. A library of its own (libpolicy.a: this, base and jansson) that the control plane
 * and the broker's plugin share, so that both say the same.
 *
 * A decision never allocates, never blocks and never recurses; its cost is bounded by the
 * documents' length times the resource's (no pattern makes it exponential), and it is well under a
 * microsecond for a document of four statements. What is decided is borrowed from the policies and
 * the context.
 *
 * Refused by the parser, all with ERR_ARGUMENT `malformed_policy` and the statement and rule in the
 * text: what is not JSON, doubled or unknown members, other versions, Principal, an Effect other
 * than Allow and Deny, actions of other services, resources that are no ARN pattern and not "*",
 * unknown operators, values that do not fit their operator, a "${" without end. Not checked here:
 * the length limit of AWS (policy_document_chars), whether regions and accounts exist, whether an
 * iot: action or a condition key exists (an unknown one never matches, an unknown key is always
 * missing).
 *
 * Threads: a policy is immutable once parsed, and any number of threads may decide with it.
 */
#ifndef SERVER_IOTCORE_POLICY_H
#define SERVER_IOTCORE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "base/err.h"

/* ---- documents ---- */

/* What AWS's model lets a request carry; the parser refuses more. */
#define POLICY_DOCUMENT_MAX_BYTES 404600
/* AWS's quota, not counting white space: policy_document_chars() over this is for the caller to
 * refuse. */
#define POLICY_DOCUMENT_MAX_CHARS 2048
/* Each bounds what a document may cost; none can be met within 2048 characters. */
#define POLICY_STATEMENTS_MAX 128
#define POLICY_PATTERNS_MAX 1024 /* of resources and condition values in a document */
#define POLICY_PATTERN_MAX_BYTES 2048
#define POLICY_VARIABLES_MAX 16 /* different ones in a statement: this one can */

typedef struct policy iot_policy; /* for own(iot_policy) */

/*
 * Compiles one document (JSON, UTF-8). On OK the caller owns *out until policy_free(); json is not
 * needed any longer. ERR_ARGUMENT malformed_policy: the text names the statement (by number from 1
 * and Sid), the member and the rule, and is fit to be shown. ERR_UNAVAILABLE: memory.
 */
MUST_USE enum status policy_parse(struct policy **out, struct view json, struct err *err);
void policy_free(struct policy *policy); /* NULL is welcome */
OWNER(iot_policy, policy_free)

/* Characters (code points) of a document that are not white space: what AWS's quota of 2048 counts.
 */
size_t policy_document_chars(struct view json);

/* ---- what is asked ---- */

/* Zero is no action: it is denied. */
enum policy_action {
	POLICY_NO_ACTION = 0,
	POLICY_CONNECT,                /* client/<client id> */
	POLICY_PUBLISH,                /* topic/<topic> */
	POLICY_RETAIN_PUBLISH,         /* topic/<topic>, asked beside Publish */
	POLICY_RECEIVE,                /* topic/<topic>, asked for each delivered message */
	POLICY_SUBSCRIBE,              /* topicfilter/<filter>, "+" and "#" as they stand */
	POLICY_GET_RETAINED_MESSAGE,   /* topic/<topic> */
	POLICY_LIST_RETAINED_MESSAGES, /* * */
	POLICY_GET_THING_SHADOW,       /* thing/<name> or thing/<name>/<shadow> */
	POLICY_UPDATE_THING_SHADOW,
	POLICY_DELETE_THING_SHADOW,
	POLICY_LIST_NAMED_SHADOWS_FOR_THING, /* * */
	POLICY_DESCRIBE_JOB_EXECUTION,       /* thing/<name> */
	POLICY_GET_PENDING_JOB_EXECUTIONS,
	POLICY_START_NEXT_PENDING_JOB_EXECUTION,
	POLICY_UPDATE_JOB_EXECUTION,
	POLICY_ASSUME_ROLE_WITH_CERTIFICATE, /* rolealias/<name> */
	POLICY_ACTION_COUNT,
};

/* "iot:Publish"; "" for what is no action. */
const char *policy_action_name(enum policy_action action);
/* By that name, in any case; POLICY_NO_ACTION if there is none. */
enum policy_action policy_action_by_name(struct view name);

/*
 * A resource is the ARN head ‖ name, so that the broker keeps one head for each action and hands
 * the topic over as it came in the packet. Who has a whole ARN leaves head empty. Longer than
 * POLICY_RESOURCE_MAX_BYTES (AWS: topics of 256, client ids of 128 octets): denied.
 */
#define POLICY_RESOURCE_MAX_BYTES 1024
struct policy_resource {
	struct view head; /* "arn:aws:iot:eu-central-1:123456789012:topic/" */
	struct view name; /* "devices/sn-1/temperature" */
};

/*
 * Writes the head of action's resources; for those whose resource is "*" the whole of it, with an
 * empty name to be given. The partition follows from the region (aws, aws-cn, aws-us-gov). Returns
 * the length; 0 if it does not fit or there is no such action.
 */
#define POLICY_HEAD_BYTES 128
size_t policy_resource_head(char out[POLICY_HEAD_BYTES], enum policy_action action,
	struct view region, struct view account);

/* ---- what is known ---- */

/* Zero: not known, so that conditions on it see a missing key. */
enum policy_flag { POLICY_UNKNOWN = 0, POLICY_NO, POLICY_YES };

#define POLICY_ADDRESS_TEXT_BYTES 46
struct policy_address {
	uint8_t octets[16];
	uint8_t len; /* 4, 16; 0: unknown */
	uint8_t text_len;
	char text[POLICY_ADDRESS_TEXT_BYTES]; /* canonical; what ${aws:SourceIp} becomes */
};

/*
 * From "192.0.2.7", "2001:db8::1"; an IPv4-mapped one ("::ffff:192.0.2.7", what a dual-stack
 * listener shows) becomes the IPv4 address. False, and unknown: not an address.
 */
bool policy_address_parse(struct policy_address *out, struct view text);

struct policy_pair {
	struct view key, value;
};

#define POLICY_CONNECT_PERSISTENT 1u /* iot:ConnectAttributes holds PersistentConnect */
#define POLICY_CONNECT_LAST_WILL 2u  /* … LastWill */

/*
 * All is borrowed for the call, and all is optional: what is left zero is undefined, which is never
 * the empty text (a view of length 0 is undefined as well). Values over 1024 octets or with "* $ +
 * ? #" are not substituted for variables, as in AWS. Conditions see values as they are, but those
 * over 1024 octets fit no operand.
 */
struct policy_context {
	int64_t now_s;                     /* aws:CurrentTime, aws:EpochTime; 0: undefined */
	struct view client_id;             /* iot:ClientId */
	struct view certificate_id;        /* iot:CertificateId: 64 hex digits */
	struct policy_address source;      /* aws:SourceIp */
	enum policy_flag secure_transport; /* aws:SecureTransport */
	unsigned connect_attributes;       /* iot:ConnectAttributes: for POLICY_CONNECT only */

	/*
	 * iot:Connection.Thing.*. The caller resolves the thing: client id = thing name and the
	 * certificate is attached to that thing; otherwise all of it stays empty but IsAttached.
	 */
	struct view thing_name;
	struct view thing_type;
	const struct policy_pair *thing_attributes; /* key: the attribute's name */
	size_t thing_attribute_count;
	enum policy_flag thing_attached;

	/*
	 * iot:Certificate.*: full names without index, repeated in the certificate's order, values
	 * not escaped: {"iot:Certificate.Subject.CommonName", "sn-1"}, "iot:Certificate.Issuer.…",
	 * "iot:Certificate.Subject.AlternativeName.DNSName", "iot:Certificate.SerialNumber". X is
	 * the first, X.1 the second, X.List all of them; from the sixth of a name on they are
	 * ignored. iot:Certificate.AvailableKeys is made of it.
	 */
	const struct policy_pair *certificate;
	size_t certificate_count; /* at most POLICY_PAIRS_MAX are looked at */
	/* Any other key by its full name, e.g. iot:DomainName; before it the above. */
	const struct policy_pair *others;
	size_t other_count;
};
#define POLICY_PAIRS_MAX 128

/* ---- the decision ---- */

enum policy_verdict {
	POLICY_UNSET = 0, /* nothing was decided: not allowed */
	POLICY_ALLOWED,
	POLICY_IMPLICIT_DENY, /* no statement speaks of it */
	POLICY_EXPLICIT_DENY,
};

#define POLICY_NONE SIZE_MAX
#define POLICY_MISSING_MAX 8

struct policy_decision {
	enum policy_verdict verdict;
	size_t policy;    /* whose statement decided; POLICY_NONE for an implicit deny */
	size_t statement; /* its number from 0 in that policy; POLICY_NONE */
	struct view sid;  /* its Sid, borrowed from the policy; may be empty */
	/*
	 * Keys, as the documents write them, that statements for this action asked for and the
	 * context does not have: TestAuthorization's missingContextValues. Each once, the first
	 * POLICY_MISSING_MAX. Those of statements behind the deciding one are not told.
	 */
	size_t missing_count;
	struct view missing[POLICY_MISSING_MAX];
};

/*
 * Decides over the union of policies (NULL entries are skipped): the first explicit Deny that
 * matches, else the first Allow, else an implicit deny. Fills *out always and returns its verdict;
 * compare with POLICY_ALLOWED, never with a deny.
 */
enum policy_verdict policy_decide(const struct policy *const *policies, size_t count,
	enum policy_action action, struct policy_resource resource,
	const struct policy_context *context, struct policy_decision *out);

/* How many statements a policy has. */
size_t policy_statement_count(const struct policy *policy);

/*
 * False: no statement of any of them speaks of action at all, so that the broker can refuse or skip
 * without building a resource. True says nothing yet.
 */
bool policy_mentions(const struct policy *const *policies, size_t count, enum policy_action action);

#endif
