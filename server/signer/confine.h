/*
 * server/signer/confine.h - the signer gives up what it does not need (design: Processes). What
 * remains is memory, its open sockets, the clock and the kernel's randomness: no files, no new
 * sockets, no other processes, no code that was not there before.
 */
#ifndef SERVER_SIGNER_CONFINE_H
#define SERVER_SIGNER_CONFINE_H

#include "base/err.h"

/* Descriptors above last_fd are closed, standard input and output lead nowhere. */
MUST_USE enum status confine_descriptors(int last_fd, struct err *err);
/* While still root: later, as another user, memory may be locked without a limit. Best effort. */
void confine_raise_memory_lock(void);
/*
 * Keeps pages out of swap as they are touched. Without the right to do so, only OpenSSL's secure
 * heap, where the keys are, is locked; that is logged.
 */
void confine_lock_memory(void);
/*
 * All threads of the process, now and for ever: a system call that is not on the list ends the
 * process with SIGSYS. After everything is loaded and all threads are there.
 */
MUST_USE enum status confine_system_calls(struct err *err);

#endif
