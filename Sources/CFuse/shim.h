/* The one place that says which version of libfuse's interface Letterlock is written against.
   _FILE_OFFSET_BITS is not defined here: Swift's Glibc module is built without it, and the two would disagree
   on struct flock. On 64-bit Linux both are 64 bits wide. */
#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 12)
/* struct stat, timespec and their kin shall be Glibc's in Swift too, not a second set that belongs to this module. */
#pragma clang module import SwiftGlibc
#include <fuse_lowlevel.h>
