#include "server/process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

enum status
process_send(int control_fd, const void *message, size_t len, const int *fds, size_t fd_count,
	struct err *err)
{
	union {
		struct cmsghdr head; /* for its alignment */
		char room[CMSG_SPACE(PROCESS_FDS_MAX * sizeof(int))];
	} control = { .room = { 0 } };
	struct iovec part = { (void *)(uintptr_t)message, len };
	struct msghdr whole = { .msg_iov = &part, .msg_iovlen = 1 };
	ssize_t sent;

	if (fd_count > PROCESS_FDS_MAX)
		return err_set(
			err, ERR_INTERNAL, "internal", "too many descriptors in one message");
	if (fd_count > 0) {
		struct cmsghdr *head;

		whole.msg_control = control.room;
		whole.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		head = CMSG_FIRSTHDR(&whole);
		assert(head != NULL); /* the room is there */
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(head), fds, fd_count * sizeof(int));
	}
	do
		/* A peer that does not read must not hold the supervisor up. */
		sent = sendmsg(control_fd, &whole, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	if (sent != (ssize_t)len)
		return err_set(err, ERR_UNAVAILABLE, "process_away", "control socket: send: %s",
			sent < 0 ? strerror(errno) : "cut short");
	return OK;
}

static void
take_fds(struct msghdr *whole, int *fds, size_t *fd_count)
{
	*fd_count = 0;
	for (struct cmsghdr *head = CMSG_FIRSTHDR(whole); head != NULL;
		head = CMSG_NXTHDR(whole, head)) {
		size_t count;
		int got[PROCESS_FDS_MAX];

		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
			continue;
		count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (count > PROCESS_FDS_MAX)
			count = PROCESS_FDS_MAX;
		memcpy(got, CMSG_DATA(head), count * sizeof(int));
		for (size_t i = 0; i < count; i++) {
			if (fds != NULL && *fd_count < PROCESS_FDS_MAX)
				fds[(*fd_count)++] = got[i];
			else
				(void)close(got[i]);
		}
	}
}

enum status
process_receive(int control_fd, void *message, size_t size, size_t *len, int *fds, size_t *fd_count,
	struct err *err)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(PROCESS_FDS_MAX * sizeof(int))];
	} control = { .room = { 0 } };
	struct iovec part = { message, size };
	struct msghdr whole = { .msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.room,
		.msg_controllen = sizeof(control.room) };
	size_t taken = 0;
	ssize_t got;

	*len = 0;
	if (fd_count != NULL)
		*fd_count = 0;
	do
		got = recvmsg(control_fd, &whole, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0 && errno == ECONNRESET)
		return OK;
	if (got < 0)
		return err_set(err, ERR_UNAVAILABLE, "process_away", "control socket: receive: %s",
			strerror(errno));
	take_fds(&whole, fds, &taken);
	if (fd_count != NULL)
		*fd_count = taken;
	if ((whole.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
		return err_set(err, ERR_INTERNAL, "internal", "control socket: a message was cut");
	*len = (size_t)got;
	return OK;
}

/* All of len octets at offset; the file is in memory, so less is a fault. */
static enum status
whole(ssize_t done, size_t len, struct err *err)
{
	if (done >= 0 && (size_t)done == len)
		return OK;
	return err_set(err, ERR_INTERNAL, "internal", "profiles in memory: %s",
		done < 0 ? strerror(errno) : "cut short");
}

enum status
process_profiles_keep(int *fd, const struct ca_profile *profiles, size_t count, struct err *err)
{
	enum status status;

	*fd = memfd_create("jitrca-profiles", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return err_set(
			err, ERR_UNAVAILABLE, "process_start", "memfd_create: %s", strerror(errno));
	status = whole(
		write(*fd, profiles, count * sizeof(*profiles)), count * sizeof(*profiles), err);
	if (status == OK && fcntl(*fd, F_ADD_SEALS,
				    F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0)
		status = err_set(
			err, ERR_INTERNAL, "internal", "profiles in memory: %s", strerror(errno));
	if (status != OK) {
		(void)close(*fd);
		*fd = -1;
	}
	return status;
}

enum status
process_profiles_read(int fd, struct ca_profile *out, size_t max, size_t *count, struct err *err)
{
	struct stat what;
	size_t size;

	*count = 0;
	if (fstat(fd, &what) != 0)
		return err_set(
			err, ERR_INTERNAL, "internal", "profiles in memory: %s", strerror(errno));
	size = (size_t)what.st_size;
	if (size == 0 || size % sizeof(*out) != 0 || size / sizeof(*out) > max)
		return err_set(
			err, ERR_INTERNAL, "internal", "profiles in memory: %zu octets", size);
	TRY(whole(pread(fd, out, size, 0), size, err));
	*count = size / sizeof(*out);
	return OK;
}

enum status
process_harden(struct err *err)
{
	static const struct rlimit NO_CORE = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &NO_CORE) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 ||
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return err_set(err, ERR_INTERNAL, "internal",
			"cannot forbid core dumps and tracing: %s", strerror(errno));
	return OK;
}

static enum status
become(const char *user, struct err *err)
{
	const struct passwd *entry;

	errno = 0;
	entry = getpwnam(user);
	if (entry == NULL)
		return err_set(
			err, ERR_ARGUMENT, "user_unknown", "there is no user '%s' here", user);
	if (initgroups(user, entry->pw_gid) != 0 || setgid(entry->pw_gid) != 0 ||
		setuid(entry->pw_uid) != 0)
		return err_set(err, ERR_INTERNAL, "internal", "cannot become user '%s': %s", user,
			strerror(errno));
	/* Belt and braces: a process that can go back has not dropped anything. */
	if (entry->pw_uid != 0 && setuid(0) == 0)
		return err_set(
			err, ERR_INTERNAL, "internal", "user '%s' can become root again", user);
	return OK;
}

enum status
process_drop(const char *user, struct err *err)
{
	if (geteuid() == 0 && user[0] != '\0')
		TRY(become(user, err));
	TRY(process_harden(err));
	/* Only now: the kernel forgets it when the user changes. A supervisor that died before this
	 * shows as the end of the control socket. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
		return err_set(err, ERR_INTERNAL, "internal",
			"cannot tie myself to the supervisor: %s", strerror(errno));
	return OK;
}
