#include "server/iot/room.h"

#include <stdio.h>
#include <string.h>

#include "base/cond.h"
#include "server/iot/aws.h"

/* ---- waking and waiting ---- */

/* With the lock. One turn waits at most: who takes it sees all that there is, and says if there is more. */
static void
give_turn(struct iot_room *room)
{
	room->turns = 1;
	if (room->stopping)
		(void)pthread_cond_broadcast(&room->turn);
	else
		(void)pthread_cond_signal(&room->turn);
}

/* With the lock. */
static void
set_urgent_due(struct iot_room *room, bool due)
{
	if (due && !room->urgent_due)
		iot_urgency_begin(&room->urgency, room->app->clock);
	if (!due && room->urgent_due)
		iot_urgency_end(&room->urgency);
	room->urgent_due = due;
}

void
iot_room_wake(struct iot_room *room, bool urgent)
{
	if (room == NULL)
		return;
	(void)pthread_mutex_lock(&room->lock);
	if (urgent && room->site_count > 0)
		set_urgent_due(room, true);
	if (urgent || room->site_count == 0) {
		room->wakes++;
		(void)pthread_cond_broadcast(&room->wake);
	}
	give_turn(room);
	(void)pthread_mutex_unlock(&room->lock);
}

bool
iot_room_urgent_due(struct iot_room *room)
{
	bool due;

	(void)pthread_mutex_lock(&room->lock);
	due = room->urgent_due;
	(void)pthread_mutex_unlock(&room->lock);
	return due;
}

uint64_t
iot_room_wakes(struct iot_room *room)
{
	uint64_t wakes;

	(void)pthread_mutex_lock(&room->lock);
	wakes = room->wakes;
	(void)pthread_mutex_unlock(&room->lock);
	return wakes;
}

void
iot_room_looked(struct iot_room *room, uint64_t wakes, bool more)
{
	(void)pthread_mutex_lock(&room->lock);
	if (more || room->wakes == wakes)
		set_urgent_due(room, more);
	(void)pthread_mutex_unlock(&room->lock);
}

void
iot_room_more(struct iot_room *room)
{
	(void)pthread_mutex_lock(&room->lock);
	give_turn(room);
	(void)pthread_mutex_unlock(&room->lock);
}

bool
iot_room_wait(struct iot_room *room, uint64_t *seen, int64_t wait_ms)
{
	struct timespec until = cond_in_ms(wait_ms);

	(void)pthread_mutex_lock(&room->lock);
	while (room->wakes == *seen && !room->stopping)
		if (pthread_cond_timedwait(&room->wake, &room->lock, &until) != 0)
			break;
	*seen = room->wakes;
	(void)pthread_mutex_unlock(&room->lock);
	return !room->stopping;
}

bool
iot_room_pause(struct iot_room *room, int64_t wait_ms)
{
	int64_t end_ms = clock_mono_ms(room->app->clock) + wait_ms;
	uint64_t seen = 0;
	int64_t left_ms;

	while ((left_ms = end_ms - clock_mono_ms(room->app->clock)) > 0)
		if (!iot_room_wait(room, &seen, left_ms))
			return false;
	return !room->stopping;
}

/* ---- sites ---- */

struct iot_site *
iot_room_site(struct iot_room *room, const char *name)
{
	if (name == NULL)
		return room->site_count == 1 ? &room->sites[0] : NULL;
	for (size_t i = 0; i < room->site_count; i++)
		if (strcmp(room->sites[i].target->name, name) == 0)
			return &room->sites[i];
	return NULL;
}

bool
iot_room_elsewhere(const struct iot_room *room)
{
	return room->others;
}

enum status
iot_room_has_all(struct iot_room *room, struct err *err)
{
	char elsewhere[DB_IOT_ELSEWHERE_BYTES];

	(void)pthread_mutex_lock(&room->lock);
	memcpy(elsewhere, room->elsewhere, sizeof(elsewhere));
	(void)pthread_mutex_unlock(&room->lock);
	return elsewhere[0] == '\0' ? OK : err_set(err, ERR_CONFLICT, "iot_target_elsewhere",
		"iot_targets_file: this server has not %s, which another has; ask that one", elsewhere);
}

void
iot_room_trouble(struct iot_room *room, char *out, size_t size)
{
	size_t len = 0;

	out[0] = '\0';
	(void)pthread_mutex_lock(&room->lock);
	if (room->elsewhere[0] != '\0')
		len = (size_t)snprintf(out, size, "the outbox is left to servers that have %s as well",
			room->elsewhere);
	(void)pthread_mutex_unlock(&room->lock);
	for (size_t i = 0; i < room->site_count && len < size; i++) {
		struct aws_health health;

		aws_client_health(room->sites[i].client, &health);
		if (health.breaker != AWS_BREAKER_CLOSED)
			len += (size_t)snprintf(out + len, size - len,
				"%s%s: calls are held back (breaker %s)", len > 0 ? "; " : "",
				room->sites[i].target->name, aws_breaker_name(health.breaker));
	}
}

struct iot
iot_site_calls(struct iot_site *site, enum aws_priority priority)
{
	return (struct iot){ .client = site->client, .priority = priority };
}
