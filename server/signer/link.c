#include "server/signer/link.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

struct signer_link {
	pthread_mutex_t busy; /* held from acquire to release; guards signer, generation, greeted */
	struct ca_signer *signer;
	uint64_t generation;
	bool greeted;
	enum status (*greet)(void *arg, struct ca_signer *signer, struct err *err);
	void *greet_arg;

	/* A connect must not wait for a call that a dead signer keeps hanging: it leaves its fd here. */
	atomic_int pending_fd; /* -1: none */
	atomic_bool up;
};

enum status
signer_link_new(struct signer_link **out, struct err *err)
{
	struct signer_link *link = mem_zalloc(sizeof(*link));

	if (link == NULL)
		return err_memory(err);
	if (pthread_mutex_init(&link->busy, NULL) != 0) {
		mem_free(link);
		return err_memory(err);
	}
	atomic_init(&link->pending_fd, -1);
	atomic_init(&link->up, false);
	*out = link;
	return OK;
}

void
signer_link_free(struct signer_link *link)
{
	int fd;

	if (link == NULL)
		return;
	fd = atomic_exchange(&link->pending_fd, -1);
	if (fd >= 0)
		(void)close(fd);
	ca_signer_free(link->signer);
	(void)pthread_mutex_destroy(&link->busy);
	mem_free(link);
}

void
signer_link_greet(struct signer_link *link,
	enum status (*greet)(void *arg, struct ca_signer *signer, struct err *err), void *arg)
{
	link->greet = greet;
	link->greet_arg = arg;
}

void
signer_link_connect(struct signer_link *link, int fd)
{
	int old = atomic_exchange(&link->pending_fd, fd);

	if (old >= 0)
		(void)close(old);
	atomic_store(&link->up, true);
}

static void
drop_signer(struct signer_link *link)
{
	ca_signer_free(give(link->signer));
	link->greeted = false;
	/* A connect between these two lines sets it again, or is seen by the next acquire anyway. */
	atomic_store(&link->up, atomic_load(&link->pending_fd) >= 0);
}

/* Turns the newest descriptor into a signer. */
static enum status
take_pending(struct signer_link *link, struct err *err)
{
	int fd = atomic_exchange(&link->pending_fd, -1);
	enum status status;

	if (fd < 0)
		return OK;
	ca_signer_free(give(link->signer));
	link->greeted = false;
	link->generation++;
	status = ca_signer_remote(&link->signer, fd, err);
	if (status != OK) {
		link->signer = NULL;
		(void)close(fd);
	}
	return status;
}

static enum status
make_ready(struct signer_link *link, struct err *err)
{
	enum status status;

	TRY(take_pending(link, err));
	if (link->signer == NULL) {
		(void)err_set(err, ERR_UNAVAILABLE, "signer_away",
			"the signer process is being restarted");
		err->retry_after_s = 1;
		return ERR_UNAVAILABLE;
	}
	if (link->greeted || link->greet == NULL)
		return OK;
	status = link->greet(link->greet_arg, link->signer, err);
	link->greeted = status == OK;
	if (!link->greeted)
		log_error(LOG_WARN, "signer_greeting_failed", NULL, err);
	return status;
}

enum status
signer_link_acquire(struct signer_link *link, struct ca_signer **out, uint64_t *generation,
	struct err *err)
{
	enum status status;

	(void)pthread_mutex_lock(&link->busy);
	status = make_ready(link, err);
	if (status != OK) {
		/* What broke in the greeting may be the signer or the database: only the first is lost. */
		if (view_equal_text(view_text(err->code), "signer_away"))
			drop_signer(link);
		(void)pthread_mutex_unlock(&link->busy);
		return status;
	}
	*out = link->signer;
	*generation = link->generation;
	return OK;
}

void
signer_link_release(struct signer_link *link, bool broken)
{
	if (broken)
		drop_signer(link);
	(void)pthread_mutex_unlock(&link->busy);
}

bool
signer_link_up(struct signer_link *link)
{
	return atomic_load(&link->up);
}
