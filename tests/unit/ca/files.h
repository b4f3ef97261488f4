/* tests/unit/ca/files.h - what the tests of ca share: files, folders that vanish, errors as wanted.
 */
#ifndef TESTS_UNIT_CA_FILES_H
#define TESTS_UNIT_CA_FILES_H

#include "tests/unit/base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "ca/file.h"

#define assert_refused(call, want_status, want_code)                                               \
	do {                                                                                       \
		enum status status_ = (call);                                                      \
		if (status_ == OK)                                                                 \
			fail_msg("%s: refused with %s wanted, OK found", #call, want_code);        \
		assert_string_equal(err.code, want_code);                                          \
		assert_int_equal(status_, want_status);                                            \
		assert_int_equal(err.status, want_status);                                         \
	} while (0)

#define assert_ok(call)                                                                            \
	do {                                                                                       \
		if ((call) != OK)                                                                  \
			fail_msg("%s: %s: %s", #call, err.code, err.text);                         \
	} while (0)

UNUSED static struct bytes
slurp(const char *path)
{
	struct bytes out = { NULL, 0 };
	struct err err;

	assert_ok(file_read(&out, path, 1024 * 1024, &err));
	return out;
}

/* A new folder below TMPDIR. */
UNUSED static void
folder_make(char out[256])
{
	const char *base = getenv("TMPDIR");

	(void)snprintf(out, 256, "%s/jitrca-test-XXXXXX", base != NULL ? base : "/tmp");
	assert_non_null(mkdtemp(out));
}

UNUSED static void
folder_remove(const char *path)
{
	char command[512];

	(void)snprintf(command, sizeof(command), "rm -rf -- '%s'", path);
	assert_int_equal(system(command), 0);
}

#endif
