/*
 * base/clock.h - time, handed in so that tests can fix it, and its texts.
 * Wall time is seconds since the epoch, UTC; durations are milliseconds of a monotonic clock.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

struct clock {
	int64_t (*wall_s)(const struct clock *clock);
	int64_t (*mono_ms)(const struct clock *clock);
	int64_t fixed_s;  /* for clock_fixed: what wall_s answers */
	int64_t fixed_ms; /* for clock_fixed: what mono_ms answers */
};

extern const struct clock CLOCK_SYSTEM;
struct clock clock_fixed(int64_t wall_s);

static inline int64_t
clock_wall_s(const struct clock *clock)
{
	return clock->wall_s(clock);
}

static inline int64_t
clock_mono_ms(const struct clock *clock)
{
	return clock->mono_ms(clock);
}

/* For measuring only (metrics, log lines): microseconds, monotonic. */
int64_t clock_mono_us(void);

/* "2026-11-24T16:14:02Z" and NUL; RFC 3339 5.6. Years 0000-9999. */
#define TIME_TEXT_BYTES 21
void time_format(char out[TIME_TEXT_BYTES], int64_t wall_s);
/* Full RFC 3339 date-time with any offset; fractions are accepted and dropped. False: malformed. */
bool time_parse(int64_t *wall_s, struct view text);

struct civil {
	int64_t year;
	unsigned month, day, hour, minute, second; /* month and day from 1 */
};

struct civil civil_from_s(int64_t wall_s);
int64_t civil_to_s(struct civil civil);

/*
 * "90s" "15m" "12h" "365d" as seconds. False: not a whole number with one unit, not above zero, or
 * over 100 years.
 */
bool duration_parse(int64_t *seconds, const char *text);

#endif
