#include "server/iot/aws_credentials.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/iot/aws_profile.h"
#include "server/iot/aws_source.h"
#include "server/iot/aws_transport.h"

/* When to ask for new ones, before the end of the old. */
#define ADVISORY_S (15 * 60)
#define MANDATORY_S 60
/* After a refresh that failed while the old ones are good. */
#define RETRY_S 60
#define DOUBT_LEAST_S 5
/* So long a failure is the answer for all who wait: they do not queue to fail one after another. */
#define FAILURE_S 1
#define TEXT_BYTES 1025
#define PATH_BYTES 4096
#define CONNECTIONS 2
#define SESSION_NAME "jitrca"

struct aws_credentials {
	/* Fixed after aws_credentials_new. */
	char profile[TEXT_BYTES]; /* "" unless the configuration named one */
	char region[64];
	char ca_file[PATH_BYTES];
	const char *const *environment;
	const struct clock *clock;
	bool fixed;

	pthread_mutex_t lock; /* all below */
	struct aws_transport *transport; /* made when first needed; then used without the lock */
	pthread_cond_t refreshed;
	bool stopped;
	bool refreshing;
	bool have;
	struct aws_keys keys;
	int64_t fetched_s;
	int64_t retry_s;  /* no advisory refresh before */
	bool doubted;
	struct err failure;  /* what the last refresh without result said, for those who come */
	int64_t failure_until_s;
};

void
aws_keys_free(struct aws_keys *keys)
{
	secret_free(&keys->secret_key);
	secret_free(&keys->session_token);
	explicit_bzero(keys->access_key, sizeof(keys->access_key));
}

static enum status
keys_copy(struct aws_keys *out, const struct aws_keys *from, struct err *err)
{
	*out = (struct aws_keys){ .expires_s = from->expires_s, .source = from->source };
	memcpy(out->access_key, from->access_key, sizeof(out->access_key));
	TRY(secret_copy(&out->secret_key,
		(struct view){ from->secret_key.data, from->secret_key.len }, err));
	if (from->session_token.len == 0)
		return OK;
	return secret_copy(&out->session_token,
		(struct view){ from->session_token.data, from->session_token.len }, err);
}

/* ---- the chain ---- */

/* One walk over the sources; its texts are borrowed from the environment or from its files. */
struct chain {
	struct aws_credentials *credentials;
	struct aws_source source;
	struct secret config_file, credentials_file;
	const char *profile_name;
	bool profile_named; /* by somebody: then it must exist */
};

static void
chain_free(struct chain *chain)
{
	secret_free(&chain->config_file);
	secret_free(&chain->credentials_file);
}
OWNER_STRUCT(chain, chain_free)

static struct view
secret_view(const struct secret *secret)
{
	return (struct view){ secret->data, secret->len };
}

static struct view
environment_view(const struct chain *chain, const char *name)
{
	const char *value = aws_environment(chain->credentials->environment, name);

	return value != NULL ? view_text(value) : (struct view){ NULL, 0 };
}

static const char *
environment(const struct chain *chain, const char *name)
{
	return aws_environment(chain->credentials->environment, name);
}

/* A file that is not there is an empty one. */
static enum status
read_file(struct secret *out, const char *path, struct err *err)
{
	own_struct(secret) whole = { NULL, 0 };
	FILE *file = fopen(path, "re");
	enum status status;
	size_t len = 0;

	if (file == NULL && (errno == ENOENT || errno == ENOTDIR))
		return OK;
	if (file == NULL)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_profile_malformed",
			"one of the shared files is there but cannot be read");
	status = secret_new(&whole, AWS_PROFILE_FILE_MAX_BYTES + 1, err);
	if (status == OK) {
		(void)setvbuf(file, NULL, _IONBF, 0);
		len = fread(whole.data, 1, whole.len, file);
	}
	(void)fclose(file);
	TRY(status);
	if (len > AWS_PROFILE_FILE_MAX_BYTES)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_profile_malformed",
			"a shared file of at most %zu bytes wanted", AWS_PROFILE_FILE_MAX_BYTES);
	return len > 0 ? secret_copy(out, (struct view){ whole.data, len }, err) : OK;
}

static enum status
read_shared_file(struct secret *out, const struct chain *chain, const char *variable,
	const char *name, struct err *err)
{
	const char *given = environment(chain, variable);
	const char *home = environment(chain, "HOME");
	char path[PATH_BYTES];
	int len;

	if (given == NULL && home == NULL)
		return OK;
	if (given != NULL && strncmp(given, "~/", 2) == 0 && home != NULL)
		len = snprintf(path, sizeof(path), "%s%s", home, given + 1);
	else if (given != NULL)
		len = snprintf(path, sizeof(path), "%s", given);
	else
		len = snprintf(path, sizeof(path), "%s/.aws/%s", home, name);
	if (len < 0 || len >= PATH_BYTES)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_profile_malformed", "%s: too long",
			variable);
	return read_file(out, path, err);
}

static enum status
read_profile(struct aws_profile *config, struct aws_profile *credentials, const struct chain *chain,
	const char *name, bool must_exist, struct err *err)
{
	*config = (struct aws_profile){ 0 };
	*credentials = (struct aws_profile){ 0 };
	TRY(aws_profile_read(config, secret_view(&chain->config_file), name, true, err));
	TRY(aws_profile_read(credentials, secret_view(&chain->credentials_file), name, false, err));
	if (must_exist && !config->found && !credentials->found)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_profile_missing",
			"profile %.64s: in neither of the shared files", name);
	return OK;
}

/* The value in the credentials file or else in the config file; as a text, "" if there is none. */
static void
profile_text(char *out, size_t size, const struct aws_profile *config,
	const struct aws_profile *credentials, enum aws_profile_key key)
{
	struct view value =
		credentials->values[key].len > 0 ? credentials->values[key] : config->values[key];

	(void)snprintf(out, size, "%.*s", (int)(value.len < size ? value.len : size),
		value.len > 0 ? (const char *)value.data : "");
}

static bool
has(const struct aws_profile *profile, enum aws_profile_key key)
{
	return profile->values[key].len > 0;
}

static enum status
keys_of_profile(struct aws_keys *out, const char *source, const struct aws_profile *profile,
	struct err *err)
{
	return aws_keys_set(out, source, profile->values[AWS_PROFILE_ACCESS_KEY],
		profile->values[AWS_PROFILE_SECRET_KEY], profile->values[AWS_PROFILE_SESSION_TOKEN],
		(struct view){ NULL, 0 }, err);
}

static bool
environment_has_keys(const struct chain *chain)
{
	return environment(chain, "AWS_ACCESS_KEY_ID") != NULL;
}

static enum status
keys_of_environment(struct aws_keys *out, const struct chain *chain, struct err *err)
{
	struct view token = environment_view(chain, "AWS_SESSION_TOKEN");

	if (token.len == 0)
		token = environment_view(chain, "AWS_SECURITY_TOKEN");
	return aws_keys_set(out, "environment", environment_view(chain, "AWS_ACCESS_KEY_ID"),
		environment_view(chain, "AWS_SECRET_ACCESS_KEY"), token,
		environment_view(chain, "AWS_CREDENTIAL_EXPIRATION"), err);
}

/* The keys that a profile's role is assumed with: source_profile's own, or those of
 * credential_source. */
static enum status
keys_for_role(struct aws_keys *out, const struct chain *chain, const struct aws_profile *config,
	const struct aws_profile *credentials, struct err *err)
{
	struct aws_profile other_config, other_credentials;
	char name[TEXT_BYTES], kind[64];

	profile_text(name, sizeof(name), config, credentials, AWS_PROFILE_SOURCE_PROFILE);
	profile_text(kind, sizeof(kind), config, credentials, AWS_PROFILE_CREDENTIAL_SOURCE);
	if (name[0] != '\0' && kind[0] == '\0') {
		TRY(read_profile(&other_config, &other_credentials, chain, name, true, err));
		if (has(&other_credentials, AWS_PROFILE_ACCESS_KEY))
			return keys_of_profile(out, "credentials file", &other_credentials, err);
		if (has(&other_config, AWS_PROFILE_ACCESS_KEY))
			return keys_of_profile(out, "config file", &other_config, err);
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_unsupported",
			"source_profile: a profile with keys of its own wanted");
	}
	if (name[0] == '\0' && strcmp(kind, "Environment") == 0)
		return keys_of_environment(out, chain, err);
	if (name[0] == '\0' && strcmp(kind, "EcsContainer") == 0)
		return aws_source_container(&chain->source, out, err);
	if (name[0] == '\0' && strcmp(kind, "Ec2InstanceMetadata") == 0)
		return aws_source_instance(&chain->source, out, err);
	return err_set(err, ERR_UNAUTHENTICATED, "aws_profile_malformed",
		"role_arn: source_profile or credential_source (Environment, EcsContainer,"
		" Ec2InstanceMetadata) wanted");
}

static enum status
keys_of_role(struct aws_keys *out, const struct chain *chain, const struct aws_profile *config,
	const struct aws_profile *credentials, struct err *err)
{
	char role[TEXT_BYTES], session[TEXT_BYTES], external_id[TEXT_BYTES], mfa[TEXT_BYTES],
		path[PATH_BYTES];
	own_struct(aws_keys) base = { .source = NULL };

	profile_text(role, sizeof(role), config, credentials, AWS_PROFILE_ROLE_ARN);
	profile_text(session, sizeof(session), config, credentials, AWS_PROFILE_ROLE_SESSION_NAME);
	profile_text(
		external_id, sizeof(external_id), config, credentials, AWS_PROFILE_EXTERNAL_ID);
	profile_text(mfa, sizeof(mfa), config, credentials, AWS_PROFILE_MFA_SERIAL);
	profile_text(path, sizeof(path), config, credentials, AWS_PROFILE_WEB_IDENTITY_TOKEN_FILE);
	if (session[0] == '\0')
		(void)snprintf(session, sizeof(session), SESSION_NAME);
	if (mfa[0] != '\0')
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_unsupported",
			"mfa_serial: a server has nobody to ask for a code");
	if (path[0] != '\0')
		return aws_source_web_identity(&chain->source, role, path, session, out, err);
	TRY(keys_for_role(&base, chain, config, credentials, err));
	return aws_source_assume_role(&chain->source, &base, role, session,
		external_id[0] != '\0' ? external_id : NULL, out, err);
}

static enum status
keys_of_web_identity(struct aws_keys *out, const struct chain *chain, struct err *err)
{
	const char *role = environment(chain, "AWS_ROLE_ARN");
	const char *session = environment(chain, "AWS_ROLE_SESSION_NAME");

	if (role == NULL)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"AWS_WEB_IDENTITY_TOKEN_FILE: AWS_ROLE_ARN wanted beside it");
	return aws_source_web_identity(&chain->source, role,
		environment(chain, "AWS_WEB_IDENTITY_TOKEN_FILE"),
		session != NULL ? session : SESSION_NAME, out, err);
}

/* What no profile gave: the place that the program runs in. */
static enum status
keys_of_place(struct aws_keys *out, const struct chain *chain, struct err *err)
{
	const char *disabled = environment(chain, "AWS_EC2_METADATA_DISABLED");

	if (environment(chain, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != NULL ||
		environment(chain, "AWS_CONTAINER_CREDENTIALS_FULL_URI") != NULL)
		return aws_source_container(&chain->source, out, err);
	if (disabled != NULL && strcasecmp(disabled, "true") == 0)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_missing",
			"neither environment, shared files, web identity nor container give any, "
		        "and instance"
			" metadata is switched off");
	return aws_source_instance(&chain->source, out, err);
}

static enum status
walk(struct aws_keys *out, const struct chain *chain, struct err *err)
{
	struct aws_profile config, credentials;

	if (chain->credentials->profile[0] == '\0' && environment_has_keys(chain))
		return keys_of_environment(out, chain, err);
	TRY(read_profile(
		&config, &credentials, chain, chain->profile_name, chain->profile_named, err));
	if (has(&config, AWS_PROFILE_ROLE_ARN) || has(&credentials, AWS_PROFILE_ROLE_ARN))
		return keys_of_role(out, chain, &config, &credentials, err);
	if (chain->credentials->profile[0] == '\0' &&
		environment(chain, "AWS_WEB_IDENTITY_TOKEN_FILE") != NULL)
		return keys_of_web_identity(out, chain, err);
	if (has(&config, AWS_PROFILE_SSO_START_URL) || has(&config, AWS_PROFILE_SSO_SESSION))
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_unsupported",
			"single sign-on: a server has nobody to sign on; use a role");
	if (has(&credentials, AWS_PROFILE_ACCESS_KEY))
		return keys_of_profile(out, "credentials file", &credentials, err);
	if (has(&config, AWS_PROFILE_CREDENTIAL_PROCESS) ||
		has(&credentials, AWS_PROFILE_CREDENTIAL_PROCESS))
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_unsupported",
			"credential_process: programs are not started; use a role or keys");
	if (has(&config, AWS_PROFILE_ACCESS_KEY))
		return keys_of_profile(out, "config file", &config, err);
	return keys_of_place(out, chain, err);
}

static void
find_region(char out[64], const struct chain *chain)
{
	static const char *const VARIABLES[] = { "AWS_REGION", "AWS_DEFAULT_REGION" };
	struct aws_profile config, credentials;
	struct err ignored; /* what is malformed is found by walk, if it is looked at */

	(void)snprintf(out, 64, "%s", chain->credentials->region);
	for (size_t i = 0; i < COUNT_OF(VARIABLES) && out[0] == '\0'; i++)
		if (environment(chain, VARIABLES[i]) != NULL)
			(void)snprintf(out, 64, "%s", environment(chain, VARIABLES[i]));
	if (out[0] == '\0' && read_profile(&config, &credentials, chain, chain->profile_name, false,
				      &ignored) == OK)
		profile_text(out, 64, &config, &credentials, AWS_PROFILE_REGION);
}

static enum status
fetch(struct aws_credentials *credentials, struct aws_keys *out, struct err *err)
{
	own_struct(chain) chain = { .credentials = credentials };
	const char *profile = aws_environment(credentials->environment, "AWS_PROFILE");
	char region[64];

	if (credentials->profile[0] != '\0')
		profile = credentials->profile;
	chain.profile_named = profile != NULL;
	chain.profile_name = profile != NULL ? profile : "default";
	TRY(read_shared_file(&chain.config_file, &chain, "AWS_CONFIG_FILE", "config", err));
	TRY(read_shared_file(&chain.credentials_file, &chain, "AWS_SHARED_CREDENTIALS_FILE",
		"credentials", err));
	find_region(region, &chain);
	chain.source = (struct aws_source){
		.transport = credentials->transport,
		.environment = credentials->environment,
		.region = region[0] != '\0' ? region : NULL,
		.ca_file = credentials->ca_file[0] != '\0' ? credentials->ca_file : NULL,
		.clock = credentials->clock,
	};
	return walk(out, &chain, err);
}

/* ---- keeping them ---- */

static enum status
allocate(struct aws_credentials **out, struct err *err)
{
	struct aws_credentials *credentials;

	*out = NULL;
	TRY(ca_init(err));
	credentials = mem_zalloc(sizeof(*credentials));
	if (credentials == NULL)
		return err_memory(err);
	credentials->clock = &CLOCK_SYSTEM;
	(void)pthread_mutex_init(&credentials->lock, NULL);
	(void)pthread_cond_init(&credentials->refreshed, NULL);
	*out = credentials;
	return OK;
}

static bool
copy_text(char *out, size_t size, const char *text)
{
	int len = snprintf(out, size, "%s", text != NULL ? text : "");

	return len >= 0 && (size_t)len < size;
}

enum status
aws_credentials_new(struct aws_credentials **out, const struct aws_credentials_config *config,
	struct err *err)
{
	struct aws_credentials *credentials;

	TRY(allocate(&credentials, err));
	if (!copy_text(credentials->profile, sizeof(credentials->profile), config->profile) ||
		!copy_text(credentials->region, sizeof(credentials->region), config->region) ||
		!copy_text(credentials->ca_file, sizeof(credentials->ca_file), config->ca_file)) {
		aws_credentials_free(credentials);
		return err_set(err, ERR_ARGUMENT, "aws_credentials_config",
			"profile, Region or CA file: too long");
	}
	credentials->environment = config->environment;
	if (config->clock != NULL)
		credentials->clock = config->clock;
	*out = credentials;
	return OK;
}

enum status
aws_credentials_fixed(struct aws_credentials **out, const char *access_key, struct view secret_key,
	struct view session_token, struct err *err)
{
	struct aws_credentials *credentials;
	enum status status;

	TRY(allocate(&credentials, err));
	status = aws_keys_set(&credentials->keys, "configuration", view_text(access_key),
		secret_key, session_token, (struct view){ NULL, 0 }, err);
	if (status != OK) {
		aws_credentials_free(credentials);
		return status;
	}
	credentials->have = true;
	credentials->fixed = true;
	*out = credentials;
	return OK;
}

void
aws_credentials_stop(struct aws_credentials *credentials)
{
	(void)pthread_mutex_lock(&credentials->lock);
	credentials->stopped = true;
	if (credentials->transport != NULL)
		aws_transport_stop(credentials->transport);
	(void)pthread_mutex_unlock(&credentials->lock);
}

void
aws_credentials_free(struct aws_credentials *credentials)
{
	if (credentials == NULL)
		return;
	aws_transport_free(credentials->transport);
	aws_keys_free(&credentials->keys);
	(void)pthread_cond_destroy(&credentials->refreshed);
	(void)pthread_mutex_destroy(&credentials->lock);
	mem_free(credentials);
}

/* With the lock: whether the present keys last for another s seconds. */
static bool
good_for(const struct aws_credentials *credentials, int64_t now_s, int64_t s)
{
	return credentials->have &&
		(credentials->keys.expires_s == 0 || now_s + s < credentials->keys.expires_s);
}

/* With the lock: whether to look for new ones now, though the old ones may do. */
static bool
due(const struct aws_credentials *credentials, int64_t now_s)
{
	if (credentials->fixed)
		return false;
	if (!good_for(credentials, now_s, MANDATORY_S))
		return true;
	return now_s >= credentials->retry_s &&
		(credentials->doubted || !good_for(credentials, now_s, ADVISORY_S));
}

/* With the lock, which is released meanwhile. One thread at a time: it set refreshing. */
static enum status
refresh(struct aws_credentials *credentials, struct err *err)
{
	struct aws_keys fresh = { .source = NULL };
	enum status status;
	int64_t now_s;

	if (credentials->stopped)
		return err_set(err, ERR_UNAVAILABLE, "aws_stopped", "the client is being stopped");
	if (credentials->transport == NULL)
		TRY(aws_transport_new(&credentials->transport, CONNECTIONS, err));
	(void)pthread_mutex_unlock(&credentials->lock);
	status = fetch(credentials, &fresh, err);
	now_s = clock_wall_s(credentials->clock);
	if (status == OK && fresh.expires_s != 0 && fresh.expires_s <= now_s)
		status = err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: they have run out already", fresh.source);
	(void)pthread_mutex_lock(&credentials->lock);
	if (status == OK) {
		aws_keys_free(&credentials->keys);
		credentials->keys = fresh;
		credentials->have = true;
		credentials->doubted = false;
		credentials->fetched_s = now_s;
		credentials->retry_s = 0;
		return OK;
	}
	aws_keys_free(&fresh);
	credentials->retry_s = now_s + RETRY_S;
	credentials->failure = *err;
	credentials->failure_until_s = now_s + FAILURE_S;
	log_error(LOG_WARN, "aws_credentials_refresh", NULL, err);
	return status;
}

enum status
aws_credentials_get(struct aws_credentials *credentials, struct aws_keys *out, struct err *err)
{
	enum status status = OK;

	*out = (struct aws_keys){ .source = NULL };
	(void)pthread_mutex_lock(&credentials->lock);
	while (credentials->refreshing &&
		!good_for(credentials, clock_wall_s(credentials->clock), MANDATORY_S))
		(void)pthread_cond_wait(&credentials->refreshed, &credentials->lock);
	if (!good_for(credentials, clock_wall_s(credentials->clock), 0) &&
		clock_wall_s(credentials->clock) < credentials->failure_until_s) {
		*err = credentials->failure;
		status = err->status;
	} else if (!credentials->refreshing && due(credentials, clock_wall_s(credentials->clock))) {
		credentials->refreshing = true;
		status = refresh(credentials, err);
		credentials->refreshing = false;
		(void)pthread_cond_broadcast(&credentials->refreshed);
		/* Old ones that still hold are better than none. */
		if (good_for(credentials, clock_wall_s(credentials->clock), 0))
			status = OK;
	}
	if (status == OK)
		status = keys_copy(out, &credentials->keys, err);
	(void)pthread_mutex_unlock(&credentials->lock);
	return status;
}

void
aws_credentials_doubt(struct aws_credentials *credentials)
{
	(void)pthread_mutex_lock(&credentials->lock);
	if (clock_wall_s(credentials->clock) >= credentials->fetched_s + DOUBT_LEAST_S)
		credentials->doubted = true;
	(void)pthread_mutex_unlock(&credentials->lock);
}
