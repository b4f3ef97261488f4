/*
 * A report as a page for people and paper: whole in itself, without script, and sent under a policy that lets
 * nothing run or load but its own style, by its hash. Every text is escaped, ours as well.
 */
#include <stdio.h>
#include <string.h>

#include "ca/digest.h"
#include "server/http/request.h"
#include "server/report/internal.h"

#define OUT_MAX_BYTES ((size_t)64 << 20)
#define HASH_TEXT_BYTES 45 /* base64 of 32 octets and NUL */

static const char STYLE[] =
	":root{color-scheme:light}"
	"body{font:13px/1.45 system-ui,\"Segoe UI\",Roboto,\"Liberation Sans\",sans-serif;color:#1a1f26;"
	"background:#fff;margin:2rem auto;max-width:68rem;padding:0 1.5rem}"
	"h1{font-size:1.6rem;margin:0 0 .2rem}h2{font-size:1.1rem;margin:2rem 0 .5rem;padding-bottom:.2rem;"
	"border-bottom:2px solid #23415f;color:#23415f}h3{font-size:1rem;margin:1.2rem 0 .2rem}"
	"p{margin:.2rem 0 .6rem}code{font-family:ui-monospace,\"Liberation Mono\",monospace;font-size:.92em;"
	"overflow-wrap:anywhere}"
	"table{border-collapse:collapse;width:100%;margin:.4rem 0 1rem;font-variant-numeric:tabular-nums}"
	"caption{text-align:left;font-weight:600;color:#475362;padding:.2rem 0}"
	"th,td{text-align:left;vertical-align:top;padding:.22rem .5rem;border-bottom:1px solid #dde3ea;"
	"overflow-wrap:anywhere}"
	"thead th{background:#eef2f6;border-bottom:1px solid #9fb0c2;white-space:nowrap}"
	"tbody th{font-weight:400}"
	".n{text-align:right;white-space:nowrap}.s{font-weight:600;text-transform:uppercase;font-size:.85em;"
	"letter-spacing:.03em}.critical,.high{color:#a3121f}.medium{color:#8a4b00}.low,.info{color:#35526f}"
	".none{color:#2f6b3a}.cliff{font-weight:600;color:#8a4b00}"
	"dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.5rem 0 1rem}"
	"dt{color:#475362}dd{margin:0}"
	"footer{margin-top:2rem;border-top:1px solid #dde3ea;padding-top:.5rem;color:#475362}"
	"@page{size:A4;margin:16mm 14mm}"
	"@media print{body{margin:0;max-width:none;padding:0;font-size:9.5pt}h2,h3,caption{break-after:avoid}"
	"tr{break-inside:avoid}thead{display:table-header-group}section.page{break-before:page}}";

struct page {
	struct buf buf;
	enum status status; /* OK until something fails */
	struct err err;
};

static void
raw(struct page *page, const char *text)
{
	if (page->status == OK)
		page->status = buf_text(&page->buf, text, &page->err);
}

/* What is written from outside: markup, quotes and control characters are none. */
static void
text(struct page *page, const char *value)
{
	for (; value != NULL && *value != '\0'; value++) {
		char one[2] = { *value, '\0' };

		switch (*value) {
		case '&': raw(page, "&amp;"); break;
		case '<': raw(page, "&lt;"); break;
		case '>': raw(page, "&gt;"); break;
		case '"': raw(page, "&quot;"); break;
		case '\'': raw(page, "&#39;"); break;
		default: raw(page, (unsigned char)*value < 0x20 || *value == 0x7f ? " " : one);
		}
	}
}

static const char *
text_of(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value != NULL ? value : "";
}

static void
number(struct page *page, const json_t *value)
{
	char digits[24];

	(void)snprintf(digits, sizeof(digits), "%lld", (long long)json_integer_value(value));
	raw(page, digits);
}

/* ---- tables: columns are members of the entries ---- */

struct column {
	const char *name, *title;
	enum { AS_TEXT = 1, AS_CODE, AS_NUMBER, AS_YES } as;
};

static void
table_head(struct page *page, const char *caption, const struct column *columns, size_t count)
{
	raw(page, "<table><caption>");
	text(page, caption);
	raw(page, "</caption><thead><tr>");
	for (size_t i = 0; i < count; i++) {
		raw(page, columns[i].as == AS_NUMBER ? "<th scope=\"col\" class=\"n\">" :
			"<th scope=\"col\">");
		text(page, columns[i].title);
		raw(page, "</th>");
	}
	raw(page, "</tr></thead><tbody>\n");
}

static void
cell(struct page *page, const json_t *entry, const struct column *column, bool first)
{
	const json_t *value = json_object_get(entry, column->name);

	raw(page, first ? "<th scope=\"row\">" : column->as == AS_NUMBER ? "<td class=\"n\">" : "<td>");
	if (json_is_integer(value))
		number(page, value);
	else if (json_is_boolean(value))
		raw(page, json_is_true(value) ? "yes" : "");
	else if (column->as == AS_CODE) {
		raw(page, "<code>");
		text(page, json_string_value(value));
		raw(page, "</code>");
	} else
		text(page, json_string_value(value));
	raw(page, first ? "</th>" : "</td>");
}

static void
table(struct page *page, const char *caption, const struct column *columns, size_t count,
	const json_t *list)
{
	const json_t *entry;
	size_t i;

	if (json_array_size(list) == 0) {
		raw(page, "<p>");
		text(page, caption);
		raw(page, ": none.</p>\n");
		return;
	}
	table_head(page, caption, columns, count);
	json_array_foreach(list, i, entry) {
		raw(page, "<tr>");
		for (size_t c = 0; c < count; c++)
			cell(page, entry, &columns[c], c == 0);
		raw(page, "</tr>\n");
	}
	raw(page, "</tbody></table>\n");
}

#define TABLE(page, caption, columns, list) table(page, caption, columns, COUNT_OF(columns), list)

/* ---- sections ---- */

static void
pair(struct page *page, const char *name, const char *value)
{
	raw(page, "<dt>");
	text(page, name);
	raw(page, "</dt><dd>");
	text(page, value);
	raw(page, "</dd>\n");
}

static void
pair_number(struct page *page, const char *name, const json_t *value)
{
	raw(page, "<dt>");
	text(page, name);
	raw(page, "</dt><dd>");
	if (json_is_integer(value))
		number(page, value);
	else
		raw(page, "for good");
	raw(page, "</dd>\n");
}

static void
put_summary(struct page *page, const json_t *document)
{
	static const struct column COLUMNS[] = { { "id", "Finding", AS_CODE },
		{ "severity", "Severity", AS_TEXT }, { "count", "Count", AS_NUMBER },
		{ "title", "What it is", AS_TEXT } };
	const json_t *inventory = json_object_get(document, "inventory");
	const char *worst = text_of(document, "worst_severity");

	raw(page, "<header><h1>Compliance report</h1><dl>\n");
	pair(page, "Report", text_of(document, "report_id"));
	pair(page, "Begun", text_of(document, "begun_at"));
	pair(page, "Made", text_of(document, "made_at"));
	pair(page, "Asked for by", text_of(document, "actor"));
	pair_number(page, "Certificates", json_object_get(inventory, "certificates"));
	pair_number(page, "Of these live", json_object_get(inventory, "live"));
	pair_number(page, "Findings", json_object_get(document, "finding_count"));
	pair(page, "Worst severity", worst[0] != '\0' ? worst : "none");
	raw(page, "</dl></header>\n<section><h2>What was looked for</h2>\n");
	TABLE(page, "Findings, the worst first", COLUMNS, json_object_get(document, "findings"));
	raw(page, "</section>\n");
}

static void
put_examples(struct page *page, const json_t *finding)
{
	static const struct column CERTIFICATES[] = { { "device_id", "Device", AS_CODE },
		{ "profile", "Profile", AS_TEXT }, { "ca", "CA", AS_TEXT },
		{ "certificate_id", "Certificate", AS_CODE }, { "state", "State", AS_TEXT },
		{ "not_after", "Ends", AS_TEXT }, { "detail", "Detail", AS_TEXT } };
	static const struct column POLICIES[] = { { "policy", "Policy", AS_CODE },
		{ "source", "Source", AS_TEXT }, { "detail", "Detail", AS_TEXT } };
	static const struct column WEEKS[] = { { "week", "Week of", AS_TEXT },
		{ "certificates", "Certificates", AS_NUMBER }, { "percent", "% of live", AS_NUMBER } };
	static const struct column REST[] = { { "ca", "CA", AS_TEXT }, { "not_after", "Ends", AS_TEXT },
		{ "certificate_id", "Certificate", AS_CODE }, { "detail", "Detail", AS_TEXT } };
	const json_t *list = json_object_get(finding, "examples");
	const json_t *first = json_array_get(list, 0);
	const char *caption = json_is_true(json_object_get(finding, "examples_more")) ?
		"The first of them" : "All of them";

	if (json_object_get(first, "device_id") != NULL)
		TABLE(page, caption, CERTIFICATES, list);
	else if (json_object_get(first, "policy") != NULL)
		TABLE(page, caption, POLICIES, list);
	else if (json_object_get(first, "week") != NULL)
		TABLE(page, caption, WEEKS, list);
	else
		TABLE(page, caption, REST, list);
}

static void
put_finding(struct page *page, const json_t *finding)
{
	raw(page, "<h3>");
	text(page, text_of(finding, "title"));
	raw(page, "</h3><p><span class=\"s ");
	text(page, text_of(finding, "severity"));
	raw(page, "\">");
	text(page, text_of(finding, "severity"));
	raw(page, "</span> <code>");
	text(page, text_of(finding, "id"));
	raw(page, "</code>, ");
	number(page, json_object_get(finding, "count"));
	raw(page, " found. ");
	text(page, text_of(finding, "advice"));
	raw(page, "</p>\n");
	put_examples(page, finding);
}

static void
put_findings(struct page *page, const json_t *list)
{
	const json_t *finding;
	bool any = false;
	size_t i;

	raw(page, "<section class=\"page\"><h2>Findings</h2>\n");
	json_array_foreach(list, i, finding)
		if (json_integer_value(json_object_get(finding, "count")) > 0) {
			put_finding(page, finding);
			any = true;
		}
	raw(page, any ? "</section>\n" : "<p class=\"none\">Nothing was found.</p></section>\n");
}

static void
put_inventory(struct page *page, const json_t *document)
{
	static const struct column GROUPS[] = { { "ca", "CA", AS_TEXT }, { "profile", "Profile", AS_TEXT },
		{ "valid", "Valid", AS_NUMBER }, { "pending", "Pending", AS_NUMBER },
		{ "superseded", "Superseded", AS_NUMBER }, { "held", "Held", AS_NUMBER },
		{ "revoked", "Revoked", AS_NUMBER }, { "expired", "Expired", AS_NUMBER } };
	static const struct column KEYS[] = { { "key_type", "Key", AS_TEXT }, { "live", "Live", AS_NUMBER },
		{ "all", "All", AS_NUMBER } };
	static const struct column SIGNATURES[] = { { "algorithm", "Signature", AS_TEXT },
		{ "live", "Live", AS_NUMBER }, { "all", "All", AS_NUMBER } };
	static const struct column CAS[] = { { "ca", "CA", AS_TEXT }, { "issuing", "Issues", AS_YES },
		{ "can_sign", "Key is here", AS_YES }, { "not_before", "From", AS_TEXT },
		{ "not_after", "To", AS_TEXT }, { "expiring", "Ends soon", AS_YES } };
	const json_t *inventory = json_object_get(document, "inventory");

	raw(page, "<section class=\"page\"><h2>Inventory</h2>\n");
	TABLE(page, "Certificates by CA and profile", GROUPS,
		json_object_get(inventory, "by_ca_and_profile"));
	TABLE(page, "Keys", KEYS, json_object_get(inventory, "key_types"));
	TABLE(page, "Signature algorithms", SIGNATURES, json_object_get(inventory, "signature_algorithms"));
	TABLE(page, "Certificate authorities", CAS, json_object_get(document, "cas"));
	raw(page, "</section>\n");
}

static void
put_expiries(struct page *page, const json_t *expiries)
{
	static const struct column MONTHS[] = { { "month", "Month", AS_TEXT },
		{ "certificates", "Live certificates that end", AS_NUMBER } };
	static const struct column WEEKS[] = { { "week", "Week of", AS_TEXT },
		{ "certificates", "Live certificates that end", AS_NUMBER },
		{ "percent", "% of live", AS_NUMBER }, { "cliff", "Cliff", AS_YES } };

	raw(page, "<section class=\"page\"><h2>Expiries</h2>\n");
	TABLE(page, "By month", MONTHS, json_object_get(expiries, "months"));
	TABLE(page, "By week, a year ahead", WEEKS, json_object_get(expiries, "weeks"));
	raw(page, "</section>\n");
}

static void
put_checkpoint(struct page *page, const json_t *note)
{
	if (!json_is_object(note)) {
		pair(page, "Last checkpoint", "none");
		return;
	}
	pair_number(page, "Last checkpoint", json_object_get(note, "number"));
	pair(page, "Signed", text_of(note, "at"));
	pair(page, "SHA-256 of it", text_of(note, "sha256"));
	pair(page, "Key (SHA-256)", text_of(note, "key_id"));
}

static void
put_state(struct page *page, const json_t *document)
{
	static const struct column LANES[] = { { "lane", "Lane", AS_NUMBER },
		{ "records", "Records", AS_NUMBER }, { "signed_through", "Signed through", AS_NUMBER },
		{ "dropped_through", "Dropped through", AS_NUMBER }, { "head", "Head", AS_CODE } };
	const json_t *audit = json_object_get(document, "audit");
	const json_t *check = json_object_get(audit, "verification");
	const char *name;
	json_t *days;

	raw(page, "<section class=\"page\"><h2>Audit log</h2><dl>\n");
	pair(page, "Verified", text_of(check, "at"));
	pair(page, "Extent", text_of(check, "extent"));
	pair(page, "Result", !json_is_true(json_object_get(check, "checked")) ? "could not be verified" :
		json_is_true(json_object_get(check, "ok")) ? "holds" : text_of(check, "why"));
	put_checkpoint(page, json_object_get(audit, "last_checkpoint"));
	pair_number(page, "Records no checkpoint holds", json_object_get(audit, "unsigned_records"));
	raw(page, "</dl>\n");
	TABLE(page, "Lanes", LANES, json_object_get(audit, "lanes"));
	raw(page, "</section>\n<section><h2>Kept for so many days</h2><dl>\n");
	json_object_foreach(json_object_get(document, "retention_days"), name, days) {
		pair_number(page, name, days);
	}
	raw(page, "</dl></section>\n");
}

/* ---- the whole ---- */

/* RFC 4648 4, of 32 octets. */
static void
hash_text(char out[HASH_TEXT_BYTES], const uint8_t hash[32])
{
	static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t at = 0;

	for (size_t i = 0; i < 33; i += 3) {
		uint32_t three = (uint32_t)hash[i] << 16 | (uint32_t)hash[i + 1] << 8 |
			(i + 2 < 32 ? hash[i + 2] : 0);

		for (int shift = 18; shift >= 0; shift -= 6)
			out[at++] = DIGITS[three >> shift & 63];
	}
	out[HASH_TEXT_BYTES - 2] = '=';
	out[HASH_TEXT_BYTES - 1] = '\0';
}

static void
put_page(struct page *page, const json_t *document, const char *policy)
{
	raw(page, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
		"<meta http-equiv=\"Content-Security-Policy\" content=\"");
	text(page, policy);
	raw(page, "\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
		"<title>Compliance report ");
	text(page, text_of(document, "made_at"));
	raw(page, "</title>\n<style>");
	raw(page, STYLE);
	raw(page, "</style></head><body>\n");
	put_summary(page, document);
	put_findings(page, json_object_get(document, "findings"));
	put_inventory(page, document);
	put_expiries(page, json_object_get(document, "expiries"));
	put_state(page, document);
	raw(page, "<footer><p>The audit log's record <code>report.make</code> of this report holds the "
		"SHA-256 of its JSON form.</p></footer>\n</body></html>\n");
}

enum status
report_html(struct view document, char policy[REPORT_POLICY_BYTES], struct bytes *out, struct err *err)
{
	struct page page = { .buf = { .limit_bytes = OUT_MAX_BYTES }, .status = OK };
	own(json_t) json = json_loadb((const char *)document.data, document.len, 0, NULL);
	char hash[HASH_TEXT_BYTES];
	uint8_t octets[32];

	if (json == NULL)
		return err_memory(err);
	ca_sha256(octets, view_text(STYLE));
	hash_text(hash, octets);
	(void)snprintf(policy, REPORT_POLICY_BYTES, "default-src 'none'; style-src 'sha256-%s'; "
		"base-uri 'none'; form-action 'none'", hash);
	put_page(&page, json, policy);
	/* Not for a meta element, which would be ignored with a warning. */
	(void)snprintf(policy + strlen(policy), REPORT_POLICY_BYTES - strlen(policy),
		"; frame-ancestors 'none'");
	if (page.status != OK) {
		buf_free(&page.buf);
		*err = page.err;
		return page.status;
	}
	*out = buf_give(&page.buf);
	return OK;
}
