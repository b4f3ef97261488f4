#include "tests/unit/base/test.h"

#include "db/db.h"

static void
every_status_has_a_name_and_back(void **state)
{
	(void)state;
	for (int i = CERT_ACTIVE; i <= (int)CERT_EXPIRED; i++) {
		enum cert_status status = CERT_UNSET;

		assert_true(cert_status_parse(&status, cert_status_name((enum cert_status)i)));
		assert_int_equal(status, i);
	}
	assert_string_equal(cert_status_name(CERT_PENDING_CONFIRMATION), "pending_confirmation");
}

static void
every_reason_has_a_name_and_back(void **state)
{
	static const int REASONS[] = { 0, 1, 2, 3, 4, 5, 6, 9, 10 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(REASONS); i++) {
		enum revocation_reason reason = REASON_UNSPECIFIED;
		const char *name = revocation_reason_name((enum revocation_reason)REASONS[i]);

		assert_true(revocation_reason_parse(&reason, name));
		assert_int_equal(reason, REASONS[i]);
	}
	assert_string_equal(revocation_reason_name(REASON_KEY_COMPROMISE), "keyCompromise");
	assert_string_equal(revocation_reason_name(REASON_CERTIFICATE_HOLD), "certificateHold");
}

static void
what_is_no_state_has_no_name(void **state)
{
	enum cert_status status;
	enum revocation_reason reason;

	(void)state;
	assert_false(cert_status_parse(&status, "unset"));
	assert_false(cert_status_parse(&status, ""));
	assert_false(cert_status_parse(&status, "Active"));
	assert_string_equal(cert_status_name(CERT_UNSET), "unset");
	assert_string_equal(cert_status_name((enum cert_status)99), "unset");
	assert_false(revocation_reason_parse(&reason, "removeFromCRL"));
	assert_string_equal(revocation_reason_name((enum revocation_reason)7), "unknown");
	assert_string_equal(revocation_reason_name((enum revocation_reason)99), "unknown");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_status_has_a_name_and_back),
		cmocka_unit_test(every_reason_has_a_name_and_back),
		cmocka_unit_test(what_is_no_state_has_no_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
