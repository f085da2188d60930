/*
 * A few flat functions over Intel's ipsec-mb library, versions 1.3 to 2.0, so that Rust knows no layout of a structure of the
 * library's. The Rust side is src/sys/imb.rs; the two structures and the numbers below are written down there a second time.
 *
 * Memory for managers and GCM keys comes from the caller: as long as the functions here say, and aligned to 64 octets. Nothing
 * is allocated here, and nothing is kept after a function has returned.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Without the names of versions long gone. */
#define NO_COMPAT_IMB_API_053
#include <intel-ipsec-mb.h>

#if IMB_VERSION_NUM < IMB_VERSION(1, 3, 0)
#error "ipsec-mb 1.3 or newer is needed (Debian: libipsec-mb-dev)"
#endif

enum { CIPHER_NULL, CIPHER_CBC, CIPHER_CTR, CIPHER_CHACHA20_POLY1305 };
enum { HASH_NONE, HASH_SHA1, HASH_SHA256, HASH_SHA384, HASH_SHA512 };

/* What all packets of a burst have in common. */
struct tussock_imb_suite {
        const void *cipher_key; /* AES: the schedule for the direction; ChaCha20: the key */
        const void *ipad;       /* HMAC: the states of the hash after its first block */
        const void *opad;
        uint32_t cipher;
        uint32_t cipher_key_len; /* octets of the key itself */
        uint32_t hash;
        uint32_t seal;
        uint32_t tag_len;
};

/* One packet of a burst. */
struct tussock_imb_packet {
        uint8_t *at;         /* where the packet begins */
        uint32_t text_at;    /* octets before the text */
        uint32_t text_len;
        uint32_t hashed_len; /* octets that HMAC covers, from the beginning */
        uint32_t iv_len;
        uint32_t aad_len;
        uint32_t done; /* set to 1 when all went well */
        uint8_t iv[16];
        uint8_t aad[16];
        uint8_t tag[64]; /* where the ICV goes */
};

size_t tussock_imb_manager_len(void)
{
        return imb_get_mb_mgr_size();
}

/*
 * Makes a manager. Returns NULL when all is well; or why there is none, a text that stays.
 */
const char *tussock_imb_manager_init(void *at)
{
        static const uint64_t wanted = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_SSE4_2;
        IMB_MGR *manager = imb_set_pointers_mb_mgr(at, 0, 1);
        IMB_ARCH arch = IMB_ARCH_NONE;

        if (manager == NULL)
                return "the library refuses its memory";
        if ((manager->features & wanted) != wanted)
                return "the processor lacks AES-NI, PCLMULQDQ or SSE4.2";
        init_mb_mgr_auto(manager, &arch);
        if (imb_get_errno(manager) != 0)
                return imb_get_strerror(imb_get_errno(manager));
        if (arch == IMB_ARCH_NONE)
                return "the library has no code for this processor";
        if ((manager->features & IMB_FEATURE_SELF_TEST) && !(manager->features & IMB_FEATURE_SELF_TEST_PASS))
                return "the library has failed its self-test";
        return NULL;
}

/* The version of the library that runs, which need not be that of the header. */
const char *tussock_imb_version(void)
{
        return imb_get_version_str();
}

size_t tussock_imb_gcm_key_len(void)
{
        return sizeof(struct gcm_key_data);
}

size_t tussock_imb_gcm_work_len(void)
{
        return sizeof(struct gcm_context_data);
}

/* Runs the schedule of an AES-GCM key of 16, 24 or 32 octets; returns 0 for another length. */
int tussock_imb_gcm_key(const void *at, const uint8_t *key, size_t key_len, void *out)
{
        const IMB_MGR *manager = at;

        switch (key_len) {
        case 16:
                IMB_AES128_GCM_PRE(manager, key, out);
                return 1;
        case 24:
                IMB_AES192_GCM_PRE(manager, key, out);
                return 1;
        case 32:
                IMB_AES256_GCM_PRE(manager, key, out);
                return 1;
        default:
                return 0;
        }
}

/*
 * Encrypts or decrypts in place under a nonce of 12 octets, and writes the tag either way. Many threads may do so with one
 * manager and one key at a time; `work` belongs to one of them.
 */
#define GCM_PASS(name, which)                                                                                           \
        void name(const void *at, const void *key, size_t key_len, void *work, uint8_t *text, size_t text_len,         \
                  const uint8_t *nonce, const uint8_t *aad, size_t aad_len, uint8_t *tag, size_t tag_len)              \
        {                                                                                                              \
                const IMB_MGR *manager = at;                                                                           \
                                                                                                                       \
                switch (key_len) {                                                                                     \
                case 16:                                                                                               \
                        IMB_AES128_GCM_##which(manager, key, work, text, text, text_len, nonce, aad, aad_len, tag,     \
                                               tag_len);                                                               \
                        break;                                                                                         \
                case 24:                                                                                               \
                        IMB_AES192_GCM_##which(manager, key, work, text, text, text_len, nonce, aad, aad_len, tag,     \
                                               tag_len);                                                               \
                        break;                                                                                         \
                default:                                                                                               \
                        IMB_AES256_GCM_##which(manager, key, work, text, text, text_len, nonce, aad, aad_len, tag,     \
                                               tag_len);                                                               \
                }                                                                                                      \
        }

GCM_PASS(tussock_imb_gcm_seal, ENC)
GCM_PASS(tussock_imb_gcm_open, DEC)

/* Writes the two AES schedules, each 240 octets long at most and aligned to 16; returns 0 for another length of key. */
int tussock_imb_aes_key(const void *at, const uint8_t *key, size_t key_len, void *encrypt, void *decrypt)
{
        const IMB_MGR *manager = at;

        switch (key_len) {
        case 16:
                IMB_AES_KEYEXP_128(manager, key, encrypt, decrypt);
                return 1;
        case 24:
                IMB_AES_KEYEXP_192(manager, key, encrypt, decrypt);
                return 1;
        case 32:
                IMB_AES_KEYEXP_256(manager, key, encrypt, decrypt);
                return 1;
        default:
                return 0;
        }
}

/* Writes the state of a hash after one block of input, 64 octets at most; returns 0 for another hash. */
int tussock_imb_hash_block(const void *at, uint32_t hash, const uint8_t *block, void *state)
{
        const IMB_MGR *manager = at;

        switch (hash) {
        case HASH_SHA1:
                IMB_SHA1_ONE_BLOCK(manager, block, state);
                return 1;
        case HASH_SHA256:
                IMB_SHA256_ONE_BLOCK(manager, block, state);
                return 1;
        case HASH_SHA384:
                IMB_SHA384_ONE_BLOCK(manager, block, state);
                return 1;
        case HASH_SHA512:
                IMB_SHA512_ONE_BLOCK(manager, block, state);
                return 1;
        default:
                return 0;
        }
}

static const IMB_HASH_ALG hashes[] = {
        [HASH_NONE] = IMB_AUTH_NULL,
        [HASH_SHA1] = IMB_AUTH_HMAC_SHA_1,
        [HASH_SHA256] = IMB_AUTH_HMAC_SHA_256,
        [HASH_SHA384] = IMB_AUTH_HMAC_SHA_384,
        [HASH_SHA512] = IMB_AUTH_HMAC_SHA_512,
};

static void fill(IMB_JOB *job, const struct tussock_imb_suite *suite, struct tussock_imb_packet *packet)
{
        /* A cipher has nothing to do in a packet without text, and the library calls such a job invalid. */
        const uint32_t cipher = packet->text_len == 0 && suite->cipher != CIPHER_CHACHA20_POLY1305 ? CIPHER_NULL
                                                                                                   : suite->cipher;

        memset(job, 0, sizeof(*job));
        job->enc_keys = suite->cipher_key;
        job->dec_keys = suite->cipher_key;
        job->key_len_in_bytes = suite->cipher_key_len;
        job->src = packet->at;
        job->dst = packet->at + packet->text_at;
        job->cipher_start_src_offset_in_bytes = packet->text_at;
        job->msg_len_to_cipher_in_bytes = packet->text_len;
        job->hash_start_src_offset_in_bytes = 0;
        job->msg_len_to_hash_in_bytes = packet->hashed_len;
        job->iv = packet->iv;
        job->iv_len_in_bytes = packet->iv_len;
        job->auth_tag_output = packet->tag;
        job->auth_tag_output_len_in_bytes = suite->tag_len;
        job->cipher_direction = suite->seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
        job->chain_order = suite->seal ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
        job->user_data = packet;
        switch (cipher) {
        case CIPHER_CBC:
                job->cipher_mode = IMB_CIPHER_CBC;
                break;
        case CIPHER_CTR:
                job->cipher_mode = IMB_CIPHER_CNTR;
                break;
        case CIPHER_CHACHA20_POLY1305:
                job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
                break;
        default:
                job->cipher_mode = IMB_CIPHER_NULL;
        }
        if (cipher == CIPHER_CHACHA20_POLY1305) {
                job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
                job->hash_start_src_offset_in_bytes = packet->text_at;
                job->msg_len_to_hash_in_bytes = packet->text_len;
                job->u.CHACHA20_POLY1305.aad = packet->aad;
                job->u.CHACHA20_POLY1305.aad_len_in_bytes = packet->aad_len;
        } else {
                job->hash_alg = hashes[suite->hash];
                job->u.HMAC._hashed_auth_key_xor_ipad = suite->ipad;
                job->u.HMAC._hashed_auth_key_xor_opad = suite->opad;
        }
}

static void take(const IMB_JOB *job)
{
        struct tussock_imb_packet *packet = job->user_data;

        packet->done = job->status == IMB_STATUS_COMPLETED;
}

/*
 * Carries out a burst of at most as many packets as the library has places for jobs, and leaves the manager empty. The manager
 * belongs to one thread.
 */
void tussock_imb_burst(void *at, const struct tussock_imb_suite *suite, struct tussock_imb_packet *packets, size_t count)
{
        IMB_MGR *manager = at;
        IMB_JOB *job;
        size_t i;

        for (i = 0; i < count; i++) {
                packets[i].done = 0;
                fill(IMB_GET_NEXT_JOB(manager), suite, &packets[i]);
                for (job = IMB_SUBMIT_JOB(manager); job != NULL; job = IMB_GET_COMPLETED_JOB(manager))
                        take(job);
        }
        while ((job = IMB_FLUSH_JOB(manager)) != NULL)
                take(job);
}
