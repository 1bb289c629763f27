#include "clinux.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
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
