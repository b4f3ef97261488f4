#include "ca/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "base/clock.h"
#include "ca/digest.h"
#include "ca/pem.h"

#define TITLE "jitrca audit checkpoint v1\n"
#define DASH "\xe2\x80\x94 " /* an em dash and a space begin a signature line */
#define ALGORITHM_ED25519 0x01
#define KEY_ID_BYTES 4
#define SIGNATURE_BYTES (KEY_ID_BYTES + crypto_sign_BYTES)
#define SIGNATURE_TEXT_BYTES sodium_base64_ENCODED_LEN(SIGNATURE_BYTES, sodium_base64_VARIANT_ORIGINAL)
#define PEM_MAX_BYTES 1024

static_assert(CA_CHECKPOINT_KEY_BYTES == crypto_sign_PUBLICKEYBYTES, "a key of Ed25519");

/* ---- the key ---- */

/* RFC 8410 4: SubjectPublicKeyInfo, and 7: PrivateKeyInfo without what is optional. */
static const uint8_t SPKI_PREFIX[] = { 0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21,
	0x00 };
static const uint8_t PKCS8_PREFIX[] = { 0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65,
	0x70, 0x04, 0x22, 0x04, 0x20 };

static_assert(sizeof(SPKI_PREFIX) + CA_CHECKPOINT_KEY_BYTES == CA_CHECKPOINT_SPKI_BYTES, "its size");

void
ca_checkpoint_key_free(struct ca_checkpoint_key *key)
{
	secret_free(&key->secret);
	key->known = false;
}

enum status
ca_checkpoint_key_generate(struct ca_checkpoint_key *out, struct err *err)
{
	own_struct(ca_checkpoint_key) key = { .known = true };

	TRY(secret_new(&key.secret, crypto_sign_SECRETKEYBYTES, err));
	(void)crypto_sign_keypair(key.public_key, key.secret.data);
	*out = give_struct(key);
	return OK;
}

enum status
ca_checkpoint_key_to_pkcs8(const struct ca_checkpoint_key *key, struct secret *der, struct err *err)
{
	TRY(secret_new(der, sizeof(PKCS8_PREFIX) + crypto_sign_SEEDBYTES, err));
	memcpy(der->data, PKCS8_PREFIX, sizeof(PKCS8_PREFIX));
	(void)crypto_sign_ed25519_sk_to_seed(der->data + sizeof(PKCS8_PREFIX), key->secret.data);
	return OK;
}

enum status
ca_checkpoint_key_unlock(struct ca_checkpoint_key *key, struct view der, struct err *err)
{
	own_struct(secret) made = { NULL, 0 };
	uint8_t public_key[CA_CHECKPOINT_KEY_BYTES];

	if (der.len != sizeof(PKCS8_PREFIX) + crypto_sign_SEEDBYTES ||
		memcmp(der.data, PKCS8_PREFIX, sizeof(PKCS8_PREFIX)) != 0)
		return err_set(err, ERR_ARGUMENT, "keystore_malformed",
			"the checkpoint key: an Ed25519 key in PKCS#8 wanted");
	TRY(secret_new(&made, crypto_sign_SECRETKEYBYTES, err));
	(void)crypto_sign_seed_keypair(public_key, made.data, der.data + sizeof(PKCS8_PREFIX));
	if (memcmp(public_key, key->public_key, sizeof(public_key)) != 0)
		return err_set(err, ERR_ARGUMENT, "keystore_malformed",
			"the checkpoint key: the private half of the public key wanted");
	key->secret = give_struct(made);
	return OK;
}

void
ca_checkpoint_key_spki(
	uint8_t out[CA_CHECKPOINT_SPKI_BYTES], const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES])
{
	memcpy(out, SPKI_PREFIX, sizeof(SPKI_PREFIX));
	memcpy(out + sizeof(SPKI_PREFIX), public_key, CA_CHECKPOINT_KEY_BYTES);
}

enum status
ca_checkpoint_key_to_pem(
	const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES], struct buf *pem, struct err *err)
{
	uint8_t spki[CA_CHECKPOINT_SPKI_BYTES];

	ca_checkpoint_key_spki(spki, public_key);
	return ca_pem_encode(pem, "PUBLIC KEY", (struct view){ spki, sizeof(spki) }, err);
}

enum status
ca_checkpoint_key_from_pem(
	uint8_t public_key[CA_CHECKPOINT_KEY_BYTES], struct view pem, struct err *err)
{
	own_struct(bytes) spki = { NULL, 0 };

	if (pem.len > PEM_MAX_BYTES || ca_pem_decode(&spki, "PUBLIC KEY", pem, err) != OK ||
		spki.len != CA_CHECKPOINT_SPKI_BYTES ||
		memcmp(spki.data, SPKI_PREFIX, sizeof(SPKI_PREFIX)) != 0)
		return err_set(err, ERR_ARGUMENT, "checkpoint_key",
			"the checkpoint key: RFC 8410 4: one Ed25519 PUBLIC KEY in PEM wanted");
	memcpy(public_key, spki.data + sizeof(SPKI_PREFIX), CA_CHECKPOINT_KEY_BYTES);
	return OK;
}

void
ca_checkpoint_origin(char out[CA_CHECKPOINT_ORIGIN_BYTES],
	const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES])
{
	uint8_t digest[32];
	char text[2 * 8 + 1];

	ca_sha256(digest, (struct view){ public_key, CA_CHECKPOINT_KEY_BYTES });
	hex_encode(text, digest, 8);
	(void)snprintf(out, CA_CHECKPOINT_ORIGIN_BYTES, "jitrca-audit/%s", text);
}

static void
key_id(uint8_t out[KEY_ID_BYTES], const char *origin,
	const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES])
{
	static const uint8_t between[] = { '\n', ALGORITHM_ED25519 };
	struct ca_sha256 hash;
	uint8_t digest[32];

	ca_sha256_begin(&hash);
	ca_sha256_add(&hash, view_text(origin));
	ca_sha256_add(&hash, (struct view){ between, sizeof(between) });
	ca_sha256_add(&hash, (struct view){ public_key, CA_CHECKPOINT_KEY_BYTES });
	ca_sha256_end(&hash, digest);
	memcpy(out, digest, KEY_ID_BYTES);
}

/* ---- order ---- */

static const struct ca_checkpoint_lane *
find_lane(const struct ca_checkpoint *checkpoint, int32_t lane)
{
	for (size_t i = 0; i < checkpoint->lane_count; i++)
		if (checkpoint->lanes[i].lane == lane)
			return &checkpoint->lanes[i];
	return NULL;
}

enum status
ca_checkpoint_follows(
	const struct ca_checkpoint *last, const struct ca_checkpoint *next, struct err *err)
{
	if (last == NULL || last->number == 0)
		return OK;
	if (next->number <= last->number || next->at_s < last->at_s)
		return err_set(err, ERR_CONFLICT, "checkpoint_order",
			"checkpoint: number and time behind %" PRId64 " wanted, %" PRId64 " found",
			last->number, next->number);
	for (size_t i = 0; i < last->lane_count; i++) {
		const struct ca_checkpoint_lane *old = &last->lanes[i];
		const struct ca_checkpoint_lane *new = find_lane(next, old->lane);

		if (new == NULL || new->seq < old->seq ||
			(new->seq == old->seq && memcmp(new->head, old->head, sizeof(old->head)) != 0))
			return err_set(err, ERR_CONFLICT, "checkpoint_order",
				"checkpoint %" PRId64 ": lane %d with record %" PRId64
				" of checkpoint %" PRId64 " wanted", next->number, old->lane, old->seq,
				last->number);
	}
	return OK;
}

/* ---- the text ---- */

static enum status
bad_field(struct err *err, const char *field)
{
	return err_set(err, ERR_ARGUMENT, "checkpoint_field",
		"checkpoint: %s: a value of its form wanted", field);
}

static enum status
check_fields(const struct ca_checkpoint *c, struct err *err)
{
	if (c->number <= 0)
		return bad_field(err, "number");
	if (c->at_s <= 0 || c->at_s > INT64_C(253402300799)) /* the year 9999 */
		return bad_field(err, "at");
	if (c->records < 0)
		return bad_field(err, "records");
	if (c->lane_count > CA_CHECKPOINT_LANES_MAX)
		return bad_field(err, "lanes");
	for (size_t i = 0; i < c->lane_count; i++)
		if (c->lanes[i].seq <= 0 || c->lanes[i].lane < 0 ||
			(i > 0 && c->lanes[i].lane <= c->lanes[i - 1].lane))
			return bad_field(err, "lane");
	return OK;
}

static enum status
put_hex(struct buf *out, const uint8_t octets[32], struct err *err)
{
	char text[65];

	hex_encode(text, octets, 32);
	return buf_format(out, err, "%s\n", text);
}

static enum status
write_text(struct buf *out, const struct ca_checkpoint *c, const char *origin, struct err *err)
{
	char at[TIME_TEXT_BYTES];

	TRY(check_fields(c, err));
	time_format(at, c->at_s);
	TRY(buf_format(out, err, TITLE "log %s\nnumber %" PRId64 "\nprevious ", origin, c->number));
	TRY(put_hex(out, c->previous, err));
	TRY(buf_format(out, err, "at %s\nrecords %" PRId64 "\nroot ", at, c->records));
	TRY(put_hex(out, c->root, err));
	for (size_t i = 0; i < c->lane_count; i++) {
		TRY(buf_format(out, err, "lane %d %" PRId64 " ", c->lanes[i].lane, c->lanes[i].seq));
		TRY(put_hex(out, c->lanes[i].head, err));
	}
	return OK;
}

enum status
ca_checkpoint_sign(const struct ca_checkpoint_key *key, const struct ca_checkpoint *checkpoint,
	struct bytes *note, struct err *err)
{
	own_struct(buf) out = { .limit_bytes = CA_CHECKPOINT_NOTE_MAX_BYTES };
	char origin[CA_CHECKPOINT_ORIGIN_BYTES];
	uint8_t signature[SIGNATURE_BYTES];
	char text[SIGNATURE_TEXT_BYTES];

	ca_checkpoint_origin(origin, key->public_key);
	TRY(write_text(&out, checkpoint, origin, err));
	key_id(signature, origin, key->public_key);
	(void)crypto_sign_detached(
		signature + KEY_ID_BYTES, NULL, out.data, out.len, key->secret.data);
	(void)sodium_bin2base64(text, sizeof(text), signature, sizeof(signature),
		sodium_base64_VARIANT_ORIGINAL);
	TRY(buf_format(&out, err, "\n" DASH "%s %s\n", origin, text));
	*note = buf_give(&out);
	return OK;
}

/* ---- reading ---- */

/* The octets of text up to and with its last line end; the rest is the empty line and the signature. */
static size_t
text_len(struct view note)
{
	const uint8_t *end = note.len > 0 ? memmem(note.data, note.len, "\n\n", 2) : NULL;

	return end == NULL ? 0 : (size_t)(end - note.data) + 1;
}

bool
ca_checkpoint_take(struct view *rest, struct view *note)
{
	size_t at = text_len(*rest);

	if (rest->len == 0)
		return false;
	/* What is no note is given whole, to be refused. */
	*note = *rest;
	for (bool found = at > 0; found;) {
		const uint8_t *end = memchr(rest->data + at + 1, '\n', rest->len - at - 1);

		if (end == NULL)
			break;
		at = (size_t)(end - rest->data);
		note->len = at + 1;
		found = rest->len - note->len >= strlen(DASH) &&
			memcmp(rest->data + note->len, DASH, strlen(DASH)) == 0;
	}
	rest->data += note->len;
	rest->len -= note->len;
	return true;
}

void
ca_checkpoint_text_sha256(uint8_t out[32], struct view note)
{
	ca_sha256(out, (struct view){ note.data, text_len(note) });
}

static enum status
malformed(struct err *err)
{
	return err_set(err, ERR_ARGUMENT, "checkpoint_malformed",
		"checkpoint: a note in the form of jitrca audit checkpoint v1 wanted");
}

/* Takes "NAME VALUE\n" off text; value is without its line end. */
static bool
take_line(struct view *text, const char *name, struct view *value)
{
	size_t name_len = strlen(name);
	const uint8_t *end = text->len > 0 ? memchr(text->data, '\n', text->len) : NULL;
	size_t len = end == NULL ? 0 : (size_t)(end - text->data);

	if (end == NULL || len <= name_len || memcmp(text->data, name, name_len) != 0 ||
		text->data[name_len] != ' ')
		return false;
	*value = (struct view){ text->data + name_len + 1, len - name_len - 1 };
	text->data += len + 1;
	text->len -= len + 1;
	return true;
}

static bool
take_number(struct view *text, int64_t most, int64_t *out)
{
	size_t used = 0;

	*out = 0;
	for (; used < text->len && text->data[used] >= '0' && text->data[used] <= '9'; used++) {
		if (*out > (most - (text->data[used] - '0')) / 10)
			return false;
		*out = *out * 10 + (text->data[used] - '0');
	}
	text->data += used;
	text->len -= used;
	return used > 0;
}

static bool
take_space(struct view *text)
{
	if (text->len == 0 || text->data[0] != ' ')
		return false;
	text->data++;
	text->len--;
	return true;
}

static bool
read_hex(uint8_t out[32], struct view value)
{
	return hex_decode(out, 32, (const char *)value.data, value.len);
}

static bool
read_lane(struct ca_checkpoint_lane *out, struct view value)
{
	int64_t lane = 0;

	if (!take_number(&value, INT32_MAX, &lane) || !take_space(&value) ||
		!take_number(&value, INT64_MAX, &out->seq) || !take_space(&value))
		return false;
	out->lane = (int32_t)lane;
	return read_hex(out->head, value);
}

/* Reads loosely: the text that is made of what was read must be the text that was signed. */
static bool
read_text(struct ca_checkpoint *out, struct view text)
{
	struct view number, previous, at, records, root, lane;
	struct view origin;

	if (text.len < strlen(TITLE) || memcmp(text.data, TITLE, strlen(TITLE)) != 0)
		return false;
	text.data += strlen(TITLE);
	text.len -= strlen(TITLE);
	if (!take_line(&text, "log", &origin) || !take_line(&text, "number", &number) ||
		!take_line(&text, "previous", &previous) || !take_line(&text, "at", &at) ||
		!take_line(&text, "records", &records) || !take_line(&text, "root", &root))
		return false;
	if (!take_number(&number, INT64_MAX, &out->number) || !read_hex(out->previous, previous) ||
		!time_parse(&out->at_s, at) || !take_number(&records, INT64_MAX, &out->records) ||
		!read_hex(out->root, root))
		return false;
	out->lane_count = 0;
	while (out->lane_count < CA_CHECKPOINT_LANES_MAX && take_line(&text, "lane", &lane))
		if (!read_lane(&out->lanes[out->lane_count++], lane))
			return false;
	return text.len == 0;
}

/* A signature line of this log's: others may stand beside it (a witness's), and are not looked at. */
static enum status
check_signature(struct view text, struct view lines, const char *origin,
	const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES], struct err *err)
{
	uint8_t signature[SIGNATURE_BYTES];
	uint8_t id[KEY_ID_BYTES];
	size_t len;

	key_id(id, origin, public_key);
	while (lines.len > 0) { /* each takes a line */
		struct view line;
		struct view name;

		if (lines.len <= strlen(DASH) || memcmp(lines.data, DASH, strlen(DASH)) != 0 ||
			!take_line(&lines, "\xe2\x80\x94", &line))
			return malformed(err);
		name = (struct view){ line.data, strcspn((const char *)line.data, " \n") };
		if (name.len >= line.len || !view_equal_text(name, origin))
			continue;
		if (sodium_base642bin(signature, sizeof(signature),
			    (const char *)line.data + name.len + 1, line.len - name.len - 1, NULL,
			    &len, NULL, sodium_base64_VARIANT_ORIGINAL) != 0 ||
			len != sizeof(signature))
			return malformed(err);
		if (memcmp(signature, id, sizeof(id)) != 0)
			continue;
		if (crypto_sign_verify_detached(
			    signature + KEY_ID_BYTES, text.data, text.len, public_key) != 0)
			return err_set(err, ERR_DENIED, "checkpoint_forged",
				"checkpoint: the signature does not hold");
		return OK;
	}
	return err_set(err, ERR_DENIED, "checkpoint_key",
		"checkpoint: a signature with the key of %s wanted", origin);
}

enum status
ca_checkpoint_open(struct ca_checkpoint *out, struct view note,
	const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES], struct err *err)
{
	own_struct(buf) again = { .limit_bytes = CA_CHECKPOINT_NOTE_MAX_BYTES };
	char origin[CA_CHECKPOINT_ORIGIN_BYTES];
	size_t len = text_len(note);
	struct view text = { note.data, len };

	/* The last octet is a line end, so no search within runs out of the note. */
	if (len == 0 || note.len > CA_CHECKPOINT_NOTE_MAX_BYTES || note.data[note.len - 1] != '\n')
		return malformed(err);
	ca_checkpoint_origin(origin, public_key);
	TRY(check_signature(
		text, (struct view){ note.data + len + 1, note.len - len - 1 }, origin, public_key, err));
	if (!read_text(out, text) || write_text(&again, out, origin, err) != OK ||
		!view_equal(buf_view(&again), text))
		return malformed(err);
	return OK;
}
