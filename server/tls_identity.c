#include "server/tls_identity.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "ca/digest.h"
#include "ca/file.h"
#include "ca/key.h"
#include "ca/secret.h"
#include "server/http/http.h"
#include "server/issuance/issuance.h"

#define PAIRS_MAX 8
#define PEM_MAX_BYTES (128 * 1024)
#define PROFILE "server"
#define IDENTITY "jitrca-server" /* CN; the names that count are in the SAN */
/* How long a revoked one may be shown. */
#define CHECK_EVERY_MS 5000
#define RETRY_MS 5000

struct pair {
	struct bytes certificate_pem;
	struct secret key_pem;
};

struct tls_identity {
	struct pair pairs[PAIRS_MAX];
	size_t count;
	bool own;     /* issued by ourselves */
	bool applied; /* the listeners have it */
	int64_t not_before_s, not_after_s;
	uint8_t sha256[32]; /* of the leaf, if own */
};

/* ---- from files ---- */

/* One "CERT.pem:KEY.pem" of the list, which has been checked to look like that. */
static enum status
read_pair(struct pair *pair, const char *text, size_t len, struct err *err)
{
	const char *colon = memchr(text, ':', len);
	char path[CONFIG_TEXT_BYTES];

	if (colon == NULL)
		return err_set(
			err, ERR_ARGUMENT, "tls_certificate", "tls_certificates: CERT:KEY wanted");
	(void)snprintf(path, sizeof(path), "%.*s", (int)(colon - text), text);
	TRY(file_read(&pair->certificate_pem, path, PEM_MAX_BYTES, err));
	(void)snprintf(path, sizeof(path), "%.*s", (int)(text + len - colon - 1), colon + 1);
	return secret_read_file(&pair->key_pem, path, PEM_MAX_BYTES, err);
}

enum status
tls_identity_new(struct tls_identity **out, const struct config *config, struct err *err)
{
	struct tls_identity *identity = mem_zalloc(sizeof(*identity));
	const char *at = config->tls_certificates;

	if (identity == NULL)
		return err_memory(err);
	identity->own = at[0] == '\0';
	while (*at != '\0') {
		size_t len = strcspn(at, ",");
		enum status status =
			identity->count == PAIRS_MAX
				? err_set(err, ERR_ARGUMENT, "tls_certificate",
					  "tls_certificates: at most %d pairs wanted", PAIRS_MAX)
				: read_pair(&identity->pairs[identity->count++], at, len, err);

		if (status != OK) {
			tls_identity_free(identity);
			return status;
		}
		at += len + (at[len] == ',');
	}
	*out = identity;
	return OK;
}

static void
forget(struct tls_identity *identity)
{
	for (size_t i = 0; i < identity->count; i++) {
		bytes_free(&identity->pairs[i].certificate_pem);
		secret_free(&identity->pairs[i].key_pem);
	}
	identity->count = 0;
}

void
tls_identity_free(struct tls_identity *identity)
{
	if (identity == NULL)
		return;
	forget(identity);
	mem_free(identity);
}

/* ---- issued by ourselves: names ---- */

/* server_names as the profile wants them: DNS names here, addresses there. */
struct names {
	char dns[129], ip[129];
};

static void
names_of(struct names *out, const struct config *config)
{
	const char *at = config->server_names;

	*out = (struct names){ .dns = "" };
	while (*at != '\0') {
		size_t len = strcspn(at, ",");
		uint8_t scratch[sizeof(struct in6_addr)];
		char name[129];
		char *into;
		size_t used;

		(void)snprintf(name, sizeof(name), "%.*s", (int)len, at);
		into = inet_pton(AF_INET, name, scratch) == 1 ||
		                       inet_pton(AF_INET6, name, scratch) == 1
		               ? out->ip
		               : out->dns;
		used = strlen(into);
		(void)snprintf(
			into + used, sizeof(out->dns) - used, "%s%s", used > 0 ? "," : "", name);
		at += len + (at[len] == ',');
	}
}

/* ---- issued by ourselves: the kept file ----
 * A first line with what it was made for, the key, then the chain, leaf first. */

static void
headline(char *out, size_t size, const struct app *app)
{
	(void)snprintf(out, size, "# %s %s\n", app->issuing->ca_id, app->config.server_names);
}

static void
kept_path(char *out, size_t size, const struct app *app, const char *suffix)
{
	(void)snprintf(out, size, "%s/tls/server.pem%s", app->config.data_dir, suffix);
}

struct parts {
	struct secret key;
	struct bytes leaf;
	struct buf chain; /* PEM, leaf first */
};

static void
parts_free(struct parts *parts)
{
	secret_free(&parts->key);
	bytes_free(&parts->leaf);
	buf_free(&parts->chain);
}
OWNER_STRUCT(parts, parts_free)

static enum status
take_block(void *arg, const char *label, struct view der, struct err *err)
{
	struct parts *parts = arg;

	if (strcmp(label, "PRIVATE KEY") == 0 && parts->key.data == NULL)
		return secret_copy(&parts->key, der, err);
	if (strcmp(label, "CERTIFICATE") != 0)
		return err_set(
			err, ERR_ARGUMENT, "tls_certificate", "server.pem: a block '%s'", label);
	if (parts->leaf.data == NULL)
		TRY(bytes_copy(&parts->leaf, der, err));
	return ca_pem_encode(&parts->chain, "CERTIFICATE", der, err);
}

/* Is the leaf's the key, and is our own issuing CA behind it? */
static enum status
check_kept(const struct app *app, const struct parts *parts, struct ca_cert_view *view,
	struct err *err)
{
	own(ca_key) key = NULL;
	const char *ca_id;

	if (parts->key.data == NULL || parts->leaf.data == NULL)
		return err_set(err, ERR_ARGUMENT, "tls_certificate",
			"server.pem: a key and a certificate wanted");
	TRY(ca_cert_parse(view, view_of(&parts->leaf), err));
	TRY(ca_key_from_pkcs8(&key, (struct view){ parts->key.data, parts->key.len }, err));
	if (!view_equal(view->spki, ca_key_spki(key)))
		return err_set(err, ERR_ARGUMENT, "tls_certificate",
			"server.pem: the key is another one's");
	TRY(ca_trust_verify(
		app->trust, view_of(&parts->leaf), clock_wall_s(app->clock), true, &ca_id, err));
	if (strcmp(ca_id, app->issuing->ca_id) != 0)
		return err_set(
			err, ERR_ARGUMENT, "tls_certificate", "server.pem: issued by %s", ca_id);
	return OK;
}

/* A certificate that was revoked, or that this database does not know, is not shown again. */
static enum status
check_row(struct app *app, const uint8_t sha256[32], struct err *err)
{
	own_struct(db_certificate) row = { .issued_at_s = 0 };
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_certificate_by_sha256(&tx, sha256, &row, err));
	if (row.status != CERT_ACTIVE)
		return err_set(err, ERR_CONFLICT, "tls_certificate",
			"server.pem: the certificate is %s", cert_status_name(row.status));
	return OK;
}

static enum status
take_parts(struct tls_identity *identity, struct parts *parts, const struct ca_cert_view *view,
	struct err *err)
{
	own_struct(buf) key_pem = { .limit_bytes = PEM_MAX_BYTES };
	struct pair *pair = &identity->pairs[0];
	enum status status;

	TRY(ca_pem_encode(
		&key_pem, "PRIVATE KEY", (struct view){ parts->key.data, parts->key.len }, err));
	forget(identity);
	status = secret_copy(&pair->key_pem, buf_view(&key_pem), err);
	explicit_bzero(key_pem.data, key_pem.len);
	TRY(status);
	pair->certificate_pem = buf_give(&parts->chain);
	identity->count = 1;
	ca_sha256(identity->sha256, view_of(&parts->leaf));
	identity->not_before_s = view->not_before_s;
	identity->not_after_s = view->not_after_s;
	return OK;
}

static enum status
read_kept(struct tls_identity *identity, struct app *app, struct err *err)
{
	own_struct(parts) parts = { .chain = { .limit_bytes = PEM_MAX_BYTES } };
	own_struct(secret) whole = { NULL, 0 };
	char path[CONFIG_TEXT_BYTES + 32];
	char head[2 * CONFIG_TEXT_BYTES];
	struct ca_cert_view view;

	kept_path(path, sizeof(path), app, "");
	TRY(secret_read_file(&whole, path, PEM_MAX_BYTES, err));
	headline(head, sizeof(head), app);
	if (whole.len < strlen(head) || memcmp(whole.data, head, strlen(head)) != 0)
		return err_set(
			err, ERR_CONFLICT, "tls_certificate", "%s: made for other names", path);
	TRY(ca_pem_each((struct view){ whole.data, whole.len }, take_block, &parts, err));
	TRY(check_kept(app, &parts, &view, err));
	ca_sha256(identity->sha256, view_of(&parts.leaf));
	TRY(check_row(app, identity->sha256, err));
	return take_parts(identity, &parts, &view, err);
}

/* ---- issued by ourselves: a new one ---- */

static void
add_attribute(struct ca_request *request, const char *name, const char *value)
{
	struct ca_attribute *attribute;

	if (value[0] == '\0')
		return;
	attribute = &request->attributes[request->attribute_count++];
	(void)snprintf(attribute->name, sizeof(attribute->name), "%s", name);
	(void)snprintf(attribute->value, sizeof(attribute->value), "%s", value);
}

static enum status
item_of(struct issuance_item *item, struct app *app, struct ca_csr *csr, struct err *err)
{
	struct names names;

	names_of(&names, &app->config);
	item->profile = app_profile(app, PROFILE);
	if (item->profile == NULL)
		return err_set(err, ERR_ARGUMENT, "profile_unknown",
			"there is no profile '" PROFILE "' for this server's own TLS certificate");
	(void)snprintf(item->request.device_id, sizeof(item->request.device_id), "%s", IDENTITY);
	add_attribute(&item->request, "dns", names.dns);
	add_attribute(&item->request, "ip", names.ip);
	(void)snprintf(item->attributes_json, sizeof(item->attributes_json),
		"{\"dns\":\"%s\",\"ip\":\"%s\"}", names.dns, names.ip);
	item->csr = csr;
	item->validity_s = item->profile->validity_default_s;
	item->asker = ASKER_SERVER;
	item->actor = IDENTITY;
	item->slot = SLOT_MANY;
	return OK;
}

static enum status
ask(struct app *app, const struct ca_key *key, struct db_certificate *out, struct err *err)
{
	own_struct(ca_csr) csr = { .has_extensions = false };
	struct issuance_item *item = mem_zalloc(sizeof(*item));
	enum status status;

	if (item == NULL)
		return err_memory(err);
	/* No CSR is needed between us: the key's owner and the asker are the same process. */
	status = bytes_copy(&csr.spki, ca_key_spki(key), err);
	if (status == OK) {
		ca_sha256(csr.spki_sha256, view_of(&csr.spki));
		csr.key_type = ca_key_type_of(key);
		status = item_of(item, app, &csr, err);
	}
	if (status == OK)
		status = issuance_issue(app->issuance, item, err);
	*out = item->certificate;
	mem_free(item);
	return status;
}

static enum status
keep(struct app *app, const struct parts *parts, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = 2 * PEM_MAX_BYTES };
	char path[CONFIG_TEXT_BYTES + 32];
	char fresh[CONFIG_TEXT_BYTES + 64];
	char suffix[32];
	char head[2 * CONFIG_TEXT_BYTES];
	enum status status;

	headline(head, sizeof(head), app);
	TRY(buf_reserve(
		&text, PEM_MAX_BYTES, err)); /* so that no copy of the key is left by growing */
	TRY(buf_text(&text, head, err));
	TRY(ca_pem_encode(
		&text, "PRIVATE KEY", (struct view){ parts->key.data, parts->key.len }, err));
	status = buf_add(&text, parts->chain.data, parts->chain.len, err);
	(void)snprintf(suffix, sizeof(suffix), ".%d", (int)getpid());
	kept_path(path, sizeof(path), app, "");
	kept_path(fresh, sizeof(fresh), app, suffix);
	(void)unlink(fresh);
	if (status == OK)
		status = file_create(fresh, buf_view(&text), 0600, err);
	explicit_bzero(text.data, text.len);
	TRY(status);
	if (rename(fresh, path) != 0)
		return err_set(err, ERR_UNAVAILABLE, "file_write", "%s: %s", path, strerror(errno));
	return OK;
}

static enum status
issue(struct tls_identity *identity, struct app *app, struct err *err)
{
	own_struct(parts) parts = { .chain = { .limit_bytes = PEM_MAX_BYTES } };
	own_struct(db_certificate) certificate = { .issued_at_s = 0 };
	own(ca_key) key = NULL;
	const struct app_ca *ca;
	struct ca_cert_view view;
	struct err why;

	TRY(ca_key_generate(&key, KEY_EC_P256, err));
	TRY(ca_key_to_pkcs8(key, &parts.key, err));
	TRY(ask(app, key, &certificate, err));
	TRY(ca_cert_parse(&view, view_of(&certificate.der), err));
	TRY(bytes_copy(&parts.leaf, view_of(&certificate.der), err));
	TRY(ca_pem_encode(&parts.chain, "CERTIFICATE", view_of(&certificate.der), err));
	/* Of the CA that it came from: another may issue by now. */
	ca = app_ca_by_issuer(app, certificate.ref.issuer_id);
	if (ca != NULL)
		TRY(buf_add(&parts.chain, ca->chain_pem.data, ca->chain_pem.len, err));
	/* Not kept is odd, not fatal: the next start issues again. */
	if (keep(app, &parts, &why) != OK)
		log_error(LOG_WARN, "tls_certificate_not_kept", NULL, &why);
	TRY(take_parts(identity, &parts, &view, err));
	log_event(LOG_INFO, "tls_certificate_issued", NULL,
		LOG_STR("names", app->config.server_names),
		LOG_INT("days", (view.not_after_s - clock_wall_s(app->clock)) / 86400));
	return OK;
}

/* ---- what the listeners show ---- */

static enum status
set(struct tls_identity *identity, struct app *app, struct err *err)
{
	struct http_certificate certificates[PAIRS_MAX];

	for (size_t i = 0; i < identity->count; i++)
		certificates[i] = (struct http_certificate){
			.certificate_pem = view_of(&identity->pairs[i].certificate_pem),
			.key_pem = { identity->pairs[i].key_pem.data,
				identity->pairs[i].key_pem.len },
		};
	TRY(http_set_certificates(app->http, certificates, identity->count, err));
	identity->applied = true;
	app->tls_own_not_after_s = identity->own ? identity->not_after_s : 0;
	return OK;
}

static int64_t
renew_at_s(const struct tls_identity *identity)
{
	return identity->not_after_s - (identity->not_after_s - identity->not_before_s) / 3;
}

static enum status
note_end(void *arg, const char *label, struct view der, struct err *err)
{
	int64_t *end_s = arg;
	struct ca_cert_view view;
	struct err ignored;

	(void)err;
	if (strcmp(label, "CERTIFICATE") == 0 && ca_cert_parse_any(&view, der, &ignored) == OK &&
		(*end_s == 0 || view.not_after_s < *end_s))
		*end_s = view.not_after_s;
	return OK;
}

/* Of what the files hold, chains and all. 0: nothing there can be read, which the listeners will say. */
static int64_t
first_end_s(const struct tls_identity *identity)
{
	int64_t end_s = 0;
	struct err ignored;

	for (size_t i = 0; i < identity->count; i++)
		if (ca_pem_each(view_of(&identity->pairs[i].certificate_pem), note_end, &end_s,
			    &ignored) != OK)
			return end_s;
	return end_s;
}

/* Clients that ask would refuse it. While the database is away, or has forgotten it, it stays. */
static bool
is_revoked(const struct tls_identity *identity, struct app *app)
{
	struct err why;

	if (identity->count == 0 || check_row(app, identity->sha256, &why) == OK ||
	    why.status != ERR_CONFLICT)
		return false;
	log_error(LOG_WARN, "tls_certificate_unfit", NULL, &why);
	return true;
}

enum status
tls_identity_apply(
	struct tls_identity *identity, struct app *app, int64_t *next_check_ms, struct err *err)
{
	int64_t now_s = clock_wall_s(app->clock);
	int64_t left_s;
	enum status status = OK;
	struct err why;

	*next_check_ms = INT64_MAX;
	if (!identity->own) {
		app->tls_not_after_s = first_end_s(identity);
		return identity->applied ? OK : set(identity, app, err);
	}

	if (identity->count == 0 && read_kept(identity, app, &why) != OK &&
		why.status != ERR_NOT_FOUND)
		log_error(LOG_INFO, "tls_certificate_unfit", NULL, &why);
	*next_check_ms = RETRY_MS;
	if (identity->count == 0 || now_s >= renew_at_s(identity) || is_revoked(identity, app)) {
		status = issue(identity, app, err);
		app->tls_trouble = status != OK;
		if (status != OK && identity->count > 0 && now_s < identity->not_after_s) {
			log_error(LOG_ERROR, "tls_certificate_not_renewed", NULL, err);
			return identity->applied ? OK : set(identity, app, err);
		}
		TRY(status);
		identity->applied = false;
	}
	if (!identity->applied)
		TRY(set(identity, app, err));
	left_s = renew_at_s(identity) - now_s;
	*next_check_ms =
		left_s * 1000 < CHECK_EVERY_MS ? (left_s > 0 ? left_s : 1) * 1000 : CHECK_EVERY_MS;
	return OK;
}
