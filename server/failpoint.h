/*
 * server/failpoint.h - places where the fault tests kill the process: only in builds with
 * -DJITRCA_TEST_HOOKS (make TEST_HOOKS=1); elsewhere they are nothing.
 *
 * JITRCA_TEST_FAILPOINT=NAME or NAME:N in the environment raises SIGKILL at the N-th passage (the first
 * without N). A name that ends in _commit kills from another thread while the caller goes on, so that
 * the end may come before, within or after the COMMIT that follows.
 */
#ifndef SERVER_FAILPOINT_H
#define SERVER_FAILPOINT_H

#ifdef JITRCA_TEST_HOOKS
void failpoint_pass(const char *name);
#define FAILPOINT(name) failpoint_pass(name)
#else
#define FAILPOINT(name) ((void)0)
#endif

#endif
