/* The ceremonies of ca/keystore.h: how CA keys and certificates come to be. */
#include "ca/keystore.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/serial.h"
#include "ca/cert.h"
#include "ca/csr.h"
#include "ca/der.h"
#include "ca/file.h"
#include "ca/seal.h"
#include "ca/spki.h"
#include "ca/utf8.h"

#define CERTIFICATE_MAX_BYTES 8192
#define PEM_FILE_MAX_BYTES (256 * 1024)
#define BACKDATE_S 300 /* for readers whose clocks are a little behind */
#define VALIDITY_MAX_S (INT64_C(100) * 366 * 86400)
#define PASSPHRASE_MIN_BYTES 8
#define CROSS_SUFFIX ".cross.pem" /* not .crt: it is no CA of its own */
#define NAME_MAX_CHARACTERS 64 /* RFC 5280 appendix A.1: ub-common-name, ub-organization-name */

/* ---- what was written, and is taken back unless all goes well ---- */

struct written {
	char paths[4][FILE_PATH_BYTES];
	size_t count;
};

static void
written_undo(struct written *written)
{
	while (written->count > 0)
		(void)unlink(written->paths[--written->count]);
}
OWNER_STRUCT(written, written_undo)

static enum status
write_file(struct written *written, const char *path, struct view content, mode_t mode,
	struct err *err)
{
	TRY(file_create(path, content, mode, err));
	(void)snprintf(written->paths[written->count++], FILE_PATH_BYTES, "%s", path);
	return OK;
}

static enum status
write_in_dir(struct written *written, const struct ca_ceremony *c, const char *suffix,
	struct view content, mode_t mode, struct err *err)
{
	char path[FILE_PATH_BYTES];

	TRY(file_path(path, c->dir, c->ca_id, suffix, err));
	return write_file(written, path, content, mode, err);
}

static enum status
write_pem(struct written *written, const struct ca_ceremony *c, const char *suffix,
	const char *label, struct view der, struct err *err)
{
	own_struct(buf) pem = { .limit_bytes = PEM_FILE_MAX_BYTES };

	TRY(ca_pem_encode(&pem, label, der, err));
	return write_in_dir(written, c, suffix, buf_view(&pem), 0644, err);
}

static enum status
write_key(struct written *written, const struct ca_ceremony *c, const struct secret *kek,
	const struct ca_key *key, const char *path, struct err *err)
{
	own_struct(bytes) sealed = { NULL, 0 };

	TRY(seal_key(&sealed, (struct view){ kek->data, kek->len }, c->ca_id, key, err));
	if (path != NULL)
		return write_file(written, path, view_of(&sealed), 0600, err);
	return write_in_dir(written, c, ".key", view_of(&sealed), 0600, err);
}

/* ---- before anything is written ---- */

static enum status
check_passphrase(const struct ca_ceremony *c, struct err *err)
{
	if (c->passphrase.len < PASSPHRASE_MIN_BYTES)
		return err_set(err, ERR_ARGUMENT, "ceremony_passphrase",
			"passphrase: at least %d octets wanted, %zu found", PASSPHRASE_MIN_BYTES,
			c->passphrase.len);
	return OK;
}

static bool
is_ca_id(const char *text)
{
	size_t len = strlen(text);

	return len > 0 && len < CA_ID_BYTES &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static enum status
check_ceremony(const struct ca_ceremony *c, struct err *err)
{
	if (c->dir == NULL || c->clock == NULL || c->entropy == NULL)
		return err_set(err, ERR_INTERNAL, "ceremony",
			"directory, clock and entropy wanted");
	if (c->ca_id == NULL || !is_ca_id(c->ca_id))
		return err_set(err, ERR_ARGUMENT, "ceremony_ca_id",
			"CA id: 1 to %d of a-z, 0-9 and hyphen wanted", CA_ID_BYTES - 1);
	TRY(check_passphrase(c, err));
	if (c->validity_s <= 0 || c->validity_s > VALIDITY_MAX_S)
		return err_set(err, ERR_ARGUMENT, "ceremony_validity",
			"validity: 1 s to 100 years wanted, %" PRId64 " s found", c->validity_s);
	return OK;
}

/* The directory's KEK; a new directory gets parameters of its own. */
static enum status
open_seal(struct written *written, const struct ca_ceremony *c, struct secret *kek, struct err *err)
{
	char path[FILE_PATH_BYTES];

	TRY(directory_make(c->dir, err));
	TRY(file_path(path, c->dir, SEAL_PARAMS_NAME, "", err));
	if (file_exists(path))
		return seal_kek(kek, c->dir, c->passphrase, err);
	TRY(seal_begin(kek, c->dir, c->passphrase, c->fast_seal, err));
	(void)snprintf(written->paths[written->count++], FILE_PATH_BYTES, "%s", path);
	return OK;
}

/* ---- certificates and requests of CAs ---- */

static enum status
put_attribute(struct der_writer *w, const char *oid, const char *field, const char *value,
	struct err *err)
{
	if (!utf8_is_printable(view_text(value), NAME_MAX_CHARACTERS))
		return err_set(err, ERR_ARGUMENT, "ceremony_name",
			"%s: 1 to %d printable characters of UTF-8 wanted", field,
			NAME_MAX_CHARACTERS);
	der_open(w, DER_SET);
	der_open(w, DER_SEQUENCE);
	der_put_oid(w, oid);
	der_put(w, DER_UTF8_STRING, view_text(value)); /* RFC 5280 4.1.2.4 */
	der_close(w);
	der_close(w);
	return OK;
}

static enum status
write_subject(struct der_writer *w, const struct ca_ceremony *c, const char *what, struct err *err)
{
	const char *common_name = c->common_name;
	char made[512];

	if (common_name == NULL) {
		bool only = c->organization != NULL || strcmp(c->ca_id, "root") == 0;

		(void)snprintf(made, sizeof(made), "%s %s%s%s",
			c->organization != NULL ? c->organization : "jitrca", what, only ? "" : " ",
			only ? "" : c->ca_id);
		common_name = made;
	}
	der_open(w, DER_SEQUENCE);
	if (c->organization != NULL)
		TRY(put_attribute(w, "2.5.4.10", "organization", c->organization, err));
	TRY(put_attribute(w, "2.5.4.3", "common name", common_name, err));
	der_close(w);
	return OK;
}

static void
open_extension(struct der_writer *w, const char *oid, bool critical)
{
	der_open(w, DER_SEQUENCE);
	der_put_oid(w, oid);
	if (critical)
		der_put_boolean(w, true);
	der_open(w, DER_OCTET_STRING);
}

static void
close_extension(struct der_writer *w)
{
	der_close(w);
	der_close(w);
}

/* What every CA has. path_len -1: no pathLenConstraint. */
static void
write_ca_extensions(struct der_writer *w, int path_len)
{
	open_extension(w, "2.5.29.19", true); /* RFC 5280 4.2.1.9 */
	der_open(w, DER_SEQUENCE);
	der_put_boolean(w, true);
	if (path_len >= 0)
		der_put_number(w, (uint64_t)path_len);
	der_close(w);
	close_extension(w);
	open_extension(w, "2.5.29.15", true); /* 4.2.1.3 */
	der_put_named_bits(w, KU_KEY_CERT_SIGN | KU_CRL_SIGN);
	close_extension(w);
}

struct ca_certificate {
	struct view subject, issuer; /* Names, DER */
	struct view spki;
	struct view issuer_key_id; /* empty: self-signed */
	int path_len;
	int64_t not_before_s, not_after_s;
};

static enum status
write_tbs(struct der_writer *w, const struct ca_certificate *what, const struct ca_key *signer,
	struct entropy *entropy, struct err *err)
{
	uint8_t key_id[CA_KEY_ID_BYTES];
	struct serial serial;

	TRY(serial_draw(&serial, what->not_after_s, entropy, err));
	TRY(ca_spki_key_id(key_id, what->spki, err));
	der_open(w, DER_SEQUENCE);
	der_open(w, DER_CONTEXT_CONSTRUCTED(0)); /* RFC 5280 4.1.2.1: version 3 */
	der_put_number(w, 2);
	der_close(w);
	der_put_unsigned(w, (struct view){ serial.octets, SERIAL_BYTES });
	der_put_raw(w, ca_key_algorithm(signer));
	der_put_raw(w, what->issuer);
	der_open(w, DER_SEQUENCE);
	der_put_time(w, what->not_before_s);
	der_put_time(w, what->not_after_s);
	der_close(w);
	der_put_raw(w, what->subject);
	der_put_raw(w, what->spki);
	der_open(w, DER_CONTEXT_CONSTRUCTED(3));
	der_open(w, DER_SEQUENCE);
	write_ca_extensions(w, what->path_len);
	open_extension(w, "2.5.29.14", false); /* 4.2.1.2: subjectKeyIdentifier */
	der_put(w, DER_OCTET_STRING, (struct view){ key_id, sizeof(key_id) });
	close_extension(w);
	if (what->issuer_key_id.len > 0) {
		open_extension(w, "2.5.29.35", false); /* 4.2.1.1: authorityKeyIdentifier */
		der_open(w, DER_SEQUENCE);
		der_put(w, DER_CONTEXT(0), what->issuer_key_id);
		der_close(w);
		close_extension(w);
	}
	der_close(w);
	der_close(w);
	der_close(w);
	return der_finish(w, err);
}

/* SEQUENCE { body, algorithm, signature }: certificates and requests alike. */
static enum status
sign(struct bytes *out, struct view body, struct ca_key *signer, struct err *err)
{
	uint8_t signature[CA_SIGNATURE_MAX_BYTES];
	own_struct(der_writer) w;
	size_t len;

	der_writer_init(&w, CERTIFICATE_MAX_BYTES);
	TRY(ca_key_sign(signer, body, signature, &len, err));
	der_open(&w, DER_SEQUENCE);
	der_put_raw(&w, body);
	der_put_raw(&w, ca_key_algorithm(signer));
	der_put_bits(&w, (struct view){ signature, len });
	der_close(&w);
	TRY(der_finish(&w, err));
	*out = buf_give(&w.buf);
	return OK;
}

static enum status
certify(struct bytes *out, const struct ca_certificate *what, struct ca_key *signer,
	struct entropy *entropy, struct err *err)
{
	own_struct(der_writer) w;

	der_writer_init(&w, CERTIFICATE_MAX_BYTES);
	TRY(write_tbs(&w, what, signer, entropy, err));
	return sign(out, buf_view(&w.buf), signer, err);
}

/* What we made is read back before it is kept: it must hold under its issuer. */
static enum status
check_made(struct view der, struct view issuer_der, struct err *err)
{
	struct ca_cert_view made, issuer;

	TRY(ca_cert_parse(&made, der, err));
	TRY(ca_cert_parse(&issuer, issuer_der, err));
	return ca_cert_issued_by(&made, &issuer, err);
}

enum status
ca_keystore_make_root(const struct ca_ceremony *c, const char *key_path, struct err *err)
{
	own_struct(written) written = { .count = 0 };
	own_struct(secret) kek = { NULL, 0 };
	own(ca_key) key = NULL;
	own_struct(bytes) certificate = { NULL, 0 };
	own_struct(der_writer) subject;
	int64_t now_s;

	der_writer_init(&subject, 1024);
	TRY(check_ceremony(c, err));
	TRY(write_subject(&subject, c, "Root CA", err));
	TRY(der_finish(&subject, err));
	TRY(ca_key_generate(&key, c->key_type, err));
	now_s = clock_wall_s(c->clock);
	TRY(certify(&certificate, &(struct ca_certificate){
		.subject = buf_view(&subject.buf),
		.issuer = buf_view(&subject.buf),
		.spki = ca_key_spki(key),
		.path_len = -1,
		.not_before_s = now_s - BACKDATE_S,
		.not_after_s = now_s + c->validity_s,
	}, key, c->entropy, err));
	TRY(check_made(view_of(&certificate), view_of(&certificate), err));

	TRY(open_seal(&written, c, &kek, err));
	TRY(write_key(&written, c, &kek, key, key_path, err));
	TRY(write_pem(&written, c, ".crt", "CERTIFICATE", view_of(&certificate), err));
	written.count = 0; /* kept */
	return OK;
}

/*
 * Whoever looks for an issuer by its name must not find two (RFC 5280 4.1.2.6), and IoT Core takes ten CAs
 * of one subject.
 */
static enum status
check_subject_free(const struct ca_ceremony *c, struct view subject, struct err *err)
{
	own(ca_keystore) keystore = NULL;

	TRY(ca_keystore_open(&keystore, c->dir, (struct view){ NULL, 0 }, err));
	for (size_t i = 0; i < ca_keystore_count(keystore); i++) {
		const struct ca_keystore_entry *entry = ca_keystore_at(keystore, i);
		struct ca_cert_view other;

		TRY(ca_cert_parse(&other, view_of(&entry->certificate), err));
		if (strcmp(entry->ca_id, c->ca_id) != 0 && view_equal(other.subject, subject))
			return err_set(err, ERR_CONFLICT, "ceremony_subject",
				"subject: another than that of %s wanted", entry->ca_id);
	}
	return OK;
}

/* ---- an issuing CA under our root ---- */

struct root {
	struct bytes der;
	struct ca_cert_view certificate; /* of der */
	struct ca_key *key;
};

static void
root_free(struct root *root)
{
	bytes_free(&root->der);
	ca_key_free(give(root->key));
}
OWNER_STRUCT(root, root_free)

static enum status
open_root(struct root *root, const struct ca_ceremony *c, const char *root_id, const char *key_path,
	const struct secret *kek, struct err *err)
{
	own_struct(bytes) pem = { NULL, 0 };
	own_struct(bytes) sealed = { NULL, 0 };
	char path[FILE_PATH_BYTES];

	if (!is_ca_id(root_id))
		return err_set(err, ERR_ARGUMENT, "ceremony_root", "root: a CA id wanted");
	TRY(file_path(path, c->dir, root_id, ".crt", err));
	TRY(file_read(&pem, path, PEM_FILE_MAX_BYTES, err));
	TRY(ca_pem_decode(&root->der, "CERTIFICATE", view_of(&pem), err));
	TRY(ca_cert_parse(&root->certificate, view_of(&root->der), err));
	if (ca_cert_issued_by(&root->certificate, &root->certificate, err) != OK) {
		if (err->status != ERR_ARGUMENT)
			return err->status;
		return err_set(err, ERR_ARGUMENT, "ceremony_root",
			"%s: a self-signed CA wanted", path);
	}

	TRY(file_path(path, c->dir, root_id, ".key", err));
	if (key_path == NULL)
		key_path = path;
	TRY(file_read(&sealed, key_path, SEALED_KEY_MAX_BYTES, err));
	if (unseal_key(&root->key, (struct view){ kek->data, kek->len }, root_id,
		    root->certificate.spki, view_of(&sealed), err) != OK)
		return err_wrap(err, "%s", key_path);
	return OK;
}

/* RFC 5280 6.1: a chain is only as long valid as each of its certificates. */
static enum status
issuing_validity(struct ca_certificate *what, const struct ca_ceremony *c,
	const struct ca_cert_view *root, struct err *err)
{
	int64_t now_s = clock_wall_s(c->clock);

	if (now_s < root->not_before_s || now_s >= root->not_after_s)
		return err_set(err, ERR_ARGUMENT, "ceremony_root_validity",
			"root: a certificate that is valid now wanted");
	what->not_before_s = now_s - BACKDATE_S;
	if (what->not_before_s < root->not_before_s)
		what->not_before_s = root->not_before_s;
	what->not_after_s = now_s + c->validity_s;
	if (what->not_after_s > root->not_after_s)
		what->not_after_s = root->not_after_s;
	return OK;
}

enum status
ca_keystore_make_cross(const struct ca_ceremony *c, const char *old_root_id,
	const char *old_root_key_path, struct err *err)
{
	own_struct(written) written = { .count = 0 };
	own_struct(secret) kek = { NULL, 0 };
	own_struct(root) old = { .key = NULL };
	own_struct(bytes) pem = { NULL, 0 };
	own_struct(bytes) der = { NULL, 0 };
	own_struct(bytes) cross = { NULL, 0 };
	own_struct(buf) chain = { .limit_bytes = PEM_FILE_MAX_BYTES };
	struct ca_certificate what;
	struct ca_cert_view root;
	char path[FILE_PATH_BYTES];

	TRY(check_ceremony(c, err));
	TRY(seal_kek(&kek, c->dir, c->passphrase, err));
	TRY(open_root(&old, c, old_root_id, old_root_key_path, &kek, err));
	TRY(file_path(path, c->dir, c->ca_id, ".crt", err));
	TRY(file_read(&pem, path, PEM_FILE_MAX_BYTES, err));
	TRY(ca_pem_decode(&der, "CERTIFICATE", view_of(&pem), err));
	TRY(ca_cert_parse(&root, view_of(&der), err));
	what = (struct ca_certificate){
		.subject = root.subject,
		.issuer = old.certificate.subject,
		.spki = root.spki,
		.issuer_key_id = old.certificate.ski,
		.path_len = -1,
	};
	if (view_equal(what.subject, what.issuer)) /* RFC 5280 6.1: it would count as self-issued */
		return err_set(err, ERR_ARGUMENT, "ceremony_name",
			"common name: another than the older root's wanted");
	TRY(issuing_validity(&what, c, &old.certificate, err));
	if (what.not_after_s > root.not_after_s)
		what.not_after_s = root.not_after_s;
	TRY(certify(&cross, &what, old.key, c->entropy, err));
	TRY(check_made(view_of(&cross), view_of(&old.der), err));
	TRY(ca_pem_encode(&chain, "CERTIFICATE", view_of(&cross), err));
	TRY(ca_pem_encode(&chain, "CERTIFICATE", view_of(&old.der), err));
	TRY(write_in_dir(&written, c, CROSS_SUFFIX, buf_view(&chain), 0644, err));
	written.count = 0; /* kept */
	return OK;
}

/* The issuers of what this root signs: itself, or its cross-certificate and the older root. */
static enum status
write_chain(struct written *written, const struct ca_ceremony *c, const char *root_id,
	struct view root_der, struct err *err)
{
	own_struct(bytes) cross = { NULL, 0 };
	char path[FILE_PATH_BYTES];

	TRY(file_path(path, c->dir, root_id, CROSS_SUFFIX, err));
	if (!file_exists(path))
		return write_pem(written, c, ".chain.crt", "CERTIFICATE", root_der, err);
	TRY(file_read(&cross, path, PEM_FILE_MAX_BYTES, err));
	return write_in_dir(written, c, ".chain.crt", view_of(&cross), 0644, err);
}

enum status
ca_keystore_make_issuing(const struct ca_ceremony *c, const char *root_id,
	const char *root_key_path, struct err *err)
{
	own_struct(written) written = { .count = 0 };
	own_struct(secret) kek = { NULL, 0 };
	own_struct(root) root = { .key = NULL };
	own(ca_key) key = NULL;
	own_struct(bytes) certificate = { NULL, 0 };
	own_struct(der_writer) subject;
	struct ca_certificate what;

	der_writer_init(&subject, 1024);
	TRY(check_ceremony(c, err));
	TRY(write_subject(&subject, c, "Issuing CA", err));
	TRY(der_finish(&subject, err));
	TRY(seal_kek(&kek, c->dir, c->passphrase, err));
	TRY(open_root(&root, c, root_id, root_key_path, &kek, err));
	TRY(ca_key_generate(&key, c->key_type, err));
	what = (struct ca_certificate){
		.subject = buf_view(&subject.buf),
		.issuer = root.certificate.subject,
		.spki = ca_key_spki(key),
		.issuer_key_id = root.certificate.ski,
		.path_len = 0,
	};
	if (view_equal(what.subject, what.issuer)) /* RFC 5280 6.1: it would count as self-issued */
		return err_set(err, ERR_ARGUMENT, "ceremony_name",
			"common name: another than the root's wanted");
	TRY(check_subject_free(c, what.subject, err));
	TRY(issuing_validity(&what, c, &root.certificate, err));
	TRY(certify(&certificate, &what, root.key, c->entropy, err));
	TRY(check_made(view_of(&certificate), view_of(&root.der), err));

	TRY(write_key(&written, c, &kek, key, NULL, err));
	TRY(write_chain(&written, c, root_id, view_of(&root.der), err));
	TRY(write_pem(&written, c, ".crt", "CERTIFICATE", view_of(&certificate), err));
	written.count = 0; /* kept */
	return OK;
}

/* ---- an issuing CA under somebody else's root ---- */

static enum status
request(struct bytes *out, const struct ca_ceremony *c, struct ca_key *key, struct err *err)
{
	own_struct(der_writer) w;

	der_writer_init(&w, CERTIFICATE_MAX_BYTES);
	der_open(&w, DER_SEQUENCE); /* RFC 2986 4.1 */
	der_put_number(&w, 0);
	TRY(write_subject(&w, c, "Issuing CA", err));
	der_put_raw(&w, ca_key_spki(key));
	der_open(&w, DER_CONTEXT_CONSTRUCTED(0));
	der_open(&w, DER_SEQUENCE);
	der_put_oid(&w, "1.2.840.113549.1.9.14"); /* extensionRequest, RFC 2985 5.4.2 */
	der_open(&w, DER_SET);
	der_open(&w, DER_SEQUENCE);
	write_ca_extensions(&w, 0);
	der_close(&w);
	der_close(&w);
	der_close(&w);
	der_close(&w);
	der_close(&w);
	TRY(der_finish(&w, err));
	return sign(out, buf_view(&w.buf), key, err);
}

enum status
ca_keystore_make_csr(const struct ca_ceremony *c, struct err *err)
{
	own_struct(written) written = { .count = 0 };
	own_struct(secret) kek = { NULL, 0 };
	own(ca_key) key = NULL;
	own_struct(bytes) csr = { NULL, 0 };
	char path[FILE_PATH_BYTES];

	TRY(check_ceremony(c, err));
	TRY(file_path(path, c->dir, c->ca_id, ".crt", err));
	if (file_exists(path))
		return err_set(err, ERR_CONFLICT, "file_exists", "%s: exists already", path);
	TRY(ca_key_generate(&key, c->key_type, err));
	TRY(request(&csr, c, key, err));
	TRY(open_seal(&written, c, &kek, err));
	TRY(write_key(&written, c, &kek, key, NULL, err));
	TRY(write_pem(&written, c, ".csr", "CERTIFICATE REQUEST", view_of(&csr), err));
	written.count = 0; /* kept */
	return OK;
}

/* ---- the answer ---- */

#define POOL_MAX 16 /* certificates that somebody may send as a chain */

struct pool {
	struct bytes der[POOL_MAX];
	size_t count;
};

static void
pool_free(struct pool *pool)
{
	while (pool->count > 0)
		bytes_free(&pool->der[--pool->count]);
}
OWNER_STRUCT(pool, pool_free)

static enum status
add_to_pool(void *arg, const char *label, struct view der, struct err *err)
{
	struct pool *pool = arg;

	if (strcmp(label, "CERTIFICATE") != 0)
		return err_set(err, ERR_ARGUMENT, "import_chain",
			"chain: only certificates wanted, a %s found", label);
	if (pool->count == POOL_MAX)
		return err_set(err, ERR_ARGUMENT, "import_chain",
			"chain: at most %d certificates wanted", POOL_MAX);
	TRY(bytes_copy(&pool->der[pool->count], der, err));
	pool->count++;
	return OK;
}

static enum status
check_now(const struct ca_cert_view *certificate, int64_t now_s, struct err *err)
{
	char subject[128];

	if (now_s >= certificate->not_before_s && now_s <= certificate->not_after_s)
		return OK;
	ca_name_text(subject, sizeof(subject), certificate->subject);
	return err_set(err, ERR_ARGUMENT, "import_validity",
		"%s: a certificate that is valid now wanted", subject);
}

/* RFC 5280 4.2.1: what a CA that issues leaves and CRLs must say of itself. */
static enum status
check_answer(const struct ca_cert_view *answer, int64_t now_s, struct err *err)
{
	if (!answer->is_ca)
		return err_set(err, ERR_ARGUMENT, "import_not_ca",
			"certificate: RFC 5280 4.2.1.9: basicConstraints of a CA wanted");
	if ((answer->key_usage & KU_KEY_CERT_SIGN) == 0 || (answer->key_usage & KU_CRL_SIGN) == 0)
		return err_set(err, ERR_ARGUMENT, "import_key_usage",
			"certificate: RFC 5280 4.2.1.3: keyCertSign and cRLSign wanted");
	if (answer->ski.len == 0)
		return err_set(err, ERR_ARGUMENT, "import_key_id",
			"certificate: RFC 5280 4.2.1.2: a subjectKeyIdentifier wanted");
	/* Such as nameConstraints: we would issue what does not verify. */
	if (answer->unknown_critical)
		return err_set(err, ERR_ARGUMENT, "import_extension",
			"certificate: a critical extension other than basicConstraints, keyUsage");
	if (answer->subject.len <= 2)
		return err_set(err, ERR_ARGUMENT, "import_subject",
			"certificate: RFC 5280 4.1.2.6: a CA's subject wanted, none found");
	return check_now(answer, now_s, err);
}

/* The next certificate upwards; *found NULL: none in the pool. */
static enum status
find_issuer(const struct pool *pool, const struct ca_cert_view *below, struct ca_cert_view *above,
	const struct bytes **found, struct err *err)
{
	*found = NULL;
	for (size_t i = 0; i < pool->count && *found == NULL; i++) {
		if (ca_cert_parse(above, view_of(&pool->der[i]), err) == OK &&
		    ca_cert_issued_by(below, above, err) == OK)
			*found = &pool->der[i];
		else if (err->status != ERR_ARGUMENT) /* memory, not the certificate */
			return err->status;
	}
	return OK;
}

static enum status
order_chain(struct buf *pem, const struct pool *pool, const struct ca_cert_view *answer,
	int64_t now_s, struct err *err)
{
	struct ca_cert_view below = *answer, above;
	char subject[128];

	for (size_t i = 0; i < CA_CHAIN_MAX; i++) {
		const struct bytes *found;

		TRY(find_issuer(pool, &below, &above, &found, err));
		if (found == NULL) {
			ca_name_text(subject, sizeof(subject), below.issuer);
			return err_set(err, ERR_ARGUMENT, "import_chain",
				"chain: the certificate of %s that signed the one below it wanted",
				subject);
		}
		if (above.path_len >= 0 && (size_t)above.path_len <= i)
			return err_set(err, ERR_ARGUMENT, "import_chain",
				"chain: RFC 5280 4.2.1.9: pathLenConstraint is exceeded");
		TRY(check_now(&above, now_s, err));
		TRY(ca_pem_encode(pem, "CERTIFICATE", view_of(found), err));
		if (view_equal(above.subject, above.issuer))
			return OK;
		below = above;
	}
	return err_set(err, ERR_ARGUMENT, "import_chain",
		"chain: a self-signed root after at most %d certificates wanted", CA_CHAIN_MAX);
}

/* Is the certificate for the key that waits here, and can that key be unsealed? */
static enum status
check_key(const struct ca_ceremony *c, const struct ca_cert_view *answer, struct err *err)
{
	own_struct(bytes) pem = { NULL, 0 };
	own_struct(bytes) sealed = { NULL, 0 };
	own_struct(secret) kek = { NULL, 0 };
	own_struct(ca_csr) csr = { .spki = { NULL, 0 } };
	own(ca_verifier) verifier = NULL;
	own(ca_key) key = NULL;
	char path[FILE_PATH_BYTES];

	TRY(file_path(path, c->dir, c->ca_id, ".csr", err));
	TRY(file_read(&pem, path, PEM_FILE_MAX_BYTES, err));
	TRY(ca_verifier_new(&verifier, err));
	TRY(ca_csr_read_pem(verifier, view_of(&pem), &csr, err));
	if (!view_equal(answer->spki, view_of(&csr.spki)))
		return err_set(err, ERR_ARGUMENT, "import_key",
			"certificate: the public key of %s wanted, another found", path);
	TRY(seal_kek(&kek, c->dir, c->passphrase, err));
	TRY(file_path(path, c->dir, c->ca_id, ".key", err));
	TRY(file_read(&sealed, path, SEALED_KEY_MAX_BYTES, err));
	if (unseal_key(&key, (struct view){ kek.data, kek.len }, c->ca_id, answer->spki,
		    view_of(&sealed), err) != OK)
		return err_wrap(err, "%s", path);
	return OK;
}

enum status
ca_keystore_import(const struct ca_ceremony *c, struct view certificate_pem, struct view chain_pem,
	struct err *err)
{
	own_struct(written) written = { .count = 0 };
	own_struct(bytes) der = { NULL, 0 };
	own_struct(pool) pool = { .count = 0 };
	own_struct(buf) chain = { .limit_bytes = PEM_FILE_MAX_BYTES };
	int64_t now_s = clock_wall_s(c->clock);
	struct ca_cert_view answer;
	char path[FILE_PATH_BYTES];

	if (!is_ca_id(c->ca_id))
		return err_set(err, ERR_ARGUMENT, "ceremony_ca_id", "CA id: a CA id wanted");
	if (ca_pem_decode(&der, "CERTIFICATE", certificate_pem, err) != OK ||
	    ca_cert_parse(&answer, view_of(&der), err) != OK) {
		if (err->status != ERR_ARGUMENT)
			return err->status;
		(void)snprintf(err->code, sizeof(err->code), "import_certificate");
		return err_wrap(err, "certificate");
	}
	TRY(check_key(c, &answer, err));
	TRY(check_answer(&answer, now_s, err));
	TRY(ca_pem_each(chain_pem, add_to_pool, &pool, err));
	TRY(order_chain(&chain, &pool, &answer, now_s, err));

	TRY(write_in_dir(&written, c, ".chain.crt", buf_view(&chain), 0644, err));
	TRY(write_pem(&written, c, ".crt", "CERTIFICATE", view_of(&der), err));
	written.count = 0; /* kept */
	TRY(file_path(path, c->dir, c->ca_id, ".csr", err));
	(void)unlink(path); /* answered; that it stays would do no harm */
	return OK;
}

/* ---- the key of the audit log's checkpoints ---- */

enum status
ca_keystore_make_checkpoint_key(const struct ca_ceremony *ceremony, struct err *err)
{
	struct ca_ceremony c = *ceremony;
	own_struct(written) written = { .count = 0 };
	own_struct(secret) kek = { NULL, 0 };
	own_struct(secret) plain = { NULL, 0 };
	own_struct(bytes) sealed = { NULL, 0 };
	own_struct(buf) pem = { .limit_bytes = PEM_FILE_MAX_BYTES };
	own_struct(ca_checkpoint_key) key = { .known = false };
	uint8_t spki[CA_CHECKPOINT_SPKI_BYTES];

	c.ca_id = CA_CHECKPOINT_KEY_NAME; /* the name of its files */
	TRY(check_passphrase(&c, err));
	TRY(ca_checkpoint_key_generate(&key, err));
	TRY(ca_checkpoint_key_to_pkcs8(&key, &plain, err));
	ca_checkpoint_key_spki(spki, key.public_key);
	TRY(ca_checkpoint_key_to_pem(key.public_key, &pem, err));
	TRY(open_seal(&written, &c, &kek, err));
	TRY(seal_secret(&sealed, (struct view){ kek.data, kek.len }, c.ca_id,
		(struct view){ spki, sizeof(spki) }, &plain, err));
	TRY(write_in_dir(&written, &c, ".key", view_of(&sealed), 0600, err));
	TRY(write_in_dir(&written, &c, ".pub", buf_view(&pem), 0644, err));
	written.count = 0; /* kept */
	return OK;
}
