#include "server/iotcore/plugin/plugin.h"

#include <string.h>

#include "base/entropy.h"
#include "base/mem.h"
#include "server/iotcore/plugin/topic.h"

/* What the broker makes of it: CONNACK "not authorized", then the end; or the end without a word,
 * as AWS. */
enum { LET_IN = MOSQ_ERR_SUCCESS, SAY_NO = MOSQ_ERR_AUTH, HANG_UP = MOSQ_ERR_UNKNOWN };

/* Somebody at the gate. */
struct guest {
	struct mosquitto *client;
	const char *client_id, *address;
	const struct tls_certificate *certificate;
	char certificate_hex[2 * REGISTRY_ID_BYTES + 1];
};

static void
refused(struct plugin *p, const struct guest *guest, const char *detail)
{
	plugin_complain(p, "connect_refused", guest->client_id, guest->address,
		guest->certificate_hex, detail);
}

/* The broker asks at every CONNECT: no answer may need the database. */
static bool
registry_usable(const struct plugin *p)
{
	return follower_loaded(p->follower) &&
	       clock_mono_ms(&CLOCK_SYSTEM) - follower_fresh_ms(p->follower) <= p->options.stale_ms;
}

static int
register_new(struct plugin *p, const struct guest *guest)
{
	const uint8_t *ca = tls_certificate_ca(guest->certificate);
	int64_t now_ms = clock_mono_ms(&CLOCK_SYSTEM);
	char ca_hex[2 * REGISTRY_ID_BYTES + 1];
	own(str) pem = NULL;
	int64_t not_before_s, not_after_s;
	struct err err;

	/* Let through as a known one, and deleted since; or its CA changed since. */
	if (ca == NULL || !registry_ca_registers(p->registry, ca)) {
		refused(p, guest, "unknown certificate of no CA that registers");
		return HANG_UP;
	}
	if (!limiter_pass(&p->register_address,
		    plugin_hash(p, guest->address, strlen(guest->address)), now_ms) ||
		!limiter_pass(&p->register_total, 0, now_ms)) {
		refused(p, guest, "too many new certificates at once");
		return HANG_UP;
	}
	hex_encode(ca_hex, ca, REGISTRY_ID_BYTES);
	tls_certificate_validity(guest->certificate, &not_before_s, &not_after_s);
	if (tls_certificate_pem(guest->certificate, &pem, &err) != OK ||
		!follower_register(p->follower, guest->certificate_hex, ca_hex, pem, not_before_s,
			not_after_s))
		refused(p, guest, "no room to register it now");
	else
		log_event(LOG_INFO, "certificate_new", NULL,
			LOG_STR("certificate_id", guest->certificate_hex),
			LOG_STR("address", guest->address));
	return HANG_UP;
}

/* Each CONNECT repeats the event, with the time of the first. */
static int
repeat_event(struct plugin *p, const struct guest *guest, const struct registry_certificate *known)
{
	struct event event = { .payload = { NULL, 0 } };
	char ca_hex[2 * REGISTRY_ID_BYTES + 1];
	struct err err;

	if (known->has_ca &&
		limiter_pass(&p->repeat,
			plugin_hash(p, tls_certificate_id(guest->certificate), REGISTRY_ID_BYTES),
			clock_mono_ms(&CLOCK_SYSTEM))) {
		hex_encode(ca_hex, known->ca_id, sizeof(known->ca_id));
		if (event_registered(&event, guest->certificate_hex, ca_hex,
			    follower_account_id(p->follower), known->created_at_ms, event_now_ms(),
			    &err) == OK)
			plugin_publish(p, &event);
		event_clear(&event);
	}
	return HANG_UP;
}

static struct session *
make_session(struct plugin *p, const struct guest *guest)
{
	struct session_setup setup = { .client = guest->client,
		.certificate_id = tls_certificate_id(guest->certificate),
		.client_id = guest->client_id,
		.address = guest->address,
		.persistent = !mosquitto_client_clean_session(guest->client) };
	struct session *session = NULL;
	int64_t not_before_s;
	uint8_t random[16];
	struct err err;

	tls_certificate_validity(guest->certificate, &not_before_s, &setup.not_after_s);
	setup.random = random;
	setup.version = event_now_ms();
	if (setup.version <= p->last_version)
		setup.version = p->last_version + 1;
	p->last_version = setup.version;
	if (entropy_fill(&ENTROPY_SYSTEM, random, sizeof(random), &err) != OK ||
		tls_certificate_pairs(guest->certificate, &setup.pairs, &setup.pair_count, &err) !=
			OK ||
		session_add(&session, p->sessions, &setup, &err) != OK) {
		log_error(LOG_ERROR, "session_failed", NULL, &err);
		return NULL;
	}
	return session;
}

static void
announce(struct plugin *p, struct session *session)
{
	char thing[DB_IOTCORE_KEY_BYTES];
	struct event_session told = session_event(session, thing);
	struct event event = { .payload = { NULL, 0 } };
	struct err err;

	session->announced = true;
	if (event_topic_fits(session->client_id) &&
		event_connected(&event, &told, event_now_ms(), &err) == OK)
		plugin_publish(p, &event);
	event_clear(&event);
	follower_session(p->follower, told.client_id, told.certificate_id, told.thing, told.address,
		true, told.version);
}

static int
let_in(struct plugin *p, const struct guest *guest)
{
	struct session *session = make_session(p, guest);
	struct session *other;

	if (session == NULL)
		return HANG_UP;
	if (!session_may_stay(p->sessions, session, plugin_now_s())) {
		refused(p, guest,
			session->grant != NULL && session->grant->broken
				? "its policies cannot be read"
				: "no policy allows iot:Connect");
		session_end(p->sessions, session);
		return SAY_NO;
	}
	/* By this name it can be cut, and is known after a restart. */
	if (mosquitto_set_username(guest->client, guest->certificate_hex) != MOSQ_ERR_SUCCESS) {
		session_end(p->sessions, session);
		return HANG_UP;
	}
	other = session_other(p->sessions, guest->client_id, guest->client);
	if (other != NULL)
		other->reason = "DUPLICATE_CLIENTID";
	announce(p, session);
	return LET_IN;
}

static int
judge(struct plugin *p, const struct guest *guest)
{
	struct registry_certificate known;

	if (!topic_client_id(guest->client_id)) {
		refused(p, guest, "client id of another form");
		return HANG_UP;
	}
	if (!registry_usable(p)) {
		refused(p, guest, "the registry was not read, or is too old");
		return HANG_UP;
	}
	if (!p->placed) {
		sessions_place(p->sessions, follower_region(p->follower),
			follower_account_id(p->follower));
		p->placed = true;
	}
	/* The handshake looked at it a moment ago; nothing but this decides, also if it did not. */
	if (!tls_certificate_valid(guest->certificate, plugin_now_s())) {
		refused(p, guest, "outside of its validity");
		return SAY_NO;
	}
	registry_certificate(p->registry, tls_certificate_id(guest->certificate), &known);
	switch (known.status) {
	case REGISTRY_UNKNOWN: return register_new(p, guest);
	case REGISTRY_PENDING_ACTIVATION: return repeat_event(p, guest, &known);
	case REGISTRY_ACTIVE: return let_in(p, guest);
	case REGISTRY_OTHER: break;
	}
	refused(p, guest, "its certificate is not ACTIVE");
	return SAY_NO;
}

int
gate_connect(int event, void *data, void *userdata)
{
	struct mosquitto_evt_basic_auth *asked = data;
	struct plugin *p = userdata;
	struct guest guest = { .client = asked->client,
		.client_id = mosquitto_client_id(asked->client),
		.address = mosquitto_client_address(asked->client) };
	own(tls_certificate_own) certificate = NULL;

	(void)event;
	certificate = tls_certificate(p->tls, mosquitto_client_certificate(asked->client));
	/*
	 * After SIGHUP the broker asks again about every session it knows, also those that are
	 * offline and have no certificate to show; a refusal there makes it use memory that it has
	 * freed. Those who are no longer welcome are cut by the registry's changes. Who shows a
	 * certificate and has no session is new, whatever user name it has chosen itself.
	 */
	if (p->reloading && mosquitto_client_username(asked->client) != NULL &&
		(certificate == NULL || session_find(p->sessions, asked->client) != NULL))
		return LET_IN;
	if (guest.client_id == NULL)
		guest.client_id = "";
	if (guest.address == NULL)
		guest.address = "";
	if (certificate == NULL) {
		refused(p, &guest, "no certificate");
		return SAY_NO;
	}
	guest.certificate = certificate;
	hex_encode(guest.certificate_hex, tls_certificate_id(certificate), REGISTRY_ID_BYTES);
	return judge(p, &guest);
}

/* Also for connections that never got through the gate: they have no session. */
int
gate_disconnect(int event, void *data, void *userdata)
{
	const struct mosquitto_evt_disconnect *left = data;
	struct plugin *p = userdata;
	struct session *session = session_find(p->sessions, left->client);
	struct event out = { .payload = { NULL, 0 } };
	char thing[DB_IOTCORE_KEY_BYTES];
	struct event_session told;
	struct err err;

	(void)event;
	if (session == NULL || session->ended)
		return MOSQ_ERR_SUCCESS;
	session_end(p->sessions, session);
	if (!session->announced)
		return MOSQ_ERR_SUCCESS;
	told = session_event(session, thing);
	/* The broker does not say whether the client took its leave: what is not known is called
	 * lost. */
	if (event_topic_fits(session->client_id) &&
		event_disconnected(&out, &told,
			session->reason != NULL ? session->reason : "CONNECTION_LOST", false,
			event_now_ms(), &err) == OK)
		plugin_publish(p, &out);
	event_clear(&out);
	follower_session(p->follower, told.client_id, told.certificate_id, told.thing, told.address,
		false, told.version);
	return MOSQ_ERR_SUCCESS;
}
