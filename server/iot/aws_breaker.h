/*
 * server/iot/aws_breaker.h - the circuit breaker: after enough attempts in a row, or a large enough
 * share of the recent ones, that the service did not answer, nothing is sent for a while; then one
 * probe at a time, until one succeeds. Answers that refuse (4xx, throttling) are answers: they
 * close it. Time is handed in (monotonic, milliseconds). Not safe from several threads: the owner
 * locks.
 */
#ifndef SERVER_IOT_AWS_BREAKER_H
#define SERVER_IOT_AWS_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum aws_breaker_state { AWS_BREAKER_CLOSED = 0, AWS_BREAKER_OPEN, AWS_BREAKER_HALF_OPEN };

struct aws_breaker_config {
	unsigned failures;   /* in a row; 0: 5 */
	unsigned share_pct;  /* of the last AWS_BREAKER_WINDOW attempts, once so many were made; 0:
	                        50 */
	int64_t open_ms;     /* first pause, doubled after each failed probe; 0: 1 000 */
	int64_t open_max_ms; /* 0: 30 000 */
};

#define AWS_BREAKER_WINDOW 32

struct aws_breaker {
	struct aws_breaker_config config; /* as filled in by aws_breaker_init */
	enum aws_breaker_state state;
	int64_t since_ms;
	int64_t opened;      /* times */
	unsigned in_a_row;
	uint32_t window;     /* a bit for each recent attempt, 1: failed */
	unsigned window_used;
	int64_t pause_ms;
	int64_t probe_at_ms; /* while open */
	bool probing;        /* while half open */
};

void aws_breaker_init(struct aws_breaker *breaker, const struct aws_breaker_config *config);
/*
 * True: send, and report the result with aws_breaker_report, or aws_breaker_drop if none came.
 * False: *wait_ms says when to ask again.
 */
bool aws_breaker_allow(struct aws_breaker *breaker, int64_t now_ms, int64_t *wait_ms);
/* random: any number; spreads the pause over its upper half. */
void aws_breaker_report(
	struct aws_breaker *breaker, bool answered, int64_t now_ms, uint32_t random);
void aws_breaker_drop(struct aws_breaker *breaker);
const char *aws_breaker_name(enum aws_breaker_state state); /* "closed" "open" "half_open" */

#endif
