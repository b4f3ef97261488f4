#include "server/profile/profile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ca/digest.h"
#include "server/http/request.h" /* own(json_t) */

/* The largest of ours has two thousand octets. */
#define PROFILE_FILE_MAX_BYTES 65536

/* Where a value stands, for errors: "certs/device.json: validity.max". */
struct place {
	const char *file;
	const char *field;
};

static enum status refuse(const struct place *at, struct err *err, const char *fmt, ...)
	PRINTF(3, 4);

static enum status
refuse(const struct place *at, struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_BYTES];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return err_set(
		err, ERR_ARGUMENT, "profile_invalid", "%s: %s: %s", at->file, at->field, text);
}

/* ---- words: names in JSON and what they stand for ---- */

struct word {
	const char *name;
	unsigned value;
};

static const struct word ROLES[] = { { "none", CA_ROLE_NONE }, { "device", CA_ROLE_DEVICE },
	{ "station", CA_ROLE_STATION }, { "admin", CA_ROLE_ADMIN }, { NULL, 0 } };
static const struct word ASKERS[] = { { "station", ASKER_STATION }, { "admin", ASKER_ADMIN },
	{ "device", ASKER_DEVICE }, { "server", ASKER_SERVER }, { NULL, 0 } };
static const struct word KEY_TYPES[] = { { "ec-p256", KEY_EC_P256 }, { "ec-p384", KEY_EC_P384 },
	{ "rsa-2048", KEY_RSA_2048 }, { "rsa-3072", KEY_RSA_3072 }, { "rsa-4096", KEY_RSA_4096 },
	{ "ed25519", KEY_ED25519 }, { NULL, 0 } };
/* keyCertSign and cRLSign are words too, so that their refusal can say why (ca_profile_check). */
static const struct word KEY_USAGES[] = { { "digital_signature", KU_DIGITAL_SIGNATURE },
	{ "content_commitment", KU_CONTENT_COMMITMENT },
	{ "key_encipherment", KU_KEY_ENCIPHERMENT }, { "data_encipherment", KU_DATA_ENCIPHERMENT },
	{ "key_agreement", KU_KEY_AGREEMENT }, { "key_cert_sign", KU_KEY_CERT_SIGN },
	{ "crl_sign", KU_CRL_SIGN }, { NULL, 0 } };
static const struct word RDNS[] = { { "CN", RDN_CN }, { "O", RDN_O }, { "OU", RDN_OU },
	{ "C", RDN_C }, { "serialNumber", RDN_SERIAL_NUMBER }, { "L", RDN_L }, { "ST", RDN_ST },
	{ NULL, 0 } };
static const struct word SANS[] = { { "dns", SAN_DNS }, { "ip", SAN_IP }, { "uri", SAN_URI },
	{ "email", SAN_EMAIL }, { NULL, 0 } };
static const struct word CONFIRMS[] = { { "supersede", ON_CONFIRM_SUPERSEDE },
	{ "revoke", ON_CONFIRM_REVOKE }, { NULL, 0 } };
static const struct word EXTENSIONS[] = { { "ignore", CSR_EXTENSIONS_IGNORE },
	{ "refuse", CSR_EXTENSIONS_REFUSE }, { NULL, 0 } };

/* Extended key usages by name (RFC 5280 4.2.1.12); others are written as dotted OIDs. */
static const struct {
	const char *name, *oid;
} EKUS[] = { { "server_auth", "1.3.6.1.5.5.7.3.1" }, { "client_auth", "1.3.6.1.5.5.7.3.2" },
	{ "code_signing", "1.3.6.1.5.5.7.3.3" }, { "ocsp_signing", "1.3.6.1.5.5.7.3.9" } };

static void
words_text(char *out, size_t size, const struct word *words)
{
	size_t len = 0;

	out[0] = '\0';
	for (; words->name != NULL && len < size; words++)
		len += (size_t)snprintf(
			out + len, size - len, "%s%s", len > 0 ? ", " : "", words->name);
}

/* ---- typed reads; each value is present and of the type that the caller checked or refused ----
 */

static const char *
type_text(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "a list";
	case JSON_STRING: return "a text";
	case JSON_INTEGER:
	case JSON_REAL: return "a number";
	case JSON_TRUE:
	case JSON_FALSE: return "true or false";
	case JSON_NULL: return "null";
	}
	return "something else";
}

static enum status
read_text(char *out, size_t size, const json_t *value, const struct place *at, struct err *err)
{
	size_t len;

	if (!json_is_string(value))
		return refuse(at, err, "a text wanted, %s found", type_text(value));
	len = json_string_length(value);
	if (strlen(json_string_value(value)) != len)
		return refuse(at, err, "a text without NUL wanted");
	if (len >= size)
		return refuse(at, err, "at most %zu octets wanted, %zu found", size - 1, len);
	memcpy(out, json_string_value(value), len + 1);
	return OK;
}

static enum status
read_word(unsigned *out, const json_t *value, const struct word *words, const struct place *at,
	struct err *err)
{
	char name[33];
	char known[256];

	TRY(read_text(name, sizeof(name), value, at, err));
	for (const struct word *word = words; word->name != NULL; word++) {
		if (strcmp(word->name, name) == 0) {
			*out = word->value;
			return OK;
		}
	}
	words_text(known, sizeof(known), words);
	return refuse(at, err, "one of %s wanted, '%s' found", known, name);
}

/* A list of words without repetition, or-ed together. */
static enum status
read_bits(unsigned *out, const json_t *value, const struct word *words, const struct place *at,
	struct err *err)
{
	if (!json_is_array(value))
		return refuse(at, err, "a list wanted, %s found", type_text(value));
	*out = 0;
	for (size_t i = 0; i < json_array_size(value); i++) {
		unsigned bit = 0;

		TRY(read_word(&bit, json_array_get(value, i), words, at, err));
		if ((*out & bit) != 0)
			return refuse(at, err, "'%s' is listed twice",
				json_string_value(json_array_get(value, i)));
		*out |= bit;
	}
	return OK;
}

static enum status
read_bool(bool *out, const json_t *value, const struct place *at, struct err *err)
{
	if (!json_is_boolean(value))
		return refuse(at, err, "true or false wanted, %s found", type_text(value));
	*out = json_is_true(value);
	return OK;
}

static enum status
read_duration(int64_t *out, const json_t *value, const struct place *at, struct err *err)
{
	char text[24];

	TRY(read_text(text, sizeof(text), value, at, err));
	if (strcmp(text, "0s") == 0)
		*out = 0;
	else if (!duration_parse(out, text))
		return refuse(at, err,
			"a duration such as 90s, 15m, 12h or 365d wanted, '%s' found", text);
	return OK;
}

static enum status
read_count(unsigned *out, const json_t *value, const struct place *at, struct err *err)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
		json_integer_value(value) > 1000000000)
		return refuse(at, err, "a whole number from 0 to 1000000000 wanted");
	*out = (unsigned)json_integer_value(value);
	return OK;
}

/* ---- objects: a table of members; what is not in it is refused ---- */

struct member {
	const char *name;
	bool required;
	enum status (*read)(
		void *into, const json_t *value, const struct place *at, struct err *err);
};

static enum status
read_object(void *into, const json_t *object, const struct member *members, const struct place *at,
	struct err *err)
{
	const char *prefix = strcmp(at->field, "profile") == 0 ? "" : at->field;
	void *iter;

	if (!json_is_object(object))
		return refuse(at, err, "an object wanted, %s found", type_text(object));
	for (iter = json_object_iter((json_t *)(uintptr_t)object); iter != NULL;
		iter = json_object_iter_next((json_t *)(uintptr_t)object, iter)) {
		const struct member *member = members;

		while (member->name != NULL &&
			strcmp(member->name, json_object_iter_key(iter)) != 0)
			member++;
		if (member->name == NULL)
			return refuse(
				at, err, "there is no member '%s'", json_object_iter_key(iter));
	}
	/* In the order of the table, so that of several errors always the same is shown. */
	for (const struct member *member = members; member->name != NULL; member++) {
		const json_t *value = json_object_get(object, member->name);
		char field[96];
		struct place inside = { at->file, field };

		(void)snprintf(field, sizeof(field), "%s%s%s", prefix, prefix[0] != '\0' ? "." : "",
			member->name);
		if (value == NULL && member->required)
			return refuse(&inside, err, "is missing");
		if (value != NULL)
			TRY(member->read(into, value, &inside, err));
	}
	return OK;
}

/* A list of up to max; field is "subject[2]" for its items. */
static enum status
read_list(void *into, const json_t *value, size_t max, const struct place *at,
	enum status (*item)(void *into, size_t index, const json_t *value, const struct place *at,
		struct err *err),
	size_t *count, struct err *err)
{
	if (!json_is_array(value))
		return refuse(at, err, "a list wanted, %s found", type_text(value));
	if (json_array_size(value) > max)
		return refuse(
			at, err, "at most %zu wanted, %zu found", max, json_array_size(value));
	for (size_t i = 0; i < json_array_size(value); i++) {
		char field[96];
		struct place inside = { at->file, field };

		(void)snprintf(field, sizeof(field), "%s[%zu]", at->field, i);
		TRY(item(into, i, json_array_get(value, i), &inside, err));
	}
	*count = json_array_size(value);
	return OK;
}

/* ---- the members ---- */

#define READER(name)                                                                               \
	static enum status name(                                                                   \
		void *into, const json_t *value, const struct place *at, struct err *err)

READER(read_name)
{
	struct ca_profile *profile = into;
	const char *base = strrchr(at->file, '/');
	char wanted[sizeof(profile->name) + 5];

	TRY(read_text(profile->name, sizeof(profile->name), value, at, err));
	if (profile->name[0] == '\0' ||
		strspn(profile->name, "abcdefghijklmnopqrstuvwxyz0123456789_-") !=
			strlen(profile->name))
		return refuse(at, err, "[a-z0-9_-]{1,32} wanted, '%s' found", profile->name);
	(void)snprintf(wanted, sizeof(wanted), "%s.json", profile->name);
	if (strcmp(base == NULL ? at->file : base + 1, wanted) != 0)
		return refuse(at, err, "the name of the file wanted, '%s' found", profile->name);
	return OK;
}

READER(read_role)
{
	unsigned role = 0;

	TRY(read_word(&role, value, ROLES, at, err));
	((struct ca_profile *)into)->role = (enum ca_role)role;
	return OK;
}

READER(read_issuable_by)
{
	return read_bits(&((struct ca_profile *)into)->issuable_by, value, ASKERS, at, err);
}

READER(read_key_types)
{
	return read_bits(&((struct ca_profile *)into)->key_types, value, KEY_TYPES, at, err);
}

READER(read_key_usage)
{
	return read_bits(&((struct ca_profile *)into)->key_usage, value, KEY_USAGES, at, err);
}

static enum status
read_eku_item(
	void *into, size_t index, const json_t *value, const struct place *at, struct err *err)
{
	struct ca_profile *profile = into;
	char *out = profile->eku[index];

	TRY(read_text(out, sizeof(profile->eku[0]), value, at, err));
	for (size_t i = 0; i < COUNT_OF(EKUS); i++) {
		if (strcmp(EKUS[i].name, out) == 0) {
			(void)snprintf(out, sizeof(profile->eku[0]), "%s", EKUS[i].oid);
			return OK;
		}
	}
	if (out[0] < '0' || out[0] > '2' || strspn(out, "0123456789.") != strlen(out))
		return refuse(at, err,
			"server_auth, client_auth, code_signing, ocsp_signing or a dotted OID"
			" wanted, '%s' found",
			out);
	return OK;
}

READER(read_eku)
{
	struct ca_profile *profile = into;

	return read_list(profile, value, COUNT_OF(profile->eku), at, read_eku_item,
		&profile->eku_count, err);
}

READER(read_rdn_type)
{
	unsigned type = 0;

	TRY(read_word(&type, value, RDNS, at, err));
	((struct ca_rdn *)into)->type = (enum ca_rdn_type)type;
	return OK;
}

READER(read_rdn_value)
{
	return read_text(((struct ca_rdn *)into)->value, CA_TEMPLATE_BYTES, value, at, err);
}

static enum status
read_rdn(void *into, size_t index, const json_t *value, const struct place *at, struct err *err)
{
	static const struct member MEMBERS[] = { { "type", true, read_rdn_type },
		{ "value", true, read_rdn_value }, { NULL, false, NULL } };

	return read_object(&((struct ca_profile *)into)->subject[index], value, MEMBERS, at, err);
}

READER(read_subject)
{
	struct ca_profile *profile = into;

	return read_list(profile, value, COUNT_OF(profile->subject), at, read_rdn,
		&profile->subject_count, err);
}

READER(read_san_type)
{
	unsigned type = 0;

	TRY(read_word(&type, value, SANS, at, err));
	((struct ca_san *)into)->type = (enum ca_san_type)type;
	return OK;
}

READER(read_san_value)
{
	return read_text(((struct ca_san *)into)->value, CA_TEMPLATE_BYTES, value, at, err);
}

READER(read_san_each)
{
	return read_bool(&((struct ca_san *)into)->each, value, at, err);
}

READER(read_san_optional)
{
	return read_bool(&((struct ca_san *)into)->optional, value, at, err);
}

static enum status
read_san(void *into, size_t index, const json_t *value, const struct place *at, struct err *err)
{
	static const struct member MEMBERS[] = { { "type", true, read_san_type },
		{ "value", true, read_san_value }, { "each", false, read_san_each },
		{ "optional", false, read_san_optional }, { NULL, false, NULL } };

	return read_object(&((struct ca_profile *)into)->san[index], value, MEMBERS, at, err);
}

READER(read_sans)
{
	struct ca_profile *profile = into;

	return read_list(
		profile, value, COUNT_OF(profile->san), at, read_san, &profile->san_count, err);
}

READER(read_validity_default)
{
	return read_duration(&((struct ca_profile *)into)->validity_default_s, value, at, err);
}

READER(read_validity_max)
{
	return read_duration(&((struct ca_profile *)into)->validity_max_s, value, at, err);
}

READER(read_validity_backdate)
{
	return read_duration(&((struct ca_profile *)into)->backdate_s, value, at, err);
}

READER(read_validity)
{
	static const struct member MEMBERS[] = { { "default", true, read_validity_default },
		{ "max", true, read_validity_max }, { "backdate", false, read_validity_backdate },
		{ NULL, false, NULL } };

	((struct ca_profile *)into)->backdate_s = 300; /* design: five minutes unless it says so */
	return read_object(into, value, MEMBERS, at, err);
}

READER(read_renewal_before)
{
	return read_duration(&((struct ca_profile *)into)->renew_before_s, value, at, err);
}

READER(read_renewal_overlap)
{
	return read_duration(&((struct ca_profile *)into)->renew_overlap_s, value, at, err);
}

READER(read_renewal_grace)
{
	return read_duration(&((struct ca_profile *)into)->grace_s, value, at, err);
}

READER(read_renewal)
{
	static const struct member MEMBERS[] = { { "before", true, read_renewal_before },
		{ "overlap", true, read_renewal_overlap }, { "grace", false, read_renewal_grace },
		{ NULL, false, NULL } };

	return read_object(into, value, MEMBERS, at, err);
}

READER(read_on_confirm)
{
	unsigned word = 0;

	TRY(read_word(&word, value, CONFIRMS, at, err));
	((struct ca_profile *)into)->on_confirm = (enum ca_on_confirm)word;
	return OK;
}

READER(read_csr_extensions)
{
	unsigned word = 0;

	TRY(read_word(&word, value, EXTENSIONS, at, err));
	((struct ca_profile *)into)->csr_extensions = (enum ca_csr_extensions)word;
	return OK;
}

READER(read_one_live)
{
	return read_bool(&((struct ca_profile *)into)->one_live, value, at, err);
}

READER(read_cdp)
{
	return read_bool(&((struct ca_profile *)into)->crl_distribution_point, value, at, err);
}

READER(read_freshest)
{
	return read_bool(&((struct ca_profile *)into)->freshest_crl, value, at, err);
}

READER(read_aia)
{
	return read_bool(
		&((struct ca_profile *)into)->authority_information_access, value, at, err);
}

READER(read_hourly_cap)
{
	return read_count(&((struct ca_profile *)into)->hourly_cap, value, at, err);
}

READER(read_thing_type)
{
	return read_text(((struct ca_profile *)into)->thing_type, CA_TEXT_BYTES, value, at, err);
}

static enum status
read_policy(void *into, size_t index, const json_t *value, const struct place *at, struct err *err)
{
	return read_text(
		((struct ca_profile *)into)->policies[index], CA_TEXT_BYTES, value, at, err);
}

READER(read_policies)
{
	struct ca_profile *profile = into;

	return read_list(profile, value, COUNT_OF(profile->policies), at, read_policy,
		&profile->policy_count, err);
}

static enum status
read_thing_group(
	void *into, size_t index, const json_t *value, const struct place *at, struct err *err)
{
	return read_text(
		((struct ca_profile *)into)->thing_groups[index], CA_TEXT_BYTES, value, at, err);
}

READER(read_thing_groups)
{
	struct ca_profile *profile = into;

	return read_list(profile, value, COUNT_OF(profile->thing_groups), at, read_thing_group,
		&profile->thing_group_count, err);
}

READER(read_preregister)
{
	return read_bool(&((struct ca_profile *)into)->preregister, value, at, err);
}

READER(read_iot)
{
	static const struct member MEMBERS[] = { { "thing_type", false, read_thing_type },
		{ "policies", false, read_policies },
		{ "thing_groups", false, read_thing_groups },
		{ "preregister", false, read_preregister },
		{ NULL, false, NULL } };

	return read_object(into, value, MEMBERS, at, err);
}

/* What is not required has the value that permits least. */
static const struct member PROFILE[] = {
	{ "name", true, read_name },
	{ "role", true, read_role },
	{ "issuable_by", true, read_issuable_by },
	{ "key_types", true, read_key_types },
	{ "key_usage", true, read_key_usage },
	{ "extended_key_usage", false, read_eku },
	{ "subject", true, read_subject },
	{ "subject_alt_names", false, read_sans },
	{ "validity", true, read_validity },
	{ "renewal", true, read_renewal },
	{ "on_confirm", true, read_on_confirm },
	{ "csr_extensions", true, read_csr_extensions },
	{ "one_live", true, read_one_live },
	{ "crl_distribution_point", true, read_cdp },
	{ "freshest_crl", false, read_freshest },
	{ "authority_information_access", true, read_aia },
	{ "hourly_cap", false, read_hourly_cap },
	{ "iot", false, read_iot },
	{ NULL, false, NULL },
};

/* ---- files ---- */

static enum status
read_whole(struct buf *out, const char *path, struct err *err)
{
	struct place at = { path, "file" };
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat what;
	char piece[4096];
	ssize_t got = 0;
	enum status status = OK;

	if (fd < 0)
		return refuse(&at, err, "%s", strerror(errno));
	if (fstat(fd, &what) != 0 || !S_ISREG(what.st_mode))
		status = refuse(&at, err, "a regular file wanted");
	while (status == OK && (got = read(fd, piece, sizeof(piece))) > 0)
		if (buf_add(out, piece, (size_t)got, err) != OK)
			status = refuse(
				&at, err, "at most %d octets wanted", PROFILE_FILE_MAX_BYTES);
	if (got < 0)
		status = refuse(&at, err, "%s", strerror(errno));
	(void)close(fd);
	return status;
}

static enum status
read_profile(struct ca_profile *out, const char *path, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = PROFILE_FILE_MAX_BYTES };
	struct place at = { path, "profile" };
	own(json_t) json = NULL;
	json_error_t where;
	struct err why;

	TRY(read_whole(&text, path, err));
	json = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &where);
	if (json == NULL)
		return refuse(&at, err, "line %d: JSON: %s", where.line, where.text);
	memset(out, 0, sizeof(*out));
	TRY(read_object(out, json, PROFILE, &at, err));
	ca_blake2b(out->hash, buf_view(&text));
	if (ca_profile_check(out, &why) != OK)
		return err_set(err, ERR_ARGUMENT, "profile_invalid", "%s: %s", path, why.text);
	return OK;
}

static int
is_profile_name(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return len > 5 && entry->d_name[0] != '.' && strcmp(entry->d_name + len - 5, ".json") == 0;
}

enum status
profile_load_dir(
	const char *dir, struct ca_profile *out, size_t max, size_t *count, struct err *err)
{
	struct place at = { dir, "profiles_dir" };
	struct dirent **entries = NULL;
	int found = scandir(dir, &entries, is_profile_name, alphasort);
	enum status status = OK;

	*count = 0;
	if (found < 0)
		return refuse(&at, err, "%s", strerror(errno));
	if (found == 0 || (size_t)found > max)
		status = refuse(&at, err, "1 to %zu *.json files wanted, %d found", max, found);
	for (int i = 0; i < found; i++) {
		char path[4096];

		if (status == OK) {
			(void)snprintf(path, sizeof(path), "%s/%s", dir, entries[i]->d_name);
			status = read_profile(&out[i], path, err);
		}
		mem_free(entries[i]);
	}
	mem_free(entries);
	if (status == OK)
		*count = (size_t)found;
	return status;
}
