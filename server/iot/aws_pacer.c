#include "server/iot/aws_pacer.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"

/* More operations than the service has that we call. */
#define BUCKETS_MAX 128
#define WAIT_MAX_MS 60000

const struct aws_quota AWS_QUOTAS[] = {
	{ "GetRegistrationCode", 10, 0 },
	{ "RegisterCACertificate", 10, 0 },
	{ "DescribeCACertificate", 10, 0 },
	{ "UpdateCACertificate", 10, 0 },
	{ "DeleteCACertificate", 10, 0 },
	{ "ListCACertificates", 10, 0 },
	{ "RegisterCertificate", 10, 0 },
	{ "RegisterCertificateWithoutCA", 10, 0 },
	{ "DescribeCertificate", 10, 0 },
	{ "UpdateCertificate", 10, 0 },
	{ "DeleteCertificate", 10, 0 },
	{ "ListCertificates", 10, 0 },
	{ "ListCertificatesByCA", 10, 0 },
	{ "CreatePolicy", 10, 0 },
	{ "CreatePolicyVersion", 10, 0 },
	{ "GetPolicy", 10, 0 },
	{ "ListPolicyVersions", 10, 0 },
	{ "SetDefaultPolicyVersion", 10, 0 },
	{ "DeletePolicyVersion", 10, 0 },
	{ "AttachPolicy", 15, 0 },
	{ "DetachPolicy", 15, 0 },
	{ "ListAttachedPolicies", 15, 0 },
	{ "CreateThingType", 15, 0 },
	{ "CreateThingGroup", 25, 0 },
	{ "CreateThing", 100, 0 },
	{ "UpdateThing", 100, 0 },
	{ "DeleteThing", 100, 0 },
	{ "AttachThingPrincipal", 100, 0 },
	{ "DetachThingPrincipal", 100, 0 },
	{ "AddThingToThingGroup", 100, 0 },
	{ "RemoveThingFromThingGroup", 100, 0 },
	{ "ListThingGroupsForThing", 100, 0 },
	{ "DescribeThingType", 100, 0 },
	{ "DescribeThing", 350, 0 },
	{ "ListThingPrincipals", 10, 0 },
	{ "ListPrincipalThings", 10, 0 },
	{ "DescribeEndpoint", 10, 0 },
};
const size_t AWS_QUOTAS_COUNT = COUNT_OF(AWS_QUOTAS);

struct bucket {
	struct aws_quota quota;
	double tokens; /* below 0: so many urgent callers wait for what was given in advance */
	int64_t at_ms; /* when tokens was right */
};

struct aws_buckets {
	pthread_mutex_t lock;
	const struct clock *clock;
	struct aws_quota *overrides;
	size_t override_count;
	struct bucket buckets[BUCKETS_MAX];
	size_t count;
};

static const struct aws_quota *
find_in(const struct aws_quota *quotas, size_t count, const char *operation)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(quotas[i].operation, operation) == 0)
			return &quotas[i];
	return NULL;
}

struct aws_quota
aws_quota_find(const struct aws_quota *overrides, size_t count, const char *operation)
{
	struct aws_quota quota = { operation, AWS_QUOTA_DEFAULT_PER_SECOND, 0 };
	const struct aws_quota *found = find_in(overrides, count, operation);

	if (found == NULL)
		found = find_in(overrides, count, AWS_QUOTA_EVERY);
	if (found == NULL)
		found = find_in(AWS_QUOTAS, AWS_QUOTAS_COUNT, operation);
	if (found != NULL)
		quota = *found;
	quota.operation = operation;
	if (quota.burst <= 0)
		quota.burst = quota.per_second / 4;
	if (quota.burst < 1)
		quota.burst = 1;
	return quota;
}

enum status
aws_buckets_new(struct aws_buckets **out, const struct aws_quota *overrides, size_t count,
	const struct clock *clock, struct err *err)
{
	struct aws_buckets *buckets;

	*out = NULL;
	for (size_t i = 0; i < count; i++)
		/* Written so that a NaN is refused as well. */
		if (!(overrides[i].per_second > 0) || !(overrides[i].burst >= 0))
			return err_set(err, ERR_ARGUMENT, "aws_quota_malformed",
				"%s: more than 0 requests a second wanted", overrides[i].operation);
	buckets = mem_zalloc(sizeof(*buckets));
	if (buckets == NULL)
		return err_memory(err);
	buckets->overrides = mem_array(count, sizeof(*overrides));
	if (buckets->overrides == NULL) {
		mem_free(buckets);
		return err_memory(err);
	}
	if (count > 0)
		memcpy(buckets->overrides, overrides, count * sizeof(*overrides));
	buckets->override_count = count;
	buckets->clock = clock;
	(void)pthread_mutex_init(&buckets->lock, NULL);
	*out = buckets;
	return OK;
}

void
aws_buckets_free(struct aws_buckets *buckets)
{
	if (buckets == NULL)
		return;
	(void)pthread_mutex_destroy(&buckets->lock);
	mem_free(buckets->overrides);
	mem_free(buckets);
}

/* With the lock. NULL: there are more operations than there can be. */
static struct bucket *
find_bucket(struct aws_buckets *buckets, const char *operation, int64_t now_ms)
{
	struct bucket *bucket;

	for (size_t i = 0; i < buckets->count; i++)
		if (strcmp(buckets->buckets[i].quota.operation, operation) == 0)
			return &buckets->buckets[i];
	if (buckets->count == BUCKETS_MAX)
		return NULL;
	bucket = &buckets->buckets[buckets->count++];
	bucket->quota = aws_quota_find(buckets->overrides, buckets->override_count, operation);
	bucket->tokens = bucket->quota.burst;
	bucket->at_ms = now_ms;
	return bucket;
}

static void
refill(struct bucket *bucket, int64_t now_ms)
{
	if (now_ms > bucket->at_ms) {
		bucket->tokens +=
			(double)(now_ms - bucket->at_ms) * bucket->quota.per_second / 1000;
		bucket->at_ms = now_ms;
	}
	if (bucket->tokens > bucket->quota.burst)
		bucket->tokens = bucket->quota.burst;
}

/* How long until wanted tokens are there. */
static int64_t
wait_for(const struct bucket *bucket, double wanted)
{
	double ms = (wanted - bucket->tokens) * 1000 / bucket->quota.per_second;

	return ms >= WAIT_MAX_MS ? WAIT_MAX_MS : (int64_t)ms + 1;
}

static void
take_from(struct bucket *bucket, int priority, int64_t most_ms, struct aws_token *out)
{
	out->wait_ms = bucket->tokens >= 1 ? 0 : wait_for(bucket, 1);
	out->taken = out->wait_ms == 0 ||
		(priority == AWS_PRIORITY_URGENT && out->wait_ms <= most_ms);
	if (out->taken)
		bucket->tokens -= 1;
}

static enum status
take(void *arg, const char *operation, int priority, int64_t most_ms, struct aws_token *out,
	struct err *err)
{
	struct aws_buckets *buckets = arg;
	int64_t now_ms = clock_mono_ms(buckets->clock);
	struct bucket *bucket;

	(void)pthread_mutex_lock(&buckets->lock);
	bucket = find_bucket(buckets, operation, now_ms);
	if (bucket != NULL) {
		refill(bucket, now_ms);
		take_from(bucket, priority, most_ms, out);
	}
	(void)pthread_mutex_unlock(&buckets->lock);
	if (bucket == NULL)
		return err_set(
			err, ERR_INTERNAL, "aws_buckets", "more than %d operations", BUCKETS_MAX);
	return OK;
}

struct aws_pacer
aws_buckets_pacer(struct aws_buckets *buckets)
{
	return (struct aws_pacer){ .take = take, .arg = buckets };
}
