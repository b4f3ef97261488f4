/* The reader's calls in an order that the input chooses; what is read lies within the input. */
#include <assert.h>
#include <stdint.h>

#include "ca/der.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void
within(struct view part, struct view whole)
{
	assert(part.len == 0 ||
		(part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct view input = { data, len }, part = { NULL, 0 };
	struct der stack[8], *in = stack;
	struct err err;
	uint64_t number;
	int64_t time_s;
	unsigned bits;
	char text[40];
	uint8_t tag;
	bool flag;

	if (len == 0)
		return 0;
	stack[0] = der_of((struct view){ data + 1, len - 1 }, "x", "x");
	for (unsigned step = data[0], count = 0; count < 64; step = step * 5 + 1, count++) {
		switch (step >> 4 & 15) {
		case 0: (void)!der_integer(in, "f", &part, &err); break;
		case 1: (void)!der_unsigned(in, "f", &part, &err); break;
		case 2: (void)!der_number(in, "f", &number, &err); break;
		case 3: (void)!der_boolean_default_false(in, "f", &flag, &err); break;
		case 4:
			if (der_oid(in, "f", &part, &err) == OK)
				der_oid_text(text, sizeof(text), part);
			break;
		case 5: (void)!der_null(in, "f", &err); break;
		case 6: (void)!der_bits(in, "f", &part, &err); break;
		case 7: (void)!der_named_bits(in, "f", &bits, &err); break;
		case 8: (void)!der_time(in, "f", &time_s, &err); break;
		case 9: (void)!der_end(in, "f", &err); break;
		case 10: case 11: case 12: case 13:
			if (in < stack + 7 && in->rest.len > 0 &&
			    der_enter(in, in->rest.data[0], "f", in + 1, &err) == OK)
				in++;
			break;
		default: (void)!der_any(in, "f", &tag, &part, NULL, &err); break;
		}
		within(part, input);
		within(in->rest, input);
	}
	return 0;
}
