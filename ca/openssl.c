#include "ca/openssl.h"

#include <stdarg.h>
#include <stdio.h>

#include <openssl/err.h>

#include "base/log.h"

/* ERR_reason_error_string knows no reasons of the operating system. */
static const char *
reason(unsigned long packed)
{
	const char *text = ERR_reason_error_string(packed);

	return text != NULL ? text : "no reason given";
}

#undef err_openssl /* the function itself */

enum status
err_openssl(struct err *err, const char *fmt, ...)
{
	unsigned long first = ERR_get_error(), next;
	char text[ERR_TEXT_BYTES];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	while ((next = ERR_get_error()) != 0)
		log_event(LOG_DEBUG, "openssl_error", NULL, LOG_STR("reason", reason(next)));
	if (first == 0)
		return err_set(err, ERR_INTERNAL, "openssl", "%s", text);
	if (ERR_GET_REASON(first) == ERR_R_MALLOC_FAILURE)
		return err_set(err, ERR_UNAVAILABLE, "out_of_memory", "%s: memory is short", text);
	return err_set(err, ERR_INTERNAL, "openssl", "%s: %s", text, reason(first));
}

void
openssl_errors_drop(void)
{
	ERR_clear_error();
}
