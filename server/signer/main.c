#include "server/signer/main.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/entropy.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/keystore.h"
#include "ca/secret.h"
#include "ca/signer.h"
#include "server/process.h"
#include "server/signer/confine.h"

/* Far above what signing takes, far below the default, which would count as locked memory. */
#define STACK_BYTES ((size_t)1 << 20)

struct signer_process;

struct channel {
	struct signer_process *process;
	const char *name;
	int fd;
	struct ca_signer *signer;
};

struct signer_process {
	struct config config;
	struct ca_profile *profiles;
	size_t profile_count;
	struct ca_keystore *keystore;
	struct ca_signer_shared *shared;
	struct channel channels[SIGNER_CHANNELS];

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	size_t warm; /* channels whose thread has done everything that needs more than it may later
	              */
	bool go;
};

/* ---- a test build can be made to break out ---- */

#ifdef JITRCA_TEST_HOOKS
static void
misbehave(const char *where)
{
	const char *wanted = getenv("JITRCA_TEST_SIGNER_BREAK");
	char name[32];

	if (wanted == NULL)
		return;
	(void)snprintf(name, sizeof(name), "%s_socket", where);
	if (strcmp(wanted, name) == 0)
		(void)socket(AF_INET, SOCK_STREAM, 0);
	(void)snprintf(name, sizeof(name), "%s_open", where);
	if (strcmp(wanted, name) == 0)
		(void)open("/etc/hostname", O_RDONLY | O_CLOEXEC);
}
#else
#define misbehave(where) ((void)0)
#endif

/* ---- channels ---- */

/*
 * Makes OpenSSL set up its random generators and fetch its algorithms in this thread: later it may
 * not open a file. The key is thrown away: no CA's key signs what is not on record.
 */
static enum status
warm_up(struct err *err)
{
	static const uint8_t DATA[] = "warm";
	uint8_t signature[CA_SIGNATURE_MAX_BYTES];
	size_t signature_len;
	own(ca_key) key = NULL;

	TRY(ca_key_generate(&key, KEY_EC_P256, err));
	return ca_key_sign(
		key, (struct view){ DATA, sizeof(DATA) }, signature, &signature_len, err);
}

static void
wait_for_go(struct signer_process *process)
{
	(void)pthread_mutex_lock(&process->lock);
	process->warm++;
	(void)pthread_cond_broadcast(&process->changed);
	while (!process->go)
		(void)pthread_cond_wait(&process->changed, &process->lock);
	(void)pthread_mutex_unlock(&process->lock);
}

/* The process ends with its first channel; the kernel takes the memory, keys and all. */
static NORETURN void
leave(const struct channel *channel, enum status status, const struct err *err)
{
	if (status == OK)
		log_event(
			LOG_INFO, "signer_channel_closed", NULL, LOG_STR("channel", channel->name));
	else
		log_error(LOG_ERROR, "signer_channel_failed", NULL, err);
	_exit(status == OK ? 0 : 1);
}

static void *
channel_run(void *arg)
{
	struct channel *channel = arg;
	struct err err;
	enum status status = warm_up(&err);

	if (status == OK)
		status = ca_signer_local(&channel->signer, channel->process->shared, &err);
	if (status != OK)
		leave(channel, status, &err);
	wait_for_go(channel->process);
	misbehave("thread");
	status = ca_signer_serve(channel->fd, channel->signer, &err);
	leave(channel, status, &err);
}

static enum status
start_channels(struct signer_process *process, struct err *err)
{
	pthread_attr_t attributes;
	bool started = pthread_attr_init(&attributes) == 0 &&
	               pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0;

	for (size_t i = 0; started && i < COUNT_OF(process->channels); i++) {
		pthread_t thread;

		started = pthread_create(
				  &thread, &attributes, channel_run, &process->channels[i]) == 0;
	}
	(void)pthread_attr_destroy(&attributes);
	if (!started)
		return err_set(
			err, ERR_UNAVAILABLE, "process_start", "signer: no thread can be started");
	(void)pthread_mutex_lock(&process->lock);
	while (process->warm < COUNT_OF(process->channels))
		(void)pthread_cond_wait(&process->changed, &process->lock);
	(void)pthread_mutex_unlock(&process->lock);
	return OK;
}

static void
release_channels(struct signer_process *process)
{
	(void)pthread_mutex_lock(&process->lock);
	process->go = true;
	(void)pthread_cond_broadcast(&process->changed);
	(void)pthread_mutex_unlock(&process->lock);
}

/* ---- the start, in its order ---- */

/* The message lies in locked memory, for the key-encryption key is in it. */
static enum status
take_handover(struct signer_process *process, struct secret *kek, struct err *err)
{
	own_struct(secret) message = { NULL, 0 };
	const struct signer_handover *handover;
	size_t len;

	TRY(secret_new(&message, sizeof(*handover), err));
	TRY(process_receive(PROCESS_CONTROL_FD, message.data, message.len, &len, NULL, NULL, err));
	if (len != sizeof(*handover))
		return err_set(err, ERR_UNAVAILABLE, "process_away",
			"signer: no hand-over came; `jitrca serve` starts this process");
	handover = (const struct signer_handover *)(void *)message.data;
	process->config = handover->config;
	return secret_copy(kek, (struct view){ handover->kek, sizeof(handover->kek) }, err);
}

static enum status
load(struct signer_process *process, struct view kek, struct err *err)
{
	char dir[CONFIG_TEXT_BYTES + 8];

	process->profiles = mem_array(CA_PROFILES_MAX, sizeof(*process->profiles));
	if (process->profiles == NULL)
		return err_memory(err);
	TRY(process_profiles_read(SIGNER_PROFILES_FD, process->profiles, CA_PROFILES_MAX,
		&process->profile_count, err));
	(void)snprintf(dir, sizeof(dir), "%s/keys", process->config.data_dir);
	TRY(ca_keystore_open(&process->keystore, dir, kek, err));
	return ca_signer_shared_new(&process->shared,
		&(struct ca_signer_setup){
			.keystore = process->keystore,
			.profiles = process->profiles,
			.profile_count = process->profile_count,
			.public_http_url = process->config.public_http_url,
			.clock = &CLOCK_SYSTEM,
			.entropy = &ENTROPY_SYSTEM,
		},
		err);
}

/* What a restart would only repeat. */
static int
exit_status(const struct err *err)
{
	if (err->status == ERR_INTERNAL || view_equal_text(view_text(err->code), "out_of_memory") ||
		view_equal_text(view_text(err->code), "process_away"))
		return 1;
	return PROCESS_EXIT_CONFIG;
}

static enum status
prepare(struct signer_process *process, struct err *err)
{
	own_struct(secret) kek = { NULL, 0 };

	TRY(process_harden(err));
	TRY(confine_descriptors(SIGNER_PROFILES_FD, err));
	confine_raise_memory_lock();
	TRY(ca_init(err));
	TRY(take_handover(process, &kek, err));
	log_setup(STDERR_FILENO, process->config.log_level, "signer");
	TRY(ca_secure_heap_init(err));
	TRY(load(process, view_of(&(struct bytes){ kek.data, kek.len }), err));
	secret_free(&kek);
	return process_drop(process->config.user_signer, err);
}

static enum status
confine(struct signer_process *process, struct err *err)
{
	confine_lock_memory();
	TRY(start_channels(process, err));
	TRY(confine_descriptors(SIGNER_OCSP_FD, err));
	return confine_system_calls(err);
}

static enum status
serve(struct signer_process *process, struct err *err)
{
	const uint8_t ready = PROCESS_READY;
	uint8_t word;
	size_t len;

	misbehave("main");
	release_channels(process);
	TRY(process_send(PROCESS_CONTROL_FD, &ready, 1, NULL, 0, err));
	do /* nothing is said to a signer after the hand-over: only the end counts */
		TRY(process_receive(PROCESS_CONTROL_FD, &word, 1, &len, NULL, NULL, err));
	while (len > 0);
	return OK;
}

int
signer_main(int argc, char **argv)
{
	struct signer_process *process = mem_zalloc(sizeof(*process));
	enum status status = OK;
	struct err err;

	(void)argc;
	(void)argv;
	log_setup(STDERR_FILENO, LOG_INFO, "signer");
	if (process == NULL || pthread_mutex_init(&process->lock, NULL) != 0 ||
		pthread_cond_init(&process->changed, NULL) != 0)
		return 1;
	/*
	 * One arena: glibc opens /proc/sys/vm/overcommit_memory before it shrinks any other than
	 * the first, which the system call filter answers with death. The threads allocate little.
	 */
	(void)mallopt(M_ARENA_MAX, 1);
	process->channels[0] = (struct channel){ process, "issue", SIGNER_ISSUE_FD, NULL };
	process->channels[1] = (struct channel){ process, "crl", SIGNER_CRL_FD, NULL };
	process->channels[2] = (struct channel){ process, "full", SIGNER_FULL_FD, NULL };
	process->channels[3] = (struct channel){ process, "ocsp", SIGNER_OCSP_FD, NULL };
	status = prepare(process, &err);
	if (status != OK) {
		log_error(LOG_ERROR, "signer_not_started", NULL, &err);
		return exit_status(&err);
	}
	status = confine(process, &err);
	if (status == OK)
		status = serve(process, &err);
	if (status != OK)
		log_error(LOG_ERROR, "signer_failed", NULL, &err);
	/* Not exit(): what libraries do at the end is not on the list of system calls. */
	_exit(status == OK ? 0 : 1);
}
