#include "server/iot/aws_profile.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const KEYS[AWS_PROFILE_KEYS] = {
	[AWS_PROFILE_ACCESS_KEY] = "aws_access_key_id",
	[AWS_PROFILE_SECRET_KEY] = "aws_secret_access_key",
	[AWS_PROFILE_SESSION_TOKEN] = "aws_session_token",
	[AWS_PROFILE_ROLE_ARN] = "role_arn",
	[AWS_PROFILE_SOURCE_PROFILE] = "source_profile",
	[AWS_PROFILE_CREDENTIAL_SOURCE] = "credential_source",
	[AWS_PROFILE_WEB_IDENTITY_TOKEN_FILE] = "web_identity_token_file",
	[AWS_PROFILE_ROLE_SESSION_NAME] = "role_session_name",
	[AWS_PROFILE_EXTERNAL_ID] = "external_id",
	[AWS_PROFILE_MFA_SERIAL] = "mfa_serial",
	[AWS_PROFILE_REGION] = "region",
	[AWS_PROFILE_CREDENTIAL_PROCESS] = "credential_process",
	[AWS_PROFILE_SSO_START_URL] = "sso_start_url",
	[AWS_PROFILE_SSO_SESSION] = "sso_session",
};

static struct view
trim(struct view text)
{
	while (text.len > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
		text.data++, text.len--;
	while (text.len > 0 && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t' ||
				text.data[text.len - 1] == '\r'))
		text.len--;
	return text;
}

/* The next line without its LF; false at the end. */
static bool
next_line(struct view *rest, struct view *line)
{
	const uint8_t *end;

	if (rest->len == 0)
		return false;
	end = memchr(rest->data, '\n', rest->len);
	*line = (struct view){ rest->data, end != NULL ? (size_t)(end - rest->data) : rest->len };
	rest->data += line->len + (end != NULL ? 1 : 0);
	rest->len -= line->len + (end != NULL ? 1 : 0);
	return true;
}

static struct view
without_quotes(struct view name)
{
	if (name.len >= 2 && (name.data[0] == '"' || name.data[0] == '\'') &&
		name.data[name.len - 1] == name.data[0])
		return (struct view){ name.data + 1, name.len - 2 };
	return name;
}

/* "[default]" in both files; "[profile NAME]" in the config file, "[NAME]" in the other. */
static bool
is_section(struct view title, const char *name, bool is_config)
{
	static const char WORD[] = "profile";
	const size_t word = sizeof(WORD) - 1;

	if (!is_config || strcmp(name, "default") == 0)
		if (view_equal_text(title, name))
			return true;
	if (!is_config || title.len <= word || memcmp(title.data, WORD, word) != 0 ||
		(title.data[word] != ' ' && title.data[word] != '\t'))
		return false;
	return view_equal_text(
		without_quotes(trim((struct view){ title.data + word, title.len - word })), name);
}

static enum status
malformed(struct err *err, bool is_config, unsigned line, const char *what)
{
	return err_set(err, ERR_UNAUTHENTICATED, "aws_profile_malformed", "%s file, line %u: %s",
		is_config ? "config" : "credentials", line, what);
}

static bool
key_is(struct view key, const char *name)
{
	return key.len == strlen(name) && strncasecmp((const char *)key.data, name, key.len) == 0;
}

static bool
has_control(struct view text)
{
	for (size_t i = 0; i < text.len; i++)
		if ((text.data[i] < 0x20 && text.data[i] != '\t') || text.data[i] == 0x7f)
			return true;
	return false;
}

struct reading {
	struct aws_profile *profile;
	bool seen[AWS_PROFILE_KEYS]; /* in this file: it may override what the other one set */
	bool is_config;
	unsigned line;
};

static enum status
read_pair(struct reading *reading, struct view line, struct err *err)
{
	const uint8_t *equals = memchr(line.data, '=', line.len);
	size_t key_len = equals != NULL ? (size_t)(equals - line.data) : 0;
	struct view key = trim((struct view){ line.data, key_len });
	struct view value;

	if (equals == NULL || key.len == 0)
		return malformed(err, reading->is_config, reading->line, "key = value wanted");
	value = trim((struct view){ equals + 1, line.len - key_len - 1 });
	if (has_control(value))
		return malformed(
			err, reading->is_config, reading->line, "a control character in the value");
	for (size_t i = 0; i < AWS_PROFILE_KEYS; i++) {
		if (!key_is(key, KEYS[i]))
			continue;
		if (reading->seen[i])
			return malformed(
				err, reading->is_config, reading->line, "the key stands twice");
		reading->seen[i] = true;
		reading->profile->values[i] = value.len > 0 ? value : (struct view){ NULL, 0 };
	}
	return OK;
}

enum status
aws_profile_read(struct aws_profile *profile, struct view text, const char *name, bool is_config,
	struct err *err)
{
	struct reading reading = { .profile = profile, .is_config = is_config };
	struct view line = { NULL, 0 };
	bool in_section = false; /* any */
	bool wanted = false;

	while (next_line(&text, &line)) {
		bool indented = line.len > 0 && (line.data[0] == ' ' || line.data[0] == '\t');

		reading.line++;
		line = trim(line);
		if (line.len == 0 || line.data[0] == '#' || line.data[0] == ';')
			continue;
		if (line.data[0] == '[') {
			if (line.data[line.len - 1] != ']' || line.len < 3)
				return malformed(err, is_config, reading.line, "[NAME] wanted");
			in_section = true;
			wanted = is_section(trim((struct view){ line.data + 1, line.len - 2 }),
				name, is_config);
			profile->found = profile->found || wanted;
			continue;
		}
		if (!in_section)
			return malformed(err, is_config, reading.line, "before the first [NAME]");
		if (wanted && !indented)
			TRY(read_pair(&reading, line, err));
	}
	return OK;
}

static bool
find(struct view in, const char *wanted, size_t *at)
{
	size_t len = strlen(wanted);
	const uint8_t *found = in.len > 0 ? memmem(in.data, in.len, wanted, len) : NULL;

	if (found == NULL)
		return false;
	*at = (size_t)(found - in.data);
	return true;
}

bool
aws_xml_value(struct view xml, const char *tag, struct view *out)
{
	char mark[64];
	size_t start, len;

	(void)snprintf(mark, sizeof(mark), "<%s>", tag);
	if (!find(xml, mark, &start))
		return false;
	start += strlen(mark);
	(void)snprintf(mark, sizeof(mark), "</%s>", tag);
	if (!find((struct view){ xml.data + start, xml.len - start }, mark, &len))
		return false;
	*out = (struct view){ xml.data + start, len };
	return memchr(out->data, '&', len) == NULL && memchr(out->data, '<', len) == NULL;
}
