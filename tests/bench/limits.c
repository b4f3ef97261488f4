/*
 * What this machine can do at best, taken beside what we do: one JSON line.
 *
 *	limits DIRECTORY	fdatasync is measured on a file there
 *
 * CPU microseconds for cryptography, wall-clock microseconds for what waits; medians of REPEATS.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "base/clock.h"

#define REPEATS 7
#define SYNCS 200
#define PAGE_BYTES 8192
#define HASHED_BYTES ((size_t)16 << 20)

static void
want(bool well, const char *what)
{
	if (well)
		return;
	(void)fprintf(stderr, "limits: %s\n", what);
	exit(1);
}

static double
cpu_us(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int
by_value(const void *a, const void *b)
{
	const double *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

static double
median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), by_value);
	return values[count / 2];
}

/* One bare operation of a key, with a context that is there already. */
static double
operation_us(EVP_PKEY *key, bool verify, size_t rounds)
{
	EVP_PKEY_CTX *signing = EVP_PKEY_CTX_new(key, NULL),
		     *verifying = EVP_PKEY_CTX_new(key, NULL);
	const uint8_t digest[32] = { 1 };
	uint8_t signature[512];
	size_t len = sizeof(signature);
	double took[REPEATS];

	want(EVP_PKEY_sign_init(signing) == 1 && EVP_PKEY_verify_init(verifying) == 1 &&
			EVP_PKEY_CTX_set_signature_md(signing, EVP_sha256()) == 1 &&
			EVP_PKEY_CTX_set_signature_md(verifying, EVP_sha256()) == 1 &&
			EVP_PKEY_sign(signing, signature, &len, digest, sizeof(digest)) == 1,
		"cannot sign");
	for (size_t r = 0; r < REPEATS; r++) {
		double start = cpu_us();

		for (size_t i = 0; i < rounds; i++) {
			uint8_t made[512];
			size_t made_len = sizeof(made);

			want((verify ? EVP_PKEY_verify(
					       verifying, signature, len, digest, sizeof(digest))
				     : EVP_PKEY_sign(signing, made, &made_len, digest,
					       sizeof(digest))) == 1,
				"an operation failed");
		}
		took[r] = (cpu_us() - start) / (double)rounds;
	}
	EVP_PKEY_CTX_free(signing);
	EVP_PKEY_CTX_free(verifying);
	return median(took, REPEATS);
}

static double
sha256_mb_per_s(void)
{
	static uint8_t data[HASHED_BYTES];
	uint8_t digest[EVP_MAX_MD_SIZE];
	double took[REPEATS];

	for (size_t r = 0; r < REPEATS; r++) {
		double start = cpu_us();

		want(EVP_Digest(data, sizeof(data), digest, NULL, EVP_sha256(), NULL) == 1,
			"cannot hash");
		took[r] = cpu_us() - start;
	}
	return (double)HASHED_BYTES / median(took, REPEATS);
}

/* As PostgreSQL's log is written: a page over an old one, and fdatasync. */
static double
fdatasync_us(const char *dir)
{
	static uint8_t page[PAGE_BYTES];
	char path[512];
	double took[SYNCS];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/fdatasync.%ld", dir, (long)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	want(fd >= 0 && unlink(path) == 0, "the directory cannot be written to");
	for (off_t at = 0; at < 64 * PAGE_BYTES; at += PAGE_BYTES)
		want(pwrite(fd, page, sizeof(page), at) == PAGE_BYTES, "cannot write");
	want(fdatasync(fd) == 0, "cannot sync");
	for (int i = 0; i < SYNCS; i++) {
		int64_t start = clock_mono_us();

		want(pwrite(fd, page, sizeof(page), (off_t)(i % 64) * PAGE_BYTES) == PAGE_BYTES &&
				fdatasync(fd) == 0,
			"cannot sync");
		took[i] = (double)(clock_mono_us() - start);
	}
	(void)close(fd);
	return median(took, SYNCS);
}

int
main(int argc, char **argv)
{
	EVP_PKEY *p256 = EVP_EC_gen("P-256"), *p384 = EVP_EC_gen("P-384"), *rsa = EVP_RSA_gen(2048);
	double sign, verify;

	want(argc == 2 && p256 != NULL && p384 != NULL && rsa != NULL, "a directory wanted");
	sign = operation_us(p256, false, 2000);
	verify = operation_us(p256, true, 1000);
	printf("{\"p256_sign_us\":%.2f,\"p256_verify_us\":%.2f,\"verify_and_sign_us\":%.2f", sign,
		verify, sign + verify);
	printf(",\"p384_sign_us\":%.1f,\"p384_verify_us\":%.1f", operation_us(p384, false, 50),
		operation_us(p384, true, 50));
	printf(",\"rsa2048_sign_us\":%.1f,\"rsa2048_verify_us\":%.2f",
		operation_us(rsa, false, 100), operation_us(rsa, true, 1000));
	printf(",\"sha256_mb_per_s\":%.0f,\"fdatasync_8k_us\":%.0f}\n", sha256_mb_per_s(),
		fdatasync_us(argv[1]));
	EVP_PKEY_free(p256);
	EVP_PKEY_free(p384);
	EVP_PKEY_free(rsa);
	return 0;
}
