/* The tables of operations as JSON. */
#include "server/iotcore/internal.h"

static const char *const PLACES[] = { [AT_UNSET] = "",
	[AT_PATH] = "uri",
	[AT_QUERY] = "querystring",
	[AT_HEADER] = "header",
	[AT_BODY] = "body",
	[AT_PAYLOAD] = "payload" };
static const char *const TYPES[] = { [MEMBER_UNSET] = "",
	[MEMBER_TEXT] = "string",
	[MEMBER_FLAG] = "boolean",
	[MEMBER_NUMBER] = "integer",
	[MEMBER_REAL] = "double",
	[MEMBER_TIME] = "timestamp",
	[MEMBER_STRUCT] = "structure",
	[MEMBER_LIST] = "list",
	[MEMBER_MAP] = "map" };

/* Structures that hold themselves, as no table of ours does, would not end. */
#define DEPTH_MOST 8

static json_t *
describe_values(const char *const *values)
{
	json_t *out = json_array();

	for (; values != NULL && *values != NULL; values++)
		if (json_array_append_new(out, json_string(*values)) != 0) {
			json_decref(out);
			return NULL;
		}
	return out;
}

/* NULL: memory is short; json_pack of the callers then gives NULL as well. */
static json_t *
describe_members(json_t *out, const struct member *members, unsigned depth)
{
	for (; members != NULL && members->name != NULL && depth < DEPTH_MOST; members++) {
		json_t *member = json_pack("{s:s,s:s,s:s,s:s,s:b,s:I,s:I,s:s*,s:o,s:o}", "name",
			members->name, "location", PLACES[members->at], "wire",
			members->wire != NULL ? members->wire : members->name, "type",
			TYPES[members->type], "required", members->required, "min",
			(json_int_t)members->least, "max", (json_int_t)members->most, "pattern",
			members->pattern != NULL ? members->pattern->aws : NULL, "values",
			describe_values(members->values), "members",
			describe_members(json_array(), members->members, depth + 1));

		if (json_array_append_new(out, member) != 0) {
			json_decref(out);
			return NULL;
		}
	}
	return out;
}

json_t *
dispatch_describe(const struct op *const *tables)
{
	json_t *out = json_array();

	for (; *tables != NULL; tables++)
		for (const struct op *op = *tables; op->name != NULL; op++) {
			json_t *members = describe_members(json_array(), op->members, 0);

			members = members != NULL ? describe_members(members, page_members(op), 0)
			                          : NULL;
			if (json_array_append_new(
				    out, json_pack("{s:s,s:s,s:s,s:b,s:o}", "name", op->name,
						 "method", op->method, "path", op->path, "writes",
						 op->tx == TX_WRITE, "members", members)) != 0) {
				json_decref(out);
				return NULL;
			}
		}
	return out;
}
