#include "server/cli/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/cli/client.h"
#include "server/cli/local.h"
#include "server/http/request.h"

/* sysexits.h; 1 to 3 are findings. */
#define EXIT_USAGE 64
/* The server's checks end by themselves before: each statement and call of them is bounded. */
#define SERVER_TIMEOUT_MS 60000
#define PATH_BYTES (CONFIG_TEXT_BYTES + 32)

static const char USAGE[] = "jitrca doctor [--json] [--remote] [OPTION]...";
static const char ABOUT[] =
	"Says what is wrong, or will be, and what to do. Checks what can be seen from this "
	"machine, and asks\n"
	"the server for the rest, as JITRCA_URL, JITRCA_CA_BUNDLE and JITRCA_ADMIN_TOKEN say; "
	"unless they are\n"
	"set, as the configuration and data_dir do.\n\n"
	"Exit status: 0 all is well (there may be notes); 1 there are warnings; 2 something is "
	"broken, or the\n"
	"server does not answer; 3 nothing worse than a check that could not be made; 64 misused.";

struct choice {
	const char *config, *url, *ca_bundle, *token_file;
	bool json, remote;
};

/* What was found, with where. */
struct round {
	struct doctor here, server;
	bool has_config;
	struct config config;
};

/* ---- the server's half ---- */

/* What the environment does not say, the files that `jitrca init` made do. */
static void
find_server(struct client_setup *setup, const struct choice *choice, const struct round *round,
	char bundle[PATH_BYTES], char token[PATH_BYTES])
{
	*setup = (struct client_setup){ .url = choice->url, .ca_bundle = choice->ca_bundle,
		.token_file = choice->token_file, .timeout_ms = SERVER_TIMEOUT_MS };
	if (setup->url == NULL)
		setup->url = getenv("JITRCA_URL");
	if (setup->ca_bundle == NULL)
		setup->ca_bundle = getenv("JITRCA_CA_BUNDLE");
	if (!round->has_config)
		return;
	if (setup->url == NULL)
		setup->url = round->config.public_url;
	(void)snprintf(bundle, PATH_BYTES, "%s/keys/root.crt", round->config.data_dir);
	if (setup->ca_bundle == NULL && access(bundle, R_OK) == 0)
		setup->ca_bundle = bundle;
	(void)snprintf(token, PATH_BYTES, "%s/admin.token", round->config.data_dir);
	if (setup->token_file == NULL && getenv("JITRCA_ADMIN_TOKEN") == NULL && access(token,
		R_OK) == 0)
		setup->token_file = token;
}

static const char *
member(const json_t *json, const char *name)
{
	return json_string_value(json_object_get(json, name));
}

static enum status
read_findings(struct doctor *doctor, const json_t *answer, struct err *err)
{
	const json_t *list = json_object_get(answer, "findings");
	const json_t *finding;
	size_t i;

	json_array_foreach(list, i, finding) {
		const char *name = member(finding, "severity");
		const char *check = member(finding, "check");
		const char *text = member(finding, "finding");
		enum doctor_severity severity;

		if (name == NULL || check == NULL || text == NULL || !doctor_severity_parse(&severity, name))
			return err_set(err, ERR_UNAVAILABLE, "answer_unknown",
				"findings[%zu]: severity, check and finding wanted", i);
		doctor_say(doctor, severity, check, member(finding, "what_to_do"), "%s", text);
	}
	return json_array_size(list) > 0 ? OK :
		err_set(err, ERR_UNAVAILABLE, "answer_unknown", "the answer has no findings");
}

/* A server that answers, but not that: its code is kept. */
static enum status
ask(struct doctor *doctor, const struct client_setup *setup, struct err *err)
{
	const struct client_call call = { .method = "GET", .path = "/v1/doctor" };
	own_struct(client_answer) answer = { .status = 0 };
	own(json_t) json = NULL;
	const char *code;

	TRY(client_run(setup, &call, &answer, err));
	json = json_loadb((const char *)answer.body.data, answer.body.len, 0, NULL);
	if (answer.status == 200)
		return read_findings(doctor, json, err);
	code = member(json, "code");
	return err_set(err, ERR_DENIED, code != NULL ? code : "answer_unknown", "%s",
		code != NULL && member(json, "detail") != NULL ? member(json, "detail") :
			"the answer is not one of jitrca's");
}

static void
ask_server(struct round *round, const struct choice *choice)
{
	char bundle[PATH_BYTES];
	char token[PATH_BYTES];
	struct client_setup setup;
	struct err err;

	find_server(&setup, choice, round, bundle, token);
	if (setup.url == NULL)
		doctor_say(&round->server, DOCTOR_UNKNOWN, "server",
			"Set JITRCA_URL, or give --url or --config.",
			"could not be asked: no URL is known");
	else if (ask(&round->server, &setup, &err) == OK)
		return;
	else if (err.status == ERR_DENIED)
		doctor_say(&round->server, DOCTOR_UNKNOWN, "server",
			"Give an administrator's token: JITRCA_ADMIN_TOKEN, or --token-file. "
			"`jitrca admin recover` makes one.",
			"%.200s answers, but not to this: %s (%s)", setup.url, err.text, err.code);
	else
		doctor_say(&round->server, DOCTOR_ERROR, "server",
			"See that `jitrca serve` runs there, what its log says, and that the "
			"address and the CA bundle are right.", "%s (%s)", err.text, err.code);
}

/* ---- how it is shown ---- */

/* Control characters are not passed on to the terminal. */
static void
put(const char *text)
{
	for (; *text != '\0'; text++)
		(void)fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, stdout);
}

static void
print_rows(const struct doctor *doctor, const char *where)
{
	const json_t *finding;
	size_t i;

	json_array_foreach(doctor->findings, i, finding) {
		const char *what_to_do = member(finding, "what_to_do");

		printf("%-9s %-6s %-16s ", member(finding, "severity"), where, member(finding,
			"check"));
		put(member(finding, "finding"));
		if (what_to_do != NULL) {
			printf("\n%34s", "-> ");
			put(what_to_do);
		}
		(void)fputc('\n', stdout);
	}
}

static enum status
add_rows(json_t *list, const struct doctor *doctor, const char *where, struct err *err)
{
	json_t *finding;
	size_t i;

	json_array_foreach(doctor->findings, i, finding)
		if (json_object_set_new(finding, "where", json_string(where)) != 0 ||
			json_array_append(list, finding) != 0)
			return err_memory(err);
	return OK;
}

static enum status
print_json(const struct round *round, enum doctor_severity worst, struct err *err)
{
	own(json_t) list = json_array();
	own(json_t) whole = NULL;

	TRY(add_rows(list, &round->here, "here", err));
	TRY(add_rows(list, &round->server, "server", err));
	whole = json_pack("{s:s, s:O}", "status", doctor_severity_name(worst), "findings", list);
	if (whole == NULL)
		return err_memory(err);
	(void)json_dumpf(whole, stdout, JSON_INDENT(2));
	(void)fputc('\n', stdout);
	return OK;
}

static enum status
show(const struct round *round, const struct choice *choice, enum doctor_severity worst, struct err *err)
{
	TRY(doctor_complete(&round->here, err));
	TRY(doctor_complete(&round->server, err));
	if (choice->json) {
		TRY(print_json(round, worst, err));
	} else {
		printf("%-9s %-6s %-16s %s\n", "SEVERITY", "WHERE", "CHECK", "FINDING, AND WHAT TO "
			"DO");
		print_rows(&round->here, "here");
		print_rows(&round->server, "server");
	}
	return fflush(stdout) == 0 ? OK :
		err_set(err, ERR_UNAVAILABLE, "answer_not_kept", "the findings cannot be written");
}

static enum status
run(struct round *round, const struct choice *choice, enum doctor_severity *worst, struct err *err)
{
	TRY(doctor_begin(&round->here, err));
	TRY(doctor_begin(&round->server, err));
	if (!choice->remote)
		round->has_config = doctor_look_around(&round->here, local_config_path(choice->config),
			&round->config);
	ask_server(round, choice);
	*worst = round->here.worst > round->server.worst ? round->here.worst : round->server.worst;
	return show(round, choice, *worst, err);
}

int
local_doctor(int argc, char **argv)
{
	static struct round round; /* one doctor a process; a configuration is large */
	struct choice choice = { .json = false };
	const struct local_option options[] = {
		{ .name = "config", .value = "FILE", .about = "the configuration",
			.text = &choice.config },
		{ .name = "url", .value = "URL", .about = "of the server's station listener "
			"(JITRCA_URL, public_url)",
		  .text = &choice.url },
		{ .name = "ca-bundle", .value = "FILE", .about = "what its certificate is checked "
			"against, PEM",
		  .text = &choice.ca_bundle },
		{ .name = "token-file", .value = "FILE", .about = "an administrator's token",
		  .text = &choice.token_file },
		{ .name = "json", .about = "the findings as JSON", .flag = &choice.json },
		{ .name = "remote", .about = "only ask the server, for who is on another machine",
		  .flag = &choice.remote },
		{ .name = NULL },
	};
	enum doctor_severity worst = DOCTOR_UNSET;
	enum status status;
	struct err err;
	int exit_status;

	if (!local_options(argc, argv, USAGE, ABOUT, options, &exit_status))
		return exit_status == 0 ? 0 : EXIT_USAGE;
	status = run(&round, &choice, &worst, &err);
	doctor_free(&round.here);
	doctor_free(&round.server);
	if (status == OK)
		return doctor_exit_status(worst);
	(void)local_failed("doctor", &err);
	return doctor_exit_status(DOCTOR_UNSET);
}
