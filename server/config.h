/*
 * server/config.h - the configuration: one table says each key's name, type, default and whether it
 * is secret; reading, checking, printing and the documentation come from it.
 *
 * A file of `key = value` lines with # comments; every key can be overridden by JITRCA_<KEY> in the
 * environment. An unknown key or a bad value is refused with file and line. Secrets are named by file.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

#define CONFIG_TEXT_BYTES 512

struct config_listener {
	char address[64]; /* IPv4 or IPv6; empty: the listener is off */
	int64_t port;
};

struct config {
	char database_url[CONFIG_TEXT_BYTES];
	int64_t database_connections;     /* 8 */
	char data_dir[CONFIG_TEXT_BYTES]; /* keys/, tls/, state; 0700 */
	char profiles_dir[CONFIG_TEXT_BYTES];
	char passphrase_file[CONFIG_TEXT_BYTES]; /* empty: systemd credential jitrca-passphrase, or prompt */
	char public_url[CONFIG_TEXT_BYTES];      /* https://… of the station listener */
	char public_http_url[CONFIG_TEXT_BYTES]; /* http://…: CDP and AIA in certificates */
	char issuing_ca[65];                     /* which CA issues: "issuing-1" */

	struct config_listener https;    /* devices (mutual TLS) and everyone */
	struct config_listener stations; /* stations and administrators: a listener of their own */
	struct config_listener http;     /* plain: CRL, CA certificates, health */
	/* comma-separated DNS names and addresses of the TLS certificate */
	char server_names[CONFIG_TEXT_BYTES];
	/* comma-separated cert.pem:key.pem pairs chosen by SNI; empty: own CA */
	char tls_certificates[CONFIG_TEXT_BYTES];

	int64_t connections_max;             /* per listener */
	int64_t connections_per_address_max;
	int64_t first_request_timeout_ms;    /* from accept to the first complete request */
	int64_t idle_timeout_ms;
	int64_t http_threads;                /* per listener, at most; 0: by connections_max */
	int64_t worker_threads;              /* 0: the number of processors */
	int64_t body_max_bytes;              /* single requests */
	int64_t upload_max_bytes;            /* manifests */
	int64_t shutdown_timeout_ms;

	int64_t crl_validity_s;              /* nextUpdate - thisUpdate */
	int64_t crl_refresh_s;               /* published anew at the latest so long after thisUpdate */
	int64_t crl_delta_validity_s;        /* of a delta; anew after half of it */
	int64_t crl_debounce_ms;             /* 200 */
	int64_t crl_full_immediate_max_bytes; /* 1 MiB: above, the full list goes by crl_refresh_s */
	int64_t ocsp_validity_s;             /* nextUpdate - thisUpdate of an OCSP answer */
	int64_t ocsp_cache_bytes;            /* of signed answers in memory */
	int64_t revocation_approval_over;    /* certificates; 0: never */
	int64_t revocation_approval_within_s;
	int64_t receipt_followers_max;
	int64_t idempotency_retention_s;     /* 90 days */
	int64_t event_retention_s;           /* 400 days */
	int64_t notification_retention_s;    /* 30 days */
	int64_t certificate_retention_s;     /* 0: never dropped */
	int64_t audit_retention_s;           /* 0: never dropped */
	int64_t receipt_retention_s;         /* 0: never dropped */
	int64_t token_validity_max_s;
	int64_t plan_every_s;                /* 7 days; 0: none by schedule */
	int64_t plan_threshold_s;            /* 30 days */
	int64_t report_every_s;              /* 30 days; 0: none by schedule */
	int64_t report_ca_expiring_s;        /* 180 days */
	int64_t report_unconfirmed_after_s;  /* 7 days */
	int64_t report_retention_s;          /* 3 650 days */

	int64_t audit_checkpoint_interval_s; /* 1 h */
	char audit_checkpoint_dir[CONFIG_TEXT_BYTES]; /* empty: they stay in the database alone */

	char iot_targets_file[CONFIG_TEXT_BYTES]; /* JSON; empty: no IoT Core */
	char notify_file[CONFIG_TEXT_BYTES];      /* JSON; empty: nobody is notified */

	/* the local IoT Core, a process of its own: `jitrca iotcore` */
	struct config_listener iotcore;
	char iotcore_tls_certificates[CONFIG_TEXT_BYTES]; /* as above; empty: plain HTTP */
	char iotcore_account[13];                         /* twelve digits */
	char iotcore_region[64];
	char iotcore_endpoint[256];                       /* HOST[:PORT] of the broker */
	char iotcore_credentials_file[CONFIG_TEXT_BYTES];
	char iotcore_quotas_file[CONFIG_TEXT_BYTES];      /* empty: none */
	char iotcore_rules_ca_file[CONFIG_TEXT_BYTES];    /* empty: the system's */
	char iotcore_rules_insecure_http[16];             /* no, loopback */

	char user_signer[65], user_frontend[65]; /* when started as root; empty: stay */
	enum log_level log_level;
};

/*
 * path NULL: environment and defaults alone. Fills *out whole. ERR_ARGUMENT config_*: file:line: key:
 * rule.
 */
MUST_USE enum status config_load(struct config *out, const char *path, struct err *err);
/* The commented file with every key, its meaning, unit and default, to stdout. */
void config_print_documented(const struct config *config);

#endif
