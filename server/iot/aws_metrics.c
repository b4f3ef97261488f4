#include <stdio.h>

#include "server/iot/aws.h"

enum number { CALLS = 0, ATTEMPTS, RETRIES, THROTTLES, PACED, LATENCY };

static const struct {
	const char *name;
	const char *help;
	const char *type;
} OF_OPERATIONS[] = {
	[CALLS] = { "jitrca_aws_calls_total", "Calls of an AWS API, by how they ended.",
		"counter" },
	[ATTEMPTS] = { "jitrca_aws_attempts_total", "Requests sent to an AWS API.", "counter" },
	[RETRIES] = { "jitrca_aws_retries_total", "Requests sent again.", "counter" },
	[THROTTLES] = { "jitrca_aws_throttles_total", "Requests that AWS answered with throttling.",
		"counter" },
	[PACED] = { "jitrca_aws_paced_seconds_total", "Time waited for the quota's token buckets.",
		"counter" },
	[LATENCY] = { "jitrca_aws_attempt_seconds",
		"Time from sending a request to its whole answer.", "histogram" },
};

/* One metric of one client on its way into out. */
struct printing {
	enum number number;
	const char *client;
	struct buf *out;
	struct err *err;
	enum status status;
};

static enum status
print_calls(const struct printing *printing, const struct aws_operation_stats *stats)
{
	for (int i = 0; i < AWS_ERROR_COUNT; i++)
		if (stats->results[i] > 0)
			TRY(buf_format(printing->out, printing->err,
				"%s{client=\"%s\",operation=\"%s\",result=\"%s\"} %lld\n",
				OF_OPERATIONS[CALLS].name, printing->client, stats->operation,
				aws_error_name((enum aws_error)i), (long long)stats->results[i]));
	return OK;
}

static enum status
print_latency(const struct printing *printing, const struct aws_operation_stats *stats)
{
	const char *name = OF_OPERATIONS[LATENCY].name;
	long long sum = 0;

	for (size_t i = 0; i <= AWS_LATENCY_BOUNDS; i++) {
		char bound[32] = "+Inf";

		sum += stats->latency[i];
		if (i < AWS_LATENCY_BOUNDS)
			(void)snprintf(
				bound, sizeof(bound), "%g", (double)AWS_LATENCY_BOUND_MS[i] / 1000);
		TRY(buf_format(printing->out, printing->err,
			"%s_bucket{client=\"%s\",operation=\"%s\",le=\"%s\"} %lld\n", name,
			printing->client, stats->operation, bound, sum));
	}
	TRY(buf_format(printing->out, printing->err,
		"%s_sum{client=\"%s\",operation=\"%s\"} %.3f\n", name, printing->client,
		stats->operation, (double)stats->latency_ms_sum / 1000));
	return buf_format(printing->out, printing->err,
		"%s_count{client=\"%s\",operation=\"%s\"} %lld\n", name, printing->client,
		stats->operation, sum);
}

static enum status
print_number(const struct printing *printing, const struct aws_operation_stats *stats)
{
	double value = 0;

	switch (printing->number) {
	case CALLS: return print_calls(printing, stats);
	case LATENCY: return print_latency(printing, stats);
	case ATTEMPTS: value = (double)stats->attempts; break;
	case RETRIES: value = (double)stats->retries; break;
	case THROTTLES: value = (double)stats->throttles; break;
	case PACED: value = (double)stats->paced_ms / 1000; break;
	}
	return buf_format(printing->out, printing->err, "%s{client=\"%s\",operation=\"%s\"} %.*f\n",
		OF_OPERATIONS[printing->number].name, printing->client, stats->operation,
		printing->number == PACED ? 3 : 0, value);
}

static void
visit(void *arg, const struct aws_operation_stats *stats)
{
	struct printing *printing = arg;

	if (printing->status == OK)
		printing->status = print_number(printing, stats);
}

static enum status
print_head(const char *name, const char *help, const char *type, struct buf *out, struct err *err)
{
	return buf_format(out, err, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* What a client has one of: its breaker and the calls under way. */
static enum status
print_health(struct aws_client *const *clients, size_t count, struct buf *out, struct err *err)
{
	static const struct {
		const char *name, *help, *type;
	} METRICS[] = {
		{ "jitrca_aws_breaker_state", "0 closed, 1 open, 2 half open.", "gauge" },
		{ "jitrca_aws_breaker_opened_total", "Times that the circuit breaker opened.",
			"counter" },
		{ "jitrca_aws_calls_in_flight", "Calls under way or waiting.", "gauge" },
	};

	for (size_t m = 0; m < COUNT_OF(METRICS); m++) {
		TRY(print_head(METRICS[m].name, METRICS[m].help, METRICS[m].type, out, err));
		for (size_t i = 0; i < count; i++) {
			struct aws_health health;

			aws_client_health(clients[i], &health);
			const int64_t values[] = { health.breaker, health.breaker_opened,
				health.in_flight };
			TRY(buf_format(out, err, "%s{client=\"%s\"} %lld\n", METRICS[m].name,
				health.name, (long long)values[m]));
		}
	}
	return OK;
}

enum status
aws_print_metrics(struct aws_client *const *clients, size_t count, struct buf *out, struct err *err)
{
	for (size_t m = 0; m < COUNT_OF(OF_OPERATIONS); m++) {
		TRY(print_head(OF_OPERATIONS[m].name, OF_OPERATIONS[m].help, OF_OPERATIONS[m].type,
			out, err));
		for (size_t i = 0; i < count; i++) {
			struct aws_health health;
			struct printing printing = { .number = (enum number)m,
				.client = health.name,
				.out = out,
				.err = err,
				.status = OK };

			aws_client_health(clients[i], &health);
			aws_client_stats(clients[i], visit, &printing);
			TRY(printing.status);
		}
	}
	return print_health(clients, count, out, err);
}
