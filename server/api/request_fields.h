/* server/api/request_fields.h - the fields of an authorised request for a certificate, out of JSON. */
#ifndef SERVER_API_REQUEST_FIELDS_H
#define SERVER_API_REQUEST_FIELDS_H

#include <jansson.h>

#include "base/err.h"
#include "ca/profile.h"

/* A thing type of IoT Core: [A-Za-z0-9:_-]{1,128}. ERR_ARGUMENT thing_type_malformed. */
MUST_USE enum status read_thing_type(struct ca_request *out, const json_t *object, struct err *err);
/*
 * attributes: an object of at most 16 texts. ERR_ARGUMENT attributes_too_many,
 * attribute_name_malformed, field_*; ERR_TOO_LARGE attributes_too_large when the canonical text is
 * longer than size. canonical is "{}" without the field.
 */
MUST_USE enum status read_attributes(struct ca_request *out, char *canonical, size_t size,
	const json_t *object, struct err *err);

#endif
