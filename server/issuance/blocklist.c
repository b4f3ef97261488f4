/* The signer's block list: told whole to a fresh signer, and then what is new. Admit refuses blocked
 * keys in any case; the signer does so on its own account. */
#include "server/issuance/internal.h"

#include "base/log.h"
#include "db/issuer.h"

#define REFRESH_MS 1000
/* blocked_at is when a transaction began, and it may commit later than one that began after it. */
#define OVERLAP_US 5000000

struct teller {
	struct ca_signer *signer;
	size_t count;
};

static enum status
tell(void *arg, const uint8_t spki_sha256[32], struct err *err)
{
	struct teller *teller = arg;

	teller->count++;
	return ca_signer_block_key(teller->signer, spki_sha256, err);
}

static enum status
tell_since(struct issuance *issuance, struct ca_signer *signer, int64_t since_us, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct teller teller = { .signer = signer };
	int64_t newest_us = since_us;

	TRY(db_tx_begin(&tx, issuance->app->pool, err));
	TRY(db_blocked_keys(&tx, since_us, &newest_us, tell, &teller, err));
	if (newest_us > issuance->blocked_until_us)
		issuance->blocked_until_us = newest_us;
	issuance->blocked_checked_ms = clock_mono_ms(issuance->app->clock);
	if (teller.count > 0)
		log_event(LOG_DEBUG, "signer_blocklist_told", NULL, LOG_INT("keys", teller.count));
	return OK;
}

enum status
blocklist_greet(void *arg, struct ca_signer *signer, struct err *err)
{
	struct issuance *issuance = arg;

	return tell_since(issuance, signer, 0, err);
}

enum status
blocklist_refresh(struct issuance *issuance, struct ca_signer *signer, struct err *err)
{
	int64_t now_ms = clock_mono_ms(issuance->app->clock);

	if (!atomic_exchange(&issuance->blocked_news, false) &&
	    now_ms - issuance->blocked_checked_ms < REFRESH_MS)
		return OK;
	return tell_since(issuance, signer, issuance->blocked_until_us > OVERLAP_US ?
		issuance->blocked_until_us - OVERLAP_US : 0, err);
}

void
issuance_note_blocked(struct issuance *issuance)
{
	atomic_store(&issuance->blocked_news, true);
}
