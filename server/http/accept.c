/* Accept (RFC 9110 12.5.1): which of our types a client would rather have. */
#include <string.h>
#include <strings.h>

#include "server/http/internal.h"

/* Ranges that are looked at; a browser sends eight. */
#define RANGES_MAX 32

/* q=0.5 as thousandths; absent: 1000; malformed: 0, which is as good as not named. */
static int
quality(const char *params, size_t len)
{
	for (size_t i = 0; i + 2 < len; i++) {
		const char *at = params + i;
		int value, scale = 100;

		if ((at[0] != 'q' && at[0] != 'Q') || at[1] != '=' ||
			(i > 0 && strchr("; \t", at[-1]) == NULL))
			continue;
		if (at[2] != '0' && at[2] != '1')
			return 0;
		value = (at[2] - '0') * 1000;
		if (i + 3 < len && at[3] == '.')
			for (size_t k = i + 4;
				k < len && params[k] >= '0' && params[k] <= '9' && scale > 0; k++) {
				value += (params[k] - '0') * scale;
				scale /= 10;
			}
		return value > 1000 ? 1000 : value;
	}
	return 1000;
}

/* How narrowly a range names a type: 3 exactly, 2 type/\*, 1 *\/\*, 0 not at all. */
static int
narrowness(const char *range, size_t len, const char *type)
{
	size_t slash = strcspn(type, "/") + 1;

	if (len == strlen(type) && strncasecmp(range, type, len) == 0)
		return 3;
	if (len == slash + 1 && range[slash] == '*' && strncasecmp(range, type, slash) == 0)
		return 2;
	if (len == 3 && memcmp(range, "*/*", 3) == 0)
		return 1;
	return 0;
}

static int
quality_of(const char *accept, const char *type)
{
	int best = 0, narrowest = 0;

	for (unsigned i = 0; i < RANGES_MAX && *accept != '\0'; i++) {
		size_t all, name;
		int narrow;

		accept += strspn(accept, ", \t");
		all = strcspn(accept, ",");
		name = strcspn(accept, ",; \t");
		narrow = narrowness(accept, name, type);
		if (narrow > narrowest) {
			narrowest = narrow;
			best = quality(accept + name, all - name);
		}
		accept += all;
	}
	return best;
}

const char *
request_accept(const struct request *request, const char *const *types)
{
	const char *accept = request_header(request, "Accept");
	const char *best = NULL;
	int best_quality = 0;

	if (accept == NULL)
		return types[0];
	for (; *types != NULL; types++) {
		int its = quality_of(accept, *types);

		/* Of equals the first of ours. */
		if (its > best_quality) {
			best = *types;
			best_quality = its;
		}
	}
	return best;
}
