/* SPDX-License-Identifier: MIT OR Apache-2.0
 * What a card would do: one packet, one operation. libcrypto stands for the silicon; a vendor's firmware goes here. */
#ifndef EXAMPLE_ENGINE_H
#define EXAMPLE_ENGINE_H
#include "accel.h"

struct sa { /* what a card keeps of an SA */
	uint32_t spi;
	uint16_t encr;
	uint8_t esn;
	uint8_t encr_key[36], integ_key[32];
};

struct engine; /* one for each thread */
struct engine *engine_new(void);
void engine_free(struct engine *);

/* Both work in place and give an accel_status; the picture in docs/driver-guide-c.md shows what lies where. */
uint32_t engine_seal(struct engine *, const struct sa *, uint8_t *packet, uint32_t text_len, uint64_t seq);
uint32_t engine_open(struct engine *, const struct sa *, uint8_t *packet, uint32_t len, uint64_t seq);

#define ENGINE_HEAD 16u /* SPI, sequence number, IV */
#define ENGINE_ICV 16u

uint32_t engine_x25519_generate(uint8_t secret[32], uint8_t public_value[32]);
uint32_t engine_x25519_derive(const uint8_t secret[32], const uint8_t theirs[32], uint8_t shared[32]);
uint32_t engine_random(uint8_t *out, uint32_t len);
#endif
