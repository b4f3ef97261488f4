#include "server/cas.h"

#include <stdio.h>
#include <string.h>

#include "ca/cert.h"
#include "ca/digest.h"
#include "db/crl.h"
#include "db/issuer.h"

#define PEM_LIMIT_BYTES (64 * 1024)

static enum status
row_of(struct db_issuer *row, const struct cas_source *source, const struct ca_cert_view *view,
	struct err *err)
{
	(void)snprintf(row->ca_id, sizeof(row->ca_id), "%s", source->ca_id);
	(void)snprintf(row->kind, sizeof(row->kind), "%s", source->is_root ? "root" : "issuing");
	(void)snprintf(row->status, sizeof(row->status), "active");
	ca_name_text(row->subject, sizeof(row->subject), view->subject);
	ca_sha256(row->sha256, source->certificate);
	row->not_before_s = view->not_before_s;
	row->not_after_s = view->not_after_s;
	TRY(bytes_copy(&row->certificate, source->certificate, err));
	if (source->chain_count > DB_CHAIN_MAX)
		return err_set(err, ERR_ARGUMENT, "ca_chain",
			"%s: a chain of at most %d wanted, %zu found", source->ca_id, DB_CHAIN_MAX,
			source->chain_count);
	for (size_t i = 0; i < source->chain_count; i++) {
		TRY(bytes_copy(&row->chain[i], view_of(&source->chain[i]), err));
		row->chain_count++;
	}
	return OK;
}

static enum status
pem_of(struct bytes *out, struct view der, struct err *err)
{
	own_struct(buf) pem = { .limit_bytes = PEM_LIMIT_BYTES };

	TRY(ca_pem_encode(&pem, "CERTIFICATE", der, err));
	*out = buf_give(&pem);
	return OK;
}

/* What follows a leaf of this CA: the CA itself and its issuers, up to but without the root. */
static enum status
chain_of(struct bytes *out, const struct cas_source *source, struct err *err)
{
	own_struct(buf) pem = { .limit_bytes = PEM_LIMIT_BYTES };

	if (!source->is_root)
		TRY(ca_pem_encode(&pem, "CERTIFICATE", source->certificate, err));
	for (size_t i = 0; i + 1 < source->chain_count; i++)
		TRY(ca_pem_encode(&pem, "CERTIFICATE", view_of(&source->chain[i]), err));
	*out = buf_give(&pem);
	return OK;
}

static enum status
fill(struct app_ca *out, const struct cas_source *source, const struct ca_cert_view *view,
	int32_t issuer_id, struct err *err)
{
	struct view root = source->chain_count > 0
	                           ? view_of(&source->chain[source->chain_count - 1])
	                           : source->certificate;

	(void)snprintf(out->ca_id, sizeof(out->ca_id), "%s", source->ca_id);
	out->issuer_id = issuer_id;
	out->can_sign = source->can_sign;
	out->not_before_s = view->not_before_s;
	out->not_after_s = view->not_after_s;
	TRY(bytes_copy(&out->certificate, source->certificate, err));
	TRY(bytes_copy(&out->subject_name, view->subject, err));
	TRY(pem_of(&out->certificate_pem, source->certificate, err));
	TRY(pem_of(&out->root_pem, root, err));
	return chain_of(&out->chain_pem, source, err);
}

enum status
cas_register(struct db_tx *tx, const struct cas_source *source, struct app_ca *out, struct err *err)
{
	own_struct(db_issuer) row = { .issuer_id = 0 };
	struct ca_cert_view view;
	int32_t issuer_id = 0;

	TRY(ca_cert_parse(&view, source->certificate, err));
	TRY(row_of(&row, source, &view, err));
	TRY(db_issuer_ensure(tx, &row, &issuer_id, err));
	if (source->can_sign)
		TRY(db_crl_scopes_ensure(tx, issuer_id, err));
	return out == NULL ? OK : fill(out, source, &view, issuer_id, err);
}
