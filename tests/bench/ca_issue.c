/*
 * The issuing step alone beside the bare cryptography in it: read a CSR's PEM, verify it, build, lint
 * and sign the certificate, in this process and without a database.
 *
 *	ca_issue KIND ROUNDS KEYS        p256, p384, rsa2048: one JSON line with CPU microseconds and
 *	                                 what two threads do
 *	ca_issue KIND ROUNDS KEYS bare   one loop alone, for callgrind --toggle-collect=bare_rounds
 *	ca_issue KIND ROUNDS KEYS first  the same with keys that have verified nothing yet (=first_rounds)
 *	ca_issue KIND ROUNDS KEYS issue  and =issue_rounds
 *
 * KEYS: a directory where the requests' keys are kept; under callgrind none would be made in time.
 * Run from the top of the tree: it reads certs/. The issuing CA's key is P-256 in all cases.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ca/csr.h"
#include "ca/key.h"
#include "ca/keystore.h"
#include "ca/pem.h"
#include "ca/signer.h"
#include "server/profile/profile.h"

#define BATCH 32
#define CSRS_MAX 64
#define REPEATS 5
#define PASSPHRASE "correct horse battery staple"
#define YEAR_S (INT64_C(365) * 86400)

static const struct {
	const char *name;
	int csrs; /* RSA keys take long to make */
} KINDS[] = { { "p256", CSRS_MAX }, { "p384", 8 }, { "rsa2048", 4 } };

struct sample {
	struct bytes pem;
	uint8_t *key; /* SubjectPublicKeyInfo */
	int key_len;
	EVP_PKEY_CTX *verifying;
	uint8_t digest[32], signature[512];
	size_t signature_len;
};

static struct {
	char dir[64];
	const char *keys;
	struct ca_keystore *keystore;
	struct ca_profile profiles[CA_PROFILES_MAX];
	size_t profile_count, device;
	struct ca_signer_shared *shared;
	struct sample samples[CSRS_MAX];
	size_t sample_count;
} bench;

/* What one thread needs. */
struct worker {
	pthread_t thread;
	struct ca_signer *signer;
	struct ca_verifier *verifier;
	EVP_PKEY_CTX *signing;
	size_t rounds;
	double cpu_us;
};

static void
must(enum status status, const struct err *err)
{
	if (status == OK)
		return;
	(void)fprintf(stderr, "%s: %s\n", err->code, err->text);
	exit(1);
}

static void
want(bool well, const char *what)
{
	if (well)
		return;
	(void)fprintf(stderr, "ca_issue: %s\n", what);
	exit(1);
}

static double
cpu_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static EVP_PKEY *
make_key(const char *kind)
{
	return strcmp(kind, "rsa2048") == 0
	               ? EVP_RSA_gen(2048)
	               : EVP_EC_gen(strcmp(kind, "p384") == 0 ? "P-384" : "P-256");
}

/* The number-th key of its kind: kept where it was made before. */
static EVP_PKEY *
kept_key(const char *kind, size_t number)
{
	EVP_PKEY *key = NULL;
	char path[512];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s.%zu.key", bench.keys, kind, number);
	file = fopen(path, "rb");
	if (file != NULL) {
		key = d2i_PrivateKey_fp(file, NULL);
	} else {
		key = make_key(kind);
		file = fopen(path, "wb");
		want(file != NULL && i2d_PrivateKey_fp(file, key) == 1, "a key cannot be kept");
	}
	want(key != NULL, "a kept key cannot be read");
	(void)fclose(file);
	return key;
}

/* A context for a public key that is made for it and has verified nothing yet. */
static EVP_PKEY_CTX *
new_verifying(const struct sample *sample)
{
	const uint8_t *p = sample->key;
	EVP_PKEY *key = d2i_PUBKEY(NULL, &p, sample->key_len);
	EVP_PKEY_CTX *verifying = EVP_PKEY_CTX_new(key, NULL);

	want(key != NULL && verifying != NULL && EVP_PKEY_verify_init(verifying) == 1 &&
			EVP_PKEY_CTX_set_signature_md(verifying, EVP_sha256()) == 1,
		"cannot verify");
	EVP_PKEY_free(key);
	return verifying;
}

/* A CSR's PEM, and a signature of its key over a digest for the bare loop. */
static void
make_sample(struct sample *sample, const char *kind, size_t number)
{
	EVP_PKEY *key = kept_key(kind, number);
	X509_REQ *csr = X509_REQ_new();
	EVP_PKEY_CTX *signing = EVP_PKEY_CTX_new(key, NULL);
	struct buf pem = { .limit_bytes = 65536 };
	uint8_t *der = NULL;
	struct err err;
	int len;

	want(csr != NULL && X509_REQ_set_pubkey(csr, key) == 1 &&
			X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(csr), "CN",
				MBSTRING_ASC, (const unsigned char *)"bench", -1, -1, 0) == 1 &&
			X509_REQ_sign(csr, key, EVP_sha256()) > 0 &&
			(len = i2d_X509_REQ(csr, &der)) > 0,
		"cannot make a CSR");
	must(ca_pem_encode(&pem, "CERTIFICATE REQUEST", (struct view){ der, (size_t)len }, &err),
		&err);
	sample->pem = buf_give(&pem);
	sample->digest[0] = 1;
	sample->signature_len = sizeof(sample->signature);
	sample->key_len = i2d_PUBKEY(key, &sample->key);
	sample->verifying = new_verifying(sample);
	want(EVP_PKEY_sign_init(signing) == 1 &&
			EVP_PKEY_CTX_set_signature_md(signing, EVP_sha256()) == 1 &&
			EVP_PKEY_sign(signing, sample->signature, &sample->signature_len,
				sample->digest, sizeof(sample->digest)) == 1,
		"cannot sign");
	OPENSSL_free(der);
	EVP_PKEY_CTX_free(signing);
	X509_REQ_free(csr);
	EVP_PKEY_free(key);
}

static void
make_ca(void)
{
	const char *const passphrase = PASSPHRASE;
	struct ca_ceremony ceremony = { .dir = bench.dir,
		.passphrase = view_text(passphrase),
		.key_type = KEY_EC_P256,
		.organization = "Bench",
		.ca_id = "root",
		.validity_s = 20 * YEAR_S,
		.public_http_url = "http://ca.example.com",
		.clock = &CLOCK_SYSTEM,
		.entropy = &ENTROPY_SYSTEM,
		.fast_seal = true };
	struct secret kek = { NULL, 0 };
	struct err err;

	(void)snprintf(bench.dir, sizeof(bench.dir), "%s/jitrca-issue-XXXXXX",
		getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
	want(mkdtemp(bench.dir) != NULL, "cannot make a directory");
	must(ca_keystore_make_root(&ceremony, NULL, &err), &err);
	ceremony.ca_id = "issuing-1";
	ceremony.validity_s = 10 * YEAR_S;
	must(ca_keystore_make_issuing(&ceremony, "root", NULL, &err), &err);
	must(ca_keystore_kek(&kek, bench.dir, view_text(passphrase), &err), &err);
	must(ca_keystore_open(&bench.keystore, bench.dir, (struct view){ kek.data, kek.len }, &err),
		&err);
	secret_free(&kek);
}

static void
remove_ca(void)
{
	static const char *const FILES[] = { "seal.params", "root.crt", "root.key", "issuing-1.crt",
		"issuing-1.chain.crt", "issuing-1.key" };
	char path[128];

	for (size_t i = 0; i < COUNT_OF(FILES); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", bench.dir, FILES[i]);
		(void)unlink(path);
	}
	(void)rmdir(bench.dir);
}

static void
setup(const char *kind)
{
	struct ca_signer_setup signer = { .public_http_url = "http://ca.example.com",
		.clock = &CLOCK_SYSTEM,
		.entropy = &ENTROPY_SYSTEM };
	size_t known = COUNT_OF(KINDS);
	struct err err;

	for (size_t i = 0; i < COUNT_OF(KINDS); i++)
		if (strcmp(kind, KINDS[i].name) == 0)
			known = i;
	want(known < COUNT_OF(KINDS), "p256, p384 or rsa2048 wanted");
	must(ca_init(&err), &err);
	make_ca();
	must(profile_load_dir("certs", bench.profiles, CA_PROFILES_MAX, &bench.profile_count, &err),
		&err);
	bench.device = CA_PROFILES_MAX;
	for (size_t i = 0; i < bench.profile_count; i++)
		if (strcmp(bench.profiles[i].name, "device") == 0)
			bench.device = i;
	want(bench.device < CA_PROFILES_MAX, "certs/device.json is missing");
	signer.keystore = bench.keystore;
	signer.profiles = bench.profiles;
	signer.profile_count = bench.profile_count;
	must(ca_signer_shared_new(&bench.shared, &signer, &err), &err);
	bench.sample_count = (size_t)KINDS[known].csrs;
	for (size_t i = 0; i < bench.sample_count; i++)
		make_sample(&bench.samples[i], kind, i);
}

static void
worker_make(struct worker *worker, size_t rounds)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	struct err err;

	*worker = (struct worker){ .rounds = rounds };
	must(ca_signer_local(&worker->signer, bench.shared, &err), &err);
	must(ca_verifier_new(&worker->verifier, &err), &err);
	worker->signing = EVP_PKEY_CTX_new(key, NULL);
	want(EVP_PKEY_sign_init(worker->signing) == 1, "cannot sign");
	EVP_PKEY_free(key);
}

static void
worker_end(struct worker *worker)
{
	ca_signer_free(worker->signer);
	ca_verifier_free(worker->verifier);
	EVP_PKEY_CTX_free(worker->signing);
}

static void
issue_batch(struct worker *worker, size_t first)
{
	static const struct ca_request REQUEST = { .device_id = "unit-00000001" };
	struct ca_prepare_item prepare[BATCH];
	struct ca_sign_item sign[BATCH];
	struct ca_csr csrs[BATCH];
	struct err err;

	for (size_t i = 0; i < BATCH; i++) {
		const struct sample *sample = &bench.samples[(first + i) % bench.sample_count];

		must(ca_csr_read_pem(worker->verifier, view_of(&sample->pem), &csrs[i], &err),
			&err);
		must(ca_csr_check(&csrs[i], &bench.profiles[bench.device], &err), &err);
		prepare[i] = (struct ca_prepare_item){ .ca_id = "issuing-1",
			.spki = view_of(&csrs[i].spki),
			.request = &REQUEST,
			.asker = ASKER_STATION };
		memcpy(prepare[i].profile_hash, bench.profiles[bench.device].hash, 32);
	}
	must(ca_signer_prepare(worker->signer, prepare, BATCH, &err), &err);
	for (size_t i = 0; i < BATCH; i++) {
		must(prepare[i].status, &prepare[i].refusal);
		sign[i] = (struct ca_sign_item){ .handle = prepare[i].handle };
	}
	must(ca_signer_sign(worker->signer, sign, BATCH, &err), &err);
	for (size_t i = 0; i < BATCH; i++) {
		must(sign[i].status, &sign[i].refusal);
		bytes_free(&sign[i].der);
		ca_csr_free(&csrs[i]);
	}
}

__attribute__((noinline)) static void
issue_rounds(struct worker *worker)
{
	for (size_t at = 0; at < worker->rounds; at += BATCH)
		issue_batch(worker, at);
}

static void
bare_one(struct worker *worker, const struct sample *sample, EVP_PKEY_CTX *verifying)
{
	uint8_t signature[80];
	size_t len = sizeof(signature);

	want(EVP_PKEY_verify(verifying, sample->signature, sample->signature_len, sample->digest,
		     sizeof(sample->digest)) == 1 &&
			EVP_PKEY_sign(worker->signing, signature, &len, sample->digest,
				sizeof(sample->digest)) == 1,
		"the bare loop failed");
}

/* Contexts that are there already, no parsing, no hashing: what nobody can do without. */
__attribute__((noinline)) static void
bare_rounds(struct worker *worker)
{
	for (size_t at = 0; at < worker->rounds; at++) {
		struct sample *sample = &bench.samples[at % bench.sample_count];

		bare_one(worker, sample, sample->verifying);
	}
}

/*
 * The same, but each key is met for the first time, as those of requests are: what OpenSSL computes for a
 * key at its first verification and keeps (RSA: Montgomery's constants) is in it, making the key is not.
 */
__attribute__((noinline)) static void
first_rounds(struct worker *worker, EVP_PKEY_CTX *const *verifying)
{
	for (size_t at = 0; at < worker->rounds; at++)
		bare_one(worker, &bench.samples[at % bench.sample_count], verifying[at]);
}

static double
first_us(struct worker *worker)
{
	EVP_PKEY_CTX **verifying = mem_array(worker->rounds, sizeof(*verifying));
	double start;

	want(verifying != NULL, "memory is short");
	for (size_t at = 0; at < worker->rounds; at++) {
		const struct sample *sample = &bench.samples[at % bench.sample_count];

		verifying[at] = new_verifying(sample);
	}
	start = cpu_us();
	first_rounds(worker, verifying);
	start = cpu_us() - start;
	for (size_t at = 0; at < worker->rounds; at++)
		EVP_PKEY_CTX_free(verifying[at]);
	mem_free(verifying);
	return start;
}

static void *
issue_thread(void *arg)
{
	struct worker *worker = arg;
	double start = cpu_us();

	issue_rounds(worker);
	worker->cpu_us = cpu_us() - start;
	return NULL;
}

/* Certificates a second by so many threads; *cpu: CPU microseconds for each. */
static double
threads_rate(struct worker *workers, size_t count, double *cpu)
{
	int64_t start_us = clock_mono_us();
	double took_us;

	for (size_t i = 0; i < count; i++)
		want(pthread_create(&workers[i].thread, NULL, issue_thread, &workers[i]) == 0,
			"no thread");
	*cpu = 0;
	for (size_t i = 0; i < count; i++) {
		(void)pthread_join(workers[i].thread, NULL);
		*cpu += workers[i].cpu_us / (double)(workers[i].rounds * count);
	}
	took_us = (double)(clock_mono_us() - start_us);
	return (double)(workers[0].rounds * count) / took_us * 1e6;
}

static int
by_value(const void *a, const void *b)
{
	const double *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

static double
median(double *values)
{
	qsort(values, REPEATS, sizeof(*values), by_value);
	return values[REPEATS / 2];
}

static void
measure(struct worker *workers, const char *kind, size_t rounds)
{
	double bare[REPEATS], first[REPEATS], issue[REPEATS], one[REPEATS], two[REPEATS],
		one_cpu[REPEATS], two_cpu[REPEATS];

	for (size_t r = 0; r < REPEATS; r++) {
		double start = cpu_us();

		bare_rounds(&workers[0]);
		bare[r] = (cpu_us() - start) / (double)rounds;
		first[r] = first_us(&workers[0]) / (double)rounds;
		start = cpu_us();
		issue_rounds(&workers[0]);
		issue[r] = (cpu_us() - start) / (double)rounds;
		one[r] = threads_rate(workers, 1, &one_cpu[r]);
		two[r] = threads_rate(workers, 2, &two_cpu[r]);
	}
	printf("{\"kind\":\"%s\",\"bare_us\":%.2f,\"first_us\":%.2f,\"issue_us\":%.2f,"
	       "\"ratio\":%.3f,\"ratio_first\":%.3f,\"one_per_s\":%.0f,\"two_per_s\":%.0f,"
	       "\"two_to_one\":%.3f,\"one_cpu_us\":%.2f,\"two_cpu_us\":%.2f}\n",
		kind, median(bare), median(first), median(issue), median(issue) / median(bare),
		median(issue) / median(first), median(one), median(two),
		median(two) / median(one), median(one_cpu), median(two_cpu));
}

int
main(int argc, char **argv)
{
	size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) / BATCH * BATCH : 0;
	struct worker workers[2];

	want(argc >= 4 && rounds > 0, "KIND, ROUNDS (a batch of 32 at least) and KEYS wanted");
	bench.keys = argv[3];
	setup(argv[1]);
	worker_make(&workers[0], BATCH);
	worker_make(&workers[1], rounds);
	issue_batch(&workers[0], 0); /* what is made on first use is made, and not counted */
	issue_batch(&workers[1], 0);
	for (size_t i = 0; i < bench.sample_count; i++)
		bare_one(&workers[1], &bench.samples[i], bench.samples[i].verifying);
	workers[0].rounds = rounds;
	if (argc == 4)
		measure(workers, argv[1], rounds);
	else if (strcmp(argv[4], "bare") == 0)
		bare_rounds(&workers[1]);
	else if (strcmp(argv[4], "first") == 0)
		(void)first_us(&workers[1]);
	else
		issue_rounds(&workers[1]);
	worker_end(&workers[0]);
	worker_end(&workers[1]);
	for (size_t i = 0; i < bench.sample_count; i++) {
		bytes_free(&bench.samples[i].pem);
		EVP_PKEY_CTX_free(bench.samples[i].verifying);
		OPENSSL_free(bench.samples[i].key);
	}
	ca_signer_shared_free(bench.shared);
	ca_keystore_free(bench.keystore);
	remove_ca();
	return 0;
}
