/*
 * What an OCSP answer costs in the CA's room, beside the bare signature: reading the request, writing the
 * ResponseData, the signer's check of it, the answer around it. Nanoseconds of processor time each, the least
 * of several runs; under callgrind, `ca_ocsp --once N` runs each step N times and nothing else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ca/file.h"
#include "ca/key.h"
#include "ca/ocsp_check.h"

#define NOW_S INT64_C(1795500000)
#define RUNS 7

struct step {
	const char *name;
	void (*run)(void);
};

static struct {
	struct ca_ocsp_issuer issuer;
	struct ca_ocsp_rules rules;
	struct bytes request;
	struct ca_ocsp_request asked;
	struct ca_ocsp_single single;
	struct der_writer data, response;
	struct ca_key *key;
	uint8_t signature[CA_SIGNATURE_MAX_BYTES], certificate[520];
	size_t signature_len;
} it;

static void
must(enum status status, const struct err *err)
{
	if (status == OK)
		return;
	(void)fprintf(stderr, "ca_ocsp: %s\n", err->text);
	exit(1);
}

static void
read_request(void)
{
	struct err err;

	must(ca_ocsp_request_read(&it.asked, view_of(&it.request), &err), &err);
	if (!ca_ocsp_names(&it.asked.ids[0], &it.issuer))
		exit(1);
}

static void
write_data(void)
{
	struct err err;

	must(ca_ocsp_data_write(&it.data, it.rules.key_hash, NOW_S, &it.single, 1, it.asked.nonce,
		     &err),
		&err);
}

static void
check_data(void)
{
	struct err err;

	must(ca_ocsp_check(&it.rules, buf_view(&it.data.buf), &err), &err);
}

static void
sign(void)
{
	struct err err;

	must(ca_key_sign(it.key, buf_view(&it.data.buf), it.signature, &it.signature_len, &err), &err);
}

static void
write_response(void)
{
	struct err err;

	must(ca_ocsp_response_write(&it.response, buf_view(&it.data.buf),
		     (struct view){ it.signature, it.signature_len },
		     (struct view){ it.certificate, sizeof(it.certificate) }, &err),
		&err);
}

static const struct step STEPS[] = {
	{ "read the request", read_request },
	{ "write ResponseData", write_data },
	{ "the signer's check", check_data },
	{ "bare signature", sign },
	{ "write the answer", write_response },
};

static void
setup(const char *path)
{
	struct err err;

	memset(it.issuer.by[OCSP_SHA1].name, 'n', 20);
	memset(it.issuer.by[OCSP_SHA1].key, 'k', 20);
	it.issuer.by[OCSP_SHA1].len = 20;
	it.rules = (struct ca_ocsp_rules){ .now_s = NOW_S, .not_after_s = NOW_S + 86400,
		.issuers = &it.issuer, .issuer_count = 1 };
	der_writer_init(&it.data, OCSP_DATA_MAX_BYTES);
	der_writer_init(&it.response, OCSP_DATA_MAX_BYTES);
	must(file_read(&it.request, path, 65536, &err), &err);
	must(ca_key_generate(&it.key, KEY_EC_P256, &err), &err);
	it.certificate[0] = DER_SEQUENCE;
	read_request();
	it.single = (struct ca_ocsp_single){ .id = it.asked.ids[0].whole, .status = OCSP_GOOD,
		.this_update_s = NOW_S, .next_update_s = NOW_S + 3600 };
}

static double
cpu_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static double
least_ns(void (*run)(void), int count)
{
	double least = 1e18;

	for (int turn = 0; turn < RUNS; turn++) {
		double begin = cpu_ns();

		for (int i = 0; i < count; i++)
			run();
		if ((cpu_ns() - begin) / count < least)
			least = (cpu_ns() - begin) / count;
	}
	return least;
}

int
main(int argc, char **argv)
{
	int count = argc == 3 && strcmp(argv[1], "--once") == 0 ? (int)strtol(argv[2], NULL, 10) : 0;

	setup("tests/fuzz/corpus/ocsp/one");
	for (size_t i = 0; i < sizeof(STEPS) / sizeof(STEPS[0]); i++) {
		for (int n = 0; n < count; n++)
			STEPS[i].run();
		if (count == 0)
			(void)printf("%-20s %8.0f ns\n", STEPS[i].name, least_ns(STEPS[i].run, 2000));
	}
	ca_key_free(it.key);
	bytes_free(&it.request);
	der_writer_free(&it.data);
	der_writer_free(&it.response);
	return 0;
}
