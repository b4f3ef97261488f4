#include "server/jobs/crl.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/crl.h"
#include "ca/tbs.h"
#include "db/crl.h"
#include "server/app.h"
#include "server/protocol/crl.h"
#include "server/protocol/crl_store.h"
#include "server/signer/link.h"

/* A full list keeps what its own last one and the last delta had; a delta has one for what it removes. */
#define GATES_MAX 2

typedef uint8_t octets;
OWNER(octets, mem_free)

/*
 * A long list goes into the database while it is made: PostgreSQL writes what we encoded while it reads what
 * we encode next. What stands around the entries comes when it is signed.
 */
struct store {
	struct db_tx tx;
	octets *room;         /* CRL_PIECE_BYTES */
	uint64_t entry_bytes; /* stored */
	int32_t pieces;       /* stored, without the first */
};

static void
store_free(struct store *store)
{
	db_tx_end(&store->tx);
	mem_free(store->room);
}
OWNER_STRUCT(store, store_free)

/* The last list of a scope; held while the next one is compared with it. */
struct last {
	struct db_crl about; /* number 0: none */
	struct crl_list *list;
};

/* One list on its way. */
struct making {
	struct db_crl about;
	int64_t changes; /* of a delta: since when */
	int64_t wanted;  /* what it answers for */
	struct ca_crl *crl;
	struct ca_crl_gate *gates[GATES_MAX];
	size_t gate_count;
	const struct last *full; /* of a delta that has removed nothing yet: what it may remove from */
	struct store *store;     /* NULL: it is stored when it is signed; borrowed */
	struct pile list;
};

/* A shard, a delta, or a delta and its full list: in the order of their locks. */
struct makings {
	struct making at[2];
	size_t count;
};

static void
makings_free(struct makings *makings)
{
	for (size_t i = 0; i < makings->count; i++) {
		struct making *making = &makings->at[i];

		ca_crl_free(making->crl);
		for (size_t j = 0; j < making->gate_count; j++)
			ca_crl_gate_free(making->gates[j]);
		pile_free(&making->list);
	}
}
OWNER_STRUCT(makings, makings_free)

/* What is made in one go: a shard, a delta, a full list, or a full list and its delta. */
struct build {
	struct app *app;
	const struct app_ca *ca;
	struct signer_link *signer;
	int64_t now_s;
	int64_t begun_ms, made_ms; /* for the log: when it was begun, and how long to the signature */
	char dir[FILE_PATH_BYTES];
	struct db_crl_turn turn;
	struct db_crl_base oldest, newest;
	struct last last, last_delta; /* last: of the shard or the full list */
	bool full, delta;             /* which of the two is made */
	bool rebase;                  /* deltas go on from this full list and no other */
	bool base_alone, base_moves;  /* the full list becomes a base of deltas; the only one */
};

static void
build_free(struct build *build)
{
	crl_list_drop(build->last.list);
	crl_list_drop(build->last_delta.list);
}
OWNER_STRUCT(build, build_free)

/* ---- entries ---- */

/* Invariant 6: a list that lost an entry of the one before is not published. */
static enum status
add_gate(struct making *making, const struct last *last, enum ca_crl_gate_kind kind, struct err *err)
{
	if (last->about.number == 0)
		return OK;
	TRY(ca_crl_gate_new(&making->gates[making->gate_count], crl_list_pile(last->list), kind,
		err));
	making->gate_count++;
	return OK;
}

static enum status
store_ready(struct making *making, struct err *err)
{
	struct store *store = making->store;

	while (ca_crl_ready_bytes(making->crl) - store->entry_bytes >= CRL_PIECE_BYTES) {
		TRY(ca_crl_ready_read(making->crl, store->entry_bytes, store->room,
			CRL_PIECE_BYTES, err));
		TRY(db_crl_store_put(&store->tx, &making->about, ++store->pieces,
			(struct view){ store->room, CRL_PIECE_BYTES }, err));
		store->entry_bytes += CRL_PIECE_BYTES;
	}
	return OK;
}

static enum status
add_entry(void *arg, const struct db_crl_entry *entry, struct err *err)
{
	struct making *making = arg;

	/* Only then, for the full list may be long. */
	if (entry->reason == CRL_ENTRY_REMOVED && making->full != NULL) {
		TRY(add_gate(making, making->full, GATE_REMOVED, err));
		making->full = NULL;
	}
	for (size_t i = 0; i < making->gate_count; i++)
		TRY(ca_crl_gate_pass(making->gates[i], &entry->serial, entry->reason, err));
	TRY(ca_crl_add(making->crl, &entry->serial, entry->revoked_at_s, entry->reason, err));
	return making->store != NULL ? store_ready(making, err) : OK;
}

/*
 * A revoked certificate stays until the month of its expiry was over before the last list began: then
 * it has been on one list after it expired, and its serial alone shows that it may go. A delta has what the
 * next full list will have.
 */
static int64_t
keep_after_s(const struct build *build)
{
	struct civil month = civil_from_s(
		build->last.about.number > 0 ? build->last.about.this_update_s : build->now_s);

	month.day = 1;
	month.hour = month.minute = month.second = 0;
	return civil_to_s(month) - 1;
}

static enum status
add_gates(const struct build *build, struct making *making, struct err *err)
{
	if (making->about.scope != CRL_SCOPE_DELTA)
		TRY(add_gate(making, &build->last, GATE_WHOLE, err));
	if (making->about.scope == CRL_SCOPE_FULL)
		TRY(add_gate(making, &build->last_delta, GATE_WHOLE, err));
	/* From the same base a delta never says less than the one before. */
	if (making->about.scope == CRL_SCOPE_DELTA &&
		build->last_delta.about.base == making->about.base)
		TRY(add_gate(making, &build->last_delta, GATE_DELTA, err));
	if (making->about.scope == CRL_SCOPE_DELTA)
		making->full = &build->last;
	return OK;
}

static enum status
begin(const struct build *build, struct making *making, struct err *err)
{
	const struct config *config = &build->app->config;
	char url[TBS_URL_MAX_BYTES];
	struct ca_crl_head head = {
		.ca_id = build->ca->ca_id,
		.issuer_certificate = view_of(&build->ca->certificate),
		.number = (uint64_t)making->about.number,
		.this_update_s = making->about.this_update_s,
		.next_update_s = making->about.next_update_s,
		.delta = making->about.scope == CRL_SCOPE_DELTA,
		.base_number = (uint64_t)making->about.base,
	};

	if (making->about.scope >= 0) {
		TRY(ca_crl_url(url, config->public_http_url, build->ca->ca_id,
			(uint8_t)making->about.scope, err));
		head.distribution_point = url;
	} else if (making->about.scope == CRL_SCOPE_FULL) {
		TRY(ca_crl_delta_url(url, config->public_http_url, build->ca->ca_id, err));
		head.freshest = url;
	}
	return ca_crl_begin(&making->crl, &head, build->dir, err);
}

static enum status
fill(const struct build *build, struct making *making, struct db_tx *tx, struct err *err)
{
	TRY(begin(build, making, err));
	TRY(add_gates(build, making, err));
	TRY(db_crl_entries(tx, build->ca->issuer_id, making->about.scope, keep_after_s(build),
		making->changes, add_entry, making, err));
	for (size_t i = 0; i < making->gate_count; i++)
		TRY(ca_crl_gate_end(making->gates[i], err));
	making->about.entries = (int64_t)ca_crl_entry_count(making->crl);
	return OK;
}

/* Full list and delta of one number say the same (RFC 5280 5.2.4), so they see the same rows. */
static enum status
fill_all(const struct build *build, struct makings *makings, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, build->app->pool, err));
	TRY(db_crl_snapshot(&tx, err));
	for (size_t i = 0; i < makings->count; i++)
		TRY(fill(build, &makings->at[i], &tx, err));
	return OK;
}

/* ---- signature ---- */

static enum status
sign_all(const struct build *build, struct makings *makings, struct err *err)
{
	struct ca_signer *signer;
	enum status status = OK;
	uint64_t generation;

	TRY(signer_link_acquire(build->signer, &signer, &generation, err));
	for (size_t i = makings->count; status == OK && i-- > 0;) { /* the full list before its delta */
		struct making *making = &makings->at[i];

		pile_init(&making->list, build->dir, CRL_MEMORY_MAX_BYTES);
		status = ca_crl_sign(making->crl, signer, &making->list, making->about.sha256, err);
		making->about.length_bytes = (int64_t)pile_len(&making->list);
	}
	signer_link_release(build->signer, status == ERR_UNAVAILABLE);
	return status;
}

/* ---- publishing ---- */

static enum status
put_pieces(struct db_tx *tx, const struct making *making, uint8_t *piece, struct err *err)
{
	uint64_t len = pile_len(&making->list);
	int64_t number = 0;

	for (uint64_t at = 0; at < len; number++) {
		size_t now = len - at < CRL_PIECE_BYTES ? (size_t)(len - at) : CRL_PIECE_BYTES;

		TRY(pile_read(&making->list, at, piece, now, err));
		TRY(db_crl_publish_put(tx, &making->about, number, (struct view){ piece, now }, err));
		at += now;
	}
	return OK;
}

/* The list and its pieces are there. From here on who revokes waits for us. */
static enum status
finish(const struct build *build, const struct makings *makings, struct db_tx *tx, struct err *err)
{
	const struct db_crl_base base = { .number = build->turn.number,
		.changes = build->turn.wanted,
		.this_update_s = build->now_s };

	if (build->full && !build->delta)
		TRY(db_crl_delta_due(tx, build->ca->issuer_id, err));
	for (size_t i = 0; i < makings->count; i++)
		TRY(db_crl_publish_end(tx, &makings->at[i].about, makings->at[i].wanted, err));
	if (build->delta)
		TRY(db_crl_base_check(tx, &makings->at[0].about, err));
	if (build->full && (build->base_alone || build->base_moves))
		TRY(db_crl_base_put(tx, build->ca->issuer_id, &base, build->base_alone, err));
	return db_tx_commit(tx, err);
}

static enum status
publish(const struct build *build, const struct makings *makings, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(octets) room = mem_alloc(CRL_PIECE_BYTES);

	if (room == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, build->app->pool, err));
	for (size_t i = 0; i < makings->count; i++) {
		TRY(db_crl_publish_begin(&tx, &makings->at[i].about, err));
		TRY(put_pieces(&tx, &makings->at[i], room, err));
		TRY(db_crl_prune(&tx, &makings->at[i].about, err));
	}
	return finish(build, makings, &tx, err);
}

static enum status
store_begin(const struct build *build, struct store *store, struct making *making, struct err *err)
{
	store->room = mem_alloc(CRL_PIECE_BYTES);
	if (store->room == NULL)
		return err_memory(err);
	making->store = store;
	TRY(db_tx_begin(&store->tx, build->app->pool, err));
	return db_crl_store_begin(&store->tx, &making->about, err);
}

static enum status
store_part(struct making *making, int32_t piece, uint64_t at, size_t len, struct err *err)
{
	struct store *store = making->store;

	TRY(pile_read(&making->list, at, store->room, len, err));
	return db_crl_store_put(&store->tx, &making->about, piece, (struct view){ store->room, len },
		err);
}

/* What stands in front of the entries is the first piece; then what is not stored yet, and the end. */
static enum status
store_rest(struct making *making, struct err *err)
{
	struct store *store = making->store;
	uint64_t front = ca_crl_front_bytes(making->crl), len = pile_len(&making->list);

	TRY(store_part(making, 0, 0, (size_t)front, err));
	for (uint64_t at = front + store->entry_bytes; at < len;) {
		size_t now = len - at < CRL_PIECE_BYTES ? (size_t)(len - at) : CRL_PIECE_BYTES;

		TRY(store_part(making, ++store->pieces, at, now, err));
		at += now;
	}
	return db_crl_store_end(&store->tx, &making->about, err);
}

/* Only what is committed may be seen (invariant 1). */
static enum status
show(const struct build *build, struct makings *makings, struct err *err)
{
	enum log_level level = build->full && !build->delta ? LOG_INFO : LOG_DEBUG;

	for (size_t i = 0; i < makings->count; i++) {
		TRY(crl_cache_put(build->app->crls, &makings->at[i].about, &makings->at[i].list, err));
		log_event(level, "crl_published", NULL, LOG_STR("ca", build->ca->ca_id),
			LOG_INT("scope", makings->at[i].about.scope),
			LOG_INT("number", makings->at[i].about.number),
			LOG_INT("entries", makings->at[i].about.entries),
			LOG_INT("made_ms", build->made_ms),
			LOG_INT("published_ms", clock_mono_ms(build->app->clock) - build->begun_ms));
	}
	return OK;
}

static enum status
make_signed(struct build *build, struct makings *makings, struct err *err)
{
	TRY(fill_all(build, makings, err));
	TRY(sign_all(build, makings, err));
	build->made_ms = clock_mono_ms(build->app->clock) - build->begun_ms;
	return OK;
}

static enum status
make(struct build *build, struct makings *makings, struct err *err)
{
	build->begun_ms = clock_mono_ms(build->app->clock);
	TRY(make_signed(build, makings, err));
	TRY(publish(build, makings, err));
	return show(build, makings, err);
}

/* When it is published: deleting the pieces of a long list takes its time, and who revokes would wait. */
static enum status
prune(const struct build *build, const struct db_crl *about, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, build->app->pool, err));
	TRY(db_crl_long(&tx, err));
	TRY(db_crl_prune(&tx, about, err));
	return db_tx_commit(&tx, err);
}

static enum status
make_large(struct build *build, struct makings *makings, struct err *err)
{
	own_struct(store) store = { .room = NULL };
	struct err unpruned;

	build->begun_ms = clock_mono_ms(build->app->clock);
	TRY(store_begin(build, &store, &makings->at[0], err));
	TRY(make_signed(build, makings, err));
	TRY(store_rest(&makings->at[0], err));
	TRY(finish(build, makings, &store.tx, err));
	TRY(show(build, makings, err));
	if (prune(build, &makings->at[0].about, &unpruned) != OK) /* the next one prunes */
		log_error(LOG_WARN, "crl_not_pruned", NULL, &unpruned);
	return OK;
}

/* ---- what is made ---- */

static enum status
hold_last(struct build *build, struct db_tx *tx, int16_t scope, struct last *last, struct err *err)
{
	/* Also what another server published just now, or served before the database was restored. A full
	 * list that is not followed may be long, and a delta does not need it. */
	bool fetch = scope != CRL_SCOPE_FULL || build->full;

	TRY(crl_cache_sync(build->app, tx, build->ca, scope, fetch, err));
	last->list = crl_cache_hold(build->app->crls, build->ca->ca_id, scope, &last->about);
	if (build->now_s < last->about.this_update_s)
		return err_set(err, ERR_CONFLICT, "crl_older",
			"the clock stands before thisUpdate of list %lld: was it set back?",
			(long long)last->about.number);
	return OK;
}

/* In a transaction of its own: the number is on record before the key signs (invariant 1). */
static enum status
prepare(struct build *build, int16_t scope, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(crl_store_dir(build->dir, build->app->config.data_dir, build->ca->ca_id, err));
	TRY(db_tx_begin(&tx, build->app->pool, err));
	if (scope <= CRL_SCOPE_FULL) {
		TRY(hold_last(build, &tx, CRL_SCOPE_DELTA, &build->last_delta, err));
		scope = CRL_SCOPE_FULL;
	}
	TRY(hold_last(build, &tx, scope, &build->last, err));
	TRY(db_crl_reserve(&tx, build->ca->issuer_id, scope, &build->turn, err));
	if (scope == CRL_SCOPE_FULL)
		TRY(db_crl_bases(&tx, build->ca->issuer_id, &build->oldest, &build->newest, err));
	return db_tx_commit(&tx, err);
}

static struct making *
add_making(const struct build *build, struct makings *makings, int16_t scope, int64_t wanted,
	int64_t validity_s)
{
	struct making *making = &makings->at[makings->count++];
	struct db_crl *about = &making->about;

	*making = (struct making){ .wanted = wanted, .list = { .fd = -1 } };
	about->issuer_id = build->ca->issuer_id;
	(void)snprintf(about->ca_id, sizeof(about->ca_id), "%s", build->ca->ca_id);
	about->scope = scope;
	about->number = build->turn.number;
	about->this_update_s = about->published_at_s = build->now_s;
	about->next_update_s = build->now_s + validity_s;
	return making;
}

bool
crl_is_small(const struct app *app, int64_t full_bytes)
{
	return full_bytes <= app->config.crl_full_immediate_max_bytes;
}

bool
crl_is_grown(int64_t delta_entries, int64_t full_entries)
{
	return delta_entries > full_entries / 2;
}

/* From which full list a delta goes on, and whether the one that is being made is a base from now on. */
static struct db_crl_base
choose_base(struct build *build)
{
	const struct db_crl_base self = { .number = build->turn.number,
		.changes = build->turn.wanted };

	if (!build->full)
		return build->oldest;
	build->base_alone = build->rebase || build->oldest.number == 0 ||
	                    (!crl_is_small(build->app, build->last.about.length_bytes) &&
				    crl_is_grown(build->last_delta.about.entries,
					    build->last.about.entries));
	build->base_moves =
		build->newest.this_update_s + build->app->config.crl_refresh_s <= build->now_s;
	if (build->base_alone)
		return self;
	return build->base_moves ? build->newest : build->oldest;
}

/* The delta, the full list, or both. */
static enum status
make_whole(struct build *build, size_t *made, struct err *err)
{
	const struct config *config = &build->app->config;
	own_struct(makings) makings = { .count = 0 };
	struct db_crl_base base;

	TRY(prepare(build, CRL_SCOPE_FULL, err));
	base = choose_base(build);
	if (base.number == 0)
		return err_set(err, ERR_CONFLICT, "crl_base_gone", "crl: no full list is a base");
	if (build->delta) {
		struct making *delta = add_making(build, &makings, CRL_SCOPE_DELTA,
			build->turn.delta_wanted, config->crl_delta_validity_s);

		delta->about.base = base.number;
		delta->changes = base.changes;
	}
	if (build->full)
		(void)add_making(build, &makings, CRL_SCOPE_FULL, build->turn.wanted,
			config->crl_validity_s);
	TRY(build->delta ? make(build, &makings, err) : make_large(build, &makings, err));
	*made = makings.count;
	return OK;
}

enum status
crl_make_delta(struct app *app, const struct app_ca *ca, size_t *made, struct err *err)
{
	own_struct(build) build = { .app = app, .ca = ca, .signer = app->signer_crl,
		.now_s = clock_wall_s(app->clock), .delta = true };

	return make_whole(&build, made, err);
}

enum status
crl_make_both(struct app *app, const struct app_ca *ca, bool rebase, size_t *made, struct err *err)
{
	own_struct(build) build = { .app = app, .ca = ca, .signer = app->signer_crl,
		.now_s = clock_wall_s(app->clock), .delta = true, .full = true, .rebase = rebase };

	return make_whole(&build, made, err);
}

enum status
crl_make_full(struct app *app, const struct app_ca *ca, bool rebase, size_t *made, struct err *err)
{
	own_struct(build) build = { .app = app, .ca = ca, .signer = app->signer_full,
		.now_s = clock_wall_s(app->clock), .full = true, .rebase = rebase };

	return make_whole(&build, made, err);
}

enum status
crl_make_shard(struct app *app, const struct app_ca *ca, int16_t shard, size_t *made, struct err *err)
{
	own_struct(build) build = { .app = app, .ca = ca, .signer = app->signer_crl,
		.now_s = clock_wall_s(app->clock) };
	own_struct(makings) makings = { .count = 0 };

	TRY(prepare(&build, shard, err));
	(void)add_making(&build, &makings, shard, build.turn.wanted, app->config.crl_validity_s);
	TRY(make(&build, &makings, err));
	*made = makings.count;
	return OK;
}
