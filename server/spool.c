#include "server/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum status
spool_open(struct spool *spool, struct err *err)
{
	const char *const places[] = { getenv("TMPDIR"), "/var/tmp", "/tmp" };

	spool->fd = -1;
	spool->size_bytes = 0;
	spool->len = 0;
	for (size_t i = 0; i < COUNT_OF(places) && spool->fd < 0; i++)
		if (places[i] != NULL && places[i][0] == '/')
			spool->fd = open(places[i], O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (spool->fd < 0)
		return err_set(err, ERR_UNAVAILABLE, "spool", "no temporary file can be made");
	return OK;
}

static enum status
flush(struct spool *spool, struct err *err)
{
	size_t at = 0;

	while (at < spool->len) {
		ssize_t put = write(spool->fd, spool->octets + at, spool->len - at);

		if (put < 0 && errno != EINTR)
			return err_set(err, ERR_UNAVAILABLE, "spool", "no room in the temporary file");
		if (put > 0)
			at += (size_t)put;
	}
	spool->size_bytes += spool->len;
	spool->len = 0;
	return OK;
}

enum status
spool_write(struct spool *spool, const char *text, struct err *err)
{
	size_t len = strlen(text);

	while (len > 0) {
		size_t room = sizeof(spool->octets) - spool->len;
		size_t part = len < room ? len : room;

		memcpy(spool->octets + spool->len, text, part);
		spool->len += part;
		text += part;
		len -= part;
		if (spool->len == sizeof(spool->octets))
			TRY(flush(spool, err));
	}
	return OK;
}

enum status
spool_finish(struct spool *spool, int *fd, struct err *err)
{
	TRY(flush(spool, err));
	*fd = spool->fd;
	spool->fd = -1;
	return OK;
}

void
spool_close(struct spool *spool)
{
	if (spool->fd >= 0)
		(void)close(spool->fd);
	spool->fd = -1;
}
