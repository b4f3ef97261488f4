/* The table of the administrator's subcommands. */
#include "server/cli/cli.h"

#include "base/attr.h"
#include "server/cli/admin.h"
#include "server/cli/notify.h"

#define PATH(n, a) { .name = (n), .where = ADMIN_PATH, .required = true, .about = (a) }
#define TEXT(n, v, a) { .name = (n), .where = ADMIN_TEXT, .value = (v), .about = (a) }
#define WANTED(n, v, a) { .name = (n), .where = ADMIN_TEXT, .required = true, .value = (v), .about = (a) }
#define INT(n, a) { .name = (n), .where = ADMIN_INT, .value = "N", .about = (a) }
#define FLAG(n, a) { .name = (n), .where = ADMIN_FLAG, .about = (a) }
#define LIST(n, v, a) { .name = (n), .where = ADMIN_LIST, .value = (v), .about = (a) }
#define QUERY(n, v, a) { .name = (n), .where = ADMIN_QUERY, .value = (v), .about = (a) }
#define SELECT(n, v, a) { .name = (n), .where = ADMIN_SELECTOR, .value = (v), .about = (a) }
#define SELECT_AS(n, w, v, k, a) { .name = (n), .where = (w), .value = (v), .key = (k), .about = (a) }
#define FOLLOW                                                                                     \
	{ .name = "follow", .where = ADMIN_FOLLOW, .about = "wait until it has taken effect everywhere" }
#define PAGES QUERY("limit", "N", "rows a page, at most 1000"), QUERY("cursor", "TEXT", "where to go on")

#define SUCCESSION_STEP(n, a, state)                                                               \
	{ .name = "succession " n, .summary = (a), .method = "POST",                               \
	  .path = "/v1/cas/{id}/succession", .constant = { "to", (state) },                        \
	  .fields = { PATH("id", "either CA's id") } }

static const struct admin_verb CA_VERBS[] = {
	{ .name = "list", .summary = "the certificate authorities", .method = "GET", .path = "/v1/cas",
	  .list = "cas", .columns = "id issuing can_sign not_after subject" },
	{ .name = "show", .summary = "one of them", .method = "GET", .path = "/v1/cas/{id}",
	  .fields = { PATH("id", "its id") } },
	{ .name = "succession start", .summary = "let a CA made by `jitrca init --successor` stand beside it",
	  .method = "POST", .path = "/v1/cas/{id}/successor",
	  .fields = { PATH("id", "the CA that issues"), WANTED("successor", "ID", "the one to follow it") } },
	{ .name = "succession status", .summary = "where it stands, and what is next", .method = "GET",
	  .path = "/v1/cas/{id}/succession", .fields = { PATH("id", "either CA's id") } },
	SUCCESSION_STEP("register", "the successor into IoT Core", "registered"),
	SUCCESSION_STEP("issue", "from now on by the successor", "issuing"),
	{ .name = "succession campaign", .summary = "have the old CA's devices rotate", .method = "POST",
	  .path = "/v1/cas/{id}/succession", .constant = { "to", "campaign" },
	  .fields = { PATH("id", "either CA's id"),
		  TEXT("campaign_id", "ID", "one that was begun for it by hand") } },
	SUCCESSION_STEP("retire", "the old CA's auto-registration off", "retiring"),
	SUCCESSION_STEP("finish", "the old CA inactive; this cannot be undone", "retired"),
	{ .name = "succession back", .summary = "undo the last step", .method = "POST",
	  .path = "/v1/cas/{id}/succession",
	  .fields = { PATH("id", "either CA's id"),
		  WANTED("to", "STATE", "as `succession status` says it") } },
	{ .name = NULL },
};

static const struct admin_verb CERT_VERBS[] = {
	{ .name = "list", .summary = "search certificates", .method = "GET", .path = "/v1/certificates",
	  .list = "certificates",
	  .columns = "certificate_id device_id profile status not_after station",
	  .fields = { QUERY("device_id", "ID", "of this device"),
		  QUERY("station", "ID", "issued for this station"),
		  QUERY("manifest", "ID", "issued on this manifest"),
		  QUERY("profile", "NAME", "of this profile"), QUERY("ca", "ID", "of this CA"),
		  QUERY("status", "STATUS",
			  "active, pending_confirmation, superseded, held, revoked, expired"),
		  QUERY("issued_after", "TIME", "RFC 3339"), QUERY("issued_before", "TIME", "RFC 3339"),
		  QUERY("expires_after", "TIME", "RFC 3339"),
		  QUERY("expires_before", "TIME", "RFC 3339"), PAGES } },
	{ .name = "show", .summary = "one, by certificate id or serial", .method = "GET",
	  .path = "/v1/certificates/{id}", .save_pem = true,
	  .fields = { PATH("id", "its certificate id or serial") } },
	{ .name = "issue", .summary = "have a CSR signed", .method = "POST", .path = "/v1/certificates",
	  .save_pem = true,
	  .fields = { { .name = "csr", .where = ADMIN_FILE, .required = true, .value = "FILE",
			.about = "the request, PEM" },
		  WANTED("device_id", "ID", "whose certificate it is"),
		  TEXT("profile", "NAME", "device unless said"),
		  TEXT("thing_type", "NAME", "of IoT Core"),
		  { .name = "attribute", .where = ADMIN_PAIR, .value = "NAME=VALUE", .key = "attributes",
		    .about = "may be repeated" },
		  INT("validity_hours", "the profile's default unless said"),
		  FLAG("replace", "revoke the device's live certificate (reason superseded)"),
		  { .name = "idempotency_key", .where = ADMIN_HEADER, .value = "KEY",
		    .key = "Idempotency-Key", .about = "the same key gives the same certificate" } } },
	{ .name = "revoke", .summary = "revoke or hold one", .method = "POST",
	  .path = "/v1/certificates/{id}/revoke",
	  .fields = { PATH("id", "its certificate id or serial"),
		  WANTED("reason", "REASON", "keyCompromise, superseded, certificateHold, … (RFC 5280)"),
		  TEXT("comment", "TEXT", "for the audit log"), FOLLOW } },
	{ .name = "unhold", .summary = "lift a hold", .method = "POST",
	  .path = "/v1/certificates/{id}/unhold",
	  .fields = { PATH("id", "its certificate id or serial") } },
	{ .name = NULL },
};

static const struct admin_verb DEVICE_VERBS[] = {
	{ .name = "list", .summary = "the fleet", .method = "GET", .path = "/v1/devices",
	  .list = "devices", .columns = "device_id status thing_type current.serial created_at reason",
	  .fields = { QUERY("status", "STATUS", "active, quarantined, decommissioned"),
		  QUERY("thing_type", "NAME", "of this type"),
		  QUERY("late", "true", "past their rotation window, the latest first"), PAGES } },
	{ .name = "show", .summary = "one with its certificates", .method = "GET",
	  .path = "/v1/devices/{id}", .fields = { PATH("id", "its id") } },
	{ .name = "quarantine", .summary = "let it do nothing but be released", .method = "POST",
	  .path = "/v1/devices/{id}/quarantine",
	  .fields = { PATH("id", "its id"), TEXT("reason", "TEXT", "why") } },
	{ .name = "release", .summary = "end its quarantine", .method = "POST",
	  .path = "/v1/devices/{id}/release",
	  .fields = { PATH("id", "its id"), TEXT("reason", "TEXT", "why") } },
	{ .name = "claim-code", .summary = "let it come back once, its certificate having run out",
	  .method = "POST", .path = "/v1/devices/{id}/claim-codes",
	  .fields = { PATH("id", "its id"),
		  WANTED("spki_sha256", "HEX", "of its new public key (SubjectPublicKeyInfo, DER)"),
		  INT("valid_for_s", "a day unless said") } },
	{ .name = "decommission", .summary = "end its life: all its certificates are revoked",
	  .method = "POST", .path = "/v1/devices/{id}/decommission",
	  .fields = { PATH("id", "its id"), TEXT("reason", "TEXT", "why") } },
	{ .name = NULL },
};

static const struct admin_verb PRINCIPAL_VERBS[] = {
	{ .name = "list", .summary = "administrators, operators, auditors", .method = "GET",
	  .path = "/v1/principals", .list = "principals",
	  .columns = "id role created_at disabled_at description",
	  .fields = { QUERY("role", "ROLE", "admin, operator, auditor"), PAGES } },
	{ .name = "create", .summary = "make one", .method = "POST", .path = "/v1/principals",
	  .fields = { WANTED("id", "ID", "its id, never used again"),
		  WANTED("role", "ROLE", "admin, operator (reads), auditor (reads, and the audit log)"),
		  TEXT("description", "TEXT", "for people") } },
	{ .name = "disable", .summary = "refuse it from now on", .method = "POST",
	  .path = "/v1/principals/{id}/disable", .fields = { PATH("id", "its id") } },
	{ .name = "enable", .summary = "let it in again", .method = "POST",
	  .path = "/v1/principals/{id}/enable", .fields = { PATH("id", "its id") } },
	{ .name = NULL },
};

static const struct admin_verb STATION_VERBS[] = {
	{ .name = "list", .summary = "the provisioning stations", .method = "GET", .path = "/v1/stations",
	  .list = "stations", .columns = "id profiles rate_per_minute created_at disabled_at description",
	  .fields = { PAGES } },
	{ .name = "create", .summary = "make one", .method = "POST", .path = "/v1/stations",
	  .fields = { WANTED("id", "ID", "its id, never used again"),
		  LIST("profiles", "A,B", "what it may ask for; device unless said"),
		  INT("rate_per_minute", "certificates a minute; 600 unless said"),
		  TEXT("description", "TEXT", "for people") } },
	{ .name = "show", .summary = "one of them", .method = "GET", .path = "/v1/stations/{id}",
	  .fields = { PATH("id", "its id") } },
	{ .name = "update", .summary = "change its profiles or rate", .method = "PATCH",
	  .path = "/v1/stations/{id}",
	  .fields = { PATH("id", "its id"), LIST("profiles", "A,B", "what it may ask for"),
		  INT("rate_per_minute", "certificates a minute") } },
	{ .name = "disable", .summary = "refuse it from now on", .method = "POST",
	  .path = "/v1/stations/{id}/disable", .fields = { PATH("id", "its id") } },
	{ .name = "enable", .summary = "let it in again", .method = "POST",
	  .path = "/v1/stations/{id}/enable", .fields = { PATH("id", "its id") } },
	{ .name = NULL },
};

/* {kind}s: principals or stations. */
#define OWNER_OF PATH("kind", "principal or station"), PATH("id", "its id")

static const struct admin_verb TOKEN_VERBS[] = {
	{ .name = "create", .summary = "make one; it is shown once", .method = "POST",
	  .path = "/v1/{kind}s/{id}/tokens",
	  .fields = { OWNER_OF, TEXT("description", "TEXT", "for people"),
		  TEXT("valid_for", "DURATION", "90d, 12h, …"),
		  TEXT("expires_at", "TIME", "RFC 3339, instead") } },
	{ .name = "list", .summary = "those of a principal or station", .method = "GET",
	  .path = "/v1/{kind}s/{id}/tokens", .list = "tokens",
	  .columns = "token_id created_at expires_at revoked_at description",
	  .fields = { OWNER_OF, PAGES } },
	{ .name = "revoke", .summary = "end one", .method = "DELETE",
	  .path = "/v1/{kind}s/{id}/tokens/{token_id}",
	  .fields = { OWNER_OF, PATH("token_id", "the token's id") } },
	{ .name = NULL },
};

static const struct admin_verb MANIFEST_VERBS[] = {
	{ .name = "create", .summary = "make a work order for a station", .method = "POST",
	  .path = "/v1/manifests",
	  .fields = { WANTED("id", "ID", "its id"), WANTED("station", "ID", "who may use it"),
		  TEXT("profile", "NAME", "device unless said"),
		  { .name = "quantity", .where = ADMIN_INT, .required = true, .value = "N",
		    .about = "how many devices at most" },
		  FLAG("allow_replace", "rework may replace a live certificate"),
		  TEXT("not_before", "TIME", "now unless said"),
		  TEXT("not_after", "TIME", "a year later unless said"),
		  LIST("device_ids", "A,B", "a few ids; more by `manifest add`") } },
	{ .name = "add", .summary = "allow the device ids of a file (.csv, .json, .ndjson; - reads CSV)",
	  .method = "PUT", .path = "/v1/manifests/{id}/devices",
	  .fields = { PATH("id", "its id"),
		  { .name = "file", .where = ADMIN_UPLOAD, .required = true,
		    .about = "one id a line, or a JSON array" } } },
	{ .name = "list", .summary = "the work orders", .method = "GET", .path = "/v1/manifests",
	  .list = "manifests",
	  .columns = "id station profile quantity used line_count not_after closed_at",
	  .fields = { QUERY("station", "ID", "of this station"), PAGES } },
	{ .name = "show", .summary = "one of them", .method = "GET", .path = "/v1/manifests/{id}",
	  .fields = { PATH("id", "its id") } },
	{ .name = "close", .summary = "allow nothing more on it", .method = "POST",
	  .path = "/v1/manifests/{id}/close", .fields = { PATH("id", "its id") } },
	{ .name = "export", .summary = "what was issued on it, as CSV", .method = "GET",
	  .path = "/v1/manifests/{id}/export", .download = true,
	  .fields = { PATH("id", "its id"),
		  QUERY("issued", "true", "only lines with a certificate") } },
	{ .name = NULL },
};

static const struct admin_verb REVOCATION_VERBS[] = {
	{ .name = "create", .summary = "revoke all that a selector names; try --dry-run first",
	  .method = "POST", .path = "/v1/revocations",
	  .fields = { WANTED("reason", "REASON", "keyCompromise, superseded, … (RFC 5280)"),
		  SELECT("station", "ID", "issued for this station"),
		  SELECT("device_id", "ID", "of this device"),
		  SELECT("manifest", "ID", "issued on this manifest"),
		  SELECT("profile", "NAME", "of this profile"), SELECT("ca", "ID", "of this CA"),
		  SELECT("issued_after", "TIME", "RFC 3339"),
		  SELECT("issued_before", "TIME", "RFC 3339"),
		  SELECT("expires_after", "TIME", "RFC 3339"),
		  SELECT("expires_before", "TIME", "RFC 3339"),
		  SELECT_AS("device_ids", ADMIN_SELECTOR_LIST, "A,B", NULL, "of these devices"),
		  SELECT("spki_sha256", "HEX", "of this public key"),
		  SELECT_AS("attribute", ADMIN_SELECTOR_PAIR, "NAME=VALUE", "attributes",
			  "of devices that have it; may be repeated"),
		  SELECT_AS("everything", ADMIN_SELECTOR_FLAG, NULL, "all",
			  "it may mean every device there is"),
		  TEXT("comment", "TEXT", "for the audit log"),
		  FLAG("dry_run", "only say whom it would cut off"), FOLLOW } },
	{ .name = "list", .summary = "the newest first", .method = "GET", .path = "/v1/revocations",
	  .list = "revocations",
	  .columns = "revocation_id state reason matched revoked actor created_at finished_at comment",
	  .fields = { QUERY("state", "STATE", "waiting, running, done, rejected, expired"), PAGES } },
	{ .name = "show", .summary = "its receipt", .method = "GET", .path = "/v1/revocations/{id}",
	  .fields = { PATH("id", "its id") } },
	{ .name = "follow", .summary = "its receipt, once it has taken effect everywhere", .follow = true,
	  .method = "GET", .path = "/v1/revocations/{id}", .fields = { PATH("id", "its id") } },
	{ .name = "certificates", .summary = "what became of each, and which list shows it",
	  .method = "GET", .path = "/v1/revocations/{id}/certificates", .list = "certificates",
	  .columns = "serial device_id outcome done_at crl.path crl.number crl.sha256",
	  .fields = { PATH("id", "its id"), PAGES } },
	{ .name = "approve", .summary = "let one go on that another administrator asked for",
	  .method = "POST", .path = "/v1/revocations/{id}/approve",
	  .fields = { PATH("id", "its id"), TEXT("comment", "TEXT", "for the audit log"), FOLLOW } },
	{ .name = "reject", .summary = "let it be, or take back one's own", .method = "POST",
	  .path = "/v1/revocations/{id}/reject",
	  .fields = { PATH("id", "its id"), TEXT("comment", "TEXT", "for the audit log") } },
	{ .name = NULL },
};

/* What is only read of a revocation, under the name that an administrator has for it. */
static const struct admin_verb RECEIPT_VERBS[] = {
	{ .name = "list", .summary = "the newest first", .method = "GET", .path = "/v1/revocations",
	  .list = "revocations",
	  .columns = "revocation_id state reason matched revoked actor created_at finished_at comment",
	  .fields = { QUERY("state", "STATE", "waiting, running, done, rejected, expired"), PAGES } },
	{ .name = "show", .summary = "how far it has got", .method = "GET", .path = "/v1/revocations/{id}",
	  .fields = { PATH("id", "its revocation_id") } },
	{ .name = "follow", .summary = "wait until it has taken effect everywhere", .follow = true,
	  .method = "GET", .path = "/v1/revocations/{id}", .fields = { PATH("id", "its revocation_id") } },
	{ .name = NULL },
};

static const struct admin_verb BLOCKED_KEY_VERBS[] = {
	{ .name = "load", .summary = "block the keys of a file: SHA-256 of the SPKI in hex, one a line",
	  .method = "POST", .path = "/v1/blocked-keys", .upload_type = "text/plain",
	  .fields = { { .name = "reason", .where = ADMIN_QUERY, .required = true, .value = "TEXT",
			.about = "why" },
		  { .name = "file", .where = ADMIN_UPLOAD, .required = true, .about = "- is stdin" } } },
	{ .name = "list", .summary = "what was loaded", .method = "GET", .path = "/v1/blocked-keys",
	  .list = "blocked_keys", .columns = "spki_sha256 identity actor blocked_at reason",
	  .fields = { PAGES } },
	{ .name = "show", .summary = "one that is blocked, for whatever reason", .method = "GET",
	  .path = "/v1/blocked-keys/{spki_sha256}",
	  .fields = { PATH("spki_sha256", "SHA-256 of its SPKI") } },
	{ .name = "remove", .summary = "take one off the list", .method = "POST",
	  .path = "/v1/blocked-keys/{spki_sha256}/remove",
	  .fields = { PATH("spki_sha256", "SHA-256 of its SPKI"), WANTED("reason", "TEXT", "why") } },
	{ .name = NULL },
};

static const struct admin_verb CAMPAIGN_VERBS[] = {
	{ .name = "create", .summary = "have a part of the fleet rotate; try --dry-run first",
	  .method = "POST", .path = "/v1/campaigns",
	  .fields = { SELECT("profile", "NAME", "of this profile"), SELECT("ca", "ID", "of this CA"),
		  SELECT("station", "ID", "issued for this station"),
		  SELECT("manifest", "ID", "issued on this manifest"),
		  SELECT("thing_type", "NAME", "of this thing type"),
		  SELECT("key_type", "TYPE", "ec-p256, rsa-2048, …"),
		  SELECT("issued_before", "TIME", "RFC 3339"),
		  SELECT("expires_before", "TIME", "RFC 3339"),
		  INT("pace_per_hour", "devices; what the quotas allow unless said"),
		  TEXT("comment", "TEXT", "for the audit log"),
		  FLAG("dry_run", "only say whom it would ask, and until when") } },
	{ .name = "list", .summary = "all campaigns", .method = "GET", .path = "/v1/campaigns",
	  .list = "campaigns",
	  .columns = "campaign_id state members asked stage waits_for created_at why",
	  .fields = { PAGES } },
	{ .name = "show", .summary = "one with its progress", .method = "GET",
	  .path = "/v1/campaigns/{id}", .fields = { PATH("id", "its id") } },
	{ .name = "members", .summary = "its devices, in the order in which they are asked",
	  .method = "GET", .path = "/v1/campaigns/{id}/members", .list = "members",
	  .columns = "device_id state asked successor_at serial",
	  .fields = { PATH("id", "its id"),
		  QUERY("state", "STATE", "waiting, pending, late, failed, confirmed, gone"), PAGES } },
	{ .name = "pause", .summary = "ask nobody for now", .method = "POST",
	  .path = "/v1/campaigns/{id}/pause",
	  .fields = { PATH("id", "its id"), TEXT("reason", "TEXT", "why") } },
	{ .name = "resume", .summary = "go on; after a halt with another canary", .method = "POST",
	  .path = "/v1/campaigns/{id}/resume",
	  .fields = { PATH("id", "its id"), TEXT("reason", "TEXT", "why") } },
	{ .name = "abort", .summary = "end it", .method = "POST", .path = "/v1/campaigns/{id}/abort",
	  .fields = { PATH("id", "its id"), TEXT("reason", "TEXT", "why") } },
	{ .name = NULL },
};

static const struct admin_verb PLAN_VERBS[] = {
	{ .name = "create", .summary = "make one now", .method = "POST", .path = "/v1/plans",
	  .fields = { INT("threshold_days", "what expires within; plan_threshold unless said") } },
	{ .name = "list", .summary = "those that are kept, the newest first", .method = "GET",
	  .path = "/v1/plans", .list = "plans",
	  .columns = "plan_id created_at actor threshold_days expiring late", .fields = { PAGES } },
	{ .name = "show", .summary = "one: what expires when, and who is late", .method = "GET",
	  .path = "/v1/plans/{id}", .fields = { PATH("id", "its id") } },
	{ .name = NULL },
};

static const struct admin_verb REPORT_VERBS[] = {
	{ .name = "make", .summary = "have one made now", .method = "POST", .path = "/v1/reports" },
	{ .name = "list", .summary = "those that are kept, the newest first", .method = "GET",
	  .path = "/v1/reports", .list = "reports",
	  .columns = "report_id state created_at actor certificates findings worst_severity sha256",
	  .fields = { PAGES } },
	{ .name = "show", .summary = "one: inventory, expiries, findings, the audit log's state",
	  .method = "GET", .path = "/v1/reports/{id}", .download = true,
	  .fields = { PATH("id", "its id"), QUERY("format", "FORMAT", "json, csv, html") } },
	{ .name = NULL },
};

static const struct admin_verb NOTIFY_VERBS[] = {
	{ .name = "channels", .summary = "who is told, and what waits for them", .method = "GET",
	  .path = "/v1/notifications/channels", .list = "channels",
	  .columns = "channel type waiting oldest_waiting_s dead suppressed" },
	{ .name = "list", .summary = "what was sent and what was not, the newest first", .method = "GET",
	  .path = "/v1/notifications", .list = "notifications",
	  .columns = "notification_id channel kind severity state attempts created_at error.code",
	  .fields = { QUERY("state", "STATE", "waiting, sent, dead"),
		  QUERY("channel", "NAME", "to this channel"), PAGES } },
	{ .name = "show", .summary = "one with its message and last error", .method = "GET",
	  .path = "/v1/notifications/{id}", .fields = { PATH("id", "its id") } },
	{ .name = "retry", .summary = "let dead letters live again, all unless said", .method = "POST",
	  .path = "/v1/notifications/retry",
	  .fields = { TEXT("notification_id", "ID", "this one, also if it only waits"),
		  TEXT("channel", "NAME", "those of this channel") } },
	/* Shown in the help; server/cli/notify.c runs it. */
	{ .name = "test", .summary = "send a test message to CHANNEL and wait", .method = "POST",
	  .path = "/v1/notifications/test",
	  .fields = { WANTED("channel", "NAME", "one of notify_file") } },
	{ .name = NULL },
};

static const struct admin_verb AUDIT_VERBS[] = {
	{ .name = "list", .summary = "who did what, oldest first", .method = "GET", .path = "/v1/audit",
	  .list = "records", .columns = "at actor action lane seq detail.request_id",
	  .fields = { QUERY("actor", "ID", "by whom"),
		  QUERY("action", "ACTION", "certificate.issue, station.create, …"),
		  QUERY("object", "OBJECT", "about what: device:d-1, station:s-1, certificate:…"),
		  QUERY("since", "TIME", "RFC 3339"), QUERY("until", "TIME", "RFC 3339"),
		  QUERY("items", "true", "with what each record is about (--json)"), PAGES } },
	{ .name = "verify", .summary = "hold the log against its own chain (--offline EXPORT: an export "
	  "against checkpoints)", .method = "GET", .path = "/v1/audit/verify", .must = "ok" },
	{ .name = "checkpoint", .summary = "sign one now, unless nothing is new", .method = "POST",
	  .path = "/v1/audit/checkpoints" },
	{ .name = "checkpoints", .summary = "those that were signed, oldest first", .method = "GET",
	  .path = "/v1/audit/checkpoints", .list = "checkpoints", .columns = "number at records",
	  .fields = { PAGES } },
	{ .name = "key", .summary = "the public key of checkpoints, PEM", .method = "GET",
	  .path = "/v1/audit/key", .download = true },
	{ .name = "notes", .summary = "all checkpoints as they were signed", .method = "GET",
	  .path = "/v1/audit/checkpoints/notes", .download = true },
	{ .name = "export", .summary = "all records as they were hashed, a line of JSON each",
	  .method = "GET", .path = "/v1/audit/export", .download = true },
	{ .name = "prove", .summary = "that a certificate's record is in a checkpoint; `jitrca audit "
	  "check-proof` verifies it", .method = "GET", .path = "/v1/audit/proof?certificate_id={id}",
	  .download = true,
	  .fields = { PATH("id", "its certificate id"),
		  QUERY("action", "ACTION",
			  "certificate.revoke, …; unless said, the first: its issuance") } },
	{ .name = NULL },
};

static const struct admin_verb IOT_VERBS[] = {
	{ .name = "register-ca", .summary = "register a CA with IoT Core, active, or switch it on again",
	  .method = "POST", .path = "/v1/cas/{id}/iot-registration",
	  .fields = { PATH("id", "the CA's id"), TEXT("target", "NAME", "if there are several") } },
	{ .name = "status", .summary = "targets, CAs, outbox", .method = "GET", .path = "/v1/iot/status" },
	{ .name = "outbox", .summary = "what is still on its way", .method = "GET",
	  .path = "/v1/iot/outbox", .list = "rows",
	  .columns = "key state cause priority attempts due_at error.code error.text",
	  .fields = { QUERY("dead", "true", "only what waits for retry"), PAGES } },
	{ .name = "retry", .summary = "let dead letters live again", .method = "POST",
	  .path = "/v1/iot/outbox/retry",
	  .fields = { TEXT("key", "KEY", "this one; all unless said") } },
	{ .name = "reconcile", .summary = "compare all certificates of our CAs", .method = "POST",
	  .path = "/v1/iot/reconcile", .list = "walks",
	  .columns = "target ca state seen drift started_at",
	  .fields = { TEXT("target", "NAME", "this one; all unless said"),
		  FLAG("repair", "bring IoT Core to what the database says") } },
	{ .name = "reconciled", .summary = "what the last comparison found", .method = "GET",
	  .path = "/v1/iot/reconcile", .list = "walks",
	  .columns = "target ca state seen drift repair started_at finished_at" },
	{ .name = "deactivate-ca", .summary = "let no new device in by a CA", .method = "POST",
	  .path = "/v1/cas/{id}/iot-registration/deactivate",
	  .fields = { PATH("id", "the CA's id"), TEXT("target", "NAME", "if there are several") } },
	{ .name = "delete-ca", .summary = "deactivate and delete it there", .method = "DELETE",
	  .path = "/v1/cas/{id}/iot-registration",
	  .fields = { PATH("id", "the CA's id"), QUERY("target", "NAME", "if there are several") } },
	{ .name = NULL },
};

static const struct admin_verb EVENT_VERBS[] = {
	{ .name = "list", .summary = "security events, newest first", .method = "GET",
	  .path = "/v1/events", .list = "events",
	  .columns = "at severity kind device_id certificate_id target",
	  .fields = { QUERY("kind", "KIND", "iot_unknown_certificate, …"),
		  QUERY("severity", "SEVERITY", "info, low, medium, high, critical"),
		  QUERY("device_id", "ID", "about this device"), QUERY("since", "TIME", "RFC 3339"),
		  PAGES } },
	{ .name = NULL },
};

static const struct admin_verb RETENTION_VERBS[] = {
	{ .name = "preview", .summary = "what would be dropped by now, as configured or as asked for",
	  .method = "GET", .path = "/v1/retention",
	  .fields = { QUERY("certificates", "DURATION", "as if certificate_retention were that: 400d"),
		  QUERY("audit", "DURATION", "as if audit_retention were that"),
		  QUERY("receipts", "DURATION", "as if receipt_retention were that") } },
	{ .name = NULL },
};

const struct admin_group ADMIN_GROUPS[] = {
	{ "ca", "certificate authorities", CA_VERBS },
	{ "cert", "certificates: search, issue, revoke", CERT_VERBS },
	{ "device", "devices: quarantine, release, decommission", DEVICE_VERBS },
	{ "principal", "administrators, operators, auditors", PRINCIPAL_VERBS },
	{ "station", "provisioning stations", STATION_VERBS },
	{ "token", "bearer tokens of principals and stations", TOKEN_VERBS },
	{ "manifest", "work orders: who may have a certificate", MANIFEST_VERBS },
	{ "revocation", "bulk revocation by selector", REVOCATION_VERBS },
	{ "receipt", "what became of a revocation, and its proof", RECEIPT_VERBS },
	{ "blocked-key", "public keys that are never certified", BLOCKED_KEY_VERBS },
	{ "campaign", "mass rotation in waves", CAMPAIGN_VERBS },
	{ "plan", "rotation plans: what expires when", PLAN_VERBS },
	{ "report", "compliance reports", REPORT_VERBS },
	{ "iot", "AWS IoT Core: CAs, outbox, reconciliation", IOT_VERBS },
	{ "event", "security events", EVENT_VERBS },
	{ "notify", "notifications: channels, deliveries, tests", NOTIFY_VERBS },
	{ "audit", "the audit log", AUDIT_VERBS },
	{ "retention", "what is let go when it grows old", RETENTION_VERBS },
	{ NULL, NULL, NULL },
};

static int
run(int argc, char **argv)
{
	return admin_main(argv[0], argc, argv);
}

const struct cli_command CLI_ADMIN_COMMANDS[] = {
	{ "ca", "certificate authorities", run },
	{ "cert", "certificates: search, issue, revoke", run },
	{ "device", "devices: quarantine, release, decommission", run },
	{ "principal", "administrators, operators, auditors", run },
	{ "station", "provisioning stations", run },
	{ "token", "bearer tokens of principals and stations", run },
	{ "manifest", "work orders: who may have a certificate", run },
	{ "revocation", "bulk revocation by selector", run },
	{ "receipt", "what became of a revocation, and its proof", run },
	{ "blocked-key", "public keys that are never certified", run },
	{ "campaign", "mass rotation in waves", run },
	{ "plan", "rotation plans: what expires when", run },
	{ "report", "compliance reports", run },
	{ "iot", "AWS IoT Core: CAs, outbox, reconciliation", run },
	{ "event", "security events", run },
	{ "notify", "notifications: channels, deliveries, tests", notify_cli_main },
	{ "audit", "the audit log: search, checkpoints, proofs", cli_audit },
	{ "retention", "what is let go when it grows old", run },
	{ NULL, NULL, NULL },
};
