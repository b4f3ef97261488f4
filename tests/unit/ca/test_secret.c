#include "tests/unit/ca/files.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "ca/secret.h"

static char folder[256];

static int
set_up(void **state)
{
	struct err err;

	(void)state;
	folder_make(folder);
	return ca_init(&err) == OK && ca_init(&err) == OK ? 0 : -1;
}

static int
tear_down(void **state)
{
	(void)state;
	folder_remove(folder);
	return 0;
}

static const char *
in_folder(const char *name)
{
	static char path[512];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void
secrets_are_copied_compared_and_freed_twice(void **state)
{
	struct secret secret = { NULL, 0 }, empty = { NULL, 0 };
	struct err err;

	(void)state;
	assert_ok(secret_copy(&secret, view_text("correct horse"), &err));
	assert_true(
		secret_equal((struct view){ secret.data, secret.len }, view_text("correct horse")));
	assert_false(
		secret_equal((struct view){ secret.data, secret.len }, view_text("correct horsf")));
	assert_false(secret_equal((struct view){ secret.data, secret.len }, view_text("correct")));
	assert_true(secret_equal((struct view){ NULL, 0 }, (struct view){ NULL, 0 }));
	secret_free(&secret);
	secret_free(&secret);
	assert_null(secret.data);
	assert_ok(secret_copy(&empty, (struct view){ NULL, 0 }, &err));
	secret_free(&empty);
	assert_ok(secret_new(&secret, 16, &err));
	for (size_t i = 0; i < 16; i++)
		assert_int_equal(secret.data[i], 0);
	secret_free(&secret);
	assert_refused(secret_new(&secret, SIZE_MAX, &err), ERR_UNAVAILABLE, "out_of_memory");
}

static void
a_secret_file_is_read_without_its_last_line_end(void **state)
{
	static const struct {
		const char *content, *want;
	} cases[] = {
		{ "secret", "secret" },
		{ "secret\n", "secret" },
		{ "secret\r\n", "secret" },
		{ "secret\n\n", "secret\n" },
		{ "\n", "" },
		{ "", "" },
		{ "12345678\r\n", "12345678" },
	};
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		own_struct(secret) secret = { NULL, 0 };
		struct stat st;

		assert_ok(secret_write_file(view_text(cases[i].content), in_folder("s"), &err));
		assert_int_equal(stat(in_folder("s"), &st), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
		assert_ok(secret_read_file(&secret, in_folder("s"), 8, &err));
		assert_true(secret_equal((struct view){ secret.data, secret.len },
			view_text(cases[i].want)));
		assert_int_equal(unlink(in_folder("s")), 0);
	}
}

static void
a_secret_file_that_others_may_read_is_refused(void **state)
{
	static const mode_t modes[] = { 0640, 0604, 0620, 0601, 0644 };
	struct secret secret = { NULL, 0 };
	struct err err;

	(void)state;
	assert_ok(secret_write_file(view_text("secret"), in_folder("m"), &err));
	for (size_t i = 0; i < COUNT_OF(modes); i++) {
		assert_int_equal(chmod(in_folder("m"), modes[i]), 0);
		assert_refused(secret_read_file(&secret, in_folder("m"), 100, &err), ERR_DENIED,
			"secret_file_mode");
	}
	assert_null(strstr(err.text, "secret\n"));
	assert_refused(secret_read_file(&secret, in_folder("absent"), 100, &err), ERR_NOT_FOUND,
		"secret_file");
	assert_refused(secret_read_file(&secret, folder, 100, &err), ERR_NOT_FOUND, "secret_file");
	/* A file that cannot be read from its beginning, whoever asks. */
	assert_refused(secret_read_file(&secret, "/proc/self/mem", 100, &err), ERR_NOT_FOUND,
		"secret_file");
	assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0); /* does not wait for a writer */
	assert_refused(secret_read_file(&secret, in_folder("fifo"), 100, &err), ERR_NOT_FOUND,
		"secret_file");
}

static void
a_secret_file_over_its_limit_is_refused(void **state)
{
	struct secret secret = { NULL, 0 };
	char long_text[2000];
	struct err err;

	(void)state;
	assert_ok(secret_write_file(view_text("123456789"), in_folder("l"), &err));
	assert_refused(secret_read_file(&secret, in_folder("l"), 8, &err), ERR_TOO_LARGE,
		"secret_file_size");
	memset(long_text, '\n', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	assert_ok(secret_write_file(view_text(long_text), in_folder("ll"), &err));
	assert_refused(secret_read_file(&secret, in_folder("ll"), 8, &err), ERR_TOO_LARGE,
		"secret_file_size");
}

static void
a_file_that_exists_is_never_written_over(void **state)
{
	own_struct(bytes) content = { NULL, 0 };
	char long_path[5000];
	struct err err;

	(void)state;
	assert_ok(secret_write_file(view_text("first"), in_folder("x"), &err));
	assert_refused(secret_write_file(view_text("second"), in_folder("x"), &err), ERR_CONFLICT,
		"file_exists");
	content = slurp(in_folder("x"));
	assert_true(view_equal_text(view_of(&content), "first"));
	assert_int_equal(symlink("nowhere", in_folder("link")), 0);
	assert_refused(secret_write_file(view_text("second"), in_folder("link"), &err),
		ERR_CONFLICT, "file_exists");
	assert_refused(secret_write_file(view_text("s"), in_folder("no/such/folder"), &err),
		ERR_UNAVAILABLE, "file_write");
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	assert_refused(secret_write_file(view_text("s"), long_path, &err), ERR_TOO_LARGE,
		"path_too_long");
	/* Nothing half-written is left. */
	char command[600];
	(void)snprintf(command, sizeof(command), "! ls '%s' | grep -q new", folder);
	assert_int_equal(system(command), 0);
}

static void
files_and_folders_say_what_is_wrong(void **state)
{
	struct bytes out = { NULL, 0 };
	char path[FILE_PATH_BYTES], long_path[5000];
	struct err err;

	(void)state;
	assert_ok(secret_write_file(view_text("1234567890"), in_folder("r"), &err));
	assert_refused(file_read(&out, in_folder("r"), 9, &err), ERR_TOO_LARGE, "file_size");
	assert_refused(
		file_read(&out, in_folder("nothing"), 9, &err), ERR_NOT_FOUND, "file_absent");
	assert_refused(file_read(&out, folder, 9, &err), ERR_UNAVAILABLE, "file_read");
	assert_refused(file_read(&out, in_folder("r/x"), 9, &err), ERR_UNAVAILABLE, "file_read");
	assert_refused(file_read(&out, "/proc/self/mem", 9, &err), ERR_UNAVAILABLE, "file_read");
	assert_refused(directory_make(in_folder("r"), &err), ERR_UNAVAILABLE, "directory");
	assert_refused(directory_make(in_folder("no/such"), &err), ERR_UNAVAILABLE, "directory");
	assert_ok(directory_make(in_folder("d"), &err));
	assert_ok(directory_make(in_folder("d"), &err));
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	assert_refused(file_path(path, long_path, "x", "", &err), ERR_TOO_LARGE, "path_too_long");
	mem_fail_at(0);
	enum status status = file_read(&out, in_folder("r"), 100, &err);
	mem_fail_at(-1);
	assert_int_equal(status, ERR_UNAVAILABLE);
	/* A bare name lies in the present folder. */
	char *before = get_current_dir_name();
	assert_int_equal(chdir(folder), 0);
	assert_ok(file_create("bare", view_text("x"), 0600, &err));
	assert_true(file_exists("bare"));
	assert_int_equal(chdir(before), 0);
	free(before);
	assert_refused(file_create("/proc/nothing", view_text("x"), 0600, &err), ERR_UNAVAILABLE,
		"file_write");
}

static void
tokens_are_drawn_anew(void **state)
{
	char a[TOKEN_TEXT_BYTES], b[TOKEN_TEXT_BYTES];
	struct err err;

	(void)state;
	assert_ok(token_draw(a, &err));
	assert_ok(token_draw(b, &err));
	assert_int_equal(strlen(a), 47);
	assert_memory_equal(a, "jrt_", 4);
	assert_int_equal(strspn(a + 4,
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 43);
	assert_string_not_equal(a, b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(secrets_are_copied_compared_and_freed_twice),
		cmocka_unit_test(a_secret_file_is_read_without_its_last_line_end),
		cmocka_unit_test(a_secret_file_that_others_may_read_is_refused),
		cmocka_unit_test(a_secret_file_over_its_limit_is_refused),
		cmocka_unit_test(a_file_that_exists_is_never_written_over),
		cmocka_unit_test(files_and_folders_say_what_is_wrong),
		cmocka_unit_test(tokens_are_drawn_anew),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
