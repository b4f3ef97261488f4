#include "server/protocol/crl_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "ca/crl.h"
#include "ca/digest.h"
#include "ca/file.h"

#define LIST_MAX_BYTES ((size_t)256 << 20)
#define CERTIFICATE_MAX_BYTES 65536
#define OWNER_FILE "issuer.der"

/* closedir() itself does not take NULL. */
static void
dir_close(DIR *dir)
{
	if (dir != NULL)
		(void)closedir(dir);
}
OWNER(DIR, dir_close)

static void
scope_name(char out[16], int16_t scope)
{
	if (scope == CRL_SCOPE_FULL)
		(void)snprintf(out, 16, "full.crl");
	else
		(void)snprintf(out, 16, "%02x.crl", (unsigned)scope);
}

/* False: not the name of a list. */
static bool
scope_of(int16_t *out, const char *name)
{
	uint8_t shard;
	char again[16];

	if (strcmp(name, "full.crl") == 0) {
		*out = CRL_SCOPE_FULL;
		return true;
	}
	if (strlen(name) != 6 || !hex_decode(&shard, 1, name, 2))
		return false;
	*out = shard;
	scope_name(again, shard);
	return strcmp(again, name) == 0;
}

static enum status
ca_dir(char out[FILE_PATH_BYTES], const char *data_dir, const char *ca_id, struct err *err)
{
	int len = snprintf(out, FILE_PATH_BYTES, "%s/crl/%s", data_dir, ca_id);

	return len < FILE_PATH_BYTES
	               ? OK
	               : err_set(err, ERR_TOO_LARGE, "path_too_long", "data_dir: a shorter one wanted");
}

static enum status
failed(const char *path, struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "crl_store", "%s: %s", path, strerror(errno));
}

static enum status
fill(const char *path, struct view content, struct err *err)
{
	own_struct(fd) file = { open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644) };

	if (file.fd < 0)
		return failed(path, err);
	for (size_t done = 0; done < content.len;) {
		ssize_t wrote = write(file.fd, content.data + done, content.len - done);

		if (wrote < 0)
			return failed(path, err);
		done += (size_t)wrote;
	}
	return OK;
}

/* Not made sure to be on the disk: what a power failure spoils is left out when it is read. */
static enum status
put(const char *dir, const char *name, struct view content, struct err *err)
{
	char path[FILE_PATH_BYTES], temporary[FILE_PATH_BYTES], suffix[32];

	(void)snprintf(suffix, sizeof(suffix), ".new-%ld", (long)getpid());
	TRY(file_path(path, dir, name, "", err));
	TRY(file_path(temporary, dir, name, suffix, err));
	if (fill(temporary, content, err) != OK) {
		(void)unlink(temporary);
		return err->status;
	}
	if (rename(temporary, path) != 0) {
		(void)failed(path, err);
		(void)unlink(temporary);
		return err->status;
	}
	return OK;
}

enum status
crl_store_write(const char *data_dir, const struct db_crl *crl, struct err *err)
{
	char dir[FILE_PATH_BYTES], name[16];

	TRY(ca_dir(dir, data_dir, crl->ca_id, err));
	if (mkdir(dir, 0755) != 0 && errno != EEXIST)
		return failed(dir, err);
	scope_name(name, crl->scope);
	return put(dir, name, view_of(&crl->der), err);
}

static enum status
read_list(struct db_crl *out, const char *dir, const char *name, struct err *err)
{
	char path[FILE_PATH_BYTES];
	struct ca_crl_entry entry;
	struct ca_crl_view list;
	bool more;

	TRY(file_path(path, dir, name, "", err));
	TRY(file_read(&out->der, path, LIST_MAX_BYTES, err));
	TRY(ca_crl_parse(&list, view_of(&out->der), err));
	out->number = (int64_t)list.number;
	out->this_update_s = list.this_update_s;
	out->next_update_s = list.next_update_s;
	ca_sha256(out->sha256, view_of(&out->der));
	for (;;) {
		TRY(ca_crl_next(&list.revoked, &entry, &more, err));
		if (!more)
			return OK;
		out->entries++;
	}
}

static void
read_ca(const char *data_dir, const char *ca_id,
	void (*each)(void *arg, struct db_crl *crl), void *arg)
{
	char path[FILE_PATH_BYTES];
	struct dirent *found;
	struct err err;

	if (strlen(ca_id) >= DB_ID_BYTES || ca_dir(path, data_dir, ca_id, &err) != OK)
		return;
	own(DIR) dir = opendir(path);

	while (dir != NULL && (found = readdir(dir)) != NULL) {
		struct db_crl crl = { .issuer_id = 0 };

		if (!scope_of(&crl.scope, found->d_name))
			continue;
		memcpy(crl.ca_id, ca_id, strlen(ca_id) + 1);
		if (read_list(&crl, path, found->d_name, &err) == OK) {
			each(arg, &crl);
			continue;
		}
		log_error(LOG_WARN, "crl_file_left_out", NULL, &err);
		db_crl_free(&crl);
	}
}

void
crl_store_read(const char *data_dir, void (*each)(void *arg, struct db_crl *crl), void *arg)
{
	char path[FILE_PATH_BYTES];
	struct dirent *found;
	struct err err;

	if (file_path(path, data_dir, "crl", "", &err) != OK)
		return;
	own(DIR) dir = opendir(path);

	while (dir != NULL && (found = readdir(dir)) != NULL)
		if (found->d_name[0] != '.' && strlen(found->d_name) < DB_ID_BYTES)
			read_ca(data_dir, found->d_name, each, arg);
}

static void
delete_lists(const char *path)
{
	own(DIR) dir = opendir(path);
	char file[FILE_PATH_BYTES];
	struct dirent *found;
	int16_t scope;
	struct err err;

	while (dir != NULL && (found = readdir(dir)) != NULL)
		if (scope_of(&scope, found->d_name) &&
			file_path(file, path, found->d_name, "", &err) == OK)
			(void)unlink(file);
}

bool
crl_store_claim(const char *data_dir, const char *ca_id, struct view certificate)
{
	own_struct(bytes) owner = { NULL, 0 };
	char dir[FILE_PATH_BYTES], path[FILE_PATH_BYTES];
	struct err err;

	if (ca_dir(dir, data_dir, ca_id, &err) != OK ||
		file_path(path, dir, OWNER_FILE, "", &err) != OK)
		return false;
	if (file_read(&owner, path, CERTIFICATE_MAX_BYTES, &err) == OK &&
		view_equal(view_of(&owner), certificate))
		return true;
	delete_lists(dir);
	if ((mkdir(dir, 0755) != 0 && errno != EEXIST) || put(dir, OWNER_FILE, certificate, &err) != OK)
		log_event(LOG_WARN, "crl_store_failed", NULL, LOG_STR("dir", dir));
	return false;
}
