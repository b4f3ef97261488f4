#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define DAY_S INT64_C(86400)
#define DURATION_MAX_S (INT64_C(36525) * DAY_S)

static int64_t
system_wall_s(const struct clock *clock)
{
	struct timespec now;

	(void)clock;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec;
}

int64_t
clock_mono_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t
system_mono_ms(const struct clock *clock)
{
	(void)clock;
	return clock_mono_us() / 1000;
}

const struct clock CLOCK_SYSTEM = { .wall_s = system_wall_s, .mono_ms = system_mono_ms };

static int64_t
fixed_wall_s(const struct clock *clock)
{
	return clock->fixed_s;
}

static int64_t
fixed_mono_ms(const struct clock *clock)
{
	return clock->fixed_ms;
}

struct clock
clock_fixed(int64_t wall_s)
{
	return (struct clock){ .wall_s = fixed_wall_s, .mono_ms = fixed_mono_ms, .fixed_s = wall_s };
}

/* Days since the epoch of a proleptic Gregorian date; years start in March, so leap days come last. */
static int64_t
days_from_civil(int64_t year, unsigned month, unsigned day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t of_era = y - era * 400;
	int64_t of_year = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + (int64_t)day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

struct civil
civil_from_s(int64_t wall_s)
{
	int64_t days = wall_s / DAY_S - (wall_s % DAY_S < 0 ? 1 : 0);
	int64_t of_day = wall_s - days * DAY_S;
	int64_t z = days + 719468;
	int64_t era = (z >= 0 ? z : z - 146096) / 146097;
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	unsigned month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);

	return (struct civil){
		.year = yoe + era * 400 + (month <= 2 ? 1 : 0),
		.month = month,
		.day = (unsigned)(doy - (153 * mp + 2) / 5 + 1),
		.hour = (unsigned)(of_day / 3600),
		.minute = (unsigned)(of_day % 3600 / 60),
		.second = (unsigned)(of_day % 60),
	};
}

int64_t
civil_to_s(struct civil civil)
{
	return days_from_civil(civil.year, civil.month, civil.day) * DAY_S +
		(int64_t)civil.hour * 3600 + (int64_t)civil.minute * 60 + (int64_t)civil.second;
}

static char *
put_number(char *at, unsigned number, unsigned places)
{
	for (unsigned i = places; i > 0; i--, number /= 10)
		at[i - 1] = (char)('0' + number % 10);
	return at + places;
}

/* Written by hand, for an answer has four of them. Years of four digits are all that a certificate has. */
void
time_format(char out[TIME_TEXT_BYTES], int64_t wall_s)
{
	struct civil c = civil_from_s(wall_s);
	const unsigned fields[] = { c.month, c.day, c.hour, c.minute, c.second };
	char *at = put_number(out, (unsigned)(c.year % 10000), 4);

	for (size_t i = 0; i < COUNT_OF(fields); i++) {
		*at++ = "--T::"[i];
		at = put_number(at, fields[i], 2);
	}
	*at++ = 'Z';
	*at = '\0';
}

static bool
digits(const char **at, const char *end, unsigned count, unsigned *out)
{
	*out = 0;
	for (unsigned i = 0; i < count; i++, (*at)++) {
		if (*at >= end || **at < '0' || **at > '9')
			return false;
		*out = *out * 10 + (unsigned)(**at - '0');
	}
	return true;
}

static bool
literal(const char **at, const char *end, char lower)
{
	if (*at >= end || (**at | 0x20) != (lower | 0x20))
		return false;
	(*at)++;
	return true;
}

static unsigned
month_days(unsigned year, unsigned month)
{
	static const unsigned DAYS[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return month == 2 && leap ? 29 : DAYS[month - 1];
}

static bool
offset_parse(const char **at, const char *end, int64_t *offset_s)
{
	unsigned hour, minute;
	int64_t sign;

	*offset_s = 0;
	if (literal(at, end, 'z'))
		return true;
	if (*at >= end || (**at != '+' && **at != '-'))
		return false;
	sign = *(*at)++ == '-' ? -1 : 1;
	if (!digits(at, end, 2, &hour) || !literal(at, end, ':') || !digits(at, end, 2, &minute) ||
	    hour > 23 || minute > 59)
		return false;
	*offset_s = sign * ((int64_t)hour * 3600 + (int64_t)minute * 60);
	return true;
}

bool
time_parse(int64_t *wall_s, struct view text)
{
	const char *at = (const char *)text.data;
	const char *end = at + text.len;
	unsigned year, month, day, hour, minute, second;
	int64_t offset_s;

	if (text.len == 0 || !digits(&at, end, 4, &year) || !literal(&at, end, '-') ||
	    !digits(&at, end, 2, &month) || !literal(&at, end, '-') || !digits(&at, end, 2, &day) ||
	    !literal(&at, end, 't') || !digits(&at, end, 2, &hour) || !literal(&at, end, ':') ||
	    !digits(&at, end, 2, &minute) || !literal(&at, end, ':') || !digits(&at, end, 2, &second))
		return false;
	if (month < 1 || month > 12 || day < 1 || day > month_days(year, month) || hour > 23 ||
	    minute > 59 || second > 60)
		return false;
	if (at < end && *at == '.') {
		const char *fraction = ++at;

		while (at < end && *at >= '0' && *at <= '9')
			at++;
		if (at == fraction)
			return false;
	}
	if (!offset_parse(&at, end, &offset_s) || at != end)
		return false;
	*wall_s = civil_to_s((struct civil){ .year = year, .month = month, .day = day, .hour = hour,
			.minute = minute, .second = second }) - offset_s;
	return true;
}

bool
duration_parse(int64_t *seconds, const char *text)
{
	int64_t value = 0;
	int64_t unit;
	const char *at = text;

	for (; *at >= '0' && *at <= '9'; at++) {
		value = value * 10 + (*at - '0');
		if (value > DURATION_MAX_S)
			return false;
	}
	switch (*at) {
	case 's': unit = 1; break;
	case 'm': unit = 60; break;
	case 'h': unit = 3600; break;
	case 'd': unit = DAY_S; break;
	default: return false;
	}
	if (at[1] != '\0' || value == 0 || value > DURATION_MAX_S / unit)
		return false;
	*seconds = value * unit;
	return true;
}
