#include "server/metrics.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "base/attr.h"

static const struct {
	const char *name; /* behind jitrca_ */
	const char *help;
	bool gauge;
} METRICS[] = {
	[METRIC_ISSUED] = { .name = "issued_total", .help = "Certificates released to a client." },
	[METRIC_ISSUE_REPLAYED] = { .name = "issue_replayed_total",
		.help = "Repeats answered with the certificate of before." },
	[METRIC_ISSUE_REFUSED] = { .name = "issue_refused_total",
		.help = "Requests for a certificate that a rule refused." },
	[METRIC_ISSUE_FAILED] = { .name = "issue_failed_total",
		.help = "Requests lost to the database or the signer." },
	[METRIC_BATCHES] = { .name = "issue_batches_total",
		.help = "Record transactions of the issuance pipeline." },
	[METRIC_INTENTS_CLOSED] = { .name = "intents_closed_total",
		.help = "Intents of dead servers, closed as revoked." },
	[METRIC_REVOKED] = { .name = "revoked_total", .help = "Certificates revoked." },
	[METRIC_ROTATION_CONFIRMED] = { .name = "rotations_confirmed_total",
		.help = "Successors confirmed by their device." },
	[METRIC_AUTH_FAILED] = { .name = "auth_failed_total",
		.help = "Requests whose credentials were refused." },
	[METRIC_CLONED_KEYS] = { .name = "cloned_keys_total",
		.help = "Public keys that another device already has." },
	[METRIC_CRL_PUBLISHED] = { .name = "crl_published_total",
		.help = "CRLs published, of any scope." },
	[METRIC_CRL_FAILED] = { .name = "crl_failed_total",
		.help = "CRLs that could not be made." },
	[METRIC_CRL_REFUSED] = { .name = "crl_refused_total",
		.help = "CRLs held back: an entry lost, or older than served." },
	[METRIC_AUDIT_RECORDS] = { .name = "audit_records_total",
		.help = "Audit records written." },
	[METRIC_SIGNER_RESTARTS] = { .name = "signer_links_total",
		.help = "Links to the signer, made anew after a loss." },
	[METRIC_DB_RETRIES] = { .name = "db_retries_total",
		.help = "Transactions run again after a serialization failure." },
	[METRIC_JOB_FAILED] = { .name = "job_failed_total", .help = "Periodic jobs that failed." },
	[METRIC_ISSUE_QUEUE] = { .name = "issue_queue",
		.gauge = true,
		.help = "Items that wait in the issuance pipeline." },
	[METRIC_LEADER] = { .name = "leader",
		.gauge = true,
		.help = "1 while this server runs the periodic jobs." },
};

_Static_assert(COUNT_OF(METRICS) == METRIC_COUNT, "each metric has its line");

/* Global and mutable, for counters belong to the process and every room of server adds to them. */
static _Atomic int64_t values[METRIC_COUNT];

void
metric_add(enum metric metric, uint64_t n)
{
	atomic_fetch_add_explicit(&values[metric], (int64_t)n, memory_order_relaxed);
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

enum status
metrics_print(struct buf *out, struct err *err)
{
	for (unsigned i = 0; i < METRIC_COUNT; i++)
		TRY(buf_format(out, err,
			"# HELP jitrca_%s %s\n# TYPE jitrca_%s %s\njitrca_%s %lld\n",
			METRICS[i].name, METRICS[i].help, METRICS[i].name,
			METRICS[i].gauge ? "gauge" : "counter", METRICS[i].name,
			(long long)metric_get((enum metric)i)));
	return OK;
}
