#include "server/notify/config.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "ca/file.h"
#include "server/http/fields.h"
#include "server/iot/aws_transport.h"

#define FILE_MAX_BYTES (256 * 1024)
#define SECRET_MAX_BYTES 512
#define WEBHOOK_KEY_MIN_BYTES 24 /* Standard Webhooks wants 24 to 64 octets */
#define TIMEOUT_MS 20000

#define DIGITS "0123456789"
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define HOST_CHARS LOWER UPPER DIGITS ".-:"
/* Of an address in a header, a command of SMTP: no white space, no brackets, no quotes. */
#define ADDRESS_CHARS LOWER UPPER DIGITS ".!#$%&'*+/=?^_`{|}~@-"
#define URL_CHARS LOWER UPPER DIGITS "-._~:/?#[]@!$&'()*+,;=%"

static const char *const SEVERITIES[] = { "info", "low", "medium", "high", "critical", NULL };

enum notify_severity
notify_severity(const char *name)
{
	for (size_t i = 0; SEVERITIES[i] != NULL; i++)
		if (strcmp(SEVERITIES[i], name) == 0)
			return (enum notify_severity)i;
	return SEVERITY_CRITICAL;
}

const char *
notify_severity_name(enum notify_severity severity)
{
	return SEVERITIES[severity];
}

const char *
notify_type_name(enum notify_type type)
{
	switch (type) {
	case NOTIFY_EMAIL: return "email";
	case NOTIFY_WEBHOOK: return "webhook";
	case NOTIFY_SNS: return "sns";
	case NOTIFY_SYSLOG: return "syslog";
	case NOTIFY_UNSET: break;
	}
	return "";
}

static enum status
bad(struct err *err, const char *field, const char *rule)
{
	return err_set(err, ERR_ARGUMENT, "notify_invalid", "%s: %s", field, rule);
}

#define READ_TEXT(member, name, want, from, rule)                                                  \
	TRY(fields_copy(out->member, sizeof(out->member), object, name, want, from, rule, err))

static enum status
read_duration(int64_t *out, const json_t *object, const char *name, int64_t least_s, int64_t most_s,
	struct err *err)
{
	const char *text = NULL;

	TRY(fields_string(object, name, FIELD_OPTIONAL, 32, &text, err));
	if (text == NULL)
		return OK;
	if (!duration_parse(out, text) || *out < least_s || *out > most_s)
		return err_set(err, ERR_ARGUMENT, "notify_invalid",
			"%s: a duration such as 15m, 12h or 3d, of %lld to %lld seconds wanted", name,
			(long long)least_s, (long long)most_s);
	return OK;
}

/* The file's first line; white space at its end is none of the secret. Absent: empty. */
static enum status
read_secret(struct secret *out, const json_t *object, const char *name, enum field_want want,
	struct err *err)
{
	own_struct(secret) whole = { NULL, 0 };
	const char *path = NULL;
	size_t len;

	TRY(fields_string(object, name, want, CONFIG_TEXT_BYTES - 1, &path, err));
	if (path == NULL)
		return OK;
	if (secret_read_file(&whole, path, SECRET_MAX_BYTES, err) != OK)
		return err_wrap(err, "%s", name);
	for (len = whole.len; len > 0 && strchr("\r\n\t ", whole.data[len - 1]) != NULL; len--)
		;
	for (size_t i = 0; i < len; i++)
		if (whole.data[i] < ' ')
			return bad(err, name, "a file of one line wanted");
	if (len == 0)
		return bad(err, name, "a secret wanted, but the file is empty");
	return secret_copy(out, (struct view){ whole.data, len }, err);
}

/* ---- e-mail ---- */

/* local@domain, of characters that need no quoting anywhere. */
static bool
is_address(const char *text)
{
	const char *at = strchr(text, '@');

	return at != NULL && at != text && at[1] != '\0' && strchr(at + 1, '@') == NULL &&
	       strspn(text, ADDRESS_CHARS) == strlen(text) && text[0] != '-' &&
	       strspn(at + 1, HOST_CHARS) == strlen(at + 1);
}

static enum status
read_addresses(struct notify_channel *out, const json_t *object, struct err *err)
{
	const char *to[NOTIFY_RECIPIENTS_MAX];

	READ_TEXT(from, "from", FIELD_REQUIRED, NULL, "");
	if (!is_address(out->from))
		return bad(err, "from", "an address such as jitrca@example.com wanted");
	TRY(fields_string_array(object, "to", FIELD_REQUIRED, NOTIFY_RECIPIENTS_MAX,
		NOTIFY_ADDRESS_BYTES - 1, to, &out->to_count, err));
	if (out->to_count == 0)
		return bad(err, "to", "at least one address wanted");
	for (size_t i = 0; i < out->to_count; i++) {
		if (!is_address(to[i]))
			return bad(err, "to", "addresses such as ops@example.com wanted");
		(void)snprintf(out->to[i], sizeof(out->to[i]), "%s", to[i]);
	}
	return OK;
}

/* The host of scheme://HOST[:PORT]…, or false. */
static bool
url_host(char *host, size_t size, const char *url, const char *scheme)
{
	size_t head = strlen(scheme);
	size_t len;

	if (strncmp(url, scheme, head) != 0 || strspn(url, URL_CHARS) != strlen(url) ||
		strpbrk(url, "@#") != NULL)
		return false;
	url += head;
	len = *url == '[' ? strcspn(url, "]") + 1 : strcspn(url, ":/?");
	if (len == 0 || len >= size || len > strlen(url))
		return false;
	memcpy(host, url, len);
	host[len] = '\0';
	return true;
}

static enum status
read_email(struct notify_channel *out, const json_t *object, struct err *err)
{
	static const char *const TLS[] = { "required", "none", NULL };
	char host[NOTIFY_HOST_BYTES];
	const char *starttls = "required";
	bool smtps;

	READ_TEXT(url, "url", FIELD_REQUIRED, NULL, "");
	smtps = url_host(host, sizeof(host), out->url, "smtps://");
	if (!smtps && !url_host(host, sizeof(host), out->url, "smtp://"))
		return bad(err, "url", "smtps://HOST[:PORT] or smtp://HOST[:PORT] wanted");
	if (strchr(out->url + (smtps ? 8 : 7), '/') != NULL)
		return bad(err, "url", "smtps://HOST[:PORT] or smtp://HOST[:PORT] wanted");
	TRY(fields_choice(object, "starttls", FIELD_OPTIONAL, TLS, &starttls, err));
	out->starttls = !smtps && strcmp(starttls, "required") == 0;
	if (!smtps && !out->starttls && !aws_host_is_loopback(host))
		return bad(err, "starttls", "required wanted, for the host is not this machine");
	READ_TEXT(username, "username", FIELD_OPTIONAL, NULL, "");
	TRY(read_secret(&out->secret, object, "password_file",
		out->username[0] != '\0' ? FIELD_REQUIRED : FIELD_OPTIONAL, err));
	if (out->username[0] == '\0' && out->secret.len > 0)
		return bad(err, "username", "wanted with password_file");
	return read_addresses(out, object, err);
}

/* ---- webhook, SNS ---- */

static enum status
read_url(struct notify_channel *out, const json_t *object, const char *name, enum field_want want,
	struct err *err)
{
	char host[NOTIFY_HOST_BYTES];

	TRY(fields_copy(out->url, sizeof(out->url), object, name, want, NULL, "", err));
	if (out->url[0] == '\0' || url_host(host, sizeof(host), out->url, "https://"))
		return OK;
	if (url_host(host, sizeof(host), out->url, "http://") && aws_host_is_loopback(host))
		return OK;
	return bad(err, name, "https://HOST[:PORT][/PATH] wanted; http:// for this machine alone");
}

static enum status
read_webhook(struct notify_channel *out, const json_t *object, struct err *err)
{
	TRY(read_url(out, object, "url", FIELD_REQUIRED, err));
	TRY(read_secret(&out->secret, object, "secret_file", FIELD_REQUIRED, err));
	if (out->secret.len < WEBHOOK_KEY_MIN_BYTES)
		return bad(err, "secret_file", "a secret of at least 24 octets wanted");
	return OK;
}

/* arn:PARTITION:sns:REGION:ACCOUNT:NAME[.fifo] */
static enum status
read_topic(struct notify_channel *out, struct err *err)
{
	const char *at = out->topic_arn;
	size_t len;

	for (int i = 0; i < 3 && at != NULL; i++) {
		if ((i == 0 && strncmp(at, "arn:", 4) != 0) || (i == 2 && strncmp(at, "sns:", 4) != 0))
			return bad(err, "topic_arn", "arn:aws:sns:REGION:ACCOUNT:NAME wanted");
		at = strchr(at, ':');
		at = at != NULL ? at + 1 : NULL;
	}
	len = at != NULL ? strcspn(at, ":") : 0;
	if (len == 0 || len >= sizeof(out->region) || at[len] != ':' ||
		strspn(at, LOWER DIGITS "-") != len || strspn(at + len + 1, DIGITS) != 12 ||
		at[len + 13] != ':' || at[len + 14] == '\0' ||
		strspn(at + len + 14, LOWER UPPER DIGITS "_-.") != strlen(at + len + 14))
		return bad(err, "topic_arn", "arn:aws:sns:REGION:ACCOUNT:NAME wanted");
	memcpy(out->region, at, len);
	out->region[len] = '\0';
	return OK;
}

static enum status
read_sns(struct notify_channel *out, const json_t *object, struct err *err)
{
	READ_TEXT(topic_arn, "topic_arn", FIELD_REQUIRED, NULL, "");
	TRY(read_topic(out, err));
	READ_TEXT(profile, "profile", FIELD_OPTIONAL, NULL, "");
	return read_url(out, object, "endpoint_url", FIELD_OPTIONAL, err);
}

/* ---- syslog ---- */

static enum status
read_facility(struct notify_channel *out, const json_t *object, struct err *err)
{
	static const char *const FACILITIES[] = { "user", "daemon", "auth", "authpriv", "local0",
		"local1", "local2", "local3", "local4", "local5", "local6", "local7", NULL };
	static const int CODES[] = { 1, 3, 4, 10, 16, 17, 18, 19, 20, 21, 22, 23 };
	const char *name = "authpriv";

	TRY(fields_choice(object, "facility", FIELD_OPTIONAL, FACILITIES, &name, err));
	for (size_t i = 0; FACILITIES[i] != NULL; i++)
		if (strcmp(FACILITIES[i], name) == 0)
			out->facility = CODES[i];
	return OK;
}

static enum status
read_syslog(struct notify_channel *out, const json_t *object, struct err *err)
{
	static const char *const TRANSPORTS[] = { "udp", "tcp", "tls", "local", NULL };
	static const char *const FORMATS[] = { "rfc5424", "cef", NULL };
	const char *transport = NULL;
	const char *format = "rfc5424";
	int64_t port = 514;

	TRY(fields_choice(object, "transport", FIELD_REQUIRED, TRANSPORTS, &transport, err));
	for (size_t i = 0; TRANSPORTS[i] != NULL; i++)
		if (strcmp(TRANSPORTS[i], transport) == 0)
			out->transport = (enum notify_transport)(i + 1);
	if (out->transport == TRANSPORT_TLS)
		port = 6514; /* RFC 5425 4.1 */
	(void)snprintf(out->path, sizeof(out->path), "/dev/log");
	READ_TEXT(path, "path", FIELD_OPTIONAL, NULL, "");
	READ_TEXT(host, "host", out->transport == TRANSPORT_LOCAL ? FIELD_OPTIONAL : FIELD_REQUIRED,
		HOST_CHARS, "a host's name or address wanted");
	TRY(fields_int(object, "port", FIELD_OPTIONAL, 1, 65535, &port, err));
	(void)snprintf(out->port, sizeof(out->port), "%u", (unsigned)port & 0xffff);
	TRY(fields_choice(object, "format", FIELD_OPTIONAL, FORMATS, &format, err));
	out->cef = strcmp(format, "cef") == 0;
	READ_TEXT(hostname, "hostname", FIELD_OPTIONAL, LOWER UPPER DIGITS ".-_:",
		"a host's name wanted");
	return read_facility(out, object, err);
}

/* ---- channels ---- */

#define COMMON                                                                                     \
	"type", "ca_file", "rate_per_hour", "burst", "queue_max", "summary_after", "give_up_after", \
		"timeout_ms"

static const char *const EMAIL_FIELDS[] = { COMMON, "url", "starttls", "username", "password_file",
	"from", "to", NULL };
static const char *const WEBHOOK_FIELDS[] = { COMMON, "url", "secret_file", NULL };
static const char *const SNS_FIELDS[] = { COMMON, "topic_arn", "profile", "endpoint_url", NULL };
static const char *const SYSLOG_FIELDS[] = { COMMON, "transport", "host", "port", "path", "format",
	"facility", "hostname", NULL };

static const struct {
	enum notify_type type;
	const char *const *fields;
	enum status (*read)(struct notify_channel *out, const json_t *object, struct err *err);
} TYPES[] = {
	{ NOTIFY_EMAIL, EMAIL_FIELDS, read_email },
	{ NOTIFY_WEBHOOK, WEBHOOK_FIELDS, read_webhook },
	{ NOTIFY_SNS, SNS_FIELDS, read_sns },
	{ NOTIFY_SYSLOG, SYSLOG_FIELDS, read_syslog },
};

static enum status
read_channel(struct notify_channel *out, const json_t *object, struct err *err)
{
	static const char *const NAMES[] = { "email", "webhook", "sns", "syslog", NULL };
	const char *type = NULL;

	out->rate_per_hour = 60;
	out->burst = 20;
	out->queue_max = 10000;
	out->summary_after_s = 600;
	out->give_up_after_s = 3 * 86400;
	out->timeout_ms = TIMEOUT_MS;
	TRY(fields_choice(object, "type", FIELD_REQUIRED, NAMES, &type, err));
	for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
		if (strcmp(notify_type_name(TYPES[i].type), type) != 0)
			continue;
		out->type = TYPES[i].type;
		TRY(fields_check(object, TYPES[i].fields, err));
		TRY(TYPES[i].read(out, object, err));
	}
	READ_TEXT(ca_file, "ca_file", FIELD_OPTIONAL, NULL, "");
	TRY(fields_int(object, "rate_per_hour", FIELD_OPTIONAL, 1, 100000, &out->rate_per_hour, err));
	TRY(fields_int(object, "burst", FIELD_OPTIONAL, 1, 10000, &out->burst, err));
	TRY(fields_int(object, "queue_max", FIELD_OPTIONAL, 1, 100000, &out->queue_max, err));
	TRY(fields_int(object, "timeout_ms", FIELD_OPTIONAL, 100, 60000, &out->timeout_ms, err));
	TRY(read_duration(&out->summary_after_s, object, "summary_after", 10, 7 * 86400, err));
	return read_duration(&out->give_up_after_s, object, "give_up_after", 60, 13 * 86400, err);
}

static bool
is_channel_name(const char *name)
{
	size_t len = strlen(name);

	return len >= 1 && len < DB_CHANNEL_BYTES && name[0] != '-' &&
	       strspn(name, LOWER DIGITS "-") == len;
}

static enum status
read_channels(struct notify_config *out, const json_t *object, struct err *err)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, name, value) {
		struct notify_channel *channel = &out->channels[out->channel_count];

		if (out->channel_count == NOTIFY_CHANNELS_MAX)
			return bad(err, "channels", "at most 16 wanted");
		if (!is_channel_name(name))
			return bad(err, "channels", "names of [a-z0-9][a-z0-9-]{0,31} wanted");
		if (!json_is_object(value))
			return bad(err, "channels", "an object for each name wanted");
		(void)snprintf(channel->name, sizeof(channel->name), "%s", name);
		out->channel_count++; /* from here on its secret is freed */
		if (read_channel(channel, value, err) != OK)
			return err_wrap(err, "channels.%s", name);
	}
	return OK;
}

/* ---- rules ---- */

/* A kind, or its beginning and an asterisk. */
static bool
is_pattern(const char *text)
{
	size_t len = strspn(text, LOWER DIGITS "_");

	return (len > 0 && text[len] == '\0') || strcmp(text + len, "*") == 0;
}

static enum status
read_patterns(char (*out)[66], size_t *count, const json_t *object, const char *name, struct err *err)
{
	const char *patterns[NOTIFY_PATTERNS_MAX];

	TRY(fields_string_array(object, name, FIELD_OPTIONAL, NOTIFY_PATTERNS_MAX, 65, patterns, count,
		err));
	for (size_t i = 0; i < *count; i++) {
		if (!is_pattern(patterns[i]))
			return bad(err, name, "kinds such as crl_refused, iot_* or * wanted");
		(void)snprintf(out[i], sizeof(out[i]), "%s", patterns[i]);
	}
	return OK;
}

static enum status
read_rule(struct notify_config *config, struct notify_rule *out, const json_t *object, struct err *err)
{
	static const char *const ALLOWED[] = { "channels", "kinds", "except", "severity", "repeat_after",
		NULL };
	const char *channels[NOTIFY_CHANNELS_MAX];
	const char *severity = "medium";

	out->repeat_after_s = 3600;
	TRY(fields_check(object, ALLOWED, err));
	TRY(fields_string_array(object, "channels", FIELD_REQUIRED, NOTIFY_CHANNELS_MAX,
		DB_CHANNEL_BYTES - 1, channels, &out->channel_count, err));
	for (size_t i = 0; i < out->channel_count; i++) {
		if (notify_config_channel(config, channels[i]) == NULL)
			return err_set(err, ERR_ARGUMENT, "notify_invalid",
				"channels: there is no channel '%s'", channels[i]);
		(void)snprintf(out->channels[i], sizeof(out->channels[i]), "%s", channels[i]);
	}
	if (out->channel_count == 0)
		return bad(err, "channels", "at least one wanted");
	TRY(read_patterns(out->kinds, &out->kind_count, object, "kinds", err));
	TRY(read_patterns(out->except, &out->except_count, object, "except", err));
	TRY(fields_choice(object, "severity", FIELD_OPTIONAL, SEVERITIES, &severity, err));
	out->least = notify_severity(severity);
	return read_duration(&out->repeat_after_s, object, "repeat_after", 1, 31 * 86400, err);
}

static enum status
read_all(struct notify_config *out, const json_t *file, struct err *err)
{
	static const char *const ALLOWED[] = { "channels", "rules", NULL };
	const json_t *channels = NULL;
	const json_t *rules = NULL;

	TRY(fields_check(file, ALLOWED, err));
	TRY(fields_object(file, "channels", FIELD_REQUIRED, &channels, err));
	TRY(fields_array(file, "rules", FIELD_REQUIRED, NOTIFY_RULES_MAX, &rules, err));
	TRY(read_channels(out, channels, err));
	for (size_t i = 0; i < json_array_size(rules); i++) {
		const json_t *rule = json_array_get(rules, i);

		if (!json_is_object(rule))
			return bad(err, "rules", "an array of objects wanted");
		out->rule_count++;
		if (read_rule(out, &out->rules[i], rule, err) != OK)
			return err_wrap(err, "rules[%zu]", i);
	}
	return OK;
}

/* Blanks, so that lines keep their numbers. No text of JSON goes over a line's end. */
static void
blank_comments(struct bytes *text)
{
	bool begin = true;
	bool comment = false;

	for (size_t i = 0; i < text->len; i++) {
		uint8_t c = text->data[i];

		if (c == '\n') {
			begin = true;
			comment = false;
			continue;
		}
		comment |= begin && c == '#';
		begin = begin && (c == ' ' || c == '\t');
		if (comment)
			text->data[i] = ' ';
	}
}

enum status
notify_config_read(struct notify_config *out, const struct config *config, struct err *err)
{
	own_struct(bytes) text = { NULL, 0 };
	own(json_t) file = NULL;
	json_error_t where;
	enum status status;

	out->channel_count = out->rule_count = 0;
	if (config->notify_file[0] == '\0')
		return OK;
	TRY(file_read(&text, config->notify_file, FILE_MAX_BYTES, err));
	blank_comments(&text);
	file = json_loadb(text.len > 0 ? (const char *)text.data : " ", text.len > 0 ? text.len : 1,
		JSON_REJECT_DUPLICATES, &where);
	if (!json_is_object(file))
		return err_set(err, ERR_ARGUMENT, "notify_invalid", "%s:%d: a JSON object wanted: %s",
			config->notify_file, where.line, file == NULL ? where.text : "found another value");
	status = read_all(out, file, err);
	if (status == ERR_ARGUMENT)
		(void)snprintf(err->code, sizeof(err->code), "notify_invalid");
	return status == OK ? OK : err_wrap(err, "%s", config->notify_file);
}

void
notify_config_free(struct notify_config *config)
{
	for (size_t i = 0; i < config->channel_count; i++)
		secret_free(&config->channels[i].secret);
	config->channel_count = 0;
}

const struct notify_channel *
notify_config_channel(const struct notify_config *config, const char *name)
{
	for (size_t i = 0; i < config->channel_count; i++)
		if (strcmp(config->channels[i].name, name) == 0)
			return &config->channels[i];
	return NULL;
}

/* ---- matching ---- */

static bool
matches(const char *pattern, const char *kind)
{
	size_t len = strlen(pattern);

	if (len > 0 && pattern[len - 1] == '*')
		return strncmp(pattern, kind, len - 1) == 0;
	return strcmp(pattern, kind) == 0;
}

static bool
matches_any(const char (*patterns)[66], size_t count, const char *kind)
{
	for (size_t i = 0; i < count; i++)
		if (matches(patterns[i], kind))
			return true;
	return false;
}

static bool
names(const struct notify_rule *rule, const char *channel)
{
	for (size_t i = 0; i < rule->channel_count; i++)
		if (strcmp(rule->channels[i], channel) == 0)
			return true;
	return false;
}

bool
notify_config_wants(const struct notify_config *config, const char *channel, const char *kind,
	enum notify_severity severity, int64_t *repeat_after_s)
{
	for (size_t i = 0; i < config->rule_count; i++) {
		const struct notify_rule *rule = &config->rules[i];

		if (severity < rule->least || !names(rule, channel) ||
			(rule->kind_count > 0 && !matches_any(rule->kinds, rule->kind_count, kind)) ||
			matches_any(rule->except, rule->except_count, kind))
			continue;
		*repeat_after_s = rule->repeat_after_s;
		return true;
	}
	return false;
}
