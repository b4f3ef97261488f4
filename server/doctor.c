#include "server/doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/timex.h>

#include "base/clock.h"

#define TEXT_BYTES 501
#define DAY_S INT64_C(86400)
#define WEEK_S (7 * DAY_S)
#define MIB (UINT64_C(1) << 20)

/* The clocks of two machines that NTP keeps differ by less than a second; we read whole ones. */
#define CLOCK_WARN_S 2
/* Profiles date a certificate back by five minutes at most by default: beyond it, devices refuse new ones. */
#define CLOCK_ERROR_S 60

/* A list that a device has to load: what a slow link takes minutes for. */
#define CRL_LARGE_BYTES ((int64_t)64 * (int64_t)MIB)

#define CLIFF_PERCENT 25
#define CLIFF_TIMES 3
#define CLIFF_LEAST 20
#define CLIFFS_SHOWN 3

static const struct {
	const char *name;
	int exit_status;
} SEVERITIES[DOCTOR_SEVERITIES] = {
	[DOCTOR_UNSET] = { "unset", 3 },
	[DOCTOR_OK] = { "ok", 0 },
	[DOCTOR_NOTE] = { "note", 0 },
	[DOCTOR_UNKNOWN] = { "unknown", 3 },
	[DOCTOR_WARNING] = { "warning", 1 },
	[DOCTOR_ERROR] = { "error", 2 },
};

const char *
doctor_severity_name(enum doctor_severity severity)
{
	return SEVERITIES[severity < DOCTOR_SEVERITIES ? severity : DOCTOR_UNSET].name;
}

bool
doctor_severity_parse(enum doctor_severity *out, const char *name)
{
	for (unsigned i = DOCTOR_OK; i < DOCTOR_SEVERITIES; i++)
		if (strcmp(SEVERITIES[i].name, name) == 0) {
			*out = (enum doctor_severity)i;
			return true;
		}
	return false;
}

int
doctor_exit_status(enum doctor_severity worst)
{
	return SEVERITIES[worst < DOCTOR_SEVERITIES ? worst : DOCTOR_UNSET].exit_status;
}

/* ---- findings ---- */

enum status
doctor_begin(struct doctor *doctor, struct err *err)
{
	*doctor = (struct doctor){ .findings = json_array() };
	return doctor->findings != NULL ? OK : err_memory(err);
}

void
doctor_free(struct doctor *doctor)
{
	json_decref(doctor->findings);
	doctor->findings = NULL;
}

/* What other programs said may be cut in the midst of a character. */
static json_t *
text_of(char *text)
{
	json_t *json = json_string(text);

	if (json != NULL)
		return json;
	for (char *at = text; *at != '\0'; at++)
		if (((unsigned char)*at & 0x80) != 0)
			*at = '?';
	return json_string(text);
}

void
doctor_say(struct doctor *doctor, enum doctor_severity severity, const char *check, const char *what_to_do,
	const char *fmt, ...)
{
	char text[TEXT_BYTES];
	json_t *finding;
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	finding = json_pack("{s:s, s:s, s:s?}", "severity", doctor_severity_name(severity),
		"check", check,
		"what_to_do", what_to_do);
	if (json_object_set_new(finding, "finding", text_of(text)) != 0) {
		json_decref(finding);
		finding = NULL;
	}
	if (json_array_append_new(doctor->findings, finding) != 0)
		doctor->short_of_memory = true;
	if (severity > doctor->worst)
		doctor->worst = severity;
}

void
doctor_unknown(struct doctor *doctor, const char *check, const char *what_to_do, const struct err *why)
{
	doctor_say(doctor, DOCTOR_UNKNOWN, check, what_to_do, "could not be checked: %s (%s)",
		why->text, why->code);
}

enum status
doctor_complete(const struct doctor *doctor, struct err *err)
{
	return doctor->short_of_memory ? err_memory(err) : OK;
}

/* ---- judgements ---- */

void
doctor_judge_end(struct doctor *doctor, const char *check, const char *what, int64_t end_s, int64_t now_s,
	int64_t warn_s, const char *what_to_do)
{
	int64_t left_s = end_s - now_s;
	char at[TIME_TEXT_BYTES];

	time_format(at, end_s);
	if (left_s <= 0)
		doctor_say(doctor, DOCTOR_ERROR, check, what_to_do, "%s ended at %s", what, at);
	else if (left_s < warn_s)
		doctor_say(doctor, DOCTOR_WARNING, check, what_to_do,
			"%s ends at %s, in %" PRId64 " days", what, at, left_s / DAY_S);
	else
		doctor_say(doctor, DOCTOR_OK, check, NULL,
			"%s is valid until %s, for %" PRId64 " days", what, at, left_s / DAY_S);
}

void
doctor_judge_clock(struct doctor *doctor, int64_t database_s, int64_t before_s, int64_t after_s)
{
	int64_t off_s = database_s < before_s ? before_s - database_s :
		database_s > after_s ? database_s - after_s : 0;
	const char *way = database_s < before_s ? "behind" : "ahead of";

	if (off_s < CLOCK_WARN_S) {
		doctor_say(doctor, DOCTOR_OK, "clock", NULL,
			"the database's clock agrees with this one");
		return;
	}
	doctor_say(doctor, off_s < CLOCK_ERROR_S ? DOCTOR_WARNING : DOCTOR_ERROR, "clock",
		"Have both machines keep time by NTP (chrony, systemd-timesyncd): what is valid, "
		"due or late is decided by both clocks.",
		"the database's clock is %" PRId64 " s %s this one", off_s, way);
}

void
doctor_judge_kernel_clock(struct doctor *doctor)
{
	struct timex timex = { .modes = 0 };
	int state = adjtimex(&timex);

	if (state >= 0 && state != TIME_ERROR)
		doctor_say(doctor, DOCTOR_OK, "clock", NULL,
			"the kernel says that this clock is synchronised");
	else /* a virtual machine may have its time from its host, unsaid: hence no warning */
		doctor_say(doctor, DOCTOR_NOTE, "clock",
			"If nothing else sets this machine's clock, let chrony or "
			"systemd-timesyncd do so.",
			"the kernel does not say that this clock is synchronised");
}

void
doctor_judge_disk(struct doctor *doctor, const char *check, const char *path, uint64_t free_bytes,
	uint64_t total_bytes)
{
	uint64_t percent = total_bytes >= 100 ? free_bytes / (total_bytes / 100) : 0;
	enum doctor_severity severity = DOCTOR_OK;

	if (percent < 10 || free_bytes < 1024 * MIB)
		severity = DOCTOR_WARNING;
	if (percent < 1 || free_bytes < 128 * MIB)
		severity = DOCTOR_ERROR;
	doctor_say(doctor, severity, check,
		severity == DOCTOR_OK ?
			NULL : "Make room: CRLs, uploads and checkpoints cannot be written to a full disk.",
		"%" PRIu64 " MiB (%" PRIu64 " %%) are free at %.200s", free_bytes / MIB, percent,
		path);
}

void
doctor_check_disk(struct doctor *doctor, const char *check, const char *path)
{
	struct statvfs fs;

	if (statvfs(path, &fs) != 0)
		doctor_say(doctor, DOCTOR_UNKNOWN, check,
			"Let whoever runs this see the directory.",
			"could not be checked: %.200s: %s", path, strerror(errno));
	else
		doctor_judge_disk(doctor, check, path, (uint64_t)fs.f_bavail * fs.f_frsize,
			(uint64_t)fs.f_blocks * fs.f_frsize);
}

/* ---- CRLs ---- */

int64_t
doctor_forecast_crl(const struct doctor_crl *crl)
{
	double share;

	if (crl->entries <= 0 || crl->looked <= 0)
		return crl->bytes;
	share = 1 + (double)(crl->recent - crl->ending) / (double)crl->looked;
	return (int64_t)((double)crl->bytes * share);
}

void
doctor_judge_crl(struct doctor *doctor, const struct doctor_crl *crl)
{
	int64_t then = doctor_forecast_crl(crl);
	enum doctor_severity severity = DOCTOR_OK;
	const char *what_to_do = NULL;

	if (then > crl->immediate_max_bytes && crl->bytes <= crl->immediate_max_bytes) {
		severity = DOCTOR_NOTE;
		what_to_do =
			"Above crl_full_immediate_max the full list is made by crl_refresh alone: "
			"let those "
			"who need to know at once load shards, the delta, or ask OCSP.";
	}
	if (then > CRL_LARGE_BYTES && then > crl->bytes) {
		severity = DOCTOR_WARNING;
		what_to_do =
			"Have clients load shards (their certificates name them) or ask OCSP, and "
			"have "
			"shorter validities: entries leave the list when their certificates end.";
	}
	doctor_say(doctor, severity, "crl_size", what_to_do,
		"%s: the full list has %" PRId64 " entries, %" PRId64 " KiB; in %d days about %"
		PRId64 " KiB, as things go", crl->ca_id, crl->entries, crl->bytes / 1024,
		DOCTOR_CRL_DAYS, then / 1024);
}

/* ---- cliffs ---- */

/* ISO 8601: a week belongs to the year that its Thursday is in. */
static void
week_name(char *out, size_t size, int64_t monday_s)
{
	struct civil thursday = civil_from_s(monday_s + 3 * DAY_S);
	int64_t first_s = civil_to_s((struct civil){ .year = thursday.year, .month = 1, .day = 1 });
	int64_t number = (monday_s + 3 * DAY_S - first_s) / WEEK_S + 1;

	(void)snprintf(out, size, "%" PRId64 "-W%02" PRId64, thursday.year, number);
}

static bool
is_cliff(const struct doctor_week *week, int64_t total, int64_t weeks)
{
	return week->count * 100 >= total * CLIFF_PERCENT && week->count * weeks >= total * CLIFF_TIMES;
}

static void
say_cliff(struct doctor *doctor, const struct doctor_week *week, int64_t total, double percent_read)
{
	char name[48];
	char day[TIME_TEXT_BYTES];
	bool exact = percent_read >= 100;

	week_name(name, sizeof(name), week->week_s);
	time_format(day, week->week_s);
	doctor_say(doctor, DOCTOR_WARNING, "expiry_cliffs",
		"Spread it well before: jitrca campaign create --expires-before TIME "
		"--pace-per-hour N --dry-run says whom and until when; then the new certificates "
		"end as evenly.",
		"%" PRId64 " %% of the fleet (%s%.0f certificates) expires in week %s, from %.10s",
		(week->count * 100 + total / 2) / total, exact ? "" : "about ",
		(double)week->count * 100 / percent_read, name, day);
}

void
doctor_judge_cliffs(struct doctor *doctor, const struct doctor_week *weeks, size_t count, int64_t now_s,
	double percent_read)
{
	int64_t total = 0;
	int64_t last_s = now_s;
	size_t found = 0;

	for (size_t i = 0; i < count; i++) {
		total += weeks[i].count;
		if (weeks[i].week_s > last_s)
			last_s = weeks[i].week_s;
	}
	if (total < CLIFF_LEAST) {
		doctor_say(doctor, DOCTOR_OK, "expiry_cliffs", NULL,
			"%" PRId64 " certificates of devices are live: too few for a cliff", total);
		return;
	}
	for (size_t i = 0; i < count; i++)
		if (is_cliff(&weeks[i], total, (last_s - now_s) / WEEK_S + 1) && found++ < CLIFFS_SHOWN)
			say_cliff(doctor, &weeks[i], total, percent_read);
	if (found == 0)
		doctor_say(doctor, DOCTOR_OK, "expiry_cliffs", NULL,
			"no week has an outsized part of the %s%.0f certificates of devices that "
			"are live", percent_read < 100 ? "about " : "",
			(double)total * 100 / percent_read);
}
