/* tests/unit/ca/fixture.h - a profile, a request, an issuer and keys for the tests of issuing. */
#ifndef TESTS_UNIT_CA_FIXTURE_H
#define TESTS_UNIT_CA_FIXTURE_H

#include "tests/unit/ca/files.h"

#include "base/clock.h"
#include "base/mem.h"
#include "ca/keystore.h"
#include "ca/lint.h"
#include "ca/signer.h"
#include "ca/tbs.h"

#define NOW_S INT64_C(1795500000) /* 2026-11-24T06:00:00Z */
#define DAY_S 86400
#define YEAR_S (365 * DAY_S)
#define URL "http://ca.example.com"

/* SubjectPublicKeyInfo of P-256 with its base point as the key: the private key is 1. */
static const uint8_t SPKI_P256[] = {
	0x30,
	0x59,
	0x30,
	0x13,
	0x06,
	0x07,
	0x2a,
	0x86,
	0x48,
	0xce,
	0x3d,
	0x02,
	0x01,
	0x06,
	0x08,
	0x2a,
	0x86,
	0x48,
	0xce,
	0x3d,
	0x03,
	0x01,
	0x07,
	0x03,
	0x42,
	0x00,
	0x04,
	0x6b,
	0x17,
	0xd1,
	0xf2,
	0xe1,
	0x2c,
	0x42,
	0x47,
	0xf8,
	0xbc,
	0xe6,
	0xe5,
	0x63,
	0xa4,
	0x40,
	0xf2,
	0x77,
	0x03,
	0x7d,
	0x81,
	0x2d,
	0xeb,
	0x33,
	0xa0,
	0xf4,
	0xa1,
	0x39,
	0x45,
	0xd8,
	0x98,
	0xc2,
	0x96,
	0x4f,
	0xe3,
	0x42,
	0xe2,
	0xfe,
	0x1a,
	0x7f,
	0x9b,
	0x8e,
	0xe7,
	0xeb,
	0x4a,
	0x7c,
	0x0f,
	0x9e,
	0x16,
	0x2b,
	0xce,
	0x33,
	0x57,
	0x6b,
	0x31,
	0x5e,
	0xce,
	0xcb,
	0xb6,
	0x40,
	0x68,
	0x37,
	0xbf,
	0x51,
	0xf5,
};
/* The shape of an RSA key, as far as a linter looks; no key. */
static const uint8_t SPKI_RSA[] = {
	0x30,
	0x17,
	0x30,
	0x0d,
	0x06,
	0x09,
	0x2a,
	0x86,
	0x48,
	0x86,
	0xf7,
	0x0d,
	0x01,
	0x01,
	0x01,
	0x05,
	0x00,
	0x03,
	0x06,
	0x00,
	0x30,
	0x03,
	0x02,
	0x01,
	0x11,
};
static const uint8_t ALGORITHM[] = { 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04,
	0x03, 0x02 };
static const uint8_t ISSUER_NAME[] = { 0x30, 0x15, 0x31, 0x13, 0x30, 0x11, 0x06, 0x03, 0x55, 0x04,
	0x03, 0x0c, 0x0a, 'I', 's', 's', 'u', 'i', 'n', 'g', ' ', 'C', 'A' };
static const uint8_t ISSUER_SKI[20] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
	18, 19, 20 };

#define VIEW(array) ((struct view){ (array), sizeof(array) })

UNUSED static struct ca_tbs_issuer
fixture_issuer(void)
{
	return (struct ca_tbs_issuer){
		.ca_id = "issuing-1",
		.subject = VIEW(ISSUER_NAME),
		.ski = VIEW(ISSUER_SKI),
		.algorithm = VIEW(ALGORITHM),
		.not_before_s = NOW_S - 30 * DAY_S,
		.not_after_s = NOW_S + (int64_t)10 * YEAR_S,
	};
}

UNUSED static struct ca_profile
fixture_profile(void)
{
	return (struct ca_profile){
		.name = "device",
		.hash = { 0xd0 },
		.role = CA_ROLE_DEVICE,
		.issuable_by = ASKER_STATION | ASKER_ADMIN | ASKER_DEVICE,
		.key_types = KEY_EC_P256 | KEY_EC_P384 | KEY_RSA_2048 | KEY_RSA_3072 | KEY_RSA_4096,
		.key_usage = KU_DIGITAL_SIGNATURE,
		.eku = { "1.3.6.1.5.5.7.3.2" },
		.eku_count = 1,
		.subject = { { RDN_CN, "{device_id}" }, { RDN_O, "Example {attributes.model}" } },
		.subject_count = 2,
		.san = {
			{ .type = SAN_DNS, .value = "{device_id}.devices.example.com" },
			{ .type = SAN_IP, .each = true, .optional = true, .value = "{attributes.ip}" },
		},
		.san_count = 2,
		.backdate_s = 300,
		.validity_default_s = YEAR_S,
		.validity_max_s = (int64_t)3 * YEAR_S,
		.renew_before_s = 60 * DAY_S,
		.renew_overlap_s = 7 * DAY_S,
		.on_confirm = ON_CONFIRM_SUPERSEDE,
		.csr_extensions = CSR_EXTENSIONS_IGNORE,
		.one_live = true,
		.crl_distribution_point = true,
		.authority_information_access = true,
		.thing_type = "sensor",
		.policies = { "jitrca-device" },
		.policy_count = 1,
	};
}

UNUSED static struct ca_request
fixture_request(void)
{
	return (struct ca_request){
		.device_id = "sn-0001",
		.attributes = { { "model", "T1" }, { "ip", "192.0.2.7, 2001:db8::7" } },
		.attribute_count = 2,
	};
}

/* ---- a CA on disk, with a signer over it ---- */

struct fixture {
	char dir[256];
	struct clock clock;
	struct entropy entropy;
	struct ca_profile profiles[2];
	size_t profile_count;
	struct ca_keystore *keystore;
	struct ca_signer_shared *shared;
	struct ca_signer *signer;
};

UNUSED static struct ca_ceremony
fixture_ceremony(struct fixture *f, const char *ca_id, enum ca_key_type type)
{
	return (struct ca_ceremony){
		.dir = f->dir,
		.passphrase = view_text("correct horse battery staple"),
		.key_type = type,
		.organization = "Example",
		.ca_id = ca_id,
		.validity_s = (int64_t)10 * YEAR_S,
		.public_http_url = URL,
		.clock = &f->clock,
		.entropy = &f->entropy,
		.fast_seal = true,
	};
}

UNUSED static void
fixture_open(struct fixture *f)
{
	own_struct(secret) kek = { NULL, 0 };
	struct err err;

	assert_ok(ca_keystore_kek(&kek, f->dir, view_text("correct horse battery staple"), &err));
	assert_ok(ca_keystore_open(&f->keystore, f->dir, (struct view){ kek.data, kek.len }, &err));
}

UNUSED static struct ca_signer_setup
fixture_setup(struct fixture *f)
{
	return (struct ca_signer_setup){
		.keystore = f->keystore,
		.profiles = f->profiles,
		.profile_count = f->profile_count,
		.public_http_url = URL,
		.clock = &f->clock,
		.entropy = &f->entropy,
	};
}

/* A root "root" and an issuing CA "issuing-1" of this type, both with their keys. */
UNUSED static void
fixture_make(struct fixture *f, enum ca_key_type type)
{
	struct ca_ceremony ceremony;
	struct ca_signer_setup setup;
	struct err err;

	memset(f, 0, sizeof(*f));
	assert_ok(ca_init(&err));
	folder_make(f->dir);
	f->clock = clock_fixed(NOW_S - DAY_S);
	f->entropy = entropy_insecure_fixed(1);
	ceremony = fixture_ceremony(f, "root", KEY_EC_P256);
	assert_ok(ca_keystore_make_root(&ceremony, NULL, &err));
	ceremony = fixture_ceremony(f, "issuing-1", type);
	assert_ok(ca_keystore_make_issuing(&ceremony, "root", NULL, &err));
	f->clock = clock_fixed(NOW_S);
	f->profiles[0] = fixture_profile();
	f->profiles[1] = fixture_profile();
	(void)snprintf(f->profiles[1].name, sizeof(f->profiles[1].name), "service");
	f->profiles[1].hash[0] = 0x5e;
	f->profiles[1].role = CA_ROLE_NONE;
	f->profiles[1].issuable_by = ASKER_ADMIN | ASKER_SERVER;
	f->profiles[1].key_types = KEY_EC_P256;
	f->profiles[1].hourly_cap = 3;
	f->profile_count = 2;
	fixture_open(f);
	setup = fixture_setup(f);
	assert_ok(ca_signer_shared_new(&f->shared, &setup, &err));
	assert_ok(ca_signer_local(&f->signer, f->shared, &err));
}

UNUSED static void
fixture_end(struct fixture *f)
{
	ca_signer_free(f->signer);
	ca_signer_shared_free(f->shared);
	ca_keystore_free(f->keystore);
	folder_remove(f->dir);
}

UNUSED static struct ca_prepare_item
fixture_item(const struct fixture *f, size_t profile, const struct ca_request *request)
{
	struct ca_prepare_item item = {
		.ca_id = "issuing-1",
		.spki = VIEW(SPKI_P256),
		.request = request,
		.asker = ASKER_ADMIN,
	};

	memcpy(item.profile_hash, f->profiles[profile].hash, sizeof(item.profile_hash));
	return item;
}

/* Runs a shell command line over a file; its exit status. */
UNUSED static int
run(const char *fmt, ...)
{
	char command[2048];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	return system(command);
}

UNUSED static void
write_file(const char *dir, const char *name, struct view content)
{
	char path[512];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(content.data, 1, content.len, file), content.len);
	assert_int_equal(fclose(file), 0);
}

#endif
