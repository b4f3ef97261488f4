#include "server/protocol/crl_store.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "ca/crl.h"
#include "ca/digest.h"
#include "ca/file.h"

/* Octets of a file that are hashed at once. */
#define BLOCK_BYTES ((size_t)64 << 10)
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
	if (scope >= 0)
		(void)snprintf(out, 16, "%02x.crl", (unsigned)scope);
	else
		(void)snprintf(out, 16, scope == CRL_SCOPE_FULL ? "full.crl" : "delta.crl");
}

/* False: not the name of a list. */
static bool
scope_of(int16_t *out, const char *name)
{
	char own_name[16];

	for (*out = CRL_SCOPE_DELTA; *out < 256; (*out)++) {
		scope_name(own_name, *out);
		if (strcmp(own_name, name) == 0)
			return true;
	}
	return false;
}

static enum status
ca_dir(char out[FILE_PATH_BYTES], const char *data_dir, const char *ca_id, struct err *err)
{
	int len = snprintf(out, FILE_PATH_BYTES, "%s/crl/%s", data_dir, ca_id);

	return len < FILE_PATH_BYTES
	               ? OK
	               : err_set(err, ERR_TOO_LARGE, "path_too_long", "data_dir: a shorter one wanted");
}

enum status
crl_store_dir(char out[FILE_PATH_BYTES], const char *data_dir, const char *ca_id, struct err *err)
{
	TRY(ca_dir(out, data_dir, ca_id, err));
	(void)mkdir(out, 0755); /* where it fails, the files in it do, and say so */
	return OK;
}

enum status
crl_store_keep(const char *data_dir, const struct db_crl *crl, struct pile *list, struct err *err)
{
	char dir[FILE_PATH_BYTES], path[FILE_PATH_BYTES], name[16];
	struct err refused;

	TRY(crl_store_dir(dir, data_dir, crl->ca_id, err));
	scope_name(name, crl->scope);
	TRY(file_path(path, dir, name, "", err));
	if (pile_keep(list, path, &refused) != OK)
		return err_set(err, ERR_UNAVAILABLE, "crl_store", "%s", refused.text);
	return OK;
}

static enum status
hash_list(struct db_crl *out, const struct pile *list, struct err *err)
{
	uint8_t block[BLOCK_BYTES];
	struct ca_sha256 hash;

	ca_sha256_begin(&hash);
	for (uint64_t at = 0, len = pile_len(list); at < len;) {
		size_t now = len - at < sizeof(block) ? (size_t)(len - at) : sizeof(block);

		TRY(pile_read(list, at, block, now, err));
		ca_sha256_add(&hash, (struct view){ block, now });
		at += now;
	}
	ca_sha256_end(&hash, out->sha256);
	out->length_bytes = (int64_t)pile_len(list);
	return OK;
}

static enum status
read_list(struct db_crl *out, struct pile *list, const char *dir, const char *name, struct err *err)
{
	own(ca_crl_reader) reader = NULL;
	const struct ca_crl_info *info;
	char path[FILE_PATH_BYTES];
	struct ca_crl_entry entry;
	bool more = true;

	TRY(file_path(path, dir, name, "", err));
	TRY(pile_open(list, path, CRL_MEMORY_MAX_BYTES, err));
	TRY(ca_crl_reader_new(&reader, list, err));
	info = ca_crl_reader_info(reader);
	out->number = (int64_t)info->number;
	out->this_update_s = info->this_update_s;
	out->next_update_s = info->next_update_s;
	out->base = (int64_t)info->base_number;
	TRY(hash_list(out, list, err));
	while (more) {
		TRY(ca_crl_reader_next(reader, &entry, &more, err));
		out->entries += more;
	}
	return OK;
}

static void
read_ca(const char *data_dir, const char *ca_id,
	void (*each)(void *arg, const struct db_crl *crl, struct pile *list), void *arg)
{
	char path[FILE_PATH_BYTES];
	struct dirent *found;
	struct err err;

	if (strlen(ca_id) >= DB_ID_BYTES || ca_dir(path, data_dir, ca_id, &err) != OK)
		return;
	own(DIR) dir = opendir(path);

	while (dir != NULL && (found = readdir(dir)) != NULL) {
		own_struct(pile) list = { .fd = -1 };
		struct db_crl crl = { .issuer_id = 0 };

		if (!scope_of(&crl.scope, found->d_name))
			continue;
		memcpy(crl.ca_id, ca_id, strlen(ca_id) + 1);
		if (read_list(&crl, &list, path, found->d_name, &err) == OK) {
			each(arg, &crl, &list);
			list = (struct pile){ .fd = -1 };
		} else {
			log_error(LOG_WARN, "crl_file_left_out", NULL, &err);
		}
	}
}

void
crl_store_read(const char *data_dir,
	void (*each)(void *arg, const struct db_crl *crl, struct pile *list), void *arg)
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

/* What is this old is not being made any more, not even by a server that we take over from. */
#define ABANDONED_S 3600

static bool
is_abandoned(const char *path, const char *name)
{
	struct stat found;

	return strncmp(name, PILE_PREFIX, strlen(PILE_PREFIX)) == 0 && lstat(path, &found) == 0 &&
	       found.st_mtime < clock_wall_s(&CLOCK_SYSTEM) - ABANDONED_S;
}

/* What was being made, and with lists also those. */
static void
delete_files(const char *path, bool lists)
{
	own(DIR) dir = opendir(path);
	char file[FILE_PATH_BYTES];
	struct dirent *found;
	int16_t scope;
	struct err err;

	while (dir != NULL && (found = readdir(dir)) != NULL)
		if (file_path(file, path, found->d_name, "", &err) == OK &&
			(is_abandoned(file, found->d_name) ||
				(lists && scope_of(&scope, found->d_name))))
			(void)unlink(file);
}

static enum status
put_owner(const char *dir, const char *path, struct view certificate, struct err *err)
{
	own_struct(pile) owner = { .fd = -1 };

	pile_init(&owner, dir, CERTIFICATE_MAX_BYTES);
	TRY(pile_add(&owner, certificate.data, certificate.len, err));
	return pile_keep(&owner, path, err);
}

bool
crl_store_claim(const char *data_dir, const char *ca_id, struct view certificate)
{
	own_struct(bytes) owner = { NULL, 0 };
	char dir[FILE_PATH_BYTES], path[FILE_PATH_BYTES];
	bool ours;
	struct err err;

	if (crl_store_dir(dir, data_dir, ca_id, &err) != OK ||
		file_path(path, dir, OWNER_FILE, "", &err) != OK)
		return false;
	ours = file_read(&owner, path, CERTIFICATE_MAX_BYTES, &err) == OK &&
	       view_equal(view_of(&owner), certificate);
	delete_files(dir, !ours);
	if (!ours && put_owner(dir, path, certificate, &err) != OK)
		log_event(LOG_WARN, "crl_store_failed", NULL, LOG_STR("dir", dir));
	return ours;
}
