/*
 * server/signer/: the signer process signs, and can do nothing else. Each test forks one, with the
 * descriptors that the supervisor would give it. As root the signer runs under the user `nobody`.
 */
#include "tests/unit/ca/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "server/process.h"
#include "server/profile/profile.h"
#include "server/signer/confine.h"
#include "server/signer/main.h"

#define UNTIL_MS 20000
#define PASSPHRASE "correct horse battery staple"

struct running {
	char dir[256];
	pid_t pid;
	int control, issue, crl, full, ocsp;
	int log; /* the reading end of its stderr */
	struct signer_handover handover;
	struct ca_profile profiles[CA_PROFILES_MAX];
	size_t profile_count;
};

/* An hour in the past: the signer has the real clock. */
static void
make_keys(struct running *r, enum ca_key_type type)
{
	struct ca_ceremony ceremony = {
		.passphrase = view_text(PASSPHRASE),
		.key_type = KEY_EC_P256,
		.organization = "Example",
		.ca_id = "root",
		.validity_s = YEAR_S,
		.public_http_url = URL,
		.clock = &CLOCK_SYSTEM,
		.entropy = &ENTROPY_SYSTEM,
		.fast_seal = true,
	};
	own_struct(secret) kek = { NULL, 0 };
	char keys[300];
	struct err err;

	(void)snprintf(keys, sizeof(keys), "%s/keys", r->dir);
	ceremony.dir = keys;
	assert_ok(ca_keystore_make_root(&ceremony, NULL, &err));
	ceremony.ca_id = "issuing-1";
	ceremony.key_type = type;
	assert_ok(ca_keystore_make_issuing(&ceremony, "root", NULL, &err));
	assert_ok(ca_keystore_kek(&kek, keys, view_text(PASSPHRASE), &err));
	memcpy(r->handover.kek, kek.data, sizeof(r->handover.kek));
}

static void
running_prepare(struct running *r, enum ca_key_type type)
{
	struct err err;

	memset(r, 0, sizeof(*r));
	assert_ok(ca_init(&err));
	folder_make(r->dir);
	make_keys(r, type);
	assert_ok(profile_load_dir("certs", r->profiles, CA_PROFILES_MAX, &r->profile_count, &err));
	(void)snprintf(r->handover.config.data_dir, CONFIG_TEXT_BYTES, "%s", r->dir);
	(void)snprintf(r->handover.config.public_http_url, CONFIG_TEXT_BYTES, URL);
	r->handover.config.log_level = LOG_INFO;
	if (geteuid() == 0)
		(void)snprintf(r->handover.config.user_signer, 65, "nobody");
}

static NORETURN void
become_signer(const int *fds, int log)
{
	char *argv[] = { NULL };
	int high[1 + SIGNER_CHANNELS + 1];

	for (size_t i = 0; i < COUNT_OF(high); i++)
		high[i] = fcntl(fds[i], F_DUPFD, 100);
	(void)dup2(fcntl(log, F_DUPFD, 100), STDERR_FILENO);
	for (size_t i = 0; i < COUNT_OF(high); i++)
		(void)dup2(high[i], PROCESS_CONTROL_FD + (int)i);
	_exit(signer_main(0, argv));
}

static void
running_start(struct running *r)
{
	int control[2], issue[2], crl[2], full[2], ocsp[2], log[2], profiles;
	struct err err;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, issue), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, crl), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, full), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ocsp), 0);
	assert_int_equal(pipe2(log, O_CLOEXEC), 0);
	assert_ok(process_profiles_keep(&profiles, r->profiles, r->profile_count, &err));
	r->pid = fork();
	assert_true(r->pid >= 0);
	if (r->pid == 0)
		become_signer((const int[]){ control[1], issue[1], crl[1], full[1], ocsp[1], profiles },
			log[1]);
	(void)close(profiles);
	(void)close(control[1]);
	(void)close(issue[1]);
	(void)close(crl[1]);
	(void)close(full[1]);
	(void)close(ocsp[1]);
	(void)close(log[1]);
	r->control = control[0];
	r->issue = issue[0];
	r->crl = crl[0];
	r->full = full[0];
	r->ocsp = ocsp[0];
	r->log = log[0];
	assert_ok(process_send(r->control, &r->handover, sizeof(r->handover), NULL, 0, &err));
}

/* Its exit as waitpid tells it; bounded. */
static int
wait_end(struct running *r)
{
	struct pollfd end = { .fd = r->log, .events = POLLIN };
	char text[4096];
	ssize_t len;
	int how = 0;

	/* The log's end is the process's: nobody else has it. */
	for (;;) {
		if (poll(&end, 1, UNTIL_MS) != 1) {
			(void)kill(r->pid, SIGKILL);
			fail_msg("the signer did not end");
		}
		len = read(r->log, text, sizeof(text));
		if (len <= 0)
			break;
		print_message("%.*s", (int)len, text);
	}
	assert_int_equal(waitpid(r->pid, &how, 0), r->pid);
	r->pid = 0;
	return how;
}

static bool
wait_ready(struct running *r)
{
	struct pollfd ready = { .fd = r->control, .events = POLLIN };
	uint8_t word = 0;

	return poll(&ready, 1, UNTIL_MS) == 1 && recv(r->control, &word, 1, 0) == 1 &&
	       word == PROCESS_READY;
}

static void
running_end(struct running *r)
{
	(void)close(r->control);
	if (r->issue >= 0)
		(void)close(r->issue);
	(void)close(r->crl);
	(void)close(r->full);
	(void)close(r->ocsp);
	if (r->pid > 0)
		(void)wait_end(r);
	(void)close(r->log);
	folder_remove(r->dir);
}

/* ---- it signs ---- */

static void
issue_one(struct running *r)
{
	struct ca_request request = { .device_id = "sn-0001" };
	struct ca_prepare_item item = { .ca_id = "issuing-1",
		.spki = VIEW(SPKI_P256),
		.request = &request,
		.asker = ASKER_STATION };
	struct ca_signer *signer = NULL;
	struct ca_sign_item done;
	struct err err;

	for (size_t i = 0; i < r->profile_count; i++)
		if (strcmp(r->profiles[i].name, "device") == 0)
			memcpy(item.profile_hash, r->profiles[i].hash, 32);
	assert_ok(ca_signer_remote(&signer, r->issue, &err));
	assert_ok(ca_signer_prepare(signer, &item, 1, &err));
	if (item.status != OK)
		fail_msg("%s", item.refusal.text);
	done = (struct ca_sign_item){ .handle = item.handle };
	assert_ok(ca_signer_sign(signer, &done, 1, &err));
	assert_int_equal(done.status, OK);
	bytes_free(&done.der);
	ca_signer_free(signer);
	r->issue = -1;
}

/* Also with keys whose arithmetic allocates: nothing that OpenSSL does is refused. */
static void
a_confined_signer_signs_with_every_kind_of_key(void **state)
{
	static const enum ca_key_type TYPES[] = { KEY_EC_P256, KEY_EC_P384, KEY_RSA_3072 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
		struct running r;
		int how;

		running_prepare(&r, TYPES[i]);
		running_start(&r);
		assert_true(wait_ready(&r));
		issue_one(&r); /* and closes the channel: the process ends */
		how = wait_end(&r);
		assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
		running_end(&r);
	}
}

/* The heap grows and shrinks under the filter: whatever malloc asks of the kernel must be allowed.
 */
static void
a_confined_signer_survives_full_batches(void **state)
{
	enum { ROUNDS = 16 }; /* as much as may be prepared at once */
	static struct ca_prepare_item items[SIGNER_BATCH_MAX];
	static uint64_t handles[ROUNDS][SIGNER_BATCH_MAX];
	struct ca_request request = { .device_id = "sn-0001" };
	struct ca_signer *signer = NULL;
	struct running r;
	struct err err;

	(void)state;
	running_prepare(&r, KEY_EC_P256);
	running_start(&r);
	assert_true(wait_ready(&r));
	assert_ok(ca_signer_remote(&signer, r.issue, &err));
	r.issue = -1;
	for (size_t turn = 0; turn < 2; turn++) {
		for (size_t round = 0; round < ROUNDS; round++) {
			for (size_t i = 0; i < SIGNER_BATCH_MAX; i++) {
				items[i] = (struct ca_prepare_item){ .ca_id = "issuing-1",
					.spki = VIEW(SPKI_P256),
					.request = &request,
					.asker = ASKER_STATION };
				for (size_t j = 0; j < r.profile_count; j++)
					if (strcmp(r.profiles[j].name, "device") == 0)
						memcpy(items[i].profile_hash, r.profiles[j].hash,
							32);
			}
			assert_ok(ca_signer_prepare(signer, items, SIGNER_BATCH_MAX, &err));
			for (size_t i = 0; i < SIGNER_BATCH_MAX; i++) {
				assert_int_equal(items[i].status, OK);
				handles[round][i] = items[i].handle;
			}
		}
		for (size_t round = 0; round < ROUNDS; round++)
			assert_ok(ca_signer_drop(signer, handles[round], SIGNER_BATCH_MAX, &err));
	}
	ca_signer_free(signer);
	running_end(&r);
}

static void
it_ends_with_its_supervisor(void **state)
{
	struct running r;
	int how;

	(void)state;
	running_prepare(&r, KEY_EC_P256);
	running_start(&r);
	assert_true(wait_ready(&r));
	assert_int_equal(shutdown(r.control, SHUT_RDWR), 0);
	how = wait_end(&r);
	assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
	running_end(&r);
}

static void
a_broken_protocol_ends_it(void **state)
{
	struct running r;
	int how;

	(void)state;
	running_prepare(&r, KEY_EC_P256);
	running_start(&r);
	assert_true(wait_ready(&r));
	assert_int_equal(send(r.crl, "GET / HTTP/1.1\r\n", 16, MSG_NOSIGNAL), 16);
	how = wait_end(&r);
	assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 1);
	running_end(&r);
}

/* ---- it is confined ---- */

static void
read_proc(pid_t pid, const char *name, char *out, size_t size)
{
	char path[64];
	ssize_t len;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	len = read(fd, out, size - 1);
	assert_true(len >= 0);
	out[len] = '\0';
	(void)close(fd);
}

static void
nothing_is_left_to_it_but_its_sockets(void **state)
{
	struct running r;
	char text[8192], path[64];
	struct dirent *entry;
	struct stat info;
	size_t fds = 0;
	DIR *dir;

	(void)state;
	running_prepare(&r, KEY_EC_P256);
	running_start(&r);
	assert_true(wait_ready(&r));

	read_proc(r.pid, "status", text, sizeof(text));
	assert_non_null(strstr(text, "Seccomp:\t2"));
	assert_non_null(strstr(text, "NoNewPrivs:\t1"));
	read_proc(r.pid, "limits", text, sizeof(text));
	assert_non_null(strstr(text, "Max core file size        0                    0"));
	/* What cannot be dumped belongs to root in /proc, whoever it runs as. */
	(void)snprintf(path, sizeof(path), "/proc/%d/environ", (int)r.pid);
	if (geteuid() == 0) {
		read_proc(r.pid, "status", text, sizeof(text));
		assert_null(strstr(text, "Uid:\t0"));
		assert_int_equal(stat(path, &info), 0);
		assert_int_equal(info.st_uid, 0);
	} else {
		assert_int_equal(open(path, O_RDONLY | O_CLOEXEC), -1);
		assert_int_equal(ptrace(PTRACE_ATTACH, r.pid, NULL, NULL), -1);
	}
	/* Every thread has the filter. */
	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)r.pid);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		char name[300];

		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(name, sizeof(name), "task/%s/status", entry->d_name);
		read_proc(r.pid, name, text, sizeof(text));
		assert_non_null(strstr(text, "Seccomp:\t2"));
	}
	(void)closedir(dir);
	if (geteuid() == 0) { /* others may not look */
		(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)r.pid);
		dir = opendir(path);
		assert_non_null(dir);
		while ((entry = readdir(dir)) != NULL)
			fds += entry->d_name[0] != '.';
		(void)closedir(dir);
		assert_int_equal(fds, SIGNER_OCSP_FD + 1);
	}
	running_end(&r);
}

/* Each of these, in a process with another thread, after the filter. */
static void
call_socket(void)
{
	(void)socket(AF_INET, SOCK_STREAM, 0);
}
static void
call_open(void)
{
	(void)open("/etc/hostname", O_RDONLY | O_CLOEXEC);
}
static void
call_fork(void)
{
	(void)fork();
}
static void
call_kill(void)
{
	(void)kill(getpid(), 0);
}
static void
call_ptrace(void)
{
	(void)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static void
call_exec(void)
{
	char *argv[] = { NULL };

	(void)execve("/bin/true", argv, argv);
}

static void
call_code(void)
{
	(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void
call_file_map(void)
{
	(void)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 0, 0);
}

static void
call_mprotect(void)
{
	(void)mprotect((void *)(uintptr_t)4096, 4096, PROT_READ | PROT_EXEC);
}

struct breaker {
	void (*call)(void);
	pthread_barrier_t started, confined;
};

static void *
break_out(void *arg)
{
	struct breaker *breaker = arg;

	(void)pthread_barrier_wait(&breaker->started);
	(void)pthread_barrier_wait(&breaker->confined);
	breaker->call();
	_exit(0);
}

static NORETURN void
confined_child(void (*call)(void), bool other_thread)
{
	struct breaker breaker = { .call = call };
	pthread_t thread;
	struct err err;

	(void)pthread_barrier_init(&breaker.started, NULL, 2);
	(void)pthread_barrier_init(&breaker.confined, NULL, 2);
	if (process_harden(&err) != OK || pthread_create(&thread, NULL, break_out, &breaker) != 0)
		_exit(99);
	/* A thread's own beginning takes calls that the filter forbids, as the signer knows. */
	(void)pthread_barrier_wait(&breaker.started);
	if (confine_system_calls(&err) != OK)
		_exit(99);
	if (!other_thread) {
		call();
		_exit(0);
	}
	(void)pthread_barrier_wait(&breaker.confined);
	for (;;) { /* the other thread ends us all */
		struct pollfd nothing = { .fd = -1 };

		(void)poll(&nothing, 1, 1000);
	}
}

static void
call_nothing(void)
{
}

static void
a_forbidden_call_is_the_end(void **state)
{
	static void (*const CALLS[])(void) = { call_socket, call_open, call_fork, call_kill,
		call_ptrace, call_exec, call_code, call_file_map, call_mprotect, call_nothing };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CALLS); i++) {
		for (unsigned other = 0; other < 2; other++) {
			pid_t pid = fork();
			int how;

			if (pid == 0)
				confined_child(CALLS[i], other == 1);
			assert_int_equal(waitpid(pid, &how, 0), pid);
			if (CALLS[i] == call_nothing)
				assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
			else if (!WIFSIGNALED(how) || WTERMSIG(how) != SIGSYS)
				fail_msg("case %zu.%u: SIGSYS wanted, 0x%x found", i, other,
					(unsigned)how);
		}
	}
}

#ifdef JITRCA_TEST_HOOKS
/* The process itself, made to break out. */
static void
a_signer_that_breaks_out_dies(void **state)
{
	static const char *const BREAKS[] = { "main_socket", "main_open", "thread_socket",
		"thread_open" };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(BREAKS); i++) {
		struct running r;
		int how;

		running_prepare(&r, KEY_EC_P256);
		assert_int_equal(setenv("JITRCA_TEST_SIGNER_BREAK", BREAKS[i], 1), 0);
		running_start(&r);
		how = wait_end(&r);
		assert_int_equal(unsetenv("JITRCA_TEST_SIGNER_BREAK"), 0);
		if (!WIFSIGNALED(how) || WTERMSIG(how) != SIGSYS)
			fail_msg("%s: SIGSYS wanted, 0x%x found", BREAKS[i], (unsigned)how);
		running_end(&r);
	}
}
#endif

/* ---- what it cannot start with ---- */

static void
bad_kek(struct running *r)
{
	r->handover.kek[0] ^= 1;
}
static void
no_keys(struct running *r)
{
	memset(r->handover.config.data_dir, 'x', 8);
}
static void
bad_profile(struct running *r)
{
	r->profiles[0].key_types = 0;
}

static void
no_user(struct running *r)
{
	(void)snprintf(r->handover.config.user_signer, 65, "nobody-of-that-name");
}

static void
what_a_restart_cannot_help_says_so(void **state)
{
	static void (*const SPOIL[])(
		struct running * r) = { bad_kek, no_keys, bad_profile, no_user };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(SPOIL); i++) {
		struct running r;
		int how;

		if (SPOIL[i] == no_user && geteuid() != 0)
			continue;
		running_prepare(&r, KEY_EC_P256);
		SPOIL[i](&r);
		running_start(&r);
		how = wait_end(&r);
		if (!WIFEXITED(how) || WEXITSTATUS(how) != PROCESS_EXIT_CONFIG)
			fail_msg("case %zu: exit %d wanted, 0x%x found", i, PROCESS_EXIT_CONFIG,
				(unsigned)how);
		running_end(&r);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_confined_signer_signs_with_every_kind_of_key),
		cmocka_unit_test(a_confined_signer_survives_full_batches),
		cmocka_unit_test(it_ends_with_its_supervisor),
		cmocka_unit_test(a_broken_protocol_ends_it),
		cmocka_unit_test(nothing_is_left_to_it_but_its_sockets),
		cmocka_unit_test(a_forbidden_call_is_the_end),
#ifdef JITRCA_TEST_HOOKS
		cmocka_unit_test(a_signer_that_breaks_out_dies),
#endif
		cmocka_unit_test(what_a_restart_cannot_help_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
