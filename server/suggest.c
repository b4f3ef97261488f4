#include "server/suggest.h"

#include <string.h>

/* Ours are short; what is longer is far from all of them. */
#define NAME_MAX_BYTES 64

/* Levenshtein, with one row. */
static size_t
distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_BYTES + 1];
	size_t b_len = strlen(b);

	if (strlen(a) > NAME_MAX_BYTES || b_len > NAME_MAX_BYTES)
		return NAME_MAX_BYTES;
	for (size_t j = 0; j <= b_len; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1] != '\0'; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= b_len; j++) {
			size_t cost = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < cost)
				cost = row[j] + 1;
			if (row[j - 1] + 1 < cost)
				cost = row[j - 1] + 1;
			row[j] = cost;
		}
	}
	return row[b_len];
}

const char *
suggest_nearest(const char *name, const char *const *names, size_t count)
{
	const char *best = names[0];
	size_t least = distance(name, names[0]);

	for (size_t i = 1; i < count; i++) {
		size_t d = distance(name, names[i]);

		if (d < least) {
			least = d;
			best = names[i];
		}
	}
	return best;
}
