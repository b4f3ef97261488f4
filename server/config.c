#include "server/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/mem.h"
#include "server/suggest.h"

#define NAME_MAX_BYTES 64
/* A configuration is a page or two; what is longer is another file. */
#define LINE_MAX_BYTES 1024
#define LINES_MAX 10000

enum kind {
	KIND_TEXT = 1,
	KIND_COUNT,
	KIND_SIZE, /* octets, with KiB, MiB, GiB */
	KIND_DURATION_S,
	KIND_DURATION_MS, /* as above, also "200ms" */
	KIND_LISTENER,
	KIND_LEVEL,
};

struct key {
	const char *name;
	enum kind kind;
	size_t offset;
	size_t size; /* KIND_TEXT */
	const char *standard;
	int64_t least, most; /* of numbers, in the unit they are kept in */
	bool (*rule)(const char *text);
	const char *rule_text;
	bool secret;         /* its value is not printed */
	bool or_never;       /* of durations: "never" is 0 */
	const char *about;   /* lines, as they stand in the documented file */
	const char *section; /* begins one */
};

static bool is_url(const char *text);
static bool is_https_url(const char *text);
static bool is_absolute_or_empty(const char *text);
static bool is_path(const char *text);
static bool is_ca_id(const char *text);
static bool is_names(const char *text);
static bool is_pairs(const char *text);
static bool is_user(const char *text);
static bool is_account(const char *text);
static bool is_region(const char *text);
static bool is_host(const char *text);
static bool is_no_or_loopback(const char *text);
static bool is_text(const char *text);

#define AT(member)                                                                                 \
	.offset = offsetof(struct config, member), .size = sizeof(((struct config *)0)->member)
#define S INT64_C(1)
#define DAY (86400 * S)

static const struct key KEYS[] = {
	{ .section = "Database",
		.name = "database_url",
		.kind = KIND_TEXT,
		AT(database_url),
		.standard = "postgresql:///jitrca",
		.rule = is_text,
		.rule_text = "a libpq connection string",
		.secret = true,
		.about = "A libpq connection string. Passwords belong into a file: "
			 "passfile=/etc/jitrca/pgpass.\n"
			 "Several hosts: "
			 "postgresql://a,b,c/jitrca?target_session_attrs=read-write" },
	{ .name = "database_connections",
		.kind = KIND_COUNT,
		AT(database_connections),
		.standard = "8",
		.least = 3,
		.most = 200,
		.about = "Connections to it at most, opened on demand." },

	{ .section = "Files",
		.name = "data_dir",
		.kind = KIND_TEXT,
		AT(data_dir),
		.standard = "/var/lib/jitrca",
		.rule = is_path,
		.rule_text = "a path",
		.about = "Holds keys/ (sealed) and tls/. Mode 0700." },
	{ .name = "profiles_dir",
		.kind = KIND_TEXT,
		AT(profiles_dir),
		.standard = "/etc/jitrca/certs",
		.rule = is_path,
		.rule_text = "a path",
		.about = "The certificate profiles, *.json (certs/README.md)." },
	{ .name = "passphrase_file",
		.kind = KIND_TEXT,
		AT(passphrase_file),
		.standard = "",
		.rule = is_absolute_or_empty,
		.rule_text = "a path, or nothing",
		.about = "The passphrase that the CA keys are sealed with; mode 0600. Empty: the "
			 "systemd\n"
			 "credential jitrca-passphrase, else a prompt." },

	{ .section = "Addresses",
		.name = "public_url",
		.kind = KIND_TEXT,
		AT(public_url),
		.standard = "https://localhost:8444",
		.rule = is_https_url,
		.rule_text = "https://HOST[:PORT]",
		.about = "Where stations and administrators reach this service." },
	{ .name = "public_http_url",
		.kind = KIND_TEXT,
		AT(public_http_url),
		.standard = "http://localhost:8440",
		.rule = is_url,
		.rule_text = "http://HOST[:PORT]",
		.about = "Stands in every certificate as the address of CRLs and CA certificates. "
			 "Do not change it\n"
			 "lightly: certificates that are out keep the old one." },
	{ .name = "issuing_ca",
		.kind = KIND_TEXT,
		AT(issuing_ca),
		.standard = "issuing-1",
		.rule = is_ca_id,
		.rule_text = "[a-z0-9][a-z0-9-]{0,62}",
		.about = "Which CA of data_dir/keys issues." },

	{ .section = "Listeners: ADDRESS:PORT, [IPV6]:PORT, or off",
		.name = "https",
		.kind = KIND_LISTENER,
		AT(https),
		.standard = "0.0.0.0:8443",
		.about = "Devices, by mutual TLS, and everyone." },
	{ .name = "stations",
		.kind = KIND_LISTENER,
		AT(stations),
		.standard = "0.0.0.0:8444",
		.about = "Stations and administrators, so that a crowd of devices cannot lock them "
			 "out." },
	{ .name = "http",
		.kind = KIND_LISTENER,
		AT(http),
		.standard = "0.0.0.0:8440",
		.about = "Plain HTTP: CRLs, CA certificates, health. Nothing else answers there." },
	{ .name = "server_names",
		.kind = KIND_TEXT,
		AT(server_names),
		.standard = "localhost,127.0.0.1,::1",
		.rule = is_names,
		.rule_text = "DNS names and addresses, separated by commas",
		.about = "Names in the TLS certificate that the own CA issues for the listeners." },
	{ .name = "tls_certificates",
		.kind = KIND_TEXT,
		AT(tls_certificates),
		.standard = "",
		.rule = is_pairs,
		.rule_text = "CERT.pem:KEY.pem pairs, separated by commas",
		.about = "Certificates from files instead, chosen by SNI; the chain behind the "
			 "leaf. Read again at\n"
			 "SIGHUP." },

	{ .section = "Limits",
		.name = "connections_max",
		.kind = KIND_COUNT,
		AT(connections_max),
		.standard = "2000",
		.least = 4,
		.most = 100000,
		.about = "Connections of each listener." },
	{ .name = "connections_per_address_max",
		.kind = KIND_COUNT,
		AT(connections_per_address_max),
		.standard = "200",
		.least = 1,
		.most = 100000,
		.about = "Of these, from one address." },
	{ .name = "first_request_timeout",
		.kind = KIND_DURATION_MS,
		AT(first_request_timeout_ms),
		.standard = "10s",
		.least = 100,
		.most = 600000,
		.about = "From a connection to its first complete request." },
	{ .name = "idle_timeout",
		.kind = KIND_DURATION_MS,
		AT(idle_timeout_ms),
		.standard = "30s",
		.least = 100,
		.most = 3600000,
		.about = "A connection that says nothing is closed after that." },
	{ .name = "http_threads",
		.kind = KIND_COUNT,
		AT(http_threads),
		.standard = "0",
		.least = 0,
		.most = 64,
		.about = "Threads of each listener; 0: by connections_max." },
	{ .name = "worker_threads",
		.kind = KIND_COUNT,
		AT(worker_threads),
		.standard = "0",
		.least = 0,
		.most = 256,
		.about = "Threads that run requests; 0: by the number of processors." },
	{ .name = "body_max",
		.kind = KIND_SIZE,
		AT(body_max_bytes),
		.standard = "1MiB",
		.least = 16384,
		.most = INT64_C(64) << 20,
		.about = "Of a request's body, at most." },
	{ .name = "upload_max",
		.kind = KIND_SIZE,
		AT(upload_max_bytes),
		.standard = "128MiB",
		.least = 16384,
		.most = INT64_C(4) << 30,
		.about = "Of an uploaded manifest, at most." },
	{ .name = "shutdown_timeout",
		.kind = KIND_DURATION_MS,
		AT(shutdown_timeout_ms),
		.standard = "10s",
		.least = 100,
		.most = 600000,
		.about = "What is in flight may take so long at SIGTERM and SIGHUP." },

	{ .section = "Revocation lists",
		.name = "crl_validity",
		.kind = KIND_DURATION_S,
		AT(crl_validity_s),
		.standard = "7d",
		.least = 60,
		.most = 31 * DAY,
		.about = "From thisUpdate to nextUpdate." },
	{ .name = "crl_refresh",
		.kind = KIND_DURATION_S,
		AT(crl_refresh_s),
		.standard = "24h",
		.least = 10,
		.most = 31 * DAY,
		.about = "A list is published anew so long after thisUpdate, at the latest." },
	{ .name = "crl_delta_validity",
		.kind = KIND_DURATION_S,
		AT(crl_delta_validity_s),
		.standard = "24h",
		.least = 10,
		.most = 31 * DAY,
		.about = "The same of a delta, which is published anew after half of it, at the latest." },
	{ .name = "crl_debounce",
		.kind = KIND_DURATION_MS,
		AT(crl_debounce_ms),
		.standard = "200ms",
		.least = 1,
		.most = 60000,
		.about = "Revocations within that time share one list." },
	{ .name = "revocation_approval_over",
		.kind = KIND_COUNT,
		AT(revocation_approval_over),
		.standard = "0",
		.least = 0,
		.most = 1000000000,
		.about = "A revocation of more certificates than that, by a selector, waits for a second\n"
			 "administrator; 0: none does." },
	{ .name = "revocation_approval_within",
		.kind = KIND_DURATION_S,
		AT(revocation_approval_within_s),
		.standard = "24h",
		.least = 1,
		.most = 31 * DAY,
		.about = "So long it waits; then it is void." },
	{ .name = "receipt_followers_max",
		.kind = KIND_COUNT,
		AT(receipt_followers_max),
		.standard = "64",
		.least = 0,
		.most = 10000,
		.about = "Clients that may follow receipts of revocations at once, by streams or\n"
			 "by calls that wait; each has one of connections_max." },
	{ .name = "crl_full_immediate_max",
		.kind = KIND_SIZE,
		AT(crl_full_immediate_max_bytes),
		.standard = "1MiB",
		.least = 1,
		.most = INT64_C(1) << 30,
		.about = "A full list above that is published by crl_refresh only, or when its delta has "
			 "grown to half of it; shards and deltas always at once." },

	{ .section = "OCSP",
		.name = "ocsp_validity",
		.kind = KIND_DURATION_S,
		AT(ocsp_validity_s),
		.standard = "1h",
		.least = 60,
		.most = 7 * DAY,
		.about = "From thisUpdate to nextUpdate of an answer: who caches it believes it so "
			 "long." },
	{ .name = "ocsp_cache",
		.kind = KIND_SIZE,
		AT(ocsp_cache_bytes),
		.standard = "32MiB",
		.least = 64 << 10,
		.most = INT64_C(64) << 30,
		.about = "Signed answers in memory, at most; one takes about 1.2 KiB." },

	{ .section = "Retention",
		.name = "idempotency_retention",
		.kind = KIND_DURATION_S,
		AT(idempotency_retention_s),
		.standard = "90d",
		.least = 3600,
		.most = 3650 * DAY,
		.about = "A repeated request finds its first answer so long." },
	{ .name = "event_retention",
		.kind = KIND_DURATION_S,
		AT(event_retention_s),
		.standard = "400d",
		.least = 3600,
		.most = 3650 * DAY,
		.about = "Security events are kept so long." },
	{ .name = "notification_retention",
		.kind = KIND_DURATION_S,
		AT(notification_retention_s),
		.standard = "30d",
		.least = 3600,
		.most = 3650 * DAY,
		.about = "Notifications that were sent, or were given up, are kept so long." },
	{ .name = "certificate_retention",
		.kind = KIND_DURATION_S,
		AT(certificate_retention_s),
		.standard = "never",
		.least = 31 * DAY,
		.most = 36500 * DAY,
		.or_never = true,
		.about = "Certificates are dropped so long after they expired, by whole months; not before\n"
			 "idempotency_retention is over as well. `jitrca retention preview` says which." },
	{ .name = "audit_retention",
		.kind = KIND_DURATION_S,
		AT(audit_retention_s),
		.standard = "never",
		.least = 31 * DAY,
		.most = 36500 * DAY,
		.or_never = true,
		.about = "Audit records are dropped that a signed checkpoint of that age holds; "
			 "the checkpoint stays." },
	{ .name = "receipt_retention",
		.kind = KIND_DURATION_S,
		AT(receipt_retention_s),
		.standard = "never",
		.least = DAY,
		.most = 36500 * DAY,
		.or_never = true,
		.about = "Receipts of revocations are dropped so long after they were finished, with what\n"
			 "they prove; not before IoT Core has it all. Certificates stay revoked." },
	{ .name = "token_validity_max",
		.kind = KIND_DURATION_S,
		AT(token_validity_max_s),
		.standard = "365d",
		.least = 60,
		.most = 3650 * DAY,
		.about = "A bearer token lives no longer." },

	{ .section = "Rotation plans",
		.name = "plan_every",
		.kind = KIND_DURATION_S,
		AT(plan_every_s),
		.standard = "7d",
		.least = 0,
		.most = 366 * DAY,
		.about = "A rotation plan is made so often; 0s: only on demand." },
	{ .name = "plan_threshold",
		.kind = KIND_DURATION_S,
		AT(plan_threshold_s),
		.standard = "30d",
		.least = DAY,
		.most = 3650 * DAY,
		.about = "It says what expires within that." },

	{ .section = "Compliance reports",
		.name = "report_every",
		.kind = KIND_DURATION_S,
		AT(report_every_s),
		.standard = "30d",
		.least = 0,
		.most = 366 * DAY,
		.about = "A compliance report is made so often; 0s: only on demand." },
	{ .name = "report_ca_expiring",
		.kind = KIND_DURATION_S,
		AT(report_ca_expiring_s),
		.standard = "180d",
		.least = DAY,
		.most = 36500 * DAY,
		.about = "A CA certificate that ends within that is a finding." },
	{ .name = "report_unconfirmed_after",
		.kind = KIND_DURATION_S,
		AT(report_unconfirmed_after_s),
		.standard = "7d",
		.least = 60,
		.most = 3650 * DAY,
		.about = "A successor that its device has not confirmed for so long is a finding." },
	{ .name = "report_retention",
		.kind = KIND_DURATION_S,
		AT(report_retention_s),
		.standard = "3650d",
		.least = 31 * DAY,
		.most = 36500 * DAY,
		.about = "Reports are deleted after that." },

	{ .section = "Audit",
		.name = "audit_checkpoint_interval",
		.kind = KIND_DURATION_S,
		AT(audit_checkpoint_interval_s),
		.standard = "1h",
		.least = 10,
		.most = 7 * DAY,
		.about = "A checkpoint of the audit log is signed so long after the last, if anything was "
			 "written." },
	{ .name = "audit_checkpoint_dir",
		.kind = KIND_TEXT,
		AT(audit_checkpoint_dir),
		.standard = "",
		.rule = is_absolute_or_empty,
		.rule_text = "a path, or nothing",
		.about = "Each checkpoint is written there as a file of its own, to be shipped elsewhere; "
			 "writable for user_frontend." },

	{ .section = "AWS IoT Core",
		.name = "iot_targets_file",
		.kind = KIND_TEXT,
		AT(iot_targets_file),
		.standard = "",
		.rule = is_absolute_or_empty,
		.rule_text = "a path, or nothing",
		.about = "The accounts and Regions whose IoT Core is kept in step, JSON"
			 " (docs/aws-iot-core.md). Empty: none." },

	{ .section = "Notifications",
		.name = "notify_file",
		.kind = KIND_TEXT,
		AT(notify_file),
		.standard = "",
		.rule = is_absolute_or_empty,
		.rule_text = "a path, or nothing",
		.about = "Who is told of what: channels (e-mail, webhooks, SNS, syslog) and rules, JSON"
			 " (docs/notifications.md). Empty: nobody." },

	{ .section = "Local IoT Core (jitrca iotcore)",
		.name = "iotcore_listen",
		.kind = KIND_LISTENER,
		AT(iotcore),
		.standard = "127.0.0.1:8450",
		.about = "AWS IoT's control-plane API, for `aws iot --endpoint-url`." },
	{ .name = "iotcore_tls_certificates",
		.kind = KIND_TEXT,
		AT(iotcore_tls_certificates),
		.standard = "",
		.rule = is_pairs,
		.rule_text = "CERT.pem:KEY.pem pairs, separated by commas",
		.about = "Certificates from files; empty: plain HTTP." },
	{ .name = "iotcore_account",
		.kind = KIND_TEXT,
		AT(iotcore_account),
		.standard = "000000000000",
		.rule = is_account,
		.rule_text = "twelve digits",
		.about = "The account id in ARNs." },
	{ .name = "iotcore_region",
		.kind = KIND_TEXT,
		AT(iotcore_region),
		.standard = "us-east-1",
		.rule = is_region,
		.rule_text = "[a-z0-9-]{1,63}",
		.about = "The region in ARNs and in the scope of signatures." },
	{ .name = "iotcore_endpoint",
		.kind = KIND_TEXT,
		AT(iotcore_endpoint),
		.standard = "localhost:8883",
		.rule = is_host,
		.rule_text = "HOST or HOST:PORT",
		.about = "The broker. DescribeEndpoint answers HOST, as AWS does." },
	{ .name = "iotcore_credentials_file",
		.kind = KIND_TEXT,
		AT(iotcore_credentials_file),
		.standard = "",
		.rule = is_absolute_or_empty,
		.rule_text = "a path, or nothing",
		.about = "Who may call: lines of ACCESS_KEY SECRET_KEY [readonly]; mode 0600." },
	{ .name = "iotcore_quotas_file",
		.kind = KIND_TEXT,
		AT(iotcore_quotas_file),
		.standard = "",
		.rule = is_absolute_or_empty,
		.rule_text = "a path, or nothing",
		.about = "Lines of OPERATION CALLS_PER_SECOND, * for all others: above that, "
			 "ThrottlingException as\n"
			 "AWS has it. Empty: no quotas." },
	{ .name = "iotcore_rules_ca_file",
		.kind = KIND_TEXT,
		AT(iotcore_rules_ca_file),
		.standard = "",
		.rule = is_absolute_or_empty,
		.rule_text = "a path, or nothing",
		.about = "The CAs of endpoints that topic rules send to, PEM. Empty: the system's." },
	{ .name = "iotcore_rules_insecure_http",
		.kind = KIND_TEXT,
		AT(iotcore_rules_insecure_http),
		.standard = "no",
		.rule = is_no_or_loopback,
		.rule_text = "no, or loopback",
		.about = "Whether topic rules may send over plain HTTP: loopback, to this machine. For "
			 "tests." },

	{ .section = "Process",
		.name = "user_signer",
		.kind = KIND_TEXT,
		AT(user_signer),
		.standard = "",
		.rule = is_user,
		.rule_text = "a user's name",
		.about = "Started as root, the signer runs as that user …" },
	{ .name = "user_frontend",
		.kind = KIND_TEXT,
		AT(user_frontend),
		.standard = "",
		.rule = is_user,
		.rule_text = "a user's name",
		.about = "… and what talks to the network as that one. Empty: stays." },
	{ .name = "log_level",
		.kind = KIND_LEVEL,
		AT(log_level),
		.standard = "info",
		.about = "debug, info, warn or error." },
};
#define KEY_COUNT COUNT_OF(KEYS)

/* Set by tools and people for clients, not for the server: not ours to refuse (var/dev/env). */
static const char *const CLIENT_VARIABLES[] = { "JITRCA_URL", "JITRCA_HTTP_URL", "JITRCA_CA_BUNDLE",
	"JITRCA_ADMIN_TOKEN", "JITRCA_STATION_TOKEN", "JITRCA_TOKEN", "JITRCA_TOKEN_FILE",
	"JITRCA_PORT_BASE", "JITRCA_CONFIG" };

static bool
is_text(const char *text)
{
	return text[0] != '\0';
}

static bool
is_path(const char *text)
{
	return text[0] != '\0';
}

static bool
is_absolute_or_empty(const char *text)
{
	return text[0] == '\0' || text[strlen(text) - 1] != '/';
}

/* scheme://HOST[:PORT] without a path: other texts are put behind it. */
static bool
is_origin(const char *text, const char *scheme)
{
	size_t len = strlen(scheme);
	const char *host = text + len;

	if (strncmp(text, scheme, len) != 0 || host[0] == '\0' || strlen(text) > 200)
		return false;
	return strspn(host,
		       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-:[]") ==
	       strlen(host);
}

static bool
is_url(const char *text)
{
	return is_origin(text, "http://");
}

static bool
is_https_url(const char *text)
{
	return is_origin(text, "https://");
}

static bool
is_ca_id(const char *text)
{
	size_t len = strlen(text);

	return len >= 1 && len <= 63 && text[0] != '-' &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static bool
is_names(const char *text)
{
	size_t len = strlen(text);

	/* Names go into one attribute of a request, which holds 128 octets. */
	return len >= 1 && len <= 128 && text[0] != ',' && text[len - 1] != ',' &&
	       strstr(text, ",,") == NULL &&
	       strspn(text,
		       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-:,*") ==
	               len;
}

static bool
is_pairs(const char *text)
{
	const char *at = text;

	while (*at != '\0') {
		size_t len = strcspn(at, ",");
		const char *colon = memchr(at, ':', len);

		if (colon == NULL || colon == at || colon == at + len - 1)
			return false;
		at += len;
		if (*at == ',' && *++at == '\0')
			return false;
	}
	return true;
}

static bool
is_user(const char *text)
{
	return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") ==
	       strlen(text);
}

static bool
is_account(const char *text)
{
	return strlen(text) == 12 && strspn(text, "0123456789") == 12;
}

static bool
is_region(const char *text)
{
	return text[0] != '\0' &&
	       strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(text);
}

static bool
is_no_or_loopback(const char *text)
{
	return strcmp(text, "no") == 0 || strcmp(text, "loopback") == 0;
}

static bool
is_host(const char *text)
{
	size_t host = strspn(
		text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-");
	const char *port = text + host + 1;

	if (host == 0 || text[host] == '\0')
		return host > 0;
	return text[host] == ':' && port[0] != '\0' && strlen(port) <= 5 &&
	       strspn(port, "0123456789") == strlen(port);
}

/* A whole number and its unit. */
struct unit {
	const char *name;
	int64_t factor;
};

static bool
number_parse(int64_t *out, const char *text, const struct unit *units, size_t unit_count)
{
	int64_t value = 0;
	const char *at = text;

	for (; *at >= '0' && *at <= '9'; at++) {
		if (value > (INT64_MAX - 9) / 10)
			return false;
		value = value * 10 + (*at - '0');
	}
	if (at == text)
		return false;
	for (size_t i = 0; i < unit_count; i++) {
		if (strcmp(at, units[i].name) != 0)
			continue;
		if (value > INT64_MAX / units[i].factor)
			return false;
		*out = value * units[i].factor;
		return true;
	}
	return false;
}

static bool
value_number(int64_t *out, enum kind kind, const char *text)
{
	static const struct unit COUNT_UNITS[] = { { "", 1 } };
	static const struct unit SIZE_UNITS[] = { { "", 1 }, { "KiB", 1 << 10 }, { "MiB", 1 << 20 },
		{ "GiB", 1 << 30 } };
	static const struct unit MS_UNITS[] = { { "ms", 1 } };

	switch (kind) {
	case KIND_COUNT: return number_parse(out, text, COUNT_UNITS, COUNT_OF(COUNT_UNITS));
	case KIND_SIZE: return number_parse(out, text, SIZE_UNITS, COUNT_OF(SIZE_UNITS));
	case KIND_DURATION_S: return duration_parse(out, text);
	case KIND_DURATION_MS:
		if (number_parse(out, text, MS_UNITS, COUNT_OF(MS_UNITS)))
			return true;
		if (!duration_parse(out, text))
			return false;
		*out *= 1000;
		return true;
	case KIND_TEXT:
	case KIND_LISTENER:
	case KIND_LEVEL: break;
	}
	return false;
}

static const char *
kind_text(enum kind kind)
{
	switch (kind) {
	case KIND_COUNT: return "a whole number";
	case KIND_SIZE: return "a size such as 512KiB or 1MiB";
	case KIND_DURATION_S: return "a duration such as 90s, 15m, 12h or 365d";
	case KIND_DURATION_MS: return "a duration such as 200ms, 90s or 15m";
	case KIND_LISTENER: return "ADDRESS:PORT, [IPV6]:PORT or off";
	case KIND_LEVEL: return "debug, info, warn or error";
	case KIND_TEXT: break;
	}
	return "a text";
}

/* "127.0.0.1:8443", "[::1]:8443", "off" */
static bool
listener_parse(struct config_listener *out, const char *text)
{
	static const struct unit PORT_UNITS[] = { { "", 1 } };
	const char *colon = strrchr(text, ':');
	const char *from = text;
	uint8_t scratch[sizeof(struct in6_addr)];
	bool v6 = text[0] == '[';
	size_t len;

	*out = (struct config_listener){ .port = 0 };
	if (strcmp(text, "off") == 0)
		return true;
	if (colon == NULL)
		return false;
	len = (size_t)(colon - text);
	if (v6) {
		if (len < 3 || colon[-1] != ']')
			return false;
		from++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof(out->address))
		return false;
	memcpy(out->address, from, len);
	if (inet_pton(v6 ? AF_INET6 : AF_INET, out->address, scratch) != 1)
		return false;
	return number_parse(&out->port, colon + 1, PORT_UNITS, COUNT_OF(PORT_UNITS)) &&
	       out->port >= 1 && out->port <= 65535;
}

/* where: "FILE:LINE", or the variable's name. */
static enum status
set_value(struct config *config, const struct key *key, const char *where, const char *text,
	struct err *err)
{
	void *at = (uint8_t *)config + key->offset;
	int64_t number;

	switch (key->kind) {
	case KIND_TEXT:
		if (strlen(text) >= key->size)
			return err_set(err, ERR_ARGUMENT, "config_value",
				"%s: %s: at most %zu octets wanted, %zu found", where, key->name,
				key->size - 1, strlen(text));
		if (!key->rule(text))
			return err_set(err, ERR_ARGUMENT, "config_value",
				"%s: %s: %s wanted, '%s' found", where, key->name, key->rule_text,
				key->secret ? "…" : text);
		memset(at, 0, key->size);
		memcpy(at, text, strlen(text));
		return OK;
	case KIND_LISTENER:
		if (!listener_parse(at, text))
			break;
		return OK;
	case KIND_LEVEL:
		if (!log_level_parse(at, text))
			break;
		return OK;
	case KIND_COUNT:
	case KIND_SIZE:
	case KIND_DURATION_S:
	case KIND_DURATION_MS:
		if (key->or_never && strcmp(text, "never") == 0) {
			memset(at, 0, sizeof(number));
			return OK;
		}
		if (!value_number(&number, key->kind, text))
			break;
		if (number < key->least || number > key->most)
			return err_set(err, ERR_ARGUMENT, "config_value",
				"%s: %s: %lld to %lld%s wanted, '%s' found", where, key->name,
				(long long)key->least, (long long)key->most,
				key->kind == KIND_SIZE          ? " octets"
				: key->kind == KIND_DURATION_S  ? " seconds"
				: key->kind == KIND_DURATION_MS ? " milliseconds"
								: "",
				text);
		memcpy(at, &number, sizeof(number));
		return OK;
	}
	return err_set(err, ERR_ARGUMENT, "config_value", "%s: %s: %s wanted, '%s' found", where,
		key->name, kind_text(key->kind), text);
}

static const struct key *
find_key(const char *name)
{
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (strcmp(KEYS[i].name, name) == 0)
			return &KEYS[i];
	return NULL;
}

static const char *
nearest_key(const char *name)
{
	const char *names[KEY_COUNT];

	for (size_t i = 0; i < KEY_COUNT; i++)
		names[i] = KEYS[i].name;
	return suggest_nearest(name, names, KEY_COUNT);
}

/* Cuts white space at both ends of text, in place. */
static char *
trim(char *text)
{
	size_t len;

	text += strspn(text, " \t\r\n");
	len = strlen(text);
	while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
		text[--len] = '\0';
	return text;
}

static enum status
read_line(
	struct config *config, char *line, const char *where, bool seen[KEY_COUNT], struct err *err)
{
	char *name = trim(line);
	char *equals;
	const struct key *key;

	if (name[0] == '\0' || name[0] == '#')
		return OK;
	equals = strchr(name, '=');
	if (equals == NULL)
		return err_set(err, ERR_ARGUMENT, "config_line", "%s: KEY = VALUE wanted", where);
	*equals = '\0';
	name = trim(name);
	key = find_key(name);
	if (key == NULL)
		return err_set(err, ERR_ARGUMENT, "config_key_unknown",
			"%s: there is no key '%s'; the nearest is '%s'", where, name,
			nearest_key(name));
	if (seen[key - KEYS])
		return err_set(err, ERR_ARGUMENT, "config_key_repeated",
			"%s: %s: is set a second time", where, name);
	seen[key - KEYS] = true;
	return set_value(config, key, where, trim(equals + 1), err);
}

typedef FILE file;
static void
file_close(FILE *stream)
{
	if (stream != NULL)
		(void)fclose(stream);
}
OWNER(file, file_close)

/* Reads a line, as fgets; *whole false: it has a NUL, behind which nothing would be seen. */
static bool
next_line(FILE *stream, char line[LINE_MAX_BYTES], bool *whole)
{
	size_t len = LINE_MAX_BYTES;

	memset(line, 1, LINE_MAX_BYTES);
	if (fgets(line, LINE_MAX_BYTES, stream) == NULL)
		return false;
	while (line[len - 1] != '\0')
		len--; /* ends at the NUL that fgets wrote */
	*whole = strlen(line) == len - 1;
	return true;
}

static enum status
read_file(struct config *config, const char *path, struct err *err)
{
	own(file) stream = fopen(path, "re");
	bool seen[KEY_COUNT] = { false };
	char line[LINE_MAX_BYTES];
	bool whole;

	if (stream == NULL)
		return err_set(err, ERR_ARGUMENT, "config_file", "%s: %s", path, strerror(errno));
	for (unsigned number = 1; next_line(stream, line, &whole); number++) {
		char where[CONFIG_TEXT_BYTES];

		(void)snprintf(where, sizeof(where), "%s:%u", path, number);
		/* What a crash of the machine leaves of a file may be nothing but NULs. */
		if (!whole)
			return err_set(err, ERR_ARGUMENT, "config_line", "%s: a NUL in it", where);
		if (strchr(line, '\n') == NULL && strlen(line) == sizeof(line) - 1)
			return err_set(err, ERR_ARGUMENT, "config_line",
				"%s: a line of over %d octets", where, LINE_MAX_BYTES - 2);
		if (number > LINES_MAX)
			return err_set(err, ERR_ARGUMENT, "config_line", "%s: over %d lines", where,
				LINES_MAX);
		TRY(read_line(config, line, where, seen, err));
	}
	if (ferror(stream))
		return err_set(err, ERR_ARGUMENT, "config_file", "%s: %s", path, strerror(errno));
	return OK;
}

static bool
is_client_variable(const char *name)
{
	for (size_t i = 0; i < COUNT_OF(CLIENT_VARIABLES); i++)
		if (strcmp(CLIENT_VARIABLES[i], name) == 0)
			return true;
	return strncmp(name, "JITRCA_TEST_", strlen("JITRCA_TEST_")) == 0;
}

#define PREFIX "JITRCA_"

static enum status
read_variable(struct config *config, const char *entry, struct err *err)
{
	const char *equals = strchr(entry, '=');
	char variable[NAME_MAX_BYTES + sizeof(PREFIX)];
	char name[NAME_MAX_BYTES + 1];
	const struct key *key;
	size_t len;

	if (equals == NULL || strncmp(entry, PREFIX, strlen(PREFIX)) != 0)
		return OK;
	len = (size_t)(equals - entry);
	if (len >= sizeof(variable))
		return err_set(err, ERR_ARGUMENT, "config_key_unknown",
			"environment: a name of %zu octets", len);
	memcpy(variable, entry, len);
	variable[len] = '\0';
	if (is_client_variable(variable))
		return OK;
	for (len = 0; variable[strlen(PREFIX) + len] != '\0'; len++) {
		char c = variable[strlen(PREFIX) + len];

		/* Keys are lower case, variables upper: a variable in lower case names nothing. */
		name[len] = c >= 'A' && c <= 'Z'   ? (char)(c - 'A' + 'a')
		            : c >= 'a' && c <= 'z' ? '?'
		                                   : c;
	}
	name[len] = '\0';
	key = find_key(name);
	if (key == NULL) {
		char nearest[NAME_MAX_BYTES + 1];

		(void)snprintf(nearest, sizeof(nearest), "%s", nearest_key(name));
		for (char *at = nearest; *at != '\0'; at++)
			if (*at >= 'a' && *at <= 'z')
				*at = (char)(*at - 'a' + 'A');
		return err_set(err, ERR_ARGUMENT, "config_key_unknown",
			"environment: %s names no key; the nearest is " PREFIX "%s", variable,
			nearest);
	}
	return set_value(config, key, variable, equals + 1, err);
}

static bool
same_listener(const struct config_listener *a, const struct config_listener *b)
{
	return a->address[0] != '\0' && a->port == b->port && strcmp(a->address, b->address) == 0;
}

/* What no key alone can say. */
static enum status
check_whole(const struct config *config, struct err *err)
{
	if (config->crl_refresh_s >= config->crl_validity_s)
		return err_set(err, ERR_ARGUMENT, "config_value",
			"crl_refresh: less than crl_validity (%lld s) wanted, %lld s found: a list "
		        "would run out",
			(long long)config->crl_validity_s, (long long)config->crl_refresh_s);
	if (same_listener(&config->https, &config->stations) ||
		same_listener(&config->https, &config->http) ||
		same_listener(&config->stations, &config->http))
		return err_set(err, ERR_ARGUMENT, "config_value",
			"https, stations, http: addresses of their own wanted, two are the same");
	if (config->connections_per_address_max > config->connections_max)
		return err_set(err, ERR_ARGUMENT, "config_value",
			"connections_per_address_max: at most connections_max (%lld) wanted, %lld "
		        "found",
			(long long)config->connections_max,
			(long long)config->connections_per_address_max);
	return OK;
}

enum status
config_load(struct config *out, const char *path, struct err *err)
{
	struct config config;

	memset(&config, 0, sizeof(config));
	for (size_t i = 0; i < KEY_COUNT; i++)
		TRY(set_value(&config, &KEYS[i], "default", KEYS[i].standard, err));
	if (path != NULL)
		TRY(read_file(&config, path, err));
	for (char **entry = environ; *entry != NULL; entry++)
		TRY(read_variable(&config, *entry, err));
	TRY(check_whole(&config, err));
	*out = config;
	return OK;
}

static void
format_number(char *out, size_t size, int64_t number, const struct unit *units, size_t count)
{
	/* The largest unit that divides it; units stand from the largest down. */
	for (size_t i = 0; i < count; i++) {
		if (number != 0 && number % units[i].factor == 0) {
			(void)snprintf(out, size, "%lld%s", (long long)(number / units[i].factor),
				units[i].name);
			return;
		}
	}
	(void)snprintf(out, size, "%lld", (long long)number);
}

static void
format_value(char *out, size_t size, const struct config *config, const struct key *key)
{
	static const struct unit SIZES[] = { { "GiB", 1 << 30 }, { "MiB", 1 << 20 },
		{ "KiB", 1 << 10 } };
	static const struct unit SECONDS[] = { { "d", 86400 }, { "h", 3600 }, { "m", 60 },
		{ "s", 1 } };
	static const struct unit MILLISECONDS[] = { { "d", 86400000 }, { "h", 3600000 },
		{ "m", 60000 }, { "s", 1000 }, { "ms", 1 } };
	static const char *const LEVELS[] = { [LOG_DEBUG] = "debug",
		[LOG_INFO] = "info",
		[LOG_WARN] = "warn",
		[LOG_ERROR] = "error" };
	const void *at = (const uint8_t *)config + key->offset;
	const struct config_listener *listener = at;
	int64_t number = 0;

	switch (key->kind) {
	case KIND_TEXT: (void)snprintf(out, size, "%s", (const char *)at); return;
	case KIND_LISTENER:
		if (listener->address[0] == '\0')
			(void)snprintf(out, size, "off");
		else
			(void)snprintf(out, size,
				strchr(listener->address, ':') != NULL ? "[%s]:%lld" : "%s:%lld",
				listener->address, (long long)listener->port);
		return;
	case KIND_LEVEL:
		(void)snprintf(out, size, "%s", LEVELS[*(const enum log_level *)at]);
		return;
	case KIND_COUNT:
	case KIND_SIZE:
	case KIND_DURATION_S:
	case KIND_DURATION_MS: break;
	}
	memcpy(&number, at, sizeof(number));
	if (key->or_never && number == 0)
		(void)snprintf(out, size, "never");
	else if (key->kind == KIND_SIZE)
		format_number(out, size, number, SIZES, COUNT_OF(SIZES));
	else if (key->kind == KIND_DURATION_S)
		format_number(out, size, number, SECONDS, COUNT_OF(SECONDS));
	else if (key->kind == KIND_DURATION_MS)
		format_number(out, size, number, MILLISECONDS, COUNT_OF(MILLISECONDS));
	else
		(void)snprintf(out, size, "%lld", (long long)number);
}

void
config_print_documented(const struct config *config)
{
	printf("# jitrca.conf: KEY = VALUE lines. What is not set has the default that is shown. "
	       "Each key can be\n"
	       "# overridden in the environment: JITRCA_LOG_LEVEL=debug. Durations: 90s 15m 12h "
	       "365d; sizes: 1MiB.\n");
	for (size_t i = 0; i < KEY_COUNT; i++) {
		const struct key *key = &KEYS[i];
		char value[CONFIG_TEXT_BYTES];
		const char *line = key->about;
		bool changed;

		if (key->section != NULL)
			printf("\n# ---- %s ----\n", key->section);
		printf("\n");
		while (*line != '\0') {
			size_t len = strcspn(line, "\n");

			printf("# %.*s\n", (int)len, line);
			line += len + (line[len] == '\n');
		}
		format_value(value, sizeof(value), config, key);
		changed = strcmp(value, key->standard) != 0;
		if (changed && key->secret)
			(void)snprintf(value, sizeof(value), "(set, not shown)");
		printf("%s%s = %s\n", changed && !key->secret ? "" : "#", key->name, value);
	}
}
