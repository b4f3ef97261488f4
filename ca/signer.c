#include "ca/signer.h"

#include "ca/signer_ops.h"

/* Neither side holds more than that at once. */
static enum status
check_batch(size_t count, struct err *err)
{
	if (count > SIGNER_BATCH_MAX)
		return err_set(err, ERR_ARGUMENT, "signer_batch",
			"signer: at most %d items wanted, %zu found", SIGNER_BATCH_MAX, count);
	return OK;
}

enum status
ca_signer_prepare(
	struct ca_signer *signer, struct ca_prepare_item *items, size_t count, struct err *err)
{
	TRY(check_batch(count, err));
	return signer->ops->prepare(signer, items, count, err);
}

enum status
ca_signer_sign(struct ca_signer *signer, struct ca_sign_item *items, size_t count, struct err *err)
{
	TRY(check_batch(count, err));
	return signer->ops->sign(signer, items, count, err);
}

enum status
ca_signer_drop(struct ca_signer *signer, const uint64_t *handles, size_t count, struct err *err)
{
	TRY(check_batch(count, err));
	return signer->ops->drop(signer, handles, count, err);
}

enum status
ca_signer_crl_begin(struct ca_signer *signer, const char *ca_id, struct err *err)
{
	return signer->ops->crl_begin(signer, ca_id, err);
}

enum status
ca_signer_crl_add(struct ca_signer *signer, struct view piece, struct err *err)
{
	return signer->ops->crl_add(signer, piece, err);
}

enum status
ca_signer_crl_end(struct ca_signer *signer, struct bytes *tail, struct err *err)
{
	*tail = (struct bytes){ NULL, 0 };
	return signer->ops->crl_end(signer, tail, err);
}

enum status
ca_signer_block_key(struct ca_signer *signer, const uint8_t spki_sha256[32], struct err *err)
{
	return signer->ops->block_key(signer, spki_sha256, err);
}

enum status
ca_signer_ocsp_key(
	struct ca_signer *signer, const char *ca_id, struct bytes *spki, struct err *err)
{
	*spki = (struct bytes){ NULL, 0 };
	return signer->ops->ocsp_key(signer, ca_id, spki, err);
}

enum status
ca_signer_ocsp_sign(
	struct ca_signer *signer, struct ca_ocsp_item *items, size_t count, struct err *err)
{
	TRY(check_batch(count, err));
	return signer->ops->ocsp_sign(signer, items, count, err);
}

enum status
ca_signer_checkpoint(struct ca_signer *signer, const struct ca_checkpoint *checkpoint,
	struct bytes *note, struct err *err)
{
	*note = (struct bytes){ NULL, 0 };
	return signer->ops->checkpoint(signer, checkpoint, note, err);
}

enum status
ca_signer_info(struct ca_signer *signer, struct ca_signer_info *out, struct err *err)
{
	enum status status;

	*out = (struct ca_signer_info){ .ca_count = 0 };
	status = signer->ops->info(signer, out, err);
	if (status != OK)
		ca_signer_info_free(out);
	return status;
}

void
ca_signer_info_free(struct ca_signer_info *info)
{
	for (size_t i = 0; i < info->ca_count; i++) {
		struct ca_signer_ca *ca = &info->cas[i];

		bytes_free(&ca->certificate);
		for (size_t j = 0; j < ca->chain_count; j++)
			bytes_free(&ca->chain[j]);
		ca->chain_count = 0;
	}
	info->ca_count = 0;
}

void
ca_signer_free(struct ca_signer *signer)
{
	if (signer != NULL)
		signer->ops->end(signer);
}
