#include "server/notify/message.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "server/http/request.h"

#define MAIL_MAX_BYTES (64 * 1024)
#define MAIL_LINE 72
#define MAIL_NAME 13 /* where values begin */
/* The private enterprise number that RFC 5612 keeps for what has none of its own. */
#define SD_ID "jitrca@32473"

/* What kinds say to people; an unknown one is told by its name. */
static const struct {
	const char *kind, *title;
} TITLES[] = {
	{ "blocked_key_in_use", "Keys were put on the list of bad ones that certificates were issued for" },
	{ "claim_code_issued", "A claim code was issued for a device" },
	{ "claim_code_used", "A device has come back with a claim code" },
	{ "claim_code_refused", "A claim code was refused" },
	{ "campaign_halted", "A rotation campaign has halted" },
	{ "campaign_done", "A rotation campaign is done" },
	{ "rotation_plan", "What expires soon" },
	{ "report_made", "A compliance report was made" },
	{ "bulk_revocation_done", "A bulk revocation is done" },
	{ "ca_succession", "A succession of CAs has taken a step" },
	{ "ca_expired", "A CA certificate has expired" },
	{ "ca_expiring", "A CA certificate expires soon" },
	{ "crl_refused", "A CRL was held back: it lost an entry or went back" },
	{ "iot_breaker_open", "IoT Core does not answer; calls are held back" },
	{ "iot_dead_letter", "A change was given up that IoT Core should have" },
	{ "iot_expired_certificate", "An expired certificate knocked at IoT Core" },
	{ "iot_held_certificate", "A held certificate knocked at IoT Core" },
	{ "iot_not_a_device", "A certificate of ours that is no device's knocked at IoT Core" },
	{ "iot_revoked_certificate", "A revoked certificate knocked at IoT Core" },
	{ "iot_revoked_there", "A live certificate was revoked in IoT Core, not here" },
	{ "iot_superseded_certificate", "A superseded certificate knocked at IoT Core" },
	{ "iot_unknown_certificate", "IoT Core has a certificate of our CA that we did not issue" },
	{ "listener_certificate_expiring", "A listener's TLS certificate expires soon" },
	{ "listener_certificate_trouble", "A listener's TLS certificate cannot be renewed" },
	{ "notifications_suppressed", "More happened than was told" },
	{ "notification_test", "A test, asked for by an administrator" },
	{ "revocation_waiting", "A revocation waits for a second administrator" },
	{ "rotation_late", "Devices have not rotated their certificates in time" },
};

static const char *
title_of(const char *kind)
{
	for (size_t i = 0; i < COUNT_OF(TITLES); i++)
		if (strcmp(TITLES[i].kind, kind) == 0)
			return TITLES[i].title;
	return kind;
}

/* ---- made ---- */

static enum status
set(json_t *object, const char *name, json_t *value, struct err *err)
{
	return json_object_set_new(object, name, value) == 0 ? OK : err_memory(err);
}

static json_t *
text_or_null(const char *text)
{
	return text[0] != '\0' ? json_string(text) : json_null();
}

static enum status
make_json(json_t *json, const char *id, const struct db_event *event, const char *source, struct err *err)
{
	json_t *detail = json_loads(event->detail[0] != '\0' ? event->detail : "{}", 0, NULL);
	char at[TIME_TEXT_BYTES];

	time_format(at, event->at_s);
	TRY(set(json, "detail", detail != NULL ? detail : json_object(), err));
	TRY(set(json, "id", json_string(id), err));
	TRY(set(json, "event_id", event->event_id > 0 ? json_integer((json_int_t)event->event_id) :
		json_null(), err));
	TRY(set(json, "kind", json_string(event->kind), err));
	TRY(set(json, "severity", json_string(event->severity), err));
	TRY(set(json, "at", json_string(at), err));
	TRY(set(json, "title", json_string(title_of(event->kind)), err));
	TRY(set(json, "device_id", text_or_null(event->device_id), err));
	TRY(set(json, "certificate_id", text_or_null(event->certificate_id), err));
	TRY(set(json, "target", text_or_null(event->target), err));
	return set(json, "source", json_string(source), err);
}

enum status
notify_message_make(struct db_notification *out, const struct db_event *event, const char *source,
	struct entropy *entropy, struct err *err)
{
	own(json_t) json = json_object();
	uint8_t random[16];
	size_t len;

	if (json == NULL)
		return err_memory(err);
	TRY(entropy_fill(entropy, random, sizeof(random), err));
	hex_encode(out->notification_id, random, sizeof(random));
	out->event_id = event->event_id;
	(void)snprintf(out->kind, sizeof(out->kind), "%s", event->kind);
	(void)snprintf(out->severity, sizeof(out->severity), "%s", event->severity);
	TRY(make_json(json, out->notification_id, event, source, err));
	len = json_dumpb(json, out->body, sizeof(out->body) - 1, JSON_COMPACT | JSON_SORT_KEYS);
	if (len >= sizeof(out->body)) {
		/* Escapes may make it six times as long: who wants the detail asks /v1/events. */
		TRY(set(json, "detail", json_pack("{s:b}", "left_out", 1), err));
		len = json_dumpb(json, out->body, sizeof(out->body) - 1, JSON_COMPACT | JSON_SORT_KEYS);
	}
	if (len == 0 || len >= sizeof(out->body))
		return err_set(err, ERR_TOO_LARGE, "buffer_limit", "notification: too long");
	out->body[len] = '\0';
	return OK;
}

/* ---- read ---- */

void
notify_message_free(struct notify_message *message)
{
	json_decref(message->json);
	message->json = NULL;
}

static const char *
member(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text != NULL ? text : "";
}

enum status
notify_message_read(struct notify_message *out, const char *body, struct err *err)
{
	json_t *json = json_loads(body, JSON_REJECT_DUPLICATES, NULL);

	*out = (struct notify_message){ .json = json };
	if (!json_is_object(json))
		return err_set(err, ERR_INTERNAL, "internal", "a kept notification is not JSON");
	out->id = member(json, "id");
	out->kind = member(json, "kind");
	out->severity = member(json, "severity");
	out->at = member(json, "at");
	out->title = member(json, "title");
	out->device_id = member(json, "device_id");
	out->certificate_id = member(json, "certificate_id");
	out->target = member(json, "target");
	out->source = member(json, "source");
	out->event_id = json_integer_value(json_object_get(json, "event_id"));
	if (!time_parse(&out->at_s, view_text(out->at)))
		return err_set(err, ERR_INTERNAL, "internal", "a kept notification has no time");
	return OK;
}

/* ---- escaping ---- */

/* Printable ASCII as it is; each run of anything else as one question mark. */
static void
plain(char *out, size_t size, const char *text)
{
	size_t len = 0;
	bool odd = false;

	for (; *text != '\0' && len + 1 < size; text++) {
		bool good = *text >= ' ' && *text <= '~';

		if (good || !odd)
			out[len++] = good ? *text : '?';
		odd = !good;
	}
	out[len] = '\0';
}

/*
 * text with a backslash before each of `marked`; what is no printable character becomes a blank, but for
 * UTF-8 where that is welcome.
 */
static enum status
escape(struct buf *out, const char *text, const char *marked, bool utf8, struct err *err)
{
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < ' ' || c == 0x7f || (c > 0x7f && !utf8))
			TRY(buf_add(out, " ", 1, err));
		else if (strchr(marked, *text) != NULL)
			TRY(buf_format(out, err, "\\%c", *text));
		else
			TRY(buf_add(out, text, 1, err));
	}
	return OK;
}

/* ---- mail ---- */

void
notify_message_subject(char out[NOTIFY_SUBJECT_BYTES], const struct notify_message *message)
{
	char severity[16] = "";
	const char *about = message->device_id[0] != '\0' ? message->device_id :
		message->target[0] != '\0' ? message->target : message->title;
	char text[512];

	plain(severity, sizeof(severity), message->severity);
	for (char *at = severity; *at != '\0'; at++)
		*at = *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at;
	(void)snprintf(text, sizeof(text), "[jitrca] %s %s: %s", severity, message->kind, about);
	plain(out, NOTIFY_SUBJECT_BYTES, text);
}

/* RFC 5322 3.3: "Wed, 25 Nov 2026 02:00:00 +0000" */
static enum status
add_date(struct buf *out, int64_t at_s, struct err *err)
{
	static const char *const DAYS[] = { "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" };
	static const char *const MONTHS[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug",
		"Sep", "Oct", "Nov", "Dec" };
	struct civil civil = civil_from_s(at_s);

	return buf_format(out, err, "Date: %s, %02u %s %04lld %02u:%02u:%02u +0000\r\n",
		DAYS[at_s / 86400 % 7], civil.day, MONTHS[(civil.month - 1) % 12],
		(long long)civil.year, civil.hour, civil.minute, civil.second);
}

/* RFC 2045 6.7; `column` goes on from call to call. */
static enum status
add_quoted(struct buf *out, const char *text, size_t *column, struct err *err)
{
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;
		bool as_it_is = (c > ' ' && c <= '~' && c != '=') ||
			(c == ' ' && text[1] != '\n' && text[1] != '\0');

		if (c == '\n') {
			TRY(buf_text(out, "\r\n", err));
			*column = 0;
			continue;
		}
		if (*column >= MAIL_LINE) {
			TRY(buf_text(out, "=\r\n", err));
			*column = 0;
		}
		/* A dot or "From " at a line's beginning is meddled with on the way. */
		if (*column == 0 && (c == '.' || c == 'F'))
			as_it_is = false;
		if (as_it_is)
			TRY(buf_add(out, text, 1, err));
		else
			TRY(buf_format(out, err, "=%02X", c));
		*column += as_it_is ? 1 : 3;
	}
	return OK;
}

static enum status
add_line(struct buf *out, const char *name, const char *value, struct err *err)
{
	own_struct(buf) line = { .limit_bytes = MAIL_MAX_BYTES };
	size_t column = 0;

	if (value[0] == '\0')
		return OK;
	TRY(escape(&line, name, "", true, err));
	do
		TRY(buf_text(&line, " ", err));
	while (line.len < MAIL_NAME);
	TRY(escape(&line, value, "", true, err));
	TRY(buf_add(&line, "\n", 2, err)); /* with its NUL */
	return add_quoted(out, (const char *)line.data, &column, err);
}

/* The detail by its members, one a line. */
static enum status
add_detail(struct buf *out, const json_t *detail, struct err *err)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)detail, name, value) {
		own_struct(buf) text = { .limit_bytes = MAIL_MAX_BYTES };

		if (json_is_string(value))
			TRY(buf_text(&text, json_string_value(value), err));
		else
			TRY(request_json_text(&text, value, err));
		TRY(buf_add(&text, "", 1, err));
		TRY(add_line(out, name, (const char *)text.data, err));
	}
	return OK;
}

static enum status
add_headers(struct buf *out, const struct notify_message *message, const struct notify_channel *channel,
	int64_t now_s, struct err *err)
{
	char subject[NOTIFY_SUBJECT_BYTES];
	char id[64];

	notify_message_subject(subject, message);
	plain(id, sizeof(id), message->id);
	TRY(add_date(out, now_s, err));
	TRY(buf_format(out, err, "From: <%s>\r\nTo: ", channel->from));
	for (size_t i = 0; i < channel->to_count; i++)
		TRY(buf_format(out, err, "%s<%s>", i > 0 ? ",\r\n " : "", channel->to[i]));
	/* RFC 3834 5.2: nobody's holiday answers. The same id with each try: a repeat is known as one. */
	return buf_format(out, err, "\r\nSubject: %s\r\nMessage-ID: <%s%s>\r\n"
		"Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
		"Content-Type: text/plain; charset=utf-8\r\n"
		"Content-Transfer-Encoding: quoted-printable\r\n\r\n", subject, id,
		strchr(channel->from, '@'));
}

enum status
notify_message_mail(struct buf *out, const struct notify_message *message,
	const struct notify_channel *channel, int64_t now_s, struct err *err)
{
	char event[32] = "";

	if (message->event_id > 0)
		(void)snprintf(event, sizeof(event), "%lld", (long long)message->event_id);
	TRY(add_headers(out, message, channel, now_s, err));
	TRY(add_line(out, "what", message->title, err));
	TRY(add_line(out, "kind", message->kind, err));
	TRY(add_line(out, "severity", message->severity, err));
	TRY(add_line(out, "at", message->at, err));
	TRY(add_line(out, "device", message->device_id, err));
	TRY(add_line(out, "certificate", message->certificate_id, err));
	TRY(add_line(out, "target", message->target, err));
	TRY(add_detail(out, json_object_get(message->json, "detail"), err));
	TRY(add_line(out, "server", message->source, err));
	return add_line(out, "event", event, err);
}

/* ---- CEF ---- */

/* ArcSight's implementation standard: \ and | in the header, \ and = in the extension. */
static enum status
add_extension(struct buf *out, const char *name, const char *value, struct err *err)
{
	if (value[0] == '\0')
		return OK;
	TRY(buf_format(out, err, " %s=", name));
	return escape(out, value, "\\=", true, err);
}

static enum status
add_labelled(struct buf *out, const char *name, const char *label, const char *value, struct err *err)
{
	if (value[0] == '\0')
		return OK;
	TRY(buf_format(out, err, " %sLabel=%s", name, label));
	return add_extension(out, name, value, err);
}

static enum status
add_cef(struct buf *out, const struct notify_message *message, struct err *err)
{
	static const int SEVERITIES[] = { 1, 3, 5, 8, 10 };
	own_struct(buf) detail = { .limit_bytes = DB_NOTIFICATION_BODY_BYTES };

	TRY(request_json_text(&detail, json_object_get(message->json, "detail"), err));
	TRY(buf_add(&detail, "", 1, err));
	TRY(buf_text(out, "CEF:0|jitrca|jitrca|" JITRCA_VERSION "|", err));
	TRY(escape(out, message->kind, "\\|", true, err));
	TRY(buf_text(out, "|", err));
	TRY(escape(out, message->title, "\\|", true, err));
	TRY(buf_format(out, err, "|%d|rt=%lld", SEVERITIES[notify_severity(message->severity)],
		(long long)message->at_s * 1000));
	TRY(add_extension(out, "externalId", message->id, err));
	TRY(add_extension(out, "deviceExternalId", message->device_id, err));
	TRY(add_labelled(out, "cs1", "certificateId", message->certificate_id, err));
	TRY(add_labelled(out, "cs2", "target", message->target, err));
	return add_extension(out, "msg", (const char *)detail.data, err);
}

/* ---- syslog ---- */

/* RFC 5424 6.2.1 */
static int
priority(const struct notify_channel *channel, const struct notify_message *message)
{
	static const int LEVELS[] = { 6, 5, 4, 3, 2 }; /* informational … critical */

	return channel->facility * 8 + LEVELS[notify_severity(message->severity)];
}

/* RFC 5424 6.3.3: \ " and ] are escaped; values are UTF-8. */
static enum status
add_param(struct buf *out, const char *name, const char *value, struct err *err)
{
	if (value[0] == '\0')
		return OK;
	TRY(buf_format(out, err, " %s=\"", name));
	TRY(escape(out, value, "\\\"]", true, err));
	return buf_text(out, "\"", err);
}

static enum status
add_element(struct buf *out, const struct notify_message *message, struct err *err)
{
	TRY(buf_text(out, "[" SD_ID, err));
	TRY(add_param(out, "id", message->id, err));
	TRY(add_param(out, "kind", message->kind, err));
	TRY(add_param(out, "severity", message->severity, err));
	TRY(add_param(out, "device_id", message->device_id, err));
	TRY(add_param(out, "certificate_id", message->certificate_id, err));
	TRY(add_param(out, "target", message->target, err));
	return buf_text(out, "]", err);
}

static enum status
add_text(struct buf *out, const struct notify_message *message, struct err *err)
{
	own_struct(buf) detail = { .limit_bytes = DB_NOTIFICATION_BODY_BYTES };

	TRY(request_json_text(&detail, json_object_get(message->json, "detail"), err));
	TRY(buf_add(&detail, "", 1, err));
	TRY(escape(out, message->title, "", true, err));
	TRY(buf_text(out, " ", err));
	return escape(out, (const char *)detail.data, "", true, err);
}

/* Not in the middle of a character. */
static void
cut(struct buf *out)
{
	size_t len = NOTIFY_SYSLOG_MAX_BYTES;

	if (out->len <= len)
		return;
	while (len > 0 && (out->data[len] & 0xc0) == 0x80)
		len--;
	out->len = len;
}

enum status
notify_message_syslog(struct buf *out, const struct notify_message *message,
	const struct notify_channel *channel, const char *hostname, int pid, struct err *err)
{
	char msgid[33];

	plain(msgid, sizeof(msgid), message->kind);
	if (channel->transport == TRANSPORT_LOCAL)
		TRY(buf_format(out, err, "<%d>jitrca[%d]: ", priority(channel, message), pid));
	else
		TRY(buf_format(out, err, "<%d>1 %s %s jitrca %d %s ", priority(channel, message),
			message->at, hostname, pid, msgid));
	if (channel->cef) {
		if (channel->transport != TRANSPORT_LOCAL)
			TRY(buf_text(out, "- ", err));
		TRY(add_cef(out, message, err));
	} else {
		TRY(add_element(out, message, err));
		/* RFC 5424 6.4: the mark says that what follows is UTF-8. */
		TRY(buf_text(out, channel->transport == TRANSPORT_LOCAL ? " " : " \xef\xbb\xbf", err));
		TRY(add_text(out, message, err));
	}
	cut(out);
	return OK;
}
