/*
 * server/cli/table.h - JSON for people: a list as an aligned table, an object as lines of "name value".
 * Control characters are not passed on to the terminal.
 */
#ifndef SERVER_CLI_TABLE_H
#define SERVER_CLI_TABLE_H

#include <jansson.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 12

/* The columns are the keys named, separated by spaces; "a.b" is key b of object a. */
void table_list(FILE *out, const json_t *rows, const char *columns);
/*
 * All members in their order, those of an object within as "a.b"; long texts such as PEM in a short form.
 * Lists of objects follow as tables.
 */
void table_object(FILE *out, json_t *object);

#endif
