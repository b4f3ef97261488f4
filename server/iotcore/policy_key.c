#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "server/iotcore/policy_internal.h"

#define NAME_MAX_BYTES 256
/* AWS: certificate attributes that contain arrays are limited to five items. */
#define CERTIFICATE_VALUES_MAX 5

/* Names of keys are compared in any case, as IAM does (for IoT Core: unverified). */
static const struct {
	const char *name;
	enum policy_key_kind kind;
} KEYS[] = {
	{ "aws:CurrentTime", POLICY_KEY_CURRENT_TIME },
	{ "aws:EpochTime", POLICY_KEY_EPOCH_TIME },
	{ "aws:SourceIp", POLICY_KEY_SOURCE_IP },
	{ "aws:SecureTransport", POLICY_KEY_SECURE_TRANSPORT },
	{ "iot:ClientId", POLICY_KEY_CLIENT_ID },
	{ "iot:CertificateId", POLICY_KEY_CERTIFICATE_ID },
	{ "iot:ConnectAttributes", POLICY_KEY_CONNECT_ATTRIBUTES },
	{ "iot:Connection.Thing.ThingName", POLICY_KEY_THING_NAME },
	{ "iot:Connection.Thing.ThingTypeName", POLICY_KEY_THING_TYPE },
	{ "iot:Connection.Thing.IsAttached", POLICY_KEY_THING_ATTACHED },
	{ "iot:Certificate.AvailableKeys", POLICY_KEY_AVAILABLE_KEYS },
};
static const char ATTRIBUTE_HEAD[] = "iot:Connection.Thing.Attributes[";
static const char CERTIFICATE_HEAD[] = "iot:Certificate.";
static const char LIST_TAIL[] = ".List";

static bool
equal_fold(struct view a, struct view b)
{
	return a.len == b.len &&
	       (a.len == 0 || strncasecmp((const char *)a.data, (const char *)b.data, a.len) == 0);
}

static bool
begins_fold(struct view text, const char *with)
{
	size_t len = strlen(with);

	return text.len > len && equal_fold((struct view){ text.data, len }, view_text(with));
}

/* The names of AWS's keys and of thing attributes, which allow _ . , @ / : # - and alphanumerics.
 */
static bool
is_name(struct view name)
{
	if (name.len == 0 || name.len > NAME_MAX_BYTES)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = name.data[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
			(c == '\0' || strchr("_.,@/:#[]-", c) == NULL))
			return false;
	}
	return true;
}

/* X.List, X.<one digit>: five values a name are kept, so no index has two digits. */
static void
parse_certificate(struct policy_key *out)
{
	struct view name = out->name;
	size_t tail = strlen(LIST_TAIL);

	out->kind = POLICY_KEY_CERTIFICATE;
	out->part = name;
	if (name.len > tail && equal_fold((struct view){ name.data + name.len - tail, tail },
				       view_text(LIST_TAIL))) {
		out->list = true;
		out->part.len -= tail;
	} else if (name.len > 2 && name.data[name.len - 2] == '.' &&
		   name.data[name.len - 1] >= '0' && name.data[name.len - 1] <= '9') {
		out->index = (size_t)(name.data[name.len - 1] - '0');
		out->part.len -= 2;
	}
}

bool
policy_key_parse(struct policy_key *out, struct view name)
{
	*out = (struct policy_key){ .name = name, .part = name };
	if (!is_name(name))
		return false;
	for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
		if (equal_fold(name, view_text(KEYS[i].name))) {
			out->kind = KEYS[i].kind;
			return true;
		}
	}
	if (begins_fold(name, ATTRIBUTE_HEAD) && name.data[name.len - 1] == ']') {
		size_t head = strlen(ATTRIBUTE_HEAD);

		out->kind = POLICY_KEY_THING_ATTRIBUTE;
		out->part = (struct view){ name.data + head, name.len - head - 1 };
		return out->part.len > 0;
	}
	if (begins_fold(name, CERTIFICATE_HEAD))
		parse_certificate(out);
	return true;
}

bool
policy_key_equal(const struct policy_key *a, const struct policy_key *b)
{
	/* The names of attributes are case-sensitive, so two that differ there are two. */
	return a->kind == b->kind &&
	       (a->kind == POLICY_KEY_THING_ATTRIBUTE ? view_equal(a->part, b->part)
						      : equal_fold(a->name, b->name));
}

static bool
single(struct view *out, size_t n, struct view value)
{
	*out = value;
	return n == 0 && value.len > 0;
}

static bool
flag(struct view *out, size_t n, enum policy_flag value)
{
	*out = view_text(value == POLICY_YES ? "true" : "false");
	return n == 0 && value != POLICY_UNKNOWN;
}

/* The value of the n-th pair with that key, maybe empty, of the first POLICY_PAIRS_MAX. */
static bool
pair(struct view *out, size_t n, struct view key, const struct policy_pair *pairs, size_t count,
	bool (*equal)(struct view, struct view))
{
	for (size_t i = 0; i < count && i < POLICY_PAIRS_MAX; i++) {
		if (equal(pairs[i].key, key) && n-- == 0) {
			*out = pairs[i].value;
			return true;
		}
	}
	return false;
}

static bool
connect_attribute(struct view *out, size_t n, unsigned attributes)
{
	bool persistent = (attributes & POLICY_CONNECT_PERSISTENT) != 0;
	bool last_will = (attributes & POLICY_CONNECT_LAST_WILL) != 0;

	*out = view_text(n == 0 && persistent ? "PersistentConnect" : "LastWill");
	return n < (size_t)persistent + (size_t)last_will;
}

static bool
current_time(struct view *out, size_t n, int64_t now_s, struct policy_scratch *scratch)
{
	char text[TIME_TEXT_BYTES];

	if (n > 0 || now_s == 0)
		return false;
	if (scratch->current_time[0] == '\0') {
		time_format(text, now_s);
		(void)snprintf(scratch->current_time, sizeof(scratch->current_time), "%s", text);
	}
	*out = view_text(scratch->current_time);
	return true;
}

static bool
epoch_time(struct view *out, size_t n, int64_t now_s, struct policy_scratch *scratch)
{
	if (n > 0 || now_s == 0)
		return false;
	if (scratch->epoch_time[0] == '\0')
		(void)snprintf(scratch->epoch_time, sizeof(scratch->epoch_time), "%" PRId64, now_s);
	*out = view_text(scratch->epoch_time);
	return true;
}

bool
policy_key_value(struct view *out, const struct policy_key *key, size_t n,
	const struct policy_context *context, struct policy_scratch *scratch)
{
	const struct policy_address *source = &context->source;

	switch (key->kind) {
	case POLICY_KEY_CURRENT_TIME: return current_time(out, n, context->now_s, scratch);
	case POLICY_KEY_EPOCH_TIME: return epoch_time(out, n, context->now_s, scratch);
	case POLICY_KEY_SOURCE_IP:
		return single(
			out, n, (struct view){ (const uint8_t *)source->text, source->text_len });
	case POLICY_KEY_SECURE_TRANSPORT: return flag(out, n, context->secure_transport);
	case POLICY_KEY_CLIENT_ID: return single(out, n, context->client_id);
	case POLICY_KEY_CERTIFICATE_ID: return single(out, n, context->certificate_id);
	case POLICY_KEY_CONNECT_ATTRIBUTES:
		return connect_attribute(out, n, context->connect_attributes);
	case POLICY_KEY_THING_NAME: return single(out, n, context->thing_name);
	case POLICY_KEY_THING_TYPE: return single(out, n, context->thing_type);
	case POLICY_KEY_THING_ATTACHED: return flag(out, n, context->thing_attached);
	case POLICY_KEY_THING_ATTRIBUTE:
		return n == 0 &&
		       pair(out, 0, key->part, context->thing_attributes,
			       context->thing_attribute_count, view_equal) &&
		       out->len > 0;
	case POLICY_KEY_CERTIFICATE:
		if (!key->list && n > 0)
			return false;
		n += key->index;
		return n < CERTIFICATE_VALUES_MAX &&
		       pair(out, n, key->part, context->certificate, context->certificate_count,
			       equal_fold) &&
		       (key->list || out->len > 0);
	case POLICY_KEY_AVAILABLE_KEYS:
		if (n >= context->certificate_count || n >= POLICY_PAIRS_MAX)
			return false;
		*out = context->certificate[n].key;
		return true;
	case POLICY_KEY_OTHER:
		return pair(out, n, key->name, context->others, context->other_count, equal_fold);
	}
	return false;
}
