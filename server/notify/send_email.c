/*
 * server/notify/send_email.c - a mail by SMTP (libcurl): smtps://, STARTTLS that must succeed before
 * anything is said, or in clear to this machine alone. A receiver that is refused does not keep the others
 * from theirs.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/notify/send.h"

#define MAIL_MAX_BYTES (64 * 1024)
#define URL_BYTES (CONFIG_TEXT_BYTES + NOTIFY_HOST_BYTES + 2)

typedef struct curl_slist curl_slist;
OWNER(CURL, curl_easy_cleanup)
OWNER(curl_slist, curl_slist_free_all)

struct upload {
	struct view left;
	const _Atomic bool *stopping;
};

static size_t
give_more(char *to, size_t size, size_t count, void *arg)
{
	struct upload *upload = arg;
	size_t len = size * count < upload->left.len ? size * count : upload->left.len;

	memcpy(to, upload->left.data, len);
	upload->left.data += len;
	upload->left.len -= len;
	return len;
}

/* Called about once a second, also while nothing comes. */
static int
look_up(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	const struct upload *upload = arg;

	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return *upload->stopping ? 1 : 0;
}

static size_t
ignore(char *data, size_t size, size_t count, void *arg)
{
	(void)data;
	(void)arg;
	return size * count;
}

static void
set_options(CURL *curl, const struct notify_channel *channel, const char *url, struct upload *upload,
	char detail[CURL_ERROR_SIZE])
{
#if LIBCURL_VERSION_NUM >= 0x075500 /* 7.85.0; Ubuntu 22.04 has an older one */
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
#else
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_SMTP | CURLPROTO_SMTPS));
#endif
	(void)curl_easy_setopt(curl, CURLOPT_URL, url);
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	(void)curl_easy_setopt(curl, CURLOPT_USE_SSL,
		channel->starttls ? (long)CURLUSESSL_ALL : (long)CURLUSESSL_NONE);
	(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
	(void)curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (channel->ca_file[0] != '\0')
		(void)curl_easy_setopt(curl, CURLOPT_CAINFO, channel->ca_file);
	(void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)channel->timeout_ms);
	(void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)channel->timeout_ms);
	(void)curl_easy_setopt(curl, CURLOPT_MAIL_FROM, channel->from);
	(void)curl_easy_setopt(curl, CURLOPT_MAIL_RCPT_ALLLOWFAILS, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_READFUNCTION, give_more);
	(void)curl_easy_setopt(curl, CURLOPT_READDATA, upload);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, ignore);
	(void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	(void)curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, look_up);
	(void)curl_easy_setopt(curl, CURLOPT_XFERINFODATA, upload);
	(void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
}

static enum status
add_recipients(curl_slist **list, const struct notify_channel *channel, struct err *err)
{
	for (size_t i = 0; i < channel->to_count; i++) {
		curl_slist *longer = curl_slist_append(*list, channel->to[i]);

		if (longer == NULL)
			return err_memory(err);
		*list = longer;
	}
	return OK;
}

/* libcurl copies it; its copy goes with the handle, at the end of this attempt. */
static enum status
set_login(CURL *curl, const struct notify_channel *channel, struct err *err)
{
	own_struct(secret) password = { NULL, 0 };

	if (channel->username[0] == '\0')
		return OK;
	TRY(secret_new(&password, channel->secret.len + 1, err));
	memcpy(password.data, channel->secret.data, channel->secret.len);
	if (curl_easy_setopt(curl, CURLOPT_USERNAME, channel->username) != CURLE_OK ||
		curl_easy_setopt(curl, CURLOPT_PASSWORD, (const char *)password.data) != CURLE_OK)
		return err_memory(err);
	return OK;
}

/* RFC 5321 4.2.1: 5yz will be the same another time. A login that is refused may be mended. */
static enum status
judge(CURL *curl, CURLcode code, const struct upload *upload, const char *detail, struct err *err)
{
	long reply = 0;
	bool refused;

	if (code == CURLE_OK)
		return OK;
	if (*upload->stopping)
		return err_set(err, ERR_UNAVAILABLE, "notify_stopped", "stopped");
	(void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply);
	refused = code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_LOGIN_DENIED ||
		code == CURLE_WEIRD_SERVER_REPLY || code == CURLE_UPLOAD_FAILED;
	if (refused && reply >= 400)
		return err_set(err, reply >= 500 && code != CURLE_LOGIN_DENIED ? ERR_DENIED :
			ERR_UNAVAILABLE, "notify_refused", "SMTP %ld: %s", reply,
			detail[0] != '\0' ? detail : curl_easy_strerror(code));
	return err_set(err, ERR_UNAVAILABLE, "notify_unreachable", "%s",
		detail[0] != '\0' ? detail : curl_easy_strerror(code));
}

enum status
notify_send_email(const struct notify_sender *sender, const struct notify_message *message,
	struct err *err)
{
	const struct notify_channel *channel = sender->channel;
	own_struct(buf) mail = { .limit_bytes = MAIL_MAX_BYTES };
	own(curl_slist) recipients = NULL;
	own(CURL) curl = NULL;
	struct upload upload = { .stopping = sender->stopping };
	char detail[CURL_ERROR_SIZE] = "";
	char url[URL_BYTES];

	TRY(notify_message_mail(&mail, message, channel, clock_wall_s(sender->clock), err));
	TRY(add_recipients(&recipients, channel, err));
	curl = curl_easy_init();
	if (curl == NULL)
		return err_memory(err);
	/* The path is what we call ourselves in EHLO. */
	(void)snprintf(url, sizeof(url), "%s/%s", channel->url, sender->hostname);
	upload.left = buf_view(&mail);
	set_options(curl, channel, url, &upload, detail);
	TRY(set_login(curl, channel, err));
	(void)curl_easy_setopt(curl, CURLOPT_MAIL_RCPT, recipients);
	return judge(curl, curl_easy_perform(curl), &upload, detail, err);
}
