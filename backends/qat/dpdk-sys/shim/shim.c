/* See shim.h. */

#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_common.h>
#include <rte_memory.h>
#include <rte_version.h>

/* Where IV, associated data and ICV are, from the beginning of a request. */
#define BESIDE (sizeof(struct rte_crypto_op) + sizeof(struct rte_crypto_sym_op))
#define BESIDE_NUMBERS (sizeof(struct rte_crypto_op) + sizeof(struct rte_crypto_asym_op))

int td_errno(void)
{
	return rte_errno;
}

static void (*log_to)(uint32_t level, const char *line, size_t len);

static ssize_t log_write(void *cookie, const char *line, size_t len)
{
	(void)cookie;
	log_to((uint32_t)rte_log_cur_msg_loglevel(), line, len);
	return (ssize_t)len;
}

int td_log_to(void (*to)(uint32_t level, const char *line, size_t len))
{
	cookie_io_functions_t functions = { .write = log_write };
	FILE *stream;

	log_to = to;
	stream = fopencookie(NULL, "w", functions);
	if (stream == NULL)
		return -1;
	setvbuf(stream, NULL, _IOLBF, 1024);
	return rte_openlog_stream(stream);
}

static enum rte_crypto_cipher_algorithm cipher_of(enum td_cipher cipher)
{
	return cipher == TD_AES_CTR ? RTE_CRYPTO_CIPHER_AES_CTR : RTE_CRYPTO_CIPHER_AES_CBC;
}

static enum rte_crypto_aead_algorithm aead_of(enum td_cipher cipher)
{
	return cipher == TD_CHACHA20_POLY1305 ? RTE_CRYPTO_AEAD_CHACHA20_POLY1305 : RTE_CRYPTO_AEAD_AES_GCM;
}

static enum rte_crypto_auth_algorithm auth_of(enum td_auth auth)
{
	switch (auth) {
	case TD_SHA1_HMAC:
		return RTE_CRYPTO_AUTH_SHA1_HMAC;
	case TD_SHA384_HMAC:
		return RTE_CRYPTO_AUTH_SHA384_HMAC;
	case TD_SHA512_HMAC:
		return RTE_CRYPTO_AUTH_SHA512_HMAC;
	default:
		return RTE_CRYPTO_AUTH_SHA256_HMAC;
	}
}

bool td_does(uint8_t dev, const struct td_transform *transform)
{
	const struct rte_cryptodev_symmetric_capability *found;
	struct rte_cryptodev_sym_capability_idx index = { 0 };

	if (transform->form == TD_AEAD) {
		index.type = RTE_CRYPTO_SYM_XFORM_AEAD;
		index.algo.aead = aead_of(transform->cipher);
		found = rte_cryptodev_sym_capability_get(dev, &index);
		return found != NULL &&
		       rte_cryptodev_sym_capability_check_aead(found, transform->cipher_key_len, transform->icv_len,
							       transform->aad_len, transform->iv_len) == 0;
	}
	index.type = RTE_CRYPTO_SYM_XFORM_AUTH;
	index.algo.auth = auth_of(transform->auth);
	found = rte_cryptodev_sym_capability_get(dev, &index);
	if (found == NULL || rte_cryptodev_sym_capability_check_auth(found, transform->auth_key_len,
								     transform->icv_len, 0) != 0)
		return false;
	if (transform->form == TD_AUTH)
		return true;
	index.type = RTE_CRYPTO_SYM_XFORM_CIPHER;
	index.algo.cipher = cipher_of(transform->cipher);
	found = rte_cryptodev_sym_capability_get(dev, &index);
	return found != NULL &&
	       rte_cryptodev_sym_capability_check_cipher(found, transform->cipher_key_len, transform->iv_len) == 0;
}

static const struct rte_cryptodev_asymmetric_xform_capability *asymmetric(uint8_t dev,
									    enum rte_crypto_asym_xform_type type)
{
	const struct rte_cryptodev_asym_capability_idx index = { .type = type };

	return rte_cryptodev_asym_capability_get(dev, &index);
}

bool td_does_powers(uint8_t dev, uint16_t len)
{
	const struct rte_cryptodev_asymmetric_xform_capability *found = asymmetric(dev, RTE_CRYPTO_ASYM_XFORM_MODEX);

	return found != NULL && rte_cryptodev_asym_xform_capability_check_modlen(found, len) == 0;
}

bool td_does_rsa(uint8_t dev, uint16_t len, bool crt)
{
	const struct rte_cryptodev_asymmetric_xform_capability *found = asymmetric(dev, RTE_CRYPTO_ASYM_XFORM_RSA);
	uint64_t wanted = crt ? RTE_CRYPTODEV_FF_RSA_PRIV_OP_KEY_QT : RTE_CRYPTODEV_FF_RSA_PRIV_OP_KEY_EXP;
	struct rte_cryptodev_info info;

	rte_cryptodev_info_get(dev, &info);
	return found != NULL && (info.feature_flags & wanted) != 0 &&
	       rte_cryptodev_asym_xform_capability_check_optype(found, RTE_CRYPTO_ASYM_OP_SIGN) == 1 &&
	       rte_cryptodev_asym_xform_capability_check_modlen(found, len) == 0;
}

void *td_session(uint8_t dev, struct rte_mempool *pool, const struct td_transform *transform)
{
	struct rte_crypto_sym_xform first = { 0 }, second = { 0 };
	struct rte_crypto_sym_xform *cipher, *auth;

	if (transform->form == TD_AEAD) {
		first.type = RTE_CRYPTO_SYM_XFORM_AEAD;
		first.aead.op = transform->seal ? RTE_CRYPTO_AEAD_OP_ENCRYPT : RTE_CRYPTO_AEAD_OP_DECRYPT;
		first.aead.algo = aead_of(transform->cipher);
		first.aead.key.data = transform->cipher_key;
		first.aead.key.length = transform->cipher_key_len;
		first.aead.iv.offset = BESIDE;
		first.aead.iv.length = transform->iv_len;
		first.aead.digest_length = transform->icv_len;
		first.aead.aad_length = transform->aad_len;
		return rte_cryptodev_sym_session_create(dev, &first, pool);
	}
	/* Encrypted and then authenticated; authenticated and then decrypted (RFC 4303 sections 3.3.2 and 3.4.4). */
	cipher = transform->seal ? &first : &second;
	auth = transform->seal ? &second : &first;
	if (transform->form == TD_AUTH)
		auth = &first;
	else
		first.next = &second;
	auth->type = RTE_CRYPTO_SYM_XFORM_AUTH;
	auth->auth.op = transform->seal ? RTE_CRYPTO_AUTH_OP_GENERATE : RTE_CRYPTO_AUTH_OP_VERIFY;
	auth->auth.algo = auth_of(transform->auth);
	auth->auth.key.data = transform->auth_key;
	auth->auth.key.length = transform->auth_key_len;
	auth->auth.digest_length = transform->icv_len;
	if (transform->form == TD_CHAIN) {
		cipher->type = RTE_CRYPTO_SYM_XFORM_CIPHER;
		cipher->cipher.op = transform->seal ? RTE_CRYPTO_CIPHER_OP_ENCRYPT : RTE_CRYPTO_CIPHER_OP_DECRYPT;
		cipher->cipher.algo = cipher_of(transform->cipher);
		cipher->cipher.key.data = transform->cipher_key;
		cipher->cipher.key.length = transform->cipher_key_len;
		cipher->cipher.iv.offset = BESIDE;
		cipher->cipher.iv.length = transform->iv_len;
	}
	return rte_cryptodev_sym_session_create(dev, &first, pool);
}

struct rte_mempool *td_requests(const char *name, unsigned int count, bool asymmetric)
{
	enum rte_crypto_op_type type =
		asymmetric ? RTE_CRYPTO_OP_TYPE_ASYMMETRIC : RTE_CRYPTO_OP_TYPE_SYMMETRIC;

	return rte_crypto_op_pool_create(name, type, count, 0, TD_ASIDE, SOCKET_ID_ANY);
}

struct rte_mempool *td_buffers(const char *name, unsigned int count)
{
	/* No room for data: packets stay where they are. */
	return rte_pktmbuf_pool_create(name, count, 0, 0, RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);
}

/* Nobody frees what is attached: it belongs to whoever submitted it. */
static void let_be(void *at, void *opaque)
{
	(void)at;
	(void)opaque;
}

static struct rte_mbuf_ext_shared_info attached = { .free_cb = let_be };

static uint8_t *beside(struct rte_crypto_op *op)
{
	size_t at = op->type == RTE_CRYPTO_OP_TYPE_ASYMMETRIC ? BESIDE_NUMBERS : BESIDE;

	return rte_crypto_op_ctod_offset(op, uint8_t *, at);
}

int td_take_slots(struct rte_mempool *requests, struct rte_mempool *buffers, struct td_slot *slots, uint32_t count)
{
	struct rte_crypto_op_pool_private *kind = rte_mempool_get_priv(requests);
	uint32_t taken;

	for (taken = 0; taken < count; taken++) {
		slots[taken].mbuf = NULL;
		slots[taken].op = rte_crypto_op_alloc(requests, kind->type);
		if (slots[taken].op == NULL)
			break;
		memcpy(beside(slots[taken].op) + TD_ASIDE - 8, &taken, sizeof(taken));
		if (buffers == NULL)
			continue;
		slots[taken].mbuf = rte_pktmbuf_alloc(buffers);
		if (slots[taken].mbuf == NULL) {
			rte_crypto_op_free(slots[taken].op);
			break;
		}
	}
	if (taken == count)
		return 0;
	td_give_slots(requests, buffers, slots, taken);
	return -ENOMEM;
}

void td_give_slots(struct rte_mempool *requests, struct rte_mempool *buffers, struct td_slot *slots, uint32_t count)
{
	uint32_t n;

	for (n = 0; n < count; n++) {
		if (slots[n].mbuf != NULL) {
			/* As it was: what it pointed to is not ours any more. */
			rte_mempool_put(buffers, slots[n].mbuf);
		}
		/* It may have held an IV, or part of a number. */
		memset(beside(slots[n].op), 0, TD_ASIDE);
		rte_mempool_put(requests, slots[n].op);
	}
}

uint8_t *td_aside(struct rte_crypto_op *op)
{
	return beside(op);
}

uint32_t td_number(struct rte_crypto_op *op)
{
	uint32_t number;

	memcpy(&number, beside(op) + TD_ASIDE - 8, sizeof(number));
	return number;
}

void td_prepare(struct td_slot slot, void *session, enum td_form form, const struct td_packet *packet)
{
	struct rte_crypto_sym_op *sym = slot.op->sym;
	uint8_t *icv;
	rte_iova_t icv_iova;

	/* Not counted: the buffer is never freed with something attached. */
	rte_pktmbuf_attach_extbuf(slot.mbuf, packet->at, packet->iova, packet->len, &attached);
	slot.mbuf->data_off = 0;
	slot.mbuf->data_len = packet->len;
	slot.mbuf->pkt_len = packet->len;

	if (packet->icv_at >= 0) {
		icv = packet->at + packet->icv_at;
		icv_iova = packet->iova + (uint32_t)packet->icv_at;
	} else {
		icv = rte_crypto_op_ctod_offset(slot.op, uint8_t *, BESIDE + TD_IV + TD_AAD);
		icv_iova = rte_crypto_op_ctophys_offset(slot.op, BESIDE + TD_IV + TD_AAD);
	}

	__rte_crypto_op_reset(slot.op, RTE_CRYPTO_OP_TYPE_SYMMETRIC);
	rte_crypto_op_attach_sym_session(slot.op, session);
	sym->m_src = slot.mbuf;
	if (form == TD_AEAD) {
		sym->aead.data.offset = packet->text_at;
		sym->aead.data.length = packet->text_len;
		sym->aead.digest.data = icv;
		sym->aead.digest.phys_addr = icv_iova;
		sym->aead.aad.data = rte_crypto_op_ctod_offset(slot.op, uint8_t *, BESIDE + TD_IV);
		sym->aead.aad.phys_addr = rte_crypto_op_ctophys_offset(slot.op, BESIDE + TD_IV);
		return;
	}
	sym->cipher.data.offset = form == TD_CHAIN ? packet->text_at : 0;
	sym->cipher.data.length = form == TD_CHAIN ? packet->text_len : 0;
	sym->auth.data.offset = 0;
	sym->auth.data.length = packet->hash_len;
	sym->auth.digest.data = icv;
	sym->auth.digest.phys_addr = icv_iova;
}

int td_status(const struct rte_crypto_op *op)
{
	return op->status;
}

uint16_t td_enqueue(uint8_t dev, uint16_t pair, struct rte_crypto_op **ops, uint16_t count)
{
	return rte_cryptodev_enqueue_burst(dev, pair, ops, count);
}

uint16_t td_dequeue(uint8_t dev, uint16_t pair, struct rte_crypto_op **ops, uint16_t count)
{
	return rte_cryptodev_dequeue_burst(dev, pair, ops, count);
}

int td_power_session(uint8_t dev, struct rte_mempool *pool, uint8_t *modulus, uint16_t modulus_len, uint8_t *exponent,
		     uint16_t exponent_len, void **session)
{
	struct rte_crypto_asym_xform xform = { .xform_type = RTE_CRYPTO_ASYM_XFORM_MODEX };

	xform.modex.modulus.data = modulus;
	xform.modex.modulus.length = modulus_len;
	xform.modex.exponent.data = exponent;
	xform.modex.exponent.length = exponent_len;
	return rte_cryptodev_asym_session_create(dev, &xform, pool, session);
}

void td_prepare_power(struct rte_crypto_op *op, void *session, uint8_t *base, uint16_t base_len, uint8_t *result,
		      uint16_t result_len)
{
	__rte_crypto_op_reset(op, RTE_CRYPTO_OP_TYPE_ASYMMETRIC);
	rte_crypto_op_attach_asym_session(op, session);
	op->asym->modex.base.data = base;
	op->asym->modex.base.length = base_len;
	op->asym->modex.result.data = result;
	op->asym->modex.result.length = result_len;
}

uint16_t td_power_len(const struct rte_crypto_op *op)
{
	return (uint16_t)op->asym->modex.result.length;
}

int td_rsa_session(uint8_t dev, struct rte_mempool *pool, const struct td_rsa *key, void **session)
{
	struct rte_crypto_asym_xform xform = { .xform_type = RTE_CRYPTO_ASYM_XFORM_RSA };
	size_t half = key->len / 2;

	xform.rsa.n.data = key->n;
	xform.rsa.n.length = key->len;
	xform.rsa.e.data = key->e;
	xform.rsa.e.length = key->e_len;
#if RTE_VERSION >= RTE_VERSION_NUM(24, 11, 0, 0)
	xform.rsa.padding.type = RTE_CRYPTO_RSA_PADDING_NONE;
#endif
	if (key->crt) {
		xform.rsa.key_type = RTE_RSA_KEY_TYPE_QT;
		xform.rsa.qt.p = (rte_crypto_uint){ .data = key->parts, .length = half };
		xform.rsa.qt.q = (rte_crypto_uint){ .data = key->parts + half, .length = half };
		xform.rsa.qt.dP = (rte_crypto_uint){ .data = key->parts + 2 * half, .length = half };
		xform.rsa.qt.dQ = (rte_crypto_uint){ .data = key->parts + 3 * half, .length = half };
		xform.rsa.qt.qInv = (rte_crypto_uint){ .data = key->parts + 4 * half, .length = half };
	} else {
		xform.rsa.key_type = RTE_RSA_KEY_TYPE_EXP;
		xform.rsa.d = (rte_crypto_uint){ .data = key->parts, .length = key->len };
	}
	return rte_cryptodev_asym_session_create(dev, &xform, pool, session);
}

void td_prepare_sign(struct rte_crypto_op *op, void *session, uint8_t *padded, uint16_t len, uint8_t *result)
{
	__rte_crypto_op_reset(op, RTE_CRYPTO_OP_TYPE_ASYMMETRIC);
	rte_crypto_op_attach_asym_session(op, session);
	op->asym->rsa.op_type = RTE_CRYPTO_ASYM_OP_SIGN;
#if RTE_VERSION < RTE_VERSION_NUM(24, 11, 0, 0)
	op->asym->rsa.padding.type = RTE_CRYPTO_RSA_PADDING_NONE;
#endif
	op->asym->rsa.message.data = padded;
	op->asym->rsa.message.length = len;
	op->asym->rsa.sign.data = result;
	op->asym->rsa.sign.length = len;
}

uint16_t td_sign_len(const struct rte_crypto_op *op)
{
	return (uint16_t)op->asym->rsa.sign.length;
}

int td_empty(uint8_t dev, uint16_t pairs, uint32_t places)
{
	const struct rte_cryptodev_qp_conf conf = { .nb_descriptors = places };
	uint16_t pair;
	int error;

	for (pair = 0; pair < pairs; pair++) {
		error = rte_cryptodev_queue_pair_setup(dev, pair, &conf, SOCKET_ID_ANY);
		if (error < 0)
			return error;
	}
	return 0;
}

int td_set_up(uint8_t dev, uint16_t pairs, uint32_t places)
{
	struct rte_cryptodev_config config = { .socket_id = SOCKET_ID_ANY, .nb_queue_pairs = pairs };
	int error;

	error = rte_cryptodev_configure(dev, &config);
	if (error < 0)
		return error;
	error = td_empty(dev, pairs, places);
	if (error < 0)
		return error;
	return rte_cryptodev_start(dev);
}

void td_close(uint8_t dev, uint32_t places)
{
	struct rte_cryptodev_config config = { .socket_id = SOCKET_ID_ANY, .nb_queue_pairs = 1 };

	/* Closing leaves pairs as they are, whatever is in them. */
	if (rte_cryptodev_configure(dev, &config) == 0)
		td_empty(dev, 1, places);
	rte_cryptodev_close(dev);
}

int td_map(uint8_t dev, void *at, size_t len, size_t page)
{
	struct rte_cryptodev_info info;

	rte_cryptodev_info_get(dev, &info);
	if (rte_extmem_register(at, len, NULL, 0, page) != 0 && rte_errno != EEXIST)
		return -rte_errno;
	if (rte_dev_dma_map(info.device, at, (uint64_t)(uintptr_t)at, len) != 0)
		return -rte_errno;
	return 0;
}

int td_unmap(uint8_t dev, void *at, size_t len)
{
	struct rte_cryptodev_info info;

	rte_cryptodev_info_get(dev, &info);
	rte_dev_dma_unmap(info.device, at, (uint64_t)(uintptr_t)at, len);
	return rte_extmem_unregister(at, len);
}
