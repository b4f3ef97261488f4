/*
 * server/http against real clients. Without arguments it runs http_live.py beside it, which starts
 * this program again as a small server (`serve DIR key=value …`) and plays the clients.
 */
#include "tests/unit/base/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/http/fields.h"
#include "server/http/http.h"

/* Our app is this test's own: http never looks inside. */
struct app {
	struct http *http;
	const char *dir;
};

static const char *self;

static enum status
ping(struct app *app, struct request *request, struct err *err)
{
	(void)app;
	return request_reply_bytes(request, 200, "text/plain", view_text("pong\n"), err);
}

static enum status
echo(struct app *app, struct request *request, struct err *err)
{
	(void)app;
	return request_reply_bytes(
		request, 200, "application/octet-stream", request_body(request), err);
}

static enum status
json_echo(struct app *app, struct request *request, struct err *err)
{
	json_t *json;

	(void)app;
	TRY(request_json(request, &json, err));
	return request_reply_json(request, 201, json, err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	const char *query = request_query(request, "q");

	(void)app;
	TRY(request_reply_header(request, "Cache-Control", "max-age=60", err));
	return request_reply_json(request, 200,
		json_pack("{s:s, s:s*, s:s, s:i}", "id", request_param(request, "id"), "q", query,
			"address", request_peer_address(request), "peer_bytes",
			(int)request_peer_certificate(request).len),
		err);
}

static void *
finish_later(void *arg)
{
	struct request *request = arg;
	struct err err;
	enum status status =
		request_reply_bytes(request, 200, "text/plain", view_text("later\n"), &err);

	request_finish(request, status, &err);
	return NULL;
}

/* Parks; another thread, or another worker, finishes. */
static enum status
park(struct app *app, struct request *request, struct err *err)
{
	pthread_t thread;

	(void)app, (void)err;
	request_park(request);
	if (pthread_create(&thread, NULL, finish_later, request) == 0)
		pthread_detach(thread);
	else
		(void)finish_later(request);
	return OK;
}

static void
finish_deferred(void *arg)
{
	(void)finish_later(arg);
}

static enum status
defer(struct app *app, struct request *request, struct err *err)
{
	enum status status;

	request_park(request);
	status = http_defer(app->http, finish_deferred, request, err);
	if (status != OK)
		request_finish(request, status, err);
	return OK;
}

static enum status
slow(struct app *app, struct request *request, struct err *err)
{
	(void)app;
	usleep(500 * 1000);
	return request_reply_bytes(request, 200, "text/plain", view_text("slow\n"), err);
}

static enum status
big(struct app *app, struct request *request, struct err *err)
{
	struct bytes body = { mem_zalloc((size_t)32 << 20), (size_t)32 << 20 };

	(void)app;
	if (body.data == NULL)
		return err_memory(err);
	return request_reply_owned(request, 200, "application/octet-stream", &body, err);
}

static enum status
upload(struct app *app, struct request *request, struct err *err)
{
	off_t size = lseek(request_body_fd(request), 0, SEEK_END);

	(void)app;
	return request_reply_json(request, 200, json_pack("{s:I}", "size", (json_int_t)size), err);
}

static enum status
break_down(struct app *app, struct request *request, struct err *err)
{
	(void)app, (void)request;
	return err_set(err, ERR_INTERNAL, "canary_code", "canary text");
}

static enum status
busy(struct app *app, struct request *request, struct err *err)
{
	(void)app;
	TRY(request_reply_header(request, "ETag", "\"stale\"", err));
	(void)err_set(err, ERR_UNAVAILABLE, "database_unavailable", "try again");
	err->retry_after_s = 7;
	return ERR_UNAVAILABLE;
}

static enum status
silent(struct app *app, struct request *request, struct err *err)
{
	(void)app, (void)request, (void)err;
	return OK;
}

static enum status
file(struct app *app, struct request *request, struct err *err)
{
	FILE *stream = tmpfile();

	(void)app;
	if (stream == NULL || fputs("from a file\n", stream) < 0 || fflush(stream) != 0)
		return err_set(err, ERR_INTERNAL, "file", "tmpfile");
	TRY(request_reply_fd(request, 200, "text/plain", dup(fileno(stream)), 12, err));
	fclose(stream);
	return OK;
}

static enum status
unchanged(struct app *app, struct request *request, struct err *err)
{
	(void)app;
	return request_reply_bytes(request, 304, "text/plain", (struct view){ NULL, 0 }, err);
}

static enum status
metrics(struct app *app, struct request *request, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = 1 << 20 };
	own_struct(bytes) body = { NULL, 0 };

	TRY(http_metrics(app->http, &text, err));
	body = buf_give(&text);
	return request_reply_owned(request, 200, "text/plain; version=0.0.4", &body, err);
}

static struct bytes
slurp(const char *dir, const char *name, const char *suffix)
{
	char path[512];
	uint8_t data[16384];
	struct bytes out = { NULL, 0 };
	struct err err;
	FILE *stream;
	size_t len;

	(void)snprintf(path, sizeof(path), "%s/%s.%s", dir, name, suffix);
	stream = fopen(path, "re");
	assert_non_null(stream);
	len = fread(data, 1, sizeof(data), stream);
	fclose(stream);
	assert_int_equal(bytes_copy(&out, (struct view){ data, len }, &err), OK);
	return out;
}

static enum status
set_certificates(struct app *app, const char *const *names, size_t count, struct err *err)
{
	struct bytes files[8] = { { NULL, 0 } };
	struct http_certificate certificates[4] = { { .key_pem = { NULL, 0 } } };
	enum status status;

	for (size_t i = 0; i < count; i++) {
		files[2 * i] = slurp(app->dir, names[i], "pem");
		files[2 * i + 1] = slurp(app->dir, names[i], "key");
		certificates[i] = (struct http_certificate){ view_of(&files[2 * i]),
			view_of(&files[2 * i + 1]) };
	}
	status = http_set_certificates(app->http, certificates, count, err);
	for (size_t i = 0; i < 2 * count; i++)
		bytes_free(&files[i]);
	return status;
}

static enum status
swap(struct app *app, struct request *request, struct err *err)
{
	static const char *const NEXT[] = { "next" };

	TRY(set_certificates(app, NEXT, 1, err));
	return request_reply_bytes(request, 204, "text/plain", (struct view){ NULL, 0 }, err);
}

static const char *const SHOW_QUERY[] = { "q", "limit", "cursor", NULL };

#define ALL (LISTENER_HTTPS | LISTENER_STATIONS | LISTENER_HTTP)
static const struct route ROUTES[] = {
	{ .method = "GET",
		.path = "/ping",
		.handle = ping,
		.roles = ROLE_ANYONE,
		.listeners = ALL,
		.inline_ok = true },
	{ .method = "GET",
		.path = "/metrics",
		.handle = metrics,
		.roles = ROLE_ANYONE,
		.listeners = ALL },
	{ .method = "POST",
		.path = "/echo",
		.handle = echo,
		.roles = ROLE_ANYONE,
		.listeners = ALL,
		.body_max_bytes = 200000 },
	{ .method = "POST",
		.path = "/json",
		.handle = json_echo,
		.roles = ROLE_ANYONE,
		.listeners = ALL,
		.body_max_bytes = 1 << 20 },
	{ .method = "GET",
		.path = "/show/{id}",
		.handle = show,
		.roles = ROLE_ANYONE,
		.listeners = ALL,
		.query = SHOW_QUERY },
	{ .method = "GET",
		.path = "/park",
		.handle = park,
		.roles = ROLE_ANYONE,
		.listeners = ALL },
	{ .method = "POST",
		.path = "/park",
		.handle = park,
		.roles = ROLE_ANYONE,
		.listeners = ALL,
		.body_max_bytes = 65536 },
	{ .method = "GET",
		.path = "/defer",
		.handle = defer,
		.roles = ROLE_ANYONE,
		.listeners = ALL },
	{ .method = "GET",
		.path = "/slow",
		.handle = slow,
		.roles = ROLE_ANYONE,
		.listeners = ALL },
	{ .method = "GET", .path = "/big", .handle = big, .roles = ROLE_ANYONE, .listeners = ALL },
	{ .method = "GET",
		.path = "/file",
		.handle = file,
		.roles = ROLE_ANYONE,
		.listeners = ALL },
	{ .method = "GET",
		.path = "/fail",
		.handle = break_down,
		.roles = ROLE_ANYONE,
		.listeners = ALL },
	{ .method = "GET",
		.path = "/busy",
		.handle = busy,
		.roles = ROLE_ANYONE,
		.listeners = ALL },
	{ .method = "GET",
		.path = "/silent",
		.handle = silent,
		.roles = ROLE_ANYONE,
		.listeners = ALL },
	{ .method = "GET",
		.path = "/unchanged",
		.handle = unchanged,
		.roles = ROLE_ANYONE,
		.listeners = ALL },
	{ .method = "POST",
		.path = "/upload",
		.handle = upload,
		.roles = ROLE_ADMIN,
		.spool = true },
	{ .method = "GET", .path = "/secret", .handle = ping, .roles = ROLE_ADMIN },
	{ .method = "POST", .path = "/swap", .handle = swap, .roles = ROLE_ANYONE },
	{ .method = NULL },
};
static const struct route *const TABLES[] = { ROUTES, NULL };

static enum status
authorize(struct app *app, struct request *request, unsigned roles, struct err *err)
{
	const char *header = request_header(request, "Authorization");

	(void)app, (void)roles;
	if (header == NULL || strcmp(header, "Bearer good") != 0)
		return err_set(
			err, ERR_UNAUTHENTICATED, "credentials_missing", "Authorization: wanted");
	request_set_actor(request, "tester");
	return OK;
}

static int
listen_on(const char *address, uint16_t *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(inet_pton(AF_INET, address, &at.sin_addr), 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 4096), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	*port = ntohs(at.sin_port);
	return fd;
}

/* "idle_ms=500" and the like. */
static void
set_limit(struct config *config, const char *text)
{
	static const struct {
		const char *name;
		size_t offset;
	} LIMITS[] = {
		{ "connections", offsetof(struct config, connections_max) },
		{ "address", offsetof(struct config, connections_per_address_max) },
		{ "first_ms", offsetof(struct config, first_request_timeout_ms) },
		{ "idle_ms", offsetof(struct config, idle_timeout_ms) },
		{ "threads", offsetof(struct config, http_threads) },
		{ "workers", offsetof(struct config, worker_threads) },
		{ "shutdown_ms", offsetof(struct config, shutdown_timeout_ms) },
	};
	size_t len = strcspn(text, "=");

	for (size_t i = 0; i < COUNT_OF(LIMITS); i++)
		if (strlen(LIMITS[i].name) == len && strncmp(LIMITS[i].name, text, len) == 0) {
			int64_t value = strtoll(text + len + 1, NULL, 10);

			memcpy((uint8_t *)config + LIMITS[i].offset, &value, sizeof(value));
			return;
		}
	fail_msg("unknown limit %s", text);
}

static int
serve(const char *dir, char **limits, int count)
{
	static const char *const FIRST[] = { "one", "two" };
	struct config config = { .connections_max = 2000,
		.connections_per_address_max = 500,
		.first_request_timeout_ms = 10000,
		.idle_timeout_ms = 30000,
		.worker_threads = 2,
		.upload_max_bytes = 8 << 20,
		.shutdown_timeout_ms = 5000 };
	struct app app = { .dir = dir };
	struct http_setup setup = { .config = &config, .app = &app, .authorize = authorize };
	struct router *router;
	uint16_t https, stations, http;
	sigset_t signals;
	int number;
	struct err err;

	log_setup(STDERR_FILENO, getenv("HTTP_TEST_LOG") != NULL ? LOG_INFO : LOG_ERROR, "test");
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	for (int i = 0; i < count; i++)
		set_limit(&config, limits[i]);
	if (router_new(&router, TABLES, &err) != OK) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	setup.router = router;
	setup.https_fd = listen_on("127.0.0.1", &https);
	setup.stations_fd = listen_on("0.0.0.0", &stations);
	setup.http_fd = listen_on("127.0.0.1", &http);
	if (http_start(&app.http, &setup, &err) != OK ||
		set_certificates(&app, FIRST, 2, &err) != OK) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	printf("%d %d %d\n", https, stations, http);
	fflush(stdout);
	sigwait(&signals, &number);
	http_stop(app.http);
	router_free(router);
	return 0;
}

static void
real_clients_get_what_they_are_promised(void **state)
{
	char script[512];
	const char *slash = strrchr(__FILE__, '/');
	int status;
	pid_t child;

	(void)state;
	(void)snprintf(
		script, sizeof(script), "%.*s/http_live.py", (int)(slash - __FILE__), __FILE__);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		execl("/usr/bin/python3", "python3", script, self, (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_clients_get_what_they_are_promised),
	};

	self = argv[0];
	if (argc >= 3 && strcmp(argv[1], "serve") == 0)
		return serve(argv[2], argv + 3, argc - 3);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
