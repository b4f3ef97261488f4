#include "server/iotcore/member.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#undef iotcore_invalid

/* Nesting of our own tables: TopicRulePayload's actions go deepest. */
#define PATH_BYTES 256
/* What is shown of a value; a PEM or a policy is not shown at all. */
#define SHOWN_BYTES 80
#define SHOWN_MEMBER_MOST 2048

static void check(const struct member *member, const json_t *json, const char *path,
	struct member_report *report);

/* Not within a character. */
static int
shown_len(const char *text)
{
	size_t len = strlen(text);

	if (len > SHOWN_BYTES)
		for (len = SHOWN_BYTES; len > 0 && (text[len] & 0xc0) == 0x80;)
			len--;
	return (int)len;
}

/* "Value 'x' at 'path' failed to satisfy constraint: Member must …"; value NULL: null. */
static void add(struct member_report *report, const char *value, bool shown, const char *path,
	const char *fmt, ...) PRINTF(5, 6);
static void
add(struct member_report *report, const char *value, bool shown, const char *path, const char *fmt,
	...)
{
	size_t room = sizeof(report->text) - report->len;
	char *at = report->text + report->len;
	const char *what = value == NULL ? "null" : shown ? value : "";
	char rule[192];
	va_list args;
	int len;

	report->count++;
	va_start(args, fmt);
	(void)vsnprintf(rule, sizeof(rule), fmt, args);
	va_end(args);
	len = snprintf(at, room, "%sValue %s%.*s%s%sat '%s' failed to satisfy constraint: %s",
		report->count > 1 ? "; " : "", value != NULL && shown ? "'" : "", shown_len(what),
		what, value != NULL && shown ? "'" : "", value == NULL || shown ? " " : "", path,
		rule);
	if (len > 0)
		report->len += (size_t)len < room ? (size_t)len : room - 1;
}

/* Characters, of valid UTF-8. */
static int64_t
count_characters(const char *text)
{
	int64_t count = 0;

	for (; *text != '\0'; text++)
		count += (*text & 0xc0) != 0x80;
	return count;
}

static void
describe_values(char *out, size_t size, const char *const *values)
{
	size_t len = 0;

	out[0] = '\0';
	for (; *values != NULL && len < size; values++) {
		int more = snprintf(out + len, size - len, "%s%s", len > 0 ? ", " : "", *values);

		len += more > 0 ? (size_t)more : 0;
	}
}

static bool
is_one_of(const char *text, const char *const *values)
{
	for (; *values != NULL; values++)
		if (strcmp(*values, text) == 0)
			return true;
	return false;
}

static void
check_text(const struct member *member, const char *text, const char *path,
	struct member_report *report)
{
	bool shown = member->most > 0 && member->most <= SHOWN_MEMBER_MOST;
	int64_t count = count_characters(text);
	char values[128];

	shown |= member->values != NULL;
	if (member->values != NULL && !is_one_of(text, member->values)) {
		describe_values(values, sizeof(values), member->values);
		add(report, text, shown, path, "Member must satisfy enum value set: [%s]", values);
	}
	if (member->pattern != NULL && !member->pattern->holds(text, strlen(text)))
		add(report, text, shown, path, "Member must satisfy regular expression pattern: %s",
			member->pattern->aws);
	if (member->most > 0 && count > member->most)
		add(report, text, shown, path,
			"Member must have length less than or equal to %" PRId64, member->most);
	if (count < member->least)
		add(report, text, shown, path,
			"Member must have length greater than or equal to %" PRId64, member->least);
}

static void
check_number(
	const struct member *member, int64_t number, const char *path, struct member_report *report)
{
	bool bounded = member->least != 0 || member->most != 0;
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRId64, number);
	if (bounded && number > member->most)
		add(report, text, true, path,
			"Member must have value less than or equal to %" PRId64, member->most);
	if (bounded && number < member->least)
		add(report, text, true, path,
			"Member must have value greater than or equal to %" PRId64, member->least);
}

bool
member_number(int64_t *out, const char *text)
{
	const char *digits = text + (text[0] == '-');
	int64_t number = 0;

	if (digits[0] == '\0' || strlen(digits) > 18)
		return false;
	for (; *digits != '\0'; digits++) {
		if (*digits < '0' || *digits > '9')
			return false;
		number = number * 10 + (*digits - '0');
	}
	*out = text[0] == '-' ? -number : number;
	return true;
}

bool
member_time(int64_t *out_s, const char *text)
{
	return time_parse(out_s, view_text(text)) || member_number(out_s, text);
}

void
member_check_text(const struct member *member, const char *text, struct member_report *report)
{
	int64_t number;

	if (text == NULL) {
		if (member->required)
			add(report, NULL, true, member->name, "Member must not be null");
		return;
	}
	switch (member->type) {
	case MEMBER_TEXT: check_text(member, text, member->name, report); return;
	case MEMBER_FLAG:
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
			add(report, text, true, member->name, "Member must be a boolean");
		return;
	case MEMBER_NUMBER:
		if (member_number(&number, text))
			check_number(member, number, member->name, report);
		else
			add(report, text, true, member->name, "Member must be an integer");
		return;
	case MEMBER_TIME:
		if (!member_time(&number, text))
			add(report, text, true, member->name, "Member must be a timestamp");
		return;
	case MEMBER_REAL:
	case MEMBER_STRUCT:
	case MEMBER_LIST:
	case MEMBER_MAP:
	case MEMBER_UNSET: break;
	}
	/* Structures come in bodies only; router_ops() has checked the table. */
	add(report, text, true, member->name, "Member must be a string");
}

/* ---- bodies ---- */

static void
check_count(
	const struct member *member, size_t count, const char *path, struct member_report *report)
{
	if (member->most > 0 && (int64_t)count > member->most)
		add(report, "", false, path,
			"Member must have length less than or equal to %" PRId64, member->most);
	if ((int64_t)count < member->least)
		add(report, "", false, path,
			"Member must have length greater than or equal to %" PRId64, member->least);
}

static void
check_struct(const struct member *member, const json_t *json, const char *path,
	struct member_report *report)
{
	for (const struct member *one = member->members; one != NULL && one->name != NULL; one++) {
		char below[PATH_BYTES];

		(void)snprintf(below, sizeof(below), "%s.%s", path, one->name);
		check(one, json_object_get(json, one->name), below, report);
	}
}

static void
check_list(const struct member *member, const json_t *json, const char *path,
	struct member_report *report)
{
	const struct member *item = member->members;

	check_count(member, json_array_size(json), path, report);
	for (size_t i = 0; item != NULL && i < json_array_size(json); i++) {
		char below[PATH_BYTES];

		(void)snprintf(below, sizeof(below), "%s.%zu.member", path, i + 1);
		/* A hole in a list is nothing that a list may have. */
		if (json_is_null(json_array_get(json, i)))
			add(report, NULL, true, below, "Member must not be null");
		else
			check(item, json_array_get(json, i), below, report);
	}
}

static void
check_map(const struct member *member, const json_t *json, const char *path,
	struct member_report *report)
{
	const struct member *rules = member->members;
	const char *key;
	json_t *value;

	check_count(member, json_object_size(json), path, report);
	if (rules == NULL)
		return;
	json_object_foreach((json_t *)(uintptr_t)json, key, value)
	{
		char below[PATH_BYTES];

		(void)snprintf(below, sizeof(below), "%s.%.64s", path, key);
		if (rules[0].type == MEMBER_TEXT)
			check_text(&rules[0], key, path, report);
		check(&rules[1], value, below, report);
	}
}

static bool
is_time(const json_t *json)
{
	int64_t ignored;

	return json_is_number(json) ||
	       (json_is_string(json) && member_time(&ignored, json_string_value(json)));
}

static void
check(const struct member *member, const json_t *json, const char *path,
	struct member_report *report)
{
	static const char *const WANTED[] = { [MEMBER_UNSET] = "absent",
		[MEMBER_TEXT] = "a string",
		[MEMBER_FLAG] = "a boolean",
		[MEMBER_NUMBER] = "an integer",
		[MEMBER_REAL] = "a number",
		[MEMBER_TIME] = "a timestamp",
		[MEMBER_STRUCT] = "a structure",
		[MEMBER_LIST] = "a list",
		[MEMBER_MAP] = "a map" };
	bool fits = false;

	if (json == NULL || json_is_null(json)) {
		if (member->required)
			add(report, NULL, true, path, "Member must not be null");
		return;
	}
	switch (member->type) {
	case MEMBER_TEXT:
		if ((fits = json_is_string(json)))
			check_text(member, json_string_value(json), path, report);
		break;
	case MEMBER_FLAG: fits = json_is_boolean(json); break;
	case MEMBER_NUMBER:
		if ((fits = json_is_integer(json)))
			check_number(member, json_integer_value(json), path, report);
		break;
	case MEMBER_REAL: fits = json_is_number(json); break;
	case MEMBER_TIME: fits = is_time(json); break;
	case MEMBER_STRUCT:
		if ((fits = json_is_object(json)))
			check_struct(member, json, path, report);
		break;
	case MEMBER_LIST:
		if ((fits = json_is_array(json)))
			check_list(member, json, path, report);
		break;
	case MEMBER_MAP:
		if ((fits = json_is_object(json)))
			check_map(member, json, path, report);
		break;
	case MEMBER_UNSET: break;
	}
	if (!fits)
		add(report, "", false, path, "Member must be %s", WANTED[member->type]);
}

void
member_check_json(const struct member *member, const json_t *json, struct member_report *report)
{
	check(member, json, member->name, report);
}

enum status
member_report_end(const struct member_report *report, struct err *err)
{
	if (report->count == 0)
		return OK;
	return iotcore_error(err, "InvalidRequestException", "%u validation error%s detected: %s",
		report->count, report->count > 1 ? "s" : "", report->text);
}

enum status(iotcore_invalid)(
	struct err *err, const char *value, const char *member, const char *fmt, ...)
{
	const char *what = value != NULL ? value : "null";
	char rule[192];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(rule, sizeof(rule), fmt, args);
	va_end(args);
	return iotcore_error(err, "InvalidRequestException",
		"1 validation error detected: Value %s%.*s%s at '%s' failed to satisfy constraint: "
	        "%s",
		value != NULL ? "'" : "", shown_len(what), what, value != NULL ? "'" : "", member,
		rule);
}
