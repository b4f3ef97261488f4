/*
 * server/iotcore/rule_sql.h - as much of the AWS IoT SQL as the local IoT Core needs: SELECT * FROM
 * 'topic filter'; topic filters as AWS matches them; and the URLs that rules may send to. Pure.
 */
#ifndef SERVER_IOTCORE_RULE_SQL_H
#define SERVER_IOTCORE_RULE_SQL_H

#include <stdbool.h>
#include <stddef.h>

#define RULE_TOPIC_BYTES 257

/* False: *why says what is wrong, fit to be shown; static. */
bool rule_sql_parse(char topic[RULE_TOPIC_BYTES], const char *sql, const char **why);

/* "a/#" does not match "a", and wildcards in front do not match what begins with $: as in AWS. */
bool rule_topic_matches(const char *filter, const char *topic);

/*
 * Whether a destination confirmed by confirmation_url may be sent to at url: the former up to its last
 * slash is how the latter begins.
 */
bool rule_url_covers(const char *confirmation_url, const char *url);

/*
 * https://HOST…; http only to this machine (127.0.0.1, [::1], localhost) and if loopback_http says so.
 * No user, no fragment, no white space. NULL: it may be sent to; otherwise what is wrong, static.
 */
const char *rule_url_fault(const char *url, bool loopback_http);

#endif
