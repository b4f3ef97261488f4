#include "tests/unit/base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/config.h"

static char path[] = "/tmp/jitrca-test-config-XXXXXX";

static int
make_file(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	if (fd < 0)
		return -1;
	return close(fd);
}

static int
drop_file(void **state)
{
	(void)state;
	return unlink(path);
}

static void
write_text(const char *text)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void
defaults_need_no_file(void **state)
{
	struct config config;
	struct err err;

	(void)state;
	assert_int_equal(config_load(&config, NULL, &err), OK);
	assert_int_equal(config.database_connections, 8);
	assert_int_equal(config.crl_debounce_ms, 200);
	assert_int_equal(config.crl_full_immediate_max_bytes, 1 << 20);
	assert_int_equal(config.idempotency_retention_s, 90 * 86400);
	assert_int_equal(config.event_retention_s, 400 * 86400);
	assert_string_equal(config.issuing_ca, "issuing-1");
	assert_int_equal(config.log_level, LOG_INFO);
}

static void
values_are_read_with_their_units(void **state)
{
	struct config config;
	struct err err;

	(void)state;
	write_text("# a comment\n"
		   "\n"
		   "  data_dir =  /srv/with space  \n"
		   "https=[::1]:9443\n"
		   "stations = 127.0.0.1:9444\n"
		   "http = off\n"
		   "crl_validity = 10d\n"
		   "crl_refresh = 36h\n"
		   "crl_debounce = 50ms\n"
		   "idle_timeout = 2m\n"
		   "body_max = 32KiB\n"
		   "upload_max = 16777216\n"
		   "user_signer =\n"
		   "log_level = warn"); /* without a last newline */
	assert_int_equal(config_load(&config, path, &err), OK);
	assert_string_equal(config.data_dir, "/srv/with space");
	assert_string_equal(config.https.address, "::1");
	assert_int_equal(config.https.port, 9443);
	assert_string_equal(config.stations.address, "127.0.0.1");
	assert_string_equal(config.http.address, "");
	assert_int_equal(config.crl_validity_s, 10 * 86400);
	assert_int_equal(config.crl_refresh_s, 36 * 3600);
	assert_int_equal(config.crl_debounce_ms, 50);
	assert_int_equal(config.idle_timeout_ms, 120000);
	assert_int_equal(config.body_max_bytes, 32 * 1024);
	assert_int_equal(config.upload_max_bytes, 16 << 20);
	assert_int_equal(config.log_level, LOG_WARN);
}

static void
bad_files_are_refused_with_their_line(void **state)
{
	static const struct {
		const char *text, *want_code, *want_in_text;
	} CASES[] = {
		{ "data_dir\n", "config_line", ":1: KEY = VALUE wanted" },
		{ "\n\ndata_dri = /x\n", "config_key_unknown",
			":3: there is no key 'data_dri'; the nearest is 'data_dir'" },
		{ "DATA_DIR = /x\n", "config_key_unknown", "'DATA_DIR'" },
		{ "data_dir = /x\ndata_dir = /x\n", "config_key_repeated", ":2: data_dir" },
		{ "data_dir =\n", "config_value", ":1: data_dir: a path wanted" },
		{ "database_connections = 2\n", "config_value", "3 to 200 wanted, '2' found" },
		{ "database_connections = 8 connections\n", "config_value",
			"a whole number wanted" },
		{ "database_connections = 0x10\n", "config_value", "a whole number wanted" },
		{ "database_connections = -8\n", "config_value", "a whole number wanted" },
		{ "database_connections = 99999999999999999999\n", "config_value",
			"a whole number wanted" },
		{ "database_url =\n", "config_value", "connection string" },
		{ "body_max = 1MB\n", "config_value", "a size such as" },
		{ "body_max = 1 MiB\n", "config_value", "a size such as" },
		{ "body_max = 9007199254740993GiB\n", "config_value", "a size such as" },
		{ "body_max = 1\n", "config_value", "octets wanted" },
		{ "crl_validity = 7\n", "config_value", "a duration such as" },
		{ "crl_validity = 7w\n", "config_value", "a duration such as" },
		{ "crl_validity = 40d\n", "config_value", "seconds wanted" },
		{ "crl_refresh = 7d\n", "config_value", "crl_refresh: less than crl_validity" },
		{ "crl_debounce = 0ms\n", "config_value", "milliseconds wanted" },
		{ "crl_debounce = 200us\n", "config_value", "a duration such as 200ms" },
		{ "https = 8443\n", "config_value", "ADDRESS:PORT" },
		{ "https = localhost:8443\n", "config_value", "ADDRESS:PORT" },
		{ "https = 127.0.0.1:0\n", "config_value", "ADDRESS:PORT" },
		{ "https = 127.0.0.1:65536\n", "config_value", "ADDRESS:PORT" },
		{ "https = ::1:8443\n", "config_value", "ADDRESS:PORT" },
		{ "https = [::1]8443\n", "config_value", "ADDRESS:PORT" },
		{ "https = []:8443\n", "config_value", "ADDRESS:PORT" },
		{ "https = 0.0.0.0:1\nstations = 0.0.0.0:1\n", "config_value", "two are the same" },
		{ "public_url = http://ca\n", "config_value", "https://HOST" },
		{ "public_http_url = http://ca/path\n", "config_value", "http://HOST" },
		{ "public_http_url = http://\n", "config_value", "http://HOST" },
		{ "issuing_ca = Issuing\n", "config_value", "[a-z0-9]" },
		{ "server_names = a,,b\n", "config_value", "separated by commas" },
		{ "server_names = a b\n", "config_value", "separated by commas" },
		{ "tls_certificates = cert.pem\n", "config_value", "pairs" },
		{ "tls_certificates = a:b,\n", "config_value", "pairs" },
		{ "log_level = verbose\n", "config_value", "debug, info, warn or error" },
		{ "user_signer = a b\n", "config_value", "user's name" },
		{ "connections_max = 10\nconnections_per_address_max = 11\n", "config_value",
			"connections_per_address_max" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct config config;
		struct err err = { .code = "" };

		write_text(CASES[i].text);
		if (config_load(&config, path, &err) != ERR_ARGUMENT ||
			strcmp(err.code, CASES[i].want_code) != 0 ||
			strstr(err.text, CASES[i].want_in_text) == NULL)
			fail_msg("%s: %s: %s", CASES[i].text, err.code, err.text);
	}
}

static void
an_absent_file_and_a_line_without_end_are_refused(void **state)
{
	char text[2048];
	struct config config;
	struct err err;

	(void)state;
	assert_int_equal(config_load(&config, "/nonexistent/jitrca.conf", &err), ERR_ARGUMENT);
	assert_string_equal(err.code, "config_file");
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	write_text(text);
	assert_int_equal(config_load(&config, path, &err), ERR_ARGUMENT);
	assert_string_equal(err.code, "config_line");
}

static void
a_nul_hides_nothing(void **state)
{
	static const struct {
		const char *octets;
		size_t len;
	} CASES[] = {
		{ "\0", 1 }, { "\0\0\0\n", 4 }, { "https = off\0 # x\n", 17 }, { "# x\n\0https = off\n", 17 },
	};
	struct config config;
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		FILE *file = fopen(path, "we");

		assert_non_null(file);
		assert_int_equal(fwrite(CASES[i].octets, 1, CASES[i].len, file), CASES[i].len);
		assert_int_equal(fclose(file), 0);
		assert_int_equal(config_load(&config, path, &err), ERR_ARGUMENT);
		assert_string_equal(err.code, "config_line");
	}
}

static void
a_text_that_does_not_fit_is_refused(void **state)
{
	char text[CONFIG_TEXT_BYTES + 32];
	struct config config;
	struct err err;

	(void)state;
	memset(text, 'x', sizeof(text));
	memcpy(text, "data_dir = /", 12);
	text[sizeof(text) - 1] = '\0';
	write_text(text);
	assert_int_equal(config_load(&config, path, &err), ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "at most 511 octets wanted"));
}

static void
the_environment_wins_over_the_file(void **state)
{
	struct config config;
	struct err err;

	(void)state;
	write_text("log_level = warn\n");
	assert_int_equal(setenv("JITRCA_LOG_LEVEL", "error", 1), 0);
	assert_int_equal(config_load(&config, path, &err), OK);
	assert_int_equal(config.log_level, LOG_ERROR);
	assert_int_equal(setenv("JITRCA_LOG_LEVEL", "loud", 1), 0);
	assert_int_equal(config_load(&config, path, &err), ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "JITRCA_LOG_LEVEL: log_level"));
	assert_int_equal(unsetenv("JITRCA_LOG_LEVEL"), 0);
}

static void
variables_that_look_like_ours_are_refused(void **state)
{
	static const struct {
		const char *name;
		enum status want;
		const char *want_in_text;
	} CASES[] = {
		{ "JITRCA_DATABSE_URL", ERR_ARGUMENT, "JITRCA_DATABASE_URL" },
		{ "JITRCA_", ERR_ARGUMENT, "names no key" },
		{ "JITRCA_log_level", ERR_ARGUMENT, "names no key" },
		{ "JITRCA_URL", OK, "" },
		{ "JITRCA_HTTP_URL", OK, "" },
		{ "JITRCA_CA_BUNDLE", OK, "" },
		{ "JITRCA_ADMIN_TOKEN", OK, "" },
		{ "JITRCA_STATION_TOKEN", OK, "" },
		{ "JITRCA_PORT_BASE", OK, "" },
		{ "JITRCA_TEST_FAILPOINT", OK, "" },
		{ "JITRCA_DATABASE_URL", OK, "" },
		{ "OTHER_VARIABLE", OK, "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct config config;
		struct err err = { .text = "" };
		enum status status;

		assert_int_equal(setenv(CASES[i].name, "x", 1), 0);
		status = config_load(&config, NULL, &err);
		assert_int_equal(unsetenv(CASES[i].name), 0);
		if (status != CASES[i].want || strstr(err.text, CASES[i].want_in_text) == NULL)
			fail_msg("%s: %s %s", CASES[i].name, status_name(status), err.text);
	}
}

static void
a_secret_value_is_not_repeated(void **state)
{
	struct config config;
	struct err err;
	char text[700];

	(void)state;
	(void)snprintf(
		text, sizeof(text), "database_url = postgresql://canary:canary@h/%0600d\n", 1);
	write_text(text);
	assert_int_equal(config_load(&config, path, &err), ERR_ARGUMENT);
	assert_null(strstr(err.text, "canary"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_need_no_file),
		cmocka_unit_test(values_are_read_with_their_units),
		cmocka_unit_test(bad_files_are_refused_with_their_line),
		cmocka_unit_test(an_absent_file_and_a_line_without_end_are_refused),
		cmocka_unit_test(a_text_that_does_not_fit_is_refused),
		cmocka_unit_test(a_nul_hides_nothing),
		cmocka_unit_test(the_environment_wins_over_the_file),
		cmocka_unit_test(variables_that_look_like_ours_are_refused),
		cmocka_unit_test(a_secret_value_is_not_repeated),
	};

	return cmocka_run_group_tests(tests, make_file, drop_file);
}
