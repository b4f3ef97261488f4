#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "server/iotcore/internal.h"

#define LINE_BYTES 160
#define QUOTAS_MAX 256
#define RATE_MOST 1000000

/* A bucket that holds one second's worth; thousandths of a call, so that slow rates fill evenly. */
struct quota {
	char op[64];
	int64_t rate; /* calls a second */
	int64_t level_milli;
	int64_t at_ms;
};

struct core_quotas {
	pthread_mutex_t lock;
	struct quota at[QUOTAS_MAX]; /* levels with lock */
	size_t count;
	int64_t others; /* the rate of "*"; 0: none */
};

typedef FILE file;
static void
file_close(FILE *stream)
{
	if (stream != NULL)
		(void)fclose(stream);
}
OWNER(file, file_close)

typedef struct core_quotas quotas_handle;
OWNER(quotas_handle, core_quotas_free)

static struct quota *
find(struct core_quotas *quotas, const char *op)
{
	for (size_t i = 0; i < quotas->count; i++)
		if (strcmp(quotas->at[i].op, op) == 0)
			return &quotas->at[i];
	return NULL;
}

/* With lock, or before there are threads. NULL: no room, or no rate for it. */
static struct quota *
add(struct core_quotas *quotas, const char *op, int64_t rate)
{
	struct quota *quota;

	if (quotas->count == QUOTAS_MAX || rate == 0)
		return NULL;
	quota = &quotas->at[quotas->count++];
	(void)snprintf(quota->op, sizeof(quota->op), "%s", op);
	quota->rate = rate;
	quota->level_milli = rate * 1000;
	return quota;
}

static enum status
read_line(struct core_quotas *quotas, const char *line, const char *path, unsigned number,
	struct err *err)
{
	char op[64], more[2];
	long long rate = 0;
	int found = sscanf(line, " %63s %lld %1s", op, &rate, more);

	if (found <= 0 || op[0] == '#')
		return OK;
	if (found != 2 || rate < 1 || rate > RATE_MOST || find(quotas, op) != NULL)
		return err_set(err, ERR_ARGUMENT, "quotas_file",
			"%s:%u: OPERATION RATE wanted, each operation once, 1 to %d calls a second",
			path, number, RATE_MOST);
	if (strcmp(op, "*") == 0)
		quotas->others = rate;
	else if (add(quotas, op, rate) == NULL)
		return err_set(err, ERR_ARGUMENT, "quotas_file", "%s:%u: too many", path, number);
	return OK;
}

enum status
core_quotas_read(struct core_quotas **out, const char *path, struct err *err)
{
	own(quotas_handle) quotas = NULL;
	own(file) stream = NULL;
	char line[LINE_BYTES];

	*out = NULL;
	if (path[0] == '\0')
		return OK;
	quotas = mem_zalloc(sizeof(*quotas));
	if (quotas == NULL)
		return err_memory(err);
	(void)pthread_mutex_init(&quotas->lock, NULL);
	stream = fopen(path, "re");
	if (stream == NULL)
		return err_set(err, ERR_ARGUMENT, "quotas_file", "%s: %s", path, strerror(errno));
	for (unsigned number = 1; fgets(line, sizeof(line), stream) != NULL; number++)
		TRY(read_line(quotas, line, path, number, err));
	*out = give(quotas);
	return OK;
}

void
core_quotas_free(struct core_quotas *quotas)
{
	mem_free(quotas);
}

static bool
take(struct quota *quota, int64_t now_ms)
{
	int64_t passed_ms = now_ms - quota->at_ms;

	if (passed_ms > 1000 || quota->at_ms == 0)
		passed_ms = 1000;
	quota->level_milli += passed_ms * quota->rate;
	if (quota->level_milli > quota->rate * 1000)
		quota->level_milli = quota->rate * 1000;
	quota->at_ms = now_ms;
	if (quota->level_milli < 1000)
		return false;
	quota->level_milli -= 1000;
	return true;
}

enum status
core_quotas_take(struct core_quotas *quotas, const char *op, int64_t now_ms, struct err *err)
{
	struct quota *quota;
	bool taken;

	if (quotas == NULL)
		return OK;
	(void)pthread_mutex_lock(&quotas->lock);
	quota = find(quotas, op);
	if (quota == NULL)
		quota = add(quotas, op, quotas->others);
	taken = quota == NULL || take(quota, now_ms);
	(void)pthread_mutex_unlock(&quotas->lock);
	return taken ? OK : iotcore_error(err, "ThrottlingException", "Rate exceeded");
}
