/* AES-256-GCM with nonces longer than 12 bytes, which libsodium does not have: for files of others that ask for it. libcrypto is
   loaded when it is first needed, so that a program runs where it is absent. */
#ifndef LETTERLOCK_CCRYPTO_H
#define LETTERLOCK_CCRYPTO_H
#include <stddef.h>

enum { ll_gcm_key_count = 32, ll_gcm_tag_count = 16 };

struct ll_gcm {
    int seals;
    const unsigned char *key;
    const unsigned char *nonce;
    size_t nonce_count;
    const unsigned char *associated;
    size_t associated_count;
    /* At most INT_MAX bytes, and as many come out. */
    const unsigned char *input;
    unsigned char *output;
    size_t count;
    /* Given when it seals, taken when it opens. */
    unsigned char *tag;
};

enum ll_gcm_outcome {
    ll_gcm_done,
    /* There is no libcrypto, or it has no such cipher. */
    ll_gcm_no_library,
    /* It does not authenticate; the output is wiped. */
    ll_gcm_refused,
};

enum ll_gcm_outcome ll_gcm_perform(struct ll_gcm *request);
#endif
