/* server/suggest.h - the name that was probably meant. */
#ifndef SERVER_SUGGEST_H
#define SERVER_SUGGEST_H

#include <stddef.h>

/* The nearest of count (at least one) names by edit distance. */
const char *suggest_nearest(const char *name, const char *const *names, size_t count);

#endif
