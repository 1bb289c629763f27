#include "clinux.h"
#include <fcntl.h>
#include <stdio.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

int ll_pidfd_open(pid_t process) { return (int)syscall(SYS_pidfd_open, process, 0); }

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
