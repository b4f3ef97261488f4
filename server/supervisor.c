#include "server/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/keystore.h"
#include "ca/secret.h"
#include "server/listen.h"
#include "server/passphrase.h"
#include "server/process.h"
#include "server/profile/profile.h"

#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS 5000
#define STABLE_MS 10000
/* A reload whose processes are not ready by then is given up; the old ones go on. */
#define RELOAD_LIMIT_MS 30000
/* Beyond what the frontend allows itself for what is in flight. */
#define KILL_AFTER_MS 3000
#define CHILD_FD_ROOM 64 /* above any descriptor that a child is to have */

enum role { SIGNER = 0, FRONTEND, ROLE_COUNT };
static const char *const ROLE_NAMES[ROLE_COUNT] = { "signer", "frontend" };

struct child {
	pid_t pid;   /* 0: not running */
	int control; /* -1: none, or the other side is gone */
	bool ready;
	int64_t started_ms, backoff_ms;
	int64_t start_at_ms; /* 0: not waiting to be started */
};

/* Signer and frontend of one configuration. While a reload is under way there are two. */
enum state {
	NONE = 0,
	STARTING, /* not ready yet for the first time */
	SERVING,
	DRAINING, /* the frontend finishes what is in flight; then the signer goes */
};

struct generation {
	enum state state;
	struct config config;
	struct listen_set listeners;
	int profiles; /* in memory, as they were checked (server/process.h) */
	struct child children[ROLE_COUNT];
	int64_t limit_ms; /* STARTING a reload, DRAINING: when patience ends; 0: never */
};

struct supervisor {
	const char *config_path;
	struct generation *now,
		*other; /* other: the next one, or the one that drains; state NONE: none */
	struct generation store[2];
	struct secret kek; /* hidden but while a signer is started */
	int signals;
	bool reload_wanted, stopping;
	int exit_status;
};

static int64_t
now_ms(void)
{
	return clock_mono_ms(&CLOCK_SYSTEM);
}

/* ---- telling systemd (sd_notify(3)) ---- */

static void
notify(const char *what)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len;
	int fd;

	if (path == NULL || (path[0] != '/' && path[0] != '@'))
		return;
	len = strlen(path);
	if (len >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, len);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, what, strlen(what), MSG_NOSIGNAL, (const struct sockaddr *)&address,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		log_event(LOG_WARN, "notify_failed", NULL, LOG_STR("why", strerror(errno)));
	(void)close(fd);
}

/* ---- starting a child ---- */

/* Variables that are for us alone, or for the other child. Configuration has been read already. */
static bool
is_for(enum role role, const char *entry)
{
	if (strncmp(entry, "JITRCA_", 7) == 0)
		return strncmp(entry, "JITRCA_TEST_", 12) == 0;
	if (strncmp(entry, "NOTIFY_SOCKET=", 14) == 0 ||
		strncmp(entry, "CREDENTIALS_DIRECTORY=", 22) == 0)
		return false;
	/* Of the database and of AWS, the signer knows nothing: least of all how to get in. */
	return role == FRONTEND ||
	       (strncmp(entry, "PG", 2) != 0 && strncmp(entry, "AWS_", 4) != 0);
}

/* Between fork and exec: only what is safe there. fds become 3, 4, 5 … */
static NORETURN void
become(enum role role, const int *fds, size_t count)
{
	static char program[] = "jitrca";
	char name[16];
	char *argv[] = { program, name, NULL };
	char **kept = environ;
	int moved[PROCESS_FDS_MAX];
	sigset_t none;
	int null;

	(void)snprintf(name, sizeof(name), "%s", ROLE_NAMES[role]);
	for (size_t i = 0; i < count; i++)
		moved[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, CHILD_FD_ROOM);
	for (size_t i = 0; i < count; i++)
		if (moved[i] < 0 || dup2(moved[i], PROCESS_CONTROL_FD + (int)i) < 0)
			_exit(1);
	null = open("/dev/null", O_RDWR);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0)
		_exit(1);
	if (close_range((unsigned)PROCESS_CONTROL_FD + (unsigned)count, ~0U, 0) != 0)
		_exit(1);
	for (char **entry = environ; *entry != NULL; entry++)
		if (is_for(role, *entry))
			*kept++ = *entry;
	*kept = NULL;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	/* Ctrl-C is for the supervisor: it ends the others in order. */
	(void)setpgid(0, 0);
	(void)execve("/proc/self/exe", argv, environ);
	_exit(1);
}

static enum status
spawn(struct child *child, enum role role, const int *more_fds, size_t more_count, struct err *err)
{
	int pair[2];
	int fds[PROCESS_FDS_MAX];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return err_set(
			err, ERR_UNAVAILABLE, "process_start", "socketpair: %s", strerror(errno));
	fds[0] = pair[1];
	for (size_t i = 0; i < more_count; i++)
		fds[i + 1] = more_fds[i];
	pid = fork();
	if (pid == 0)
		become(role, fds, more_count + 1);
	(void)close(pair[1]);
	if (pid < 0) {
		(void)close(pair[0]);
		return err_set(err, ERR_UNAVAILABLE, "process_start", "fork: %s", strerror(errno));
	}
	child->pid = pid;
	child->control = pair[0];
	child->ready = false;
	child->start_at_ms = 0;
	child->started_ms = now_ms();
	log_event(LOG_INFO, "process_started", NULL, LOG_STR("child", ROLE_NAMES[role]),
		LOG_INT("pid", pid));
	return OK;
}

static enum status
start_frontend(struct generation *generation, struct err *err)
{
	struct child *child = &generation->children[FRONTEND];
	struct frontend_handover handover;
	int fds[1 + LISTEN_COUNT] = { generation->profiles };
	size_t count = 1;

	memset(&handover, 0, sizeof(handover));
	handover.config = generation->config;
	for (unsigned i = 0; i < LISTEN_COUNT; i++) {
		if (generation->listeners.fds[i] < 0)
			continue;
		handover.listeners |= 1U << i;
		fds[count++] = generation->listeners.fds[i];
	}
	TRY(spawn(child, FRONTEND, NULL, 0, err));
	return process_send(child->control, &handover, sizeof(handover), fds, count, err);
}

static enum status
send_keys(struct supervisor *supervisor, const struct generation *generation, struct err *err)
{
	own_struct(secret) message = { NULL, 0 };
	struct signer_handover *handover;

	TRY(secret_new(&message, sizeof(*handover), err));
	handover = (struct signer_handover *)(void *)message.data;
	handover->config = generation->config;
	secret_show(&supervisor->kek);
	memcpy(handover->kek, supervisor->kek.data, sizeof(handover->kek));
	secret_hide(&supervisor->kek);
	return process_send(
		generation->children[SIGNER].control, handover, sizeof(*handover), NULL, 0, err);
}

static void
close_all(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
}

/* Makes the channels and gives each side its ends; the frontend's may be gone, then all comes
 * anew. */
static enum status
start_signer(struct supervisor *supervisor, struct generation *generation, struct err *err)
{
	struct child *child = &generation->children[SIGNER];
	struct child *frontend = &generation->children[FRONTEND];
	const uint8_t word = PROCESS_CHANNELS;
	int issue[2] = { -1, -1 };
	int crl[2] = { -1, -1 };
	int full[2] = { -1, -1 };
	int ocsp[2] = { -1, -1 };
	enum status status;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, issue) != 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, crl) != 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, full) != 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ocsp) != 0)
		status = err_set(
			err, ERR_UNAVAILABLE, "process_start", "socketpair: %s", strerror(errno));
	else
		status = spawn(child, SIGNER,
			(const int[]){ issue[1], crl[1], full[1], ocsp[1], generation->profiles }, 5,
			err);
	if (status == OK)
		status = send_keys(supervisor, generation, err);
	if (status == OK && frontend->control >= 0) {
		struct err why;

		if (process_send(frontend->control, &word, 1,
			    (const int[]){ issue[0], crl[0], full[0], ocsp[0] }, SIGNER_CHANNELS,
			    &why) != OK)
			log_error(LOG_WARN, "channels_not_handed_over", NULL, &why);
	}
	close_all(issue, 2);
	close_all(crl, 2);
	close_all(full, 2);
	close_all(ocsp, 2);
	return status;
}

/* ---- ending children ---- */

static void
tell(const struct child *child, int sig)
{
	if (child->pid > 0)
		(void)kill(child->pid, sig);
}

static bool
running(const struct generation *generation)
{
	return generation->children[SIGNER].pid > 0 || generation->children[FRONTEND].pid > 0;
}

static void
drain(struct generation *generation)
{
	generation->state = DRAINING;
	generation->limit_ms = now_ms() + generation->config.shutdown_timeout_ms + KILL_AFTER_MS;
	for (size_t role = 0; role < ROLE_COUNT; role++)
		generation->children[role].start_at_ms = 0;
	tell(&generation->children[FRONTEND], SIGTERM);
	if (generation->children[FRONTEND].pid == 0)
		tell(&generation->children[SIGNER], SIGTERM);
}

static void
kill_all(struct generation *generation)
{
	tell(&generation->children[FRONTEND], SIGKILL);
	tell(&generation->children[SIGNER], SIGKILL);
}

/* A generation whose processes have all ended. */
static void
finish(struct supervisor *supervisor, struct generation *generation)
{
	struct generation *kept =
		generation == supervisor->now ? supervisor->other : supervisor->now;

	listen_close(&generation->listeners, kept->state == NONE ? NULL : &kept->listeners);
	if (generation->profiles >= 0)
		(void)close(generation->profiles);
	generation->profiles = -1;
	generation->state = NONE;
}

static void
stop(struct supervisor *supervisor, int exit_status)
{
	if (supervisor->stopping)
		return;
	supervisor->stopping = true;
	supervisor->exit_status = exit_status;
	notify("STOPPING=1");
	for (size_t i = 0; i < COUNT_OF(supervisor->store); i++) {
		struct generation *generation = &supervisor->store[i];

		if (generation->state != NONE && generation->state != DRAINING)
			drain(generation);
		if (generation->state != NONE && !running(generation))
			finish(supervisor, generation);
	}
}

static void
give_up_reload(struct supervisor *supervisor, const char *why)
{
	log_event(LOG_ERROR, "reload_failed", NULL, LOG_STR("detail", why));
	supervisor->other->state = DRAINING;
	kill_all(supervisor->other);
	if (!running(supervisor->other))
		finish(supervisor, supervisor->other);
	notify("READY=1");
}

static void
log_death(enum role role, pid_t pid, int how, bool expected)
{
	enum log_level level = expected ? LOG_INFO : LOG_ERROR;

	if (WIFSIGNALED(how))
		log_event(level, "process_died", NULL, LOG_STR("child", ROLE_NAMES[role]),
			LOG_INT("pid", pid), LOG_INT("signal", WTERMSIG(how)),
			LOG_STR("reason", strsignal(WTERMSIG(how))));
	else
		log_event(level, expected ? "process_ended" : "process_died", NULL,
			LOG_STR("child", ROLE_NAMES[role]), LOG_INT("pid", pid),
			LOG_INT("exit_status", WEXITSTATUS(how)),
			LOG_STR("reason", WEXITSTATUS(how) == PROCESS_EXIT_CONFIG ? "configuration"
										  : "exit"));
}

static void
schedule(struct child *child)
{
	int64_t now = now_ms();

	if (child->backoff_ms == 0 || now - child->started_ms >= STABLE_MS)
		child->backoff_ms = BACKOFF_FIRST_MS;
	else
		child->backoff_ms = child->backoff_ms * 2 < BACKOFF_LAST_MS ? child->backoff_ms * 2
		                                                            : BACKOFF_LAST_MS;
	/* What ran well for a while is started at once: a wait helps nobody. */
	child->start_at_ms = now + (now - child->started_ms >= STABLE_MS ? 1 : child->backoff_ms);
}

static void
died(struct supervisor *supervisor, struct generation *generation, enum role role, int how)
{
	struct child *child = &generation->children[role];
	bool wanted = generation->state == DRAINING ||
	              /* It ends with its frontend's channels: that one's death is the news. */
	              (role == SIGNER && generation->children[FRONTEND].pid == 0);

	log_death(role, child->pid, how, wanted);
	child->pid = 0;
	if (child->control >= 0)
		(void)close(child->control);
	child->control = -1;
	child->ready = false;

	if (generation->state == DRAINING) {
		if (role == FRONTEND)
			tell(&generation->children[SIGNER], SIGTERM);
		if (!running(generation))
			finish(supervisor, generation);
		return;
	}
	if (generation->state == STARTING && generation == supervisor->other) {
		give_up_reload(
			supervisor, "a process of the new configuration ended before it was ready");
		return;
	}
	if (generation->state == STARTING && WIFEXITED(how) &&
		WEXITSTATUS(how) == PROCESS_EXIT_CONFIG) {
		log_event(LOG_ERROR, "start_failed", NULL, LOG_STR("child", ROLE_NAMES[role]));
		stop(supervisor, 1);
		return;
	}
	if (role == FRONTEND) {
		/* The signer's streams may have broken in the middle of a message: it comes anew as
		 * well. */
		tell(&generation->children[SIGNER], SIGKILL);
		generation->children[SIGNER].start_at_ms = 0;
		schedule(child);
	} else if (generation->children[FRONTEND].pid > 0) {
		schedule(child);
	}
}

static void
reap(struct supervisor *supervisor)
{
	pid_t pid;
	int how;

	while ((pid = waitpid(-1, &how, WNOHANG)) > 0)
		for (size_t i = 0; i < COUNT_OF(supervisor->store); i++)
			for (enum role role = 0; role < ROLE_COUNT; role++)
				if (supervisor->store[i].children[role].pid == pid)
					died(supervisor, &supervisor->store[i], role, how);
}

/* ---- reload ---- */

/* Reads and checks all that a generation is made from. On OK the caller closes *profiles_fd. */
static enum status
check_config(const char *path, struct config *out, int *profiles_fd, struct err *err)
{
	struct ca_profile *profiles = mem_array(CA_PROFILES_MAX, sizeof(*profiles));
	size_t count = 0;
	enum status status = profiles == NULL ? err_memory(err) : config_load(out, path, err);

	if (status == OK)
		status =
			profile_load_dir(out->profiles_dir, profiles, CA_PROFILES_MAX, &count, err);
	if (status == OK)
		status = process_profiles_keep(profiles_fd, profiles, count, err);
	mem_free(profiles);
	return status;
}

static void
generation_init(struct generation *generation, const struct config *config, int profiles_fd)
{
	memset(generation, 0, sizeof(*generation));
	generation->config = *config;
	generation->profiles = profiles_fd;
	for (size_t i = 0; i < LISTEN_COUNT; i++)
		generation->listeners.fds[i] = -1;
	for (size_t role = 0; role < ROLE_COUNT; role++)
		generation->children[role].control = -1;
}

static enum status
reload(struct supervisor *supervisor, struct err *err)
{
	struct generation *next = supervisor->other;
	struct config config;
	int profiles_fd;

	TRY(check_config(supervisor->config_path, &config, &profiles_fd, err));
	generation_init(next, &config, profiles_fd);
	next->state = STARTING; /* from here on, giving up cleans up */
	if (strcmp(config.data_dir, supervisor->now->config.data_dir) != 0)
		return err_set(
			err, ERR_ARGUMENT, "config_value", "data_dir: a change needs a restart");
	TRY(listen_bind(&next->listeners, &config, &supervisor->now->listeners, err));
	next->limit_ms = now_ms() + RELOAD_LIMIT_MS;
	TRY(start_frontend(next, err));
	return start_signer(supervisor, next, err);
}

static void
try_reload(struct supervisor *supervisor)
{
	struct err err;

	if (!supervisor->reload_wanted || supervisor->stopping ||
		supervisor->other->state != NONE || supervisor->now->state != SERVING)
		return;
	supervisor->reload_wanted = false;
	log_event(LOG_INFO, "reload_started", NULL);
	notify("RELOADING=1");
	if (reload(supervisor, &err) == OK)
		return;
	if (supervisor->other->state != NONE) {
		give_up_reload(supervisor, err.text);
		return;
	}
	log_event(LOG_ERROR, "reload_failed", NULL, LOG_STR("detail", err.text));
	notify("READY=1");
}

/* A generation is ready when its frontend says so: that has spoken with its signer before. */
static void
became_ready(struct supervisor *supervisor, struct generation *generation)
{
	if (generation->state != STARTING)
		return;
	generation->state = SERVING;
	generation->limit_ms = 0;
	if (generation == supervisor->other) {
		supervisor->other = supervisor->now;
		supervisor->now = generation;
		drain(supervisor->other);
		log_setup(STDERR_FILENO, generation->config.log_level, "supervisor");
		log_event(LOG_INFO, "reload_done", NULL);
	} else {
		log_event(LOG_INFO, "serve_ready", NULL);
	}
	notify("READY=1");
}

/* ---- the loop ---- */

static void
hear(struct supervisor *supervisor, struct generation *generation, enum role role)
{
	struct child *child = &generation->children[role];
	uint8_t word = 0;
	size_t len = 0;
	struct err err;

	if (process_receive(child->control, &word, sizeof(word), &len, NULL, NULL, &err) != OK ||
		len == 0) {
		/* It has ended, or closed what it must keep: then it shall end. */
		(void)close(child->control);
		child->control = -1;
		tell(child, SIGKILL);
		return;
	}
	if (word != PROCESS_READY || child->ready)
		return;
	child->ready = true;
	log_event(LOG_INFO, "process_ready", NULL, LOG_STR("child", ROLE_NAMES[role]),
		LOG_INT("after_ms", now_ms() - child->started_ms));
	if (role == FRONTEND)
		became_ready(supervisor, generation);
}

static void
read_signals(struct supervisor *supervisor)
{
	struct signalfd_siginfo info;

	while (read(supervisor->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGCHLD: break;
		case SIGHUP: supervisor->reload_wanted = true; break;
		default:
			log_event(LOG_INFO, "stopping", NULL, LOG_INT("signal", info.ssi_signo));
			stop(supervisor, 0);
		}
	}
	reap(supervisor);
}

static void
start_due(struct supervisor *supervisor, struct generation *generation)
{
	struct child *frontend = &generation->children[FRONTEND];
	struct child *signer = &generation->children[SIGNER];
	int64_t now = now_ms();
	enum status status = OK;
	struct err err;

	if (frontend->start_at_ms > 0 && frontend->start_at_ms <= now && frontend->pid == 0 &&
		signer->pid == 0) {
		status = start_frontend(generation, &err);
		if (status == OK)
			signer->start_at_ms = now;
	}
	if (status == OK && signer->start_at_ms > 0 && signer->start_at_ms <= now &&
		signer->pid == 0)
		status = start_signer(supervisor, generation, &err);
	if (status == OK)
		return;
	log_error(LOG_ERROR, "process_start_failed", NULL, &err);
	/* What could be started is ended by its death or by the next round. */
	if (frontend->pid == 0)
		schedule(frontend);
	else if (signer->pid == 0)
		schedule(signer);
}

static void
run_due(struct supervisor *supervisor)
{
	int64_t now = now_ms();

	for (size_t i = 0; i < COUNT_OF(supervisor->store); i++) {
		struct generation *generation = &supervisor->store[i];

		if (generation->state == NONE)
			continue;
		if (generation->limit_ms > 0 && generation->limit_ms <= now) {
			generation->limit_ms = 0;
			if (generation->state == STARTING)
				give_up_reload(
					supervisor, "the new processes were not ready in time");
			else
				kill_all(generation);
		}
		if (generation->state == STARTING || generation->state == SERVING)
			start_due(supervisor, generation);
	}
	try_reload(supervisor);
}

static int
next_wait_ms(const struct supervisor *supervisor)
{
	int64_t now = now_ms();
	int64_t next = INT64_MAX;

	for (size_t i = 0; i < COUNT_OF(supervisor->store); i++) {
		const struct generation *generation = &supervisor->store[i];

		if (generation->state == NONE)
			continue;
		if (generation->limit_ms > 0 && generation->limit_ms < next)
			next = generation->limit_ms;
		for (size_t role = 0; role < ROLE_COUNT; role++) {
			const struct child *child = &generation->children[role];

			if (child->start_at_ms > 0 && child->pid == 0 && child->start_at_ms < next)
				next = child->start_at_ms;
		}
	}
	if (next == INT64_MAX)
		return -1;
	return next <= now ? 0 : next - now > 60000 ? 60000 : (int)(next - now);
}

static void
wait_once(struct supervisor *supervisor)
{
	struct pollfd polled[1 + 2 * ROLE_COUNT] = { { .fd = supervisor->signals,
		.events = POLLIN } };
	size_t count = 1;

	for (size_t i = 0; i < COUNT_OF(supervisor->store); i++)
		for (size_t role = 0; role < ROLE_COUNT; role++)
			polled[count++] = (struct pollfd){ .events = POLLIN,
				.fd = supervisor->store[i].state == NONE
				              ? -1
				              : supervisor->store[i].children[role].control };
	if (poll(polled, count, next_wait_ms(supervisor)) < 0 && errno != EINTR)
		log_event(LOG_ERROR, "poll_failed", NULL, LOG_STR("why", strerror(errno)));
	for (size_t i = 1; i < count; i++) {
		struct generation *generation = &supervisor->store[(i - 1) / ROLE_COUNT];
		enum role role = (enum role)((i - 1) % ROLE_COUNT);

		if ((polled[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0 &&
			generation->children[role].control == polled[i].fd)
			hear(supervisor, generation, role);
	}
	read_signals(supervisor);
	run_due(supervisor);
}

/* ---- the start ---- */

static enum status
catch_signals(struct supervisor *supervisor, struct err *err)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGCHLD);
	(void)signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return err_set(err, ERR_INTERNAL, "internal", "sigprocmask: %s", strerror(errno));
	supervisor->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (supervisor->signals < 0)
		return err_set(err, ERR_INTERNAL, "internal", "signalfd: %s", strerror(errno));
	return OK;
}

/* A directory of data_dir for the frontend, which may run as another user. */
static enum status
make_frontend_dir(const struct config *config, const char *name, struct err *err)
{
	char path[CONFIG_TEXT_BYTES + 8];
	const struct passwd *user;

	(void)snprintf(path, sizeof(path), "%s/%s", config->data_dir, name);
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return err_set(err, ERR_UNAVAILABLE, "data_dir", "%s: %s", path, strerror(errno));
	if (geteuid() != 0 || config->user_frontend[0] == '\0')
		return OK;
	user = getpwnam(config->user_frontend);
	if (user == NULL)
		return err_set(err, ERR_ARGUMENT, "user_unknown",
			"user_frontend: there is no user '%s' here", config->user_frontend);
	/* The way in: others may pass through data_dir, not look around; keys/ keeps its 0700. */
	if (chown(path, user->pw_uid, user->pw_gid) != 0 || chmod(config->data_dir, 0711) != 0)
		return err_set(err, ERR_UNAVAILABLE, "data_dir", "%s: %s", path, strerror(errno));
	return OK;
}

static void
warn_of_root(const struct config *config)
{
	if (geteuid() == 0 && (config->user_signer[0] == '\0' || config->user_frontend[0] == '\0'))
		log_event(LOG_WARN, "runs_as_root", NULL,
			LOG_STR("detail",
				"set user_signer and user_frontend: both run as root now"));
}

static enum status
start(struct supervisor *supervisor, struct err *err)
{
	own_struct(secret) passphrase = { NULL, 0 };
	struct generation *generation = supervisor->now;
	char keys[CONFIG_TEXT_BYTES + 8];
	struct config config;
	int profiles_fd;

	TRY(check_config(supervisor->config_path, &config, &profiles_fd, err));
	log_setup(STDERR_FILENO, config.log_level, "supervisor");
	TRY(process_harden(err));
	TRY(ca_init(err));
	warn_of_root(&config);
	generation_init(generation, &config, profiles_fd);
	TRY(listen_bind(&generation->listeners, &config, NULL, err));
	TRY(passphrase_read(&passphrase, &config, false, err));
	/* Its TLS key; the lists that it serves while the database is away. */
	TRY(make_frontend_dir(&config, "tls", err));
	TRY(make_frontend_dir(&config, "crl", err));
	TRY(catch_signals(supervisor, err));
	generation->state = STARTING;
	/* Before the key is derived, which takes half a second: the database is greeted meanwhile.
	 */
	TRY(start_frontend(generation, err));
	(void)snprintf(keys, sizeof(keys), "%s/keys", config.data_dir);
	TRY(ca_keystore_kek(
		&supervisor->kek, keys, (struct view){ passphrase.data, passphrase.len }, err));
	secret_hide(&supervisor->kek);
	return start_signer(supervisor, generation, err);
}

int
supervisor_run(const char *config_path)
{
	static struct supervisor it; /* large, and only once */
	struct err err;

	it.config_path = config_path;
	it.now = &it.store[0];
	it.other = &it.store[1];
	log_setup(STDERR_FILENO, LOG_INFO, "supervisor");
	if (start(&it, &err) != OK) {
		log_error(LOG_ERROR, "start_failed", NULL, &err);
		stop(&it, 1);
		it.exit_status = 1;
		kill_all(it.now);
	}
	while (!it.stopping || it.now->state != NONE || it.other->state != NONE)
		wait_once(&it);
	secret_free(&it.kek);
	log_event(LOG_INFO, "stopped", NULL, LOG_INT("exit_status", it.exit_status));
	return it.exit_status;
}
