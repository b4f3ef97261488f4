/*
 * What is revoked of one profile or thing group, for brokers that know their devices by certificate id: a
 * small answer beside lists of everything, and nothing to parse.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ca/digest.h"
#include "db/crl.h"
#include "server/api/api.h"
#include "server/app.h"
#include "server/http/fields.h"
#include "server/spool.h"

#define TYPE_JSON "application/json"
#define TYPE_TEXT "text/plain"

struct bundle {
	const char *profiles[CA_PROFILES_MAX];
	size_t profile_count;
	bool text;
	int64_t count;
	struct spool spool;
};

typedef struct bundle bundle_t;

static void
bundle_free(struct bundle *bundle)
{
	if (bundle != NULL)
		spool_close(&bundle->spool);
	mem_free(bundle);
}
OWNER(bundle_t, bundle_free)

/* ---- which profiles ---- */

static bool
has_group(const struct ca_profile *profile, const char *group)
{
	for (size_t i = 0; i < profile->thing_group_count; i++)
		if (strcmp(profile->thing_groups[i], group) == 0)
			return true;
	return false;
}

/* A thing group has the certificates of the profiles that put things into it. */
static enum status
read_selection(struct bundle *out, const struct app *app, const struct request *request,
	struct err *err)
{
	const char *profile = request_query(request, "profile");
	const char *group = request_query(request, "thing_group");

	if ((profile == NULL) == (group == NULL))
		return err_set(err, ERR_ARGUMENT, "bundle_selection",
			"query: one of profile, thing_group wanted");
	for (size_t i = 0; i < app->profile_count; i++)
		if (profile != NULL ? strcmp(app->profiles[i].name, profile) == 0
				    : has_group(&app->profiles[i], group))
			out->profiles[out->profile_count++] = app->profiles[i].name;
	if (out->profile_count > 0)
		return OK;
	return profile != NULL
	               ? err_set(err, ERR_ARGUMENT, "profile_unknown", "profile: no such profile")
	               : err_set(err, ERR_ARGUMENT, "thing_group_unknown",
				"thing_group: no profile puts things into it");
}

static enum status
read_type(struct bundle *out, const struct request *request, struct err *err)
{
	static const char *const TYPES[] = { TYPE_JSON, TYPE_TEXT, NULL };
	const char *type = request_accept(request, TYPES);

	if (type == NULL)
		return err_set(err, ERR_ARGUMENT, "not_acceptable",
			"Accept: " TYPE_JSON " or " TYPE_TEXT " wanted");
	out->text = type == TYPES[1];
	return OK;
}

/* ---- its content ---- */

static enum status
put_text(struct bundle *bundle, const struct db_revoked *revoked, struct err *err)
{
	char line[2 * DB_SHA256_BYTES + 2];

	hex_encode(line, revoked->sha256, DB_SHA256_BYTES);
	line[2 * DB_SHA256_BYTES] = '\n';
	line[2 * DB_SHA256_BYTES + 1] = '\0';
	return spool_write(&bundle->spool, line, err);
}

/* No value needs escapes: ids, hex, names of ours, times. */
static enum status
put_json(struct bundle *bundle, const struct db_revoked *revoked, struct err *err)
{
	char id[2 * DB_SHA256_BYTES + 1], serial[SERIAL_TEXT_BYTES];
	char revoked_at[TIME_TEXT_BYTES], not_after[TIME_TEXT_BYTES], line[768];

	hex_encode(id, revoked->sha256, DB_SHA256_BYTES);
	serial_format(serial, &revoked->serial);
	time_format(revoked_at, revoked->revoked_at_s);
	time_format(not_after, revoked->not_after_s);
	(void)snprintf(line, sizeof(line),
		"%s{\"certificate_id\":\"%s\",\"serial\":\"%s\",\"ca\":\"%s\",\"device_id\":\"%s\","
		"\"status\":\"%s\",\"reason\":\"%s\",\"revoked_at\":\"%s\",\"not_after\":\"%s\"}",
		bundle->count > 0 ? "," : "", id, serial, revoked->ca_id, revoked->device_id,
		revoked->held ? "held" : "revoked", revocation_reason_name(revoked->reason),
		revoked_at, not_after);
	return spool_write(&bundle->spool, line, err);
}

static enum status
put_one(void *arg, const struct db_revoked *revoked, struct err *err)
{
	struct bundle *bundle = arg;

	TRY((bundle->text ? put_text : put_json)(bundle, revoked, err));
	bundle->count++;
	return OK;
}

static enum status
write_bundle(struct bundle *bundle, struct db_tx *tx, int64_t now_s, struct err *err)
{
	char end[64];

	if (!bundle->text)
		TRY(spool_write(&bundle->spool, "{\"certificates\":[", err));
	TRY(db_crl_revoked(tx, bundle->profiles, bundle->profile_count, now_s, put_one, bundle, err));
	if (bundle->text)
		return OK;
	(void)snprintf(end, sizeof(end), "],\"count\":%lld}", (long long)bundle->count);
	return spool_write(&bundle->spool, end, err);
}

/* ---- the call ---- */

#define ETAG_BYTES 36

/* Of what it is made from: who asks every few seconds costs a look at one row of each CA. */
static enum status
make_etag(char out[ETAG_BYTES], const struct bundle *bundle, struct db_tx *tx, struct err *err)
{
	own_struct(buf) from = { .limit_bytes = 4096 };
	struct db_crl_clock clock;
	uint8_t digest[32];

	TRY(db_crl_clock(tx, &clock, err));
	TRY(buf_format(&from, err, "%lld %lld %d", (long long)clock.changes, (long long)clock.numbers,
		bundle->text));
	for (size_t i = 0; i < bundle->profile_count; i++)
		TRY(buf_format(&from, err, " %s", bundle->profiles[i]));
	ca_blake2b(digest, buf_view(&from));
	out[0] = '"';
	hex_encode(out + 1, digest, 16);
	out[33] = '"';
	out[34] = '\0';
	return OK;
}

static enum status
reply(struct request *request, struct bundle *bundle, struct err *err)
{
	const char *type = bundle->text ? TYPE_TEXT : TYPE_JSON;
	int fd;

	TRY(spool_finish(&bundle->spool, &fd, err));
	return request_reply_fd(request, 200, type, fd, bundle->spool.size_bytes, err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	own(bundle_t) bundle = mem_zalloc(sizeof(*bundle));
	const char *none_match = request_header(request, "If-None-Match");
	own_struct(db_tx) tx = { NULL, NULL };
	char etag[ETAG_BYTES];

	if (bundle == NULL)
		return err_memory(err);
	bundle->spool.fd = -1;
	TRY(read_selection(bundle, app, request, err));
	TRY(read_type(bundle, request, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(make_etag(etag, bundle, &tx, err)); /* before the rows, which are as new then or newer */
	TRY(request_reply_header(request, "ETag", etag, err));
	TRY(request_reply_header(request, "Vary", "Accept", err));
	TRY(request_reply_header(request, "Cache-Control", "private, no-cache", err));
	if (none_match != NULL && strstr(none_match, etag) != NULL)
		return request_reply_bytes(request, 304, TYPE_JSON, (struct view){ NULL, 0 }, err);
	TRY(spool_open(&bundle->spool, err));
	TRY(write_bundle(bundle, &tx, clock_wall_s(app->clock), err));
	TRY(db_tx_commit(&tx, err));
	return reply(request, bundle, err);
}

static const char *const QUERY[] = { "profile", "thing_group", NULL };

const struct route CRL_BUNDLE_ROUTES[] = {
	{ .method = "GET", .path = "/v1/crl-bundle", .handle = show, .roles = ROLES_READ,
	  .query = QUERY },
	{ .method = NULL },
};
