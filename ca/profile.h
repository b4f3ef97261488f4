/*
 * ca/profile.h - a certificate profile as a plain struct, and its checks. Reading the files of certs/ into it
 * it is the server's affair (server/profile/); what it means in a certificate is decided here and in
 * ca/tbs.c. A profile is known by the BLAKE2b-256 of the file that it came from.
 *
 * For all that permits, zero refuses: a key type that is not listed is not allowed.
 */
#ifndef CA_PROFILE_H
#define CA_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define CA_TEMPLATE_BYTES 256
#define CA_TEXT_BYTES 129
#define CA_ATTRIBUTES_MAX 16
#define CA_ID_BYTES 65

enum ca_key_type { /* bits, for key_types */
	KEY_EC_P256 = 1 << 0,
	KEY_EC_P384 = 1 << 1,
	KEY_RSA_2048 = 1 << 2,
	KEY_RSA_3072 = 1 << 3,
	KEY_RSA_4096 = 1 << 4,
	KEY_ED25519 = 1 << 5, /* only as a subject's key, where a profile lists it */
};
const char *ca_key_type_name(enum ca_key_type type); /* "ec-p256", "rsa-3072", … */
MUST_USE bool ca_key_type_parse(enum ca_key_type *out, const char *name);

enum ca_role { /* what a certificate of the profile may act as at our own mutual TLS */
	CA_ROLE_UNSET = 0,
	CA_ROLE_NONE,
	CA_ROLE_DEVICE,
	CA_ROLE_STATION,
	CA_ROLE_ADMIN,
};

enum ca_asker { /* bits, for issuable_by */
	ASKER_STATION = 1 << 0,
	ASKER_ADMIN = 1 << 1,
	ASKER_DEVICE = 1 << 2,   /* rotation */
	ASKER_SERVER = 1 << 3,   /* this server for itself: its TLS and service certificates */
};

enum ca_csr_extensions { CSR_EXTENSIONS_UNSET = 0, CSR_EXTENSIONS_IGNORE, CSR_EXTENSIONS_REFUSE };
enum ca_on_confirm { ON_CONFIRM_UNSET = 0, ON_CONFIRM_SUPERSEDE, ON_CONFIRM_REVOKE };

enum ca_key_usage { /* RFC 5280 4.2.1.3, bit n of the BIT STRING */
	KU_DIGITAL_SIGNATURE = 1 << 0,
	KU_CONTENT_COMMITMENT = 1 << 1,
	KU_KEY_ENCIPHERMENT = 1 << 2,
	KU_DATA_ENCIPHERMENT = 1 << 3,
	KU_KEY_AGREEMENT = 1 << 4,
	KU_KEY_CERT_SIGN = 1 << 5, /* refused in a profile: no profile makes a CA */
	KU_CRL_SIGN = 1 << 6,      /* refused likewise */
};

enum ca_rdn_type { RDN_UNSET = 0, RDN_CN, RDN_O, RDN_OU, RDN_C, RDN_SERIAL_NUMBER, RDN_L, RDN_ST };
enum ca_san_type { SAN_UNSET = 0, SAN_DNS, SAN_IP, SAN_URI, SAN_EMAIL };

struct ca_rdn {
	enum ca_rdn_type type;
	char value[CA_TEMPLATE_BYTES]; /* template: {device_id} {profile} {thing_type} {attributes.NAME} */
};

struct ca_san {
	enum ca_san_type type;
	bool each;     /* the expanded value is a comma-separated list, one name an element */
	bool optional; /* left out when the expanded value is empty; otherwise that is an error */
	char value[CA_TEMPLATE_BYTES];
};

struct ca_profile {
	char name[33];
	uint8_t hash[32];
	enum ca_role role;
	unsigned issuable_by; /* enum ca_asker */
	unsigned key_types;   /* enum ca_key_type */
	unsigned key_usage;   /* enum ca_key_usage */
	char eku[4][32];      /* dotted OIDs */
	size_t eku_count;
	struct ca_rdn subject[8];
	size_t subject_count;
	struct ca_san san[8];
	size_t san_count;
	int64_t backdate_s;
	int64_t validity_default_s;
	int64_t validity_max_s;
	int64_t renew_before_s;  /* the rotation window opens so long before notAfter … */
	int64_t renew_overlap_s; /* … and closes so long before it; 0 <= overlap < before */
	int64_t grace_s;         /* so long after notAfter a device may still rotate; 0: not at all */
	enum ca_on_confirm on_confirm;
	enum ca_csr_extensions csr_extensions;
	bool one_live;           /* one live certificate an identity (devices); else any number */
	bool crl_distribution_point;
	bool freshest_crl;       /* names the delta of the full list (RFC 5280 4.2.1.15) */
	bool authority_information_access;
	unsigned hourly_cap;     /* the signer signs no more an hour; 0: no cap (not for admin, service,
	                          * server, where a cap is required) */
	char thing_type[CA_TEXT_BYTES]; /* default of IoT Core; empty: none */
	char policies[4][CA_TEXT_BYTES];
	size_t policy_count;
	char thing_groups[4][CA_TEXT_BYTES]; /* the thing is in; only with policies */
	size_t thing_group_count;
	bool preregister;
};

#define CA_PROFILES_MAX 32

/*
 * The profile of the certificate that proves to AWS IoT Core that we hold the CA's key: its CN is the
 * registration code and nothing else, and it is good for nothing else. What bears the name must be so
 * narrow (ca_profile_check), and the signer wants a code for its device_id.
 */
#define CA_PROFILE_VERIFICATION "iot-verification"
bool ca_is_registration_code(const char *text); /* exactly 64 hex digits */

/*
 * A profile with the usage OCSPSigning makes delegated responders (RFC 6960 4.2.2.2): what bears their
 * certificate is believed about every certificate of the CA. So it must be narrow (ca_profile_check), the
 * certificate says that it is not to be looked up in turn (id-pkix-ocsp-nocheck), and the signer takes
 * only keys that it made itself (ca/responder.h).
 */
#define CA_PROFILE_OCSP "ocsp" /* the one that the server asks for */
#define CA_OID_OCSP_SIGNING "1.3.6.1.5.5.7.3.9"
bool ca_profile_is_responder(const struct ca_profile *profile);

/*
 * Checks that a profile makes sense as a whole (RFC 5280 and our own rules): the text names field and
 * rule. ERR_ARGUMENT (profile_invalid).
 */
MUST_USE enum status ca_profile_check(const struct ca_profile *profile, struct err *err);

/* Which of these usages a key of that type can serve (RFC 3279, 5480, 8410): EC never enciphers. */
unsigned ca_key_usage_for(unsigned key_usage, enum ca_key_type type);

struct ca_attribute {
	char name[33];  /* [a-z0-9_]{1,32} */
	char value[129]; /* printable UTF-8, at most 128 octets */
};

/* The authorised request: what a certificate's identity is made from (invariant 10). */
struct ca_request {
	char device_id[CA_ID_BYTES];
	char thing_type[CA_TEXT_BYTES];
	struct ca_attribute attributes[CA_ATTRIBUTES_MAX];
	size_t attribute_count;
};

/*
 * Expands a template into out (NUL-terminated, at most size - 1 octets). A name that is unknown or
 * has no value expands to nothing. ERR_TOO_LARGE (name_too_long).
 */
MUST_USE enum status ca_template_expand(char *out, size_t size, const char *template,
	const struct ca_profile *profile, const struct ca_request *request, struct err *err);

#endif
