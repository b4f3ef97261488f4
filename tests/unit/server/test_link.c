#include "tests/unit/base/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "ca/keystore.h"
#include "ca/secret.h"
#include "server/signer/link.h"

#define CHECK(call)                                                                                \
	do {                                                                                       \
		if ((call) != OK)                                                                  \
			fail_msg("%s: %s", err.code, err.text);                                    \
	} while (0)

/* A signer without keys or profiles: it answers, and that is all that a link needs. */
struct peer {
	pthread_t thread;
	struct ca_signer_shared *shared;
	int fd;
};

static char DIR[] = "/tmp/jitrca-link-XXXXXX";
static struct ca_keystore *KEYSTORE;
static int GREETED;
static bool GREETING_FAILS;

static void *
serve(void *arg)
{
	struct peer *peer = arg;
	struct ca_signer *signer;
	struct err err;

	CHECK(ca_signer_local(&signer, peer->shared, &err));
	(void)!ca_signer_serve(peer->fd, signer, &err);
	ca_signer_free(signer);
	return NULL;
}

static void
peer_start(struct peer *peer, struct signer_link *link)
{
	struct ca_signer_setup setup = {
		.keystore = KEYSTORE,
		.public_http_url = "http://localhost",
		.clock = &CLOCK_SYSTEM,
		.entropy = &ENTROPY_SYSTEM,
	};
	int fds[2];
	struct err err;

	CHECK(ca_signer_shared_new(&peer->shared, &setup, &err));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	peer->fd = fds[1];
	assert_int_equal(pthread_create(&peer->thread, NULL, serve, peer), 0);
	signer_link_connect(link, fds[0]);
}

static void
peer_kill(struct peer *peer)
{
	(void)shutdown(peer->fd, SHUT_RDWR);
	(void)pthread_join(peer->thread, NULL);
	(void)close(peer->fd);
	ca_signer_shared_free(peer->shared);
}

static enum status
greet(void *arg, struct ca_signer *signer, struct err *err)
{
	const uint8_t key[32] = { 1 };

	assert_string_equal(arg, "arg");
	GREETED++;
	if (GREETING_FAILS)
		return err_set(err, ERR_UNAVAILABLE, "database_away", "for a test");
	return ca_signer_block_key(signer, key, err);
}

static void
want_away(struct signer_link *link)
{
	struct ca_signer *signer;
	uint64_t generation;
	struct err err;

	assert_int_equal(signer_link_acquire(link, &signer, &generation, &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "signer_away");
	assert_int_equal(err.retry_after_s, 1);
	assert_false(signer_link_up(link));
}

/* Acquires, asks something, releases. */
static uint64_t
use(struct signer_link *link, enum status want)
{
	own_struct(ca_signer_info) info = { .ca_count = 0 };
	struct ca_signer *signer;
	uint64_t generation;
	enum status status;
	struct err err;

	CHECK(signer_link_acquire(link, &signer, &generation, &err));
	status = ca_signer_info(signer, &info, &err);
	signer_link_release(link, status != OK);
	assert_int_equal(status, want);
	return generation;
}

static void
a_link_lives_through_the_death_of_its_signer(void **state)
{
	struct signer_link *link;
	struct peer peer;
	uint64_t first;
	struct err err;

	(void)state;
	CHECK(signer_link_new(&link, &err));
	want_away(link);
	peer_start(&peer, link);
	assert_true(signer_link_up(link));
	first = use(link, OK);
	assert_int_equal(use(link, OK), first);
	peer_kill(&peer);
	(void)use(link, ERR_UNAVAILABLE);
	want_away(link);
	peer_start(&peer, link);
	assert_int_not_equal(use(link, OK), first);
	signer_link_free(link);
	peer_kill(&peer);
}

static void
only_the_newest_descriptor_counts(void **state)
{
	struct signer_link *link;
	struct peer old;
	struct peer new;
	struct err err;

	(void)state;
	CHECK(signer_link_new(&link, &err));
	peer_start(&old, link);
	peer_start(&new, link);
	(void)use(link, OK);
	peer_kill(&old);
	(void)use(link, OK);
	signer_link_free(link);
	peer_kill(&new);
}

static void
a_signer_is_not_handed_out_before_it_was_greeted(void **state)
{
	struct signer_link *link;
	struct ca_signer *signer;
	struct peer peer;
	uint64_t generation;
	struct err err;

	(void)state;
	CHECK(signer_link_new(&link, &err));
	signer_link_greet(link, greet, (void *)(uintptr_t)"arg");
	peer_start(&peer, link);
	GREETING_FAILS = true;
	assert_int_equal(signer_link_acquire(link, &signer, &generation, &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "database_away");
	/* It was the database that failed: the signer is kept. */
	assert_true(signer_link_up(link));
	GREETING_FAILS = false;
	GREETED = 0;
	(void)use(link, OK);
	(void)use(link, OK);
	assert_int_equal(GREETED, 1);
	peer_kill(&peer);
	(void)use(link, ERR_UNAVAILABLE);
	peer_start(&peer, link);
	(void)use(link, OK);
	assert_int_equal(GREETED, 2);
	signer_link_free(link);
	peer_kill(&peer);
}

static void
what_does_not_speak_our_protocol_is_dropped(void **state)
{
	struct signer_link *link;
	int fds[2];
	struct err err;

	(void)state;
	CHECK(signer_link_new(&link, &err));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(write(fds[1], "HTTP/1.1 200 OK\r\n\r\n----------------", 35), 35);
	signer_link_connect(link, fds[0]);
	want_away(link);
	want_away(link);
	(void)close(fds[1]);
	signer_link_free(link);
}

static int
start(void **state)
{
	struct ca_ceremony ceremony = {
		.passphrase = view_text("a passphrase for tests"),
		.key_type = KEY_EC_P256,
		.ca_id = "root",
		.validity_s = 86400,
		.public_http_url = "http://localhost",
		.clock = &CLOCK_SYSTEM,
		.entropy = &ENTROPY_SYSTEM,
		.fast_seal = true,
	};
	own_struct(secret) kek = { NULL, 0 };
	struct err err;

	(void)state;
	log_setup(2, LOG_ERROR, "test");
	assert_non_null(mkdtemp(DIR));
	ceremony.dir = DIR;
	CHECK(ca_init(&err));
	CHECK(ca_keystore_make_root(&ceremony, NULL, &err));
	CHECK(ca_keystore_kek(&kek, DIR, ceremony.passphrase, &err));
	CHECK(ca_keystore_open(&KEYSTORE, DIR, (struct view){ kek.data, kek.len }, &err));
	return 0;
}

static int
stop(void **state)
{
	static const char *const FILES[] = { "seal.params", "root.crt", "root.key" };

	(void)state;
	ca_keystore_free(KEYSTORE);
	for (size_t i = 0; i < COUNT_OF(FILES); i++) {
		char path[64];

		(void)snprintf(path, sizeof(path), "%s/%s", DIR, FILES[i]);
		(void)unlink(path);
	}
	return rmdir(DIR);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_link_lives_through_the_death_of_its_signer),
		cmocka_unit_test(only_the_newest_descriptor_counts),
		cmocka_unit_test(a_signer_is_not_handed_out_before_it_was_greeted),
		cmocka_unit_test(what_does_not_speak_our_protocol_is_dropped),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
