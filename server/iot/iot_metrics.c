#include "server/iot/iot_metrics.h"

#include <inttypes.h>
#include <stdatomic.h>

#include "server/iot/room.h"

static const int64_t BOUND_MS[] = { 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000,
	300000 };
#define BOUNDS COUNT_OF(BOUND_MS)

/* Global and mutable, as the counters of server/metrics.c: they belong to the process. */
static _Atomic int64_t buckets[BOUNDS + 1];
static _Atomic int64_t sum_us;

void
iot_latency_observe(int64_t us)
{
	size_t i = 0;

	if (us <= 0)
		return;
	while (i < BOUNDS && us > BOUND_MS[i] * 1000)
		i++;
	atomic_fetch_add(&buckets[i], 1);
	atomic_fetch_add(&sum_us, us);
}

static enum status
put_latency(struct buf *out, struct err *err)
{
	int64_t count = 0;

	TRY(buf_text(out, "# HELP jitrca_jitr_latency_seconds From IoT Core's event to ACTIVE.\n"
		"# TYPE jitrca_jitr_latency_seconds histogram\n", err));
	for (size_t i = 0; i < BOUNDS; i++) {
		count += atomic_load(&buckets[i]);
		TRY(buf_format(out, err, "jitrca_jitr_latency_seconds_bucket{le=\"%g\"} %" PRId64 "\n",
			(double)BOUND_MS[i] / 1000, count));
	}
	count += atomic_load(&buckets[BOUNDS]);
	TRY(buf_format(out, err, "jitrca_jitr_latency_seconds_bucket{le=\"+Inf\"} %" PRId64 "\n",
		count));
	TRY(buf_format(out, err, "jitrca_jitr_latency_seconds_sum %.6f\n",
		(double)atomic_load(&sum_us) / 1e6));
	return buf_format(out, err, "jitrca_jitr_latency_seconds_count %" PRId64 "\n", count);
}

static enum status
put_outbox(const struct db_outbox_depth *depth, struct buf *out, struct err *err)
{
	TRY(buf_text(out, "# HELP jitrca_outbox_depth Devices with news for IoT Core, by priority.\n"
		"# TYPE jitrca_outbox_depth gauge\n", err));
	for (int i = 0; i < OUTBOX_PRIORITIES; i++)
		TRY(buf_format(out, err, "jitrca_outbox_depth{priority=\"%d\"} %" PRId64 "\n", i,
			depth->waiting[i]));
	TRY(buf_text(out, "# HELP jitrca_outbox_oldest_seconds How long the oldest of them waits.\n"
		"# TYPE jitrca_outbox_oldest_seconds gauge\n", err));
	for (int i = 0; i < OUTBOX_PRIORITIES; i++)
		TRY(buf_format(out, err, "jitrca_outbox_oldest_seconds{priority=\"%d\"} %" PRId64 "\n",
			i, depth->oldest_s[i]));
	return buf_format(out, err, "# HELP jitrca_outbox_dead_letters What waits for a retry by"
		" hand.\n# TYPE jitrca_outbox_dead_letters gauge\n"
		"jitrca_outbox_dead_letters %" PRId64 "\n", depth->dead);
}

static enum status
read_depth(struct iot_room *room, struct db_outbox_depth *depth, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, room->app->pool, err));
	return db_outbox_depth(&tx, depth, err);
}

enum status
iot_metrics_print(struct iot_room *room, struct buf *out, struct err *err)
{
	struct aws_client *clients[IOT_TARGETS_MAX];
	struct db_outbox_depth depth;
	struct err away;

	if (room == NULL || room->site_count == 0)
		return OK;
	TRY(put_latency(out, err));
	if (read_depth(room, &depth, &away) == OK)
		TRY(put_outbox(&depth, out, err));
	for (size_t i = 0; i < room->site_count; i++)
		clients[i] = room->sites[i].client;
	return aws_print_metrics(clients, room->site_count, out, err);
}
