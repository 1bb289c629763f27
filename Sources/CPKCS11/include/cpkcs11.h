/* One use of a key in a token (PKCS#11 2.40), from the loading of the module to its end. A module is a table of C functions behind
   dlopen(3), with structures packed as its header has them: it stays here. */
#ifndef LETTERLOCK_CPKCS11_H
#define LETTERLOCK_CPKCS11_H
#include <stddef.h>

struct ll_pkcs11 {
    const char *module;
    /* What the token and the key are called; null for whatever they are. */
    const char *token, *manufacturer, *model, *serial, *object;
    const unsigned char *id;
    size_t id_count;
    /* -1 for any. */
    long slot;
    const unsigned char *pin;
    size_t pin_count;
    /* AES-GCM with a tag of 16 bytes behind the ciphertext. */
    int seals;
    const unsigned char *nonce;
    size_t nonce_count;
    const unsigned char *associated;
    size_t associated_count;
    const unsigned char *input;
    size_t input_count;
    unsigned char *output;
    size_t output_count;
    /* What the module has answered, where the outcome says so. */
    unsigned long answer;
};

enum ll_pkcs11_outcome {
    ll_pkcs11_done,
    /* There is no such file, or it is no module: why is in `words`. */
    ll_pkcs11_no_module,
    ll_pkcs11_no_token,
    ll_pkcs11_many_tokens,
    ll_pkcs11_no_key,
    ll_pkcs11_many_keys,
    /* The key could leave the token. */
    ll_pkcs11_loose_key,
    /* `answer`: to the PIN, to the sealing or opening, to anything else. */
    ll_pkcs11_no_login,
    ll_pkcs11_refused,
    ll_pkcs11_failed,
};

/* One at a time. `words` has at least 256 bytes. */
enum ll_pkcs11_outcome ll_pkcs11_perform(struct ll_pkcs11 *request, char *words);
#endif
