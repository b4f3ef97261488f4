/* `jitrca health`: what /readyz says, for a container's health check and for scripts. */
#include "server/cli/local.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define URL_STANDARD "http://127.0.0.1:8440"
#define URL_BYTES 1024
#define ANSWER_MAX_BYTES 65536
/* Shorter than a health check waits, so that it is we who say what is wrong. */
#define TIMEOUT_MS 2500L

OWNER(CURL, curl_easy_cleanup)
OWNER(json_t, json_decref)

static size_t
receive(char *data, size_t size, size_t count, void *arg)
{
	struct err err;

	return buf_add(arg, data, size * count, &err) == OK ? size * count : 0;
}

static enum status
fetch(const char *url, struct buf *body, long *status, struct err *err)
{
	own(CURL) curl = curl_easy_init();
	char detail[CURL_ERROR_SIZE] = "";
	CURLcode code;

	if (curl == NULL)
		return err_memory(err);
	(void)curl_easy_setopt(curl, CURLOPT_URL, url);
#if LIBCURL_VERSION_NUM >= 0x075500 /* 7.85.0; Ubuntu 22.04 has an older one */
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http");
#else
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)CURLPROTO_HTTP);
#endif
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	/* It is this machine that is asked. */
	(void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	(void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, TIMEOUT_MS);
	(void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
	code = curl_easy_perform(curl);
	if (code != CURLE_OK)
		return err_set(err, ERR_UNAVAILABLE, "server_unreachable", "%s: %s", url,
			detail[0] != '\0' ? detail : curl_easy_strerror(code));
	(void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, status);
	return OK;
}

static enum status
ask(const char *url, struct err *err)
{
	own_struct(buf) body = { .limit_bytes = ANSWER_MAX_BYTES };
	own(json_t) problem = NULL;
	const char *detail;
	const char *code;
	char path[URL_BYTES];
	size_t len = strlen(url);
	long status = 0;

	while (len > 0 && url[len - 1] == '/')
		len--;
	if (strncmp(url, "http://", 7) != 0 ||
		snprintf(path, sizeof(path), "%.*s/readyz", (int)len, url) >= (int)sizeof(path))
		return err_set(err, ERR_ARGUMENT, "url_malformed", "http://HOST[:PORT] wanted");
	TRY(fetch(path, &body, &status, err));
	if (status == 200)
		return OK;
	problem = json_loadb((const char *)body.data, body.len, 0, NULL);
	detail = json_string_value(json_object_get(problem, "detail"));
	code = json_string_value(json_object_get(problem, "code"));
	return err_set(err, ERR_UNAVAILABLE, code != NULL ? code : "not_ready", "%s",
		detail != NULL ? detail : "the answer is not one of jitrca's");
}

int
local_health(int argc, char **argv)
{
	const char *url = URL_STANDARD;
	const struct local_option options[] = {
		{ .name = "url",
			.value = "URL",
			.about = "of the plain listener (" URL_STANDARD ")",
			.text = &url },
		{ .name = NULL },
	};
	struct err err;
	int status;

	if (!local_options(argc, argv, "jitrca health [OPTION]...",
		    "Asks a server whether it is ready. Exits with 0 if so; with 1, and what is wrong on\n"
		    "stderr, if not.",
		    options, &status))
		return status;
	if (ask(url, &err) != OK)
		return local_failed("health", &err);
	printf("ready\n");
	return 0;
}
