#include "server/passphrase.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define CREDENTIAL "jitrca-passphrase"

/* Until a newline, the end, or the room's. */
static enum status
read_line(struct secret *out, int fd, struct err *err)
{
	own_struct(secret) line = { NULL, 0 };
	size_t len = 0;

	TRY(secret_new(&line, PASSPHRASE_MAX_BYTES + 1, err));
	while (len < line.len) {
		ssize_t got = read(fd, line.data + len, 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0 || line.data[len] == '\n')
			break;
		len++;
	}
	if (len > PASSPHRASE_MAX_BYTES)
		return err_set(err, ERR_TOO_LARGE, "passphrase_too_long",
			"passphrase: at most %d octets wanted", PASSPHRASE_MAX_BYTES);
	return secret_copy(out, (struct view){ line.data, len }, err);
}

static enum status
prompt(struct secret *out, int tty, const char *text, struct err *err)
{
	struct termios before;
	struct termios quiet;
	enum status status;

	if (tcgetattr(tty, &before) != 0)
		return err_set(err, ERR_NOT_FOUND, "passphrase_missing",
			"the terminal cannot be asked: %s", strerror(errno));
	quiet = before;
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	(void)tcsetattr(tty, TCSAFLUSH, &quiet);
	(void)dprintf(tty, "%s: ", text);
	status = read_line(out, tty, err);
	(void)tcsetattr(tty, TCSAFLUSH, &before);
	(void)dprintf(tty, "\n");
	return status;
}

static enum status
ask(struct secret *out, bool fresh, struct err *err)
{
	own_struct(secret) again = { NULL, 0 };
	int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	enum status status;

	if (tty < 0)
		return err_set(err, ERR_NOT_FOUND, "passphrase_missing",
			"no passphrase: set passphrase_file, give the systemd "
		        "credential " CREDENTIAL ", or start it on a terminal");
	status = prompt(out, tty,
		fresh ? "New passphrase for the CA keys" : "Passphrase of the CA keys", err);
	if (status == OK && fresh)
		status = prompt(&again, tty, "Once more", err);
	(void)close(tty);
	TRY(status);
	if (fresh && !secret_equal((struct view){ out->data, out->len },
			     (struct view){ again.data, again.len }))
		return err_set(err, ERR_ARGUMENT, "passphrase_differs",
			"passphrase: the two are not the same");
	return OK;
}

/* systemd sees to its mode; an ACL for the unit's user shows there as a group's. */
static enum status
read_credential(struct secret *out, const char *dir, bool *found, struct err *err)
{
	char path[4096];
	enum status status;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, CREDENTIAL);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	*found = fd >= 0;
	if (fd < 0)
		return OK;
	status = read_line(out, fd, err);
	(void)close(fd);
	return status;
}

enum status
passphrase_read(struct secret *out, const struct config *config, bool fresh, struct err *err)
{
	const char *credentials = getenv("CREDENTIALS_DIRECTORY");
	bool found = false;

	if (config->passphrase_file[0] != '\0') {
		TRY(secret_read_file(out, config->passphrase_file, PASSPHRASE_MAX_BYTES, err));
		found = true;
	} else if (credentials != NULL) {
		TRY(read_credential(out, credentials, &found, err));
	}
	if (!found)
		TRY(ask(out, fresh, err));
	if (out->len == 0 || (fresh && out->len < PASSPHRASE_MIN_BYTES))
		return err_set(err, ERR_ARGUMENT, "passphrase_too_short",
			"passphrase: at least %d octets wanted, %zu found",
			fresh ? PASSPHRASE_MIN_BYTES : 1, out->len);
	return OK;
}
