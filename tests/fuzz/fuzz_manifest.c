/* Any octets as an uploaded manifest: it ends, and what comes out are ids. The first one is the form. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/http/fields.h"
#include "server/manifest_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const enum manifest_format FORMATS[] = { MANIFEST_CSV, MANIFEST_JSON, MANIFEST_NDJSON };
	static struct manifest_reader reader;
	static int fd = -1;
	const char *id = NULL;
	size_t count = 0;
	struct err err;

	if (len == 0)
		return 0;
	if (fd < 0)
		fd = memfd_create("manifest", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data + 1, len - 1, 0) != (ssize_t)len - 1 ||
	    lseek(fd, 0, SEEK_SET) != 0)
		abort();
	manifest_reader_init(&reader, fd, FORMATS[data[0] % 3]);
	while (manifest_reader_next(&reader, &id, &err) == OK && id != NULL) {
		assert(fields_is_id(id));
		/* An id takes two octets of the file at least. */
		assert(++count <= len);
	}
	return 0;
}
