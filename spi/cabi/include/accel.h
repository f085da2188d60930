/* SPDX-License-Identifier: MIT OR Apache-2.0
 * accel.h: an accelerator for tussock, in C. docs/driver-guide-c.md goes through all of it; `tussock-hwtest run --plugin` judges.
 * A plug-in exports one symbol, accel_plugin. Structs that begin with `size` grow at the end only: `size` is sizeof as its writer
 * knew it. Algorithms are IANA's IKEv2 transform numbers. Nobody keeps a pointer beyond the call, unless a comment says so. */
#ifndef TUSSOCK_ACCEL_H
#define TUSSOCK_ACCEL_H
#include <stdint.h>
#define ACCEL_ABI 1u
#define ACCEL_MAX_PACKETS 64u /* in one burst */

typedef struct accel_device accel_device; /* yours; the host never looks inside */
typedef struct accel_queue accel_queue;   /* yours */

enum accel_status { /* how a packet, an operation or an installation ended */
	ACCEL_PENDING, ACCEL_DONE, ACCEL_BAD_ICV, ACCEL_BAD_INPUT, ACCEL_ABORTED, ACCEL_UNSUPPORTED, ACCEL_EXHAUSTED, ACCEL_FAILED };
enum accel_health { ACCEL_READY, ACCEL_DEAD };
enum accel_trait { ACCEL_IN_ORDER = 1, ACCEL_FIPS = 2 }; /* bursts come back as submitted; validated code only */
enum accel_kind { ACCEL_PACKETS, ACCEL_OPERATIONS };     /* of a queue */
enum accel_dir { ACCEL_SEAL, ACCEL_OPEN };
enum accel_what { ACCEL_GENERATE, ACCEL_DERIVE, ACCEL_RANDOM };

typedef struct { uint16_t encr, key_bits, integ, esn; } accel_transform; /* key_bits 0: one size; esn 1: both kinds of numbers */

typedef struct { /* what you say of a device; pointers stay good for ever */
	uint32_t size, traits;
	char name[32];
	int32_t numa_node; /* -1: nobody knows */
	uint32_t ring, max_sas, max_len; /* jobs in a queue, SAs at a time, octets of an ESP packet */
	uint32_t transform_count, group_count, has_random;
	const accel_transform *transforms;
	const uint16_t *groups; /* of key exchange */
} accel_info;

typedef struct {
	uint32_t size, spi;
	uint16_t encr, key_bits, integ;
	uint8_t dir, esn;
	uint32_t encr_key_len, integ_key_len; /* salt included, as for IKE */
	const uint8_t *encr_key, *integ_key;
} accel_sa;

typedef struct { uint64_t seq; uint32_t at; uint16_t len, status; } accel_packet; /* in and out: len and status change */

typedef struct { /* buf and packets are yours to write until the burst is back */
	uint64_t token;
	uint8_t *buf;
	accel_packet *packets;
	uint32_t capacity, count, sa, dir;
} accel_burst;

typedef struct { uint64_t token; uint32_t sa, count; } accel_burst_done;

typedef struct { /* secret, in and out stay until the operation is back */
	uint64_t token;
	uint8_t *secret, *out;
	const uint8_t *in;
	uint32_t what, group, secret_len, out_len, in_len, zero;
} accel_op;

typedef struct { uint64_t token; uint32_t status, secret_len, out_len, zero; } accel_op_done;

typedef struct { /* what the host has for you; stays good for ever; any thread */
	uint32_t size, abi;
	void (*ring)(uint64_t bell);
	void (*log)(const char *line);
} accel_host;

typedef struct { /* control plane: any thread, one call at a time; a queue: one thread at a time */
	uint32_t size, abi;
	const char *name, *version;
	uint32_t (*probe)(uint32_t index, accel_info *info); /* 1, or 0 when there is no such device */
	accel_device *(*device_open)(uint32_t index, const accel_host *host);
	void (*device_close)(accel_device *); /* its queues are closed before */
	uint32_t (*device_health)(accel_device *);
	uint32_t (*memory_add)(accel_device *, void *base, uint64_t len); /* may be NULL: no DMA */
	uint32_t (*sa_install)(accel_device *, const accel_sa *, uint32_t *sa);
	void (*sa_remove)(accel_device *, uint32_t sa); /* nothing is out on it */
	accel_queue *(*queue_open)(accel_device *, uint32_t kind, uint32_t depth, uint64_t bell);
	uint32_t (*queue_room)(accel_queue *);
	uint32_t (*burst_submit)(accel_queue *, const accel_burst *, uint32_t count); /* how many it took */
	uint32_t (*burst_poll)(accel_queue *, accel_burst_done *, uint32_t room);     /* how many it gave */
	uint32_t (*op_submit)(accel_queue *, const accel_op *, uint32_t count); /* NULL without groups and random */
	uint32_t (*op_poll)(accel_queue *, accel_op_done *, uint32_t room);
	void (*queue_stop)(accel_queue *);  /* at once; then all that is out comes back, as ACCEL_ABORTED unless it was ready */
	void (*queue_close)(accel_queue *); /* nothing is out, and nothing may be written any more */
} accel_driver;

__attribute__((visibility("default"))) const accel_driver *accel_plugin(uint32_t abi); /* NULL: speaks no such ABI */
#endif
