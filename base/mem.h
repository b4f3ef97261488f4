/*
 * base/mem.h - the one door to the heap. It can be made to fail, so that tests walk every
 * out-of-memory path. Safe from any thread. Nothing else in the project calls malloc.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"

/* All return NULL when memory is short or the size overflows. Free with mem_free. */
MUST_USE void *mem_alloc(size_t bytes);
MUST_USE void *mem_zalloc(size_t bytes);
MUST_USE void *mem_array(size_t count, size_t item_bytes); /* zeroed */
MUST_USE void *mem_realloc(void *p, size_t bytes);         /* p stays valid on NULL */
MUST_USE char *mem_strdup(const char *text);
void mem_free(void *p); /* NULL is welcome */

/* A text of our own: own(str) s = mem_strdup(…); */
typedef char str;
OWNER(str, mem_free)

/*
 * For tests: the n-th allocation of this thread from now (0 = the next one) fails, and only that
 * one. -1 switches it off.
 */
void mem_fail_at(int64_t n);
/* True once the allocation chosen by mem_fail_at has been reached. */
bool mem_failed(void);

#endif
