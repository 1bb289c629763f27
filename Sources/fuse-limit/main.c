/* The speed of light of FUSE: a file system that does nothing. A fixed number of files, all with the same content, held
   in memory, with timeouts of hours and cached pages; what is slower than this is slower by its own doing.

   usage: fuse-limit MOUNTPOINT [-f] [--files N] [--size BYTES] [--direct] */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOURS (12 * 3600.0)
/* Nodes from here on are the files file0, file1 and so on. */
#define FIRST_FILE (FUSE_ROOT_ID + 1)

static struct {
    unsigned long files;
    size_t size;
    int direct;
    char *content;
} limit = {.files = 10000, .size = 4096};

static int is_node(fuse_ino_t node) { return node >= FUSE_ROOT_ID && node < FIRST_FILE + limit.files; }

static struct stat attributes(fuse_ino_t node) {
    struct stat result = {.st_ino = node, .st_uid = getuid(), .st_gid = getgid(), .st_blksize = 4096};
    if (node == FUSE_ROOT_ID) {
        result.st_mode = S_IFDIR | 0755;
        result.st_nlink = 2;
    } else {
        result.st_mode = S_IFREG | 0644;
        result.st_nlink = 1;
        result.st_size = (off_t)limit.size;
        result.st_blocks = (blkcnt_t)((limit.size + 511) / 512);
    }
    return result;
}

static struct fuse_entry_param entry(fuse_ino_t node) {
    return (struct fuse_entry_param){
        .ino = node, .attr = attributes(node), .attr_timeout = HOURS, .entry_timeout = HOURS};
}

static void limit_init(void *data, struct fuse_conn_info *connection) {
    (void)data;
    connection->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ);
    connection->want |= connection->capable & FUSE_CAP_EXPLICIT_INVAL_DATA;
    connection->max_background = 64;
}

static void limit_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    /* A name that is not there is node 0 with a timeout: the kernel remembers that too. */
    struct fuse_entry_param reply = {.entry_timeout = HOURS};
    char *end;
    if (parent == FUSE_ROOT_ID && strncmp(name, "file", 4) == 0 && name[4] >= '0' && name[4] <= '9') {
        unsigned long number = strtoul(name + 4, &end, 10);
        if (*end == 0 && number < limit.files) reply = entry(FIRST_FILE + number);
    }
    fuse_reply_entry(request, &reply);
}

static void limit_getattr(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file) {
    (void)file;
    if (!is_node(node)) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    struct stat reply = attributes(node);
    fuse_reply_attr(request, &reply, HOURS);
}

static void limit_open(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file) {
    if (node == FUSE_ROOT_ID || !is_node(node)) {
        fuse_reply_err(request, node == FUSE_ROOT_ID ? EISDIR : ENOENT);
    } else if ((file->flags & O_ACCMODE) != O_RDONLY) {
        fuse_reply_err(request, EROFS);
    } else {
        file->direct_io = limit.direct;
        file->keep_cache = !limit.direct;
        file->noflush = 1;
        fuse_reply_open(request, file);
    }
}

static void limit_read(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
                       struct fuse_file_info *file) {
    (void)node;
    (void)file;
    size_t start = offset < 0 || (size_t)offset > limit.size ? limit.size : (size_t)offset;
    size_t rest = limit.size - start;
    fuse_reply_buf(request, limit.content + start, size < rest ? size : rest);
}

static void limit_opendir(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file) {
    (void)node;
    file->cache_readdir = 1;
    file->keep_cache = 1;
    fuse_reply_open(request, file);
}

/* Entry 0 and 1 are the dots, then come the files; an entry's offset is the number of the next. */
static void list(fuse_req_t request, size_t size, off_t offset, int with_attributes) {
    char *reply = malloc(size);
    size_t used = 0;
    if (reply == NULL) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    for (unsigned long index = (unsigned long)offset; index < limit.files + 2; index++) {
        char name[32];
        fuse_ino_t node = index < 2 ? FUSE_ROOT_ID : FIRST_FILE + index - 2;
        if (index < 2) {
            snprintf(name, sizeof name, "%s", index == 0 ? "." : "..");
        } else {
            snprintf(name, sizeof name, "file%lu", index - 2);
        }
        struct fuse_entry_param one = entry(node);
        size_t length =
            with_attributes
                ? fuse_add_direntry_plus(request, reply + used, size - used, name, &one, (off_t)index + 1)
                : fuse_add_direntry(request, reply + used, size - used, name, &one.attr, (off_t)index + 1);
        if (length > size - used) break;
        used += length;
    }
    fuse_reply_buf(request, reply, used);
    free(reply);
}

static void limit_readdir(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
                          struct fuse_file_info *file) {
    (void)node;
    (void)file;
    list(request, size, offset, 0);
}

static void limit_readdirplus(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
                              struct fuse_file_info *file) {
    (void)node;
    (void)file;
    list(request, size, offset, 1);
}

static void limit_statfs(fuse_req_t request, fuse_ino_t node) {
    (void)node;
    struct statvfs reply = {.f_bsize = 4096, .f_frsize = 4096, .f_files = limit.files, .f_namemax = 255};
    fuse_reply_statfs(request, &reply);
}

static const struct fuse_lowlevel_ops operations = {
    .init = limit_init,
    .lookup = limit_lookup,
    .getattr = limit_getattr,
    .open = limit_open,
    .read = limit_read,
    .opendir = limit_opendir,
    .readdir = limit_readdir,
    .readdirplus = limit_readdirplus,
    .statfs = limit_statfs,
};

static int usage(void) {
    fprintf(stderr, "usage: fuse-limit MOUNTPOINT [-f] [--files N] [--size BYTES] [--direct]\n");
    return 2;
}

/* A whole number of at most `most`, or -1. */
static long number(const char *text, long most) {
    char *end;
    errno = 0;
    long value = text == NULL ? -1 : strtol(text, &end, 10);
    if (text == NULL || *text == 0 || *end != 0 || errno != 0 || value < 0 || value > most) return -1;
    return value;
}

static int serve(const char *mountpoint, int foreground) {
    char *words[] = {(char *)"fuse-limit", (char *)"-o", (char *)"fsname=fuse-limit,subtype=fuse-limit", NULL};
    char *rootwords[] = {(char *)"fuse-limit", (char *)"-o",
                         (char *)"fsname=fuse-limit,subtype=fuse-limit,allow_other,default_permissions", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, geteuid() == 0 ? rootwords : words);
    struct fuse_session *session = fuse_session_new(&args, &operations, sizeof operations, NULL);
    int result = 1;
    if (session == NULL) return 1;
    if (fuse_set_signal_handlers(session) == 0) {
        if (fuse_session_mount(session, mountpoint) == 0) {
            struct fuse_loop_config *config = fuse_loop_cfg_create();
            if (fuse_daemonize(foreground) == 0 && config != NULL) {
                fuse_loop_cfg_set_idle_threads(config, 10);
                result = fuse_session_loop_mt(session, config) == 0 ? 0 : 1;
            }
            if (config != NULL) fuse_loop_cfg_destroy(config);
            fuse_session_unmount(session);
        }
        fuse_remove_signal_handlers(session);
    }
    fuse_session_destroy(session);
    fuse_opt_free_args(&args);
    return result;
}

int main(int argc, char **argv) {
    const char *mountpoint = NULL;
    int foreground = 0;
    for (int index = 1; index < argc; index++) {
        const char *word = argv[index];
        long value = 0;
        if (strcmp(word, "-f") == 0) {
            foreground = 1;
        } else if (strcmp(word, "--direct") == 0) {
            limit.direct = 1;
        } else if (strcmp(word, "--files") == 0) {
            value = number(argv[++index], 100000000);
            limit.files = (unsigned long)value;
        } else if (strcmp(word, "--size") == 0) {
            value = number(argv[++index], 1 << 30);
            limit.size = (size_t)value;
        } else if (word[0] == '-' || mountpoint != NULL) {
            return usage();
        } else {
            mountpoint = word;
        }
        if (value < 0) return usage();
    }
    if (mountpoint == NULL) return usage();
    limit.content = malloc(limit.size + 1);
    if (limit.content == NULL) {
        fprintf(stderr, "fuse-limit: out of memory\n");
        return 1;
    }
    memset(limit.content, 'x', limit.size);
    return serve(mountpoint, foreground);
}
