/*
 * The local IoT Core of `jitrca dev`: its keys, its process, its broker, and our CA registered with it.
 * Certificates and registration go the way that an operator goes: through the command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/entropy.h"
#include "ca/file.h"
#include "ca/secret.h"
#include "server/cli/broker_conf.h"
#include "server/cli/dev.h"

#define BROKER_PROGRAM "/usr/sbin/mosquitto"
#define BROKER_PLUGIN "jitrca-mosquitto.so"
#define STOP_LIMIT_MS 10000
#define READY_LIMIT_MS 15000
#define STEP_MS 20
/* The broker's certificate lives for 90 days (profile server); a start that finds it older than this
 * makes another. */
#define CERTIFICATE_AGE_MAX_S (30 * 86400)

static void
path_in(char out[DEV_FILE_BYTES], const struct dev_iot *iot, const char *name)
{
	(void)snprintf(out, DEV_FILE_BYTES, "%s/%s", iot->dir, name);
}

static enum status
write_file(const struct dev_iot *iot, const char *name, const char *text, struct err *err)
{
	char path[DEV_FILE_BYTES];

	path_in(path, iot, name);
	(void)unlink(path);
	return file_create(path, view_text(text), 0600, err);
}

/* ---- keys: made once ---- */

/* As AWS has them: twenty capital letters and digits, and forty characters. */
static enum status
draw_keys(struct dev_iot *iot, struct err *err)
{
	static const char CAPITALS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
	uint8_t octets[16];
	char token[TOKEN_TEXT_BYTES];

	TRY(entropy_fill(&ENTROPY_SYSTEM, octets, sizeof(octets), err));
	memcpy(iot->access_key, "AKIA", 4);
	for (size_t i = 0; i < sizeof(octets); i++)
		iot->access_key[4 + i] = CAPITALS[octets[i] % 32];
	iot->access_key[20] = '\0';
	TRY(token_draw(token, err));
	(void)snprintf(iot->secret_key, sizeof(iot->secret_key), "%.40s", token + 4);
	explicit_bzero(token, sizeof(token));
	return OK;
}

static enum status
read_keys(struct dev_iot *iot, const char *path, struct err *err)
{
	own_struct(secret) kept = { NULL, 0 };
	char text[128];
	int found;

	TRY(secret_read_file(&kept, path, sizeof(text) - 1, err));
	(void)snprintf(text, sizeof(text), "%.*s", (int)kept.len, (const char *)kept.data);
	found = sscanf(text, "%20s %40s", iot->access_key, iot->secret_key);
	explicit_bzero(text, sizeof(text));
	if (found != 2)
		return err_set(err, ERR_ARGUMENT, "dev_program",
			"%s: an access key and a secret key wanted; remove it for new ones", path);
	return OK;
}

/* For the local core, and as AWS's own clients read them. */
static enum status
write_keys(struct dev_iot *iot, struct err *err)
{
	char text[256];
	enum status status;

	(void)snprintf(text, sizeof(text), "%s %s\n", iot->access_key, iot->secret_key);
	status = write_file(iot, "iotcore.keys", text, err);
	(void)snprintf(text, sizeof(text),
		"[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", iot->access_key,
		iot->secret_key);
	if (status == OK)
		status = write_file(iot, "aws-credentials", text, err);
	explicit_bzero(text, sizeof(text));
	return status;
}

static enum status
write_targets(const struct dev_iot *iot, struct err *err)
{
	char text[4 * DEV_FILE_BYTES];

	(void)snprintf(text, sizeof(text),
		"[\n"
		"\t{\n"
		"\t\t\"name\": \"local\",\n"
		"\t\t\"region\": \"" DEV_IOT_REGION "\",\n"
		"\t\t\"account\": \"" DEV_IOT_ACCOUNT "\",\n"
		"\t\t\"endpoint_url\": \"http://127.0.0.1:%d\",\n"
		"\t\t\"certificate_mode\": \"DEFAULT\",\n"
		"\t\t\"quotas\": { \"*\": 1000 },\n"
		"\t\t\"mqtt\": { \"host\": \"127.0.0.1\", \"port\": %d, \"shared\": false,\n"
		"\t\t\t\"ca_file\": \"%s/data/keys/root.crt\" }\n"
		"\t}\n"
		"]\n",
		iot->port_core, iot->port_broker, iot->dir);
	return write_file(iot, "iot-targets.json", text, err);
}

enum status
dev_iot_prepare(struct dev_iot *iot, struct err *err)
{
	static const char *const OURS[] = { "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONFIG_FILE" };
	char path[DEV_FILE_BYTES];

	path_in(path, iot, "iotcore.keys");
	if (file_exists(path))
		TRY(read_keys(iot, path, err));
	else
		TRY(draw_keys(iot, err));
	TRY(write_keys(iot, err));
	/* What the caller's own account is called must not lead us there. */
	for (size_t i = 0; i < COUNT_OF(OURS); i++)
		(void)unsetenv(OURS[i]);
	path_in(path, iot, "aws-credentials");
	if (setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1) != 0)
		return err_memory(err);
	return write_targets(iot, err);
}

/* ---- processes ---- */

static void
sleep_ms(int ms)
{
	const struct timespec step = { ms / 1000, ms % 1000 * 1000000L };

	(void)nanosleep(&step, NULL);
}

/* Neither tells when it listens: its port does. */
static enum status
wait_port(pid_t *pid, int port, const char *what, const char *log, struct err *err)
{
	int64_t end_us = clock_mono_us() + INT64_C(1000) * READY_LIMIT_MS;

	while (!dev_port_answers(port)) {
		if (waitpid(*pid, NULL, WNOHANG) == *pid) {
			*pid = 0;
			return err_set(err, ERR_UNAVAILABLE, "dev_program",
				"%s did not start; see %s", what, log);
		}
		if (clock_mono_us() > end_us)
			return err_set(err, ERR_UNAVAILABLE, "dev_program",
				"%s did not listen in time; see %s", what, log);
		sleep_ms(STEP_MS);
	}
	return OK;
}

enum status
dev_iot_start_core(struct dev_iot *iot, struct err *err)
{
	char log[DEV_FILE_BYTES];
	const char *const argv[] = { iot->self, "iotcore", "--config", iot->config_path, NULL };
	const struct dev_program program = {
		.argv = argv, .end_with = SIGTERM, .output = log, .own_group = true
	};

	path_in(log, iot, "iotcore.log");
	TRY(dev_spawn(&program, &iot->core, err));
	return wait_port(&iot->core, iot->port_core, "the local IoT Core", log, err);
}

/* ---- the broker ---- */

static bool
is_young(const char *path)
{
	struct stat about;

	return stat(path, &about) == 0 &&
	       clock_wall_s(&CLOCK_SYSTEM) - about.st_mtime < CERTIFICATE_AGE_MAX_S;
}

/* A key made by openssl, a certificate asked for as an administrator. */
static enum status
make_certificate(const struct dev_iot *iot, struct err *err)
{
	char key[DEV_FILE_BYTES];
	char csr[DEV_FILE_BYTES];
	char certificate[DEV_FILE_BYTES];
	char token[DEV_FILE_BYTES];
	char log[DEV_FILE_BYTES];
	const char *const ask_argv[] = { "/usr/bin/openssl", "req", "-new", "-newkey", "ec",
		"-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=broker", "-keyout",
		key, "-out", csr, NULL };
	const char *const issue_argv[] = { iot->self, "cert", "issue", "--profile", "server",
		"--device-id", "broker", "--attribute", "dns=localhost", "--attribute",
		"ip=127.0.0.1", "--csr", csr, "--out", certificate, "--token-file", token, NULL };
	const struct dev_program ask = { .argv = ask_argv, .output = log };
	const struct dev_program issue = { .argv = issue_argv, .output = log };

	path_in(key, iot, "broker.key");
	path_in(csr, iot, "broker.csr");
	path_in(certificate, iot, "broker.crt");
	path_in(token, iot, "data/admin.token");
	path_in(log, iot, "broker.log");
	if (file_exists(key) && is_young(certificate))
		return OK;
	(void)unlink(certificate);
	TRY(dev_run(&ask, err));
	return dev_run(&issue, err);
}

/* The plugin lies beside the program, or where `make install` puts it. */
static enum status
find_plugin(char out[DEV_FILE_BYTES], const struct dev_iot *iot, struct err *err)
{
	static const char *const PLACES[] = { "", "/../lib/jitrca" };
	int dir_len = (int)(strrchr(iot->self, '/') - iot->self);

	for (size_t i = 0; i < COUNT_OF(PLACES); i++) {
		(void)snprintf(out, DEV_FILE_BYTES, "%.*s%s/" BROKER_PLUGIN, dir_len, iot->self,
			PLACES[i]);
		if (file_exists(out))
			return OK;
	}
	return err_set(err, ERR_NOT_FOUND, "dev_program",
		BROKER_PLUGIN ": not beside %s; run make build, or make install", iot->self);
}

struct replacement {
	const char *name; /* of @NAME@ */
	const char *text;
};

/* The template with each @NAME@ replaced; its comment speaks of @NAMES@, which stays. */
static enum status
fill_template(struct buf *out, const struct replacement *replacements, struct err *err)
{
	const char *at = (const char *)BROKER_CONF;
	const char *mark;

	while ((mark = strchr(at, '@')) != NULL) {
		const struct replacement *r = replacements;
		size_t len = strcspn(mark + 1, "@");

		while (r->name != NULL && (strlen(r->name) != len || memcmp(r->name, mark + 1, len) != 0))
			r++;
		TRY(buf_add(out, at, (size_t)(mark - at), err));
		TRY(buf_text(out, r->name != NULL ? r->text : "@", err));
		at = r->name != NULL ? mark + len + 2 : mark + 1;
	}
	return buf_text(out, at, err);
}

static enum status
write_broker_conf(const struct dev_iot *iot, struct err *err)
{
	char ca[DEV_FILE_BYTES], certificate[DEV_FILE_BYTES], key[DEV_FILE_BYTES];
	char plugin[DEV_FILE_BYTES], url[DEV_FILE_BYTES], data[DEV_FILE_BYTES], conf[DEV_FILE_BYTES];
	char port[16];
	/* Started as root, Mosquitto would become its own user, who may not read what is ours. */
	const struct replacement replacements[] = {
		{ "USER", geteuid() == 0 ? "root" : "mosquitto" }, { "PORT", port },
		{ "ADDRESS", "127.0.0.1" }, { "CAFILE", ca }, { "CERTFILE", certificate },
		{ "KEYFILE", key }, { "PLUGIN", plugin }, { "DATABASE_URL_FILE", url },
		{ "DATA", data }, { NULL, NULL },
	};
	own_struct(buf) text = { .limit_bytes = 64 * 1024 };

	(void)snprintf(port, sizeof(port), "%d", iot->port_broker);
	path_in(ca, iot, "data/keys/root.crt");
	path_in(certificate, iot, "broker.crt");
	path_in(key, iot, "broker.key");
	path_in(url, iot, "database-url");
	path_in(data, iot, "broker");
	path_in(conf, iot, "broker.conf");
	TRY(find_plugin(plugin, iot, err));
	TRY(directory_make(data, err));
	TRY(write_file(iot, "database-url", iot->database_url, err));
	TRY(fill_template(&text, replacements, err));
	(void)unlink(conf);
	return file_create(conf, buf_view(&text), 0600, err);
}

enum status
dev_iot_start_broker(struct dev_iot *iot, struct err *err)
{
	char log[DEV_FILE_BYTES];
	char conf[DEV_FILE_BYTES];
	const char *const argv[] = { BROKER_PROGRAM, "-c", conf, NULL };
	const struct dev_program program = {
		.argv = argv, .end_with = SIGTERM, .output = log, .own_group = true
	};

	path_in(log, iot, "broker.log");
	path_in(conf, iot, "broker.conf");
	if (access(BROKER_PROGRAM, X_OK) != 0)
		return err_set(err, ERR_NOT_FOUND, "dev_program",
			BROKER_PROGRAM " is not installed: apt-get install mosquitto, or: make deps");
	TRY(make_certificate(iot, err));
	TRY(write_broker_conf(iot, err));
	TRY(dev_spawn(&program, &iot->broker, err));
	return wait_port(&iot->broker, iot->port_broker, "the broker", log, err);
}

enum status
dev_iot_register_ca(const struct dev_iot *iot, struct err *err)
{
	char token[DEV_FILE_BYTES];
	char log[DEV_FILE_BYTES];
	const char *const argv[] = { iot->self, "iot", "register-ca", iot->ca_id, "--token-file",
		token, NULL };
	const struct dev_program program = { .argv = argv, .output = log };

	path_in(token, iot, "data/admin.token");
	path_in(log, iot, "iot.log");
	return dev_run(&program, err);
}

void
dev_iot_stop(struct dev_iot *iot)
{
	dev_end(&iot->broker, SIGTERM, STOP_LIMIT_MS);
	dev_end(&iot->core, SIGTERM, STOP_LIMIT_MS);
}

enum status
dev_iot_check(struct dev_iot *iot, struct err *err)
{
	if (iot->core > 0 && waitpid(iot->core, NULL, WNOHANG) == iot->core) {
		iot->core = 0;
		return err_set(err, ERR_UNAVAILABLE, "dev_program",
			"the local IoT Core has ended; see %s/iotcore.log", iot->dir);
	}
	if (iot->broker > 0 && waitpid(iot->broker, NULL, WNOHANG) == iot->broker) {
		iot->broker = 0;
		return err_set(err, ERR_UNAVAILABLE, "dev_program",
			"the broker has ended; see %s/broker.log", iot->dir);
	}
	return OK;
}
