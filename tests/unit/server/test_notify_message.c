#include "server/notify/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "server/notify/send.h"

static struct notify_channel channel = { .from = "ca@b.test", .to = { "c@d.test" }, .to_count = 1,
	.transport = TRANSPORT_UDP, .facility = 10 };
static struct db_notification row;

static void
make(struct notify_message *out, const struct db_event *event)
{
	struct entropy entropy = entropy_insecure_fixed(1);
	struct err err;

	assert_int_equal(notify_message_make(&row, event, "https://ca.test", &entropy, &err), OK);
	assert_int_equal(notify_message_read(out, row.body, &err), OK);
}

/* The longest that an event may hold, of what grows most when it is escaped. */
static struct db_event
worst(void)
{
	struct db_event event = { .event_id = INT64_MAX, .at_s = 1795572000, .kind = "worst",
		.severity = "critical" };
	size_t len = (size_t)snprintf(event.detail, sizeof(event.detail), "{\"x\":\"");

	memset(event.device_id, '\x01', sizeof(event.device_id) - 1);
	memset(event.certificate_id, '\\', sizeof(event.certificate_id) - 1);
	memset(event.target, '"', sizeof(event.target) - 1);
	/* Each of these six octets is one in memory and six in JSON again. */
	for (; len + 9 < sizeof(event.detail); len += 6)
		memcpy(event.detail + len, "\\u0001", 6);
	memcpy(event.detail + len, "\"}", 3);
	return event;
}

static void
the_worst_event_fits_every_form(void **state)
{
	const struct db_event event = worst();
	own_struct(notify_message) message = { .json = NULL };
	own_struct(buf) mail = { .limit_bytes = 65536 };
	char subject[NOTIFY_SUBJECT_BYTES];
	struct err err;

	(void)state;
	make(&message, &event);
	notify_message_subject(subject, &message);
	assert_true(strlen(subject) <= 100);
	assert_int_equal(notify_message_mail(&mail, &message, &channel, 1795572000, &err), OK);
	for (size_t i = 0; i < mail.len; i++) {
		bool line_end = mail.data[i] == '\r' || mail.data[i] == '\n';

		assert_true(line_end || (mail.data[i] >= ' ' && mail.data[i] <= '~'));
		if (mail.data[i] == '\n')
			assert_true(i > 0 && mail.data[i - 1] == '\r');
	}
	for (int form = 0; form < 4; form++) {
		own_struct(buf) text = { .limit_bytes = 65536 };

		channel.cef = form % 2 == 1;
		channel.transport = form < 2 ? TRANSPORT_UDP : TRANSPORT_LOCAL;
		assert_int_equal(notify_message_syslog(&text, &message, &channel, "ca.test", 1, &err), OK);
		assert_true(text.len <= NOTIFY_SYSLOG_MAX_BYTES);
		for (size_t i = 0; i < text.len; i++)
			assert_true(text.data[i] >= ' ' && text.data[i] != 0x7f);
	}
}

static void
a_detail_that_is_too_long_for_a_body_is_left_out(void **state)
{
	struct db_event event = { .event_id = 1, .at_s = 1, .kind = "long", .severity = "low" };
	own_struct(notify_message) message = { .json = NULL };

	(void)state;
	/* Not JSON at all: who wrote it was no function of ours. */
	memset(event.detail, 'x', sizeof(event.detail) - 1);
	make(&message, &event);
	assert_int_equal(json_object_size(json_object_get(message.json, "detail")), 0);
}

/* Standard Webhooks' own example (its specification's test vector). */
static void
a_signature_is_that_of_standard_webhooks(void **state)
{
	char signature[NOTIFY_SIGNATURE_BYTES];
	struct err err;

	(void)state;
	assert_int_equal(notify_webhook_sign(signature,
		view_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "msg_p5jXN8AQM9LWM0D4loKWxJek",
		1614265330, view_text("{\"test\": 2432232314}"), &err), OK);
	assert_string_equal(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
	assert_int_equal(notify_webhook_sign(signature, view_text("whsec_not base64!"), "a", 0,
		view_text(""), &err), ERR_ARGUMENT);
	assert_string_equal(err.code, "notify_invalid");
}

static void
a_date_is_one_of_rfc_5322(void **state)
{
	const struct db_event event = { .event_id = 1, .at_s = 1, .kind = "k", .severity = "low" };
	own_struct(notify_message) message = { .json = NULL };
	own_struct(buf) mail = { .limit_bytes = 65536 };
	struct err err;

	(void)state;
	make(&message, &event);
	assert_int_equal(notify_message_mail(&mail, &message, &channel, 1795572000, &err), OK);
	assert_memory_equal(mail.data, "Date: Wed, 25 Nov 2026 02:00:00 +0000\r\n", 39);
}

static int
set_up(void **state)
{
	struct err err;

	(void)state;
	return ca_init(&err) == OK ? 0 : -1;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_worst_event_fits_every_form),
		cmocka_unit_test(a_detail_that_is_too_long_for_a_body_is_left_out),
		cmocka_unit_test(a_signature_is_that_of_standard_webhooks),
		cmocka_unit_test(a_date_is_one_of_rfc_5322),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
