#include "server/succession.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"

typedef struct db_succession db_succession;
OWNER(db_succession, mem_free)

/* Whether in this state the new one issues. */
static bool
new_issues(const struct db_succession *row)
{
	return strcmp(row->state, "prepared") != 0 && strcmp(row->state, "registered") != 0;
}

const char *
succession_issuing(const char *ca_id, const struct db_succession *rows, size_t count)
{
	/* Nothing that was succeeded comes back, so each row leads on once, in the order of the rows. */
	for (size_t i = 0; i < count; i++)
		if (new_issues(&rows[i]) && strcmp(rows[i].old_ca, ca_id) == 0)
			ca_id = rows[i].new_ca;
		else if (!new_issues(&rows[i]) && strcmp(rows[i].new_ca, ca_id) == 0)
			ca_id = rows[i].old_ca;
	return ca_id;
}

static enum status
read_rows(struct app *app, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_succession) rows = mem_array(DB_SUCCESSIONS_MAX, sizeof(*rows));
	const struct app_ca *was = app->issuing;
	const struct app_ca *ca;
	const char *ca_id;
	size_t count;

	if (rows == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_succession_list(&tx, rows, &count, err));
	ca_id = succession_issuing(app->config.issuing_ca, rows, count);
	ca = app_ca_by_id(app, ca_id);
	app->issuing_missing = ca == NULL || !ca->can_sign;
	if (app->issuing_missing)
		return err_set(err, ERR_UNAVAILABLE, "issuing_ca_missing",
			"%s issues, and its key is not in data_dir/keys of this server", ca_id);
	app->issuing = ca;
	if (was != NULL && was != ca)
		log_event(LOG_INFO, "issuing_ca_changed", NULL, LOG_STR("from", was->ca_id),
			LOG_STR("to", ca->ca_id));
	return OK;
}

static enum status
follow(struct app *app, struct err *err)
{
	uint64_t epoch;
	bool fresh = freshness_now(app, &epoch);

	if (fresh && app->issuing_read && app->issuing_epoch == epoch)
		return OK;
	app->issuing_read = false;
	TRY(read_rows(app, err));
	app->issuing_epoch = epoch;
	app->issuing_read = true;
	return OK;
}

enum status
succession_follow(struct app *app, struct err *err)
{
	enum status status;

	(void)pthread_mutex_lock(&app->issuing_lock);
	status = follow(app, err);
	(void)pthread_mutex_unlock(&app->issuing_lock);
	return status;
}
