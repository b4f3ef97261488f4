#include "ca/ocsp_check.h"

static enum status
bad_times(struct err *err, const char *text)
{
	return err_set(err, ERR_ARGUMENT, "ocsp_times", "ocsp response: RFC 6960 4.2.1: %s", text);
}

static bool
is_now(const struct ca_ocsp_rules *rules, int64_t time_s)
{
	return time_s <= rules->now_s && time_s >= rules->now_s - OCSP_AGE_MAX_S;
}

static enum status
check_responder(const struct ca_ocsp_rules *rules, struct der *data, struct err *err)
{
	struct der tagged;
	struct view id;

	TRY(der_enter(data, DER_CONTEXT_CONSTRUCTED(2), "4.2.1: responderID byKey", &tagged, err));
	TRY(der_octets(&tagged, "4.2.1: byKey", &id, err));
	TRY(der_end(&tagged, "4.2.1: responderID", err));
	if (!view_equal(id, (struct view){ rules->key_hash, OCSP_KEY_HASH_BYTES }))
		return err_set(err, ERR_ARGUMENT, "ocsp_responder",
			"ocsp response: RFC 6960 4.2.1: responderID: not the key that signs");
	return OK;
}

static enum status
check_reason(struct der *revoked, struct err *err)
{
	struct der tagged;
	struct view reason;

	if (der_at_end(revoked))
		return OK;
	TRY(der_enter(revoked, DER_CONTEXT_CONSTRUCTED(0), "4.2.1: revocationReason", &tagged, err));
	TRY(der_take(&tagged, DER_ENUMERATED, "4.2.1: revocationReason", &reason, err));
	TRY(der_end(&tagged, "4.2.1: revocationReason", err));
	/* RFC 5280 5.3.1: 0 is left out, 7 is not used, 8 is for deltas. */
	if (reason.len != 1 || reason.data[0] < 1 || reason.data[0] > 10 || reason.data[0] == 7 ||
		reason.data[0] == 8)
		return err_set(err, ERR_ARGUMENT, "ocsp_reason",
			"ocsp response: RFC 5280 5.3.1: a reason of a revocation wanted");
	return OK;
}

static enum status
check_status(const struct ca_ocsp_rules *rules, struct der *single, bool *definite, struct err *err)
{
	struct view contents;
	struct der revoked;
	int64_t revoked_at_s;
	uint8_t tag = 0;

	*definite = true;
	TRY(der_any(single, "4.2.1: certStatus", &tag, &contents, NULL, err));
	if (tag == DER_CONTEXT_CONSTRUCTED(1)) {
		revoked = (struct der){ contents, single->code, single->what };
		TRY(der_generalized_time(&revoked, "4.2.1: revocationTime", &revoked_at_s, err));
		if (revoked_at_s > rules->now_s)
			return bad_times(err, "revocationTime: not in the future wanted");
		TRY(check_reason(&revoked, err));
		return der_end(&revoked, "4.2.1: revoked", err);
	}
	*definite = tag == DER_CONTEXT(0);
	if ((tag != DER_CONTEXT(0) && tag != DER_CONTEXT(2)) || contents.len > 0)
		return der_refuse(single, err, "4.2.1: certStatus: good, revoked or unknown wanted");
	return OK;
}

static bool
is_ours(const struct ca_ocsp_rules *rules, const struct ca_ocsp_id *id)
{
	for (size_t i = 0; i < rules->issuer_count; i++)
		if (ca_ocsp_names(id, &rules->issuers[i]))
			return true;
	return false;
}

static enum status
check_updates(const struct ca_ocsp_rules *rules, struct der *single, struct err *err)
{
	int64_t this_update_s, next_update_s;
	struct der tagged;

	TRY(der_generalized_time(single, "4.2.1: thisUpdate", &this_update_s, err));
	TRY(der_enter(single, DER_CONTEXT_CONSTRUCTED(0), "RFC 5019 2.2.4: nextUpdate", &tagged, err));
	TRY(der_generalized_time(&tagged, "RFC 5019 2.2.4: nextUpdate", &next_update_s, err));
	TRY(der_end(&tagged, "4.2.1: nextUpdate", err));
	if (!is_now(rules, this_update_s))
		return bad_times(err, "thisUpdate: within the last five minutes wanted");
	if (next_update_s <= rules->now_s || next_update_s > rules->now_s + OCSP_AHEAD_MAX_S ||
		next_update_s > rules->not_after_s)
		return bad_times(err, "nextUpdate: ahead, by at most a week and not past the"
			" responder's certificate wanted");
	return OK;
}

static enum status
check_single(const struct ca_ocsp_rules *rules, struct der *list, struct err *err)
{
	struct ca_ocsp_id id;
	struct der single;
	bool definite;

	TRY(der_enter(list, DER_SEQUENCE, "4.2.1: SingleResponse", &single, err));
	TRY(ca_ocsp_id_read(&single, &id, err));
	TRY(check_status(rules, &single, &definite, err));
	/* Of what another CA, or a serial that we never draw, is called, we know nothing. */
	if (definite && (!id.serial_ours || !is_ours(rules, &id)))
		return err_set(err, ERR_ARGUMENT, "ocsp_issuer",
			"ocsp response: certID: good or revoked only of what a CA here can issue");
	TRY(check_updates(rules, &single, err));
	return der_end(&single, "4.2.1: SingleResponse without extensions", err);
}

static enum status
check_list(const struct ca_ocsp_rules *rules, struct der *data, struct err *err)
{
	struct der list;
	size_t count = 0;

	TRY(der_enter(data, DER_SEQUENCE, "4.2.1: responses", &list, err));
	for (; !der_at_end(&list); count++) {
		if (count == OCSP_IDS_MAX)
			return der_refuse(data, err, "4.2.1: at most %d responses wanted", OCSP_IDS_MAX);
		TRY(check_single(rules, &list, err));
	}
	return count > 0 ? OK : der_refuse(data, err, "4.2.1: a response wanted");
}

enum status
ca_ocsp_check(const struct ca_ocsp_rules *rules, struct view der, struct err *err)
{
	struct der in = der_of(der, "ocsp_malformed", "ocsp response");
	struct der data, tagged;
	int64_t produced_at_s;
	struct view nonce;

	TRY(der_enter(&in, DER_SEQUENCE, "4.2.1: ResponseData", &data, err));
	TRY(der_end(&in, "4.2.1: ResponseData", err));
	TRY(check_responder(rules, &data, err));
	TRY(der_generalized_time(&data, "4.2.1: producedAt", &produced_at_s, err));
	if (!is_now(rules, produced_at_s))
		return bad_times(err, "producedAt: within the last five minutes wanted");
	TRY(check_list(rules, &data, err));
	if (der_at_end(&data))
		return OK;
	TRY(der_enter(&data, DER_CONTEXT_CONSTRUCTED(1), "4.2.1: responseExtensions", &tagged, err));
	TRY(ca_ocsp_nonce_read(&tagged, true, &nonce, err));
	TRY(der_end(&tagged, "4.2.1: responseExtensions", err));
	return der_end(&data, "4.2.1: ResponseData", err);
}
