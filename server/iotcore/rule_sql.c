#include "server/iotcore/rule_sql.h"

#include <stdint.h>
#include <string.h>

/* AWS's quota of a topic. */
#define SLASHES_MOST 7

/* ---- SELECT * FROM '…' ---- */

static const char *
skip_space(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

/* Moves behind a word of any case, which ends where no letter follows. */
static bool
take_word(const char **at, const char *word)
{
	size_t len = strlen(word);

	if (strncasecmp(*at, word, len) != 0)
		return false;
	*at = skip_space(*at + len);
	return true;
}

static const char *
filter_fault(const char *filter)
{
	size_t slashes = 0;

	if (filter[0] == '\0')
		return "the topic filter is empty";
	for (const char *level = filter;; level = strchr(level, '/') + 1) {
		size_t len = strcspn(level, "/");
		bool last = level[len] == '\0';

		if (memchr(level, '#', len) != NULL && (len != 1 || !last))
			return "# must be the last level of a topic filter";
		if (memchr(level, '+', len) != NULL && len != 1)
			return "+ must be a whole level of a topic filter";
		if (last)
			break;
		slashes++;
	}
	return slashes > SLASHES_MOST ? "a topic filter can not have more than 7 slashes" : NULL;
}

bool
rule_sql_parse(char topic[RULE_TOPIC_BYTES], const char *sql, const char **why)
{
	const char *at = skip_space(sql);
	const char *end;

	*why = "only SELECT * FROM 'topic filter' is understood here";
	if (!take_word(&at, "SELECT") || *at != '*')
		return false;
	at = skip_space(at + 1);
	if (!take_word(&at, "FROM") || (*at != '\'' && *at != '"'))
		return false;
	end = strchr(at + 1, *at);
	if (end == NULL || *skip_space(end + 1) != '\0')
		return false;
	if ((size_t)(end - at - 1) >= RULE_TOPIC_BYTES) {
		*why = "a topic filter can not be longer than 256 bytes";
		return false;
	}
	memcpy(topic, at + 1, (size_t)(end - at - 1));
	topic[end - at - 1] = '\0';
	*why = filter_fault(topic);
	return *why == NULL;
}

/* ---- topics ---- */

bool
rule_topic_matches(const char *filter, const char *topic)
{
	if (topic[0] == '$' && (filter[0] == '+' || filter[0] == '#'))
		return false;
	/* One level at a time; each turn moves on in both. */
	for (;;) {
		size_t wanted = strcspn(filter, "/"), found = strcspn(topic, "/");

		if (filter[0] == '#')
			return true;
		if (filter[0] != '+' && (wanted != found || memcmp(filter, topic, wanted) != 0))
			return false;
		filter += wanted;
		topic += found;
		if (*filter == '\0' || *topic == '\0')
			return *filter == *topic;
		filter++;
		topic++;
	}
}

/* ---- URLs ---- */

/* Behind "https://", or NULL; *loopback_only: it was "http://". */
static const char *
behind_scheme(const char *url, bool *loopback_only)
{
	*loopback_only = strncasecmp(url, "http://", 7) == 0;
	if (*loopback_only)
		return url + 7;
	return strncasecmp(url, "https://", 8) == 0 ? url + 8 : NULL;
}

bool
rule_url_covers(const char *confirmation_url, const char *url)
{
	bool ignored;
	const char *host = behind_scheme(confirmation_url, &ignored);
	size_t len;

	if (host == NULL)
		return false;
	if (strcmp(confirmation_url, url) == 0)
		return true;
	/* A host alone ends where a path, a query or the text does: not "example.com.evil". */
	len = strcspn(confirmation_url, "?");
	while (len > (size_t)(host - confirmation_url) && confirmation_url[len - 1] != '/')
		len--;
	if (len == (size_t)(host - confirmation_url)) {
		len += strcspn(host, "/?");
		return strncmp(confirmation_url, url, len) == 0 &&
		       (url[len] == '\0' || url[len] == '/' || url[len] == '?');
	}
	return strncmp(confirmation_url, url, len) == 0;
}

static bool
is_loopback(const char *authority, size_t len)
{
	static const char *const HOSTS[] = { "127.0.0.1", "[::1]", "localhost" };

	for (size_t i = 0; i < sizeof(HOSTS) / sizeof(HOSTS[0]); i++) {
		size_t host = strlen(HOSTS[i]);

		if (len >= host && strncmp(authority, HOSTS[i], host) == 0 &&
			(len == host || authority[host] == ':'))
			return true;
	}
	return false;
}

static bool
is_visible(const char *url)
{
	for (; *url != '\0'; url++)
		if ((uint8_t)*url <= 0x20 || (uint8_t)*url >= 0x7f)
			return false;
	return true;
}

/* HOST or HOST:PORT. */
static bool
is_authority(const char *authority, size_t len)
{
	const char *close = authority[0] == '[' ? memchr(authority, ']', len) : NULL;
	size_t host = close != NULL ? (size_t)(close - authority) + 1 : 0;

	while (host < len && authority[host] != ':')
		host++;
	if (host == 0 || (close != NULL && host != (size_t)(close - authority) + 1))
		return false;
	if (host == len)
		return true;
	return len - host >= 2 && len - host <= 6 &&
	       strspn(authority + host + 1, "0123456789") == len - host - 1;
}

const char *
rule_url_fault(const char *url, bool loopback_http)
{
	bool loopback_only;
	const char *authority = behind_scheme(url, &loopback_only);
	size_t len;

	if (authority == NULL || (loopback_only && !loopback_http))
		return "it must begin with https://";
	if (!is_visible(url))
		return "it must not hold spaces or other than ASCII characters";
	if (strstr(url, "${") != NULL)
		return "substitution templates are not understood here";
	if (strchr(url, '#') != NULL)
		return "it must not have a fragment";
	len = strcspn(authority, "/?");
	if (memchr(authority, '@', len) != NULL)
		return "it must not name a user";
	if (!is_authority(authority, len))
		return "its host is not valid";
	if (loopback_only && !is_loopback(authority, len))
		return "http:// is for this machine only";
	return NULL;
}
