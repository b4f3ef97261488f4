#include "server/failpoint.h"

#ifdef JITRCA_TEST_HOOKS

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/entropy.h"

/* Dies within a fifth of a millisecond: the time that a COMMIT takes on a fast disk. */
static void *
kill_soon(void *arg)
{
	struct timespec wait = { 0 };
	struct err err;
	uint8_t draw[2] = { 0 };

	(void)arg;
	(void)!entropy_fill(&ENTROPY_SYSTEM, draw, sizeof(draw), &err);
	wait.tv_nsec = (draw[0] << 8 | draw[1]) * 3L;
	(void)nanosleep(&wait, NULL);
	(void)raise(SIGKILL);
	return NULL;
}

void
failpoint_pass(const char *name)
{
	static atomic_long passed; /* of the one point that is set */
	const char *set = getenv("JITRCA_TEST_FAILPOINT");
	size_t len = strlen(name);
	pthread_t thread;
	long wanted = 1;

	if (set == NULL || strncmp(set, name, len) != 0 || (set[len] != '\0' && set[len] != ':'))
		return;
	if (set[len] == ':')
		wanted = strtol(set + len + 1, NULL, 10);
	if (atomic_fetch_add(&passed, 1) + 1 != wanted)
		return;
	if (len > 7 && strcmp(name + len - 7, "_commit") == 0 &&
	    pthread_create(&thread, NULL, kill_soon, NULL) == 0) {
		(void)pthread_detach(thread);
		return;
	}
	(void)raise(SIGKILL);
}

#else

/* ISO C wants something in every source. */
extern int failpoint_unused;

#endif
