#include "cpkcs11.h"
#include <dlfcn.h>
#include <p11-kit-1/p11-kit/pkcs11.h>
#include <stdio.h>
#include <string.h>

enum { slot_limit = 64 };

/* Fields of a token are filled up with blanks. */
static int is_called(const unsigned char *field, size_t count, const char *name) {
    size_t length;
    if (!name) return 1;
    length = strlen(name);
    if (length > count || memcmp(field, name, length)) return 0;
    while (length < count)
        if (field[length++] != ' ') return 0;
    return 1;
}

static enum ll_pkcs11_outcome find_token(CK_FUNCTION_LIST *list, struct ll_pkcs11 *request, CK_SLOT_ID *found) {
    CK_SLOT_ID slots[slot_limit];
    CK_ULONG count = slot_limit, matches = 0;
    request->answer = list->C_GetSlotList(CK_TRUE, slots, &count);
    if (request->answer != CKR_OK) return ll_pkcs11_failed;
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        if (request->slot >= 0 && (CK_SLOT_ID)request->slot != slots[i]) continue;
        if (list->C_GetTokenInfo(slots[i], &info) != CKR_OK || !(info.flags & CKF_TOKEN_INITIALIZED)) continue;
        if (!is_called(info.label, sizeof info.label, request->token)
            || !is_called(info.manufacturerID, sizeof info.manufacturerID, request->manufacturer)
            || !is_called(info.model, sizeof info.model, request->model)
            || !is_called(info.serialNumber, sizeof info.serialNumber, request->serial))
            continue;
        *found = slots[i];
        matches++;
    }
    return matches == 1 ? ll_pkcs11_done : matches ? ll_pkcs11_many_tokens : ll_pkcs11_no_token;
}

static enum ll_pkcs11_outcome find_key(
    CK_FUNCTION_LIST *list, CK_SESSION_HANDLE session, struct ll_pkcs11 *request, CK_OBJECT_HANDLE *key) {
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_OBJECT_HANDLE found[2];
    CK_ULONG count = 0, used = 2;
    CK_BBOOL is_sensitive = CK_FALSE, is_extractable = CK_TRUE;
    CK_ATTRIBUTE wanted[4] = {{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type}};
    CK_ATTRIBUTE tight[] = {
        {CKA_SENSITIVE, &is_sensitive, sizeof is_sensitive}, {CKA_EXTRACTABLE, &is_extractable, sizeof is_extractable}};
    if (request->object) wanted[used++] = (CK_ATTRIBUTE){CKA_LABEL, (void *)request->object, strlen(request->object)};
    if (request->id) wanted[used++] = (CK_ATTRIBUTE){CKA_ID, (void *)request->id, request->id_count};
    request->answer = list->C_FindObjectsInit(session, wanted, used);
    if (request->answer != CKR_OK) return ll_pkcs11_failed;
    request->answer = list->C_FindObjects(session, found, 2, &count);
    list->C_FindObjectsFinal(session);
    if (request->answer != CKR_OK) return ll_pkcs11_failed;
    if (count != 1) return count ? ll_pkcs11_many_keys : ll_pkcs11_no_key;
    if (list->C_GetAttributeValue(session, found[0], tight, 2) != CKR_OK || !is_sensitive || is_extractable)
        return ll_pkcs11_loose_key;
    *key = found[0];
    return ll_pkcs11_done;
}

static enum ll_pkcs11_outcome use_key(
    CK_FUNCTION_LIST *list, CK_SESSION_HANDLE session, struct ll_pkcs11 *request, CK_OBJECT_HANDLE key) {
    CK_GCM_PARAMS parameters = {
        .iv_ptr = (unsigned char *)request->nonce,
        .iv_len = request->nonce_count,
        .iv_bits = 8 * request->nonce_count,
        .aad_ptr = (unsigned char *)request->associated,
        .aad_len = request->associated_count,
        .tag_bits = 128,
    };
    CK_MECHANISM mechanism = {CKM_AES_GCM, &parameters, sizeof parameters};
    CK_ULONG count = request->output_count;
    unsigned char *input = (unsigned char *)request->input;
    request->answer = request->seals ? list->C_EncryptInit(session, &mechanism, key)
                                     : list->C_DecryptInit(session, &mechanism, key);
    if (request->answer != CKR_OK) return ll_pkcs11_failed;
    request->answer = request->seals
                          ? list->C_Encrypt(session, input, request->input_count, request->output, &count)
                          : list->C_Decrypt(session, input, request->input_count, request->output, &count);
    if (request->answer != CKR_OK) return ll_pkcs11_refused;
    request->output_count = count;
    return ll_pkcs11_done;
}

static enum ll_pkcs11_outcome perform(CK_FUNCTION_LIST *list, struct ll_pkcs11 *request) {
    CK_SLOT_ID slot;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key;
    enum ll_pkcs11_outcome outcome = find_token(list, request, &slot);
    if (outcome != ll_pkcs11_done) return outcome;
    request->answer = list->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session);
    if (request->answer != CKR_OK) return ll_pkcs11_failed;
    request->answer = list->C_Login(session, CKU_USER, (unsigned char *)request->pin, request->pin_count);
    if (request->answer != CKR_OK) outcome = ll_pkcs11_no_login;
    if (outcome == ll_pkcs11_done) outcome = find_key(list, session, request, &key);
    if (outcome == ll_pkcs11_done) outcome = use_key(list, session, request, key);
    list->C_Logout(session);
    list->C_CloseSession(session);
    return outcome;
}

enum ll_pkcs11_outcome ll_pkcs11_perform(struct ll_pkcs11 *request, char *words) {
    /* Never unloaded: modules start threads and register handlers. */
    void *module = dlopen(request->module, RTLD_NOW | RTLD_LOCAL);
    CK_RV (*get_list)(CK_FUNCTION_LIST **) = NULL;
    CK_FUNCTION_LIST *list = NULL;
    CK_C_INITIALIZE_ARGS arguments = {.flags = CKF_OS_LOCKING_OK};
    enum ll_pkcs11_outcome outcome;
    words[0] = 0;
    if (module) *(void **)&get_list = dlsym(module, "C_GetFunctionList");
    if (!get_list) {
        const char *why = dlerror();
        snprintf(words, 256, "%s", why ? why : "it has no function list");
        return ll_pkcs11_no_module;
    }
    request->answer = get_list(&list);
    if (request->answer == CKR_OK) request->answer = list->C_Initialize(&arguments);
    if (request->answer != CKR_OK) return ll_pkcs11_failed;
    outcome = perform(list, request);
    list->C_Finalize(NULL);
    return outcome;
}
