/* The description of the API and the route tables say the same, both ways. */
#include "server/api/openapi.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "server/http/route.h"
#include "server/routes.h"
#include "tests/unit/base/test.h"

static json_t *
document(void)
{
	json_t *json = json_loadb((const char *)OPENAPI_JSON, OPENAPI_JSON_BYTES,
		JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(json);
	return json;
}

static void
lower(char out[16], const char *text)
{
	size_t i = 0;

	for (; text[i] != '\0' && i < 15; i++)
		out[i] = (char)tolower((unsigned char)text[i]);
	out[i] = '\0';
}

/* The route's path as the description has it, which knows no {name+}. */
static void
described_path(char out[128], const char *path)
{
	size_t len = 0;

	for (; *path != '\0' && len < 127; path++)
		if (*path != '+')
			out[len++] = *path;
	out[len] = '\0';
}

static const json_t *
operation_of(const json_t *json, const struct route *route)
{
	char method[16];
	char path[128];

	lower(method, route->method);
	described_path(path, route->path);
	return json_object_get(json_object_get(json_object_get(json, "paths"), path), method);
}

static const struct route *
route_of(const char *path, const char *method)
{
	char found[16];
	char its_path[128];

	for (size_t i = 0; ROUTES[i] != NULL; i++)
		for (const struct route *route = ROUTES[i]; route->method != NULL; route++) {
			lower(found, route->method);
			described_path(its_path, route->path);
			if (strcmp(its_path, path) == 0 && strcmp(found, method) == 0)
				return route;
		}
	return NULL;
}

static bool
lists(const json_t *array, const char *text)
{
	const json_t *item;
	size_t i;

	json_array_foreach(array, i, item)
		if (strcmp(json_string_value(item), text) == 0)
			return true;
	return false;
}

static void
every_route_is_described(void **state)
{
	json_t *json = document();
	size_t count = 0;

	(void)state;
	for (size_t i = 0; ROUTES[i] != NULL; i++)
		for (const struct route *route = ROUTES[i]; route->method != NULL; route++, count++)
			if (operation_of(json, route) == NULL)
				fail_msg("%s %s is not described", route->method, route->path);
	assert_true(count > 40);
	json_decref(json);
}

static void
every_description_has_its_route(void **state)
{
	json_t *json = document();
	json_t *operations;
	json_t *operation;
	const char *path;
	const char *method;

	(void)state;
	json_object_foreach(json_object_get(json, "paths"), path, operations)
		json_object_foreach(operations, method, operation)
			if (route_of(path, method) == NULL)
				fail_msg("%s %s is described, but there is no such route", method, path);
	json_decref(json);
}

static void
roles_are_those_of_the_table(void **state)
{
	static const struct {
		unsigned role;
		const char *name;
	} ROLES[] = {
		{ ROLE_ANYONE, "anyone" }, { ROLE_DEVICE, "device" }, { ROLE_STATION, "station" },
		{ ROLE_OPERATOR, "operator" }, { ROLE_AUDITOR, "auditor" }, { ROLE_ADMIN, "admin" },
	};
	json_t *json = document();

	(void)state;
	for (size_t i = 0; ROUTES[i] != NULL; i++)
		for (const struct route *route = ROUTES[i]; route->method != NULL; route++) {
			const json_t *roles = json_object_get(operation_of(json, route), "x-roles");

			for (size_t r = 0; r < COUNT_OF(ROLES); r++)
				if (lists(roles, ROLES[r].name) != ((route->roles & ROLES[r].role) != 0))
					fail_msg("%s %s: role %s differs", route->method, route->path,
						ROLES[r].name);
		}
	json_decref(json);
}

/* Names of the parameters of one place ("query") of an operation. */
static size_t
parameters(const json_t *operation, const char *place, const char **out, size_t max)
{
	const json_t *parameter;
	size_t count = 0;
	size_t i;

	json_array_foreach(json_object_get(operation, "parameters"), i, parameter)
		if (strcmp(json_string_value(json_object_get(parameter, "in")), place) == 0 && count < max)
			out[count++] = json_string_value(json_object_get(parameter, "name"));
	return count;
}

static void
query_parameters_are_those_of_the_table(void **state)
{
	json_t *json = document();

	(void)state;
	for (size_t i = 0; ROUTES[i] != NULL; i++)
		for (const struct route *route = ROUTES[i]; route->method != NULL; route++) {
			const char *names[32];
			size_t count = parameters(operation_of(json, route), "query", names, 32);
			size_t known = 0;

			for (size_t q = 0; route->query != NULL && route->query[q] != NULL; q++)
				for (size_t n = 0; n < count; n++)
					known += strcmp(route->query[q], names[n]) == 0;
			if (known != count)
				fail_msg("%s %s: a query parameter that the route refuses", route->method,
					route->path);
			for (size_t q = 0; route->query != NULL && route->query[q] != NULL; q++)
				known--;
			if (known != 0)
				fail_msg("%s %s: a query parameter is not described", route->method,
					route->path);
		}
	json_decref(json);
}

static void
bodies_and_the_plain_listener_are_those_of_the_table(void **state)
{
	json_t *json = document();

	(void)state;
	for (size_t i = 0; ROUTES[i] != NULL; i++)
		for (const struct route *route = ROUTES[i]; route->method != NULL; route++) {
			const json_t *operation = operation_of(json, route);
			bool body = route->body_max_bytes > 0 || route->spool;
			bool plain = (route->listeners & LISTENER_HTTP) != 0;

			if ((json_object_get(operation, "requestBody") != NULL) != body)
				fail_msg("%s %s: whether it takes a body differs", route->method,
					route->path);
			if (json_is_true(json_object_get(operation, "x-plain-http")) != plain)
				fail_msg("%s %s: whether the plain listener has it differs",
					route->method, route->path);
		}
	json_decref(json);
}

/* Resolves "#/a/b/c". */
static const json_t *
resolve(const json_t *json, const char *reference)
{
	char part[128];

	if (strncmp(reference, "#/", 2) != 0)
		return NULL;
	reference += 2;
	while (json != NULL && *reference != '\0') {
		size_t len = strcspn(reference, "/");

		(void)snprintf(part, sizeof(part), "%.*s", (int)len, reference);
		json = json_object_get(json, part);
		reference += len + (reference[len] == '/');
	}
	return json;
}

/* The document is a few levels deep; the limit is against one that is not. */
static void
walk(const json_t *json, json_t *value, unsigned depth, size_t *references)
{
	const char *key;
	json_t *member;
	size_t i;

	assert_true(depth < 40);
	if (json_is_array(value))
		json_array_foreach(value, i, member)
			walk(json, member, depth + 1, references);
	if (!json_is_object(value))
		return;
	json_object_foreach(value, key, member) {
		if (strcmp(key, "$ref") == 0 && json_is_string(member)) {
			(*references)++;
			if (resolve(json, json_string_value(member)) == NULL)
				fail_msg("%s leads nowhere", json_string_value(member));
		}
		walk(json, member, depth + 1, references);
	}
}

static void
every_reference_leads_somewhere(void **state)
{
	json_t *json = document();
	size_t references = 0;

	(void)state;
	walk(json, json, 0, &references);
	assert_true(references > 100);
	json_decref(json);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_route_is_described),
		cmocka_unit_test(every_description_has_its_route),
		cmocka_unit_test(roles_are_those_of_the_table),
		cmocka_unit_test(query_parameters_are_those_of_the_table),
		cmocka_unit_test(bodies_and_the_plain_listener_are_those_of_the_table),
		cmocka_unit_test(every_reference_leads_somewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
