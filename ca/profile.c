#include "ca/profile.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ca/names.h"

#define DAY_S 86400
#define CENTURY_S ((int64_t)100 * 365 * DAY_S)

static enum status PRINTF(3, 4)
	refuse(const struct ca_profile *profile, struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_BYTES];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return err_set(
		err, ERR_ARGUMENT, "profile_invalid", "profile %.32s: %s", profile->name, text);
}

/* A text of ours that ends inside of its array and holds only these characters. */
static bool
is_word(const char *text, size_t size, const char *set)
{
	size_t len = strnlen(text, size);

	return len < size && strspn(text, set) == len;
}

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

/* ---- templates ---- */

/* What stands between two braces, or nothing. */
static const char *
value_of(struct view name, const struct ca_profile *profile, const struct ca_request *request)
{
	static const char ATTRIBUTES[] = "attributes.";
	const size_t prefix = sizeof(ATTRIBUTES) - 1;

	if (view_equal_text(name, "device_id"))
		return request->device_id;
	if (view_equal_text(name, "profile"))
		return profile->name;
	if (view_equal_text(name, "thing_type"))
		return request->thing_type[0] != '\0' ? request->thing_type : profile->thing_type;
	if (name.len <= prefix || memcmp(name.data, ATTRIBUTES, prefix) != 0)
		return "";
	name = (struct view){ name.data + prefix, name.len - prefix };
	for (size_t i = 0; i < request->attribute_count && i < CA_ATTRIBUTES_MAX; i++)
		if (view_equal_text(name, request->attributes[i].name))
			return request->attributes[i].value;
	return "";
}

static bool
append(char *out, size_t size, size_t *used, struct view text)
{
	if (text.len >= size - *used)
		return false;
	if (text.len > 0)
		memcpy(out + *used, text.data, text.len);
	*used += text.len;
	out[*used] = '\0';
	return true;
}

/* Values are not expanded again: braces in a request's attribute stay braces. */
enum status
ca_template_expand(char *out, size_t size, const char *template, const struct ca_profile *profile,
	const struct ca_request *request, struct err *err)
{
	const char *rest = template;
	size_t used = 0;
	bool fits = size > 0;

	if (fits)
		out[0] = '\0';
	while (fits && *rest != '\0') {
		size_t literal = strcspn(rest, "{");
		size_t name;

		fits = append(out, size, &used, (struct view){ (const uint8_t *)rest, literal });
		rest += literal;
		if (*rest == '\0' || !fits)
			break;
		rest++;
		name = strcspn(rest, "}");
		fits = append(out, size, &used,
			view_text(value_of(
				(struct view){ (const uint8_t *)rest, name }, profile, request)));
		rest += name + (rest[name] == '}');
	}
	if (!fits)
		return err_set(err, ERR_TOO_LARGE, "name_too_long",
			"template '%.64s': expands to more than %zu octets", template,
			size > 0 ? size - 1 : 0);
	return OK;
}

static bool
is_known_name(struct view name)
{
	static const char ATTRIBUTES[] = "attributes.";
	const size_t prefix = sizeof(ATTRIBUTES) - 1;

	if (view_equal_text(name, "device_id") || view_equal_text(name, "profile") ||
		view_equal_text(name, "thing_type"))
		return true;
	if (name.len <= prefix || name.len > prefix + 32 ||
		memcmp(name.data, ATTRIBUTES, prefix) != 0)
		return false;
	for (size_t i = prefix; i < name.len; i++)
		if (strchr(LOWER DIGITS "_", name.data[i]) == NULL)
			return false;
	return true;
}

static enum status
check_template(const struct ca_profile *profile, const char *field, size_t index, const char *text,
	struct err *err)
{
	size_t len = strnlen(text, CA_TEMPLATE_BYTES), characters;
	const char *rest = text;

	if (len == 0 || len == CA_TEMPLATE_BYTES)
		return refuse(profile, err, "%s[%zu].value: 1 to %d octets wanted", field, index,
			CA_TEMPLATE_BYTES - 1);
	if (!ca_text_is_clean((struct view){ (const uint8_t *)text, len }, &characters))
		return refuse(profile, err,
			"%s[%zu].value: UTF-8 without control characters wanted", field, index);
	while ((rest += strcspn(rest, "{}")), *rest != '\0') {
		const char *end = strchr(rest, '}');
		struct view name;

		if (*rest == '}' || end == NULL)
			return refuse(profile, err, "%s[%zu].value: braces that do not pair", field,
				index);
		name = (struct view){ (const uint8_t *)rest + 1, (size_t)(end - rest - 1) };
		if (!is_known_name(name))
			return refuse(profile, err,
				"%s[%zu].value: {device_id}, {profile}, {thing_type}"
				" or {attributes.NAME} wanted, {%.*s} found",
				field, index, (int)name.len, rest + 1);
		rest = end + 1;
	}
	return OK;
}

/* ---- checks, in the order of the struct ---- */

#define ASKERS_ALL (ASKER_STATION | ASKER_ADMIN | ASKER_DEVICE | ASKER_SERVER)
#define KEY_TYPES_EC (KEY_EC_P256 | KEY_EC_P384)
#define KEY_TYPES_RSA (KEY_RSA_2048 | KEY_RSA_3072 | KEY_RSA_4096)
#define KEY_TYPES_ALL (KEY_TYPES_EC | KEY_TYPES_RSA | KEY_ED25519)
#define KEY_USAGES_CA (KU_KEY_CERT_SIGN | KU_CRL_SIGN)
#define KEY_USAGES_ALL                                                                             \
	(KU_DIGITAL_SIGNATURE | KU_CONTENT_COMMITMENT | KU_KEY_ENCIPHERMENT |                      \
		KU_DATA_ENCIPHERMENT | KU_KEY_AGREEMENT | KEY_USAGES_CA)

unsigned
ca_key_usage_for(unsigned key_usage, enum ca_key_type type)
{
	const unsigned signs = KU_DIGITAL_SIGNATURE | KU_CONTENT_COMMITMENT;

	if ((type & KEY_TYPES_RSA) != 0) /* RFC 3279 2.3.1 */
		return key_usage & (signs | KU_KEY_ENCIPHERMENT | KU_DATA_ENCIPHERMENT);
	if ((type & KEY_TYPES_EC) != 0) /* RFC 5480 3 */
		return key_usage & (signs | KU_KEY_AGREEMENT);
	return type == KEY_ED25519 ? key_usage & signs : 0; /* RFC 8410 5 */
}

static enum status
check_who(const struct ca_profile *p, struct err *err)
{
	if (p->name[0] == '\0' || !is_word(p->name, sizeof(p->name), LOWER DIGITS "_-"))
		return refuse(p, err, "name: 1 to 32 of a-z 0-9 _ - wanted");
	if (p->role < CA_ROLE_NONE || p->role > CA_ROLE_ADMIN)
		return refuse(p, err, "role: none, device, station or admin wanted");
	if (p->issuable_by == 0 || (p->issuable_by & ~(unsigned)ASKERS_ALL) != 0)
		return refuse(p, err,
			"issuable_by: at least one of station, admin, device, server wanted");
	if ((p->issuable_by & ASKER_STATION) != 0 && p->role == CA_ROLE_ADMIN)
		return refuse(p, err, "issuable_by: a station must not make administrators");
	return OK;
}

static enum status
check_keys(const struct ca_profile *p, struct err *err)
{
	if (p->key_types == 0 || (p->key_types & ~(unsigned)KEY_TYPES_ALL) != 0)
		return refuse(p, err, "key_types: at least one known key type wanted");
	if ((p->key_usage & KEY_USAGES_CA) != 0)
		return refuse(p, err,
			"key_usage: keyCertSign and cRLSign are for CAs"
			" (RFC 5280 4.2.1.3); no profile makes one");
	if (p->key_usage == 0 || (p->key_usage & ~(unsigned)KEY_USAGES_ALL) != 0)
		return refuse(p, err, "key_usage: at least one known usage wanted");
	for (unsigned type = 1; type <= KEY_ED25519; type <<= 1) {
		if ((p->key_types & type) != 0 &&
			ca_key_usage_for(p->key_usage, (enum ca_key_type)type) == 0)
			return refuse(p, err,
				"key_usage: no usage is left for a key type of key_types"
				" (RFC 3279 2.3, RFC 5480 3, RFC 8410 5)");
	}
	return OK;
}

static enum status
check_eku(const struct ca_profile *p, struct err *err)
{
	own_struct(der_writer) w = { .status = OK };
	struct err oid;

	der_writer_init(&w, 512);
	if (p->eku_count > COUNT_OF(p->eku))
		return refuse(p, err, "extended_key_usage: at most %zu wanted", COUNT_OF(p->eku));
	for (size_t i = 0; i < p->eku_count; i++) {
		if (memchr(p->eku[i], 0, sizeof(p->eku[i])) == NULL)
			return refuse(p, err, "extended_key_usage[%zu]: too long", i);
		der_put_oid(&w, p->eku[i]);
		if (strcmp(p->eku[i], "2.5.29.37.0") == 0)
			return refuse(p, err,
				"extended_key_usage[%zu]: anyExtendedKeyUsage permits all", i);
		for (size_t j = 0; j < i; j++)
			if (strcmp(p->eku[i], p->eku[j]) == 0)
				return refuse(p, err, "extended_key_usage[%zu]: %s stands twice", i,
					p->eku[i]);
	}
	if (der_finish(&w, &oid) == OK)
		return OK;
	if (oid.status == ERR_ARGUMENT)
		return refuse(p, err, "extended_key_usage: %s", oid.text);
	*err = oid;
	return oid.status;
}

static enum status
check_names(const struct ca_profile *p, struct err *err)
{
	if (p->subject_count < 1 || p->subject_count > COUNT_OF(p->subject))
		return refuse(p, err, "subject: 1 to %zu attributes wanted (RFC 5280 4.1.2.6)",
			COUNT_OF(p->subject));
	for (size_t i = 0; i < p->subject_count; i++) {
		if (ca_rdn_rule(p->subject[i].type) == NULL)
			return refuse(p, err,
				"subject[%zu].type: CN, O, OU, C, serialNumber, L or ST"
				" wanted",
				i);
		for (size_t j = 0; j < i; j++)
			if (p->subject[i].type == p->subject[j].type)
				return refuse(p, err, "subject[%zu].type: %s stands twice", i,
					ca_rdn_rule(p->subject[i].type)->label);
		TRY(check_template(p, "subject", i, p->subject[i].value, err));
	}
	if (p->san_count > COUNT_OF(p->san))
		return refuse(p, err, "san: at most %zu wanted", COUNT_OF(p->san));
	for (size_t i = 0; i < p->san_count; i++) {
		if (p->san[i].type < SAN_DNS || p->san[i].type > SAN_EMAIL)
			return refuse(p, err, "san[%zu].type: dns, ip, uri or email wanted", i);
		TRY(check_template(p, "san", i, p->san[i].value, err));
	}
	return OK;
}

static enum status
check_times(const struct ca_profile *p, struct err *err)
{
	if (p->backdate_s < 0 || p->backdate_s > DAY_S)
		return refuse(p, err, "backdate: 0 to one day wanted");
	if (p->validity_max_s < 1 || p->validity_max_s > CENTURY_S)
		return refuse(p, err, "validity.max: above zero, at most 100 years wanted");
	if (p->validity_default_s < 1 || p->validity_default_s > p->validity_max_s)
		return refuse(p, err, "validity.default: above zero, at most validity.max wanted");
	if (p->renew_before_s < 1 || p->renew_before_s >= p->validity_default_s)
		return refuse(p, err, "renew.before: above zero, under validity.default wanted");
	if (p->renew_overlap_s < 0 || p->renew_overlap_s >= p->renew_before_s)
		return refuse(p, err, "renew.overlap: at least zero, under renew.before wanted");
	if (p->grace_s < 0 || p->grace_s > CENTURY_S)
		return refuse(p, err, "grace: 0 to 100 years wanted");
	return OK;
}

static enum status
check_policy(const struct ca_profile *p, struct err *err)
{
	static const char THING_TYPE[] = LOWER UPPER DIGITS ":_-";
	static const char POLICY[] = LOWER UPPER DIGITS "_+=,.@-";

	if (p->on_confirm < ON_CONFIRM_SUPERSEDE || p->on_confirm > ON_CONFIRM_REVOKE)
		return refuse(p, err, "on_confirm: supersede or revoke wanted");
	if (p->csr_extensions < CSR_EXTENSIONS_IGNORE || p->csr_extensions > CSR_EXTENSIONS_REFUSE)
		return refuse(p, err, "csr_extensions: ignore or refuse wanted");
	/* What may administer, or speak for this server, is never made without a limit. */
	if (p->hourly_cap == 0 && p->role != CA_ROLE_DEVICE && p->role != CA_ROLE_STATION)
		return refuse(p, err,
			"hourly_cap: above zero wanted unless the role is device or station");
	if (!is_word(p->thing_type, sizeof(p->thing_type), THING_TYPE))
		return refuse(p, err, "thing_type: at most 128 of a-z A-Z 0-9 : _ - wanted");
	if (p->policy_count > COUNT_OF(p->policies))
		return refuse(p, err, "policies: at most %zu wanted", COUNT_OF(p->policies));
	for (size_t i = 0; i < p->policy_count; i++)
		if (p->policies[i][0] == '\0' ||
			!is_word(p->policies[i], sizeof(p->policies[i]), POLICY))
			return refuse(
				p, err, "policies[%zu]: 1 to 128 of a-z A-Z 0-9 _+=,.@- wanted", i);
	if (p->thing_group_count > COUNT_OF(p->thing_groups))
		return refuse(p, err, "thing_groups: at most %zu wanted", COUNT_OF(p->thing_groups));
	if (p->thing_group_count > 0 && p->policy_count == 0)
		return refuse(p, err, "thing_groups: none wanted without policies");
	for (size_t i = 0; i < p->thing_group_count; i++)
		if (p->thing_groups[i][0] == '\0' ||
			!is_word(p->thing_groups[i], sizeof(p->thing_groups[i]), THING_TYPE))
			return refuse(p, err,
				"thing_groups[%zu]: 1 to 128 of a-z A-Z 0-9 : _ - wanted", i);
	return OK;
}

bool
ca_is_registration_code(const char *text)
{
	return strlen(text) == 64 && strspn(text, DIGITS "abcdefABCDEF") == 64;
}

static enum status
check_verification(const struct ca_profile *p, struct err *err)
{
	if (strcmp(p->name, CA_PROFILE_VERIFICATION) != 0)
		return OK;
	if (p->issuable_by != ASKER_SERVER || p->role != CA_ROLE_NONE)
		return refuse(p, err, "issuable_by, role: [\"server\"], none wanted");
	if (p->eku_count != 0 || p->san_count != 0 || p->policy_count != 0)
		return refuse(p, err, "no extended_key_usage, subject_alt_names, iot wanted");
	if (p->subject_count != 1 || p->subject[0].type != RDN_CN ||
		strcmp(p->subject[0].value, "{device_id}") != 0)
		return refuse(p, err, "subject: CN={device_id} alone wanted");
	if (p->validity_max_s > DAY_S || p->hourly_cap > 10)
		return refuse(p, err, "validity.max, hourly_cap: at most 1d, 10 wanted");
	return OK;
}

bool
ca_profile_is_responder(const struct ca_profile *profile)
{
	for (size_t i = 0; i < profile->eku_count; i++)
		if (strcmp(profile->eku[i], CA_OID_OCSP_SIGNING) == 0)
			return true;
	return false;
}

static enum status
check_responder(const struct ca_profile *p, struct err *err)
{
	if (!ca_profile_is_responder(p))
		return OK;
	if (p->issuable_by != ASKER_SERVER || p->role != CA_ROLE_NONE)
		return refuse(p, err, "issuable_by, role: [\"server\"], none wanted for ocsp_signing");
	if (p->eku_count != 1 || p->san_count != 0 || p->policy_count != 0)
		return refuse(p, err,
			"ocsp_signing alone, no subject_alt_names, no iot.policies wanted");
	if (p->key_types != KEY_EC_P256 || p->key_usage != KU_DIGITAL_SIGNATURE)
		return refuse(p, err,
			"key_types, key_usage: ec-p256, digital_signature wanted for ocsp_signing");
	/* It cannot be revoked in the eyes of who is told not to look (RFC 6960 4.2.2.2.1). */
	if (p->validity_max_s > 31 * DAY_S)
		return refuse(p, err, "validity.max: at most 31d wanted for ocsp_signing");
	return OK;
}

enum status
ca_profile_check(const struct ca_profile *profile, struct err *err)
{
	TRY(check_who(profile, err));
	TRY(check_keys(profile, err));
	TRY(check_eku(profile, err));
	TRY(check_names(profile, err));
	TRY(check_times(profile, err));
	TRY(check_policy(profile, err));
	TRY(check_responder(profile, err));
	return check_verification(profile, err);
}
