/* One use of a TPM 2.0: 32 bytes are sealed to it, or opened by it, under the storage key of its owner hierarchy. The libraries are
   loaded when they are needed, so that a program runs where they are absent: their types stay here. */
#ifndef LETTERLOCK_CTSS2_H
#define LETTERLOCK_CTSS2_H
#include <stddef.h>

enum { ll_tpm2_key_count = 32 };

struct ll_tpm2 {
    /* Which TPM, as tss2's TCTI loader calls it; null for this machine's. */
    const char *tcti;
    int seals;
    /* Bit n: what is sealed opens only while PCR n is as it was. Zero for none. */
    unsigned pcrs;
    /* 256 or 384: of the bank of SHA-256 or SHA-384. */
    unsigned bank;
    /* Of a PIN; null for none. */
    const unsigned char *auth;
    size_t auth_count;
    /* Taken when it seals, given when it opens: `ll_tpm2_key_count` bytes. */
    unsigned char *key;
    /* Given when it seals, taken when it opens: TPM2B_PUBLIC | TPM2B_PRIVATE | TPM2B_NAME of the storage key. */
    unsigned char *blob;
    /* Of the blob; before sealing, how much room there is. */
    size_t blob_count;
    /* What the TPM has answered, where the outcome says so. */
    unsigned answer;
};

enum ll_tpm2_outcome {
    ll_tpm2_done,
    ll_tpm2_no_library,
    /* No TPM, or nobody may use it: `answer`. */
    ll_tpm2_no_device,
    /* `answer`: the storage key cannot be made. */
    ll_tpm2_no_parent,
    /* The bank lacks one of these PCRs. */
    ll_tpm2_no_pcr,
    /* It was sealed by another TPM, or by this one before it was cleared. */
    ll_tpm2_other,
    /* The blob is none. */
    ll_tpm2_malformed,
    /* `answer`: to the loading of what is sealed, to its opening, to anything else. */
    ll_tpm2_not_loaded,
    ll_tpm2_refused,
    ll_tpm2_failed,
};

/* One at a time. */
enum ll_tpm2_outcome ll_tpm2_perform(struct ll_tpm2 *request);
#endif
