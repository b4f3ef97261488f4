#include "server/signer/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <seccomp.h>

#include "base/log.h"

enum status
confine_descriptors(int last_fd, struct err *err)
{
	int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
	bool fine = nowhere >= 0 && dup2(nowhere, STDIN_FILENO) >= 0 &&
	            dup2(nowhere, STDOUT_FILENO) >= 0 &&
	            close_range((unsigned)last_fd + 1, ~0U, 0) == 0;

	if (!fine)
		return err_set(
			err, ERR_INTERNAL, "internal", "signer: descriptors: %s", strerror(errno));
	return OK;
}

/* ---- memory ---- */

void
confine_raise_memory_lock(void)
{
	static const struct rlimit ALL = { RLIM_INFINITY, RLIM_INFINITY };

	if (geteuid() == 0)
		(void)setrlimit(RLIMIT_MEMLOCK, &ALL);
}

void
confine_lock_memory(void)
{
	struct rlimit limit = { 0, 0 };
	/* On fault: what is never touched, such as most of each stack, costs nothing. */
	int flags = MCL_CURRENT | MCL_ONFAULT;

	/* Under a limit, locking what comes would turn a large batch into a shortage of memory. */
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY)
		flags |= MCL_FUTURE;
	if (mlockall(flags) != 0)
		log_event(LOG_INFO, "memory_not_locked", NULL, LOG_STR("why", strerror(errno)),
			LOG_STR("detail", "only the keys are; raise RLIMIT_MEMLOCK for the rest"));
}

/* ---- system calls ---- */

static const int CALLS[] = {
	/* the channels, the control socket, the log */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(recvfrom),
	SCMP_SYS(sendto),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(close),
	/* memory; mmap and mprotect have conditions, below */
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	/* threads and signals that are there */
	SCMP_SYS(futex),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	/* time and randomness; OpenSSL asks for its process id to see a fork */
	SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(getrandom),
	SCMP_SYS(getpid),
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	/* what sanitizers do besides; they are not in a release */
	SCMP_SYS(sched_yield),
	SCMP_SYS(gettid),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(prctl),
	SCMP_SYS(mlock),
	SCMP_SYS(munlock),
	SCMP_SYS(nanosleep),
#endif
};

static int
add_rules(scmp_filter_ctx filter)
{
	const struct scmp_arg_cmp not_code = SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0);
	const struct scmp_arg_cmp no_file =
		SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS);
	int result = 0;

	for (size_t i = 0; result == 0 && i < COUNT_OF(CALLS); i++)
		result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, CALLS[i], 0);
	if (result == 0)
		result = seccomp_rule_add(
			filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, not_code, no_file);
	/* malloc makes its heaps without access and opens them as they grow. */
	if (result == 0)
		result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, not_code);
	return result;
}

static int
load(scmp_filter_ctx filter)
{
	int result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

	if (result == 0)
		result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1); /* all threads */
	if (result == 0)
		result = add_rules(filter);
	return result == 0 ? seccomp_load(filter) : result;
}

enum status
confine_system_calls(struct err *err)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int result = filter != NULL ? load(filter) : -ENOMEM;

	seccomp_release(filter);
	if (result != 0)
		return err_set(err, ERR_INTERNAL, "internal", "signer: system call filter: %s",
			strerror(-result));
	return OK;
}
