/*
 * server/api/render.h - what appears in more than one answer, in one place. All results are new
 * references that the caller owns.
 */
#ifndef SERVER_API_RENDER_H
#define SERVER_API_RENDER_H

#include <jansson.h>

#include "base/bytes.h"
#include "base/err.h"
#include "db/certificate.h"

struct app;

/*
 * A certificate as the design has it: {certificate_id, serial, ca, profile, device_id, subject, status,
 * issued_at, not_before, not_after, certificate, chain, station, manifest?, revoked_at?, reason?,
 * predecessor?, successor?}. status is that at now_s. Its DER must be there.
 */
MUST_USE enum status render_certificate(json_t **out, const struct app *app,
	const struct db_certificate *certificate, int64_t now_s, struct err *err);

/* The same as JSON text at the end of out, for answers of issuance; clamped is added when it is true. */
MUST_USE enum status render_certificate_text(struct buf *out, const struct app *app,
	const struct db_certificate *certificate, int64_t now_s, bool clamped, struct err *err);

/* Adds server_time and trust_bundle (the roots that we know, PEM): every rotation answer has them. */
MUST_USE enum status render_trust(json_t *into, const struct app *app, int64_t now_s, struct err *err);

/* An RFC 3339 time; JSON null for 0. NULL: memory is short. */
json_t *render_time(int64_t wall_s);
/* Lower-case hex. */
json_t *render_hex(const uint8_t *data, size_t len);

#endif
