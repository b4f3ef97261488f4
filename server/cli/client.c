#include "server/cli/client.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "ca/secret.h"

#define URL_BYTES 4096
#define HEADER_BYTES 512
#define TOKEN_MAX_BYTES 256
#define ANSWER_MAX_BYTES ((size_t)256 << 20)
#define CONNECT_TIMEOUT_S 10L
/* Verifying a long audit log or reading a long manifest takes its time. */
#define SILENCE_MAX_S 600L

typedef struct curl_slist curl_slist;
OWNER(CURL, curl_easy_cleanup)
OWNER(curl_slist, curl_slist_free_all)

void
client_answer_free(struct client_answer *answer)
{
	buf_free(&answer->body);
}

/* What the write callback needs; failed: it ended the transfer itself. */
struct sink {
	CURL *curl;
	const struct client_call *call;
	struct client_answer *answer;
	bool failed;
};

static size_t
receive(char *data, size_t size, size_t count, void *arg)
{
	struct sink *sink = arg;
	size_t len = size * count;
	long status = 0;
	struct err err;

	(void)curl_easy_getinfo(sink->curl, CURLINFO_RESPONSE_CODE, &status);
	if (sink->call->download != NULL && status >= 200 && status < 300)
		sink->failed = fwrite(data, 1, len, sink->call->download) != len;
	else if (sink->call->take != NULL && status >= 200 && status < 300)
		sink->failed = !sink->call->take(sink->call->take_arg, data, len);
	else
		sink->failed = buf_add(&sink->answer->body, data, len, &err) != OK;
	return sink->failed ? 0 : len;
}

static size_t
provide(char *out, size_t size, size_t count, void *arg)
{
	return fread(out, 1, size * count, arg);
}

/* Takes *list and gives it back longer. */
static enum status
add_header(curl_slist **list, const char *text, struct err *err)
{
	curl_slist *longer = curl_slist_append(*list, text);

	if (longer == NULL)
		return err_memory(err);
	*list = longer;
	return OK;
}

static enum status
add_token(curl_slist **list, const struct client_setup *setup, struct err *err)
{
	own_struct(secret) file = { NULL, 0 };
	const char *token = getenv("JITRCA_ADMIN_TOKEN");
	char header[TOKEN_MAX_BYTES + 32];
	size_t len = token != NULL ? strlen(token) : 0;
	enum status status;

	if (setup->token_file != NULL) {
		TRY(ca_init(err));
		TRY(secret_read_file(&file, setup->token_file, TOKEN_MAX_BYTES, err));
		token = (const char *)file.data;
		len = file.len;
	}
	if (len == 0)
		return OK;
	if (len > TOKEN_MAX_BYTES || memchr(token, '\n', len) != NULL || memchr(token, '\r', len) != NULL)
		return err_set(err, ERR_ARGUMENT, "token_malformed", "the token is not one line of text");
	(void)snprintf(header, sizeof(header), "Authorization: Bearer %.*s", (int)len, token);
	status = add_header(list, header, err);
	explicit_bzero(header, sizeof(header));
	return status;
}

static enum status
make_headers(curl_slist **list, const struct client_setup *setup, const struct client_call *call,
	struct err *err)
{
	char text[HEADER_BYTES];

	TRY(add_token(list, setup, err));
	/* Without one, libcurl would claim a form. */
	(void)snprintf(text, sizeof(text), "Content-Type:%s%s", call->content_type != NULL ? " " : "",
		call->content_type != NULL ? call->content_type : "");
	TRY(add_header(list, text, err));
	if (call->header != NULL)
		TRY(add_header(list, call->header, err));
	if (call->accept != NULL) {
		(void)snprintf(text, sizeof(text), "Accept: %s", call->accept);
		TRY(add_header(list, text, err));
	}
	/* No round trip before the body. */
	return add_header(list, "Expect:", err);
}

static enum status
make_url(char out[URL_BYTES], const struct client_setup *setup, const char *path, struct err *err)
{
	size_t len = strlen(setup->url);

	while (len > 0 && setup->url[len - 1] == '/')
		len--;
	if (strncmp(setup->url, "https://", 8) != 0 ||
	    snprintf(out, URL_BYTES, "%.*s%s", (int)len, setup->url, path) >= URL_BYTES)
		return err_set(err, ERR_ARGUMENT, "url_malformed", "https://HOST[:PORT] wanted");
	return OK;
}

static curl_off_t
upload_size(FILE *file)
{
	long here = ftell(file);
	long end;

	if (here < 0 || fseek(file, 0, SEEK_END) != 0)
		return -1; /* a pipe: sent in chunks */
	end = ftell(file);
	return fseek(file, here, SEEK_SET) == 0 && end >= here ? end - here : -1;
}

static void
set_body(CURL *curl, const struct client_call *call)
{
	if (call->upload != NULL) {
		(void)curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
		(void)curl_easy_setopt(curl, CURLOPT_READFUNCTION, provide);
		(void)curl_easy_setopt(curl, CURLOPT_READDATA, call->upload);
		(void)curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, upload_size(call->upload));
	} else if (strcmp(call->method, "GET") != 0) {
		(void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.len);
		(void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
			call->body.len > 0 ? (const char *)call->body.data : "");
	}
	(void)curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call->method);
}

static enum status
perform(CURL *curl, const struct client_setup *setup, struct client_answer *answer,
	const struct sink *sink, struct err *err)
{
	char detail[CURL_ERROR_SIZE] = "";
	const char *type = NULL;
	CURLcode code;

	(void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
	code = curl_easy_perform(curl);
	(void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
	if (sink->failed)
		return err_set(err, ERR_UNAVAILABLE, "answer_not_kept", "the answer cannot be written");
	if (code != CURLE_OK)
		return err_set(err, ERR_UNAVAILABLE, "server_unreachable", "%s: %s", setup->url,
			detail[0] != '\0' ? detail : curl_easy_strerror(code));
	(void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->status);
	(void)curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
	(void)snprintf(answer->content_type, sizeof(answer->content_type), "%s", type != NULL ? type : "");
	return OK;
}

enum status
client_run(const struct client_setup *setup, const struct client_call *call,
	struct client_answer *answer, struct err *err)
{
	own(curl_slist) headers = NULL;
	own(CURL) curl = NULL;
	struct sink sink = { .call = call, .answer = answer };
	char url[URL_BYTES];

	*answer = (struct client_answer){ .body = { .limit_bytes = ANSWER_MAX_BYTES } };
	TRY(make_url(url, setup, call->path, err));
	TRY(make_headers(&headers, setup, call, err));
	curl = curl_easy_init();
	if (curl == NULL)
		return err_memory(err);
	sink.curl = curl;
	(void)curl_easy_setopt(curl, CURLOPT_URL, url);
#if LIBCURL_VERSION_NUM >= 0x075500 /* 7.85.0; Ubuntu 22.04 has an older one */
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
#else
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)CURLPROTO_HTTPS);
#endif
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	(void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, setup->timeout_ms);
	(void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, SILENCE_MAX_S);
	(void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "jitrca/" JITRCA_VERSION);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &sink);
	if (setup->ca_bundle != NULL)
		(void)curl_easy_setopt(curl, CURLOPT_CAINFO, setup->ca_bundle);
	set_body(curl, call);
	return perform(curl, setup, answer, &sink, err);
}
