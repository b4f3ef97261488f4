/*
 * tests/bench/load.h - the load generator of `make bench` between its parts:
 *
 *   load.c          the command line, the event loop, the result as one line of JSON
 *   load_link.c     a TCP or TLS connection that never blocks
 *   load_client.c   a connection that asks again and again (all modes but hold)
 *   load_hold.c     connections that are opened and never finish what they began
 *   load_request.c  what is asked: one request of each mode
 *   load_http.c     reads answers
 *   load_stats.c    latencies and statuses
 *   load_csr.c      a file of CSRs, made before anything is measured
 *
 * One thread and epoll: on a machine with two processors it must leave one to whom it measures. It
 * says what it cost itself, so that nobody need believe that it was not the bottleneck.
 */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "base/attr.h"
#include "base/bytes.h"

enum mode {
	MODE_CSRS = 1,
	MODE_ISSUE,
	MODE_BATCH,
	MODE_CFSSL,
	MODE_GET,
	MODE_POST,
	MODE_HANDSHAKE,
	MODE_HOLD,
};

struct options {
	enum mode mode;
	const char *mode_name;
	const char *connect; /* HOST:PORT */
	struct sockaddr_in address;
	const char *ca, *cert, *key; /* TLS when ca is given; cert and key make it mutual */
	const char *token_file;
	char token[256]; /* of a bearer; empty: none */
	int tls;         /* 12 or 13: only that version; 0: both */
	bool resume;
	size_t connections, sources;
	uint64_t count; /* requests; 0: by time alone */
	double seconds; /* 0: by count alone */
	const char *csrs;
	uint64_t first;     /* CSR and device number of the first request */
	size_t items;       /* of a batch */
	const char *prefix; /* of device ids and idempotency keys: PREFIX-00000001 */
	const char *profile;
	const char *path, *body, *content_type, *if_none_match;
	const char *kind; /* of hold, of the keys of csrs */
	double pause;     /* of hold: seconds between two octets; 0: says no more */
	bool reopen;
};

_Noreturn void die(const char *format, ...) PRINTF(1, 2);
int64_t now_us(void); /* monotonic */

/* ---- load_link.c ---- */

enum link_result { LINK_DONE = 1, LINK_AGAIN, LINK_CLOSED };

struct link {
	int fd;               /* -1: closed */
	SSL *ssl;             /* NULL: plain */
	SSL_SESSION *session; /* kept for the next handshake, when resumption is wanted */
	bool wants_write;     /* LINK_AGAIN: for which event */
};

/* The SSL_CTX of all links; NULL without --ca. */
SSL_CTX *link_tls(const struct options *options);
/* Begins to connect from the number-th source address; true: fd is open. */
bool link_open(struct link *link, const struct options *options, SSL_CTX *tls, size_t number);
enum link_result link_handshake(struct link *link);
enum link_result link_write(struct link *link, const void *data, size_t len, size_t *written);
enum link_result link_read(struct link *link, void *data, size_t size, size_t *got);
void link_close(struct link *link); /* says goodbye; session stays */

/* ---- load_http.c ---- */

struct answer {
	int state, status;
	uint64_t left; /* of the body, or of a chunk */
	bool chunked, close;
	size_t line_len;
	char line[512];
	uint64_t bytes;   /* of the body */
	uint64_t created; /* items of a batch that were answered with 201 */
	unsigned match;   /* how much of the pattern of such an item has been seen */
};

void answer_begin(struct answer *answer);
/* Takes octets; true: the answer is whole. used says how many were its own; 0 and false: no HTTP.
 */
bool answer_take(struct answer *answer, const char *data, size_t len, size_t *used);

/* ---- load_request.c ---- */

/* Reads what the mode needs (CSRs, body, token). */
void request_prepare(struct options *options);
/* Writes the number-th request of the run into out, which is emptied first. */
void request_write(const struct options *options, uint64_t number, struct buf *out);
void request_warm(const struct options *options, struct buf *out);
void request_end(void);
/* Device ids and CSRs that one request uses. */
size_t request_items(const struct options *options);

/* ---- load_csr.c ---- */

/* CSRS_RECORD octets each: two of length, then DER. */
#define CSRS_RECORD 768
#define CSRS_RECORD_P256 256
/* Adds CSRs to the file until it holds count; --kind p256, p384 or rsa2048. */
int csrs_make(const struct options *options);
struct view csrs_at(uint64_t number);
void csrs_open(const char *path);
void csrs_close(void);

/* ---- load_stats.c ---- */

enum failure { FAILED_CONNECT, FAILED_TLS, FAILED_CLOSED, FAILURES };

struct stats {
	uint64_t answers, created, bytes, handshakes, resumed;
	uint64_t statuses[600];
	uint64_t failures[FAILURES];
	uint32_t *took_us;
	size_t took_count, took_room;
};

void stats_answer(struct stats *stats, const struct answer *answer, int64_t took_us);
/* One line of JSON. cpu_us is what the generator used meanwhile. */
void stats_print(
	struct stats *stats, const struct options *options, int64_t took_us, int64_t cpu_us);
void stats_free(struct stats *stats);

/* ---- load_client.c, load_hold.c ---- */

int clients_run(struct options *options);
int hold_run(struct options *options);

#endif
