/*
 * A report as one flat table (RFC 4180). Every cell is quoted. A cell that a spreadsheet would take for a
 * formula (what begins with = + - @, a tab or a line's end) begins with an apostrophe: ids and attributes are
 * chosen by others.
 */
#include <stdio.h>
#include <string.h>

#include "server/http/request.h"
#include "server/report/internal.h"

#define OUT_MAX_BYTES ((size_t)64 << 20)
#define COLUMNS 10

static const char *const HEAD[COLUMNS] = { "section", "item", "severity", "count", "ca", "profile",
	"device_id", "certificate_id", "at", "detail" };

/* By the column's name; NULL: empty. */
struct line {
	const char *cells[COLUMNS];
	char number[24];
};
enum column { SECTION, ITEM, SEVERITY, COUNT, CA, PROFILE, DEVICE, CERTIFICATE, AT, DETAIL };

static enum status
put_cell(struct buf *out, const char *text, struct err *err)
{
	TRY(buf_text(out, "\"", err));
	if (text[0] != '\0' && strchr("=+-@\t\r\n", text[0]) != NULL)
		TRY(buf_text(out, "'", err));
	for (const char *quote; (quote = strchr(text, '"')) != NULL; text = quote + 1) {
		TRY(buf_add(out, text, (size_t)(quote - text), err));
		TRY(buf_text(out, "\"\"", err)); /* RFC 4180 2.7 */
	}
	TRY(buf_text(out, text, err));
	return buf_text(out, "\"", err);
}

static enum status
put_line(struct buf *out, const char *const cells[COLUMNS], struct err *err)
{
	for (size_t i = 0; i < COLUMNS; i++) {
		TRY(buf_text(out, i == 0 ? "" : ",", err));
		TRY(put_cell(out, cells[i] != NULL ? cells[i] : "", err));
	}
	return buf_text(out, "\r\n", err);
}

static const char *
text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static void
set_count(struct line *line, const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);

	if (!json_is_integer(value))
		return;
	(void)snprintf(line->number, sizeof(line->number), "%lld",
		(long long)json_integer_value(value));
	line->cells[COUNT] = line->number;
}

/* ---- sections ---- */

static enum status
put_groups(struct buf *out, const json_t *list, struct err *err)
{
	static const char *const STATES[] = { "valid", "pending", "superseded", "held", "revoked",
		"expired" };
	const json_t *group;
	size_t i;

	json_array_foreach(list, i, group)
		for (size_t s = 0; s < COUNT_OF(STATES); s++) {
			struct line line = { .cells = { [SECTION] = "inventory", [ITEM] = STATES[s],
				[CA] = text_of(group, "ca"), [PROFILE] = text_of(group, "profile") } };

			set_count(&line, group, STATES[s]);
			TRY(put_line(out, line.cells, err));
		}
	return OK;
}

/* One line an entry: what stands at name, and how many. */
static enum status
put_counts(struct buf *out, const char *section, const json_t *list, const char *name, const char *count,
	struct err *err)
{
	const json_t *entry;
	size_t i;

	json_array_foreach(list, i, entry) {
		struct line line = { .cells = { [SECTION] = section, [ITEM] = text_of(entry, name) } };

		set_count(&line, entry, count);
		if (json_is_true(json_object_get(entry, "cliff")))
			line.cells[DETAIL] = "cliff";
		TRY(put_line(out, line.cells, err));
	}
	return OK;
}

static enum status
put_example(struct buf *out, const json_t *finding, const json_t *example, struct err *err)
{
	struct line line = { .cells = { [SECTION] = "example", [ITEM] = text_of(finding, "id"),
		[SEVERITY] = text_of(finding, "severity"), [CA] = text_of(example, "ca"),
		[PROFILE] = text_of(example, "profile"), [DEVICE] = text_of(example, "device_id"),
		[CERTIFICATE] = text_of(example, "certificate_id"), [AT] = text_of(example, "not_after"),
		[DETAIL] = text_of(example, "detail") } };
	char both[1024];

	if (text_of(example, "week") != NULL)
		line.cells[AT] = text_of(example, "week");
	set_count(&line, example, "certificates");
	if (text_of(example, "policy") != NULL) {
		(void)snprintf(both, sizeof(both), "%s (%s): %s", text_of(example, "policy"),
			text_of(example, "source"), text_of(example, "detail"));
		line.cells[DETAIL] = both;
	}
	return put_line(out, line.cells, err);
}

static enum status
put_findings(struct buf *out, const json_t *list, struct err *err)
{
	const json_t *finding;
	size_t i;

	json_array_foreach(list, i, finding) {
		const json_t *example;
		size_t e;
		struct line line = { .cells = { [SECTION] = "finding", [ITEM] = text_of(finding, "id"),
			[SEVERITY] = text_of(finding, "severity"), [DETAIL] = text_of(finding, "title") } };

		set_count(&line, finding, "count");
		TRY(put_line(out, line.cells, err));
		json_array_foreach(json_object_get(finding, "examples"), e, example)
			TRY(put_example(out, finding, example, err));
	}
	return OK;
}

static enum status
put_cas(struct buf *out, const json_t *list, struct err *err)
{
	const json_t *ca;
	size_t i;

	json_array_foreach(list, i, ca) {
		const struct line line = { .cells = { [SECTION] = "ca",
			[ITEM] = json_is_true(json_object_get(ca, "issuing")) ? "issuing" : "known",
			[CA] = text_of(ca, "ca"), [AT] = text_of(ca, "not_after") } };

		TRY(put_line(out, line.cells, err));
	}
	return OK;
}

static enum status
put_audit(struct buf *out, const json_t *audit, struct err *err)
{
	const json_t *check = json_object_get(audit, "verification");
	const json_t *note = json_object_get(audit, "last_checkpoint");
	bool ok = json_is_true(json_object_get(check, "ok"));
	struct line line = { .cells = { [SECTION] = "audit", [ITEM] = "verification",
		[AT] = text_of(check, "at"), [DETAIL] = ok ? "holds" : text_of(check, "why") } };
	struct line signed_ = { .cells = { [SECTION] = "audit", [ITEM] = "last_checkpoint",
		[AT] = text_of(note, "at"), [DETAIL] = text_of(note, "sha256") } };
	struct line rest = { .cells = { [SECTION] = "audit", [ITEM] = "unsigned_records" } };

	set_count(&signed_, note, "number");
	set_count(&rest, audit, "unsigned_records");
	TRY(put_line(out, line.cells, err));
	TRY(put_line(out, signed_.cells, err));
	return put_line(out, rest.cells, err);
}

static enum status
put_all(struct buf *out, const json_t *document, struct err *err)
{
	const json_t *inventory = json_object_get(document, "inventory");
	const json_t *expiries = json_object_get(document, "expiries");
	struct line line = { .cells = { [SECTION] = "report", [ITEM] = text_of(document, "report_id"),
		[SEVERITY] = text_of(document, "worst_severity"), [AT] = text_of(document, "made_at"),
		[DETAIL] = text_of(document, "actor") } };

	set_count(&line, document, "finding_count");
	TRY(put_line(out, HEAD, err));
	TRY(put_line(out, line.cells, err));
	TRY(put_groups(out, json_object_get(inventory, "by_ca_and_profile"), err));
	TRY(put_counts(out, "key_type", json_object_get(inventory, "key_types"), "key_type", "live", err));
	TRY(put_counts(out, "signature_algorithm", json_object_get(inventory, "signature_algorithms"),
		"algorithm", "live", err));
	TRY(put_counts(out, "month", json_object_get(expiries, "months"), "month", "certificates", err));
	TRY(put_counts(out, "week", json_object_get(expiries, "weeks"), "week", "certificates", err));
	TRY(put_findings(out, json_object_get(document, "findings"), err));
	TRY(put_cas(out, json_object_get(document, "cas"), err));
	return put_audit(out, json_object_get(document, "audit"), err);
}

enum status
report_csv(struct view document, struct bytes *out, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = OUT_MAX_BYTES };
	own(json_t) json = json_loadb((const char *)document.data, document.len, 0, NULL);

	if (json == NULL)
		return err_memory(err);
	TRY(put_all(&text, json, err));
	*out = buf_give(&text);
	return OK;
}
