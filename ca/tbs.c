#include "ca/tbs.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ca/key.h"
#include "ca/names.h"

/* Key usages differ by kind of key, so the extensions in front come in three editions. */
enum { KIND_EC, KIND_RSA, KIND_EDWARDS, KIND_COUNT };
static const enum ca_key_type KIND_EXAMPLE[KIND_COUNT] = {
	[KIND_EC] = KEY_EC_P256,
	[KIND_RSA] = KEY_RSA_3072,
	[KIND_EDWARDS] = KEY_ED25519,
};

struct ca_tbs_template {
	const struct ca_profile *profile;
	struct bytes names;                  /* signature AlgorithmIdentifier, issuer Name */
	struct bytes rdn_types[8];           /* their OIDs, in the order of profile->subject */
	struct bytes extensions[KIND_COUNT]; /* BC, KU, EKU, AKI, AIA */
	char crl_url[TBS_URL_MAX_BYTES];     /* of shard 00 … */
	size_t crl_shard_at;                 /* … and where its two digits stand */
};

static size_t
kind_of(enum ca_key_type type)
{
	if (type == KEY_EC_P256 || type == KEY_EC_P384)
		return KIND_EC;
	return type == KEY_ED25519 ? KIND_EDWARDS : KIND_RSA;
}

void
ca_tbs_template_free(struct ca_tbs_template *template)
{
	if (template == NULL)
		return;
	bytes_free(&template->names);
	for (size_t i = 0; i < COUNT_OF(template->rdn_types); i++)
		bytes_free(&template->rdn_types[i]);
	for (size_t i = 0; i < KIND_COUNT; i++)
		bytes_free(&template->extensions[i]);
	mem_free(template);
}

enum status
ca_crl_url(char out[TBS_URL_MAX_BYTES], const char *public_http_url, const char *ca_id,
	uint8_t shard, struct err *err)
{
	int len = snprintf(out, TBS_URL_MAX_BYTES, "%s/crl/%s/%02x.crl", public_http_url, ca_id,
		(unsigned)shard);

	if (len < 0 || len >= TBS_URL_MAX_BYTES)
		return err_set(err, ERR_TOO_LARGE, "url_too_long",
			"crl url of %.64s: at most %d octets wanted", ca_id, TBS_URL_MAX_BYTES - 1);
	return OK;
}

enum status
ca_crl_delta_url(char out[TBS_URL_MAX_BYTES], const char *public_http_url, const char *ca_id,
	struct err *err)
{
	int len = snprintf(out, TBS_URL_MAX_BYTES, "%s/crl/%s/delta.crl", public_http_url, ca_id);

	if (len < 0 || len >= TBS_URL_MAX_BYTES)
		return err_set(err, ERR_TOO_LARGE, "url_too_long",
			"delta url of %.64s: at most %d octets wanted", ca_id, TBS_URL_MAX_BYTES - 1);
	return OK;
}

/* ---- what never changes ---- */

/* Opens Extension and its extnValue; extension_close closes both. */
static void
extension_open(struct der_writer *w, const char *oid, bool critical)
{
	der_open(w, DER_SEQUENCE);
	der_put_oid(w, oid);
	if (critical)
		der_put_boolean(w, true);
	der_open(w, DER_OCTET_STRING);
}

static void
extension_close(struct der_writer *w)
{
	der_close(w);
	der_close(w);
}

/* Where things of an issuer are. */
struct addresses {
	char ca[TBS_URL_MAX_BYTES];   /* its own certificate */
	char ocsp[TBS_URL_MAX_BYTES]; /* its OCSP responder */
	char delta[TBS_URL_MAX_BYTES]; /* the delta of its full CRL */
};

static void
put_access(struct der_writer *w, const char *method, const char *url)
{
	der_open(w, DER_SEQUENCE);
	der_put_oid(w, method);
	der_put(w, DER_CONTEXT(6), view_text(url));
	der_close(w);
}

/* RFC 5280 4.2.2.1: where to ask about the certificate, and where its issuer's is. */
static void
put_aia(struct der_writer *w, const struct addresses *addresses)
{
	extension_open(w, "1.3.6.1.5.5.7.1.1", false);
	der_open(w, DER_SEQUENCE);
	put_access(w, "1.3.6.1.5.5.7.48.1", addresses->ocsp);
	put_access(w, "1.3.6.1.5.5.7.48.2", addresses->ca);
	der_close(w);
	extension_close(w);
}

/* RFC 5280 4.2.1.15: one point, one fullName. */
static void
put_freshest(struct der_writer *w, const char *url)
{
	extension_open(w, "2.5.29.46", false);
	der_open(w, DER_SEQUENCE);
	der_open(w, DER_SEQUENCE);
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_put(w, DER_CONTEXT(6), view_text(url));
	der_close(w);
	der_close(w);
	der_close(w);
	der_close(w);
	extension_close(w);
}

static enum status
write_fixed_extensions(struct der_writer *w, const struct ca_profile *profile,
	const struct ca_tbs_issuer *issuer, const struct addresses *addresses, enum ca_key_type type,
	struct err *err)
{
	der_writer_reset(w);
	extension_open(w, "2.5.29.19", true); /* 4.2.1.9: basicConstraints, not a CA */
	der_open(w, DER_SEQUENCE);
	der_close(w);
	extension_close(w);

	extension_open(w, "2.5.29.15", true); /* 4.2.1.3: keyUsage */
	der_put_named_bits(w, ca_key_usage_for(profile->key_usage, type));
	extension_close(w);

	if (profile->eku_count > 0) { /* 4.2.1.12 */
		extension_open(w, "2.5.29.37", false);
		der_open(w, DER_SEQUENCE);
		for (size_t i = 0; i < profile->eku_count; i++)
			der_put_oid(w, profile->eku[i]);
		der_close(w);
		extension_close(w);
	}

	extension_open(w, "2.5.29.35", false); /* 4.2.1.1: authorityKeyIdentifier */
	der_open(w, DER_SEQUENCE);
	der_put(w, DER_CONTEXT(0), issuer->ski);
	der_close(w);
	extension_close(w);

	if (profile->authority_information_access)
		put_aia(w, addresses);
	if (profile->freshest_crl)
		put_freshest(w, addresses->delta);
	if (ca_profile_is_responder(profile)) { /* RFC 6960 4.2.2.2.1: id-pkix-ocsp-nocheck */
		extension_open(w, "1.3.6.1.5.5.7.48.1.5", false);
		der_put_null(w);
		extension_close(w);
	}
	return der_finish(w, err);
}

static enum status
make_extensions(struct ca_tbs_template *template, struct der_writer *w,
	const struct ca_tbs_issuer *issuer, const char *public_http_url, struct err *err)
{
	struct addresses addresses;
	int len = snprintf(addresses.ca, sizeof(addresses.ca), "%s/v1/cas/%s/certificate",
		public_http_url, issuer->ca_id);

	if (len < 0 || (size_t)len >= sizeof(addresses.ca))
		return err_set(err, ERR_TOO_LARGE, "url_too_long",
			"certificate url of %.64s: at most %d octets wanted", issuer->ca_id,
			TBS_URL_MAX_BYTES - 1);
	/* Shorter than the one before. */
	(void)snprintf(addresses.ocsp, sizeof(addresses.ocsp), "%s/ocsp", public_http_url);
	TRY(ca_crl_delta_url(addresses.delta, public_http_url, issuer->ca_id, err));
	for (size_t kind = 0; kind < KIND_COUNT; kind++) {
		TRY(write_fixed_extensions(
			w, template->profile, issuer, &addresses, KIND_EXAMPLE[kind], err));
		TRY(bytes_copy(&template->extensions[kind], buf_view(&w->buf), err));
	}
	return OK;
}

static enum status
make_names(struct ca_tbs_template *template, struct der_writer *w,
	const struct ca_tbs_issuer *issuer, struct err *err)
{
	const struct ca_profile *profile = template->profile;

	der_writer_reset(w);
	der_put_raw(w, issuer->algorithm);
	der_put_raw(w, issuer->subject);
	TRY(der_finish(w, err));
	TRY(bytes_copy(&template->names, buf_view(&w->buf), err));
	for (size_t i = 0; i < profile->subject_count; i++) {
		der_writer_reset(w);
		der_put_oid(w, ca_rdn_rule(profile->subject[i].type)->oid);
		TRY(der_finish(w, err));
		TRY(bytes_copy(&template->rdn_types[i], buf_view(&w->buf), err));
	}
	return OK;
}

enum status
ca_tbs_template_new(struct ca_tbs_template **out, const struct ca_profile *profile,
	const struct ca_tbs_issuer *issuer, const char *public_http_url, struct err *err)
{
	own(ca_tbs_template) template = mem_zalloc(sizeof(*template));
	own_struct(der_writer) w = { .status = OK };

	if (template == NULL)
		return err_memory(err);
	der_writer_init(&w, TBS_MAX_BYTES);
	template->profile = profile;
	TRY(make_names(template, &w, issuer, err));
	TRY(make_extensions(template, &w, issuer, public_http_url, err));
	TRY(ca_crl_url(template->crl_url, public_http_url, issuer->ca_id, 0, err));
	template->crl_shard_at = strlen(template->crl_url) - strlen("00.crl");
	*out = give(template);
	return OK;
}

/* ---- what differs ---- */

/* Lists of names may be longer than one name. */
#define EXPANDED_MAX_BYTES 1536

static enum status
expand(char out[EXPANDED_MAX_BYTES], const char *text, const struct ca_tbs_template *template,
	const struct ca_request *request, struct err *err)
{
	enum status status =
		ca_template_expand(out, EXPANDED_MAX_BYTES, text, template->profile, request, err);

	/* The caller's input is to blame, whatever the limit is called. */
	return status == ERR_TOO_LARGE ? (err->status = ERR_ARGUMENT) : status;
}

static enum status
put_subject(struct der_writer *w, const struct ca_tbs_template *template,
	const struct ca_request *request, struct err *err)
{
	const struct ca_profile *profile = template->profile;
	char value[EXPANDED_MAX_BYTES];

	der_open(w, DER_SEQUENCE);
	for (size_t i = 0; i < profile->subject_count; i++) {
		const struct ca_rdn *rdn = &profile->subject[i];

		TRY(expand(value, rdn->value, template, request, err));
		TRY(ca_rdn_check(rdn->type, view_text(value), err));
		der_open(w, DER_SET);
		der_open(w, DER_SEQUENCE);
		der_put_raw(w, view_of(&template->rdn_types[i]));
		der_put(w, ca_rdn_rule(rdn->type)->string, view_text(value));
		der_close(w);
		der_close(w);
	}
	der_close(w);
	return OK;
}

/* One alternative name of the profile, or a list of them. Spaces around the commas are nothing. */
static enum status
put_san(struct der_writer *w, const struct ca_san *san, const char *value, struct err *err)
{
	const char *rest = value;

	if (!san->each)
		return ca_san_put(w, san->type, view_text(value), err);
	for (;;) {
		size_t len = strcspn(rest, ",");
		struct view one = { (const uint8_t *)rest, len };

		while (one.len > 0 && one.data[0] == ' ')
			one.data++, one.len--;
		while (one.len > 0 && one.data[one.len - 1] == ' ')
			one.len--;
		TRY(ca_san_put(w, san->type, one, err));
		if (rest[len] == '\0')
			return OK;
		rest += len + 1;
	}
}

/* 4.2.1.6: subjectAltName; not critical, for the subject is never empty. Absent without any name.
 */
static enum status
put_sans(struct der_writer *w, const struct ca_tbs_template *template,
	const struct ca_request *request, struct err *err)
{
	const struct ca_profile *profile = template->profile;
	char value[EXPANDED_MAX_BYTES];
	bool open = false;

	for (size_t i = 0; i < profile->san_count; i++) {
		const struct ca_san *san = &profile->san[i];

		TRY(expand(value, san->value, template, request, err));
		if (value[0] == '\0' && san->optional)
			continue;
		if (!open) {
			extension_open(w, "2.5.29.17", false);
			der_open(w, DER_SEQUENCE);
			open = true;
		}
		TRY(put_san(w, san, value, err));
	}
	if (open) {
		der_close(w);
		extension_close(w);
	}
	return OK;
}

/* 4.2.1.13: cRLDistributionPoints: one point, one fullName, the shard that the serial says. */
static void
put_distribution_point(struct der_writer *w, const struct ca_tbs_template *template, uint8_t shard)
{
	char url[TBS_URL_MAX_BYTES];
	char digits[3];

	memcpy(url, template->crl_url, sizeof(url));
	hex_encode(digits, &shard, 1);
	memcpy(url + template->crl_shard_at, digits, 2);
	extension_open(w, "2.5.29.31", false);
	der_open(w, DER_SEQUENCE);
	der_open(w, DER_SEQUENCE);
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_put(w, DER_CONTEXT(6), view_text(url));
	der_close(w);
	der_close(w);
	der_close(w);
	der_close(w);
	extension_close(w);
}

static enum status
put_extensions(struct der_writer *w, const struct ca_tbs_template *template,
	const struct ca_tbs_fields *fields, struct err *err)
{
	uint8_t key_id[CA_KEY_ID_BYTES];

	TRY(ca_spki_key_id(key_id, fields->spki, err));
	der_open(w, DER_CONTEXT_CONSTRUCTED(3));
	der_open(w, DER_SEQUENCE);
	der_put_raw(w, view_of(&template->extensions[kind_of(fields->key_type)]));
	extension_open(w, "2.5.29.14", false); /* 4.2.1.2: subjectKeyIdentifier */
	der_put(w, DER_OCTET_STRING, (struct view){ key_id, sizeof(key_id) });
	extension_close(w);
	if (template->profile->crl_distribution_point)
		put_distribution_point(w, template, serial_shard(&fields->serial));
	TRY(put_sans(w, template, fields->request, err));
	der_close(w);
	der_close(w);
	return OK;
}

/* RFC 5280 4.1, field by field. */
static enum status
build(struct der_writer *w, const struct ca_tbs_template *template,
	const struct ca_tbs_fields *fields, size_t *subject_at, size_t *subject_len,
	struct err *err)
{
	der_writer_reset(w);
	der_open(w, DER_SEQUENCE);
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_put_number(w, 2); /* v3 */
	der_close(w);
	der_put_unsigned(w, (struct view){ fields->serial.octets, SERIAL_BYTES });
	der_put_raw(w, view_of(&template->names));
	der_open(w, DER_SEQUENCE);
	der_put_time(w, fields->not_before_s);
	der_put_time(w, fields->not_after_s);
	der_close(w);
	*subject_at = w->buf.len;
	TRY(put_subject(w, template, fields->request, err));
	*subject_len = w->buf.len - *subject_at;
	der_put_raw(w, fields->spki);
	TRY(put_extensions(w, template, fields, err));
	*subject_at -= w->buf.len; /* seen from the end: closing moves what is inside */
	der_close(w);
	*subject_at += w->buf.len;
	return der_finish(w, err);
}

enum status
ca_tbs_build(struct der_writer *w, const struct ca_tbs_template *template,
	const struct ca_tbs_fields *fields, struct view *subject, struct err *err)
{
	size_t at, len;
	enum status status = build(w, template, fields, &at, &len, err);

	/* The writer may have room for more: a signature comes around it. */
	if (status == ERR_TOO_LARGE || (status == OK && w->buf.len > TBS_MAX_BYTES))
		return err_set(err, ERR_TOO_LARGE, "certificate_too_large",
			"tbs: at most %d octets wanted; shorten names or lists of names",
			TBS_MAX_BYTES);
	TRY(status);
	*subject = (struct view){ w->buf.data + at, len };
	return OK;
}
