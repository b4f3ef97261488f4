/*
 * Keys are made anew for each CSR, since one public key is one device. What OpenSSL's X509_REQ
 * would take for each is taken once: the first CSR is a template, in which the key is replaced.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/mem.h"
#include "tests/bench/load.h"

#define POINT_BYTES 65
#define MAKERS_MAX 16

static struct {
	uint8_t *data;
	size_t len;
	size_t record;
} file;

static size_t
record_of(const char *kind)
{
	return kind == NULL || strcmp(kind, "p256") == 0 ? CSRS_RECORD_P256 : CSRS_RECORD;
}

static EVP_PKEY *
new_key(const char *kind)
{
	EVP_PKEY *key = strcmp(kind, "rsa2048") == 0 ? EVP_RSA_gen(2048)
	                : strcmp(kind, "p384") == 0  ? EVP_EC_gen("P-384")
	                : strcmp(kind, "p256") == 0  ? EVP_EC_gen("P-256")
	                                             : NULL;

	if (key == NULL)
		die("--kind: p256, p384 or rsa2048 wanted, not %s", kind);
	return key;
}

/* A whole CSR by OpenSSL: DER into der, which has room for CSRS_RECORD. */
static size_t
whole_csr(EVP_PKEY *key, uint8_t *der)
{
	static const unsigned char NAME[] = "bench device";
	X509_REQ *csr = X509_REQ_new();
	uint8_t *at = der;
	int len;

	if (csr == NULL || X509_REQ_set_pubkey(csr, key) != 1 ||
		X509_NAME_add_entry_by_txt(
			X509_REQ_get_subject_name(csr), "CN", MBSTRING_ASC, NAME, -1, -1, 0) != 1 ||
		X509_REQ_sign(csr, key, EVP_sha256()) <= 0)
		die("cannot make a CSR");
	len = i2d_X509_REQ(csr, NULL);
	if (len <= 0 || len > CSRS_RECORD - 2 || i2d_X509_REQ(csr, &at) != len)
		die("a CSR of %d octets", len);
	X509_REQ_free(csr);
	return (size_t)len;
}

/* CertificationRequestInfo and where the point is in it. */
struct template
{
	uint8_t info[CSRS_RECORD_P256];
	size_t info_len, point_at;
};

static void
template_make(struct template *template)
{
	EVP_PKEY *key = new_key("p256");
	uint8_t der[CSRS_RECORD], point[POINT_BYTES];
	size_t len, der_len = whole_csr(key, der);
	uint8_t *found;

	/* SEQUENCE { SEQUENCE of under 256 octets …: the outer header has two or three octets. */
	const uint8_t *info = der + (der[1] < 0x80 ? 2 : 3);

	template->info_len = info[1] < 0x80 ? (size_t)info[1] + 2 : (size_t)info[2] + 3;
	if (EVP_PKEY_get_octet_string_param(key, "pub", point, sizeof(point), &len) != 1 ||
		template->info_len > sizeof(template->info) ||
		(size_t)(info - der) + template->info_len > der_len)
		die("a CSR of another form than was expected");
	memcpy(template->info, info, template->info_len);
	found = memmem(template->info, template->info_len, point, sizeof(point));
	if (found == NULL)
		die("a CSR without its key");
	template->point_at = (size_t)(found - template->info);
	EVP_PKEY_free(key);
}

static size_t
add_length(uint8_t *out, size_t len)
{
	if (len < 0x80) {
		out[0] = (uint8_t)len;
		return 1;
	}
	out[0] = 0x81;
	out[1] = (uint8_t)len;
	return 2;
}

/* A CSR from the template: key, signature, and three headers. */
static size_t
quick_csr(struct template *template, EVP_PKEY *key, EVP_MD_CTX *digest, uint8_t *der)
{
	static const uint8_t ECDSA_SHA256[] = { 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
		0x3d, 0x04, 0x03, 0x02 };
	uint8_t signature[80];
	size_t signature_len = sizeof(signature), point_len, at = 1;

	if (EVP_PKEY_get_octet_string_param(key, "pub", template->info + template->point_at,
		    POINT_BYTES, &point_len) != 1 ||
		EVP_DigestSignInit(digest, NULL, EVP_sha256(), NULL, key) != 1 ||
		EVP_DigestSign(
			digest, signature, &signature_len, template->info, template->info_len) != 1)
		die("cannot sign a CSR");
	der[0] = 0x30;
	at += add_length(der + at, template->info_len + sizeof(ECDSA_SHA256) + 3 + signature_len);
	memcpy(der + at, template->info, template->info_len);
	at += template->info_len;
	memcpy(der + at, ECDSA_SHA256, sizeof(ECDSA_SHA256));
	at += sizeof(ECDSA_SHA256);
	der[at++] = 0x03;
	der[at++] = (uint8_t)(signature_len + 1);
	der[at++] = 0;
	memcpy(der + at, signature, signature_len);
	return at + signature_len;
}

struct maker {
	pthread_t thread;
	const char *kind;
	uint64_t first, end;
};

static void *
make(void *arg)
{
	struct maker *maker = arg;
	EVP_MD_CTX *digest = EVP_MD_CTX_new();
	bool quick = strcmp(maker->kind, "p256") == 0;
	struct template template;

	if (quick)
		template_make(&template);
	for (uint64_t i = maker->first; i < maker->end; i++) {
		EVP_PKEY *key = new_key(maker->kind);
		uint8_t *record = file.data + i * file.record;
		size_t len = quick ? quick_csr(&template, key, digest, record + 2)
		                   : whole_csr(key, record + 2);

		record[0] = (uint8_t)(len >> 8);
		record[1] = (uint8_t)len;
		EVP_PKEY_free(key);
		EVP_MD_CTX_reset(digest);
	}
	EVP_MD_CTX_free(digest);
	return NULL;
}

static void
map(int fd, size_t len, int protection)
{
	file.len = len;
	file.data = mmap(NULL, len, protection, MAP_SHARED, fd, 0);
	if (file.data == MAP_FAILED)
		die("cannot map the file of CSRs");
}

int
csrs_make(const struct options *options)
{
	const char *kind = options->kind != NULL ? options->kind : "p256";
	int fd = open(options->csrs, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	struct maker makers[MAKERS_MAX];
	size_t count = options->connections < MAKERS_MAX ? options->connections : MAKERS_MAX;
	struct stat have;
	uint64_t first;

	file.record = record_of(kind);
	if (fd < 0 || fstat(fd, &have) != 0)
		die("%s: cannot be opened", options->csrs);
	first = (uint64_t)have.st_size / file.record;
	if (first < options->count) {
		if (ftruncate(fd, (off_t)(options->count * file.record)) != 0)
			die("%s: no room", options->csrs);
		map(fd, options->count * file.record, PROT_READ | PROT_WRITE);
		for (size_t i = 0; i < count; i++) {
			uint64_t share = (options->count - first + count - 1) / count;
			uint64_t from = first + i * share;

			makers[i] =
				(struct maker){ .kind = kind, .first = from, .end = from + share };
			if (makers[i].end > options->count)
				makers[i].end = options->count;
			if (pthread_create(&makers[i].thread, NULL, make, &makers[i]) != 0)
				die("cannot start a thread");
		}
		for (size_t i = 0; i < count; i++)
			(void)pthread_join(makers[i].thread, NULL);
		csrs_close();
	}
	(void)close(fd);
	printf("{\"csrs\":%zu,\"made\":%zu}\n", (size_t)options->count,
		first < options->count ? (size_t)(options->count - first) : 0);
	return 0;
}

void
csrs_open(const char *path)
{
	int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	struct stat have;
	uint8_t head[2];

	if (fd < 0 || fstat(fd, &have) != 0 || have.st_size < CSRS_RECORD_P256 ||
		read(fd, head, 2) != 2)
		die("--csrs: a file made by `load csrs` wanted");
	map(fd, (size_t)have.st_size, PROT_READ);
	(void)close(fd);
	/* No other kind's is as short as P-256's. */
	file.record = (size_t)(head[0] << 8 | head[1]) + 2 <= 230 ? CSRS_RECORD_P256 : CSRS_RECORD;
}

void
csrs_close(void)
{
	if (file.data != NULL)
		(void)munmap(file.data, file.len);
	file.data = NULL;
}

struct view
csrs_at(uint64_t number)
{
	const uint8_t *record = file.data + number * file.record;
	struct view der = { record + 2, 0 };

	if ((number + 1) * file.record > file.len)
		die("the file holds %zu CSRs, number %zu is wanted", file.len / file.record,
			(size_t)number);
	der.len = (size_t)(record[0] << 8 | record[1]);
	return der;
}
