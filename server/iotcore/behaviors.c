#include "server/iotcore/behaviors.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/iotcore/registry.h"

/* ---- what a request may hold ---- */

static const struct member DIMENSION_MEMBERS[] = {
	{ .name = "dimensionName", MEMBER_THING_NAME },
	{ .name = "operator", .type = MEMBER_TEXT,
		.values = (const char *const[]){ "IN", "NOT_IN", NULL } },
	{ .name = NULL },
};
static const struct member TEXT_ITEMS[] = { { .name = "member", .type = MEMBER_TEXT }, { .name = NULL } };
static const struct member NUMBER_ITEMS[] = { { .name = "member", .type = MEMBER_NUMBER },
	{ .name = NULL } };
static const struct member REAL_ITEMS[] = { { .name = "member", .type = MEMBER_REAL }, { .name = NULL } };

static const struct member VALUE_MEMBERS[] = {
	{ .name = "count", .type = MEMBER_NUMBER },
	{ .name = "cidrs", .type = MEMBER_LIST, .members = TEXT_ITEMS },
	{ .name = "ports", .type = MEMBER_LIST, .members = NUMBER_ITEMS },
	{ .name = "number", .type = MEMBER_REAL },
	{ .name = "numbers", .type = MEMBER_LIST, .members = REAL_ITEMS },
	{ .name = "strings", .type = MEMBER_LIST, .members = TEXT_ITEMS },
	{ .name = NULL },
};
static const struct member STATISTIC_MEMBERS[] = {
	{ .name = "statistic", .type = MEMBER_TEXT },
	{ .name = NULL },
};
static const struct member ML_MEMBERS[] = {
	{ .name = "confidenceLevel", .type = MEMBER_TEXT, .required = true },
	{ .name = NULL },
};
static const struct member CRITERIA_MEMBERS[] = {
	{ .name = "comparisonOperator", .type = MEMBER_TEXT },
	{ .name = "value", .type = MEMBER_STRUCT, .members = VALUE_MEMBERS },
	{ .name = "durationSeconds", .type = MEMBER_NUMBER },
	{ .name = "consecutiveDatapointsToAlarm", .type = MEMBER_NUMBER },
	{ .name = "consecutiveDatapointsToClear", .type = MEMBER_NUMBER },
	{ .name = "statisticalThreshold", .type = MEMBER_STRUCT, .members = STATISTIC_MEMBERS },
	{ .name = "mlDetectionConfig", .type = MEMBER_STRUCT, .members = ML_MEMBERS },
	{ .name = NULL },
};
const struct member BEHAVIOR_MEMBERS[] = {
	{ .name = "name", MEMBER_THING_NAME },
	{ .name = "metric", .type = MEMBER_TEXT },
	{ .name = "metricDimension", .type = MEMBER_STRUCT, .members = DIMENSION_MEMBERS },
	{ .name = "criteria", .type = MEMBER_STRUCT, .members = CRITERIA_MEMBERS },
	{ .name = "suppressAlerts", .type = MEMBER_FLAG },
	{ .name = "exportMetric", .type = MEMBER_FLAG },
	{ .name = NULL },
};
const struct member METRIC_TO_RETAIN_MEMBERS[] = {
	{ .name = "metric", .type = MEMBER_TEXT, .required = true },
	{ .name = "metricDimension", .type = MEMBER_STRUCT, .members = DIMENSION_MEMBERS },
	{ .name = "exportMetric", .type = MEMBER_FLAG },
	{ .name = NULL },
};

/* ---- metrics and operators ---- */

enum value_kind { VALUE_COUNT = 1, VALUE_SPAN, VALUE_CIDRS, VALUE_PORTS };
enum duration_rule { DURATION_NEVER = 1, DURATION_ALWAYS, DURATION_EITHER };

struct metric {
	const char *name;
	enum value_kind kind;
	enum duration_rule duration; /* of criteria with a value */
};
static const struct metric METRICS[] = {
	/* What the cloud sees. */
	{ "aws:message-byte-size", VALUE_COUNT, DURATION_NEVER },
	{ "aws:num-messages-sent", VALUE_COUNT, DURATION_ALWAYS },
	{ "aws:num-messages-received", VALUE_COUNT, DURATION_ALWAYS },
	{ "aws:num-authorization-failures", VALUE_COUNT, DURATION_ALWAYS },
	{ "aws:num-connection-attempts", VALUE_COUNT, DURATION_ALWAYS },
	{ "aws:num-disconnects", VALUE_COUNT, DURATION_ALWAYS },
	{ "aws:disconnect-duration", VALUE_SPAN, DURATION_NEVER },
	{ "aws:source-ip-address", VALUE_CIDRS, DURATION_NEVER },
	/* What agents on devices report. */
	{ "aws:all-bytes-out", VALUE_COUNT, DURATION_EITHER },
	{ "aws:all-bytes-in", VALUE_COUNT, DURATION_EITHER },
	{ "aws:all-packets-out", VALUE_COUNT, DURATION_EITHER },
	{ "aws:all-packets-in", VALUE_COUNT, DURATION_EITHER },
	{ "aws:num-listening-tcp-ports", VALUE_COUNT, DURATION_EITHER },
	{ "aws:num-listening-udp-ports", VALUE_COUNT, DURATION_EITHER },
	{ "aws:num-established-tcp-connections", VALUE_COUNT, DURATION_EITHER },
	{ "aws:listening-tcp-ports", VALUE_PORTS, DURATION_NEVER },
	{ "aws:listening-udp-ports", VALUE_PORTS, DURATION_NEVER },
	{ "aws:destination-ip-addresses", VALUE_CIDRS, DURATION_NEVER },
};

static const struct metric *
metric_of(const char *name)
{
	for (size_t i = 0; i < COUNT_OF(METRICS); i++)
		if (strcmp(METRICS[i].name, name) == 0)
			return &METRICS[i];
	return NULL;
}

bool
behaviors_metric_known(const char *metric)
{
	return metric_of(metric) != NULL;
}

/* Which operators and which member of `value` a kind of metric takes. */
static const struct {
	const char *operators;       /* for messages */
	const char *const *allowed;  /* NULL-terminated */
	const char *value;
} KINDS[] = {
	[VALUE_COUNT] = { "less-than, less-than-equals, greater-than or greater-than-equals",
		(const char *const[]){ "less-than", "less-than-equals", "greater-than",
			"greater-than-equals", NULL },
		"count" },
	[VALUE_SPAN] = { "less-than or less-than-equals",
		(const char *const[]){ "less-than", "less-than-equals", NULL }, "count" },
	[VALUE_CIDRS] = { "in-cidr-set or not-in-cidr-set",
		(const char *const[]){ "in-cidr-set", "not-in-cidr-set", NULL }, "cidrs" },
	[VALUE_PORTS] = { "in-port-set or not-in-port-set",
		(const char *const[]){ "in-port-set", "not-in-port-set", NULL }, "ports" },
};

static const char *const OPERATORS[] = { "less-than", "less-than-equals", "greater-than",
	"greater-than-equals", "in-cidr-set", "not-in-cidr-set", "in-port-set", "not-in-port-set",
	"in-set", "not-in-set", NULL };
static const char *const STATISTICS[] = { "p0", "p0.1", "p0.01", "p1", "p10", "p50", "p90", "p99",
	"p99.9", "p99.99", "p100", NULL };
static const char *const CONFIDENCES[] = { "LOW", "MEDIUM", "HIGH", NULL };
static const json_int_t DURATIONS[] = { 300, 600, 900, 1800, 3600 };

#define VALUES_MOST 1000
#define PORT_MOST 65535
#define DATAPOINTS_MOST 10
#define CIDR_BYTES 44

static bool
is_one_of(const char *text, const char *const *values)
{
	for (; *values != NULL; values++)
		if (strcmp(*values, text) == 0)
			return true;
	return false;
}

/* ---- faults ---- */

struct check {
	json_t *faults;
	const char *name;             /* of the behavior */
	const json_t *criteria;
	const struct metric *metric;  /* NULL: unknown, which has been said */
	bool short_of_memory;
};

static void fault(struct check *check, const char *fmt, ...) PRINTF(2, 3);
static void
fault(struct check *check, const char *fmt, ...)
{
	char what[384];
	char text[ERR_TEXT_BYTES];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	(void)snprintf(text, sizeof(text), "Behavior %s: %s", check->name, what);
	if (json_array_append_new(check->faults, json_string(text)) != 0)
		check->short_of_memory = true;
}

/* What is of foreign characters or too long is not shown. */
static const char *
shown(const char *text)
{
	if (strlen(text) > 64)
		return "(too long)";
	for (const char *at = text; *at != '\0'; at++)
		if (*at < 0x20 || *at > 0x7e)
			return "(not printable)";
	return text;
}

/* NULL: absent, as null is. */
static const json_t *
member_of(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);

	return json_is_null(value) ? NULL : value;
}

/* ---- values ---- */

static bool
is_cidr(const char *text)
{
	unsigned char address[sizeof(struct in6_addr)];
	const char *slash = strchr(text, '/');
	size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
	char head[CIDR_BYTES];
	unsigned bits = 0, most;

	if (len >= sizeof(head))
		return false;
	memcpy(head, text, len);
	head[len] = '\0';
	if (inet_pton(AF_INET, head, address) == 1)
		most = 32;
	else if (inet_pton(AF_INET6, head, address) == 1)
		most = 128;
	else
		return false;
	if (slash == NULL)
		return true;
	if (slash[1] == '\0' || strlen(slash + 1) > 3)
		return false;
	for (const char *digit = slash + 1; *digit != '\0'; digit++) {
		if (*digit < '0' || *digit > '9')
			return false;
		bits = bits * 10 + (unsigned)(*digit - '0');
	}
	return bits <= most;
}

static void
check_cidrs(struct check *check, const json_t *cidrs)
{
	for (size_t i = 0; i < json_array_size(cidrs); i++) {
		const char *text = json_string_value(json_array_get(cidrs, i));

		if (!is_cidr(text))
			fault(check,
				"criteria.value.cidrs: an IP address or network (192.0.2.0/24) wanted, "
				"%s found",
				shown(text));
	}
}

static void
check_ports(struct check *check, const json_t *ports)
{
	for (size_t i = 0; i < json_array_size(ports); i++) {
		json_int_t port = json_integer_value(json_array_get(ports, i));

		if (port < 0 || port > PORT_MOST)
			fault(check, "criteria.value.ports: 0 to %d wanted, %lld found", PORT_MOST,
				(long long)port);
	}
}

static void
check_list(struct check *check, const char *name, const json_t *list)
{
	size_t count = json_array_size(list);

	if (count == 0 || count > VALUES_MOST)
		fault(check, "criteria.value.%s: 1 to %d elements wanted, %zu found", name, VALUES_MOST,
			count);
	else if (strcmp(name, "cidrs") == 0)
		check_cidrs(check, list);
	else if (strcmp(name, "ports") == 0)
		check_ports(check, list);
}

static void
check_value(struct check *check, const json_t *value)
{
	const char *given = NULL;
	size_t count = 0;

	for (const struct member *kind = VALUE_MEMBERS; kind->name != NULL; kind++)
		if (member_of(value, kind->name) != NULL) {
			given = kind->name;
			count++;
		}
	if (count != 1) {
		fault(check,
			"criteria.value: exactly one of count, cidrs, ports, number, numbers and strings "
			"wanted, %zu found",
			count);
		return;
	}
	const json_t *content = member_of(value, given);
	if (json_is_array(content))
		check_list(check, given, content);
	if (strcmp(given, "count") == 0 && json_integer_value(content) < 0)
		fault(check, "criteria.value.count: not below 0 wanted, %lld found",
			(long long)json_integer_value(content));
	if (check->metric != NULL && strcmp(KINDS[check->metric->kind].value, given) != 0)
		fault(check, "criteria.value: metric %s takes %s, %s found", check->metric->name,
			KINDS[check->metric->kind].value, given);
}

/* ---- criteria ---- */

static void
check_operator(struct check *check, bool wanted)
{
	const char *operator = json_string_value(member_of(check->criteria, "comparisonOperator"));

	if (operator == NULL) {
		if (wanted)
			fault(check, "criteria.comparisonOperator must be given");
		return;
	}
	if (!wanted)
		fault(check, "criteria.comparisonOperator can not be given with mlDetectionConfig");
	else if (!is_one_of(operator, OPERATORS))
		fault(check, "criteria.comparisonOperator: %s is no comparison operator",
			shown(operator));
	else if (check->metric != NULL && !is_one_of(operator, KINDS[check->metric->kind].allowed))
		fault(check, "criteria.comparisonOperator: metric %s takes %s, %s found",
			check->metric->name, KINDS[check->metric->kind].operators, operator);
}

static void
check_duration_fits(struct check *check, bool given, bool by_value)
{
	const struct metric *metric = check->metric;

	if (metric == NULL)
		return;
	if (!given && metric->duration == DURATION_ALWAYS)
		fault(check, "criteria.durationSeconds must be given with metric %s", metric->name);
	if (given && by_value && metric->duration == DURATION_NEVER)
		fault(check, "criteria.durationSeconds can not be given with metric %s", metric->name);
}

static void
check_duration(struct check *check, bool by_value, bool by_ml)
{
	const json_t *duration = member_of(check->criteria, "durationSeconds");
	bool known = false;

	for (size_t i = 0; i < COUNT_OF(DURATIONS); i++)
		known |= json_integer_value(duration) == DURATIONS[i];
	if (duration != NULL && by_ml)
		fault(check, "criteria.durationSeconds can not be given with mlDetectionConfig");
	else if (duration != NULL && !known)
		fault(check, "criteria.durationSeconds: 300, 600, 900, 1800 or 3600 wanted, %lld found",
			(long long)json_integer_value(duration));
	if (!by_ml)
		check_duration_fits(check, duration != NULL, by_value);
}

static void
check_datapoints(struct check *check, const char *name)
{
	const json_t *count = member_of(check->criteria, name);

	if (count != NULL && (json_integer_value(count) < 1 || json_integer_value(count) > DATAPOINTS_MOST))
		fault(check, "criteria.%s: 1 to %d wanted, %lld found", name, DATAPOINTS_MOST,
			(long long)json_integer_value(count));
}

static void
check_statistic(struct check *check, const json_t *threshold)
{
	const char *statistic = json_string_value(member_of(threshold, "statistic"));

	if (statistic == NULL)
		fault(check, "criteria.statisticalThreshold.statistic must be given");
	else if (!is_one_of(statistic, STATISTICS))
		fault(check,
			"criteria.statisticalThreshold.statistic: one of p0, p0.1, p0.01, p1, p10, p50, "
			"p90, p99, p99.9, p99.99 and p100 wanted, %s found",
			shown(statistic));
	if (check->metric != NULL && check->metric->kind != VALUE_COUNT)
		fault(check, "criteria.statisticalThreshold can not be used with metric %s",
			check->metric->name);
}

static void
check_ml(struct check *check, const json_t *ml)
{
	const char *level = json_string_value(member_of(ml, "confidenceLevel"));

	if (level == NULL || !is_one_of(level, CONFIDENCES))
		fault(check,
			"criteria.mlDetectionConfig.confidenceLevel: LOW, MEDIUM or HIGH wanted, %s found",
			level != NULL ? shown(level) : "nothing");
	if (check->metric != NULL && check->metric->kind != VALUE_COUNT)
		fault(check, "criteria.mlDetectionConfig can not be used with metric %s",
			check->metric->name);
}

static void
check_criteria(struct check *check)
{
	const json_t *value = member_of(check->criteria, "value");
	const json_t *threshold = member_of(check->criteria, "statisticalThreshold");
	const json_t *ml = member_of(check->criteria, "mlDetectionConfig");
	int given = (value != NULL) + (threshold != NULL) + (ml != NULL);

	check_datapoints(check, "consecutiveDatapointsToAlarm");
	check_datapoints(check, "consecutiveDatapointsToClear");
	if (given != 1) {
		fault(check,
			"criteria: exactly one of value, statisticalThreshold and mlDetectionConfig "
			"wanted, %d found",
			given);
		return;
	}
	check_operator(check, ml == NULL);
	check_duration(check, value != NULL, ml != NULL);
	if (value != NULL)
		check_value(check, value);
	if (threshold != NULL)
		check_statistic(check, threshold);
	if (ml != NULL)
		check_ml(check, ml);
}

/* ---- behaviors ---- */

static void
check_metric(struct check *check, const json_t *behavior)
{
	const char *metric = json_string_value(member_of(behavior, "metric"));
	const json_t *dimension = member_of(behavior, "metricDimension");

	check->metric = metric != NULL ? metric_of(metric) : NULL;
	if (metric == NULL)
		fault(check, "metric must be given");
	else if (check->metric == NULL)
		fault(check, "metric %s does not exist", shown(metric));
	/* No operation here makes one. */
	if (dimension != NULL)
		fault(check, "metricDimension: dimension %s does not exist",
			json_string_value(member_of(dimension, "dimensionName")));
}

static bool
stands_before(const json_t *behaviors, size_t at, const char *name)
{
	for (size_t i = 0; i < at; i++)
		if (strcmp(json_string_value(json_object_get(json_array_get(behaviors, i), "name")),
			    name) == 0)
			return true;
	return false;
}

enum status
behaviors_check(json_t **faults, const json_t *behaviors, struct err *err)
{
	own(json_t) list = json_array();
	struct check check = { .faults = list };

	for (size_t i = 0; i < json_array_size(behaviors); i++) {
		const json_t *behavior = json_array_get(behaviors, i);

		check.name = json_string_value(member_of(behavior, "name"));
		check.criteria = member_of(behavior, "criteria");
		if (stands_before(behaviors, i, check.name))
			fault(&check, "another behavior has the same name");
		check_metric(&check, behavior);
		if (check.criteria != NULL)
			check_criteria(&check);
		else
			fault(&check, "criteria must be given");
	}
	if (list == NULL || check.short_of_memory)
		return err_memory(err);
	*faults = give(list);
	return OK;
}
