#include "ccrypto.h"
#include <dlfcn.h>
#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

#define FUNCTIONS(X)                                                                                                   \
    X(EVP_CIPHER_CTX_new) X(EVP_CIPHER_CTX_free) X(EVP_CIPHER_CTX_ctrl) X(EVP_aes_256_gcm) X(EVP_CipherInit_ex)            \
    X(EVP_CipherUpdate) X(EVP_CipherFinal_ex)

#define MEMBER(name) __typeof__(name) *name;
static struct { FUNCTIONS(MEMBER) } crypto;
static int is_loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Never unloaded. */
static void load(void) {
    void *library = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
#define FIND(name)                                                                                                     \
    *(void **)&crypto.name = dlsym(library, #name);                                                                    \
    if (!crypto.name) return;
    FUNCTIONS(FIND)
    is_loaded = 1;
}

static int perform(EVP_CIPHER_CTX *context, struct ll_gcm *request) {
    int count = 0;
    unsigned char nothing[1];
    if (!crypto.EVP_CipherInit_ex(context, crypto.EVP_aes_256_gcm(), NULL, NULL, NULL, request->seals)
        || crypto.EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_IVLEN, (int)request->nonce_count, NULL) <= 0
        || !crypto.EVP_CipherInit_ex(context, NULL, NULL, request->key, request->nonce, request->seals))
        return -1;
    if (!request->seals
        && crypto.EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, ll_gcm_tag_count, request->tag) <= 0)
        return -1;
    if (request->associated_count
        && !crypto.EVP_CipherUpdate(context, NULL, &count, request->associated, (int)request->associated_count))
        return -1;
    if (request->count
        && (!crypto.EVP_CipherUpdate(context, request->output, &count, request->input, (int)request->count)
            || (size_t)count != request->count))
        return -1;
    /* A stream cipher has nothing left to write. */
    if (crypto.EVP_CipherFinal_ex(context, nothing, &count) <= 0) return 0;
    if (request->seals
        && crypto.EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, ll_gcm_tag_count, request->tag) <= 0)
        return -1;
    return 1;
}

enum ll_gcm_outcome ll_gcm_perform(struct ll_gcm *request) {
    EVP_CIPHER_CTX *context;
    int result;
    pthread_once(&once, load);
    if (!is_loaded || request->count > INT_MAX || request->associated_count > INT_MAX || request->nonce_count > INT_MAX)
        return ll_gcm_no_library;
    context = crypto.EVP_CIPHER_CTX_new();
    if (!context) return ll_gcm_no_library;
    result = perform(context, request);
    /* Wipes the key that it holds. */
    crypto.EVP_CIPHER_CTX_free(context);
    if (result == 1) return ll_gcm_done;
    if (!request->seals && request->count) explicit_bzero(request->output, request->count);
    return result == 0 ? ll_gcm_refused : ll_gcm_no_library;
}
