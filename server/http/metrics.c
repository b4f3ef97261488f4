#include <string.h>

#include "server/http/internal.h"

/* Statuses that we answer; the last slot takes all others. */
static const unsigned STATUSES[STATUS_SLOTS - 1] = { 200, 201, 202, 204, 206, 304, 400, 401, 403,
	404, 405, 406, 408, 409, 410, 412, 413, 414, 415, 416, 417, 428, 429, 431, 500, 501, 503 };

static const int64_t BUCKETS_US[LATENCY_BUCKETS] = { 100, 250, 500, 1000, 2500, 5000, 10000, 25000,
	100000, 500000, 2500000, 10000000 };
static const char *const BUCKETS_TEXT[LATENCY_BUCKETS + 1] = { "0.0001", "0.00025", "0.0005",
	"0.001", "0.0025", "0.005", "0.01", "0.025", "0.1", "0.5", "2.5", "10", "+Inf" };

static struct route_metrics *
metrics_of(struct http *http, const struct request *request)
{
	return &http->metrics[request->match.route != NULL ? request->match.index
							   : router_count(http->router)];
}

void
http_count(struct http *http, const struct request *request, int64_t duration_us)
{
	struct route_metrics *metrics = metrics_of(http, request);
	size_t slot = 0, bucket = 0;

	while (slot < STATUS_SLOTS - 1 && STATUSES[slot] != request->status)
		slot++;
	while (bucket < LATENCY_BUCKETS && duration_us > BUCKETS_US[bucket])
		bucket++;
	atomic_fetch_add_explicit(&metrics->by_status[slot], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&metrics->latency[bucket], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(
		&metrics->duration_us, (uint64_t)duration_us, memory_order_relaxed);
}

static unsigned long long
get(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

struct label {
	const char *method, *route;
};

static struct label
label_of(const struct http *http, size_t index)
{
	const struct route *route;

	if (index == router_count(http->router))
		return (struct label){ "", "none" };
	route = router_route(http->router, index);
	return (struct label){ route->method, route->path };
}

static enum status
print_requests(struct http *http, struct buf *out, struct err *err)
{
	TRY(buf_text(out,
		"# HELP jitrca_http_requests_total Requests, by route and status.\n"
		"# TYPE jitrca_http_requests_total counter\n",
		err));
	for (size_t i = 0; i <= router_count(http->router); i++) {
		struct label label = label_of(http, i);

		for (size_t slot = 0; slot < STATUS_SLOTS; slot++) {
			unsigned long long count = get(&http->metrics[i].by_status[slot]);
			unsigned status = slot < STATUS_SLOTS - 1 ? STATUSES[slot] : 0;

			if (count > 0)
				TRY(buf_format(out, err,
					"jitrca_http_requests_total{method=\"%s\",route=\"%s\","
				        "status=\"%u\"} %llu\n",
					label.method, label.route, status, count));
		}
	}
	return OK;
}

static enum status
print_route_latency(
	struct route_metrics *metrics, struct label label, struct buf *out, struct err *err)
{
	unsigned long long sum = 0;

	for (size_t i = 0; i <= LATENCY_BUCKETS; i++)
		sum += get(&metrics->latency[i]);
	if (sum == 0)
		return OK;
	sum = 0;
	for (size_t i = 0; i <= LATENCY_BUCKETS; i++) {
		sum += get(&metrics->latency[i]);
		TRY(buf_format(out, err,
			"jitrca_http_duration_seconds_bucket{method=\"%s\",route=\"%s\",le=\"%s\"} "
		        "%llu\n",
			label.method, label.route, BUCKETS_TEXT[i], sum));
	}
	return buf_format(out, err,
		"jitrca_http_duration_seconds_sum{method=\"%s\",route=\"%s\"} %.6f\n"
		"jitrca_http_duration_seconds_count{method=\"%s\",route=\"%s\"} %llu\n",
		label.method, label.route, (double)get(&metrics->duration_us) / 1e6, label.method,
		label.route, sum);
}

static enum status
print_latency(struct http *http, struct buf *out, struct err *err)
{
	TRY(buf_text(out,
		"# HELP jitrca_http_duration_seconds From the request line to the last octet "
	        "sent.\n"
		"# TYPE jitrca_http_duration_seconds histogram\n",
		err));
	for (size_t i = 0; i <= router_count(http->router); i++)
		TRY(print_route_latency(&http->metrics[i], label_of(http, i), out, err));
	return OK;
}

struct series {
	const char *name, *type, *help, *labels; /* labels behind listener="…" */
};

static const struct series LISTENER_SERIES[] = {
	{ "connections", "gauge", "Connections that are open.", "" },
	{ "lanes", "gauge", "Threads that serve them.", "" },
	{ "accepted_total", "counter", "Connections accepted.", "" },
	{ "refused_total", "counter", "Connections closed at once.", ",reason=\"address\"" },
	{ "refused_total", NULL, NULL, ",reason=\"full\"" },
	{ "cut_total", "counter", "Connections ended by us.", ",reason=\"timeout\"" },
	{ "cut_total", NULL, NULL, ",reason=\"evicted\"" },
	{ "tls_sessions_total", "counter", "TLS sessions that came to a request.",
		",resumed=\"no\"" },
	{ "tls_sessions_total", NULL, NULL, ",resumed=\"yes\"" },
};

static unsigned long long
series_value(struct listener *listener, size_t index)
{
	switch (index) {
	case 0: return (unsigned long long)atomic_load(&listener->open_now);
	case 1: return atomic_load(&listener->lanes_started);
	case 2: return get(&listener->accepted);
	case 3: return get(&listener->refused_address);
	case 4: return get(&listener->refused_full);
	case 5: return get(&listener->cut[CUT_TIMEOUT]);
	case 6: return get(&listener->cut[CUT_EVICTED]);
	case 7: return get(&listener->sessions[0]);
	default: return get(&listener->sessions[1]);
	}
}

static enum status
print_listeners(struct http *http, struct buf *out, struct err *err)
{
	for (size_t i = 0; i < COUNT_OF(LISTENER_SERIES); i++) {
		const struct series *series = &LISTENER_SERIES[i];

		if (series->type != NULL)
			TRY(buf_format(out, err,
				"# HELP jitrca_http_%s %s\n# TYPE jitrca_http_%s %s\n",
				series->name, series->help, series->name, series->type));
		for (size_t k = 0; k < http->listener_count; k++)
			TRY(buf_format(out, err, "jitrca_http_%s{listener=\"%s\"%s} %llu\n",
				series->name, http->listeners[k].name, series->labels,
				series_value(&http->listeners[k], i)));
	}
	return OK;
}

enum status
http_metrics(struct http *http, struct buf *out, struct err *err)
{
	TRY(print_listeners(http, out, err));
	TRY(buf_format(out, err,
		"# HELP jitrca_http_in_flight Requests begun and not ended.\n"
		"# TYPE jitrca_http_in_flight gauge\njitrca_http_in_flight %lld\n"
		"# HELP jitrca_http_queue Requests and deferred work that wait for a worker.\n"
		"# TYPE jitrca_http_queue gauge\njitrca_http_queue %zu\n"
		"# HELP jitrca_http_body_bytes Of request bodies in memory.\n"
		"# TYPE jitrca_http_body_bytes gauge\njitrca_http_body_bytes %zu\n",
		(long long)atomic_load(&http->in_flight), workers_waiting(&http->workers),
		(size_t)atomic_load(&http->bodies_bytes)));
	TRY(print_requests(http, out, err));
	return print_latency(http, out, err);
}
