#include "ccurl.h"
#include <curl/curl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static CURL *(*easy_init)(void);
static CURLcode (*easy_setopt)(CURL *, CURLoption, ...);
static CURLcode (*easy_perform)(CURL *);
static CURLcode (*easy_getinfo)(CURL *, CURLINFO, ...);
static void (*easy_cleanup)(CURL *);
static const char *(*easy_strerror)(CURLcode);
static int is_loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    CURLcode (*global_init)(long);
    if (!library) return;
    *(void **)&global_init = dlsym(library, "curl_global_init");
    *(void **)&easy_init = dlsym(library, "curl_easy_init");
    *(void **)&easy_setopt = dlsym(library, "curl_easy_setopt");
    *(void **)&easy_perform = dlsym(library, "curl_easy_perform");
    *(void **)&easy_getinfo = dlsym(library, "curl_easy_getinfo");
    *(void **)&easy_cleanup = dlsym(library, "curl_easy_cleanup");
    *(void **)&easy_strerror = dlsym(library, "curl_easy_strerror");
    if (!global_init || !easy_init || !easy_setopt || !easy_perform || !easy_getinfo || !easy_cleanup || !easy_strerror)
        return;
    is_loaded = global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static size_t take(char *bytes, size_t size, size_t count, void *context) {
    struct ll_http *request = context;
    return request->take(bytes, size * count, request->context);
}

static enum ll_http_outcome outcome(CURLcode code) {
    switch (code) {
    case CURLE_OK: return ll_http_done;
    case CURLE_OPERATION_TIMEDOUT: return ll_http_timed_out;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR: return ll_http_no_trust;
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT: return ll_http_misconfigured;
    case CURLE_WRITE_ERROR:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_PARTIAL_FILE: return ll_http_malformed;
    default: return ll_http_unreachable;
    }
}

enum ll_http_outcome ll_http_perform(struct ll_http *request, char *words) {
    words[0] = 0;
    pthread_once(&once, load);
    if (!is_loaded) return ll_http_no_library;
    CURL *handle = easy_init();
    if (!handle) return ll_http_no_library;
    /* Made here and not by curl_slist_append, which would leave copies of a token in freed memory. */
    struct curl_slist *headers = calloc(request->header_count + 1, sizeof *headers);
    for (size_t i = 0; headers && i < request->header_count; i++) {
        headers[i].data = request->headers[i];
        headers[i].next = i + 1 < request->header_count ? &headers[i + 1] : NULL;
    }
    CURLcode code = headers ? CURLE_OK : CURLE_OUT_OF_MEMORY;
#define SET(option, value) if (code == CURLE_OK) code = easy_setopt(handle, option, value)
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_PROTOCOLS_STR, request->allows_plain ? "http,https" : "https");
    /* A redirection would take the token to another host. */
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CONNECTTIMEOUT, request->connect_seconds);
    SET(CURLOPT_TIMEOUT, request->total_seconds);
    SET(CURLOPT_FORBID_REUSE, 1L);
    SET(CURLOPT_CUSTOMREQUEST, request->method);
    /* What goes over this machine alone goes by no proxy, which the environment may name. */
    if (request->allows_plain) SET(CURLOPT_PROXY, "");
    if (request->body) {
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_count);
        SET(CURLOPT_POSTFIELDS, (const char *)request->body);
    }
    if (request->header_count) SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_WRITEFUNCTION, take);
    SET(CURLOPT_WRITEDATA, (void *)request);
    if (request->unix_socket) SET(CURLOPT_UNIX_SOCKET_PATH, request->unix_socket);
    if (request->authority_file) SET(CURLOPT_CAINFO, request->authority_file);
    if (request->authority_directory) SET(CURLOPT_CAPATH, request->authority_directory);
    if (request->certificate_file) SET(CURLOPT_SSLCERT, request->certificate_file);
    if (request->key_file) SET(CURLOPT_SSLKEY, request->key_file);
    if (code == CURLE_OK) code = easy_perform(handle);
    if (code == CURLE_OK) code = easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &request->status);
    if (code != CURLE_OK) snprintf(words, 256, "%s", easy_strerror(code));
    easy_cleanup(handle);
    free(headers);
    return outcome(code);
}
