#include "clinux.h"
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

int ll_prctl(int option, unsigned long argument) { return prctl(option, argument, 0UL, 0UL, 0UL); }

int ll_ioctl(int descriptor, unsigned long request, void *argument) {
    return ioctl(descriptor, request, argument);
}

int ll_lock_exclusively(int descriptor) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(descriptor, F_OFD_SETLK, &lock);
}

int ll_renameat2(int old_directory, const char *old_path, int new_directory, const char *new_path,
                 unsigned int flags) {
    return renameat2(old_directory, old_path, new_directory, new_path, flags);
}

int ll_pidfd_open(int process) { return (int)syscall(SYS_pidfd_open, process, 0); }

int ll_stat_cached(int directory, const char *path, int flags, struct ll_file_identity *identity) {
    struct statx found;
    if (statx(directory, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | flags, STATX_MNT_ID, &found) != 0) return -1;
    identity->device = (uint64_t)found.stx_dev_major << 32 | found.stx_dev_minor;
    identity->inode = found.stx_ino;
    identity->size = found.stx_size;
    identity->modified = (int64_t)found.stx_mtime.tv_sec * 1000000000 + found.stx_mtime.tv_nsec;
    identity->changed = (int64_t)found.stx_ctime.tv_sec * 1000000000 + found.stx_ctime.tv_nsec;
    identity->mount = found.stx_mask & STATX_MNT_ID ? found.stx_mnt_id : 0;
    return 0;
}

int ll_open_cached(const char *path) {
    struct open_how how = {
        .flags = O_PATH | O_CLOEXEC | O_NOFOLLOW,
        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_CACHED,
    };
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

int ll_pidfd_send_signal(int descriptor, int signal) {
    return (int)syscall(SYS_pidfd_send_signal, descriptor, signal, NULL, 0);
}

int ll_memfd_secret(unsigned int flags) {
#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447 /* the same number on every architecture */
#endif
    return (int)syscall(SYS_memfd_secret, flags);
}

long ll_add_user_key(const char *description, const void *payload, size_t count, long keyring) {
    return syscall(SYS_add_key, "user", description, payload, count, keyring);
}

long ll_keyctl(int operation, long argument2, long argument3, long argument4, long argument5) {
    return syscall(SYS_keyctl, operation, argument2, argument3, argument4, argument5);
}

long ll_keyctl_read(long key, void *payload, size_t count) {
    return syscall(SYS_keyctl, 11 /* KEYCTL_READ */, key, payload, count);
}

long ll_keyctl_search(long keyring, const char *description) {
    return syscall(SYS_keyctl, 10 /* KEYCTL_SEARCH */, keyring, "user", description, 0);
}

int ll_gettid(void) { return (int)syscall(SYS_gettid); }

int ll_signal_thread(int thread, int signal) { return (int)syscall(SYS_tgkill, getpid(), thread, signal); }

long ll_send_with_descriptor(int socket, const void *bytes, size_t count, int descriptor) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (descriptor >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

long ll_receive_with_descriptor(int socket, void *bytes, size_t count, int *descriptor) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = bytes, .iov_len = count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = control.room, .msg_controllen = sizeof control.room};
    *descriptor = -1;
    ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (received < 0) return received;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
            memcpy(descriptor, CMSG_DATA(header), sizeof *descriptor);
    }
    return received;
}

long ll_file_system_magic(int descriptor) {
    struct statfs statistics;
    return fstatfs(descriptor, &statistics) == 0 ? (long)statistics.f_type : -1;
}

int ll_signalfd(const void *signals) { return signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK); }

int ll_next_signal(int descriptor) {
    struct signalfd_siginfo information;
    ssize_t count = read(descriptor, &information, sizeof information);
    return count == (ssize_t)sizeof information ? (int)information.ssi_signo : -1;
}

void ll_malloc_trim(void) { malloc_trim(0); }

void ll_give_way(void) {
#ifdef SYS_sched_setattr
    /* struct sched_attr as of Linux 3.14; <sched.h> has it in newer C libraries alone. */
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = 48, .policy = SCHED_BATCH, .nice = getpriority(PRIO_PROCESS, 0)};
    /* How long a turn is, in nanoseconds: the longest there is. */
    attributes.runtime = 100000000;
    syscall(SYS_sched_setattr, 0, &attributes, 0);
#endif
}
