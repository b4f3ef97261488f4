/*
 * server/iotcore/behaviors.h - the behaviors of a Device Defender security profile against AWS's rules.
 * Criteria describe what is normal: exactly one of a value, a statistical threshold or a machine
 * learning configuration decides, and what fits depends on the metric. Pure.
 */
#ifndef SERVER_IOTCORE_BEHAVIORS_H
#define SERVER_IOTCORE_BEHAVIORS_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "server/iotcore/op.h"

#define BEHAVIORS_MOST 100
/* Of one behavior, as a request holds it: types only, so that behaviors_check may say more. */
extern const struct member BEHAVIOR_MEMBERS[];
/* {metric, metricDimension}: additionalMetricsToRetainV2. */
extern const struct member METRIC_TO_RETAIN_MEMBERS[];

/*
 * What is wrong with behaviors (an array of valid BEHAVIOR_MEMBERS): an array of texts, empty when
 * nothing is. A new reference. Fails only when memory is short.
 */
MUST_USE enum status behaviors_check(json_t **faults, const json_t *behaviors, struct err *err);

/* A metric of AWS's own; there are no others here. */
bool behaviors_metric_known(const char *metric);

#endif
