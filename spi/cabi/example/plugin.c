/* SPDX-License-Identifier: MIT OR Apache-2.0
 * An accelerator in C to start from: one device, a thread for each queue that stands for a card, completions that come when that thread
 * is done. Read from the end: `driver` is the table, `accel_plugin` the symbol.
 *
 * What is yours to change: engine.c (what the silicon does), `work` (how a job gets there), and how `finished` comes to be known. */
#include "accel.h"
#include "engine.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SAS 1024u
#define RING 256u

struct accel_device {
	const accel_host *host;
	struct sa *sas[SAS];
};

struct job { /* one of the two, by the kind of the queue */
	accel_burst burst;
	accel_op op;
	accel_op_done answer;
};

struct accel_queue {
	accel_device *device;
	uint32_t kind, depth;
	uint64_t bell;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* A ring of jobs in the order of submission: `finished` of them are to be fetched, `waiting` behind them are to be done, and the first
	 * of those is in the hands of the thread while `busy`. */
	struct job jobs[RING];
	uint32_t first, finished, waiting;
	int stopped, closed;
};

static struct job *job_at(accel_queue *queue, uint32_t place)
{
	return &queue->jobs[(queue->first + place) % RING];
}

static void work_burst(struct engine *engine, const accel_device *device, const accel_burst *burst, int aborted)
{
	const struct sa *sa = device->sas[burst->sa];
	for (uint32_t i = 0; i < burst->count; i++) {
		accel_packet *packet = &burst->packets[i];
		uint8_t *at = burst->buf + packet->at;
		uint32_t status = ACCEL_ABORTED;
		if (!aborted && burst->dir == ACCEL_SEAL)
			status = engine_seal(engine, sa, at, packet->len, packet->seq);
		else if (!aborted)
			status = engine_open(engine, sa, at, packet->len, packet->seq);
		if (status == ACCEL_DONE) /* a length changes only with success */
			packet->len = (uint16_t)(burst->dir == ACCEL_SEAL ? packet->len + ENGINE_HEAD + ENGINE_ICV
			                                                  : packet->len - ENGINE_HEAD - ENGINE_ICV);
		packet->status = (uint16_t)status;
	}
}

static accel_op_done work_op(const accel_op *op, int aborted)
{
	accel_op_done done = { op->token, ACCEL_UNSUPPORTED, 0, op->out_len, 0 };
	if (aborted) {
		done.status = ACCEL_ABORTED;
	} else if (op->what == ACCEL_RANDOM) {
		done.status = engine_random(op->out, op->out_len);
	} else if (op->group == 31 && op->what == ACCEL_GENERATE) {
		done.status = engine_x25519_generate(op->secret, op->out);
		done.secret_len = 32; /* of the room in secret_len */
	} else if (op->group == 31 && op->what == ACCEL_DERIVE && op->secret_len == 32) {
		done.status = engine_x25519_derive(op->secret, op->in, op->out);
	}
	return done;
}

/* The card. */
static void *work(void *argument)
{
	accel_queue *queue = argument;
	struct engine *engine = engine_new();
	pthread_mutex_lock(&queue->lock);
	while (!queue->closed) {
		if (queue->waiting == 0) {
			pthread_cond_wait(&queue->wake, &queue->lock);
			continue;
		}
		struct job *job = job_at(queue, queue->finished);
		int aborted = queue->stopped || !engine;
		pthread_mutex_unlock(&queue->lock);
		if (queue->kind == ACCEL_PACKETS)
			work_burst(engine, queue->device, &job->burst, aborted);
		else
			job->answer = work_op(&job->op, aborted);
		pthread_mutex_lock(&queue->lock);
		queue->waiting--;
		queue->finished++;
		/* First the result, then the bell; and under the lock, so that it does not ring for what was fetched already. */
		queue->device->host->ring(queue->bell);
	}
	pthread_mutex_unlock(&queue->lock);
	engine_free(engine);
	return NULL;
}

static uint32_t room(const accel_queue *queue)
{
	return queue->stopped ? 0 : queue->depth - queue->waiting - queue->finished;
}

static uint32_t queue_room(accel_queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	uint32_t free_places = room(queue);
	pthread_mutex_unlock(&queue->lock);
	return free_places;
}

static uint32_t submit(accel_queue *queue, const accel_burst *bursts, const accel_op *ops, uint32_t count)
{
	pthread_mutex_lock(&queue->lock);
	uint32_t taken = count < room(queue) ? count : room(queue);
	for (uint32_t i = 0; i < taken; i++) {
		struct job *job = job_at(queue, queue->finished + queue->waiting);
		if (bursts)
			job->burst = bursts[i]; /* the structures are copied; what they point to stays */
		else
			job->op = ops[i];
		queue->waiting++;
	}
	pthread_cond_signal(&queue->wake);
	pthread_mutex_unlock(&queue->lock);
	return taken;
}

static uint32_t burst_submit(accel_queue *queue, const accel_burst *bursts, uint32_t count)
{
	return submit(queue, bursts, NULL, count);
}

static uint32_t op_submit(accel_queue *queue, const accel_op *ops, uint32_t count)
{
	return submit(queue, NULL, ops, count);
}

static uint32_t fetch(accel_queue *queue, accel_burst_done *bursts, accel_op_done *ops, uint32_t most)
{
	uint32_t count = 0;
	pthread_mutex_lock(&queue->lock);
	for (; count < most && queue->finished > 0; count++) {
		const struct job *job = job_at(queue, 0);
		if (bursts)
			bursts[count] = (accel_burst_done){ job->burst.token, job->burst.sa, job->burst.count };
		else
			ops[count] = job->answer;
		queue->first = (queue->first + 1) % RING;
		queue->finished--;
	}
	pthread_mutex_unlock(&queue->lock);
	return count;
}

static uint32_t burst_poll(accel_queue *queue, accel_burst_done *done, uint32_t most)
{
	return fetch(queue, done, NULL, most);
}

static uint32_t op_poll(accel_queue *queue, accel_op_done *done, uint32_t most)
{
	return fetch(queue, NULL, done, most);
}

/* Returns at once. The thread gives back what waits, as aborted; what it has in hand it finishes. */
static void queue_stop(accel_queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	queue->stopped = 1;
	pthread_cond_signal(&queue->wake);
	pthread_mutex_unlock(&queue->lock);
}

static void queue_close(accel_queue *queue)
{
	pthread_mutex_lock(&queue->lock);
	queue->closed = 1;
	pthread_cond_signal(&queue->wake);
	pthread_mutex_unlock(&queue->lock);
	pthread_join(queue->thread, NULL);
	pthread_cond_destroy(&queue->wake);
	pthread_mutex_destroy(&queue->lock);
	free(queue);
}

static accel_queue *queue_open(accel_device *device, uint32_t kind, uint32_t depth, uint64_t bell)
{
	accel_queue *queue = calloc(1, sizeof *queue);
	if (!queue)
		return NULL;
	queue->device = device;
	queue->kind = kind;
	queue->depth = depth < RING ? depth : RING;
	queue->bell = bell;
	pthread_mutex_init(&queue->lock, NULL);
	pthread_cond_init(&queue->wake, NULL);
	if (pthread_create(&queue->thread, NULL, work, queue) != 0) {
		free(queue);
		return NULL;
	}
	return queue;
}

static uint32_t sa_install(accel_device *device, const accel_sa *params, uint32_t *handle)
{
	uint32_t place = 0;
	if (params->encr_key_len > sizeof device->sas[0]->encr_key || params->integ_key_len > sizeof device->sas[0]->integ_key)
		return ACCEL_UNSUPPORTED;
	while (place < SAS && device->sas[place])
		place++;
	if (place == SAS)
		return ACCEL_EXHAUSTED;
	struct sa *sa = calloc(1, sizeof *sa);
	if (!sa)
		return ACCEL_EXHAUSTED;
	sa->spi = params->spi;
	sa->encr = params->encr;
	sa->esn = params->esn;
	memcpy(sa->encr_key, params->encr_key, params->encr_key_len);
	if (params->integ_key_len)
		memcpy(sa->integ_key, params->integ_key, params->integ_key_len);
	device->sas[place] = sa;
	*handle = place;
	return ACCEL_DONE;
}

static void sa_remove(accel_device *device, uint32_t handle)
{
	struct sa *sa = device->sas[handle];
	device->sas[handle] = NULL;
	/* A key does not stay in freed memory; a plain memset the compiler would leave out. */
	for (volatile uint8_t *at = (volatile uint8_t *)sa; at < (volatile uint8_t *)(sa + 1); at++)
		*at = 0;
	free(sa);
}

static const accel_transform transforms[] = {
	{ 28, 0, 0, 1 },    /* ChaCha20-Poly1305 */
	{ 13, 128, 12, 1 }, /* AES-CTR with 128 bits, HMAC-SHA2-256-128 */
};

static const uint16_t groups[] = { 31 }; /* X25519 */

static uint32_t probe(uint32_t index, accel_info *info)
{
	if (index > 0)
		return 0;
	memcpy(info->name, "thread0", sizeof "thread0");
	info->traits = ACCEL_IN_ORDER;
	info->ring = RING;
	info->max_sas = SAS;
	info->max_len = 65535;
	info->transforms = transforms;
	info->transform_count = sizeof transforms / sizeof transforms[0];
	info->groups = groups;
	info->group_count = sizeof groups / sizeof groups[0];
	info->has_random = 1;
	return 1;
}

static accel_device *device_open(uint32_t index, const accel_host *host)
{
	accel_device *device = calloc(1, sizeof *device);
	(void)index; /* there is one */
	if (device)
		device->host = host;
	return device;
}

static void device_close(accel_device *device)
{
	for (uint32_t i = 0; i < SAS; i++)
		if (device->sas[i])
			sa_remove(device, i);
	free(device);
}

static uint32_t device_health(accel_device *device)
{
	(void)device;
	return ACCEL_READY;
}

static const accel_driver driver = {
	.size = sizeof driver,
	.abi = ACCEL_ABI,
	.name = "example",
	.version = "1.0",
	.probe = probe,
	.device_open = device_open,
	.device_close = device_close,
	.device_health = device_health,
	.sa_install = sa_install,
	.sa_remove = sa_remove,
	.queue_open = queue_open,
	.queue_room = queue_room,
	.burst_submit = burst_submit,
	.burst_poll = burst_poll,
	.op_submit = op_submit,
	.op_poll = op_poll,
	.queue_stop = queue_stop,
	.queue_close = queue_close,
};

const accel_driver *accel_plugin(uint32_t abi)
{
	return abi == ACCEL_ABI ? &driver : NULL;
}
