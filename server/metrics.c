#include "server/metrics.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"

/* Profiles × results, codes, reasons, jobs: bounded by what the program and its profiles name. */
#define SERIES_MAX 1024
#define LABEL_BYTES 64

static const struct {
	const char *name; /* behind jitrca_ */
	const char *help;
	const char *labels[2]; /* the names of them; NULL: none */
	bool gauge;
	bool micros; /* counted in microseconds, printed in seconds */
} METRICS[] = {
	[METRIC_ISSUANCE] = { .name = "issuance_total", .labels = { "profile", "result" },
		.help = "Requests for a certificate." },
	[METRIC_ISSUANCE_REFUSED] = { .name = "issuance_refused_total", .labels = { "code" },
		.help = "Requests for a certificate that a rule refused." },
	[METRIC_ISSUANCE_STAGE_US] = { .name = "issuance_stage_seconds_total",
		.labels = { "stage" }, .micros = true, .help = "Time spent in each stage." },
	[METRIC_PROBLEMS] = { .name = "problems_total", .labels = { "code" },
		.help = "Answers that were a problem." },
	[METRIC_REVOKED] = { .name = "revoked_total", .labels = { "reason" },
		.help = "Certificates revoked or held." },
	[METRIC_JOB_FAILED] = { .name = "job_failed_total", .labels = { "job" },
		.help = "Rounds of periodic jobs that failed." },
	[METRIC_JITR_EVENTS] = { .name = "jitr_events_total", .labels = { "source", "result" },
		.help = "Events of certificates registered by IoT Core." },
	[METRIC_IOT_APPLIED] = { .name = "iot_applied_total", .labels = { "target", "status" },
		.help = "Certificates given a status in IoT Core." },
	[METRIC_OUTBOX_FAILED] = { .name = "outbox_failed_total", .labels = { "code" },
		.help = "Attempts to bring IoT Core to what is wanted that failed." },
	[METRIC_SECURITY_EVENTS] = { .name = "security_events_total", .labels = { "kind" },
		.help = "Security events raised." },
	[METRIC_NOTIFICATIONS] = { .name = "notifications_total", .labels = { "channel", "result" },
		.help = "Attempts to notify somebody, and what was not told." },
	[METRIC_ISSUANCE_BUSY] = { .name = "issuance_busy_total",
		.help = "Times that a request was put off for another one under way." },
	[METRIC_ISSUANCE_BATCHES] = { .name = "issuance_batches_total",
		.help = "Batches carried through the pipeline." },
	[METRIC_INTENTS_CLOSED] = { .name = "intents_closed_total",
		.help = "Intents without a certificate, closed as revoked." },
	[METRIC_ROTATION_CONFIRMED] = { .name = "rotations_confirmed_total",
		.help = "Successors confirmed by their device." },
	[METRIC_AUTH_FAILED] = { .name = "auth_failed_total",
		.help = "Requests whose credentials were refused." },
	[METRIC_AUTH_READ] = { .name = "auth_read_total",
		.help = "Requests for which it was read who asks; for the others it was remembered." },
	[METRIC_CLONED_KEYS] = { .name = "cloned_keys_total",
		.help = "Requests with a public key that another device has." },
	[METRIC_CRL_PUBLISHED] = { .name = "crl_published_total",
		.help = "CRLs published, of any scope." },
	[METRIC_CRL_FAILED] = { .name = "crl_failed_total",
		.help = "CRLs that could not be made." },
	[METRIC_CRL_REFUSED] = { .name = "crl_refused_total",
		.help = "CRLs held back: an entry lost, or older than served." },
	[METRIC_AUDIT_RECORDS] = { .name = "audit_records_total",
		.help = "Audit records written." },
	[METRIC_SIGNER_STARTS] = { .name = "signer_starts_total",
		.help = "Signer processes that this frontend has worked with." },
	[METRIC_DB_RETRIES] = { .name = "db_retries_total",
		.help = "Transactions run again after a deadlock." },
	[METRIC_ISSUANCE_QUEUE] = { .name = "issuance_queue", .gauge = true,
		.help = "Requests in the issuance pipeline." },
	[METRIC_CRL_HELD] = { .name = "crl_held_back", .gauge = true,
		.help = "Lists that were refused or failed and wait to be tried again." },
	[METRIC_LEADER] = { .name = "leader", .gauge = true,
		.help = "1 while this server publishes the CRLs." },
};

_Static_assert(COUNT_OF(METRICS) == METRIC_COUNT, "each metric has its line");

struct series {
	enum metric metric;
	char values[2][LABEL_BYTES];
	int64_t count;
};

/* Global and mutable, for counters belong to the process and every room of server adds to them. */
static _Atomic int64_t values[METRIC_COUNT];
static pthread_mutex_t series_lock = PTHREAD_MUTEX_INITIALIZER;
static struct series series[SERIES_MAX]; /* with series_lock, as the next */
static size_t series_count;

void
metric_add(enum metric metric, int64_t n)
{
	atomic_fetch_add_explicit(&values[metric], n, memory_order_relaxed);
}

void
metric_set(enum metric metric, int64_t value)
{
	atomic_store_explicit(&values[metric], value, memory_order_relaxed);
}

int64_t
metric_get(enum metric metric)
{
	return atomic_load_explicit(&values[metric], memory_order_relaxed);
}

/* The text format knows escapes; what we name needs none, and what is odd is not worth one. */
static void
label_value(char out[LABEL_BYTES], const char *text)
{
	(void)snprintf(out, LABEL_BYTES, "%s", text != NULL ? text : "");
	for (char *at = out; *at != '\0'; at++)
		if (*at == '"' || *at == '\\' || (*at & 0x80) != 0 || *at < 0x20)
			*at = '_';
}

/* With series_lock. NULL: there is no room, which no program of ours needs; it is not counted then. */
static struct series *
find(const struct series *wanted)
{
	for (size_t i = 0; i < series_count; i++)
		if (series[i].metric == wanted->metric &&
			strcmp(series[i].values[0], wanted->values[0]) == 0 &&
			strcmp(series[i].values[1], wanted->values[1]) == 0)
			return &series[i];
	if (series_count == SERIES_MAX)
		return NULL;
	series[series_count] = *wanted;
	return &series[series_count++];
}

void
metric_count(enum metric metric, const char *first, const char *second, int64_t n)
{
	struct series wanted = { .metric = metric };
	struct series *found;

	label_value(wanted.values[0], first);
	label_value(wanted.values[1], second);
	(void)pthread_mutex_lock(&series_lock);
	found = find(&wanted);
	if (found != NULL)
		found->count += n;
	(void)pthread_mutex_unlock(&series_lock);
}

static enum status
print_value(enum metric metric, int64_t value, struct buf *out, struct err *err)
{
	return METRICS[metric].micros ? buf_format(out, err, " %.6f\n", (double)value / 1e6)
	                              : buf_format(out, err, " %lld\n", (long long)value);
}

static enum status
print_series(const struct series *one, struct buf *out, struct err *err)
{
	const char *const *labels = METRICS[one->metric].labels;

	TRY(buf_format(out, err, "jitrca_%s{%s=\"%s\"", METRICS[one->metric].name, labels[0],
		one->values[0]));
	if (labels[1] != NULL)
		TRY(buf_format(out, err, ",%s=\"%s\"", labels[1], one->values[1]));
	TRY(buf_text(out, "}", err));
	return print_value(one->metric, one->count, out, err);
}

/* One after the other under the lock, for a copy of all would be large. */
static enum status
print_labelled(enum metric metric, struct buf *out, struct err *err)
{
	enum status status = OK;

	(void)pthread_mutex_lock(&series_lock);
	for (size_t i = 0; i < series_count && status == OK; i++)
		if (series[i].metric == metric)
			status = print_series(&series[i], out, err);
	(void)pthread_mutex_unlock(&series_lock);
	return status;
}

enum status
metrics_print(struct buf *out, struct err *err)
{
	for (unsigned i = 0; i < METRIC_COUNT; i++) {
		TRY(buf_format(out, err, "# HELP jitrca_%s %s\n# TYPE jitrca_%s %s\n",
			METRICS[i].name, METRICS[i].help, METRICS[i].name,
			METRICS[i].gauge ? "gauge" : "counter"));
		if (METRICS[i].labels[0] != NULL) {
			TRY(print_labelled((enum metric)i, out, err));
			continue;
		}
		TRY(buf_format(out, err, "jitrca_%s", METRICS[i].name));
		TRY(print_value((enum metric)i, metric_get((enum metric)i), out, err));
	}
	return OK;
}

enum status
metrics_print_pool(struct buf *out, struct db_pool *pool, struct err *err)
{
	struct db_pool_stats stats;

	db_pool_stats(pool, &stats);
	TRY(buf_format(out, err,
		"# HELP jitrca_db_pool_connections Connections to the database.\n"
		"# TYPE jitrca_db_pool_connections gauge\n"
		"jitrca_db_pool_connections{state=\"max\"} %u\n"
		"jitrca_db_pool_connections{state=\"open\"} %u\n"
		"jitrca_db_pool_connections{state=\"in_use\"} %u\n",
		stats.max, stats.open, stats.in_use));
	return buf_format(out, err,
		"# HELP jitrca_db_pool_events_total Waits for a connection, reconnects, failures.\n"
		"# TYPE jitrca_db_pool_events_total counter\n"
		"jitrca_db_pool_events_total{event=\"wait\"} %" PRIu64 "\n"
		"jitrca_db_pool_events_total{event=\"reconnect\"} %" PRIu64 "\n"
		"jitrca_db_pool_events_total{event=\"error\"} %" PRIu64 "\n",
		stats.waits, stats.reconnects, stats.errors);
}
