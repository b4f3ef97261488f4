/* ca/signer_wire.c, signer_remote.c, signer_serve.c: the same signer, over a socket. */
#include "tests/unit/ca/fixture.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ca/crl.h"
#include "ca/digest.h"
#include "ca/signer_wire.h"

struct served {
	struct fixture fixture;
	pthread_t thread;
	int fd; /* the server's */
	int client;
	enum status status;
	struct err err;
};

static void *
serve(void *arg)
{
	struct served *served = arg;

	served->status = ca_signer_serve(served->fd, served->fixture.signer, &served->err);
	(void)close(served->fd);
	return NULL;
}

static void
serve_begin(struct served *served)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	served->fd = pair[0];
	served->client = pair[1];
	assert_int_equal(pthread_create(&served->thread, NULL, serve, served), 0);
}

static void
served_make(struct served *served)
{
	fixture_make(&served->fixture, KEY_EC_P256);
	serve_begin(served);
}

/* The client's end is closed: the server's thread ends. */
static void
served_end(struct served *served)
{
	assert_int_equal(pthread_join(served->thread, NULL), 0);
	fixture_end(&served->fixture);
}

static void
a_remote_signer_does_what_a_local_one_does(void **state)
{
	own_struct(ca_signer_info) info = { .ca_count = 0 };
	own_struct(pile) list = { .fd = -1 };
	struct ca_prepare_item items[SIGNER_BATCH_MAX];
	struct ca_sign_item done[SIGNER_BATCH_MAX];
	struct ca_request request = fixture_request();
	struct ca_signer *remote = NULL;
	struct ca_crl *crl = NULL;
	struct served served;
	struct err err;
	uint8_t digest[32];

	(void)state;
	served_make(&served);
	assert_ok(ca_signer_remote(&remote, served.client, &err));

	/* The fullest batch that there can be. */
	request.attribute_count = CA_ATTRIBUTES_MAX;
	for (size_t i = 2; i < CA_ATTRIBUTES_MAX; i++) {
		memset(request.attributes[i].name, 'n', 32);
		memset(request.attributes[i].value, 'v', 128);
	}
	memset(request.thing_type, 't', 128);
	for (size_t i = 0; i < SIGNER_BATCH_MAX; i++)
		items[i] = fixture_item(&served.fixture, 0, &request);
	items[3].ca_id = "nobody";
	items[4].validity_s = 3600;
	assert_ok(ca_signer_prepare(remote, items, SIGNER_BATCH_MAX, &err));
	assert_string_equal(items[3].refusal.code, "ca_unknown");
	assert_int_equal(items[3].status, ERR_DENIED);
	assert_int_equal(items[4].not_after_s, NOW_S + 3600);
	assert_non_null(strstr(items[5].subject, "sn-0001"));
	for (size_t i = 0; i < SIGNER_BATCH_MAX; i++)
		done[i] = (struct ca_sign_item){ .handle = items[i].handle };
	done[3].handle = 77;
	assert_ok(ca_signer_drop(remote, &items[6].handle, 1, &err));
	assert_ok(ca_signer_sign(remote, done, SIGNER_BATCH_MAX, &err));
	for (size_t i = 0; i < SIGNER_BATCH_MAX; i++) {
		if (i == 3 || i == 6) {
			assert_string_equal(done[i].refusal.code, "handle_unknown");
			continue;
		}
		assert_int_equal(done[i].status, OK);
		ca_sha256(digest, view_of(&done[i].der));
		assert_memory_equal(digest, done[i].sha256, 32);
		bytes_free(&done[i].der);
	}

	assert_ok(ca_signer_info(remote, &info, &err));
	assert_int_equal(info.ca_count, 2);
	assert_string_equal(info.cas[1].ca_id, "root");
	assert_int_equal(info.cas[0].chain_count, 1);
	assert_true(info.cas[0].certificate.len > 0);
	assert_int_equal(info.signed_count, SIGNER_BATCH_MAX - 2);
	assert_int_equal(info.profile_count, 2);

	/* A list in several pieces. */
	{
		struct ca_crl_head head = {
			.ca_id = "issuing-1",
			.issuer_certificate = view_of(&info.cas[0].certificate),
			.number = 1,
			.this_update_s = NOW_S,
			.next_update_s = NOW_S + DAY_S,
		};

		assert_ok(ca_crl_begin(&crl, &head, "/tmp", &err));
		for (uint32_t i = 1; i < 20000; i++) {
			struct serial serial = { { 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0,
				(uint8_t)(i >> 16), (uint8_t)(i >> 8 & 255), (uint8_t)(i & 255) } };

			assert_ok(ca_crl_add(crl, &serial, NOW_S, 1, &err));
		}
		pile_init(&list, "/tmp", CRL_MEMORY_MAX_BYTES);
		assert_ok(ca_crl_sign(crl, remote, &list, digest, &err));
		ca_crl_free(crl);
	}
	assert_refused(ca_signer_crl_begin(remote, "nobody", &err), ERR_DENIED, "ca_unknown");
	assert_refused(ca_signer_crl_add(remote, VIEW(SPKI_P256), &err), ERR_ARGUMENT, "crl_state");
	{
		/* One that must be cut on its way. */
		own_struct(bytes)
			zeros = { mem_zalloc(WIRE_PIECE_MAX_BYTES + 1), WIRE_PIECE_MAX_BYTES + 1 };

		assert_ok(ca_signer_crl_begin(remote, "issuing-1", &err));
		assert_refused(ca_signer_crl_add(remote, view_of(&zeros), &err), ERR_ARGUMENT,
			"crl_malformed");
	}
	ca_sha256(digest, VIEW(SPKI_P256));
	assert_ok(ca_signer_block_key(remote, digest, &err));
	assert_ok(ca_signer_prepare(remote, items, 1, &err));
	assert_string_equal(items[0].refusal.code, "public_key_blocked");
	/* What would not fit is not sent, and the connection lives on. */
	items[0].spki.len = WIRE_SPKI_MAX_BYTES + 1;
	assert_refused(ca_signer_prepare(remote, items, 1, &err), ERR_ARGUMENT, "signer_request");
	assert_ok(ca_signer_prepare(remote, items, 0, &err));
	ca_signer_free(remote);
	served_end(&served);
	assert_int_equal(served.status, OK);
}

/* ---- what breaks the protocol ---- */

static void
send_all(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

#define HELLO "\0\0\0\x0a\x01\0\0\0\0\x6a\x72\x63\x6b\0\x01"

static void
the_server_closes_on_what_is_not_the_protocol(void **state)
{
	static const struct {
		const char *data;
		size_t len;
		bool greet;
		const char *want_code;
	} CASES[] = {
#define BYTES(text) text, sizeof(text) - 1
		{ BYTES(""), false, NULL },
		{ BYTES(""), true, NULL },
		{ BYTES("\0\0"), false, "signer_away" },             /* ends within a header */
		{ BYTES("\0\0\0\x05\x01"), false, "signer_away" },   /* ends within a message */
		{ BYTES("\0\0\0\0\x09"), false, "signer_protocol" }, /* no greeting */
		{ BYTES("\0\0\0\x0a\x01\0\0\0\0\x6a\x72\x63\x6b\0\x02"), false, "signer_protocol" },
		{ BYTES("\0\0\0\x0a\x01\0\0\0\0\x6a\x72\x63\x6c\0\x01"), false, "signer_protocol" },
		{ BYTES("\0\0\0\x0b\x01\0\0\0\0\x6a\x72\x63\x6b\0\x01\0"), false,
			"signer_protocol" },
		{ BYTES(HELLO), true, "signer_protocol" },              /* twice */
		{ BYTES("\0\x10\0\x01\x02"), true, "signer_protocol" }, /* over 1 MiB */
		{ BYTES("\xff\xff\xff\xff\x02"), true, "signer_protocol" },
		{ BYTES("\0\0\0\0\0"), true, "signer_protocol" },
		{ BYTES("\0\0\0\0\x0a"), true, "signer_protocol" },           /* unknown */
		{ BYTES("\0\0\0\0\x81"), true, "signer_protocol" },           /* an answer */
		{ BYTES("\0\0\0\0\x02"), true, "signer_protocol" },           /* no count */
		{ BYTES("\0\0\0\x02\x02\x01\x01"), true, "signer_protocol" }, /* 257 items */
		{ BYTES("\0\0\0\x02\x02\0\x01"), true,
			"signer_protocol" }, /* one, and nothing of it */
		{ BYTES("\0\0\0\x02\x03\0\x01"), true, "signer_protocol" },
		{ BYTES("\0\0\0\x03\x03\0\0\0"), true, "signer_protocol" }, /* more than it has */
		{ BYTES("\0\0\0\x02\x04\0\x01"), true, "signer_protocol" },
		{ BYTES("\0\0\0\x04\x05\xff\xff\xff\xff"), true, "signer_protocol" },
		{ BYTES("\0\0\0\x06\x05\0\0\0\x02\x61\0"), true,
			"signer_protocol" }, /* NUL in a text */
		{ BYTES("\0\0\0\x04\x06\xff\xff\xff\xff"), true, "signer_protocol" },
		{ BYTES("\0\0\0\x01\x07\0"), true, "signer_protocol" },
		{ BYTES("\0\0\0\x01\x08\0"), true, "signer_protocol" },
		{ BYTES("\0\0\0\x01\x09\0"), true, "signer_protocol" },
	};
	struct fixture f;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct served served = { .fixture = f };
		char answer[64];

		serve_begin(&served);
		if (CASES[i].greet) {
			send_all(served.client, BYTES(HELLO));
			assert_int_equal(recv(served.client, answer, sizeof(answer), 0), 8);
			assert_memory_equal(answer, "\0\0\0\x03\x81\x01\0\x01", 8);
		}
		send_all(served.client, CASES[i].data, CASES[i].len);
		assert_int_equal(shutdown(served.client, SHUT_WR), 0);
		assert_int_equal(
			recv(served.client, answer, sizeof(answer), 0), 0); /* nothing said */
		assert_int_equal(pthread_join(served.thread, NULL), 0);
		(void)close(served.client);
		if (CASES[i].want_code == NULL)
			assert_int_equal(served.status, OK);
		else if (served.status == OK || strcmp(served.err.code, CASES[i].want_code) != 0)
			fail_msg("case %zu: %s wanted, %s found", i, CASES[i].want_code,
				served.status == OK ? "OK" : served.err.code);
	}
	fixture_end(&f);
}

/* A server of lies: says these octets, whatever it is asked. */
struct liar {
	int fd;
	const char *data;
	size_t len;
};

static void *
lie(void *arg)
{
	struct liar *liar = arg;
	char in[4096];

	assert_true(recv(liar->fd, in, sizeof(in), 0) > 0);
	(void)send(liar->fd, "\0\0\0\x03\x81\x01\0\x01", 8, MSG_NOSIGNAL);
	if (recv(liar->fd, in, sizeof(in), 0) > 0)
		(void)send(liar->fd, liar->data, liar->len, MSG_NOSIGNAL);
	(void)close(liar->fd);
	return NULL;
}

static enum status
ask(struct ca_signer *remote, size_t what, struct err *err)
{
	struct ca_request request = { .device_id = "a" };
	struct ca_prepare_item prepare = { .ca_id = "a", .request = &request };
	struct ca_sign_item sign[2] = { { .handle = 1 }, { .handle = 2 } };
	own_struct(ca_signer_info) info = { .ca_count = 0 };
	own_struct(bytes) tail = { NULL, 0 };
	enum status status = OK;

	switch (what) {
	case WIRE_PREPARE: return ca_signer_prepare(remote, &prepare, 1, err);
	case WIRE_SIGN:
		status = ca_signer_sign(remote, sign, 2, err);
		if (status == OK) {
			bytes_free(&sign[0].der);
			bytes_free(&sign[1].der);
		}
		assert_null(sign[0].der.data); /* freed with a batch that broke */
		return status;
	case WIRE_DROP: return ca_signer_drop(remote, &sign[0].handle, 1, err);
	case WIRE_CRL_END: return ca_signer_crl_end(remote, &tail, err);
	default: return ca_signer_info(remote, &info, err);
	}
}

static void
the_client_gives_up_on_what_is_not_the_protocol(void **state)
{
	static const struct {
		unsigned what;
		const char *data;
		size_t len;
	} CASES[] = {
		{ WIRE_DROP, BYTES("") },
		{ WIRE_DROP, BYTES("\0\0\0\x01") },
		{ WIRE_DROP, BYTES("\0\0\0\x05\x84\x01") },
		{ WIRE_DROP, BYTES("\xff\xff\xff\xff\x84\x01") },
		{ WIRE_DROP, BYTES("\0\0\0\x01\x83\x01") },   /* to another question */
		{ WIRE_DROP, BYTES("\0\0\0\0\x84") },         /* no status */
		{ WIRE_DROP, BYTES("\0\0\0\x02\x84\x01\0") }, /* and more */
		{ WIRE_DROP, BYTES("\0\0\0\x01\x84\x0a") },   /* no such status */
		{ WIRE_DROP, BYTES("\0\0\0\x01\x84\x02") },   /* an error without its text */
		{ WIRE_DROP, BYTES("\0\0\0\x12\x84\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0") },
		{ WIRE_PREPARE, BYTES("\0\0\0\x01\x82\x01") },
		{ WIRE_PREPARE, BYTES("\0\0\0\x02\x82\x01\x01") },
		{ WIRE_SIGN, BYTES("\0\0\0\x01\x83\x01") },
		{ WIRE_SIGN, BYTES("\0\0\0\x27\x83\x01\x01\0\0\0\x01"
				   "x"
				   "01234567890123456789012345678901") },
		{ WIRE_SIGN, BYTES("\0\0\0\x06\x83\x01\x01\xff\xff\xff\xff") },
		{ WIRE_CRL_END, BYTES("\0\0\0\x01\x87\x01") },
		{ WIRE_CRL_END, BYTES("\0\0\0\x05\x87\x01\0\0\x10\0") },
		{ WIRE_CRL_END, BYTES("\0\0\0\x07\x87\x01\0\0\0\x01xx") },
		{ WIRE_INFO, BYTES("\0\0\0\x01\x89\x01") },
		{ WIRE_INFO, BYTES("\0\0\0\x03\x89\x01\0\x09") }, /* nine CAs */
		{ WIRE_INFO, BYTES("\0\0\0\x0f\x89\x01\0\x01\0\0\0\x01"
				   "a\x02\x01\0\0\0\0\0") },
		{ WIRE_INFO, BYTES("\0\0\0\x05\x89\x01\0\0\0\xff") },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct liar liar = { .data = CASES[i].data, .len = CASES[i].len };
		struct ca_signer *remote = NULL;
		pthread_t thread;
		struct err err;
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		liar.fd = pair[0];
		assert_int_equal(pthread_create(&thread, NULL, lie, &liar), 0);
		assert_ok(ca_signer_remote(&remote, pair[1], &err));
		if (ask(remote, CASES[i].what, &err) == OK)
			fail_msg("case %zu: OK", i);
		assert_string_equal(err.code, "signer_away");
		assert_int_equal(err.status, ERR_UNAVAILABLE);
		/* For good. */
		assert_refused(ask(remote, WIRE_DROP, &err), ERR_UNAVAILABLE, "signer_away");
		assert_int_equal(pthread_join(thread, NULL), 0);
		ca_signer_free(remote);
	}
}

static void
a_greeting_must_be_answered_rightly(void **state)
{
	static const struct {
		const char *data;
		size_t len;
		const char *want_code;
	} CASES[] = {
		{ BYTES(""), "signer_away" },
		{ BYTES("\0\0\0\x03\x81\x01\0\x02"), "signer_away" },
		{ BYTES("\0\0\0\x01\x81\x01"), "signer_away" },
		{ BYTES("\0\0\0\x0f\x81\x02\0\0\0\x01x\0\0\0\x01y\0\0\0\0"), "signer_away" },
		{ BYTES("\0\0\0\x13\x81\x09\0\0\0\x01x\0\0\0\x01y\0\0\0\0\0\0\0\0"), "x" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct ca_signer *remote = NULL;
		struct err err;
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		send_all(pair[0], CASES[i].data, CASES[i].len);
		assert_int_equal(shutdown(pair[0], SHUT_WR), 0);
		assert_refused(ca_signer_remote(&remote, pair[1], &err), ERR_UNAVAILABLE,
			CASES[i].want_code);
		(void)close(pair[0]);
		assert_int_equal(close(pair[1]), 0); /* it stayed ours */
	}
}

static void
a_deadline_that_has_passed_is_a_signer_away(void **state)
{
	own_struct(buf) in = { .limit_bytes = WIRE_MESSAGE_MAX_BYTES };
	struct wire_writer w;
	unsigned type;
	struct err err;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_refused(wire_receive(pair[0], &in, &type, clock_mono_ms(&CLOCK_SYSTEM) + 20, &err),
		ERR_UNAVAILABLE, "signer_away");
	/* Nobody reads: the socket is full before the message is sent. */
	wire_writer_init(&w);
	wire_begin(&w, WIRE_CRL_ADD);
	for (size_t i = 0; i < 7000; i++)
		wire_put_octets(&w, SPKI_P256, sizeof(SPKI_P256));
	assert_ok(wire_end(&w, &err));
	assert_refused(wire_send(pair[0], &w, clock_mono_ms(&CLOCK_SYSTEM) + 20, &err),
		ERR_UNAVAILABLE, "signer_away");
	for (size_t i = 0; i < 10000; i++)
		wire_put_octets(&w, SPKI_P256, sizeof(SPKI_P256));
	assert_refused(wire_end(&w, &err), ERR_TOO_LARGE, "signer_message");
	(void)close(pair[1]);
	wire_begin(&w, WIRE_DROP);
	assert_ok(wire_end(&w, &err));
	assert_refused(wire_send(pair[0], &w, 0, &err), ERR_UNAVAILABLE, "signer_away");
	(void)close(pair[0]);
	assert_refused(wire_receive(-1, &in, &type, 0, &err), ERR_UNAVAILABLE, "signer_away");
	wire_writer_free(&w);
}

static enum status
use_remote(int fd, struct err *err)
{
	own_struct(ca_signer_info) info = { .ca_count = 0 };
	own_struct(bytes) tail = { NULL, 0 };
	struct ca_signer *remote = NULL;
	enum status status = ca_signer_remote(&remote, fd, err);

	if (status != OK) {
		(void)close(fd);
		return status;
	}
	status = ca_signer_info(remote, &info, err);
	ca_signer_free(remote);
	return status;
}

static void
each_allocation_of_the_client_may_fail(void **state)
{
	struct fixture f;
	bool failed = true;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	for (int64_t n = 0; failed; n++) {
		struct served served = { .fixture = f };
		enum status status;
		struct err err;

		serve_begin(&served);
		mem_fail_at(n);
		status = use_remote(served.client, &err);
		failed = mem_failed();
		mem_fail_at(-1);
		assert_int_equal(status, failed ? ERR_UNAVAILABLE : OK);
		assert_int_equal(pthread_join(served.thread, NULL), 0);
	}
	fixture_end(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_remote_signer_does_what_a_local_one_does),
		cmocka_unit_test(the_server_closes_on_what_is_not_the_protocol),
		cmocka_unit_test(the_client_gives_up_on_what_is_not_the_protocol),
		cmocka_unit_test(a_greeting_must_be_answered_rightly),
		cmocka_unit_test(a_deadline_that_has_passed_is_a_signer_away),
		cmocka_unit_test(each_allocation_of_the_client_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
