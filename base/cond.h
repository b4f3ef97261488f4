/*
 * base/cond.h - condition variables whose waits end by the monotonic clock, so that a clock that is
 * set ends no wait early and holds none up.
 */
#ifndef BASE_COND_H
#define BASE_COND_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* As pthread_cond_init, which on Linux does not fail. */
void cond_init(pthread_cond_t *cond);

/* The moment in ms >= 0 milliseconds, for pthread_cond_timedwait on such a condition. */
struct timespec cond_in_ms(int64_t ms);

#endif
