#include "server/iotcore/plugin/tls.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/iotcore/plugin/limiter.h"

/* RFC 5280 has no limit; AWS's chains are a leaf and its CA, and a few names. */
#define PAIRS_MAX 64
#define AUTH_LEVEL 2 /* 112 bits: RSA of 2048, no SHA-1 */

/* A CA that registers, read from its DER. */
struct anchor {
	X509 *x509;
	uint8_t id[REGISTRY_ID_BYTES];
};

struct tls {
	struct registry *registry;
	pthread_t thread;  /* the broker's: SSL objects of others (libpq's) are not ours to touch */
	int ssl_index;     /* whose "new" callback finds us */
	int verdict_index; /* of an X509: the anchor's id, when it was verified by one */
	struct anchor *anchors;
	size_t anchor_count;
	uint64_t generation; /* of the registry's CAs that the anchors were read at */
	bool read;
	struct siphash_key key;
	struct limiter strangers; /* by address: handshakes that failed */
	struct tls_stats stats;
};

struct tls_certificate {
	X509 *x509;
	uint8_t id[REGISTRY_ID_BYTES];
	const uint8_t *ca; /* lives in x509 */
};

/*
 * Anchors
 */

static void
anchors_free(struct tls *tls)
{
	for (size_t i = 0; i < tls->anchor_count; i++)
		X509_free(tls->anchors[i].x509);
	mem_free(tls->anchors);
	tls->anchors = NULL;
	tls->anchor_count = 0;
}

static void
anchor_add(void *arg, struct view der)
{
	struct tls *tls = arg;
	const unsigned char *at = der.data;
	X509 *x509 = d2i_X509(NULL, &at, (long)der.len);
	struct anchor *more = NULL;
	unsigned len = 0;

	if (x509 != NULL)
		more = mem_realloc(tls->anchors, (tls->anchor_count + 1) * sizeof(*more));
	if (more == NULL) {
		X509_free(x509);
		log_event(LOG_ERROR, "ca_unreadable", NULL, LOG_INT("octets", der.len));
		return;
	}
	tls->anchors = more;
	more[tls->anchor_count].x509 = x509;
	if (X509_digest(x509, EVP_sha256(), more[tls->anchor_count].id, &len) == 1)
		tls->anchor_count++;
	else
		X509_free(x509);
}

/* CAs change rarely; reading them again costs some 20 us each. */
static void
anchors_follow(struct tls *tls)
{
	uint64_t generation = registry_ca_generation(tls->registry);

	if (tls->read && tls->generation == generation)
		return;
	anchors_free(tls);
	tls->generation = generation;
	tls->read = true;
	registry_cas(tls->registry, anchor_add, tls);
}

/*
 * Verification, in the handshake
 */

/* Of the peer's address, without its port. */
static uint64_t
address_hash(const struct tls *tls, SSL *ssl)
{
	struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };
	socklen_t len = sizeof(peer);

	if (getpeername(SSL_get_fd(ssl), (struct sockaddr *)&peer, &len) != 0)
		return 0;
	if (peer.ss_family == AF_INET)
		return siphash(&tls->key, &((struct sockaddr_in *)&peer)->sin_addr,
			sizeof(struct in_addr));
	/* IPv6 gives a host its whole /64. */
	return siphash(&tls->key, &((struct sockaddr_in6 *)&peer)->sin6_addr, 8);
}

/* The first that is heard of a client. */
static int
on_client_hello(SSL *ssl, int *alert, void *arg)
{
	struct tls *tls = arg;

	if (limiter_left(&tls->strangers, address_hash(tls, ssl), clock_mono_ms(&CLOCK_SYSTEM)))
		return SSL_CLIENT_HELLO_SUCCESS;
	tls->stats.turned_away++;
	*alert = SSL_AD_USER_CANCELLED;
	return SSL_CLIENT_HELLO_ERROR;
}

static int
refuse(X509_STORE_CTX *ctx, uint64_t *counter, int error)
{
	(*counter)++;
	X509_STORE_CTX_set_error(ctx, error); /* becomes the alert */
	return 0;
}

/* Whether anchor directly issued leaf, by all rules. */
static int
verify_with(X509 *leaf, struct anchor *anchor, int *error)
{
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	STACK_OF(X509) *trusted = sk_X509_new_null();
	X509_VERIFY_PARAM *param;
	int ok = 0;

	*error = X509_V_ERR_OUT_OF_MEM;
	if (ctx != NULL && trusted != NULL && sk_X509_push(trusted, anchor->x509) > 0 &&
		X509_STORE_CTX_init(ctx, NULL, leaf, NULL) == 1) {
		X509_STORE_CTX_set0_trusted_stack(ctx, trusted);
		param = X509_STORE_CTX_get0_param(ctx);
		(void)X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
		(void)X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_CLIENT);
		X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
		/* Of chains of two only: leaf and anchor, whatever else the client sent. */
		ok = X509_verify_cert(ctx) == 1 && sk_X509_num(X509_STORE_CTX_get0_chain(ctx)) == 2;
		*error = X509_STORE_CTX_get_error(ctx);
		if (!ok && *error == X509_V_OK)
			*error = X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY;
	}
	X509_STORE_CTX_free(ctx);
	sk_X509_free(trusted);
	return ok;
}

static int
verify_unknown(struct tls *tls, X509_STORE_CTX *ctx, X509 *leaf)
{
	int error = X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY;

	anchors_follow(tls);
	for (size_t i = 0; i < tls->anchor_count; i++) {
		struct anchor *anchor = &tls->anchors[i];

		if (X509_NAME_cmp(
			    X509_get_subject_name(anchor->x509), X509_get_issuer_name(leaf)) != 0)
			continue;
		/* Several CAs may have one name (a CA and its successor): any of them. */
		if (!verify_with(leaf, anchor, &error))
			continue;
		if (X509_set_ex_data(leaf, tls->verdict_index, mem_alloc(REGISTRY_ID_BYTES)) != 1 ||
			X509_get_ex_data(leaf, tls->verdict_index) == NULL)
			return refuse(ctx, &tls->stats.unknown_ca, X509_V_ERR_OUT_OF_MEM);
		memcpy(X509_get_ex_data(leaf, tls->verdict_index), anchor->id, REGISTRY_ID_BYTES);
		X509_STORE_CTX_set_error(ctx, X509_V_OK);
		tls->stats.let_through++;
		return 1;
	}
	if (error == X509_V_ERR_CERT_HAS_EXPIRED || error == X509_V_ERR_CERT_NOT_YET_VALID)
		return refuse(ctx, &tls->stats.expired, error);
	if (error == X509_V_ERR_INVALID_PURPOSE)
		return refuse(ctx, &tls->stats.bad_use, error);
	return refuse(ctx, &tls->stats.unknown_ca, error);
}

static int
verify_known(struct tls *tls, X509_STORE_CTX *ctx, X509 *leaf)
{
	if (X509_cmp_current_time(X509_get0_notBefore(leaf)) >= 0)
		return refuse(ctx, &tls->stats.expired, X509_V_ERR_CERT_NOT_YET_VALID);
	if (X509_cmp_current_time(X509_get0_notAfter(leaf)) <= 0)
		return refuse(ctx, &tls->stats.expired, X509_V_ERR_CERT_HAS_EXPIRED);
	/* RFC 5280 4.2.1.12: if it says what for, then for this. */
	if (X509_check_purpose(leaf, X509_PURPOSE_SSL_CLIENT, 0) != 1)
		return refuse(ctx, &tls->stats.bad_use, X509_V_ERR_INVALID_PURPOSE);
	X509_STORE_CTX_set_error(ctx, X509_V_OK);
	tls->stats.let_through++;
	return 1;
}

static int
verify(X509_STORE_CTX *ctx, void *arg)
{
	struct tls *tls = arg;
	X509 *leaf = X509_STORE_CTX_get0_cert(ctx);
	struct registry_certificate known;
	uint8_t id[REGISTRY_ID_BYTES];
	unsigned len = 0;
	SSL *ssl;
	int ok;

	if (leaf == NULL || X509_digest(leaf, EVP_sha256(), id, &len) != 1)
		return refuse(ctx, &tls->stats.unknown_ca, X509_V_ERR_UNSPECIFIED);
	registry_certificate(tls->registry, id, &known);
	ok = known.status == REGISTRY_UNKNOWN ? verify_unknown(tls, ctx, leaf)
	                                      : verify_known(tls, ctx, leaf);
	ERR_clear_error(); /* the broker would log what we have already judged */
	ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
	if (!ok && ssl != NULL)
		(void)limiter_pass(
			&tls->strangers, address_hash(tls, ssl), clock_mono_ms(&CLOCK_SYSTEM));
	return ok;
}

/* Inside SSL_new. The context's settings are only read later on, so ours count for this one
 * already. */
static void
on_new_ssl(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp)
{
	struct tls *tls = argp;
	SSL *ssl = parent;
	SSL_CTX *ctx;

	(void)ptr, (void)ad, (void)index, (void)argl;
	if (ssl == NULL || !pthread_equal(pthread_self(), tls->thread) || !SSL_is_server(ssl) ||
		(ctx = SSL_get_SSL_CTX(ssl)) == NULL)
		return;
	SSL_CTX_set_cert_verify_callback(ctx, verify, tls);
	SSL_CTX_set_client_hello_cb(ctx, on_client_hello, tls);
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* A resumed session skips verification. AWS IoT has no tickets either. */
	(void)SSL_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
	(void)SSL_set_num_tickets(ssl, 0);
}

static void
on_free_verdict(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp)
{
	(void)parent, (void)ad, (void)index, (void)argl, (void)argp;
	mem_free(ptr);
}

enum status
tls_begin(struct tls **out, struct registry *registry, const struct siphash_key *key,
	int64_t strangers_per_s, struct err *err)
{
	struct tls *tls = mem_zalloc(sizeof(*tls));

	if (tls == NULL)
		return err_memory(err);
	tls->registry = registry;
	tls->key = *key;
	tls->strangers.per_s = strangers_per_s;
	tls->thread = pthread_self();
	tls->verdict_index = X509_get_ex_new_index(0, NULL, NULL, NULL, on_free_verdict);
	tls->ssl_index = SSL_get_ex_new_index(0, tls, on_new_ssl, NULL, NULL);
	if (tls->verdict_index < 0 || tls->ssl_index < 0) {
		mem_free(tls);
		return err_set(err, ERR_INTERNAL, "tls_index", "OpenSSL has no index left");
	}
	*out = tls;
	return OK;
}

void
tls_end(struct tls *tls)
{
	if (tls == NULL)
		return;
	(void)CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL, tls->ssl_index);
	/* The verdict's index stays: certificates that carry one may be freed later than we end. */
	anchors_free(tls);
	mem_free(tls);
}

void
tls_stats(const struct tls *tls, struct tls_stats *out)
{
	*out = tls->stats;
}

/*
 * A client's certificate
 */

struct tls_certificate *
tls_certificate(const struct tls *tls, void *x509)
{
	struct tls_certificate *made = x509 == NULL ? NULL : mem_zalloc(sizeof(*made));
	unsigned len = 0;

	if (made == NULL || X509_digest(x509, EVP_sha256(), made->id, &len) != 1) {
		X509_free(x509);
		mem_free(made);
		return NULL;
	}
	made->x509 = x509;
	made->ca = X509_get_ex_data(made->x509, tls->verdict_index);
	return made;
}

void
tls_certificate_free(struct tls_certificate *certificate)
{
	if (certificate == NULL)
		return;
	X509_free(certificate->x509);
	mem_free(certificate);
}

const uint8_t *
tls_certificate_id(const struct tls_certificate *certificate)
{
	return certificate->id;
}

const uint8_t *
tls_certificate_ca(const struct tls_certificate *certificate)
{
	return certificate->ca;
}

static int64_t
time_s(const ASN1_TIME *time)
{
	struct tm tm = { .tm_mday = 1 };

	if (ASN1_TIME_to_tm(time, &tm) != 1)
		return 0;
	return civil_to_s((struct civil){ .year = tm.tm_year + 1900,
		.month = (unsigned)tm.tm_mon + 1,
		.day = (unsigned)tm.tm_mday,
		.hour = (unsigned)tm.tm_hour,
		.minute = (unsigned)tm.tm_min,
		.second = (unsigned)tm.tm_sec });
}

void
tls_certificate_validity(
	const struct tls_certificate *certificate, int64_t *not_before_s, int64_t *not_after_s)
{
	*not_before_s = time_s(X509_get0_notBefore(certificate->x509));
	*not_after_s = time_s(X509_get0_notAfter(certificate->x509));
}

bool
tls_certificate_valid(const struct tls_certificate *certificate, int64_t now_s)
{
	int64_t not_before_s, not_after_s;

	tls_certificate_validity(certificate, &not_before_s, &not_after_s);
	return not_before_s <= now_s && now_s <= not_after_s;
}

enum status
tls_certificate_pem(const struct tls_certificate *certificate, str **out, struct err *err)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data = NULL;
	long len = 0;

	*out = NULL;
	if (bio != NULL && PEM_write_bio_X509(bio, certificate->x509) == 1 &&
		(len = BIO_get_mem_data(bio, &data)) > 0 &&
		(*out = mem_alloc((size_t)len + 1)) != NULL) {
		memcpy(*out, data, (size_t)len);
		(*out)[len] = '\0';
	}
	(void)BIO_free(bio);
	return *out == NULL ? err_memory(err) : OK;
}

/*
 * For policies
 */

#define SUBJECT "iot:Certificate.Subject."
#define ISSUER "iot:Certificate.Issuer."

static const struct attribute {
	int nid;
	const char *subject, *issuer;
} ATTRIBUTES[] = {
	{ NID_commonName, SUBJECT "CommonName", ISSUER "CommonName" },
	{ NID_organizationName, SUBJECT "Organization", ISSUER "Organization" },
	{ NID_organizationalUnitName, SUBJECT "OrganizationalUnit", ISSUER "OrganizationalUnit" },
	{ NID_serialNumber, SUBJECT "SerialNumber", ISSUER "SerialNumber" },
	{ NID_countryName, SUBJECT "Country", ISSUER "Country" },
	{ NID_stateOrProvinceName, SUBJECT "State", ISSUER "State" },
	{ NID_dnQualifier, SUBJECT "DistinguishedNameQualifier",
		ISSUER "DistinguishedNameQualifier" },
	{ NID_title, SUBJECT "Title", ISSUER "Title" },
	{ NID_surname, SUBJECT "Surname", ISSUER "Surname" },
	{ NID_givenName, SUBJECT "GivenName", ISSUER "GivenName" },
	{ NID_initials, SUBJECT "Initials", ISSUER "Initials" },
	{ NID_pseudonym, SUBJECT "Pseudonym", ISSUER "Pseudonym" },
	{ NID_generationQualifier, SUBJECT "GenerationQualifier", ISSUER "GenerationQualifier" },
};

/* Values gathered one behind the other; what does not fit is left out, hence undefined. */
struct pairs {
	const char *keys[PAIRS_MAX];
	size_t offsets[PAIRS_MAX + 1];
	size_t count;
	struct buf text;
};

static void
pairs_add(struct pairs *pairs, const char *key, const void *data, size_t len)
{
	struct err err;

	if (pairs->count == PAIRS_MAX || buf_add(&pairs->text, data, len, &err) != OK)
		return;
	pairs->keys[pairs->count++] = key;
	pairs->offsets[pairs->count] = pairs->text.len;
}

static void
pairs_add_string(struct pairs *pairs, const char *key, const ASN1_STRING *string)
{
	unsigned char *utf8 = NULL;
	int len = string == NULL ? -1 : ASN1_STRING_to_UTF8(&utf8, string);

	if (len > 0)
		pairs_add(pairs, key, utf8, (size_t)len);
	OPENSSL_free(utf8);
}

static void
pairs_add_name(struct pairs *pairs, const X509_NAME *name, bool issuer)
{
	for (int i = 0; i < X509_NAME_entry_count(name); i++) {
		X509_NAME_ENTRY *entry = X509_NAME_get_entry(name, i);
		int nid = OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry));

		for (size_t k = 0; k < COUNT_OF(ATTRIBUTES); k++)
			if (ATTRIBUTES[k].nid == nid)
				pairs_add_string(pairs,
					issuer ? ATTRIBUTES[k].issuer : ATTRIBUTES[k].subject,
					X509_NAME_ENTRY_get_data(entry));
	}
}

static void
pairs_add_address(struct pairs *pairs, const ASN1_OCTET_STRING *address)
{
	const unsigned char *octets = ASN1_STRING_get0_data(address);
	char text[64];
	size_t len = 0;

	if (ASN1_STRING_length(address) == 4) {
		len = (size_t)snprintf(text, sizeof(text), "%u.%u.%u.%u", octets[0], octets[1],
			octets[2], octets[3]);
	} else if (ASN1_STRING_length(address) == 16) {
		for (int i = 0; i < 16; i += 2)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%x",
				i == 0 ? "" : ":", (unsigned)octets[i] << 8 | octets[i + 1]);
	}
	if (len > 0)
		pairs_add(pairs, SUBJECT "AlternativeName.IPAddress", text, len);
}

static void
pairs_add_alternative(struct pairs *pairs, const GENERAL_NAME *name)
{
	char *directory;

	switch (name->type) {
	case GEN_EMAIL:
		pairs_add_string(pairs, SUBJECT "AlternativeName.RFC822Name", name->d.rfc822Name);
		break;
	case GEN_DNS:
		pairs_add_string(pairs, SUBJECT "AlternativeName.DNSName", name->d.dNSName);
		break;
	case GEN_URI:
		pairs_add_string(pairs, SUBJECT "AlternativeName.UniformResourceIdentifier",
			name->d.uniformResourceIdentifier);
		break;
	case GEN_IPADD: pairs_add_address(pairs, name->d.iPAddress); break;
	case GEN_DIRNAME:
		directory = X509_NAME_oneline(name->d.directoryName, NULL, 0);
		if (directory != NULL)
			pairs_add(pairs, SUBJECT "AlternativeName.DirectoryName", directory,
				strlen(directory));
		OPENSSL_free(directory);
		break;
	default: break;
	}
}

static void
pairs_add_serial(struct pairs *pairs, const ASN1_INTEGER *serial)
{
	char text[2 * 20 + 1]; /* RFC 5280 4.1.2.2: 20 octets */
	size_t len = (size_t)ASN1_STRING_length(serial);

	if (len == 0 || len > 20)
		return;
	hex_encode(text, ASN1_STRING_get0_data(serial), len);
	pairs_add(pairs, "iot:Certificate.SerialNumber", text, 2 * len);
}

static enum status
pairs_give(const struct pairs *pairs, struct policy_pair **out, size_t *count, struct err *err)
{
	size_t head = pairs->count * sizeof(**out);
	char *memory = mem_alloc(head + pairs->text.len);
	uint8_t *text;

	if (memory == NULL)
		return err_memory(err);
	*out = (struct policy_pair *)(void *)memory;
	*count = pairs->count;
	text = (uint8_t *)memory + head;
	if (pairs->text.len > 0)
		memcpy(text, pairs->text.data, pairs->text.len);
	for (size_t i = 0; i < pairs->count; i++)
		(*out)[i] = (struct policy_pair){ .key = view_text(pairs->keys[i]),
			.value = { text + pairs->offsets[i],
				pairs->offsets[i + 1] - pairs->offsets[i] } };
	return OK;
}

enum status
tls_certificate_pairs(const struct tls_certificate *certificate, struct policy_pair **out,
	size_t *count, struct err *err)
{
	struct pairs pairs = { .text = { .limit_bytes = 8 * 1024 } };
	GENERAL_NAMES *names =
		X509_get_ext_d2i(certificate->x509, NID_subject_alt_name, NULL, NULL);
	enum status status;

	pairs_add_name(&pairs, X509_get_subject_name(certificate->x509), false);
	pairs_add_name(&pairs, X509_get_issuer_name(certificate->x509), true);
	pairs_add_serial(&pairs, X509_get0_serialNumber(certificate->x509));
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
		pairs_add_alternative(&pairs, sk_GENERAL_NAME_value(names, i));
	GENERAL_NAMES_free(names);
	status = pairs_give(&pairs, out, count, err);
	buf_free(&pairs.text);
	return status;
}
