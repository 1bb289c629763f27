/* What Swift's Glibc module lacks: variadic calls and function-like macros, one shim each, with the reason. */
#ifndef LETTERLOCK_CLINUX_H
#define LETTERLOCK_CLINUX_H
#include <stddef.h>
#include <stdint.h>

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
int ll_pidfd_open(int process);

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
/* pidfd_send_signal(2): likewise. */
int ll_pidfd_send_signal(int descriptor, int signal);

/* memfd_secret(2): memory that only its processes see, not even the kernel's own mappings; no wrapper either. */
int ll_memfd_secret(unsigned int flags);

/* add_key(2) of type `user`, and keyctl(2): the C library has no wrappers for them. */
long ll_add_user_key(const char *description, const void *payload, size_t count, long keyring);
long ll_keyctl(int operation, long argument2, long argument3, long argument4, long argument5);
long ll_keyctl_read(long key, void *payload, size_t count);
long ll_keyctl_search(long keyring, const char *description);

/* signalfd(2), close-on-exec and non-blocking, and the number of the next signal from it (-1: none): Glibc's module lacks
   <sys/signalfd.h>. `signals` is a sigset_t. */
int ll_signalfd(const void *signals);
int ll_next_signal(int descriptor);

/* gettid(2) and tgkill(2) within this process: absent from Glibc's module. */
int ll_gettid(void);
int ll_signal_thread(int thread, int signal);

/* sched_setattr(2), which has no wrapper: from now on the calling thread has its share of the processor in long turns, and
 * whoever wakes up goes before it. Its nice value stays, no privilege is needed; a kernel that cannot does nothing. */
void ll_give_way(void);

/* malloc_trim(3): gives free memory of every arena back to the system. Glibc's module lacks <malloc.h>. */
void ll_malloc_trim(void);

/* What kind of file system a descriptor is of, as fstatfs(2) tells; -1 if it does not. Glibc's module lacks <sys/vfs.h>. */
long ll_file_system_magic(int descriptor);

/* sendmsg(2) and recvmsg(2) with one descriptor beside the bytes: the CMSG macros are functions of the preprocessor.
   -1 for none; what is received is close-on-exec. */
long ll_send_with_descriptor(int socket, const void *bytes, size_t count, int descriptor);
long ll_receive_with_descriptor(int socket, void *bytes, size_t count, int *descriptor);
#endif
