#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "ca/digest.h"
#include "server/cli/dev.h"

#define POSTGRES_USER "postgres"
#define READY_LIMIT_MS 30000
#define STOP_LIMIT_MS 30000
#define STEP_MS 20
/* sun_path holds 108: "/.s.PGSQL.5432" and NUL come behind the directory. */
#define SOCKET_DIR_MAX_BYTES 90

static void
sleep_ms(int ms)
{
	const struct timespec step = { ms / 1000, ms % 1000 * 1000000L };

	(void)nanosleep(&step, NULL);
}

/* ---- programs ---- */

static bool
become_postgres(void)
{
	const struct passwd *user = getpwnam(POSTGRES_USER);

	return user != NULL && initgroups(POSTGRES_USER, user->pw_gid) == 0 &&
	       setgid(user->pw_gid) == 0 && setuid(user->pw_uid) == 0;
}

static NORETURN void
execute(const struct dev_program *program)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;

	if (program->output != NULL) {
		int out = open(program->output, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

		if (out < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
			_exit(127);
	}
	if (null < 0 || dup2(null, STDIN_FILENO) < 0)
		_exit(127);
	if (program->own_group)
		(void)setpgid(0, 0);
	if (program->as_postgres && geteuid() == 0 && !become_postgres())
		_exit(126);
	if (program->end_with != 0)
		(void)prctl(PR_SET_PDEATHSIG, program->end_with, 0, 0, 0);
	/* Its user may not be allowed to be where we are. */
	if (program->as_postgres && chdir("/") != 0)
		_exit(127);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)execv(program->argv[0], (char *const *)(uintptr_t)program->argv);
	_exit(127);
}

enum status
dev_spawn(const struct dev_program *program, pid_t *pid, struct err *err)
{
	*pid = fork();
	if (*pid == 0)
		execute(program);
	if (*pid < 0) {
		*pid = 0;
		return err_set(err, ERR_UNAVAILABLE, "dev_program", "%s: fork: %s",
			program->argv[0], strerror(errno));
	}
	return OK;
}

enum status
dev_run(const struct dev_program *program, struct err *err)
{
	pid_t pid;
	int how = 0;

	TRY(dev_spawn(program, &pid, err));
	while (waitpid(pid, &how, 0) < 0)
		if (errno != EINTR)
			break;
	if (WIFEXITED(how) && WEXITSTATUS(how) == 0)
		return OK;
	if (WIFEXITED(how) && WEXITSTATUS(how) == 126)
		return err_set(err, ERR_UNAVAILABLE, "dev_program",
			"%s: there is no user '" POSTGRES_USER
			"', and PostgreSQL does not run as root",
			program->argv[0]);
	return err_set(err, ERR_UNAVAILABLE, "dev_program", "%s failed (status %d)%s%s",
		program->argv[0], WIFEXITED(how) ? WEXITSTATUS(how) : -WTERMSIG(how),
		program->output != NULL ? "; see " : "",
		program->output != NULL ? program->output : "");
}

void
dev_end(pid_t *pid, int sig, int limit_ms)
{
	int64_t end_us = clock_mono_us() + (int64_t)limit_ms * 1000;

	if (*pid <= 0)
		return;
	(void)kill(*pid, sig);
	while (waitpid(*pid, NULL, WNOHANG) == 0) {
		if (clock_mono_us() > end_us) {
			(void)kill(*pid, SIGKILL);
			(void)waitpid(*pid, NULL, 0);
			break;
		}
		sleep_ms(STEP_MS);
	}
	*pid = 0;
}

/* ---- where the programs and the cluster are ---- */

static bool
take_bin(struct dev_postgres *postgres, const char *initdb)
{
	char server[DEV_PATH_BYTES];
	size_t len = strlen(initdb) - strlen("/initdb");

	if (len >= sizeof(postgres->bin))
		return false;
	(void)snprintf(server, sizeof(server), "%.*s/postgres", (int)len, initdb);
	if (access(initdb, X_OK) != 0 || access(server, X_OK) != 0)
		return false;
	(void)snprintf(postgres->bin, sizeof(postgres->bin), "%.*s", (int)len, initdb);
	return true;
}

/* Debian and Ubuntu keep versions apart, others have it in the path. The newest is the longest
 * number. */
static enum status
find_bin(struct dev_postgres *postgres, struct err *err)
{
	static const char *const PATTERNS[] = { "/usr/lib/postgresql/*/bin/initdb",
		"/usr/pgsql-*/bin/initdb", "/usr/bin/initdb", "/usr/local/pgsql/bin/initdb" };
	bool found = false;

	for (size_t i = 0; i < COUNT_OF(PATTERNS) && !found; i++) {
		glob_t paths;

		if (glob(PATTERNS[i], 0, NULL, &paths) != 0)
			continue;
		for (size_t j = paths.gl_pathc; j > 0 && !found; j--)
			found = take_bin(postgres, paths.gl_pathv[j - 1]);
		globfree(&paths);
	}
	if (!found)
		return err_set(err, ERR_NOT_FOUND, "postgres_missing",
			"PostgreSQL's server programs are not installed (initdb, postgres): "
			"apt-get install"
			" postgresql, or: make deps");
	return OK;
}

/* Can PostgreSQL's user, who is not us when we are root, pass through all folders above dir? */
static bool
reachable(const char *dir)
{
	int how = 0;
	pid_t pid;

	if (geteuid() != 0)
		return true;
	pid = fork();
	if (pid == 0)
		_exit(become_postgres() && access(dir, X_OK) == 0 ? 0 : 1);
	return pid > 0 && waitpid(pid, &how, 0) == pid && WIFEXITED(how) && WEXITSTATUS(how) == 0;
}

static enum status
own_dir(const char *path, struct err *err)
{
	const struct passwd *user = geteuid() == 0 ? getpwnam(POSTGRES_USER) : NULL;

	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return err_set(err, ERR_UNAVAILABLE, "directory", "%s: %s", path, strerror(errno));
	if (geteuid() == 0 && user == NULL)
		return err_set(err, ERR_UNAVAILABLE, "dev_program",
			"there is no user '" POSTGRES_USER
			"', and PostgreSQL does not run as root");
	if (user != NULL && chown(path, user->pw_uid, user->pw_gid) != 0)
		return err_set(err, ERR_UNAVAILABLE, "directory", "%s: %s", path, strerror(errno));
	return OK;
}

static enum status
place(struct dev_postgres *postgres, const char *dir, struct err *err)
{
	char real[DEV_PATH_BYTES];
	uint8_t hash[32];
	char name[17];
	ssize_t len;
	const char *const remove_argv[] = { "/bin/rm", "-rf", "--", postgres->dir, NULL };
	const struct dev_program remove_old = { .argv = remove_argv };

	len = readlink(dir, real, sizeof(real) - 1);
	if (len > 0) { /* an earlier run had to go elsewhere */
		real[len] = '\0';
		(void)snprintf(postgres->dir, sizeof(postgres->dir), "%s", real);
		return own_dir(postgres->dir, err);
	}
	(void)snprintf(postgres->dir, sizeof(postgres->dir), "%s", dir);
	TRY(own_dir(postgres->dir, err));
	if (reachable(dir) && strlen(dir) <= SOCKET_DIR_MAX_BYTES)
		return OK;
	(void)rmdir(dir);
	ca_sha256(hash, view_text(dir));
	hex_encode(name, hash, 8);
	(void)snprintf(postgres->dir, sizeof(postgres->dir), "%s/jitrca-dev-%s",
		geteuid() == 0 ? "/var/lib" : "/var/tmp", name);
	/* Without a link to it, it is of a dir that was removed: its CA is gone as well. */
	TRY(dev_run(&remove_old, err));
	TRY(own_dir(postgres->dir, err));
	if (symlink(postgres->dir, dir) != 0)
		return err_set(err, ERR_UNAVAILABLE, "directory", "%s: %s", dir, strerror(errno));
	printf("PostgreSQL cannot use %s: its cluster is in %s\n", dir, postgres->dir);
	return OK;
}

/* ---- the cluster ---- */

/* Half a cluster is of no use: initdb makes it under another name, which is then given its own. */
static enum status
make_cluster(const struct dev_postgres *postgres, const char *data, struct err *err)
{
	char half[DEV_PATH_BYTES + 16];
	char initdb[DEV_PATH_BYTES + 16];
	char log[DEV_PATH_BYTES + 16];
	const char *const remove_argv[] = { "/bin/rm", "-rf", "--", half, NULL };
	const char *const argv[] = { initdb, "-D", half, "-U", POSTGRES_USER, "-A", "trust", "-E",
		"UTF8", "--locale=C", "--no-instructions", NULL };
	const struct dev_program remove_half = { .argv = remove_argv };
	const struct dev_program init = { .argv = argv, .as_postgres = true, .output = log };

	if (access(data, F_OK) == 0)
		return OK;
	(void)snprintf(half, sizeof(half), "%s.half", data);
	(void)snprintf(initdb, sizeof(initdb), "%s/initdb", postgres->bin);
	(void)snprintf(log, sizeof(log), "%s/log", postgres->dir);
	printf("database: making a cluster in %s\n", data);
	(void)fflush(stdout);
	TRY(dev_run(&remove_half, err));
	TRY(dev_run(&init, err));
	if (rename(half, data) != 0)
		return err_set(err, ERR_UNAVAILABLE, "directory", "%s: %s", data, strerror(errno));
	return OK;
}

/* A server that an earlier run left behind would hold the cluster: it is given time to end. */
static enum status
wait_for_leftover(const char *data, struct err *err)
{
	char path[DEV_PATH_BYTES + 32];
	int64_t end_us = clock_mono_us() + INT64_C(1000) * STOP_LIMIT_MS;

	(void)snprintf(path, sizeof(path), "%s/postmaster.pid", data);
	for (;;) {
		FILE *file = fopen(path, "re");
		char line[32] = "";
		char proc[64];
		char cwd[DEV_PATH_BYTES] = "";
		long pid;

		if (file == NULL)
			return OK;
		if (fgets(line, sizeof(line), file) == NULL)
			line[0] = '\0';
		(void)fclose(file);
		pid = strtol(line, NULL, 10);
		(void)snprintf(proc, sizeof(proc), "/proc/%ld/cwd", pid);
		/* A stale file of a dead or another process is PostgreSQL's own to judge. */
		if (pid <= 1 || readlink(proc, cwd, sizeof(cwd) - 1) < 0 || strcmp(cwd, data) != 0)
			return OK;
		if (clock_mono_us() > end_us)
			return err_set(err, ERR_CONFLICT, "postgres_running",
				"an earlier PostgreSQL (process %ld) still runs on %s", pid, data);
		(void)kill((pid_t)pid, SIGINT);
		sleep_ms(STEP_MS);
	}
}

static enum status
wait_ready(struct dev_postgres *postgres, const char *log, struct err *err)
{
	char program[DEV_PATH_BYTES + 16];
	const char *const argv[] = { program, "-q", "-h", postgres->dir, "-U", POSTGRES_USER,
		NULL };
	const struct dev_program ask = { .argv = argv, .output = log };
	int64_t end_us = clock_mono_us() + INT64_C(1000) * READY_LIMIT_MS;

	(void)snprintf(program, sizeof(program), "%s/pg_isready", postgres->bin);
	while (dev_run(&ask, err) != OK) {
		if (waitpid(postgres->pid, NULL, WNOHANG) != 0) {
			postgres->pid = 0;
			return err_set(err, ERR_UNAVAILABLE, "postgres_start",
				"PostgreSQL did not start; see %s", log);
		}
		if (clock_mono_us() > end_us)
			return err_set(err, ERR_UNAVAILABLE, "postgres_start",
				"PostgreSQL did not answer in time; see %s", log);
		sleep_ms(STEP_MS);
	}
	return OK;
}

/* A role of its own that owns its database. The mark says that both were made. */
static enum status
make_database(const struct dev_postgres *postgres, const char *log, struct err *err)
{
	char mark[DEV_PATH_BYTES + 16];
	char createuser[DEV_PATH_BYTES + 16];
	char createdb[DEV_PATH_BYTES + 16];
	const char *const user_argv[] = { createuser, "-h", postgres->dir, "-U", POSTGRES_USER,
		"jitrca", NULL };
	const char *const db_argv[] = { createdb, "-h", postgres->dir, "-U", POSTGRES_USER, "-O",
		"jitrca", "jitrca", NULL };
	const struct dev_program user = { .argv = user_argv, .output = log };
	const struct dev_program db = { .argv = db_argv, .output = log };
	struct err exists;
	int fd;

	(void)snprintf(mark, sizeof(mark), "%s/made", postgres->dir);
	if (access(mark, F_OK) == 0)
		return OK;
	(void)snprintf(createuser, sizeof(createuser), "%s/createuser", postgres->bin);
	(void)snprintf(createdb, sizeof(createdb), "%s/createdb", postgres->bin);
	/* A run that was cut short may have made one or both; then the database says so below. */
	(void)!dev_run(&user, &exists);
	if (dev_run(&db, err) != OK) {
		const char *const drop_argv[] = { createdb, "-h", postgres->dir, "-U",
			POSTGRES_USER, "jitrca", NULL };
		const struct dev_program drop = { .argv = drop_argv, .output = log };

		/* Without the mark nothing of worth is in it yet. */
		(void)snprintf(createdb, sizeof(createdb), "%s/dropdb", postgres->bin);
		TRY(dev_run(&drop, err));
		(void)snprintf(createdb, sizeof(createdb), "%s/createdb", postgres->bin);
		TRY(dev_run(&db, err));
	}
	fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, ERR_UNAVAILABLE, "file_write", "%s: %s", mark, strerror(errno));
	(void)close(fd);
	return OK;
}

enum status
dev_postgres_start(struct dev_postgres *postgres, const char *dir, struct err *err)
{
	char data[DEV_PATH_BYTES + 8];
	char log[DEV_PATH_BYTES + 8];
	char server[DEV_PATH_BYTES + 16];
	const char *const argv[] = { server, "-D", data, "-k", postgres->dir, "-c",
		"listen_addresses=", "-c", "unix_socket_permissions=0700", "-c",
		"max_connections=100", NULL };
	const struct dev_program program = { .argv = argv,
		.as_postgres = true,
		.end_with = SIGINT,
		.output = log,
		.own_group = true };

	TRY(find_bin(postgres, err));
	TRY(place(postgres, dir, err));
	(void)snprintf(data, sizeof(data), "%s/data", postgres->dir);
	(void)snprintf(log, sizeof(log), "%s/log", postgres->dir);
	(void)snprintf(server, sizeof(server), "%s/postgres", postgres->bin);
	TRY(make_cluster(postgres, data, err));
	TRY(wait_for_leftover(data, err));
	TRY(dev_spawn(&program, &postgres->pid, err));
	TRY(wait_ready(postgres, log, err));
	(void)snprintf(postgres->url, sizeof(postgres->url),
		"postgresql://jitrca@/jitrca?host=%.300s", postgres->dir);
	return make_database(postgres, log, err);
}

void
dev_postgres_stop(struct dev_postgres *postgres)
{
	dev_end(&postgres->pid, SIGINT, STOP_LIMIT_MS); /* fast shutdown */
}
