/* One request over HTTP. libcurl's options are set by a variadic call, which Swift has none of; and the library is loaded when
   it is first needed, with the thirty that it needs in turn, so that a server that takes over a mount starts without it. */
#ifndef LETTERLOCK_CCURL_H
#define LETTERLOCK_CCURL_H
#include <stddef.h>

struct ll_http {
    const char *url;
    /* The path of a socket to connect to in place of the URL's host; null for none. */
    const char *unix_socket;
    const char *method;
    /* Null for none. */
    const void *body;
    size_t body_count;
    /* "Name: value", as many as there are; they are not copied. */
    char **headers;
    size_t header_count;
    /* Of who may be believed, and of who asks; null for the system's, and for nobody. */
    const char *authority_file;
    const char *authority_directory;
    const char *certificate_file;
    const char *key_file;
    long connect_seconds;
    long total_seconds;
    /* Without TLS as well. */
    int allows_plain;
    /* Takes a part of the answer's body; anything but `count` ends the request. */
    size_t (*take)(const void *bytes, size_t count, void *context);
    void *context;
    /* The answer's status. */
    long status;
};

enum ll_http_outcome {
    ll_http_done,
    /* There is no libcurl. */
    ll_http_no_library,
    ll_http_unreachable,
    ll_http_timed_out,
    ll_http_no_trust,
    /* A file of the client's own cannot be used, or the URL. */
    ll_http_misconfigured,
    /* `take` took no more, or the answer is none. */
    ll_http_malformed,
};

/* Why, in curl's words, in `words` of at least 256 bytes. */
enum ll_http_outcome ll_http_perform(struct ll_http *request, char *words);
#endif
