/*
 * ca/ocsp.c, ca/ocsp_check.c, ca/responder.c: requests are read strictly, answers are written as OpenSSL
 * reads them, and the signer says nothing that a responder of ours must not say.
 */
#include "tests/unit/ca/fixture.h"

#include "ca/cert.h"
#include "ca/digest.h"
#include "ca/key.h"
#include "ca/ocsp_check.h"
#include "ca/responder.h"
#include "ca/spki.h"

/* A signer with a profile for responders, and what it knows of its CA. */
struct world {
	struct fixture f;
	struct ca_ocsp_issuer issuer;
	struct bytes spki; /* of a responder's key */
	uint8_t key_hash[OCSP_KEY_HASH_BYTES];
};

static struct ca_profile
responder_profile(void)
{
	struct ca_profile p = fixture_profile();

	(void)snprintf(p.name, sizeof(p.name), "ocsp");
	p.hash[0] = 0x0c;
	p.role = CA_ROLE_NONE;
	p.issuable_by = ASKER_SERVER;
	p.key_types = KEY_EC_P256;
	(void)snprintf(p.eku[0], sizeof(p.eku[0]), CA_OID_OCSP_SIGNING);
	p.subject_count = 1;
	p.san_count = p.policy_count = 0;
	p.thing_type[0] = '\0';
	p.validity_default_s = 7 * DAY_S;
	p.validity_max_s = 31 * DAY_S;
	p.renew_before_s = 3 * DAY_S;
	p.renew_overlap_s = DAY_S;
	p.one_live = p.crl_distribution_point = p.authority_information_access = false;
	p.hourly_cap = 10;
	return p;
}

static void
open_signer(struct fixture *f)
{
	struct ca_signer_setup setup = fixture_setup(f);
	struct err err;

	ca_signer_free(f->signer);
	ca_signer_shared_free(f->shared);
	assert_ok(ca_signer_shared_new(&f->shared, &setup, &err));
	assert_ok(ca_signer_local(&f->signer, f->shared, &err));
}

static struct view
certificate_of(const struct world *w, const char *ca_id)
{
	for (size_t i = 0; i < ca_keystore_count(w->f.keystore); i++)
		if (strcmp(ca_keystore_at(w->f.keystore, i)->ca_id, ca_id) == 0)
			return view_of(&ca_keystore_at(w->f.keystore, i)->certificate);
	fail();
	return (struct view){ NULL, 0 };
}

static void
world_make(struct world *w, enum ca_key_type type)
{
	struct err err;

	memset(w, 0, sizeof(*w));
	fixture_make(&w->f, type);
	w->f.profiles[1] = responder_profile();
	open_signer(&w->f);
	assert_ok(ca_ocsp_issuer_init(&w->issuer, certificate_of(w, "issuing-1"), &err));
	assert_ok(ca_signer_ocsp_key(w->f.signer, "issuing-1", &w->spki, &err));
	assert_ok(ca_ocsp_key_hash(w->key_hash, view_of(&w->spki), &err));
}

static void
world_end(struct world *w)
{
	bytes_free(&w->spki);
	fixture_end(&w->f);
}

static struct ca_prepare_item
certify_item(const struct world *w, const struct ca_request *request, struct view spki)
{
	struct ca_prepare_item item = fixture_item(&w->f, 1, request);

	item.spki = spki;
	item.asker = ASKER_SERVER;
	return item;
}

/* The responder's certificate; the caller frees it. */
static struct bytes
certify(struct world *w)
{
	struct ca_request request = { .device_id = "jitrca-ocsp" };
	struct ca_prepare_item item = certify_item(w, &request, view_of(&w->spki));
	struct ca_sign_item made;
	struct err err;

	assert_ok(ca_signer_prepare(w->f.signer, &item, 1, &err));
	if (item.status != OK)
		fail_msg("%s", item.refusal.text);
	made = (struct ca_sign_item){ .handle = item.handle };
	assert_ok(ca_signer_sign(w->f.signer, &made, 1, &err));
	assert_int_equal(made.status, OK);
	return made.der;
}

/* ---- DER by hand ---- */

static const uint8_t SERIAL[] = { 0x3a, 0xc7, 0x5f, 0x04, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };

static void
put_id(struct der_writer *w, const struct ca_ocsp_issuer *issuer, enum ca_ocsp_hash hash,
	struct view serial)
{
	static const char *const OIDS[] = { "1.2.840.113549.2.5", "1.3.14.3.2.26",
		"2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2", "2.16.840.1.101.3.4.2.3" };
	size_t len = issuer->by[hash].len;

	der_open(w, DER_SEQUENCE);
	der_open(w, DER_SEQUENCE);
	der_put_oid(w, OIDS[hash]);
	der_put_null(w);
	der_close(w);
	der_put(w, DER_OCTET_STRING, (struct view){ issuer->by[hash].name, len });
	der_put(w, DER_OCTET_STRING, (struct view){ issuer->by[hash].key, len });
	der_put_unsigned(w, serial);
	der_close(w);
}

static struct bytes
id_of(const struct ca_ocsp_issuer *issuer, enum ca_ocsp_hash hash, struct view serial)
{
	own_struct(der_writer) w = { .status = OK };
	struct err err;

	der_writer_init(&w, 1024);
	put_id(&w, issuer, hash, serial);
	assert_ok(der_finish(&w, &err));
	return buf_give(&w.buf);
}

/* ---- requests ---- */

static struct view
unhex(uint8_t octets[512], const char *hex)
{
	size_t len = strlen(hex) / 2;

	assert_true(len <= 512 && hex_decode(octets, len, hex, strlen(hex)));
	return (struct view){ octets, len };
}

/* Made by tests/harness/ocsp.py; the issuer has hashes of two octets, and the serial is 5. */
static void
requests_are_read_strictly(void **state)
{
	static const struct {
		const char *hex;
		const char *want; /* in the error's text; NULL: it is read */
	} CASES[] = {
		/* nothing but a CertID */
		{ "301e301c301a30183016300906052b0e03021a050004026e6e04026b6b020105",
			NULL },
		/* version 1, written */
		{ "30233021a003020100301a30183016300906052b0e03021a050004026e6e04026b6b020105",
			NULL },
		/* a requestor's name */
		{ "30223020a1028200301a30183016300906052b0e03021a050004026e6e04026b6b020105",
			NULL },
		/* a signature */
		{ "3021301c301a30183016300906052b0e03021a050004026e6e04026b6b020105a00131",
			NULL },
		/* version 2 */
		{ "30233021a003020101301a30183016300906052b0e03021a050004026e6e04026b6b020105",
			"version" },
		/* nothing */
		{ "",
			"OCSPRequest" },
		{ "3080",
			"indefinite" },
		{ "301e301c301a30183016300906052b0e03021a050004026e6e04026b6b02010500",
			"the end wanted" },
		{ "300430023000",
			"a CertID wanted" },
		{ "301e301c301a30183016300906052b0e03021a050004026e6e04026b6b0201",
			"cut off" },
		/* nonces */
		{ "30353033301a30183016300906052b0e03021a050004026e6e04026b6b020105a215301330110609"
		  "2b0601050507300102040404026e6e",
			NULL },
		{ "30333031301a30183016300906052b0e03021a050004026e6e04026b6b020105a2133011300f0609"
		  "2b060105050730010204020400",
			"1 to 128" },
		{ "30483046301a30183016300906052b0e03021a050004026e6e04026b6b020105a228302630110609"
		  "2b0601050507300102040404026e6e301106092b0601050507300102040404026e6e",
			"twice" },
		{ "30333031301a30183016300906052b0e03021a050004026e6e04026b6b020105a2133011300f0609"
		  "2b060105050730010204026e6e",
			"nonce" },
		/* extensions that nobody knows */
		{ "302b3029301a30183016300906052b0e03021a050004026e6e04026b6b020105a20b300930070602"
		  "2a03040178",
			NULL },
		{ "302e302c301a30183016300906052b0e03021a050004026e6e04026b6b020105a20e300c300a0602"
		  "2a030101ff040178",
			"critical" },
		{ "302e302c301a30183016300906052b0e03021a050004026e6e04026b6b020105a20e300c300a0602"
		  "2a03010100040178",
			"default" },
		/* of one certificate alone */
		{ "302e302c302a30283016300906052b0e03021a050004026e6e04026b6b020105a00e300c300a0602"
		  "2a030101ff040178",
			"critical" },
		/* serials */
		{ "301d301b301930173015300906052b0e03021a050004026e6e04026b6b0200",
			"INTEGER" },
		{ "301f301d301b30193017300906052b0e03021a050004026e6e04026b6b02020005",
			"minimal" },
		/* a CertID too long */
		{ "30820116308201123082010e3082010a30820106300906052b0e03021a050004026e6e04026b6b02"
		  "81f00101010101010101010101010101010101010101010101010101010101010101010101010101"
		  "01010101010101010101010101010101010101010101010101010101010101010101010101010101"
		  "01010101010101010101010101010101010101010101010101010101010101010101010101010101"
		  "01010101010101010101010101010101010101010101010101010101010101010101010101010101"
		  "01010101010101010101010101010101010101010101010101010101010101010101010101010101"
		  "01010101010101010101010101010101010101010101010101010101010101010101010101010101"
		  "0101",
			"at most 256" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		uint8_t octets[512];
		struct view der = unhex(octets, CASES[i].hex);
		struct ca_ocsp_request request;
		struct err err = { .status = OK };
		enum status status = ca_ocsp_request_read(&request, der, &err);

		if (CASES[i].want == NULL && status != OK)
			fail_msg("case %zu: read wanted: %s", i, err.text);
		if (CASES[i].want != NULL && (status != ERR_ARGUMENT ||
			strcmp(err.code, "ocsp_malformed") != 0 || strstr(err.text, CASES[i].want) == NULL))
			fail_msg("case %zu: '%s' wanted, '%s' found", i, CASES[i].want,
				status == OK ? "OK" : err.text);
	}
}

static void
no_more_certificates_than_the_limit(void **state)
{
	static struct ca_ocsp_issuer issuer;

	(void)state;
	issuer.by[OCSP_SHA1].len = 20;
	for (size_t count = OCSP_IDS_MAX; count <= OCSP_IDS_MAX + 1; count++) {
		own_struct(der_writer) w = { .status = OK };
		struct ca_ocsp_request request;
		struct err err;

		der_writer_init(&w, 32768);
		der_open(&w, DER_SEQUENCE);
		der_open(&w, DER_SEQUENCE);
		der_open(&w, DER_SEQUENCE);
		for (size_t i = 0; i < count; i++) {
			der_open(&w, DER_SEQUENCE);
			put_id(&w, &issuer, OCSP_SHA1, VIEW(SERIAL));
			der_close(&w);
		}
		der_close(&w);
		der_close(&w);
		der_close(&w);
		assert_ok(der_finish(&w, &err));
		if (count > OCSP_IDS_MAX) {
			assert_refused(ca_ocsp_request_read(&request, buf_view(&w.buf), &err),
				ERR_ARGUMENT, "ocsp_malformed");
			continue;
		}
		assert_ok(ca_ocsp_request_read(&request, buf_view(&w.buf), &err));
		assert_int_equal(request.count, count);
		assert_true(request.ids[count - 1].serial_ours);
		assert_memory_equal(request.ids[count - 1].serial.octets, SERIAL, sizeof(SERIAL));
	}
}

static void
issuers_are_known_by_each_hash_of_both(void **state)
{
	struct ca_ocsp_issuer other;
	struct world w;
	struct err err;

	(void)state;
	world_make(&w, KEY_EC_P256);
	assert_ok(ca_ocsp_issuer_init(&other, certificate_of(&w, "root"), &err));
	for (unsigned hash = OCSP_SHA1; hash < OCSP_HASHES; hash++) {
		own_struct(bytes) der = id_of(&w.issuer, (enum ca_ocsp_hash)hash, VIEW(SERIAL));
		struct der in = der_of(view_of(&der), "ocsp_malformed", "id");
		struct ca_ocsp_id id;

		assert_ok(ca_ocsp_id_read(&in, &id, &err));
		assert_int_equal(id.hash, hash);
		assert_true(view_equal(id.whole, view_of(&der)));
		assert_true(ca_ocsp_names(&id, &w.issuer));
		assert_false(ca_ocsp_names(&id, &other));
		id.name_hash.len--; /* half of a name is none */
		assert_false(ca_ocsp_names(&id, &w.issuer));
	}
	world_end(&w);
}

/* ---- what the signer lets pass ---- */

struct said {
	uint8_t key_hash[OCSP_KEY_HASH_BYTES];
	int64_t produced_at_s;
	struct ca_ocsp_single single;
	size_t count;
	struct view nonce;
};

static struct said
said_of(const struct world *w, const struct bytes *id)
{
	struct said said = {
		.produced_at_s = NOW_S,
		.single = { .id = view_of(id), .status = OCSP_GOOD, .this_update_s = NOW_S,
			.next_update_s = NOW_S + 3600 },
		.count = 1,
	};

	memcpy(said.key_hash, w->key_hash, sizeof(said.key_hash));
	return said;
}

static struct ca_ocsp_item
sign_said(struct world *w, const struct said *said)
{
	struct ca_ocsp_single singles[OCSP_IDS_MAX + 1];
	own_struct(der_writer) writer = { .status = OK };
	struct ca_ocsp_item item = { .ca_id = "issuing-1" };
	struct err err;

	for (size_t i = 0; i < said->count; i++)
		singles[i] = said->single;
	der_writer_init(&writer, 65536);
	assert_ok(ca_ocsp_data_write(&writer, said->key_hash, said->produced_at_s, singles, said->count,
		said->nonce, &err));
	memcpy(item.key_hash, w->key_hash, sizeof(item.key_hash));
	item.data = buf_view(&writer.buf);
	assert_ok(ca_signer_ocsp_sign(w->f.signer, &item, 1, &err));
	item.data = (struct view){ NULL, 0 };
	return item;
}

static void as_it_is(struct said *s) { (void)s; }
static void revoked(struct said *s)
{
	s->single.status = OCSP_REVOKED;
	s->single.revoked_at_s = NOW_S - 5;
	s->single.reason = 1;
}
static void without_reason(struct said *s) { revoked(s), s->single.reason = 0; }
static void unknown(struct said *s) { s->single.status = OCSP_UNKNOWN; }
static void many(struct said *s) { s->count = OCSP_IDS_MAX; }
static void a_minute_old(struct said *s) { s->produced_at_s = s->single.this_update_s = NOW_S - 60; }
static void with_nonce(struct said *s) { s->nonce = VIEW(SERIAL); }
static void none(struct said *s) { s->count = 0; }
static void too_many(struct said *s) { s->count = OCSP_IDS_MAX + 1; }
static void another_key(struct said *s) { s->key_hash[19] ^= 1; }
static void made_tomorrow(struct said *s) { s->produced_at_s = NOW_S + 1; }
static void made_before(struct said *s) { s->produced_at_s = NOW_S - 301; }
static void true_tomorrow(struct said *s) { s->single.this_update_s = NOW_S + 1; }
static void true_before(struct said *s) { s->single.this_update_s = NOW_S - 301; }
static void over_already(struct said *s) { s->single.next_update_s = NOW_S; }
static void for_weeks(struct said *s) { s->single.next_update_s = NOW_S + 7 * DAY_S + 1; }
static void revoked_tomorrow(struct said *s) { revoked(s), s->single.revoked_at_s = NOW_S + 1; }
static void reason_7(struct said *s) { revoked(s), s->single.reason = 7; }
static void reason_8(struct said *s) { revoked(s), s->single.reason = 8; }
static void reason_11(struct said *s) { revoked(s), s->single.reason = 11; }

static void
invariant_7_a_responder_signs_only_what_it_may_say(void **state)
{
	static const struct {
		void (*change)(struct said *said);
		const char *want_code; /* NULL: signed */
	} CASES[] = {
		{ as_it_is, NULL }, { revoked, NULL }, { without_reason, NULL }, { unknown, NULL },
		{ many, NULL }, { a_minute_old, NULL }, { with_nonce, NULL },
		{ none, "ocsp_malformed" }, { too_many, "ocsp_malformed" },
		{ another_key, "ocsp_responder" }, { made_tomorrow, "ocsp_times" },
		{ made_before, "ocsp_times" }, { true_tomorrow, "ocsp_times" },
		{ true_before, "ocsp_times" }, { over_already, "ocsp_times" }, { for_weeks, "ocsp_times" },
		{ revoked_tomorrow, "ocsp_times" }, { reason_7, "ocsp_reason" },
		{ reason_8, "ocsp_reason" }, { reason_11, "ocsp_reason" },
	};
	own_struct(bytes) id = { NULL, 0 };
	struct world w;

	(void)state;
	world_make(&w, KEY_EC_P256);
	id = id_of(&w.issuer, OCSP_SHA256, VIEW(SERIAL));
	{
		own_struct(bytes) certificate = certify(&w);

		assert_true(certificate.len > 0);
	}
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct said said = said_of(&w, &id);
		struct ca_ocsp_item item;

		CASES[i].change(&said);
		item = sign_said(&w, &said);
		if (CASES[i].want_code == NULL && item.status != OK)
			fail_msg("case %zu: signed wanted: %s", i, item.refusal.text);
		if (CASES[i].want_code != NULL && (item.status != ERR_ARGUMENT ||
			strcmp(item.refusal.code, CASES[i].want_code) != 0))
			fail_msg("case %zu: %s wanted, %s found", i, CASES[i].want_code,
				item.status == OK ? "OK" : item.refusal.text);
	}
	world_end(&w);
}

/* Another CA's certificates, and serials that we never draw: unknown is all that there is to say. */
static void
invariant_7_of_others_nothing_definite_is_said(void **state)
{
	static const uint8_t SHORT[] = { 0x05 };
	static struct ca_ocsp_issuer nobody = { .by[OCSP_SHA1].len = 20 };
	struct world w;

	(void)state;
	world_make(&w, KEY_EC_P256);
	{
		own_struct(bytes) certificate = certify(&w);
		own_struct(bytes) foreign = id_of(&nobody, OCSP_SHA1, VIEW(SERIAL));
		own_struct(bytes) odd = id_of(&w.issuer, OCSP_SHA1, VIEW(SHORT));
		const struct bytes *ids[] = { &foreign, &odd };

		for (size_t i = 0; i < COUNT_OF(ids); i++) {
			struct said said = said_of(&w, ids[i]);
			struct ca_ocsp_item item = sign_said(&w, &said);

			assert_int_equal(item.status, ERR_ARGUMENT);
			assert_string_equal(item.refusal.code, "ocsp_issuer");
			said.single.status = OCSP_UNKNOWN;
			assert_int_equal(sign_said(&w, &said).status, OK);
		}
	}
	world_end(&w);
}

static void
a_key_signs_while_it_is_certified(void **state)
{
	own_struct(bytes) id = { NULL, 0 };
	own_struct(bytes) certificate = { NULL, 0 };
	struct ca_ocsp_item item;
	struct ca_cert_view view;
	struct said said;
	struct world w;
	struct err err;

	(void)state;
	world_make(&w, KEY_EC_P256);
	id = id_of(&w.issuer, OCSP_SHA256, VIEW(SERIAL));
	said = said_of(&w, &id);
	item = sign_said(&w, &said); /* made, but not certified */
	assert_int_equal(item.status, ERR_NOT_FOUND);
	assert_string_equal(item.refusal.code, "ocsp_key_unknown");

	certificate = certify(&w);
	assert_ok(ca_cert_parse(&view, view_of(&certificate), &err));
	assert_int_equal(view.not_after_s, NOW_S + 7 * DAY_S);
	assert_int_equal(sign_said(&w, &said).status, OK);

	/* To its very end, and no answer reaches past it. */
	w.f.clock = clock_fixed(view.not_after_s - 60);
	said.produced_at_s = said.single.this_update_s = view.not_after_s - 60;
	said.single.next_update_s = view.not_after_s;
	assert_int_equal(sign_said(&w, &said).status, OK);
	said.single.next_update_s++;
	assert_string_equal(sign_said(&w, &said).refusal.code, "ocsp_times");
	w.f.clock = clock_fixed(view.not_after_s);
	assert_string_equal(sign_said(&w, &said).refusal.code, "ocsp_key_unknown");

	/* A new signer has none of it. */
	w.f.clock = clock_fixed(NOW_S);
	open_signer(&w.f);
	said = said_of(&w, &id);
	assert_string_equal(sign_said(&w, &said).refusal.code, "ocsp_key_unknown");
	world_end(&w);
}

/* Who can have a key of his own certified for OCSP speaks for the CA from then on. */
static void
invariant_7_responders_have_keys_of_the_signer_alone(void **state)
{
	struct ca_request request = { .device_id = "jitrca-ocsp" };
	struct ca_prepare_item item;
	struct world w;
	struct err err;

	(void)state;
	world_make(&w, KEY_EC_P256);
	item = certify_item(&w, &request, VIEW(SPKI_P256));
	assert_ok(ca_signer_prepare(w.f.signer, &item, 1, &err));
	assert_int_equal(item.status, ERR_DENIED);
	assert_string_equal(item.refusal.code, "profile_not_allowed");
	item = certify_item(&w, &request, view_of(&w.spki));
	assert_ok(ca_signer_prepare(w.f.signer, &item, 1, &err));
	assert_int_equal(item.status, OK);
	assert_int_equal(ca_signer_ocsp_key(w.f.signer, "issuing-2", &(struct bytes){ NULL, 0 }, &err),
		ERR_DENIED);
	world_end(&w);
}

/* Its successor does not end a responder; the fourth key takes the place of one that was never certified. */
static void
a_successor_leaves_the_one_in_use(void **state)
{
	own_struct(bytes) id = { NULL, 0 };
	struct said said;
	struct world w;
	struct err err;

	(void)state;
	world_make(&w, KEY_EC_P256);
	{
		own_struct(bytes) certificate = certify(&w);

		id = id_of(&w.issuer, OCSP_SHA1, VIEW(SERIAL));
	}
	for (int i = 0; i < 10; i++) {
		own_struct(bytes) spki = { NULL, 0 };

		assert_ok(ca_signer_ocsp_key(w.f.signer, "issuing-1", &spki, &err));
		said = said_of(&w, &id);
		assert_int_equal(sign_said(&w, &said).status, OK);
	}
	world_end(&w);
}

static void
too_wide(struct ca_profile *p, unsigned which)
{
	switch (which) {
	case 0: p->issuable_by |= ASKER_ADMIN; break;
	case 1: p->role = CA_ROLE_DEVICE; break;
	case 2: p->key_types |= KEY_RSA_2048; break;
	case 3: p->key_usage |= KU_CONTENT_COMMITMENT; break;
	case 4: p->validity_max_s = 32 * DAY_S; break;
	case 5:
		(void)snprintf(p->eku[1], sizeof(p->eku[1]), "1.3.6.1.5.5.7.3.1");
		p->eku_count = 2;
		break;
	default:
		p->san[0] = (struct ca_san){ .type = SAN_DNS, .value = "a.example" };
		p->san_count = 1;
		break;
	}
}

static void
a_responders_profile_is_narrow(void **state)
{
	struct ca_profile good = responder_profile();
	struct err err;

	(void)state;
	assert_ok(ca_profile_check(&good, &err));
	for (unsigned which = 0; which < 7; which++) {
		struct ca_profile p = responder_profile();

		too_wide(&p, which);
		if (ca_profile_check(&p, &err) != ERR_ARGUMENT)
			fail_msg("too wide in %u", which);
		assert_string_equal(err.code, "profile_invalid");
	}
}

/* For each kind of CA key: OpenSSL believes what is said. */
static void
openssl_believes_the_answer(void **state)
{
	static const enum ca_key_type TYPES[] = { KEY_EC_P256, KEY_RSA_3072 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
		own_struct(der_writer) data = { .status = OK };
		own_struct(der_writer) response = { .status = OK };
		own_struct(bytes) certificate = { NULL, 0 };
		own_struct(bytes) id = { NULL, 0 };
		struct ca_ocsp_item item = { .ca_id = "issuing-1" };
		struct said said;
		struct world w;
		struct err err;

		world_make(&w, TYPES[i]);
		id = id_of(&w.issuer, OCSP_SHA1, VIEW(SERIAL));
		certificate = certify(&w);
		said = said_of(&w, &id);
		revoked(&said);
		der_writer_init(&data, 4096);
		der_writer_init(&response, 8192);
		assert_ok(ca_ocsp_data_write(
			&data, w.key_hash, NOW_S, &said.single, 1, VIEW(SERIAL), &err));
		memcpy(item.key_hash, w.key_hash, sizeof(item.key_hash));
		item.data = buf_view(&data.buf);
		assert_ok(ca_signer_ocsp_sign(w.f.signer, &item, 1, &err));
		assert_int_equal(item.status, OK);
		assert_ok(ca_ocsp_response_write(&response, item.data,
			(struct view){ item.signature, item.signature_len }, view_of(&certificate), &err));
		write_file(w.f.dir, "answer.der", buf_view(&response.buf));
		assert_int_equal(run("sh tests/unit/ca/check_openssl.sh ocsp %s %lld", w.f.dir,
					 (long long)NOW_S),
			0);
		world_end(&w);
	}
}

static void
errors_are_five_octets(void **state)
{
	static const enum ca_ocsp_error ERRORS[] = { OCSP_MALFORMED_REQUEST, OCSP_INTERNAL_ERROR,
		OCSP_TRY_LATER, OCSP_UNAUTHORIZED };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(ERRORS); i++) {
		const uint8_t want[] = { 0x30, 0x03, 0x0a, 0x01, (uint8_t)ERRORS[i] };

		assert_true(view_equal(ca_ocsp_error_response(ERRORS[i]), VIEW(want)));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_are_read_strictly),
		cmocka_unit_test(no_more_certificates_than_the_limit),
		cmocka_unit_test(issuers_are_known_by_each_hash_of_both),
		cmocka_unit_test(invariant_7_a_responder_signs_only_what_it_may_say),
		cmocka_unit_test(invariant_7_of_others_nothing_definite_is_said),
		cmocka_unit_test(a_key_signs_while_it_is_certified),
		cmocka_unit_test(invariant_7_responders_have_keys_of_the_signer_alone),
		cmocka_unit_test(a_successor_leaves_the_one_in_use),
		cmocka_unit_test(a_responders_profile_is_narrow),
		cmocka_unit_test(openssl_believes_the_answer),
		cmocka_unit_test(errors_are_five_octets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
