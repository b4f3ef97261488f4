/*
 * Any octets as a CRL: read or refused, and the walk in pieces (their length is the first octet)
 * says the same as the walk at once.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "ca/crl.h"
#include "ca/crl_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const uint8_t ALGORITHM[] = { 0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04,
	0x03, 0x02 };
static const uint8_t NAME[] = { 0x30, 0x15, 0x31, 0x13, 0x30, 0x11, 0x06, 0x03, 0x55, 0x04, 0x03,
	0x0c, 0x0a, 'I', 's', 's', 'u', 'i', 'n', 'g', ' ', 'C', 'A' };
static const uint8_t SKI[20] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
	20 };

static enum status
walk_in(struct ca_crl_walk *walk, size_t piece, struct view tbs, struct err *err)
{
	const struct ca_tbs_issuer issuer = {
		.ca_id = "issuing-1",
		.subject = { NAME, sizeof(NAME) },
		.ski = { SKI, sizeof(SKI) },
		.algorithm = { ALGORITHM, sizeof(ALGORITHM) },
	};

	ca_crl_walk_begin(walk, &issuer, "http://ca.example.com", INT64_C(1795500000));
	while (tbs.len > 0) {
		size_t now = tbs.len < piece ? tbs.len : piece;

		TRY(ca_crl_walk_add(walk, (struct view){ tbs.data, now }, err));
		tbs.data += now;
		tbs.len -= now;
	}
	return ca_crl_walk_end(walk, err);
}

/* As a whole list: read or refused, and it keeps itself. */
static void
read_all(struct view der)
{
	own_struct(pile) pile = { .fd = -1 };
	own(ca_crl_reader) reader = NULL;
	own(ca_crl_gate) gate = NULL;
	struct ca_crl_entry entry;
	struct serial serial;
	bool more = true, ours = true;
	struct err err;

	pile_init(&pile, "/tmp", (size_t)1 << 20);
	if (pile_add(&pile, der.data, der.len, &err) != OK || pile_close(&pile, &err) != OK)
		return;
	if (ca_crl_reader_new(&reader, &pile, &err) != OK) {
		assert(strcmp(err.code, "crl_malformed") == 0);
		return;
	}
	ours = ca_crl_gate_new(&gate, &pile, GATE_DELTA, &err) == OK;
	while (more && ca_crl_reader_next(reader, &entry, &more, &err) == OK) {
		assert(!more || entry.serial.len > 0);
		if (!more || !ours || entry.serial.len != SERIAL_BYTES)
			continue;
		memcpy(serial.octets, entry.serial.data, SERIAL_BYTES);
		ours = ca_crl_gate_pass(gate, &serial, entry.reason, &err) == OK;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct ca_crl_walk whole, pieces;
	struct err err = { .status = OK }, err2 = { .status = OK };
	struct view tbs;
	enum status a, b;

	if (len < 1)
		return 0;
	tbs = (struct view){ data + 1, len - 1 };
	a = walk_in(&whole, SIZE_MAX, tbs, &err);
	b = walk_in(&pieces, (size_t)data[0] + 1, tbs, &err2);
	assert(a == b);
	assert(a == OK || strcmp(err.code, err2.code) == 0);
	assert(a != OK || (whole.number == pieces.number && whole.scope == pieces.scope &&
				  whole.base_number == pieces.base_number));

	read_all(tbs);
	return 0;
}
