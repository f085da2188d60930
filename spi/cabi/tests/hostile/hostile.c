/* SPDX-License-Identifier: MIT OR Apache-2.0
 * Plug-ins that are not what they should be: the example, and one thing wrong with it. -DLIE_... says which. */
#define accel_plugin honest_plugin
#include "../../example/plugin.c"
#undef accel_plugin

static accel_driver liar;
static uint32_t polls;
static accel_burst_done kept;
static accel_burst remembered[RING];
static uint32_t remembered_count;

static const accel_burst *find(uint64_t token)
{
	for (uint32_t i = 0; i < RING; i++)
		if (remembered[i].token == token)
			return &remembered[i];
	return NULL;
}

static uint32_t lying_submit(accel_queue *queue, const accel_burst *bursts, uint32_t count)
{
	uint32_t taken;
	for (uint32_t i = 0; i < count; i++)
		remembered[remembered_count++ % RING] = bursts[i];
	taken = burst_submit(queue, bursts, count);
#ifdef LIE_TOOK_TOO_MANY
	return taken + 1;
#else
	return taken;
#endif
}

/* Spoils a completion in the one way that was asked for. */
static void spoil(accel_burst_done *done)
{
	const accel_burst *burst = find(done->token);
#ifdef LIE_FROM /* honest until then */
	if (polls < LIE_FROM)
		return;
#endif
	accel_packet *packet = burst ? burst->packets : NULL;
	uint8_t *at = burst ? burst->buf + packet->at : NULL;
	(void)packet;
	(void)at;
#if defined LIE_FALSE_TOKEN
	done->token ^= 1ull << 40;
#elif defined LIE_WRONG_SA
	done->sa++;
#elif defined LIE_WRONG_COUNT
	done->count++;
#elif defined LIE_LONG
	if (packet)
		packet->len = (uint16_t)(packet->len + 100);
#elif defined LIE_PENDING
	if (packet)
		packet->status = ACCEL_PENDING;
#elif defined LIE_STATUS
	if (packet)
		packet->status = 99;
#elif defined LIE_SPI
	if (at)
		at[0] ^= 1;
#elif defined LIE_SEQ
	if (at)
		at[7] ^= 1;
#elif defined LIE_IV
	if (at)
		at[15] ^= 1;
#else
	(void)done;
#endif
}

static uint32_t lying_poll(accel_queue *queue, accel_burst_done *done, uint32_t most)
{
	uint32_t count;
#ifdef LIE_HOARDS
	if (queue->stopped)
		return 0;
#endif
#ifdef LIE_SILENT
	return 0;
#endif
	count = burst_poll(queue, done, most);
	for (uint32_t i = 0; i < count; i++)
		spoil(&done[i]);
	polls += count;
#ifdef LIE_DOUBLED
	if (count == 0 && kept.token) {
		done[0] = kept;
		return 1;
	}
#endif
#ifdef LIE_LATE /* long after it was there */
	if (count == 0 && polls > 20) {
		done[0] = kept;
		return 1;
	}
	if (kept.token)
		return count;
#endif
	if (count)
		kept = done[0];
#ifdef LIE_AFTER_STOP
	if (queue->stopped && count == 0 && queue->waiting == 0 && queue->finished == 0) {
		done[0] = kept;
		return 1;
	}
#endif
#ifdef LIE_GAVE_TOO_MANY
	return most + 1;
#endif
#ifdef LIE_RINGS
	queue->device->host->ring(queue->bell);
	queue->device->host->ring(UINT64_MAX);
	queue->device->host->ring(0);
	queue->device->host->log(NULL);
	queue->device->host->log("a line with a bell \a and an end");
#endif
	return count;
}

static uint32_t lying_op_poll(accel_queue *queue, accel_op_done *done, uint32_t most)
{
	uint32_t count = op_poll(queue, done, most);
	for (uint32_t i = 0; i < count; i++) {
#if defined LIE_OP_TOKEN
		done[i].token = 12345;
#elif defined LIE_OP_LONG
		done[i].out_len++;
#elif defined LIE_OP_SECRET
		done[i].secret_len = 1u << 20;
#elif defined LIE_OP_STATUS
		done[i].status = ACCEL_BAD_ICV;
#endif
	}
	return count;
}

static uint32_t lying_op_submit(accel_queue *queue, const accel_op *ops, uint32_t count)
{
#ifdef LIE_OP_TOOK
	(void)queue;
	(void)ops;
	return count + 7;
#else
	return op_submit(queue, ops, count);
#endif
}

static uint32_t lying_install(accel_device *device, const accel_sa *sa, uint32_t *handle)
{
	uint32_t status = sa_install(device, sa, handle);
#ifdef LIE_HANDLE
	*handle = 0;
#endif
#ifdef ODD_INSTALL
	status = 77;
#endif
	return status;
}

static uint32_t odd_probe(uint32_t index, accel_info *info)
{
#ifdef ODD_NO_DEVICE
	(void)index;
	(void)info;
	return 0;
#elif defined ODD_ENDLESS /* always one more, of the same name */
	(void)index;
	return probe(0, info);
#else
	uint32_t there = probe(index, info);
	static const accel_transform unknown[] = { { 20, 100, 0, 1 } };
	static const accel_transform bare[] = { { 12, 128, 0, 1 } };
	static const accel_transform twice[] = { { 28, 0, 0, 1 }, { 28, 0, 0, 0 } };
	static const uint16_t kem[] = { 36 };
	(void)unknown, (void)bare, (void)twice, (void)kem;
#if defined ODD_NAME
	memset(info->name, 'x', sizeof info->name);
#elif defined ODD_SPACE
	memcpy(info->name, "a b", 4);
#elif defined ODD_POINTER
	info->transforms = NULL;
#elif defined ODD_COUNT
	info->transform_count = 4000000000u;
#elif defined ODD_TRANSFORM
	info->transforms = unknown, info->transform_count = 1;
#elif defined ODD_BARE
	info->transforms = bare, info->transform_count = 1;
#elif defined ODD_TWICE
	info->transforms = twice, info->transform_count = 2;
#elif defined ODD_KEM
	info->groups = kem;
#elif defined ODD_RING
	info->ring = 0;
#elif defined ODD_SAS
	info->max_sas = 0;
#elif defined ODD_IDLE
	info->transform_count = 0, info->group_count = 0, info->has_random = 0;
#endif
	return there;
#endif
}

static accel_device *odd_open(uint32_t index, const accel_host *host)
{
#ifdef ODD_OPEN
	(void)index;
	host->log("no card in slot 3");
	return NULL;
#else
	return device_open(index, host);
#endif
}

static uint32_t odd_health(accel_device *device)
{
	(void)device;
#ifdef ODD_HEALTH
	return 77;
#else
	return ACCEL_READY;
#endif
}

const accel_driver *accel_plugin(uint32_t abi);
const accel_driver *accel_plugin(uint32_t abi)
{
	liar = *honest_plugin(ACCEL_ABI);
	(void)abi;
	liar.probe = odd_probe;
	liar.device_open = odd_open;
	liar.device_health = odd_health;
	liar.sa_install = lying_install;
	liar.burst_submit = lying_submit;
	liar.burst_poll = lying_poll;
	liar.op_submit = lying_op_submit;
	liar.op_poll = lying_op_poll;
#ifdef ODD_NULL
	return NULL;
#endif
#ifdef ODD_ABI
	liar.abi = 2;
#endif
#ifdef ODD_SIZE
	liar.size -= 8;
#endif
#ifdef ODD_MISSING
	liar.burst_poll = NULL;
	liar.queue_stop = NULL;
#endif
#ifdef ODD_NO_OPS
	liar.op_poll = NULL;
#endif
#ifdef ODD_NAMELESS
	liar.name = NULL;
#endif
#ifdef ODD_ADDRESS
	return (const accel_driver *)(uintptr_t)0x1235;
#endif
	return &liar;
}
