#include "ca/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <sodium.h>

#include "ca/file.h"

enum status
ca_init(struct err *err)
{
	if (sodium_init() < 0)
		return err_set(err, ERR_UNAVAILABLE, "sodium", "libsodium cannot start");
	/* No openssl.cnf: a machine's file must not change what we accept or sign with. */
	if (!OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL))
		return err_set(err, ERR_UNAVAILABLE, "openssl", "OpenSSL cannot start");
	return OK;
}

enum status
secret_new(struct secret *out, size_t len, struct err *err)
{
	uint8_t *data = sodium_malloc(len);

	if (data == NULL)
		return err_memory(err);
	sodium_memzero(data, len);
	*out = (struct secret){ data, len };
	return OK;
}

enum status
secret_copy(struct secret *out, struct view from, struct err *err)
{
	TRY(secret_new(out, from.len, err));
	if (from.len > 0)
		memcpy(out->data, from.data, from.len);
	return OK;
}

void
secret_free(struct secret *secret)
{
	sodium_free(secret->data);
	*secret = (struct secret){ NULL, 0 };
}

void
secret_hide(struct secret *secret)
{
	(void)sodium_mprotect_noaccess(secret->data);
}

void
secret_show(struct secret *secret)
{
	(void)sodium_mprotect_readwrite(secret->data);
}

bool
secret_equal(struct view a, struct view b)
{
	return a.len == b.len && (a.len == 0 || sodium_memcmp(a.data, b.data, a.len) == 0);
}

/* Reads until the end or until secret is full; how much there was. */
static enum status
read_whole(int fd, struct secret *secret, const char *path, size_t *len, struct err *err)
{
	ssize_t got;

	for (*len = 0; *len < secret->len; *len += (size_t)got) {
		got = read(fd, secret->data + *len, secret->len - *len);
		if (got < 0 && errno == EINTR)
			got = 0;
		else if (got < 0)
			return err_set(err, ERR_NOT_FOUND, "secret_file", "%s: %s", path,
				strerror(errno));
		else if (got == 0)
			break;
	}
	return OK;
}

enum status
secret_read_file(struct secret *out, const char *path, size_t limit, struct err *err)
{
	/* Symbolic links are followed: orchestrators mount secrets that way. */
	own_struct(fd) file = { open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) };
	own_struct(secret) whole = { NULL, 0 };
	struct stat st;
	size_t len;

	if (file.fd < 0)
		return err_set(err, ERR_NOT_FOUND, "secret_file", "%s: %s", path, strerror(errno));
	if (fstat(file.fd, &st) != 0 || !S_ISREG(st.st_mode))
		return err_set(
			err, ERR_NOT_FOUND, "secret_file", "%s: a regular file wanted", path);
	if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return err_set(err, ERR_DENIED, "secret_file_mode",
			"%s: mode 0600 or less wanted, %04o found", path,
			(unsigned)(st.st_mode & 07777));

	TRY(secret_new(&whole, limit + 3, err)); /* room for CR LF and to see that there is more */
	TRY(read_whole(file.fd, &whole, path, &len, err));
	if (len > 0 && whole.data[len - 1] == '\n') {
		len--;
		if (len > 0 && whole.data[len - 1] == '\r')
			len--;
	}
	if (len > limit)
		return err_set(err, ERR_TOO_LARGE, "secret_file_size",
			"%s: at most %zu octets wanted", path, limit);
	return secret_copy(out, (struct view){ whole.data, len }, err);
}

enum status
secret_write_file(struct view content, const char *path, struct err *err)
{
	return file_create(path, content, 0600, err);
}

enum status
token_draw(char out[TOKEN_TEXT_BYTES], struct err *err)
{
	uint8_t octets[32];

	if (sodium_init() < 0) /* without it randombytes may not be ready */
		return err_set(err, ERR_UNAVAILABLE, "sodium", "libsodium cannot start");
	randombytes_buf(octets, sizeof(octets));
	memcpy(out, "jrt_", sizeof("jrt_"));
	(void)sodium_bin2base64(out + 4, TOKEN_TEXT_BYTES - 4, octets, sizeof(octets),
		sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(octets, sizeof(octets));
	return OK;
}
