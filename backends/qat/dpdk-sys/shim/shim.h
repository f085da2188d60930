/* What DPDK has as inline functions and as nested unions, as functions and plain structures. No decision is made here: which
 * algorithm, which lengths and when is the business of whoever calls. */

#ifndef TUSSOCK_DPDK_SHIM_H
#define TUSSOCK_DPDK_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_cryptodev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

/* Octets behind a request that are for its IV, its associated data and its ICV, in this order; and its number. */
#define TD_IV 16
#define TD_AAD 16
#define TD_ICV 64
#define TD_ASIDE (TD_IV + TD_AAD + TD_ICV + 8)

/* The most octets of a number in an asymmetric request. */
#define TD_NUMBER 1024

/* What a session does. */
enum td_form {
	TD_AEAD,
	TD_CHAIN,
	TD_AUTH,
};

enum td_cipher {
	TD_CIPHER_NONE,
	TD_AES_CBC,
	TD_AES_CTR,
	TD_AES_GCM,
	TD_CHACHA20_POLY1305,
};

enum td_auth {
	TD_AUTH_NONE,
	TD_SHA1_HMAC,
	TD_SHA256_HMAC,
	TD_SHA384_HMAC,
	TD_SHA512_HMAC,
};

/* A transform with its keys, which are not kept. */
struct td_transform {
	enum td_form form;
	enum td_cipher cipher;
	enum td_auth auth;
	bool seal;
	const uint8_t *cipher_key;
	uint16_t cipher_key_len;
	const uint8_t *auth_key;
	uint16_t auth_key_len;
	uint16_t iv_len;
	uint16_t aad_len;
	uint16_t icv_len;
};

/* One packet. Offsets are from `at`. The ICV is `icv_at` octets behind `at`, or, where that is negative, in the request. */
struct td_packet {
	uint8_t *at;
	uint64_t iova;
	uint16_t len;
	uint16_t text_at;
	uint16_t text_len;
	uint16_t hash_len;
	int32_t icv_at;
};

/* A request and the packet buffer that goes with it. */
struct td_slot {
	struct rte_crypto_op *op;
	struct rte_mbuf *mbuf;
};

/* Number of an error in the calling thread. */
int td_errno(void);

/* Sends every line that DPDK logs to `to`, with its level (RTE_LOG_ERR is 4, RTE_LOG_DEBUG 8). 0, or -1 if that cannot be. */
int td_log_to(void (*to)(uint32_t level, const char *line, size_t len));

/* Whether the device says that it does a transform. Keys may be absent; their lengths count. */
bool td_does(uint8_t dev, const struct td_transform *transform);

/* Whether it does powers, or RSA signatures (crt: from the parts of the key) with a modulus of so many octets. */
bool td_does_powers(uint8_t dev, uint16_t len);
bool td_does_rsa(uint8_t dev, uint16_t len, bool crt);

/* A session for a transform; NULL where the pool is empty (errno ENOMEM) or the device refuses. */
void *td_session(uint8_t dev, struct rte_mempool *pool, const struct td_transform *transform);

/* Pools for requests and packet buffers of a queue; NULL and errno. */
struct rte_mempool *td_requests(const char *name, unsigned int count, bool asymmetric);
struct rte_mempool *td_buffers(const char *name, unsigned int count);

/* Takes `count` slots out of the pools; 0 or a negative error, and nothing is taken then. */
int td_take_slots(struct rte_mempool *requests, struct rte_mempool *buffers, struct td_slot *slots, uint32_t count);
/* And puts them back. */
void td_give_slots(struct rte_mempool *requests, struct rte_mempool *buffers, struct td_slot *slots, uint32_t count);

/* What stands beside a request: TD_ASIDE octets. */
uint8_t *td_aside(struct rte_crypto_op *op);
/* The number that td_take_slots gave a request. */
uint32_t td_number(struct rte_crypto_op *op);

/* Makes a slot the request for one packet. */
void td_prepare(struct td_slot slot, void *session, enum td_form form, const struct td_packet *packet);

/* Its status: an `enum rte_crypto_op_status`. */
int td_status(const struct rte_crypto_op *op);

uint16_t td_enqueue(uint8_t dev, uint16_t pair, struct rte_crypto_op **ops, uint16_t count);
uint16_t td_dequeue(uint8_t dev, uint16_t pair, struct rte_crypto_op **ops, uint16_t count);

/* A power: session from modulus and exponent, request from base and place for the result. All in memory the device reaches. */
int td_power_session(uint8_t dev, struct rte_mempool *pool, uint8_t *modulus, uint16_t modulus_len, uint8_t *exponent,
		     uint16_t exponent_len, void **session);
void td_prepare_power(struct rte_crypto_op *op, void *session, uint8_t *base, uint16_t base_len, uint8_t *result,
		      uint16_t result_len);
/* Octets of the result. */
uint16_t td_power_len(const struct rte_crypto_op *op);

/* An RSA key: `parts` has p, q, dP, dQ and qInv, each `len / 2` octets, one behind the other, or, without crt, d of `len`. */
struct td_rsa {
	uint8_t *n;
	uint8_t *e;
	uint16_t len;
	uint16_t e_len;
	uint8_t *parts;
	bool crt;
};

int td_rsa_session(uint8_t dev, struct rte_mempool *pool, const struct td_rsa *key, void **session);
/* A signature of what is padded already. */
void td_prepare_sign(struct rte_crypto_op *op, void *session, uint8_t *padded, uint16_t len, uint8_t *result);
uint16_t td_sign_len(const struct rte_crypto_op *op);

/* Sets a device up: so many queue pairs of so many places, and starts it. */
int td_set_up(uint8_t dev, uint16_t pairs, uint32_t places);
/* Empties the pairs of a stopped device; what was in them is forgotten. */
int td_empty(uint8_t dev, uint16_t pairs, uint32_t places);
/* Closes a stopped device and forgets all but the first of its pairs. */
void td_close(uint8_t dev, uint32_t places);

/* Makes memory reachable for a device that does DMA, at its own address; and the opposite. */
int td_map(uint8_t dev, void *at, size_t len, size_t page);
int td_unmap(uint8_t dev, void *at, size_t len);

#endif
