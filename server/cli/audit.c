/*
 * `jitrca audit verify --offline` and `jitrca audit check-proof`: for who has a public key, checkpoints, and
 * an export or a proof, and neither server nor account. The other verbs are calls of the API.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ca/checkpoint.h"
#include "ca/digest.h"
#include "ca/file.h"
#include "ca/pem.h"
#include "server/audit_offline.h"
#include "server/cli/admin.h"
#include "server/cli/cli.h"
#include "server/cli/local.h"
#include "server/http/request.h"

#define KEY_MAX_BYTES 4096
#define NOTES_MAX_BYTES ((size_t)256 << 20)
#define PROOF_MAX_BYTES ((size_t)16 << 20)
#define CERTIFICATE_MAX_BYTES 65536
#define FILES_MAX 1000000

static int
offline_usage(FILE *to)
{
	(void)fputs(
		"Usage: jitrca audit verify --offline EXPORT --key KEY.pem [--dropped-ok] CHECKPOINTS...\n\n"
		"Holds an export of the audit log against signed checkpoints, without a server.\n\n"
		"  --offline EXPORT  what `jitrca audit export` wrote; - is stdin\n"
		"  --key KEY.pem     what `jitrca audit key` wrote\n"
		"  --dropped-ok      lanes may begin behind a checkpoint: retention dropped the rest\n"
		"  CHECKPOINTS       files of `jitrca audit notes`, or directories of checkpoints\n\n"
		"Exit status: 0 all holds; 1 it does not, and each lane's first record that is not as it\n"
		"was is named; 2 misused.\n",
		to);
	return to == stdout ? 0 : EXIT_MISUSED;
}

static enum status
read_key(uint8_t public_key[CA_CHECKPOINT_KEY_BYTES], const char *path, struct err *err)
{
	own_struct(bytes) pem = { NULL, 0 };

	TRY(file_read(&pem, path, KEY_MAX_BYTES, err));
	if (ca_checkpoint_key_from_pem(public_key, view_of(&pem), err) != OK)
		return err_wrap(err, "%s", path);
	return OK;
}

static enum status
add_file(struct audit_offline *it, const char *path, struct err *err)
{
	own_struct(bytes) content = { NULL, 0 };

	TRY(file_read(&content, path, NOTES_MAX_BYTES, err));
	return audit_offline_notes(it, path, view_of(&content), err);
}

static void
dir_close(DIR *dir)
{
	if (dir != NULL)
		(void)closedir(dir);
}
OWNER(DIR, dir_close)

/* All *.checkpoint of a directory; other names may be a half-written file's. */
static enum status
add_directory(struct audit_offline *it, const char *path, struct err *err)
{
	own(DIR) dir = opendir(path);
	const struct dirent *entry;

	if (dir == NULL)
		return err_set(err, ERR_UNAVAILABLE, "file_read", "%s: %s", path, strerror(errno));
	for (size_t i = 0; i < FILES_MAX && (entry = readdir(dir)) != NULL; i++) {
		const char *suffix = strrchr(entry->d_name, '.');
		char file[FILE_PATH_BYTES];

		if (suffix == NULL || strcmp(suffix, ".checkpoint") != 0)
			continue;
		TRY(file_path(file, path, entry->d_name, "", err));
		TRY(add_file(it, file, err));
	}
	return OK;
}

static enum status
add_notes(struct audit_offline *it, char **paths, int count, struct err *err)
{
	for (int i = 0; i < count; i++) {
		struct stat st;

		if (stat(paths[i], &st) == 0 && S_ISDIR(st.st_mode))
			TRY(add_directory(it, paths[i], err));
		else
			TRY(add_file(it, paths[i], err));
	}
	return OK;
}

static void
print_found(void *arg, int64_t lane, int64_t seq, const char *why, int64_t since_seq)
{
	(void)arg;
	if (strcmp(why, "checkpoint_differs") == 0)
		printf("broken: lane %" PRId64 ", record %" PRId64 ": %s: rewritten between records %" PRId64
		       " and %" PRId64 "\n", lane, seq, why, since_seq, seq);
	else
		printf("broken: lane %" PRId64 ", record %" PRId64 ": %s\n", lane, seq, why);
}

static void
print_report(const struct audit_offline_report *report)
{
	char at[TIME_TEXT_BYTES] = "never";

	if (report->checkpoints > 0)
		time_format(at, report->last_at_s);
	printf("%s: %" PRId64 " records in %" PRId64 " lanes, %" PRId64 " checkpoints, the last %" PRId64
	       " of %s\n",
		report->broken == 0 ? "holds" : "does not hold", report->records, report->lanes,
		report->checkpoints, report->last_number, at);
	if (report->newer > 0)
		printf("%" PRId64 " records are newer than the checkpoints: only their chain holds\n",
			report->newer);
	if (report->gaps > 0)
		printf("before %" PRId64 " of the checkpoints others are missing here\n", report->gaps);
}

struct offline {
	const char *export, *key;
	bool dropped_ok, help;
	char **notes;
	int note_count;
};

static enum status
run_offline(const struct offline *offline, bool *holds, struct err *err)
{
	own(audit_offline) it = NULL;
	struct audit_offline_report report;
	uint8_t public_key[CA_CHECKPOINT_KEY_BYTES];
	enum status status;
	FILE *export;

	TRY(ca_init(err));
	TRY(read_key(public_key, offline->key, err));
	TRY(audit_offline_new(&it, public_key, err));
	TRY(add_notes(it, offline->notes, offline->note_count, err));
	export = strcmp(offline->export, "-") == 0 ? stdin : fopen(offline->export, "re");
	if (export == NULL)
		return err_set(err, ERR_UNAVAILABLE, "file_read", "%s: %s", offline->export,
			strerror(errno));
	status = audit_offline_run(it, export, offline->dropped_ok, print_found, NULL, &report, err);
	if (export != stdin)
		(void)fclose(export);
	if (status != OK)
		return status;
	print_report(&report);
	*holds = report.broken == 0;
	return OK;
}

static bool
read_arguments(struct offline *out, int argc, char **argv)
{
	static const struct option options[] = {
		{ "offline", required_argument, NULL, 'o' },
		{ "key", required_argument, NULL, 'k' },
		{ "dropped-ok", no_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	optind = 1;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'o')
			out->export = optarg;
		else if (option == 'k')
			out->key = optarg;
		else if (option == 'd')
			out->dropped_ok = true;
		else if (option == 'h')
			out->help = true;
		else
			return false;
	}
	out->notes = argv + optind;
	out->note_count = argc - optind;
	return out->help || (out->export != NULL && out->key != NULL && out->note_count > 0);
}

static int
verify_offline(int argc, char **argv)
{
	struct offline offline = { .export = NULL };
	bool holds = false;
	struct err err;

	if (!read_arguments(&offline, argc, argv))
		return offline_usage(stderr);
	if (offline.help)
		return offline_usage(stdout);
	if (run_offline(&offline, &holds, &err) != OK)
		return local_failed("audit verify", &err);
	return holds ? 0 : EXIT_REFUSED;
}

/* ---- a proof ---- */

static int
proof_usage(FILE *to)
{
	(void)fputs("Usage: jitrca audit check-proof PROOF.json --key KEY.pem [--certificate CERT.pem]\n\n"
		    "Verifies, without a server, that a certificate's record is in a signed checkpoint.\n\n"
		    "  --key KEY.pem           what `jitrca audit key` wrote\n"
		    "  --certificate CERT.pem  the certificate that the proof must be about\n",
		to);
	return to == stdout ? 0 : EXIT_MISUSED;
}

static enum status
check_certificate(const json_t *proof, const char *path, struct err *err)
{
	const char *id = json_string_value(json_object_get(proof, "certificate_id"));
	own_struct(bytes) pem = { NULL, 0 };
	own_struct(bytes) der = { NULL, 0 };
	uint8_t digest[32];
	char text[65];

	TRY(file_read(&pem, path, CERTIFICATE_MAX_BYTES, err));
	if (ca_pem_decode(&der, "CERTIFICATE", view_of(&pem), err) != OK)
		return err_wrap(err, "%s", path);
	ca_sha256(digest, view_of(&der));
	hex_encode(text, digest, sizeof(digest));
	if (id == NULL || strcmp(id, text) != 0)
		return err_set(err, ERR_CONFLICT, "proof_wrong",
			"proof: it is about another certificate than %s", path);
	return OK;
}

static const char *
text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text != NULL ? text : "-";
}

static enum status
run_proof(const char *path, const char *key, const char *certificate, struct err *err)
{
	own_struct(bytes) text = { NULL, 0 };
	own(json_t) proof = NULL;
	own(json_t) record = NULL;
	uint8_t public_key[CA_CHECKPOINT_KEY_BYTES];
	char at[TIME_TEXT_BYTES];
	int64_t number;
	int64_t at_s;

	TRY(ca_init(err));
	TRY(read_key(public_key, key, err));
	TRY(file_read(&text, path, PROOF_MAX_BYTES, err));
	proof = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	if (certificate != NULL)
		TRY(check_certificate(proof, certificate, err));
	TRY(audit_proof_check(proof, public_key, &record, &number, &at_s, err));
	time_format(at, at_s);
	printf("holds: certificate %s: %s by %s at %s (lane %" JSON_INTEGER_FORMAT ", record %"
	       JSON_INTEGER_FORMAT "), in checkpoint %" PRId64 " of %s\n",
		text_of(proof, "certificate_id"), text_of(record, "action"), text_of(record, "actor"),
		text_of(record, "at"), json_integer_value(json_object_get(record, "lane")),
		json_integer_value(json_object_get(record, "seq")), number, at);
	return OK;
}

static int
check_proof(int argc, char **argv)
{
	static const struct option options[] = {
		{ "key", required_argument, NULL, 'k' },
		{ "certificate", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	const char *key = NULL;
	const char *certificate = NULL;
	struct err err;
	int option;

	optind = 1;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'h')
			return proof_usage(stdout);
		if (option != 'k' && option != 'c')
			return proof_usage(stderr);
		*(option == 'k' ? &key : &certificate) = optarg;
	}
	if (key == NULL || argc != optind + 1)
		return proof_usage(stderr);
	if (run_proof(argv[optind], key, certificate, &err) != OK)
		return local_failed("audit check-proof", &err);
	return 0;
}

static bool
is_offline(int argc, char **argv)
{
	for (int i = 2; i < argc; i++)
		if (strncmp(argv[i], "--offline", 9) == 0)
			return true;
	return false;
}

int
cli_audit(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "check-proof") == 0)
		return check_proof(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "verify") == 0 && is_offline(argc, argv))
		return verify_offline(argc - 1, argv + 1);
	return admin_main(argv[0], argc, argv);
}
