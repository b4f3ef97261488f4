/* ca/signer_ops.h - what every kind of signer (ca/signer.h) can do; ca/signer.c calls through it.
 */
#ifndef CA_SIGNER_OPS_H
#define CA_SIGNER_OPS_H

#include "ca/signer.h"

struct ca_signer_ops {
	enum status (*prepare)(struct ca_signer *signer, struct ca_prepare_item *items,
		size_t count, struct err *err);
	enum status (*sign)(struct ca_signer *signer, struct ca_sign_item *items, size_t count,
		struct err *err);
	enum status (*drop)(
		struct ca_signer *signer, const uint64_t *handles, size_t count, struct err *err);
	enum status (*crl_begin)(struct ca_signer *signer, const char *ca_id, struct err *err);
	enum status (*crl_add)(struct ca_signer *signer, struct view piece, struct err *err);
	enum status (*crl_end)(struct ca_signer *signer, struct bytes *tail, struct err *err);
	enum status (*block_key)(
		struct ca_signer *signer, const uint8_t spki_sha256[32], struct err *err);
	enum status (*ocsp_key)(
		struct ca_signer *signer, const char *ca_id, struct bytes *spki, struct err *err);
	enum status (*ocsp_sign)(struct ca_signer *signer, struct ca_ocsp_item *items, size_t count,
		struct err *err);
	enum status (*checkpoint)(struct ca_signer *signer, const struct ca_checkpoint *checkpoint,
		struct bytes *note, struct err *err);
	enum status (*info)(struct ca_signer *signer, struct ca_signer_info *out, struct err *err);
	void (*end)(struct ca_signer *signer);
};

/* The first field of each kind. */
struct ca_signer {
	const struct ca_signer_ops *ops;
};

#endif
