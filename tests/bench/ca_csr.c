/*
 * What reading a CSR costs beside the bare cryptography in it: `make bench-ca`. Both are measured
 * in turn, in one thread and one run, so that a slow machine slows both. Prints microseconds of
 * CPU.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <openssl/x509.h>

#include "ca/csr.h"
#include "ca/file.h"
#include "ca/key.h"
#include "ca/pem.h"
#include "ca/secret.h"

#define ROUNDS 15
#define CALLS 1000

static void
must(enum status status, const struct err *err)
{
	if (status == OK)
		return;
	(void)fprintf(stderr, "%s: %s\n", err->code, err->text);
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
median(double *values)
{
	qsort(values, ROUNDS, sizeof(*values), by_value);
	return values[ROUNDS / 2] / CALLS;
}

int
main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "tests/unit/ca/csr/good/p256_extensions.pem";
	double read_pem[ROUNDS], read_der[ROUNDS], bare[ROUNDS], sign[ROUNDS], bare_sign[ROUNDS];
	uint8_t digest[32] = { 1 }, signature[CA_SIGNATURE_MAX_BYTES];
	struct bytes pem, der;
	struct ca_verifier *verifier;
	struct ca_key *key;
	struct err err;
	size_t len;

	must(ca_init(&err), &err);
	must(ca_verifier_new(&verifier, &err), &err);
	must(ca_key_generate(&key, KEY_EC_P256, &err), &err);
	must(file_read(&pem, path, 65536, &err), &err);
	must(ca_pem_decode(&der, "CERTIFICATE REQUEST", view_of(&pem), &err), &err);

	/* The bare operations, with contexts of their own and without any parsing. */
	EVP_PKEY *pkey = EVP_EC_gen("P-256");
	EVP_PKEY_CTX *signing = EVP_PKEY_CTX_new(pkey, NULL),
		     *verifying = EVP_PKEY_CTX_new(pkey, NULL);
	len = sizeof(signature);
	if (EVP_PKEY_sign_init(signing) <= 0 || EVP_PKEY_verify_init(verifying) <= 0 ||
	    EVP_PKEY_sign(signing, signature, &len, digest, sizeof(digest)) <= 0)
		return 1;

	for (int round = 0; round < ROUNDS; round++) {
		uint8_t made[CA_SIGNATURE_MAX_BYTES];
		struct ca_csr csr;
		double start = cpu_us();
		size_t made_len;

		for (int i = 0; i < CALLS; i++) {
			if (EVP_PKEY_verify(verifying, signature, len, digest, sizeof(digest)) != 1)
				return 1;
		}
		bare[round] = cpu_us() - start;
		start = cpu_us();
		for (int i = 0; i < CALLS; i++) {
			must(ca_csr_read_der(verifier, view_of(&der), &csr, &err), &err);
			ca_csr_free(&csr);
		}
		read_der[round] = cpu_us() - start;
		start = cpu_us();
		for (int i = 0; i < CALLS; i++) {
			must(ca_csr_read_pem(verifier, view_of(&pem), &csr, &err), &err);
			ca_csr_free(&csr);
		}
		read_pem[round] = cpu_us() - start;
		start = cpu_us();
		for (int i = 0; i < CALLS; i++) {
			made_len = sizeof(made);
			if (EVP_PKEY_sign(signing, made, &made_len, digest, sizeof(digest)) <= 0)
				return 1;
		}
		bare_sign[round] = cpu_us() - start;
		start = cpu_us();
		for (int i = 0; i < CALLS; i++)
			must(ca_key_sign(key, view_of(&der), made, &made_len, &err), &err);
		sign[round] = cpu_us() - start;
	}
	double verify_us = median(bare), der_us = median(read_der), pem_us = median(read_pem);
	double bare_sign_us = median(bare_sign), sign_us = median(sign);

	printf("verify_bare_us=%.2f csr_der_us=%.2f csr_pem_us=%.2f csr_der_ratio=%.3f "
	       "csr_pem_ratio=%.3f\n",
		verify_us, der_us, pem_us, der_us / verify_us, pem_us / verify_us);
	printf("sign_bare_us=%.2f ca_key_sign_us=%.2f sign_ratio=%.3f\n", bare_sign_us, sign_us,
		sign_us / bare_sign_us);
	EVP_PKEY_CTX_free(signing);
	EVP_PKEY_CTX_free(verifying);
	EVP_PKEY_free(pkey);
	ca_key_free(key);
	ca_verifier_free(verifier);
	bytes_free(&pem);
	bytes_free(&der);
	return 0;
}
