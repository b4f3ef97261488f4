/*
 * The way of a call: signature, quota, members, transaction, handler, answer. One handler of the
 * HTTP room serves every operation; the route says which.
 */
#include "base/mem.h"
#include "server/iotcore/internal.h"
#include "server/iotcore/member.h"

/* A policy document of the model's size, escaped. */
#define BODY_MAX_BYTES (1024 * 1024)
#define QUERY_NAMES_MAX 16

struct dispatch {
	size_t count;
	struct route *routes; /* ended by one without method */
	const char *(*queries)[QUERY_NAMES_MAX + 1];
};

/* ---- members ---- */

static void
check_members(const struct call *call, const struct member *members, struct member_report *report)
{
	for (; members != NULL && members->name != NULL; members++)
		switch (members->at) {
		case AT_PATH:
		case AT_QUERY:
		case AT_HEADER:
			member_check_text(
				members, call_member_text(call->request, members), report);
			break;
		case AT_BODY:
			member_check_json(
				members, json_object_get(call->body, members->name), report);
			break;
		case AT_PAYLOAD: member_check_json(members, call->body, report); break;
		case AT_UNSET: break;
		}
}

static enum status
read_body(struct call *call, struct err *err)
{
	if (request_body(call->request).len == 0)
		call->body = json_object();
	else
		TRY(request_json(call->request, &call->body, err));
	return call->body != NULL ? OK : err_memory(err);
}

static enum status
check_call(struct call *call, struct err *err)
{
	struct member_report report = { .count = 0 };

	TRY(read_body(call, err));
	check_members(call, call->op->members, &report);
	check_members(call, page_members(call->op), &report);
	TRY(member_report_end(&report, err));
	return page_read(call, err);
}

/* ---- the call ---- */

static enum status
in_transaction(struct call *call, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	enum status status;

	TRY(db_tx_begin(&tx, call->core->pool, err));
	/* cppcheck-suppress autoVariables; taken back before tx goes */
	call->tx = &tx;
	status = call->op->handle(call, err);
	call->tx = NULL;
	return status == OK ? db_tx_commit(&tx, err) : status;
}

static enum status
run_handler(struct call *call, struct core_process *process, struct err *err)
{
	if (call->op->tx == TX_NONE)
		return call->op->handle(call, err);
	if (!atomic_load(&process->ready))
		return iotcore_error(
			err, "ServiceUnavailableException", "The database is not there yet.");
	return call->op->tx == TX_WRITE ? core_write(&process->writes, call, err)
	                                : in_transaction(call, err);
}

static enum status
may(const struct call *call, struct err *err)
{
	const struct core_user *user = call->user;

	if (user == NULL || !user->readonly || call->op->tx != TX_WRITE)
		return OK;
	return iotcore_error(err, "AccessDeniedException",
		"User: arn:aws:iam::%s:user/%s is not authorized to perform: iot:%s",
		call->core->account, user->access_key, call->op->name);
}

static enum status
serve(struct call *call, struct core_process *process, struct err *err)
{
	if (!call->op->anyone)
		TRY(core_verify(&call->user, call->request, call->core, process->users, err));
	if (call->user != NULL)
		request_set_actor(call->request, call->user->access_key);
	TRY(may(call, err));
	TRY(core_quotas_take(
		process->quotas, call->op->name, clock_mono_ms(call->core->clock), err));
	TRY(check_call(call, err));
	return run_handler(call, process, err);
}

static enum status
answer(struct call *call, struct err *err)
{
	json_t *reply = call->reply != NULL ? give(call->reply) : json_object();

	TRY(request_reply_json(call->request, 200, reply, err));
	return core_reply_request_id(call->request, err);
}

static enum status
run_op(struct app *app, struct request *request, struct err *err)
{
	struct core_process *process = request_context(request);
	struct call *call = request_alloc(request, sizeof(*call));
	enum status status;

	(void)app;
	if (call == NULL)
		return err_memory(err);
	*call = (struct call){ .core = &process->core,
		.op = request_route(request)->data,
		.request = request,
		.now_s = clock_wall_s(process->core.clock) };
	request_set_note(request, call);
	status = serve(call, process, err);
	if (status == OK)
		status = answer(call, err);
	json_decref(call->reply);
	json_decref(call->body);
	call->reply = call->body = NULL;
	return status;
}

/* ---- the routes ---- */

static enum status
bad(struct err *err, const struct op *op, const char *why)
{
	return err_set(err, ERR_INTERNAL, "op_invalid", "operation %s: %s", op->name, why);
}

/* A structure's members have no place of their own, and what it holds is of a known type. */
static bool
is_whole(const struct member *member)
{
	switch (member->type) {
	case MEMBER_LIST: return member->members == NULL || member->members[0].name != NULL;
	case MEMBER_MAP:
		return member->members == NULL ||
		       (member->members[0].type == MEMBER_TEXT && member->members[1].name != NULL);
	case MEMBER_TEXT:
	case MEMBER_FLAG:
	case MEMBER_NUMBER:
	case MEMBER_REAL:
	case MEMBER_TIME:
	case MEMBER_STRUCT: return true;
	case MEMBER_UNSET: break;
	}
	return false;
}

static enum status
check_member(const struct op *op, const struct member *member, struct err *err)
{
	bool nested = member->type == MEMBER_STRUCT || member->type == MEMBER_LIST ||
	              member->type == MEMBER_MAP || member->type == MEMBER_REAL;

	if (member->at == AT_UNSET)
		return bad(err, op, "a member without a place");
	if (!is_whole(member))
		return bad(err, op, "a member whose type is not whole");
	if (nested && member->at != AT_BODY && member->at != AT_PAYLOAD)
		return bad(err, op, "a structure outside of the body");
	return OK;
}

static enum status
add_queries(const char **names, const struct op *op, const struct member *members, struct err *err)
{
	size_t count = 0;

	while (names[count] != NULL)
		count++;
	for (; members != NULL && members->name != NULL; members++) {
		TRY(check_member(op, members, err));
		if (members->at != AT_QUERY)
			continue;
		if (count == QUERY_NAMES_MAX)
			return bad(err, op, "too many query parameters");
		names[count++] = members->wire != NULL ? members->wire : members->name;
	}
	return OK;
}

static enum status
make_route(struct route *route, const char **names, const struct op *op, struct err *err)
{
	if (op->tx == TX_UNSET || op->handle == NULL)
		return bad(err, op, "transaction and handler wanted");
	TRY(add_queries(names, op, op->members, err));
	TRY(add_queries(names, op, page_members(op), err));
	*route = (struct route){ .method = op->method,
		.path = op->path,
		.handle = run_op,
		.roles = ROLE_ANYONE, /* core_verify: it needs the body, too */
		.listeners = LISTENER_HTTP | LISTENER_HTTPS,
		.body_max_bytes = BODY_MAX_BYTES,
		.query = names,
		.lenient = true,
		.data = op };
	return OK;
}

typedef struct dispatch dispatch_handle;
OWNER(dispatch_handle, dispatch_free)

enum status
dispatch_new(struct dispatch **out, const struct op *const *tables, struct err *err)
{
	own(dispatch_handle) dispatch = mem_zalloc(sizeof(*dispatch));
	size_t count = 0;

	if (dispatch == NULL)
		return err_memory(err);
	for (const struct op *const *table = tables; *table != NULL; table++)
		for (const struct op *op = *table; op->name != NULL; op++)
			count++;
	dispatch->routes = mem_array(count + 1, sizeof(*dispatch->routes));
	dispatch->queries = mem_array(count + 1, sizeof(*dispatch->queries));
	if (dispatch->routes == NULL || dispatch->queries == NULL)
		return err_memory(err);
	for (const struct op *const *table = tables; *table != NULL; table++)
		for (const struct op *op = *table; op->name != NULL; op++) {
			size_t at = dispatch->count++;

			TRY(make_route(&dispatch->routes[at], dispatch->queries[at], op, err));
		}
	*out = give(dispatch);
	return OK;
}

const struct route *
dispatch_routes(const struct dispatch *dispatch)
{
	return dispatch->routes;
}

void
dispatch_free(struct dispatch *dispatch)
{
	if (dispatch == NULL)
		return;
	mem_free(dispatch->routes);
	mem_free(dispatch->queries);
	mem_free(dispatch);
}
