#include "tests/unit/ca/fixture.h"

#include "ca/checkpoint.h"
#include "ca/digest.h"
#include "ca/signer_wire.h"

/* RFC 8032 7.1, TEST 1: a secret that everybody knows. */
static const char SEED[] = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
static const char PEM[] = "-----BEGIN PUBLIC KEY-----\n"
			  "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
			  "-----END PUBLIC KEY-----\n";
#define DIGITS(c) c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c
/* Made with Python's cryptography by the words of ca/checkpoint.h and c2sp.org/signed-note. */
static const char TEXT[] = "jitrca audit checkpoint v1\n"
			   "log jitrca-audit/21fe31dfa154a261\n"
			   "number 7\n"
			   "previous " DIGITS("11") "\n"
			   "at 2026-11-24T06:00:00Z\n"
			   "records 3\n"
			   "root " DIGITS("22") "\n"
			   "lane 1 5 " DIGITS("33") "\n"
			   "lane 1000 2 " DIGITS("44") "\n";
#define LINE                                                                                       \
	"\xe2\x80\x94 jitrca-audit/21fe31dfa154a261 "                                              \
	"Q7wGT67Z/mSUKAcWpYRJUZivMeHTRb/XMP10bXT2GC1jzkOYza1kkZQhiitMgdCn85R4Vvptr/ZjzWH4xmKYsOe42Q0=\n"

static struct ca_checkpoint
checkpoint(void)
{
	struct ca_checkpoint c = { .number = 7, .at_s = NOW_S, .records = 3, .lane_count = 2 };

	memset(c.previous, 0x11, 32);
	memset(c.root, 0x22, 32);
	c.lanes[0] = (struct ca_checkpoint_lane){ .lane = 1, .seq = 5 };
	c.lanes[1] = (struct ca_checkpoint_lane){ .lane = 1000, .seq = 2 };
	memset(c.lanes[0].head, 0x33, 32);
	memset(c.lanes[1].head, 0x44, 32);
	return c;
}

static void
known_key(struct ca_checkpoint_key *key)
{
	uint8_t der[48] = { 0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70,
		0x04, 0x22, 0x04, 0x20 };
	struct err err;

	*key = (struct ca_checkpoint_key){ .known = true };
	assert_true(hex_decode(der + 16, 32, SEED, 64));
	assert_ok(ca_checkpoint_key_from_pem(key->public_key, view_text(PEM), &err));
	assert_ok(ca_checkpoint_key_unlock(key, (struct view){ der, sizeof(der) }, &err));
}

static void
a_note_is_the_one_that_others_make(void **state)
{
	own_struct(ca_checkpoint_key) key = { .known = false };
	own_struct(bytes) note = { NULL, 0 };
	own_struct(buf) pem = { .limit_bytes = 1024 };
	struct ca_checkpoint c = checkpoint();
	struct ca_checkpoint back;
	uint8_t digest[32];
	char text[65];
	struct err err;

	(void)state;
	known_key(&key);
	assert_ok(ca_checkpoint_sign(&key, &c, &note, &err));
	assert_int_equal(note.len, strlen(TEXT) + 1 + strlen(LINE));
	assert_memory_equal(note.data, TEXT, strlen(TEXT));
	assert_memory_equal(note.data + strlen(TEXT) + 1, LINE, strlen(LINE));
	assert_ok(ca_checkpoint_open(&back, view_of(&note), key.public_key, &err));
	assert_int_equal(back.number, 7);
	assert_int_equal(back.at_s, NOW_S);
	assert_int_equal(back.lane_count, 2);
	assert_int_equal(back.lanes[1].lane, 1000);
	assert_memory_equal(back.lanes[1].head, c.lanes[1].head, 32);
	ca_checkpoint_text_sha256(digest, view_of(&note));
	hex_encode(text, digest, 32);
	assert_string_equal(text, "f2381a596ae16b84fdc1167700e402a15859ef89f33bdbe3acd51c17a9a8f95b");
	assert_ok(ca_checkpoint_key_to_pem(key.public_key, &pem, &err));
	assert_true(view_equal_text(buf_view(&pem), PEM));
}

static void
what_is_not_such_a_note_is_refused(void **state)
{
	static const struct {
		const char *from, *to;
		enum status want_status;
		const char *want_code;
	} CASES[] = {
		{ "records 3", "records 4", ERR_DENIED, "checkpoint_forged" },
		{ "lane 1 5", "lane 1 4", ERR_DENIED, "checkpoint_forged" },
		{ "Q7wGT67Z", "Q7wGT67a", ERR_DENIED, "checkpoint_forged" },
		{ "Q7wGT67Z", "Q7wHT67Z", ERR_DENIED, "checkpoint_key" }, /* another key id */
		{ "\xe2\x80\x94 jitrca-audit/2", "\xe2\x80\x94 jitrca-audit/3", ERR_DENIED,
			"checkpoint_key" },
		{ "2Q0=\n", "2Q0\n", ERR_ARGUMENT, "checkpoint_malformed" },
		{ "2Q0=\n", "2Q0=", ERR_ARGUMENT, "checkpoint_malformed" },
		{ "2Q0=\n", "2Q0=\nmore\n", ERR_DENIED, NULL }, /* found before: the text is signed */
		{ "\xe2\x80\x94 ", "-- ", ERR_ARGUMENT, "checkpoint_malformed" },
	};
	own_struct(ca_checkpoint_key) key = { .known = false };

	(void)state;
	known_key(&key);
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		char note[2048];
		char changed[2048];
		struct ca_checkpoint back;
		struct err err;
		char *at;

		(void)snprintf(note, sizeof(note), "%s\n%s", TEXT, LINE);
		at = strstr(note, CASES[i].from);
		assert_non_null(at);
		(void)snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - note), note, CASES[i].to,
			at + strlen(CASES[i].from));
		if (CASES[i].want_code == NULL)
			assert_ok(ca_checkpoint_open(&back, view_text(changed), key.public_key, &err));
		else
			assert_refused(
				ca_checkpoint_open(&back, view_text(changed), key.public_key, &err),
				CASES[i].want_status, CASES[i].want_code);
	}
}

/* A cosignature beside ours changes nothing; several notes in one file are taken one by one. */
static void
notes_may_be_cosigned_and_stand_behind_each_other(void **state)
{
	own_struct(ca_checkpoint_key) key = { .known = false };
	char all[4096];
	struct view rest, note;
	struct ca_checkpoint back;
	struct err err;
	size_t count = 0;

	(void)state;
	known_key(&key);
	(void)snprintf(all, sizeof(all), "%s\n%s\xe2\x80\x94 witness.example AAAA\n%s\n%s", TEXT, LINE,
		TEXT, LINE);
	for (rest = view_text(all); ca_checkpoint_take(&rest, &note); count++)
		assert_ok(ca_checkpoint_open(&back, note, key.public_key, &err));
	assert_int_equal(count, 2);
	rest = view_text("no note");
	assert_true(ca_checkpoint_take(&rest, &note));
	assert_refused(ca_checkpoint_open(&back, note, key.public_key, &err), ERR_ARGUMENT,
		"checkpoint_malformed");
	assert_false(ca_checkpoint_take(&rest, &note));
}

static void
fields_that_make_no_sense_are_not_signed(void **state)
{
	own_struct(ca_checkpoint_key) key = { .known = false };
	struct ca_checkpoint cases[6];
	struct err err;

	(void)state;
	known_key(&key);
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		cases[i] = checkpoint();
	cases[0].number = 0;
	cases[1].records = -1;
	cases[2].lanes[0].seq = 0;
	cases[3].lanes[1].lane = 1;
	cases[4].lanes[0].lane = -1;
	cases[5].lane_count = CA_CHECKPOINT_LANES_MAX + 1;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct bytes note;

		assert_refused(ca_checkpoint_sign(&key, &cases[i], &note, &err), ERR_ARGUMENT,
			"checkpoint_field");
	}
}

/* Behind the signer's door: sealed key, its own clock, over the wire as well. */
static void
a_signer_signs_only_what_grows(void **state)
{
	struct fixture f;
	struct ca_ceremony ceremony;
	struct ca_checkpoint c = checkpoint();
	struct ca_checkpoint back;
	const struct ca_checkpoint_key *key;
	struct bytes note;
	struct err err;

	(void)state;
	fixture_make(&f, KEY_EC_P256);
	assert_refused(ca_signer_checkpoint(f.signer, &c, &note, &err), ERR_NOT_FOUND,
		"checkpoint_key_absent");
	ceremony = fixture_ceremony(&f, "root", KEY_EC_P256);
	assert_ok(ca_keystore_make_checkpoint_key(&ceremony, &err));
	assert_refused(ca_keystore_make_checkpoint_key(&ceremony, &err), ERR_CONFLICT, "file_exists");
	ca_signer_free(f.signer);
	ca_signer_shared_free(f.shared);
	ca_keystore_free(f.keystore);
	fixture_open(&f);
	struct ca_signer_setup setup = fixture_setup(&f);
	assert_ok(ca_signer_shared_new(&f.shared, &setup, &err));
	assert_ok(ca_signer_local(&f.signer, f.shared, &err));

	key = ca_keystore_checkpoint_key(f.keystore);
	c.at_s = 1; /* whatever the asker says */
	assert_ok(ca_signer_checkpoint(f.signer, &c, &note, &err));
	assert_ok(ca_checkpoint_open(&back, view_of(&note), key->public_key, &err));
	assert_int_equal(back.at_s, NOW_S);
	bytes_free(&note);
	assert_refused(ca_signer_checkpoint(f.signer, &c, &note, &err), ERR_CONFLICT, "checkpoint_order");
	for (size_t i = 0; i < 3; i++) { /* shorter, another record, a lane less */
		struct ca_checkpoint next = c;

		next.number++;
		if (i == 0)
			next.lanes[0].seq--;
		else if (i == 1)
			next.lanes[0].head[0] ^= 1;
		else
			next.lane_count--;
		assert_refused(ca_signer_checkpoint(f.signer, &next, &note, &err), ERR_CONFLICT,
			"checkpoint_order");
	}
	c.number += 2; /* a number may be missing */
	c.lanes[0].seq++;
	assert_ok(ca_signer_checkpoint(f.signer, &c, &note, &err));
	bytes_free(&note);
	fixture_end(&f);
}

static void
fields_cross_the_wire(void **state)
{
	struct wire_writer w;
	struct ca_checkpoint c = checkpoint();
	struct ca_checkpoint back;
	struct wire_reader r;
	struct err err;

	(void)state;
	wire_writer_init(&w);
	wire_begin(&w, WIRE_CHECKPOINT);
	wire_put_checkpoint(&w, &c);
	assert_ok(wire_end(&w, &err));
	r = (struct wire_reader){ .rest = { w.buf.data + WIRE_HEADER_BYTES, w.buf.len - WIRE_HEADER_BYTES } };
	wire_get_checkpoint(&r, &back);
	assert_ok(wire_done(&r, &err));
	c.at_s = 0;
	assert_memory_equal(&back.lanes[1].head, &c.lanes[1].head, 32);
	assert_int_equal(back.number, c.number);
	assert_int_equal(back.lanes[1].lane, 1000);
	assert_int_equal(back.records, 3);
	wire_writer_free(&w);
}

static int
set_up(void **state)
{
	struct err err;

	(void)state;
	return ca_init(&err) == OK ? 0 : -1;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_note_is_the_one_that_others_make),
		cmocka_unit_test(what_is_not_such_a_note_is_refused),
		cmocka_unit_test(notes_may_be_cosigned_and_stand_behind_each_other),
		cmocka_unit_test(fields_that_make_no_sense_are_not_signed),
		cmocka_unit_test(a_signer_signs_only_what_grows),
		cmocka_unit_test(fields_cross_the_wire),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
