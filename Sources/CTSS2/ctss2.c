#include "ctss2.h"
#include <dlfcn.h>
#include <malloc.h>
#include <string.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_tctildr.h>

#define FUNCTIONS(X)                                                                                                   \
    X(tctildr, Tss2_TctiLdr_Initialize) X(tctildr, Tss2_TctiLdr_Finalize) X(esys, Esys_Initialize) X(esys, Esys_Finalize)  \
    X(esys, Esys_Startup) X(esys, Esys_CreatePrimary) X(esys, Esys_TR_GetName) X(esys, Esys_StartAuthSession)              \
    X(esys, Esys_TRSess_SetAttributes) X(esys, Esys_PolicyPCR) X(esys, Esys_PolicyAuthValue) X(esys, Esys_PolicyGetDigest) \
    X(esys, Esys_GetCapability) X(esys, Esys_Create) X(esys, Esys_Load) X(esys, Esys_TR_SetAuth) X(esys, Esys_Unseal)      \
    X(esys, Esys_FlushContext) X(esys, Esys_Free) X(mu, Tss2_MU_TPM2B_PUBLIC_Marshal)                                      \
    X(mu, Tss2_MU_TPM2B_PUBLIC_Unmarshal) X(mu, Tss2_MU_TPM2B_PRIVATE_Marshal) X(mu, Tss2_MU_TPM2B_PRIVATE_Unmarshal)      \
    X(mu, Tss2_MU_TPM2B_NAME_Marshal) X(mu, Tss2_MU_TPM2B_NAME_Unmarshal)

#define MEMBER(library, name) __typeof__(name) *name;
static struct { FUNCTIONS(MEMBER) } tss;

/* Never unloaded. */
static int load(void) {
    void *tctildr = dlopen("libtss2-tctildr.so.0", RTLD_NOW | RTLD_LOCAL);
    void *esys = dlopen("libtss2-esys.so.0", RTLD_NOW | RTLD_LOCAL);
    void *mu = dlopen("libtss2-mu.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!tctildr || !esys || !mu) return 0;
#define FIND(library, name)                                                                                            \
    *(void **)&tss.name = dlsym(library, #name);                                                                       \
    if (!tss.name) return 0;
    FUNCTIONS(FIND)
    return 1;
}

struct work {
    ESYS_CONTEXT *esys;
    ESYS_TR parent;
    TPM2B_NAME *name;
    TPML_PCR_SELECTION pcrs;
    struct ll_tpm2 *request;
};

/* The storage key as the TCG's profile for provisioning has it (ECC P-256): the same whenever it is made, until the TPM is cleared. */
static TSS2_RC make_parent(struct work *work) {
    static const TPM2B_SENSITIVE_CREATE none;
    static const TPM2B_DATA nothing;
    static const TPML_PCR_SELECTION unbound;
    TPM2B_PUBLIC template = {
        .publicArea = {
            .type = TPM2_ALG_ECC,
            .nameAlg = TPM2_ALG_SHA256,
            .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN
                                | TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_RESTRICTED
                                | TPMA_OBJECT_DECRYPT,
            .parameters.eccDetail = {
                .symmetric = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB},
                .scheme.scheme = TPM2_ALG_NULL,
                .curveID = TPM2_ECC_NIST_P256,
                .kdf.scheme = TPM2_ALG_NULL,
            },
        },
    };
    TPM2B_PUBLIC *public = NULL;
    TPM2B_CREATION_DATA *data = NULL;
    TPM2B_DIGEST *hash = NULL;
    TPMT_TK_CREATION *ticket = NULL;
    TSS2_RC code = tss.Esys_CreatePrimary(
        work->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &none, &template, &nothing,
        &unbound, &work->parent, &public, &data, &hash, &ticket);
    if (code) return code;
    tss.Esys_Free(public), tss.Esys_Free(data), tss.Esys_Free(hash), tss.Esys_Free(ticket);
    return tss.Esys_TR_GetName(work->esys, work->parent, &work->name);
}

/* Salted with the storage key and encrypting: nobody between here and the TPM reads along. */
static TSS2_RC start(struct work *work, TPM2_SE type, ESYS_TR *session) {
    const TPMT_SYM_DEF symmetric = {.algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB};
    TSS2_RC code = tss.Esys_StartAuthSession(
        work->esys, work->parent, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, type, &symmetric,
        TPM2_ALG_SHA256, session);
    if (code || type == TPM2_SE_TRIAL) return code;
    return tss.Esys_TRSess_SetAttributes(
        work->esys, *session, TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT | TPMA_SESSION_CONTINUESESSION, 0xff);
}

static void flush(struct work *work, ESYS_TR handle) {
    if (handle != ESYS_TR_NONE) tss.Esys_FlushContext(work->esys, handle);
}

/* A TPM that lacks a bank leaves its PCRs out of a policy without a word. */
static TSS2_RC has_pcrs(struct work *work, int *all) {
    TPMI_YES_NO more;
    TPMS_CAPABILITY_DATA *data = NULL;
    const TPMS_PCR_SELECTION *wanted = &work->pcrs.pcrSelections[0];
    TSS2_RC code = tss.Esys_GetCapability(
        work->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_CAP_PCRS, 0, 1, &more, &data);
    *all = 0;
    if (code) return code;
    for (UINT32 i = 0; i < data->data.assignedPCR.count && i < TPM2_NUM_PCR_BANKS; i++) {
        const TPMS_PCR_SELECTION *bank = &data->data.assignedPCR.pcrSelections[i];
        int missing = bank->hash != wanted->hash || bank->sizeofSelect < wanted->sizeofSelect;
        for (int byte = 0; !missing && byte < wanted->sizeofSelect; byte++)
            missing = (wanted->pcrSelect[byte] & ~bank->pcrSelect[byte]) != 0;
        if (!missing) *all = 1;
    }
    tss.Esys_Free(data);
    return TSS2_RC_SUCCESS;
}

/* An empty digest stands for the PCRs as they are. */
static TSS2_RC apply_policy(struct work *work, ESYS_TR session) {
    static const TPM2B_DIGEST current;
    TSS2_RC code = TSS2_RC_SUCCESS;
    if (work->request->pcrs)
        code = tss.Esys_PolicyPCR(
            work->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &current, &work->pcrs);
    if (!code && work->request->auth)
        code = tss.Esys_PolicyAuthValue(work->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE);
    return code;
}

static int has_policy(const struct ll_tpm2 *request) { return request->pcrs || request->auth; }

static enum ll_tpm2_outcome failed(struct ll_tpm2 *request, enum ll_tpm2_outcome outcome, TSS2_RC code) {
    request->answer = code;
    return outcome;
}

static TSS2_RC digest_of_policy(struct work *work, TPM2B_DIGEST *digest) {
    ESYS_TR trial = ESYS_TR_NONE;
    TPM2B_DIGEST *found = NULL;
    TSS2_RC code;
    if (!has_policy(work->request)) return TSS2_RC_SUCCESS;
    code = start(work, TPM2_SE_TRIAL, &trial);
    if (!code) code = apply_policy(work, trial);
    if (!code)
        code = tss.Esys_PolicyGetDigest(work->esys, trial, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &found);
    if (!code) *digest = *found;
    tss.Esys_Free(found);
    flush(work, trial);
    return code;
}

static enum ll_tpm2_outcome seal(struct work *work) {
    static const TPM2B_DATA nothing;
    static const TPML_PCR_SELECTION unbound;
    struct ll_tpm2 *request = work->request;
    TPM2B_SENSITIVE_CREATE sensitive = {.sensitive.data.size = ll_tpm2_key_count};
    TPM2B_PUBLIC template = {
        .publicArea = {
            .type = TPM2_ALG_KEYEDHASH,
            .nameAlg = TPM2_ALG_SHA256,
            .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT,
            .parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL,
        },
    };
    TPM2B_PRIVATE *private = NULL;
    TPM2B_PUBLIC *public = NULL;
    TPM2B_CREATION_DATA *data = NULL;
    TPM2B_DIGEST *hash = NULL;
    TPMT_TK_CREATION *ticket = NULL;
    ESYS_TR session = ESYS_TR_NONE;
    enum ll_tpm2_outcome outcome = ll_tpm2_done;
    size_t used = 0;
    TSS2_RC code = TSS2_RC_SUCCESS;
    if (request->pcrs) {
        int all;
        code = has_pcrs(work, &all);
        if (!code && !all) return ll_tpm2_no_pcr;
    }
    if (!code) code = digest_of_policy(work, &template.publicArea.authPolicy);
    if (code) return failed(request, ll_tpm2_failed, code);
    if (!has_policy(request)) template.publicArea.objectAttributes |= TPMA_OBJECT_USERWITHAUTH;
    /* What has no PIN to guess does not count towards a lockout. */
    if (!request->auth) template.publicArea.objectAttributes |= TPMA_OBJECT_NODA;
    memcpy(sensitive.sensitive.data.buffer, request->key, ll_tpm2_key_count);
    if (request->auth) {
        sensitive.sensitive.userAuth.size = (UINT16)request->auth_count;
        memcpy(sensitive.sensitive.userAuth.buffer, request->auth, request->auth_count);
    }
    code = start(work, TPM2_SE_HMAC, &session);
    if (!code)
        code = tss.Esys_Create(
            work->esys, work->parent, session, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &template, &nothing, &unbound,
            &private, &public, &data, &hash, &ticket);
    explicit_bzero(&sensitive, sizeof sensitive);
    if (!code) code = tss.Tss2_MU_TPM2B_PUBLIC_Marshal(public, request->blob, request->blob_count, &used);
    if (!code) code = tss.Tss2_MU_TPM2B_PRIVATE_Marshal(private, request->blob, request->blob_count, &used);
    if (!code) code = tss.Tss2_MU_TPM2B_NAME_Marshal(work->name, request->blob, request->blob_count, &used);
    if (code) outcome = failed(request, ll_tpm2_failed, code);
    else request->blob_count = used;
    tss.Esys_Free(private), tss.Esys_Free(public), tss.Esys_Free(data), tss.Esys_Free(hash), tss.Esys_Free(ticket);
    flush(work, session);
    return outcome;
}

static enum ll_tpm2_outcome take_apart(struct work *work, TPM2B_PUBLIC *public, TPM2B_PRIVATE *private) {
    struct ll_tpm2 *request = work->request;
    TPM2B_NAME name = {0};
    size_t used = 0;
    if (tss.Tss2_MU_TPM2B_PUBLIC_Unmarshal(request->blob, request->blob_count, &used, public)
        || tss.Tss2_MU_TPM2B_PRIVATE_Unmarshal(request->blob, request->blob_count, &used, private)
        || tss.Tss2_MU_TPM2B_NAME_Unmarshal(request->blob, request->blob_count, &used, &name)
        || used != request->blob_count)
        return ll_tpm2_malformed;
    if (name.size != work->name->size || memcmp(name.name, work->name->name, name.size)) return ll_tpm2_other;
    return ll_tpm2_done;
}

static enum ll_tpm2_outcome unseal(struct work *work) {
    struct ll_tpm2 *request = work->request;
    TPM2B_PUBLIC public = {0};
    TPM2B_PRIVATE private = {0};
    TPM2B_SENSITIVE_DATA *found = NULL;
    ESYS_TR session = ESYS_TR_NONE, object = ESYS_TR_NONE, opening = ESYS_TR_NONE;
    enum ll_tpm2_outcome outcome = take_apart(work, &public, &private);
    TSS2_RC code;
    if (outcome != ll_tpm2_done) return outcome;
    code = start(work, TPM2_SE_HMAC, &session);
    if (code) return failed(request, ll_tpm2_failed, code);
    code = tss.Esys_Load(
        work->esys, work->parent, session, ESYS_TR_NONE, ESYS_TR_NONE, &private, &public, &object);
    if (code) outcome = failed(request, ll_tpm2_not_loaded, code);
    if (!code && request->auth) {
        TPM2B_AUTH auth = {.size = (UINT16)request->auth_count};
        memcpy(auth.buffer, request->auth, request->auth_count);
        code = tss.Esys_TR_SetAuth(work->esys, object, &auth);
        explicit_bzero(&auth, sizeof auth);
        if (code) outcome = failed(request, ll_tpm2_failed, code);
    }
    if (!code) {
        code = start(work, has_policy(request) ? TPM2_SE_POLICY : TPM2_SE_HMAC, &opening);
        if (!code && has_policy(request)) code = apply_policy(work, opening);
        if (code) outcome = failed(request, ll_tpm2_failed, code);
    }
    if (!code) {
        code = tss.Esys_Unseal(work->esys, object, opening, ESYS_TR_NONE, ESYS_TR_NONE, &found);
        if (code) outcome = failed(request, ll_tpm2_refused, code);
    }
    if (!code && found->size != ll_tpm2_key_count) outcome = ll_tpm2_malformed;
    if (outcome == ll_tpm2_done) memcpy(request->key, found->buffer, ll_tpm2_key_count);
    if (found) explicit_bzero(found, sizeof *found);
    tss.Esys_Free(found);
    flush(work, opening), flush(work, object), flush(work, session);
    return outcome;
}

static enum ll_tpm2_outcome perform(struct work *work) {
    struct ll_tpm2 *request = work->request;
    TSS2_RC code = tss.Esys_Startup(work->esys, TPM2_SU_CLEAR);
    enum ll_tpm2_outcome outcome;
    /* Somebody has started it already, as a rule the kernel. */
    if (code && code != TPM2_RC_INITIALIZE) return failed(request, ll_tpm2_no_device, code);
    work->pcrs.count = 1;
    work->pcrs.pcrSelections[0] = (TPMS_PCR_SELECTION){
        .hash = request->bank == 384 ? TPM2_ALG_SHA384 : TPM2_ALG_SHA256,
        .sizeofSelect = 3,
        .pcrSelect = {request->pcrs & 0xff, request->pcrs >> 8 & 0xff, request->pcrs >> 16 & 0xff},
    };
    code = make_parent(work);
    outcome = code ? failed(request, ll_tpm2_no_parent, code) : request->seals ? seal(work) : unseal(work);
    tss.Esys_Free(work->name);
    flush(work, work->parent);
    return outcome;
}

static enum ll_tpm2_outcome perform_with_contexts(struct ll_tpm2 *request) {
    struct work work = {.parent = ESYS_TR_NONE, .request = request};
    TSS2_TCTI_CONTEXT *tcti = NULL;
    enum ll_tpm2_outcome outcome;
    TSS2_RC code = tss.Tss2_TctiLdr_Initialize(request->tcti, &tcti);
    if (code) return failed(request, ll_tpm2_no_device, code);
    code = tss.Esys_Initialize(&work.esys, tcti, NULL);
    outcome = code ? failed(request, ll_tpm2_no_device, code) : perform(&work);
    if (!code) tss.Esys_Finalize(&work.esys);
    tss.Tss2_TctiLdr_Finalize(&tcti);
    return outcome;
}

enum ll_tpm2_outcome ll_tpm2_perform(struct ll_tpm2 *request) {
    enum ll_tpm2_outcome outcome;
    if (!load()) return ll_tpm2_no_library;
    /* What goes through the contexts is given back as it is, on the way and at the end: the allocator writes over it. */
    mallopt(M_PERTURB, 0x5a);
    outcome = perform_with_contexts(request);
    mallopt(M_PERTURB, 0);
    return outcome;
}
