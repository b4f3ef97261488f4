#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "tests/bench/load.h"

void
stats_answer(struct stats *stats, const struct answer *answer, int64_t took_us)
{
	stats->answers++;
	stats->statuses[answer->status]++;
	stats->created += answer->created;
	stats->bytes += answer->bytes;
	if (stats->took_count == stats->took_room) {
		size_t room = stats->took_room == 0 ? 65536 : stats->took_room * 2;
		uint32_t *grown = mem_realloc(stats->took_us, room * sizeof(*grown));

		if (grown == NULL)
			die("out of memory");
		stats->took_us = grown;
		stats->took_room = room;
	}
	stats->took_us[stats->took_count++] = took_us > UINT32_MAX ? UINT32_MAX : (uint32_t)took_us;
}

static int
by_value(const void *a, const void *b)
{
	const uint32_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

static double
quantile_ms(const struct stats *stats, double share)
{
	size_t at = (size_t)((double)stats->took_count * share);

	if (stats->took_count == 0)
		return 0;
	return (double)stats->took_us[at < stats->took_count ? at : stats->took_count - 1] / 1e3;
}

static void
print_statuses(const struct stats *stats)
{
	const char *comma = "";

	printf(",\"statuses\":{");
	for (size_t i = 0; i < COUNT_OF(stats->statuses); i++) {
		if (stats->statuses[i] == 0)
			continue;
		printf("%s\"%zu\":%" PRIu64, comma, i, stats->statuses[i]);
		comma = ",";
	}
	printf("},\"failures\":{\"connect\":%" PRIu64 ",\"tls\":%" PRIu64 ",\"closed\":%" PRIu64
	       "}",
		stats->failures[FAILED_CONNECT], stats->failures[FAILED_TLS],
		stats->failures[FAILED_CLOSED]);
}

void
stats_print(struct stats *stats, const struct options *options, int64_t took_us, int64_t cpu_us)
{
	double seconds = (double)(took_us > 0 ? took_us : 1) / 1e6;
	double answers = stats->answers > 0 ? (double)stats->answers : 1;
	uint64_t items = stats->answers * request_items(options);

	if (stats->took_count > 0)
		qsort(stats->took_us, stats->took_count, sizeof(*stats->took_us), by_value);
	printf("{\"mode\":\"%s\",\"connections\":%zu,\"requests\":%" PRIu64 ",\"items\":%" PRIu64
	       ",\"created\":%" PRIu64 ",\"seconds\":%.4f,\"per_s\":%.1f,\"items_per_s\":%.1f",
		options->mode_name, options->connections, stats->answers, items, stats->created,
		seconds, (double)stats->answers / seconds, (double)items / seconds);
	printf(",\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f",
		quantile_ms(stats, 0.5), quantile_ms(stats, 0.9), quantile_ms(stats, 0.99),
		quantile_ms(stats, 1));
	printf(",\"handshakes\":%" PRIu64 ",\"resumed\":%" PRIu64 ",\"bytes\":%" PRIu64
	       ",\"cpu_s\":%.4f,\"cpu_us_per_request\":%.2f",
		stats->handshakes, stats->resumed, stats->bytes, (double)cpu_us / 1e6,
		(double)cpu_us / answers);
	print_statuses(stats);
	printf("}\n");
}

void
stats_free(struct stats *stats)
{
	mem_free(stats->took_us);
	stats->took_us = NULL;
}
