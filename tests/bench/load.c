#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "tests/bench/load.h"

static const struct {
	const char *name;
	enum mode mode;
	const char *about;
} MODES[] = {
	{ "csrs", MODE_CSRS, "adds CSRs to the file --csrs until it holds --count (--kind)" },
	{ "issue", MODE_ISSUE, "POST /v1/certificates, a device and an idempotency key each" },
	{ "batch", MODE_BATCH, "POST /v1/certificates/batch of --items" },
	{ "cfssl", MODE_CFSSL, "POST /api/v1/cfssl/sign, the same CSRs" },
	{ "get", MODE_GET, "GET --path, with --if-none-match" },
	{ "post", MODE_POST, "POST the file --body to --path" },
	{ "handshake", MODE_HANDSHAKE, "connect, shake hands, GET --path, close, again" },
	{ "hold", MODE_HOLD,
		"begin and never finish: --kind connect, hello, headers, body, unread" },
};

enum { KIND_FLAG = 1, KIND_TEXT, KIND_NUMBER, KIND_SIZE, KIND_INT, KIND_REAL };

static struct options given = { .connections = 1, .sources = 1, .items = 1000, .prefix = "load" };

static const struct {
	const char *name;
	int kind;
	void *into;
	const char *about;
} OPTIONS[] = {
	{ "connect", KIND_TEXT, &given.connect, "ADDRESS:PORT" },
	{ "ca", KIND_TEXT, &given.ca, "TLS, trusting this file's certificates" },
	{ "cert", KIND_TEXT, &given.cert, "the client's certificate with its chain" },
	{ "key", KIND_TEXT, &given.key, "and its key" },
	{ "tls", KIND_INT, &given.tls, "12 or 13: that version only" },
	{ "resume", KIND_FLAG, &given.resume, "resume the session before" },
	{ "token-file", KIND_TEXT, &given.token_file, "a bearer token" },
	{ "connections", KIND_SIZE, &given.connections, "kept alive; of csrs: threads" },
	{ "sources", KIND_SIZE, &given.sources, "loopback addresses that they come from" },
	{ "count", KIND_NUMBER, &given.count, "requests" },
	{ "seconds", KIND_REAL, &given.seconds, "no request begins later" },
	{ "csrs", KIND_TEXT, &given.csrs, "the file of CSRs" },
	{ "first", KIND_NUMBER, &given.first, "number of the first CSR" },
	{ "items", KIND_SIZE, &given.items, "of a batch" },
	{ "prefix", KIND_TEXT, &given.prefix, "of device ids" },
	{ "profile", KIND_TEXT, &given.profile, "that is asked for" },
	{ "path", KIND_TEXT, &given.path, "another path" },
	{ "body", KIND_TEXT, &given.body, "file to post" },
	{ "content-type", KIND_TEXT, &given.content_type, "of it" },
	{ "if-none-match", KIND_TEXT, &given.if_none_match, "an ETag" },
	{ "kind", KIND_TEXT, &given.kind, "of csrs: p256, p384, rsa2048; of hold: see there" },
	{ "pause", KIND_REAL, &given.pause, "of hold: seconds between two octets" },
	{ "reopen", KIND_FLAG, &given.reopen, "of hold: open again what was closed" },
};

void
die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)fprintf(stderr, "load: ");
	(void)vfprintf(stderr, format, args);
	(void)fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

int64_t
now_us(void)
{
	return clock_mono_us();
}

static _Noreturn void
usage(void)
{
	(void)fprintf(stderr, "load MODE --option VALUE …\n");
	for (size_t i = 0; i < COUNT_OF(MODES); i++)
		(void)fprintf(stderr, "  %-16s %s\n", MODES[i].name, MODES[i].about);
	for (size_t i = 0; i < COUNT_OF(OPTIONS); i++)
		(void)fprintf(stderr, "  --%-14s %s\n", OPTIONS[i].name, OPTIONS[i].about);
	exit(2);
}

static void
take_option(size_t index, const char *text)
{
	void *into = OPTIONS[index].into;

	switch (OPTIONS[index].kind) {
	case KIND_FLAG: *(bool *)into = true; break;
	case KIND_TEXT: *(const char **)into = text; break;
	case KIND_NUMBER: *(uint64_t *)into = strtoull(text, NULL, 10); break;
	case KIND_SIZE: *(size_t *)into = strtoul(text, NULL, 10); break;
	case KIND_INT: *(int *)into = (int)strtol(text, NULL, 10); break;
	default: *(double *)into = strtod(text, NULL); break;
	}
}

static void
read_options(int argc, char **argv)
{
	struct option table[COUNT_OF(OPTIONS) + 1] = { { 0 } };
	int index;

	for (size_t i = 0; i < COUNT_OF(OPTIONS); i++)
		table[i] = (struct option){ OPTIONS[i].name,
			OPTIONS[i].kind == KIND_FLAG ? no_argument : required_argument, NULL, 0 };
	optind = 2;
	while (getopt_long(argc, argv, "", table, &index) == 0)
		take_option((size_t)index, optarg);
	if (optind != argc)
		usage();
}

static void
read_address(void)
{
	char host[64];
	const char *colon = given.connect != NULL ? strrchr(given.connect, ':') : NULL;

	if (colon == NULL || (size_t)(colon - given.connect) >= sizeof(host))
		die("--connect: ADDRESS:PORT wanted");
	memcpy(host, given.connect, (size_t)(colon - given.connect));
	host[colon - given.connect] = '\0';
	given.address = (struct sockaddr_in){ .sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10)) };
	if (inet_pton(AF_INET, host, &given.address.sin_addr) != 1)
		die("--connect: %s is no IPv4 address", host);
}

static void
lift_limits(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return;
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < given.connections + 16)
		die("%zu connections wanted, but only %zu files may be open", given.connections,
			(size_t)files.rlim_cur);
}

int
main(int argc, char **argv)
{
	int status;

	if (argc < 2)
		usage();
	for (size_t i = 0; i < COUNT_OF(MODES); i++) {
		if (strcmp(argv[1], MODES[i].name) == 0) {
			given.mode = MODES[i].mode;
			given.mode_name = MODES[i].name;
		}
	}
	if (given.mode == 0)
		usage();
	read_options(argc, argv);
	if (given.mode == MODE_CSRS)
		return csrs_make(&given);
	if (given.count == 0 && given.seconds <= 0)
		die("--count or --seconds wanted");
	(void)signal(SIGPIPE, SIG_IGN);
	read_address();
	lift_limits();
	request_prepare(&given);
	status = given.mode == MODE_HOLD ? hold_run(&given) : clients_run(&given);
	request_end();
	return status;
}
