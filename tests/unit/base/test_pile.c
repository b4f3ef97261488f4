/* base/pile.c: octets that are few and octets that are many are the same to who reads them. */
#include "tests/unit/base/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/pile.h"

static char dir[64];

static int
make_dir(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/jitrca-pile-XXXXXX");
	return mkdtemp(dir) != NULL ? 0 : -1;
}

static size_t
files(void)
{
	DIR *d = opendir(dir);
	struct dirent *found;
	size_t count = 0;

	while ((found = readdir(d)) != NULL)
		count += found->d_name[0] != '.' || strncmp(found->d_name, PILE_PREFIX, 6) == 0;
	(void)closedir(d);
	return count;
}

static int
remove_dir(void **state)
{
	char path[128];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/kept", dir);
	(void)unlink(path);
	return rmdir(dir);
}

/* Appends what check() looks for, from at on. */
static void
append(struct pile *pile, size_t at, size_t len)
{
	struct err err;

	while (at < len) {
		uint8_t octets[977];
		size_t now = len - at < sizeof(octets) ? len - at : sizeof(octets);

		for (size_t i = 0; i < now; i++)
			octets[i] = (uint8_t)((at + i) * 31 >> 3);
		assert_int_equal(pile_add(pile, octets, now, &err), OK);
		at += now;
	}
}

static void
fill_from(struct pile *pile, size_t at, size_t len)
{
	struct err err;

	append(pile, at, len);
	assert_int_equal(pile_close(pile, &err), OK);
}

static void
fill(struct pile *pile, size_t len)
{
	fill_from(pile, 0, len);
}

static void
check(const struct pile *pile, size_t len)
{
	uint8_t octets[4096];
	struct err err;

	assert_int_equal(pile_len(pile), len);
	for (size_t at = 0; at < len; at += 1009) {
		size_t now = len - at < sizeof(octets) ? len - at : sizeof(octets);

		assert_int_equal(pile_read(pile, at, octets, now, &err), OK);
		for (size_t i = 0; i < now; i++)
			assert_int_equal(octets[i], (uint8_t)((at + i) * 31 >> 3));
	}
	assert_int_equal(pile_read(pile, len, octets, 0, &err), OK);
	assert_int_equal(pile_read(pile, len, octets, 1, &err), ERR_UNAVAILABLE);
	assert_int_equal(pile_read(pile, UINT64_MAX, octets, 2, &err), ERR_UNAVAILABLE);
}

static void
few_lie_in_memory_and_many_in_a_file(void **state)
{
	static const size_t LENGTHS[] = { 0, 1, 1000, 4095, 4096, 4097, 65536, 70000, 300000 };
	char path[128];
	struct err err;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/kept", dir);
	for (size_t i = 0; i < COUNT_OF(LENGTHS); i++) {
		own_struct(pile) pile = { .fd = -1 };
		own_struct(pile) again = { .fd = -1 };

		pile_init(&pile, dir, 4096);
		fill(&pile, LENGTHS[i]);
		assert_int_equal(pile.fd >= 0, LENGTHS[i] > 4096);
		check(&pile, LENGTHS[i]);
		assert_int_equal(pile_keep(&pile, path, &err), OK);
		check(&pile, LENGTHS[i]);
		assert_int_equal(pile_open(&again, path, 4096, &err), OK);
		assert_int_equal(again.fd >= 0, LENGTHS[i] > 4096);
		check(&again, LENGTHS[i]);
		assert_int_equal(files(), 1);
	}
}

/* Who has the old octets open reads them on. */
static void
what_is_replaced_can_still_be_read(void **state)
{
	own_struct(pile) old = { .fd = -1 };
	own_struct(pile) new = { .fd = -1 };
	char path[128];
	struct err err;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/kept", dir);
	pile_init(&old, dir, 16);
	fill(&old, 200000);
	assert_int_equal(pile_keep(&old, path, &err), OK);
	pile_init(&new, dir, 16);
	fill(&new, 100000);
	assert_int_equal(files(), 2);
	assert_int_equal(pile_keep(&new, path, &err), OK);
	assert_int_equal(files(), 1);
	check(&old, 200000);
	check(&new, 100000);
}

static void
what_is_not_kept_leaves_nothing(void **state)
{
	size_t before = files();
	struct pile pile;

	(void)state;
	pile_init(&pile, dir, 16);
	fill(&pile, 200000);
	assert_int_equal(files(), before + 1);
	pile_free(&pile);
	pile_free(&pile);
	assert_int_equal(files(), before);
}

/* No directory, or no room in it any more: the octets are there all the same, and cannot be kept. */
static void
without_a_directory_they_are_read_all_the_same(void **state)
{
	own_struct(pile) nowhere = { .fd = -1 };
	own_struct(pile) full = { .fd = -1 };
	struct err err;

	(void)state;
	pile_init(&nowhere, "/nonexistent", 16);
	fill(&nowhere, 200000);
	check(&nowhere, 200000);
	assert_int_equal(pile_keep(&nowhere, "/nonexistent/kept", &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "pile_keep");
	assert_non_null(strstr(err.text, "No such file"));

	/* It takes no more, midway: a descriptor that cannot write stands for a full disk. */
	pile_init(&full, dir, 16);
	append(&full, 0, 200000);
	(void)close(full.fd);
	full.fd = open(full.path, O_RDONLY | O_CLOEXEC);
	fill_from(&full, 200000, 500000);
	check(&full, 500000);
	assert_int_equal(pile_keep(&full, "/nonexistent/kept", &err), ERR_UNAVAILABLE);
}

/* Nor does memory: the limit of a file's size holds for both. */
static void
where_nothing_takes_them_that_is_said(void **state)
{
	own_struct(pile) pile = { .fd = -1 };
	struct rlimit limit, small;
	struct err err;

	(void)state;
	pile_init(&pile, dir, 16);
	append(&pile, 0, 100000);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = limit;
	small.rlim_cur = 1;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(pile_close(&pile, &err), ERR_UNAVAILABLE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_string_equal(err.code, "pile_write");
}

static void
a_file_that_is_none_is_refused(void **state)
{
	own_struct(pile) pile = { .fd = -1 };
	struct err err;

	(void)state;
	assert_int_equal(pile_open(&pile, "/nonexistent", 16, &err), ERR_UNAVAILABLE);
	assert_int_equal(pile_open(&pile, dir, 16, &err), ERR_UNAVAILABLE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(few_lie_in_memory_and_many_in_a_file),
		cmocka_unit_test(what_is_replaced_can_still_be_read),
		cmocka_unit_test(what_is_not_kept_leaves_nothing),
		cmocka_unit_test(without_a_directory_they_are_read_all_the_same),
		cmocka_unit_test(where_nothing_takes_them_that_is_said),
		cmocka_unit_test(a_file_that_is_none_is_refused),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
