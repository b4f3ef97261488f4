/* server/notify/send_sns.c - Publish of Amazon SNS (query protocol, 2010-03-31), signed with SigV4. */
#include <stdio.h>
#include <string.h>

#include "server/iot/aws_profile.h"
#include "server/iot/aws_sigv4.h"
#include "server/notify/send.h"

#define BODY_MAX_BYTES ((size_t)64 * 1024)
#define ANSWER_MAX_BYTES 16384
#define TYPE "application/x-www-form-urlencoded; charset=utf-8"

static enum status
add(struct buf *form, const char *name, const char *value, struct err *err)
{
	TRY(buf_format(form, err, "%s%s=", form->len > 0 ? "&" : "", name));
	return aws_uri_encode(form, view_text(value), false, err);
}

/* For filter policies of subscriptions. */
static enum status
add_attribute(struct buf *form, unsigned number, const char *name, const char *value, struct err *err)
{
	char key[64];

	(void)snprintf(key, sizeof(key), "MessageAttributes.entry.%u.Name", number);
	TRY(add(form, key, name, err));
	(void)snprintf(key, sizeof(key), "MessageAttributes.entry.%u.Value.DataType", number);
	TRY(add(form, key, "String", err));
	(void)snprintf(key, sizeof(key), "MessageAttributes.entry.%u.Value.StringValue", number);
	return add(form, key, value, err);
}

static bool
is_fifo(const char *arn)
{
	size_t len = strlen(arn);

	return len > 5 && strcmp(arn + len - 5, ".fifo") == 0;
}

static enum status
make_form(struct buf *form, const struct notify_channel *channel, const struct notify_message *message,
	const char *body, struct err *err)
{
	char subject[NOTIFY_SUBJECT_BYTES];

	notify_message_subject(subject, message);
	TRY(add(form, "Action", "Publish", err));
	TRY(add(form, "Version", "2010-03-31", err));
	TRY(add(form, "TopicArn", channel->topic_arn, err));
	TRY(add(form, "Subject", subject, err));
	TRY(add(form, "Message", body, err));
	if (is_fifo(channel->topic_arn)) {
		TRY(add(form, "MessageGroupId", "jitrca", err));
		TRY(add(form, "MessageDeduplicationId", message->id, err));
	}
	TRY(add_attribute(form, 1, "kind", message->kind, err));
	return add_attribute(form, 2, "severity", message->severity, err);
}

/* https://HOST[:PORT] of the endpoint and its Host header. */
static enum status
find_endpoint(const struct notify_channel *channel, char url[CONFIG_TEXT_BYTES],
	char host[NOTIFY_HOST_BYTES], struct err *err)
{
	const char *start;
	size_t len;

	if (channel->url[0] != '\0')
		(void)snprintf(url, CONFIG_TEXT_BYTES, "%s", channel->url);
	else
		(void)snprintf(url, CONFIG_TEXT_BYTES, "https://sns.%s.amazonaws.com%s", channel->region,
			strncmp(channel->region, "cn-", 3) == 0 ? ".cn" : "");
	start = strstr(url, "://");
	start = start != NULL ? start + 3 : url;
	len = strcspn(start, "/?");
	if (len >= NOTIFY_HOST_BYTES || strcspn(start + len, "?") > 1 || strlen(url) + 2 > CONFIG_TEXT_BYTES)
		return err_set(err, ERR_ARGUMENT, "notify_invalid",
			"endpoint_url: https://HOST[:PORT] wanted");
	memcpy(host, start, len);
	host[len] = '\0';
	url[start - url + (ptrdiff_t)len] = '/';
	url[start - url + (ptrdiff_t)len + 1] = '\0';
	return OK;
}

struct signed_call {
	char url[CONFIG_TEXT_BYTES];
	char host_line[NOTIFY_HOST_BYTES + 8];
	char date_line[64];
	struct secret authorization, token;
	const char *headers[5];
	size_t header_count;
};

static void
signed_call_free(struct signed_call *call)
{
	secret_free(&call->authorization);
	secret_free(&call->token);
}
OWNER_STRUCT(signed_call, signed_call_free)

static enum status
sign(struct signed_call *call, const struct notify_sender *sender, struct view form, struct err *err)
{
	own_struct(aws_keys) keys = { .source = NULL };
	own_struct(buf) text = { .limit_bytes = 4096 };
	char host[NOTIFY_HOST_BYTES];
	char date[AWS_DATE_BYTES];

	/* Missing or refused, they may be mended, as long as somebody is to be told. */
	if (aws_credentials_get(sender->credentials, &keys, err) != OK)
		return err->status = ERR_UNAVAILABLE;
	TRY(find_endpoint(sender->channel, call->url, host, err));
	aws_date_format(date, clock_wall_s(sender->clock));
	const struct aws_field fields[] = {
		{ view_text("content-type"), view_text(TYPE) },
		{ view_text("host"), view_text(host) },
		{ view_text("x-amz-date"), view_text(date) },
		{ view_text("x-amz-security-token"), { keys.session_token.data, keys.session_token.len } },
	};
	struct aws_sigv4 request = { .method = view_text("POST"), .path = view_text("/"),
		.headers = fields, .header_count = keys.session_token.len > 0 ? 4 : 3,
		.region = view_text(sender->channel->region), .service = view_text("sns") };

	aws_sha256_hex(request.body_sha256, form);
	memcpy(request.date, date, AWS_DATE_BYTES);
	TRY(buf_text(&text, "Authorization: ", err));
	TRY(aws_sigv4_authorization(&request, view_text(keys.access_key),
		(struct view){ keys.secret_key.data, keys.secret_key.len }, &text, err));
	TRY(buf_add(&text, "", 1, err));
	TRY(secret_copy(&call->authorization, buf_view(&text), err));
	(void)snprintf(call->host_line, sizeof(call->host_line), "Host: %s", host);
	(void)snprintf(call->date_line, sizeof(call->date_line), "X-Amz-Date: %s", date);
	call->headers[call->header_count++] = "Content-Type: " TYPE;
	call->headers[call->header_count++] = call->host_line;
	call->headers[call->header_count++] = call->date_line;
	call->headers[call->header_count++] = (const char *)call->authorization.data;
	if (keys.session_token.len == 0)
		return OK;
	TRY(secret_new(&call->token, keys.session_token.len + 32, err));
	(void)snprintf((char *)call->token.data, call->token.len, "X-Amz-Security-Token: %.*s",
		(int)keys.session_token.len, (const char *)keys.session_token.data);
	call->headers[call->header_count++] = (const char *)call->token.data;
	return OK;
}

/* <ErrorResponse><Error><Type/><Code/><Message/></Error></ErrorResponse> */
static enum status
refused(const struct notify_sender *sender, const struct aws_answer *answer, struct err *err)
{
	struct view xml = buf_view(&answer->body);
	struct view code = { NULL, 0 };
	struct view said = xml;
	long http_status = answer->http_status;

	if (aws_xml_value(xml, "Code", &code))
		said = code;
	/* Keys that ran out are fetched anew; too many calls pass, whatever the number says. */
	if (view_equal_text(code, "ExpiredToken") || view_equal_text(code, "InvalidClientTokenId") ||
		view_equal_text(code, "Throttling") || view_equal_text(code, "ThrottledException")) {
		aws_credentials_doubt(sender->credentials);
		http_status = 429;
	}
	return notify_send_refused(http_status, said, err);
}

enum status
notify_send_sns(const struct notify_sender *sender, const struct notify_message *message, const char *body,
	struct err *err)
{
	const struct notify_channel *channel = sender->channel;
	own_struct(buf) form = { .limit_bytes = BODY_MAX_BYTES };
	own_struct(signed_call) call = { .header_count = 0 };
	own_struct(aws_answer) answer = { .http_status = 0 };
	struct view id;

	TRY(make_form(&form, channel, message, body, err));
	TRY(sign(&call, sender, buf_view(&form), err));
	const struct aws_transfer transfer = { .method = "POST", .url = call.url, .headers = call.headers,
		.header_count = call.header_count, .body = buf_view(&form),
		.ca_file = channel->ca_file[0] != '\0' ? channel->ca_file : NULL,
		.connect_timeout_ms = channel->timeout_ms, .timeout_ms = channel->timeout_ms,
		.place_timeout_ms = channel->timeout_ms, .answer_max_bytes = ANSWER_MAX_BYTES,
		.direct = strncmp(call.url, "http:", 5) == 0, .fresh = true };

	if (aws_transport_run(sender->transport, &transfer, &answer, err) != OK)
		return notify_send_network(err);
	if (answer.http_status / 100 != 2)
		return refused(sender, &answer, err);
	/* What something between us and SNS answers is no MessageId. */
	if (!aws_xml_value(buf_view(&answer.body), "MessageId", &id))
		return err_set(err, ERR_UNAVAILABLE, "notify_refused", "the answer holds no MessageId");
	return OK;
}
