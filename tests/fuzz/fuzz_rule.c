/* A rule's SQL, topic filters and URLs: two texts, parted by the first NUL. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "server/iotcore/rule_sql.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char *
text_of(const uint8_t *data, size_t len)
{
	char *text = mem_zalloc(len + 1);

	assert(text != NULL);
	if (len > 0)
		memcpy(text, data, len);
	return text;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const uint8_t *nul = len > 0 ? memchr(data, '\0', len) : NULL;
	size_t first_len = nul != NULL ? (size_t)(nul - data) : len;
	own(str) first = text_of(data, first_len);
	own(str) second = nul != NULL ? text_of(nul + 1, len - first_len - 1) : text_of(NULL, 0);
	char topic[RULE_TOPIC_BYTES];
	const char *why = NULL;

	if (rule_sql_parse(topic, first, &why)) {
		assert(why == NULL && topic[0] != '\0' && strlen(topic) < sizeof(topic));
		/* What holds no wildcard matches itself. */
		if (strpbrk(topic, "+#") == NULL)
			assert(rule_topic_matches(topic, topic));
		(void)rule_topic_matches(topic, second);
	} else {
		assert(why != NULL);
	}
	(void)rule_topic_matches(first, second);
	/* A URL that may be sent to covers itself. */
	if (rule_url_fault(first, true) == NULL)
		assert(rule_url_covers(first, first));
	(void)rule_url_covers(first, second);
	return 0;
}
