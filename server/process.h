/*
 * server/process.h - what the processes of `jitrca serve` share: how a child is handed what it needs and
 * how each gives up what it does not (design: Processes).
 *
 * The supervisor executes its own binary as `jitrca signer` and `jitrca frontend`. Nothing stands in
 * argv or the environment: everything travels over the child's control socket, which is descriptor
 * PROCESS_CONTROL_FD in the child, SOCK_SEQPACKET, so that a message is whole or absent. Both ends are
 * the same binary: messages are plain structs. When the other side is gone, the socket reads as its end.
 */
#ifndef SERVER_PROCESS_H
#define SERVER_PROCESS_H

#include "base/err.h"
#include "ca/profile.h"
#include "server/config.h"

#define PROCESS_CONTROL_FD 3
/* The signer's ends of its channels: ca_signer_serve(fd) on each. */
#define SIGNER_ISSUE_FD 4
#define SIGNER_CRL_FD 5
#define SIGNER_FULL_FD 6 /* full lists: shards and deltas do not wait for them */
#define SIGNER_OCSP_FD 7
#define SIGNER_CHANNELS 4
/* The profiles as the supervisor has read and checked them: process_profiles_read. */
#define SIGNER_PROFILES_FD 8

/* A child that ends with this status cannot be helped by a restart (EX_CONFIG of sysexits.h). */
#define PROCESS_EXIT_CONFIG 78

/* The first message to the signer. It reads data_dir/keys, wipes kek, drops to config.user_signer,
 * confines itself and answers PROCESS_READY. */
struct signer_handover {
	uint8_t kek[32];
	struct config config;
};

/* The first message to the frontend; descriptors come with it: the profiles, then its listening sockets
 * https, stations, http, those whose bit is set in `listeners`. */
struct frontend_handover {
	unsigned listeners;
	struct config config;
};

/* What a child says, and what the frontend is told later, one octet each. */
enum process_word {
	PROCESS_READY = 'R',    /* child → supervisor: it serves */
	PROCESS_CHANNELS = 'C', /* supervisor → frontend, with descriptors: issue, crl, full, ocsp */
};

#define PROCESS_FDS_MAX 6

/*
 * Profiles travel as a sealed memory file, so that signer and frontend have the same ones and both keep
 * them over restarts, whatever happens to the files meanwhile (until SIGHUP). Neither parses JSON for
 * it. The descriptor may be read by several; reading does not take it.
 */
MUST_USE enum status process_profiles_keep(int *fd, const struct ca_profile *profiles, size_t count,
	struct err *err);
MUST_USE enum status process_profiles_read(int fd, struct ca_profile *out, size_t max, size_t *count,
	struct err *err);

/* Sends a message whole; fds (count may be 0) stay the caller's. */
MUST_USE enum status process_send(int control_fd, const void *message, size_t len, const int *fds,
	size_t fd_count, struct err *err);
/*
 * Receives one message: *len octets (0: the other side is gone), *fd_count descriptors with
 * close-on-exec, which are the caller's. fds may be NULL when none are expected: any are closed.
 */
MUST_USE enum status process_receive(int control_fd, void *message, size_t size, size_t *len, int *fds,
	size_t *fd_count, struct err *err);

/* No core dumps, not traceable, no new privileges. First thing in each process; again after a change
 * of user, which resets it. */
MUST_USE enum status process_harden(struct err *err);
/*
 * Becomes user (with its groups) if started as root; empty: stays. Ends with its supervisor: when
 * that dies, so does the caller, at once. ERR_ARGUMENT user_unknown.
 */
MUST_USE enum status process_drop(const char *user, struct err *err);

#endif
