/* ca/crl.c, ca/crl_walk.c: lists are built, walked while they are signed, read, and compared. */
#include "tests/unit/ca/fixture.h"

#include "ca/crl.h"
#include "ca/crl_walk.h"
#include "ca/der.h"
#include "ca/digest.h"
#include "ca/pem.h"

static struct serial
serial_of(uint8_t shard, int32_t month, uint32_t number)
{
	struct serial serial = { { 0x11, shard, (uint8_t)(month >> 8), (uint8_t)(month & 255),
		0 } };

	for (size_t i = 0; i < 4; i++)
		serial.octets[12 + i] = (uint8_t)(number >> 8 * (3 - i) & 255);
	return serial;
}

static int32_t
next_year(void)
{
	return expiry_month(NOW_S + YEAR_S);
}

static struct ca_crl_head
head_of(struct fixture *f, uint64_t number, const char *url)
{
	return (struct ca_crl_head){
		.ca_id = "issuing-1",
		.issuer_certificate = view_of(&ca_keystore_at(f->keystore, 0)->certificate),
		.number = number,
		.this_update_s = f->clock.fixed_s,
		.next_update_s = f->clock.fixed_s + 7 * DAY_S,
		.distribution_point = url,
	};
}

/* The octets of a closed pile. */
static void
take_octets(struct bytes *out, const struct pile *pile)
{
	struct err err;

	out->len = (size_t)pile_len(pile);
	out->data = mem_alloc(out->len + 1);
	assert_non_null(out->data);
	assert_ok(pile_read(pile, 0, out->data, out->len, &err));
}

static void
put_octets(struct pile *out, struct view octets)
{
	struct err err;

	pile_init(out, "/tmp", 1 << 20);
	assert_ok(pile_add(out, octets.data, octets.len, &err));
	assert_ok(pile_close(out, &err));
}

static enum status
make_list(struct fixture *f, const struct ca_crl_head *head, const struct serial *serials,
	size_t count, int reason, struct bytes *der, struct err *err)
{
	own_struct(pile) list = { .fd = -1 };
	uint8_t sha256[32], again[32];
	struct ca_crl *crl = NULL;
	enum status status = ca_crl_begin(&crl, head, f->dir, err);

	*der = (struct bytes){ NULL, 0 };
	pile_init(&list, f->dir, 4096);
	for (size_t i = 0; status == OK && i < count; i++)
		status = ca_crl_add(crl, &serials[i], NOW_S - 100, reason, err);
	if (status == OK)
		assert_int_equal(ca_crl_entry_count(crl), count);
	if (status == OK)
		status = ca_crl_sign(crl, f->signer, &list, sha256, err);
	ca_crl_free(crl);
	if (status != OK)
		return status;
	mem_fail_at(-1); /* what follows is the test's own */
	take_octets(der, &list);
	ca_sha256(again, view_of(der));
	assert_memory_equal(again, sha256, sizeof(again));
	return OK;
}

static enum status
read_about(struct view der, struct ca_crl_info *out, struct err *err)
{
	own_struct(pile) pile = { .fd = -1 };
	own(ca_crl_reader) reader = NULL;

	put_octets(&pile, der);
	TRY(ca_crl_reader_new(&reader, &pile, err));
	*out = *ca_crl_reader_info(reader);
	return OK;
}

/* Whether after keeps what before has. */
static enum status
keeps(struct view before, struct view after, enum ca_crl_gate_kind kind, struct err *err)
{
	own_struct(pile) before_pile = { .fd = -1 };
	own_struct(pile) after_pile = { .fd = -1 };
	own(ca_crl_reader) reader = NULL;
	own(ca_crl_gate) gate = NULL;
	struct ca_crl_entry entry;
	bool more = true;

	put_octets(&before_pile, before);
	put_octets(&after_pile, after);
	TRY(ca_crl_gate_new(&gate, &before_pile, kind, err));
	TRY(ca_crl_reader_new(&reader, &after_pile, err));
	for (;;) {
		struct serial serial;

		TRY(ca_crl_reader_next(reader, &entry, &more, err));
		if (!more)
			return ca_crl_gate_end(gate, err);
		memcpy(serial.octets, entry.serial.data, SERIAL_BYTES);
		TRY(ca_crl_gate_pass(gate, &serial, entry.reason, err));
	}
}

/* ---- what comes out ---- */

static void
openssl_and_certtool_read_every_list(void **state)
{
	static const enum ca_key_type TYPES[] = { KEY_EC_P256, KEY_EC_P384, KEY_RSA_3072 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
		struct ca_request request = fixture_request();
		struct ca_prepare_item item;
		struct ca_sign_item done;
		struct ca_crl_head head;
		own_struct(bytes) empty = { NULL, 0 };
		own_struct(bytes) full = { NULL, 0 };
		own_struct(bytes) shard = { NULL, 0 };
		own_struct(buf) pem = { .limit_bytes = 65536 };
		struct fixture f;
		struct err err;
		char url[128];

		fixture_make(&f, TYPES[i]);
		head = head_of(&f, 1, NULL);
		assert_ok(make_list(&f, &head, NULL, 0, 0, &empty, &err));
		write_file(f.dir, "list.crl", view_of(&empty));
		assert_int_equal(
			run("sh tests/unit/ca/check_openssl.sh crl %s %d", f.dir, (int)NOW_S), 0);

		item = fixture_item(&f, 0, &request);
		assert_ok(ca_signer_prepare(f.signer, &item, 1, &err));
		done = (struct ca_sign_item){ .handle = item.handle };
		assert_ok(ca_signer_sign(f.signer, &done, 1, &err));
		assert_ok(ca_pem_encode(&pem, "CERTIFICATE", view_of(&done.der), &err));
		write_file(f.dir, "leaf.pem", buf_view(&pem));
		bytes_free(&done.der);
		head = head_of(&f, 2, NULL);
		assert_ok(make_list(&f, &head, &item.serial, 1, 1, &full, &err));
		write_file(f.dir, "list.crl", view_of(&full));
		assert_int_equal(
			run("sh tests/unit/ca/check_openssl.sh crl %s %d", f.dir, (int)NOW_S), 0);

		/* The shard's list serves the certificate that names it. */
		(void)snprintf(url, sizeof(url), URL "/crl/issuing-1/%02x.crl",
			(unsigned)serial_shard(&item.serial));
		head = head_of(&f, 1, url);
		assert_ok(make_list(&f, &head, &item.serial, 1, 6, &shard, &err));
		write_file(f.dir, "list.crl", view_of(&shard));
		assert_int_equal(
			run("sh tests/unit/ca/check_openssl.sh crl %s %d", f.dir, (int)NOW_S), 0);
		fixture_end(&f);
	}
}

/* More than a reader's window, so that entries lie across its end. */
static void
a_list_says_what_was_put_in(void **state)
{
	static struct serial serials[3000];
	own_struct(bytes) der = { NULL, 0 };
	own_struct(pile) pile = { .fd = -1 };
	own(ca_crl_reader) reader = NULL;
	const struct ca_crl_info *info;
	struct ca_crl_entry entry;
	struct ca_crl_head head;
	struct fixture f;
	size_t count = 0;
	bool more = true;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	for (uint32_t i = 0; i < COUNT_OF(serials); i++)
		serials[i] = serial_of((uint8_t)(i / 12), next_year(), i);
	head = head_of(&f, 77, NULL);
	assert_ok(make_list(&f, &head, serials, COUNT_OF(serials), 4, &der, &err));
	put_octets(&pile, view_of(&der));
	assert_ok(ca_crl_reader_new(&reader, &pile, &err));
	info = ca_crl_reader_info(reader);
	assert_int_equal(info->number, 77);
	assert_int_equal(info->this_update_s, NOW_S);
	assert_int_equal(info->next_update_s, NOW_S + 7 * DAY_S);
	assert_false(info->delta);
	for (;; count++) {
		assert_ok(ca_crl_reader_next(reader, &entry, &more, &err));
		if (!more)
			break;
		assert_memory_equal(entry.serial.data, serials[count].octets, SERIAL_BYTES);
		assert_int_equal(entry.revoked_at_s, NOW_S - 100);
		assert_int_equal(entry.reason, 4);
	}
	assert_int_equal(count, COUNT_OF(serials));
	fixture_end(&f);
}

/* ---- deltas (RFC 5280 5.2.4, 5.2.6) ---- */

static struct ca_crl_head
delta_head(struct fixture *f, uint64_t number, uint64_t base)
{
	struct ca_crl_head head = head_of(f, number, NULL);

	head.delta = true;
	head.base_number = base;
	return head;
}

/* Revoked on the delta, not on its base; held on the base, lifted on the delta. */
static void
openssl_takes_what_a_delta_says(void **state)
{
	static const enum ca_key_type TYPES[] = { KEY_EC_P256, KEY_EC_P384, KEY_RSA_3072 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
		struct ca_request request = fixture_request();
		struct ca_prepare_item item;
		struct ca_sign_item done;
		struct ca_crl_head full, delta;
		own_struct(buf) pem = { .limit_bytes = 65536 };
		struct bytes der;
		struct ca_crl_info info;
		struct fixture f;
		struct err err;

		fixture_make(&f, TYPES[i]);
		item = fixture_item(&f, 0, &request);
		assert_ok(ca_signer_prepare(f.signer, &item, 1, &err));
		done = (struct ca_sign_item){ .handle = item.handle };
		assert_ok(ca_signer_sign(f.signer, &done, 1, &err));
		assert_ok(ca_pem_encode(&pem, "CERTIFICATE", view_of(&done.der), &err));
		write_file(f.dir, "leaf.pem", buf_view(&pem));
		bytes_free(&done.der);

		full = head_of(&f, 1, NULL);
		full.freshest = URL "/crl/issuing-1/delta.crl";
		assert_ok(make_list(&f, &full, NULL, 0, 0, &der, &err));
		write_file(f.dir, "full.crl", view_of(&der));
		bytes_free(&der);
		delta = delta_head(&f, 2, 1);
		assert_ok(make_list(&f, &delta, &item.serial, 1, 1, &der, &err));
		write_file(f.dir, "delta.crl", view_of(&der));
		assert_ok(read_about(view_of(&der), &info, &err));
		assert_true(info.delta && info.base_number == 1 && info.number == 2);
		bytes_free(&der);
		assert_int_equal(run("sh tests/unit/ca/check_openssl.sh delta %s %d revoked", f.dir,
					 (int)NOW_S), 0);

		full.number = 3;
		assert_ok(make_list(&f, &full, &item.serial, 1, 6, &der, &err));
		write_file(f.dir, "full.crl", view_of(&der));
		bytes_free(&der);
		delta = delta_head(&f, 4, 3);
		assert_ok(make_list(&f, &delta, &item.serial, 1, 8, &der, &err));
		write_file(f.dir, "delta.crl", view_of(&der));
		bytes_free(&der);
		assert_int_equal(run("sh tests/unit/ca/check_openssl.sh delta %s %d good", f.dir,
					 (int)NOW_S), 0);
		fixture_end(&f);
	}
}

static void
the_signer_holds_a_delta_to_its_full_list(void **state)
{
	struct serial one = serial_of(7, next_year(), 1);
	own_struct(bytes) der = { NULL, 0 };
	struct ca_crl_head head;
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	head = head_of(&f, 5, NULL);
	assert_ok(make_list(&f, &head, &one, 1, 1, &der, &err));
	bytes_free(&der);
	head = delta_head(&f, 4, 3); /* begun before the full list 5, and ended after it */
	assert_ok(make_list(&f, &head, &one, 1, 1, &der, &err));
	bytes_free(&der);
	assert_refused(make_list(&f, &head, &one, 1, 1, &der, &err), ERR_ARGUMENT, "crl_number");
	head = delta_head(&f, 7, 6); /* there is no list 6 */
	assert_refused(make_list(&f, &head, &one, 1, 1, &der, &err), ERR_ARGUMENT, "crl_delta");
	head = delta_head(&f, 5, 5); /* made with the full list */
	assert_ok(make_list(&f, &head, NULL, 0, 0, &der, &err));
	bytes_free(&der);
	assert_refused(make_list(&f, &head, NULL, 0, 0, &der, &err), ERR_ARGUMENT, "crl_number");
	head = delta_head(&f, 9, 5);
	assert_ok(make_list(&f, &head, &one, 1, 8, &der, &err));
	bytes_free(&der);
	head = head_of(&f, 9, NULL); /* one sequence */
	assert_refused(make_list(&f, &head, &one, 1, 1, &der, &err), ERR_ARGUMENT, "crl_number");
	head.number = 8; /* while it was made there were deltas */
	assert_ok(make_list(&f, &head, &one, 1, 1, &der, &err));
	bytes_free(&der);
	head.number = 7;
	assert_refused(make_list(&f, &head, &one, 1, 1, &der, &err), ERR_ARGUMENT, "crl_number");
	head.number = 10;
	head.freshest = URL "/crl/issuing-2/delta.crl";
	assert_refused(make_list(&f, &head, &one, 1, 1, &der, &err), ERR_ARGUMENT, "crl_delta");
	head.freshest = URL "/crl/issuing-1/delta.crl";
	assert_ok(make_list(&f, &head, &one, 1, 1, &der, &err));
	/* The builder does not even begin what makes no sense. */
	head.distribution_point = URL "/crl/issuing-1/07.crl";
	bytes_free(&der);
	assert_refused(make_list(&f, &head, &one, 1, 1, &der, &err), ERR_ARGUMENT, "crl_delta");
	head = delta_head(&f, 11, 12);
	assert_refused(make_list(&f, &head, &one, 1, 1, &der, &err), ERR_ARGUMENT, "crl_delta");
	head = delta_head(&f, 11, 10);
	head.distribution_point = URL "/crl/issuing-1/07.crl";
	assert_refused(make_list(&f, &head, &one, 1, 1, &der, &err), ERR_ARGUMENT, "crl_delta");
	fixture_end(&f);
}

/* ---- what the builder refuses ---- */

static void
the_builder_refuses(void **state)
{
	struct serial a = serial_of(1, next_year(), 1), b = serial_of(1, next_year(), 2);
	own_struct(pile) list = { .fd = -1 };
	struct ca_crl *crl = NULL;
	uint8_t sha256[32];
	struct ca_crl_head head;
	struct fixture f;
	struct err err;
	char long_id[80];

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	head = head_of(&f, 1, NULL);
	head.next_update_s = head.this_update_s;
	assert_refused(ca_crl_begin(&crl, &head, "/tmp", &err), ERR_ARGUMENT, "crl_times");
	head = head_of(&f, UINT64_MAX, NULL);
	assert_refused(ca_crl_begin(&crl, &head, "/tmp", &err), ERR_ARGUMENT, "crl_number");
	head = head_of(&f, 1, NULL);
	head.issuer_certificate.len--;
	assert_refused(ca_crl_begin(&crl, &head, "/tmp", &err), ERR_ARGUMENT, "certificate_malformed");
	memset(long_id, 'a', sizeof(long_id));
	long_id[79] = '\0';
	head = head_of(&f, 1, NULL);
	head.ca_id = long_id;
	assert_refused(ca_crl_begin(&crl, &head, "/tmp", &err), ERR_ARGUMENT, "crl_issuer");

	head = head_of(&f, 1, NULL);
	assert_ok(ca_crl_begin(&crl, &head, "/tmp", &err));
	assert_refused(ca_crl_add(crl, &a, NOW_S, 7, &err), ERR_ARGUMENT, "crl_reason");
	assert_refused(ca_crl_add(crl, &a, NOW_S, 8, &err), ERR_ARGUMENT, "crl_reason");
	assert_refused(ca_crl_add(crl, &a, NOW_S, 11, &err), ERR_ARGUMENT, "crl_reason");
	assert_refused(ca_crl_add(crl, &a, NOW_S, -1, &err), ERR_ARGUMENT, "crl_reason");
	assert_refused(
		ca_crl_add(crl, &a, INT64_C(-9999999999), 0, &err), ERR_ARGUMENT, "time_range");
	assert_ok(ca_crl_add(crl, &b, NOW_S, 0, &err));
	assert_refused(ca_crl_add(crl, &b, NOW_S, 0, &err), ERR_ARGUMENT, "crl_serial");
	assert_refused(ca_crl_add(crl, &a, NOW_S, 0, &err), ERR_ARGUMENT, "crl_serial");
	a.octets[0] = 0x80;
	assert_refused(ca_crl_add(crl, &a, NOW_S, 0, &err), ERR_ARGUMENT, "crl_serial");
	pile_init(&list, "/tmp", 4096);
	assert_ok(ca_crl_sign(crl, f.signer, &list, sha256, &err));
	assert_refused(ca_crl_sign(crl, f.signer, &list, sha256, &err), ERR_ARGUMENT, "crl_state");
	b.octets[15]++;
	assert_refused(ca_crl_add(crl, &b, NOW_S, 0, &err), ERR_ARGUMENT, "crl_state");
	ca_crl_free(crl);
	ca_crl_free(NULL);
	fixture_end(&f);
}

/* ---- invariant 6: numbers grow, per scope; the shard holds its own ---- */

static void
the_signer_holds_numbers_and_shards(void **state)
{
	struct serial one[2];
	own_struct(bytes) der = { NULL, 0 };
	struct ca_crl_head head;
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	one[0] = serial_of(7, next_year(), 1);
	one[1] = serial_of(8, next_year(), 1);
	head = head_of(&f, 5, NULL);
	assert_ok(make_list(&f, &head, one, 2, 0, &der, &err));
	bytes_free(&der);
	assert_refused(make_list(&f, &head, one, 2, 0, &der, &err), ERR_ARGUMENT, "crl_number");
	head.number = 4;
	assert_refused(make_list(&f, &head, one, 2, 0, &der, &err), ERR_ARGUMENT, "crl_number");
	/* Another scope counts for itself. */
	head = head_of(&f, 1, URL "/crl/issuing-1/07.crl");
	assert_ok(make_list(&f, &head, one, 1, 0, &der, &err));
	bytes_free(&der);
	head.number = 2;
	assert_refused(make_list(&f, &head, one, 2, 0, &der, &err), ERR_ARGUMENT, "crl_shard");
	head.distribution_point = URL "/crl/issuing-1/08.crl";
	assert_refused(make_list(&f, &head, one, 1, 0, &der, &err), ERR_ARGUMENT, "crl_shard");
	head.distribution_point = URL "/crl/issuing-2/07.crl";
	assert_refused(make_list(&f, &head, one, 1, 0, &der, &err), ERR_ARGUMENT, "crl_idp");
	head.distribution_point = URL "/crl/issuing-1/0A.crl";
	assert_refused(make_list(&f, &head, one, 1, 0, &der, &err), ERR_ARGUMENT, "crl_idp");
	head.distribution_point = NULL;
	head.ca_id = "issuing-2";
	assert_refused(make_list(&f, &head, one, 1, 0, &der, &err), ERR_DENIED, "ca_unknown");
	/* The root's key is here too, but this list is not the root's. */
	head.ca_id = "root";
	assert_refused(make_list(&f, &head, one, 1, 0, &der, &err), ERR_ARGUMENT, "crl_issuer");
	fixture_end(&f);
}

static void
a_list_needs_a_beginning(void **state)
{
	static const uint8_t WRONG[] = { 0x31, 0x00 };
	own_struct(bytes) tail = { NULL, 0 };
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	assert_refused(ca_signer_crl_add(f.signer, VIEW(WRONG), &err), ERR_ARGUMENT, "crl_state");
	assert_refused(ca_signer_crl_end(f.signer, &tail, &err), ERR_ARGUMENT, "crl_state");
	assert_ok(ca_signer_crl_begin(f.signer, "issuing-1", &err));
	assert_ok(ca_signer_crl_begin(f.signer, "issuing-1", &err)); /* begins anew */
	assert_refused(
		ca_signer_crl_add(f.signer, VIEW(WRONG), &err), ERR_ARGUMENT, "crl_malformed");
	assert_refused(ca_signer_crl_add(f.signer, VIEW(WRONG), &err), ERR_ARGUMENT, "crl_state");
	assert_ok(ca_signer_crl_begin(f.signer, "issuing-1", &err));
	assert_refused(ca_signer_crl_end(f.signer, &tail, &err), ERR_ARGUMENT, "crl_truncated");
	fixture_end(&f);
}

/* ---- the walk refuses each broken field ---- */

#define FRONT                                                                                      \
	"020101 | 300a06082a8648ce3d040302 | "                                                     \
	"3015 3113 3011 0603550403 0c0a 49737375696e67204341 | "
#define TIMES "170d3236313132343036303030305a 170d3236313230313036303030305a | "
#define SERIAL_A "0210 1107 5f04 000000000000000000000001"
#define SERIAL_B "0210 1107 5f04 000000000000000000000002"
#define WHEN " 170d3236313132343035303030305a"
#define ENTRY_A "3021 " SERIAL_A WHEN " | "
#define ENTRY_B "3021 " SERIAL_B WHEN " | "
#define AKI "301f 0603551d23 0418 3016 8014 0102030405060708090a0b0c0d0e0f1011121314 | "
#define NUMBER "300a 0603551d14 0403 020109 | "
#define EXTENSIONS "a02f 302d " AKI NUMBER
#define DELTA(base) "300d 0603551d1b 0101ff 0403 0201" base " | "

/* Octets of a text of hex digits, with a SEQUENCE around them. */
static struct view
wrap(uint8_t out[1024], const char *text)
{
	char digits[1800];
	size_t len = 0;

	for (const char *p = text; *p != '\0'; p++)
		if (*p != ' ' && *p != '|')
			digits[len++] = *p;
	len /= 2;
	assert_true(len < 0x200);
	out[0] = 0x30;
	out[1] = 0x82;
	out[2] = (uint8_t)(len >> 8);
	out[3] = (uint8_t)(len & 255);
	if (len < 0x80) {
		out[1] = (uint8_t)len;
		assert_true(hex_decode(out + 2, len, digits, 2 * len));
		return (struct view){ out, len + 2 };
	}
	if (len < 0x100) {
		out[1] = 0x81;
		out[2] = (uint8_t)len;
		assert_true(hex_decode(out + 3, len, digits, 2 * len));
		return (struct view){ out, len + 3 };
	}
	assert_true(hex_decode(out + 4, len, digits, 2 * len));
	return (struct view){ out, len + 4 };
}

/* In pieces of so many octets. */
static enum status
walk_in(size_t piece, struct view tbs, struct ca_crl_walk *walk, struct err *err)
{
	struct ca_tbs_issuer issuer = fixture_issuer();

	ca_crl_walk_begin(walk, &issuer, URL, NOW_S);
	for (size_t at = 0; at < tbs.len; at += piece)
		TRY(ca_crl_walk_add(walk,
			(struct view){ tbs.data + at, tbs.len - at < piece ? tbs.len - at : piece },
			err));
	return ca_crl_walk_end(walk, err);
}

static void
the_walk_refuses_each_broken_field(void **state)
{
	static const struct {
		const char *hex, *want_code;
	} CASES[] = {
		{ FRONT TIMES "a03e 303c " AKI NUMBER DELTA("0a"), "crl_delta" },
		{ FRONT TIMES "a03e 303c " AKI NUMBER DELTA("ff"), "crl_malformed" },
		{ FRONT TIMES "a04d 304b " AKI NUMBER DELTA("01") DELTA("01"), "crl_malformed" },
		{ FRONT TIMES "a03b 3039 " AKI NUMBER "300a 0603551d1b 0403 020101", "crl_malformed" },
		{ FRONT TIMES "a06c 306a " AKI NUMBER "303b 0603551d2e 0434 3032 3030 a02e a02c 862a"
			      "687474703a2f2f63612e6578616d706c652e636f6d2f"
			      "63726c2f69737375696e672d312f30302e63726c",
			"crl_delta" },
		{ FRONT TIMES "3046 " ENTRY_A ENTRY_B EXTENSIONS, NULL },
		{ FRONT TIMES EXTENSIONS, NULL },
		{ FRONT TIMES "3023 " ENTRY_A EXTENSIONS, NULL },
		{ FRONT TIMES "3031 302f " SERIAL_A WHEN
			      "300c 300a 0603551d15 0403 0a0106" EXTENSIONS,
			NULL },
		{ FRONT TIMES "3023 " ENTRY_A "a05b 3059 " AKI NUMBER
			      "302a 0603551d1c 0101ff 0420 301e a01c"
			      "a01a 8618 687474703a2f2f63612e6578616d706c652e636f6d2f6372",
			"crl_idp" },
		{ "020100 | 300a06082a8648ce3d040302" TIMES EXTENSIONS EXTENSIONS, "crl_version" },
		{ "020200ff | 300a06082a8648ce3d040302" TIMES EXTENSIONS EXTENSIONS,
			"crl_version" },
		{ "300a06082a8648ce3d040302" TIMES EXTENSIONS EXTENSIONS, "crl_malformed" },
		{ "020101 | 300a06082a8648ce3d040303" TIMES EXTENSIONS EXTENSIONS,
			"crl_algorithm" },
		{ "020101 | 300a06082a8648ce3d040302 | 3000" TIMES EXTENSIONS EXTENSIONS,
			"crl_issuer" },
		{ FRONT "170d3236313132343036303030315a 170d3236313230313036303030305a" EXTENSIONS,
			"crl_times" },
		{ FRONT "170d3236313132343034353935395a 170d3236313230313036303030305a" EXTENSIONS,
			"crl_times" },
		{ FRONT "170d3236313132343036303030305a 170d3236313132343036303030305a" EXTENSIONS,
			"crl_times" },
		{ FRONT "170d3236313132343036303030305a 170d3236313232363036303030305a" EXTENSIONS,
			"crl_times" },
		{ FRONT "170b323631313234303630305a 170d3236313230313036303030305a" EXTENSIONS,
			"crl_malformed" },
		{ FRONT "170d3236313132343036303030305a" EXTENSIONS, "crl_malformed" },
		{ FRONT TIMES "3000" EXTENSIONS, "crl_malformed" },
		{ FRONT TIMES "3046 " ENTRY_B ENTRY_A EXTENSIONS, "crl_serial" },
		{ FRONT TIMES "3046 " ENTRY_A ENTRY_A EXTENSIONS, "crl_serial" },
		{ FRONT TIMES "3014 3012 020101" WHEN EXTENSIONS, "crl_serial" },
		{ FRONT TIMES "3023 3021 0210 9107 5f04 000000000000000000000001" WHEN EXTENSIONS,
			"crl_serial" },
		{ FRONT TIMES "3014 3012 " SERIAL_A EXTENSIONS, "crl_malformed" },
		{ FRONT TIMES "3022 " ENTRY_A EXTENSIONS, "crl_malformed" },
		{ FRONT TIMES "3031 302f " SERIAL_A WHEN
			      "300c 300a 0603551d15 0403 0a0108" EXTENSIONS,
			"crl_reason" },
		{ FRONT TIMES "3031 302f " SERIAL_A WHEN
			      "300c 300a 0603551d15 0403 0a0107" EXTENSIONS,
			"crl_reason" },
		{ FRONT TIMES "3031 302f " SERIAL_A WHEN
			      "300c 300a 0603551d15 0403 0a0100" EXTENSIONS,
			"crl_malformed" },
		{ FRONT TIMES "3031 302f " SERIAL_A WHEN
			      "300c 300a 0603551d15 0403 0a010b" EXTENSIONS,
			"crl_malformed" },
		{ FRONT TIMES "3031 302f " SERIAL_A WHEN
			      "300c 300a 0603551d18 0403 0a0101" EXTENSIONS,
			"crl_malformed" },
		{ FRONT TIMES "3034 3032 " SERIAL_A WHEN
			      "300f 300d 0603551d15 0101ff 0403 0a0101" EXTENSIONS,
			"crl_malformed" },
		{ FRONT TIMES "3025 3023 " SERIAL_A WHEN "0500" EXTENSIONS, "crl_malformed" },
		{ FRONT TIMES "3023 " ENTRY_A, "crl_truncated" },
		{ FRONT TIMES "3023 " ENTRY_A "a00e 300c " NUMBER, "crl_malformed" },
		{ FRONT TIMES "3023 " ENTRY_A "a023 3021 " AKI, "crl_malformed" },
		{ FRONT TIMES "3023 " ENTRY_A "a03b 3039 " AKI NUMBER NUMBER, "crl_malformed" },
		{ FRONT TIMES "3023 " ENTRY_A "a02f 302d 301f 0603551d23 0418 3016 8014"
			      "ff02030405060708090a0b0c0d0e0f1011121314" NUMBER,
			"crl_aki" },
		{ FRONT TIMES "3023 " ENTRY_A "a032 3030 " AKI "300d 0603551d14 0101ff 0403 020109",
			"crl_malformed" },
		{ FRONT TIMES "3023 " ENTRY_A "a03b 3039 " AKI NUMBER "300a 06032a0304 0403 020109",
			"crl_malformed" },
		{ FRONT TIMES "3023 " ENTRY_A "a02f 302d " AKI "300a 0603551d14 0403 0201ff",
			"crl_malformed" },
		{ FRONT TIMES EXTENSIONS "0500", "crl_malformed" },
		{ FRONT TIMES "3023 " ENTRY_A "3023 " ENTRY_A EXTENSIONS, "crl_malformed" },
		{ FRONT TIMES "30821003 " ENTRY_A EXTENSIONS, "crl_malformed" },
		{ FRONT TIMES "3080 " ENTRY_A EXTENSIONS, "crl_malformed" },
		{ FRONT TIMES "308123 " ENTRY_A EXTENSIONS, "crl_malformed" },
		{ FRONT TIMES "3085000000002300 " ENTRY_A EXTENSIONS, "crl_malformed" },
		{ "020101 | 30822000 06082a8648ce3d040302" TIMES EXTENSIONS EXTENSIONS,
			"crl_malformed" },
	};
	static const size_t PIECES[] = { 1, 2, 7, 64, 1024 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		uint8_t octets[1024];
		struct view tbs = wrap(octets, CASES[i].hex);

		for (size_t j = 0; j < COUNT_OF(PIECES); j++) {
			struct ca_crl_walk walk;
			struct err err = { .status = OK };
			enum status status = walk_in(PIECES[j], tbs, &walk, &err);

			if (CASES[i].want_code == NULL && status == OK) {
				assert_int_equal(walk.number, 9);
				assert_int_equal(walk.scope, CRL_SCOPE_ALL);
			} else if (CASES[i].want_code == NULL || status != ERR_ARGUMENT ||
				   strcmp(err.code, CASES[i].want_code) != 0) {
				fail_msg("case %zu in pieces of %zu: %s wanted, %s found: %s", i,
					PIECES[j],
					CASES[i].want_code != NULL ? CASES[i].want_code : "OK",
					status == OK ? "OK" : err.code,
					status == OK ? "" : err.text);
			}
		}
	}
}

static void
the_walk_knows_a_delta(void **state)
{
	static const char *const DELTAS[] = {
		FRONT TIMES "3031 302f " SERIAL_A WHEN "300c 300a 0603551d15 0403 0a0108"
			    "a03e 303c " AKI NUMBER DELTA("08"),
		FRONT TIMES "a03e 303c " AKI NUMBER DELTA("08"),
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(DELTAS); i++) {
		uint8_t octets[1024];
		struct ca_crl_walk walk;
		struct err err;

		assert_ok(walk_in(7, wrap(octets, DELTAS[i]), &walk, &err));
		assert_int_equal(walk.number, 9);
		assert_int_equal(walk.base_number, 8);
		assert_int_equal(walk.scope, CRL_SCOPE_DELTA);
	}
}

static void
the_walk_holds_the_outer_length(void **state)
{
	uint8_t octets[1024];
	struct view tbs = wrap(octets, FRONT TIMES "3023 " ENTRY_A EXTENSIONS);
	struct ca_crl_walk walk;
	struct err err;

	(void)state;
	octets[2]++;
	assert_refused(walk_in(64, tbs, &walk, &err), ERR_ARGUMENT, "crl_malformed");
	octets[2] = (uint8_t)(octets[2] - 2);
	assert_refused(walk_in(64, tbs, &walk, &err), ERR_ARGUMENT, "crl_malformed");
	octets[2]++;
	assert_ok(walk_in(64, tbs, &walk, &err));
	for (size_t len = 0; len < tbs.len; len++)
		assert_refused(walk_in(16, (struct view){ tbs.data, len }, &walk, &err),
			ERR_ARGUMENT, "crl_truncated");
	octets[0] = 0x31;
	assert_refused(walk_in(64, tbs, &walk, &err), ERR_ARGUMENT, "crl_malformed");
	{
		static const uint8_t HUGE_LIST[] = { 0x30, 0x84, 0x7f, 0xff, 0xff, 0xff };

		assert_refused(
			walk_in(64, VIEW(HUGE_LIST), &walk, &err), ERR_ARGUMENT, "crl_malformed");
	}
}

/* ---- reading what is not a list ---- */

static void
a_broken_list_is_not_read(void **state)
{
	struct serial one;
	own_struct(bytes) der = { NULL, 0 };
	struct ca_crl_info about;
	struct ca_crl_head head;
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	one = serial_of(7, next_year(), 1);
	head = head_of(&f, 1, NULL);
	assert_ok(make_list(&f, &head, &one, 1, 0, &der, &err));
	for (size_t len = 0; len < der.len; len++)
		assert_refused(read_about((struct view){ der.data, len }, &about, &err),
			ERR_ARGUMENT, "crl_malformed");
	for (size_t i = 0; i < der.len; i++) {
		der.data[i] ^= 0x20; /* no crash; most are refused, some only mean another thing */
		(void)!keeps(view_of(&der), view_of(&der), GATE_WHOLE, &err);
		der.data[i] ^= 0x20;
	}
	assert_ok(read_about(view_of(&der), &about, &err));
	fixture_end(&f);
}

/* ---- invariant 6: what was listed stays listed ---- */

static void
an_entry_must_not_be_lost(void **state)
{
	struct serial all[4];
	own_struct(bytes) before = { NULL, 0 };
	own_struct(bytes) held = { NULL, 0 };
	own_struct(bytes) same = { NULL, 0 };
	own_struct(bytes) fewer = { NULL, 0 };
	own_struct(bytes) none = { NULL, 0 };
	own_struct(bytes) old = { NULL, 0 };
	struct ca_crl_head head;
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	for (uint32_t i = 0; i < 4; i++)
		all[i] = serial_of(7, next_year(), i);
	head = head_of(&f, 1, NULL);
	assert_ok(make_list(&f, &head, all, 3, 1, &before, &err));
	head.number++;
	assert_ok(make_list(&f, &head, all, 4, 1, &same, &err));
	head.number++;
	assert_ok(make_list(&f, &head, all, 1, 1, &fewer, &err));
	head.number++;
	assert_ok(make_list(&f, &head, NULL, 0, 1, &none, &err));
	head.number++;
	assert_ok(make_list(&f, &head, all, 3, 6, &held, &err));
	assert_ok(keeps(view_of(&before), view_of(&same), GATE_WHOLE, &err));
	assert_ok(keeps(view_of(&none), view_of(&same), GATE_WHOLE, &err));
	assert_refused(keeps(view_of(&before), view_of(&fewer), GATE_WHOLE, &err),
		ERR_CONFLICT, "crl_lost_entry");
	assert_non_null(strstr(err.text, "11075f")); /* names the serial */
	assert_refused(keeps(view_of(&before), view_of(&none), GATE_WHOLE, &err),
		ERR_CONFLICT, "crl_lost_entry");
	assert_refused(keeps(view_of(&same), view_of(&before), GATE_WHOLE, &err),
		ERR_CONFLICT, "crl_lost_entry");
	assert_ok(keeps(view_of(&held), view_of(&none), GATE_WHOLE, &err)); /* a hold is lifted */
	/* … of which a delta tells. */
	assert_refused(keeps(view_of(&held), view_of(&none), GATE_DELTA, &err), ERR_CONFLICT,
		"crl_lost_entry");
	/* Expired before the previous list: it has been on one list since. */
	all[0] = serial_of(7, expiry_month(NOW_S - 40 * DAY_S), 0);
	head.number++;
	assert_ok(make_list(&f, &head, all, 1, 1, &old, &err));
	assert_ok(keeps(view_of(&old), view_of(&none), GATE_WHOLE, &err));
	bytes_free(&old);
	all[0] = serial_of(7, expiry_month(NOW_S), 0); /* this month is not over */
	head.number++;
	assert_ok(make_list(&f, &head, all, 1, 1, &old, &err));
	assert_refused(keeps(view_of(&old), view_of(&none), GATE_WHOLE, &err), ERR_CONFLICT,
		"crl_lost_entry");
	fixture_end(&f);
}

/* A delta ends holds alone; what is revoked for good it cannot remove. */
static void
a_delta_removes_holds_alone(void **state)
{
	static const struct {
		int before, after;
		bool whole, delta, removed; /* which gates let it pass */
	} CASES[] = {
		{ 6, 8, true, true, true },
		{ 8, 8, true, true, true },
		{ 8, 1, true, true, true },
		{ 6, 1, true, true, true },
		{ 1, 1, true, true, true },
		{ 1, 8, false, false, false },
		{ 0, 8, false, false, false },
		{ 1, -1, false, false, true }, /* -1: not there */
		{ 6, -1, true, false, true },
		{ 8, -1, true, false, true },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct serial one = serial_of(7, next_year(), 1);
		own_struct(bytes) before = { NULL, 0 };
		own_struct(bytes) after = { NULL, 0 };
		struct ca_crl_head head;
		struct fixture f;
		struct err err;

		fixture_make(&f, KEY_EC_P256);
		head = delta_head(&f, 2, 1);
		assert_ok(make_list(&f, &head, &one, 1, CASES[i].before, &before, &err));
		head.number++;
		assert_ok(make_list(&f, &head, &one, CASES[i].after >= 0,
			CASES[i].after >= 0 ? CASES[i].after : 0, &after, &err));
		for (int kind = GATE_WHOLE; kind <= GATE_REMOVED; kind++) {
			bool want = kind == GATE_WHOLE ? CASES[i].whole
				: kind == GATE_DELTA ? CASES[i].delta : CASES[i].removed;
			bool passes = keeps(view_of(&before), view_of(&after),
					      (enum ca_crl_gate_kind)kind, &err) == OK;

			if (passes != want)
				fail_msg("case %zu, gate %d: %d wanted", i, kind, want);
		}
		fixture_end(&f);
	}
}

/* A list that was made in a month's first second must not be the last one of its scope. */
static void
an_entry_may_go_after_a_list_of_midnight(void **state)
{
	struct civil month = civil_from_s(NOW_S);
	own_struct(bytes) before = { NULL, 0 };
	own_struct(bytes) none = { NULL, 0 };
	struct ca_crl_head head;
	struct serial serial;
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	month.day = 1;
	month.hour = month.minute = month.second = 0;
	f.clock.fixed_s = civil_to_s(month);
	serial = serial_of(7, expiry_month(f.clock.fixed_s - 1), 0);
	head = head_of(&f, 1, NULL);
	assert_ok(make_list(&f, &head, &serial, 1, 1, &before, &err));
	head.number++;
	assert_ok(make_list(&f, &head, NULL, 0, 1, &none, &err));
	assert_ok(keeps(view_of(&before), view_of(&none), GATE_WHOLE, &err));
	fixture_end(&f);
}

static void
each_allocation_may_fail(void **state)
{
	struct serial one = serial_of(7, next_year(), 1);
	struct ca_crl_head head;
	struct fixture f;
	bool failed = true;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	head = head_of(&f, 0, NULL);
	for (int64_t n = 0; failed; n++) {
		struct bytes der = { NULL, 0 };
		enum status status;
		struct err err;

		head.number++;
		mem_fail_at(n);
		status = make_list(&f, &head, &one, 1, 1, &der, &err);
		failed = mem_failed();
		mem_fail_at(-1);
		assert_int_equal(status, failed ? ERR_UNAVAILABLE : OK);
		bytes_free(&der);
	}
	fixture_end(&f);
}

/* Dates of many days in no order, some beyond UTCTime's last (RFC 5280 5.1.2.4). */
static int64_t
many_at_s(uint32_t i)
{
	return i % 1000 == 7 ? INT64_C(2524608000) + i : NOW_S - (int64_t)(i * 7919 % 9000017);
}

static void
assert_dates(const struct pile *list, uint32_t count)
{
	struct ca_crl_reader *reader;
	struct ca_crl_entry entry;
	struct err err;
	bool more;

	assert_ok(ca_crl_reader_new(&reader, list, &err));
	for (uint32_t i = 0; i < count; i++) {
		assert_ok(ca_crl_reader_next(reader, &entry, &more, &err));
		assert_true(more && entry.revoked_at_s == many_at_s(i));
	}
	assert_ok(ca_crl_reader_next(reader, &entry, &more, &err));
	assert_false(more);
	ca_crl_reader_free(reader);
}

static void
a_large_list_is_quick(void **state)
{
	enum { ENTRIES = 200000 };
	struct ca_crl *crl = NULL;
	own_struct(pile) list = { .fd = -1 };
	own_struct(bytes) der = { NULL, 0 };
	struct ca_crl_head head;
	uint8_t sha256[32], ready[4096], then[4096];
	int64_t begin_us;
	struct fixture f;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	head = head_of(&f, 1, NULL);
	begin_us = clock_mono_us();
	assert_ok(ca_crl_begin(&crl, &head, "/tmp", &err));
	for (uint32_t i = 0; i < ENTRIES; i++) {
		struct serial serial = serial_of((uint8_t)(i * 256 / ENTRIES), next_year(), i);

		assert_ok(ca_crl_add(crl, &serial, many_at_s(i), 1, &err));
	}
	assert_true(ca_crl_ready_bytes(crl) > ENTRIES * 48);
	assert_ok(ca_crl_ready_read(crl, ENTRIES, ready, sizeof(ready), &err));
	pile_init(&list, f.dir, CRL_MEMORY_MAX_BYTES);
	assert_ok(ca_crl_sign(crl, f.signer, &list, sha256, &err));
	assert_true(list.fd >= 0); /* not in memory */
	assert_ok(pile_read(&list, ca_crl_front_bytes(crl) + ENTRIES, then, sizeof(then), &err));
	assert_memory_equal(ready, then, sizeof(ready));
	assert_dates(&list, ENTRIES);
	take_octets(&der, &list);
	print_message("%d entries, %zu octets: %.0f ms\n", ENTRIES, der.len,
		(double)(clock_mono_us() - begin_us) / 1000);
	ca_crl_free(crl);
	write_file(f.dir, "list.crl", view_of(&der));
	assert_int_equal(
		run("openssl crl -inform DER -in %s/list.crl -noout -CAfile %s/issuing-1.crt"
		    " 2>&1 | grep -q 'verify OK'",
			f.dir, f.dir),
		0);
	fixture_end(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openssl_and_certtool_read_every_list),
		cmocka_unit_test(a_list_says_what_was_put_in),
		cmocka_unit_test(openssl_takes_what_a_delta_says),
		cmocka_unit_test(the_signer_holds_a_delta_to_its_full_list),
		cmocka_unit_test(the_builder_refuses),
		cmocka_unit_test(the_signer_holds_numbers_and_shards),
		cmocka_unit_test(a_list_needs_a_beginning),
		cmocka_unit_test(the_walk_refuses_each_broken_field),
		cmocka_unit_test(the_walk_knows_a_delta),
		cmocka_unit_test(the_walk_holds_the_outer_length),
		cmocka_unit_test(a_broken_list_is_not_read),
		cmocka_unit_test(an_entry_must_not_be_lost),
		cmocka_unit_test(a_delta_removes_holds_alone),
		cmocka_unit_test(an_entry_may_go_after_a_list_of_midnight),
		cmocka_unit_test(each_allocation_may_fail),
		cmocka_unit_test(a_large_list_is_quick),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
