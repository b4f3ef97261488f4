#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The functions themselves, without what err.h puts around a call. */
#undef err_set
#undef err_wrap
#undef err_memory

enum status
err_set(struct err *err, enum status status, const char *code, const char *fmt, ...)
{
	va_list args;

	err->status = status;
	err->retry_after_s = 0;
	(void)snprintf(err->code, sizeof(err->code), "%s", code);
	va_start(args, fmt);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	return status;
}

enum status
err_wrap(struct err *err, const char *fmt, ...)
{
	char inner[ERR_TEXT_BYTES];
	va_list args;
	int used;

	memcpy(inner, err->text, sizeof(inner));
	va_start(args, fmt);
	used = vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	if (used >= 0 && (size_t)used < sizeof(err->text)) {
		size_t left = sizeof(err->text) - (size_t)used;

		/* Cut on purpose: the precision says so to the compiler too. */
		(void)snprintf(err->text + used, left, ": %.*s", (int)(left > 3 ? left - 3 : 0), inner);
	}
	return err->status;
}

enum status
err_memory(struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "out_of_memory", "memory is short");
}

const char *
status_name(enum status status)
{
	switch (status) {
	case ERR_INTERNAL: return "ERR_INTERNAL";
	case OK: return "OK";
	case ERR_ARGUMENT: return "ERR_ARGUMENT";
	case ERR_UNAUTHENTICATED: return "ERR_UNAUTHENTICATED";
	case ERR_DENIED: return "ERR_DENIED";
	case ERR_NOT_FOUND: return "ERR_NOT_FOUND";
	case ERR_CONFLICT: return "ERR_CONFLICT";
	case ERR_TOO_LARGE: return "ERR_TOO_LARGE";
	case ERR_TOO_MANY: return "ERR_TOO_MANY";
	case ERR_UNAVAILABLE: return "ERR_UNAVAILABLE";
	}
	return "ERR_UNKNOWN";
}
