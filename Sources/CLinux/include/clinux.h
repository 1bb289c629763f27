/* What Swift's Glibc module lacks: variadic calls and function-like macros, one shim each, with the reason. */
#ifndef LETTERLOCK_CLINUX_H
#define LETTERLOCK_CLINUX_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* prctl(2) is variadic. */
int ll_prctl(int option, unsigned long argument);

/* ioctl(2) is variadic. */
int ll_ioctl(int descriptor, unsigned long request, void *argument);

/* Open file description locks need a variadic fcntl(2) and F_OFD_SETLK. 0, or -1 and errno (EAGAIN: held). */
int ll_lock_exclusively(int descriptor);

/* renameat2(2), with RENAME_NOREPLACE and RENAME_EXCHANGE; absent from Glibc's module without _GNU_SOURCE. */
int ll_renameat2(int old_directory, const char *old_path, int new_directory, const char *new_path,
                 unsigned int flags);

/* pidfd_open(2): no wrapper in older C libraries. */
int ll_pidfd_open(pid_t process);

/* Which file something is. Times in nanoseconds; mount 0 where the kernel does not tell. */
struct ll_file_identity {
    uint64_t device, inode, size;
    int64_t modified, changed;
    uint64_t mount;
};

/* statx(2) that never asks a file system's server, which may be the caller: what the kernel has cached. */
int ll_stat_cached(int directory, const char *path, int flags, struct ll_file_identity *identity);

/* An O_PATH descriptor of an absolute path, found in the kernel's cache alone: no file system is asked, no symbolic
 * link followed. openat2(2) has no wrapper. -1 and errno: EAGAIN if it is not cached. */
int ll_open_cached(const char *path);
#endif
