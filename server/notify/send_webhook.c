/* server/notify/send_webhook.c - signed POSTs (Standard Webhooks 1.0: id, timestamp, signature). */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/notify/send.h"

#define KEY_MAX_BYTES 512
#define ANSWER_MAX_BYTES 4096
#define PREFIX "whsec_"

static enum status
read_key(struct secret *out, struct view key, struct err *err)
{
	const size_t head = sizeof(PREFIX) - 1;
	size_t len = 0;

	if (key.len < head || memcmp(key.data, PREFIX, head) != 0)
		return secret_copy(out, key, err);
	TRY(secret_new(out, KEY_MAX_BYTES, err));
	if (sodium_base642bin(out->data, KEY_MAX_BYTES, (const char *)key.data + head, key.len - head,
		    NULL, &len, NULL, sodium_base64_VARIANT_ORIGINAL) != 0 || len < 16)
		return err_set(err, ERR_ARGUMENT, "notify_invalid",
			"secret_file: whsec_ and at least 16 octets in base64 wanted");
	out->len = len;
	return OK;
}

enum status
notify_webhook_sign(char out[NOTIFY_SIGNATURE_BYTES], struct view key, const char *id, int64_t timestamp_s,
	struct view body, struct err *err)
{
	own_struct(secret) secret = { NULL, 0 };
	uint8_t mac[crypto_auth_hmacsha256_BYTES];
	crypto_auth_hmacsha256_state state;
	char head[96];
	int len = snprintf(head, sizeof(head), "%s.%" PRId64 ".", id, timestamp_s);

	if (len < 0 || (size_t)len >= sizeof(head))
		return err_set(err, ERR_INTERNAL, "internal", "a notification's id is too long");
	TRY(read_key(&secret, key, err));
	(void)crypto_auth_hmacsha256_init(&state, secret.data, secret.len);
	(void)crypto_auth_hmacsha256_update(&state, (const uint8_t *)head,
		(unsigned long long)len);
	(void)crypto_auth_hmacsha256_update(&state, body.data, body.len);
	(void)crypto_auth_hmacsha256_final(&state, mac);
	sodium_memzero(&state, sizeof(state));
	memcpy(out, "v1,", 3);
	(void)sodium_bin2base64(out + 3, NOTIFY_SIGNATURE_BYTES - 3, mac, sizeof(mac),
		sodium_base64_VARIANT_ORIGINAL);
	return OK;
}

enum status
notify_send_webhook(const struct notify_sender *sender, const struct notify_message *message,
	const char *body, int64_t *http_status, struct err *err)
{
	const struct notify_channel *channel = sender->channel;
	own_struct(aws_answer) answer = { .http_status = 0 };
	char id[64], timestamp[64], signature[NOTIFY_SIGNATURE_BYTES];
	char signature_line[NOTIFY_SIGNATURE_BYTES + 32];
	const char *headers[] = { "Content-Type: application/json", id, timestamp, signature_line };
	/* Of this attempt: a repeat comes with the same id and a time of its own. */
	int64_t now_s = clock_wall_s(sender->clock);
	const struct aws_transfer transfer = { .method = "POST", .url = channel->url, .headers = headers,
		.header_count = COUNT_OF(headers), .body = view_text(body),
		.ca_file = channel->ca_file[0] != '\0' ? channel->ca_file : NULL,
		.connect_timeout_ms = channel->timeout_ms, .timeout_ms = channel->timeout_ms,
		.place_timeout_ms = channel->timeout_ms, .answer_max_bytes = ANSWER_MAX_BYTES,
		.direct = strncmp(channel->url, "http:", 5) == 0, .fresh = true };

	TRY(notify_webhook_sign(signature,
		(struct view){ channel->secret.data, channel->secret.len }, message->id, now_s,
		view_text(body), err));
	(void)snprintf(id, sizeof(id), "webhook-id: %s", message->id);
	(void)snprintf(timestamp, sizeof(timestamp), "webhook-timestamp: %" PRId64, now_s);
	(void)snprintf(signature_line, sizeof(signature_line), "webhook-signature: %s", signature);
	if (aws_transport_run(sender->transport, &transfer, &answer, err) != OK)
		return notify_send_network(err);
	*http_status = answer.http_status;
	if (answer.http_status / 100 == 2)
		return OK;
	return notify_send_refused(answer.http_status, buf_view(&answer.body), err);
}
