#include "server/notify/send.h"

#include <stdio.h>
#include <string.h>

#define SAID_BYTES 161

enum status
notify_send(const struct notify_sender *sender, const struct notify_message *message, const char *body,
	int64_t *http_status, struct err *err)
{
	*http_status = 0;
	switch (sender->channel->type) {
	case NOTIFY_EMAIL: return notify_send_email(sender, message, err);
	case NOTIFY_WEBHOOK: return notify_send_webhook(sender, message, body, http_status, err);
	case NOTIFY_SNS: return notify_send_sns(sender, message, body, err);
	case NOTIFY_SYSLOG: return notify_send_syslog(sender, message, err);
	case NOTIFY_UNSET: break;
	}
	return err_set(err, ERR_INTERNAL, "internal", "a channel without a type");
}

/* Too early, too many, a conflict that passes; the rest of 4xx and every redirect stays as it is. */
static bool
passes(long http_status)
{
	return http_status >= 500 || http_status == 408 || http_status == 409 || http_status == 425 ||
	       http_status == 429;
}

enum status
notify_send_refused(long http_status, struct view said, struct err *err)
{
	char text[SAID_BYTES] = "";
	size_t len = 0;

	for (size_t i = 0; i < said.len && len + 1 < sizeof(text); i++) {
		bool good = said.data[i] >= ' ' && said.data[i] <= '~';

		if (good || (len > 0 && text[len - 1] != ' '))
			text[len++] = good ? (char)said.data[i] : ' ';
	}
	text[len] = '\0';
	if (http_status / 100 == 3)
		(void)snprintf(text, sizeof(text), "redirects are not followed");
	return err_set(err, passes(http_status) ? ERR_UNAVAILABLE : ERR_DENIED, "notify_refused",
		"answered %ld%s%s", http_status, text[0] != '\0' ? ": " : "", text);
}

enum status
notify_send_network(struct err *err)
{
	struct err why = *err;

	if (strcmp(why.code, "aws_stopped") == 0)
		return err_set(err, ERR_UNAVAILABLE, "notify_stopped", "stopped");
	if (strcmp(why.code, "aws_answer_too_large") == 0)
		return err_set(err, ERR_UNAVAILABLE, "notify_refused", "%s", why.text);
	if (strcmp(why.code, "aws_network") == 0 || strcmp(why.code, "aws_busy") == 0)
		return err_set(err, ERR_UNAVAILABLE, "notify_unreachable", "%s", why.text);
	return why.status;
}
