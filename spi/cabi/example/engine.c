/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "engine.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

struct engine {
	EVP_CIPHER_CTX *cipher;
};

struct engine *engine_new(void)
{
	struct engine *engine = calloc(1, sizeof *engine);
	if (engine && !(engine->cipher = EVP_CIPHER_CTX_new())) {
		free(engine);
		return NULL;
	}
	return engine;
}

void engine_free(struct engine *engine)
{
	if (engine)
		EVP_CIPHER_CTX_free(engine->cipher);
	free(engine);
}

static void put32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* RFC 4303 section 2: SPI and the low half of the number; then, for both transforms here, the number as IV. */
static void put_header(uint8_t *packet, const struct sa *sa, uint64_t seq)
{
	put32(packet, sa->spi);
	put32(packet + 4, (uint32_t)seq);
	put32(packet + 8, (uint32_t)(seq >> 32));
	put32(packet + 12, (uint32_t)seq);
}

/* What is authenticated and not encrypted (RFC 7634 section 2.1): the header as it stands in the packet, since somebody may have changed
 * it there; with extended numbers the high half, which is not in the packet, goes between SPI and low half. */
static int associated(uint8_t aad[12], const struct sa *sa, const uint8_t *packet, uint64_t seq)
{
	memcpy(aad, packet, 8);
	if (!sa->esn)
		return 8;
	put32(aad + 4, (uint32_t)(seq >> 32));
	memcpy(aad + 8, packet + 4, 4);
	return 12;
}

/* RFC 7634: ChaCha20 and Poly1305; the nonce is the salt, which follows the key, and the IV. */
static uint32_t chacha(struct engine *e, const struct sa *sa, uint8_t *packet, uint32_t len, uint64_t seq, int seal)
{
	uint8_t nonce[12], aad[12], *text = packet + ENGINE_HEAD;
	int aad_len = associated(aad, sa, packet, seq), out, ok;
	memcpy(nonce, sa->encr_key + 32, 4);
	memcpy(nonce + 4, packet + 8, 8);
	ok = EVP_CipherInit_ex(e->cipher, EVP_chacha20_poly1305(), NULL, sa->encr_key, nonce, seal);
	if (ok && !seal)
		ok = EVP_CIPHER_CTX_ctrl(e->cipher, EVP_CTRL_AEAD_SET_TAG, ENGINE_ICV, text + len);
	ok = ok && EVP_CipherUpdate(e->cipher, NULL, &out, aad, aad_len);
	ok = ok && (len == 0 || EVP_CipherUpdate(e->cipher, text, &out, text, (int)len));
	if (!ok)
		return ACCEL_FAILED;
	if (!EVP_CipherFinal_ex(e->cipher, text + len, &out))
		return seal ? ACCEL_FAILED : ACCEL_BAD_ICV;
	if (seal && !EVP_CIPHER_CTX_ctrl(e->cipher, EVP_CTRL_AEAD_GET_TAG, ENGINE_ICV, text + len))
		return ACCEL_FAILED;
	return ACCEL_DONE;
}

/* RFC 3686: the counter block is the nonce that follows the key, the IV, and a block count from one. */
static uint32_t ctr(struct engine *e, const struct sa *sa, uint8_t *packet, uint32_t len)
{
	uint8_t block[16], *text = packet + ENGINE_HEAD;
	int out;
	memcpy(block, sa->encr_key + 16, 4);
	memcpy(block + 4, packet + 8, 8);
	put32(block + 12, 1);
	if (!EVP_CipherInit_ex(e->cipher, EVP_aes_128_ctr(), NULL, sa->encr_key, block, 1))
		return ACCEL_FAILED;
	if (len && !EVP_CipherUpdate(e->cipher, text, &out, text, (int)len))
		return ACCEL_FAILED;
	return ACCEL_DONE;
}

/* RFC 4868 over header, IV and ciphertext; extended numbers put their high half behind (RFC 4303 section 2.2.1). The four octets
 * go where the ICV is, which the caller has saved. */
static int hmac(const struct sa *sa, uint8_t *packet, uint32_t len, uint64_t seq, uint8_t icv[32])
{
	size_t covered = ENGINE_HEAD + (size_t)len;
	unsigned int out;
	if (sa->esn) {
		put32(packet + covered, (uint32_t)(seq >> 32));
		covered += 4;
	}
	return HMAC(EVP_sha256(), sa->integ_key, 32, packet, covered, icv, &out) != NULL;
}

uint32_t engine_seal(struct engine *e, const struct sa *sa, uint8_t *packet, uint32_t len, uint64_t seq)
{
	uint8_t icv[32];
	uint32_t status;
	put_header(packet, sa, seq);
	if (sa->encr == 28)
		return chacha(e, sa, packet, len, seq, 1);
	status = ctr(e, sa, packet, len);
	if (status != ACCEL_DONE)
		return status;
	if (!hmac(sa, packet, len, seq, icv))
		return ACCEL_FAILED;
	memcpy(packet + ENGINE_HEAD + len, icv, ENGINE_ICV);
	return ACCEL_DONE;
}

uint32_t engine_open(struct engine *e, const struct sa *sa, uint8_t *packet, uint32_t packet_len, uint64_t seq)
{
	uint32_t len = packet_len - ENGINE_HEAD - ENGINE_ICV; /* the host has seen to it that this is no less than 0 */
	uint8_t icv[32], theirs[ENGINE_ICV], *at = packet + ENGINE_HEAD + len;
	if (sa->encr == 28)
		return chacha(e, sa, packet, len, seq, 0);
	memcpy(theirs, at, ENGINE_ICV);
	if (!hmac(sa, packet, len, seq, icv))
		return ACCEL_FAILED;
	memcpy(at, theirs, ENGINE_ICV);
	if (CRYPTO_memcmp(icv, theirs, ENGINE_ICV) != 0)
		return ACCEL_BAD_ICV;
	return ctr(e, sa, packet, len);
}

uint32_t engine_random(uint8_t *out, uint32_t len)
{
	return RAND_bytes(out, (int)len) == 1 ? ACCEL_DONE : ACCEL_FAILED;
}

uint32_t engine_x25519_generate(uint8_t secret[32], uint8_t public_value[32])
{
	uint32_t status = ACCEL_FAILED;
	size_t len = 32;
	EVP_PKEY *key;
	if (engine_random(secret, 32) != ACCEL_DONE)
		return ACCEL_FAILED;
	key = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, secret, 32);
	if (key && EVP_PKEY_get_raw_public_key(key, public_value, &len) && len == 32)
		status = ACCEL_DONE;
	EVP_PKEY_free(key);
	return status;
}

uint32_t engine_x25519_derive(const uint8_t secret[32], const uint8_t theirs[32], uint8_t shared[32])
{
	uint32_t status = ACCEL_FAILED;
	size_t len = 32;
	EVP_PKEY *ours = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, secret, 32);
	EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, theirs, 32);
	EVP_PKEY_CTX *ctx = ours ? EVP_PKEY_CTX_new(ours, NULL) : NULL;
	if (ctx && peer && EVP_PKEY_derive_init(ctx) > 0 && EVP_PKEY_derive_set_peer(ctx, peer) > 0)
		/* It fails for a value of small order, whose result is all zeroes (RFC 7748 section 6). */
		status = EVP_PKEY_derive(ctx, shared, &len) > 0 && len == 32 ? ACCEL_DONE : ACCEL_BAD_INPUT;
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(peer);
	EVP_PKEY_free(ours);
	return status;
}
