#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static _Thread_local int64_t fail_countdown = -1;
static _Thread_local bool fail_reached;

static bool
must_fail(void)
{
	if (fail_countdown < 0)
		return false;
	if (fail_countdown-- > 0)
		return false;
	fail_reached = true;
	return true;
}

void *
mem_alloc(size_t bytes)
{
	return must_fail() ? NULL : malloc(bytes > 0 ? bytes : 1);
}

void *
mem_zalloc(size_t bytes)
{
	return mem_array(1, bytes);
}

void *
mem_array(size_t count, size_t item_bytes)
{
	size_t bytes;

	/* calloc looks as well; under a sanitizer it ends the program instead of saying so. */
	if (must_fail() || __builtin_mul_overflow(count, item_bytes, &bytes))
		return NULL;
	return calloc(bytes > 0 ? bytes : 1, 1);
}

void *
mem_realloc(void *p, size_t bytes)
{
	return must_fail() ? NULL : realloc(p, bytes > 0 ? bytes : 1);
}

char *
mem_strdup(const char *text)
{
	return must_fail() ? NULL : strdup(text);
}

void
mem_free(void *p)
{
	free(p);
}

void
mem_fail_at(int64_t n)
{
	fail_countdown = n;
	fail_reached = false;
}

bool
mem_failed(void)
{
	return fail_reached;
}
