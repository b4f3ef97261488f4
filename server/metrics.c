#include "server/metrics.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "base/attr.h"

static const struct {
	const char *name; /* behind jitrca_ */
	const char *help;
	bool gauge;
} METRICS[] = {
	[METRIC_ISSUED] = { "issued_total", "Certificates released to a client." },
	[METRIC_ISSUE_REPLAYED] = { "issue_replayed_total", "Repeats answered with the certificate of before." },
	[METRIC_ISSUE_REFUSED] = { "issue_refused_total", "Requests for a certificate that a rule refused." },
	[METRIC_ISSUE_FAILED] = { "issue_failed_total", "Requests lost to the database or the signer." },
	[METRIC_BATCHES] = { "issue_batches_total", "Record transactions of the issuance pipeline." },
	[METRIC_INTENTS_CLOSED] = { "intents_closed_total", "Intents of dead servers, closed as revoked." },
	[METRIC_REVOKED] = { "revoked_total", "Certificates revoked." },
	[METRIC_ROTATION_CONFIRMED] = { "rotations_confirmed_total", "Successors confirmed by their device." },
	[METRIC_AUTH_FAILED] = { "auth_failed_total", "Requests whose credentials were refused." },
	[METRIC_CLONED_KEYS] = { "cloned_keys_total", "Public keys that another device already has." },
	[METRIC_CRL_PUBLISHED] = { "crl_published_total", "CRLs published, of any scope." },
	[METRIC_CRL_FAILED] = { "crl_failed_total", "CRLs that could not be made." },
	[METRIC_CRL_REFUSED] = { "crl_refused_total", "CRLs held back: an entry lost, or older than served." },
	[METRIC_AUDIT_RECORDS] = { "audit_records_total", "Audit records written." },
	[METRIC_SIGNER_RESTARTS] = { "signer_links_total", "Links to the signer, made anew after a loss." },
	[METRIC_DB_RETRIES] = { "db_retries_total", "Transactions run again after a serialization failure." },
	[METRIC_JOB_FAILED] = { "job_failed_total", "Periodic jobs that failed." },
	[METRIC_ISSUE_QUEUE] = { "issue_queue", "Items that wait in the issuance pipeline.", .gauge = true },
	[METRIC_LEADER] = { "leader", "1 while this server runs the periodic jobs.", .gauge = true },
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
		TRY(buf_format(out, err, "# HELP jitrca_%s %s\n# TYPE jitrca_%s %s\njitrca_%s %lld\n",
			METRICS[i].name, METRICS[i].help, METRICS[i].name,
			METRICS[i].gauge ? "gauge" : "counter", METRICS[i].name,
			(long long)metric_get((enum metric)i)));
	return OK;
}
