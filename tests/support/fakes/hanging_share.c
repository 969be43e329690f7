/* Lets whatever touches a folder hang, as a network share without its server does, by LD_PRELOAD. See hanging_share.py.
 *
 * HANG_FOLDER  the folder: paths below it hang, in every thread that touches one
 * HANG_WHILE   a file; while it exists, they hang
 * HANG_WHO     text in the command line of the process that is to hang (arguments separated by spaces)
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int concerned;
static const char *folder, *condition;

__attribute__((constructor)) static void begin(void) {
    const char *who = getenv("HANG_WHO");
    folder = getenv("HANG_FOLDER"), condition = getenv("HANG_WHILE");
    if (!who || !folder || !condition)
        return;
    char line[8192] = "";
    long at = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    long size = syscall(SYS_read, at, line, sizeof line - 1);
    syscall(SYS_close, at);
    for (long i = 0; i < size; i++)
        line[i] = line[i] ? line[i] : ' ';
    concerned = strstr(line, who) != NULL;
}

static void touch(const char *path) {
    if (!concerned || !path || strncmp(path, folder, strlen(folder)))
        return;
    struct timespec pause = {0, 20000000};
    while (syscall(SYS_faccessat, AT_FDCWD, condition, F_OK) == 0)
        nanosleep(&pause, NULL);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE(flags)                                                                                                   \
    mode_t mode = 0;                                                                                                  \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                            \
        va_list rest;                                                                                                 \
        va_start(rest, flags);                                                                                        \
        mode = va_arg(rest, mode_t);                                                                                  \
        va_end(rest);                                                                                                 \
    }
#define OPEN(name)                                                                                                    \
    int name(const char *path, int flags, ...) {                                                                      \
        MODE(flags)                                                                                                   \
        touch(path);                                                                                                  \
        return NEXT(name)(path, flags, mode);                                                                         \
    }
#define OPENAT(name)                                                                                                  \
    int name(int at, const char *path, int flags, ...) {                                                              \
        MODE(flags)                                                                                                   \
        touch(path);                                                                                                  \
        return NEXT(name)(at, path, flags, mode);                                                                     \
    }
#define STAT(name, kind)                                                                                              \
    int name(const char *path, struct kind *into) {                                                                   \
        touch(path);                                                                                                  \
        return NEXT(name)(path, into);                                                                                \
    }
#define STATAT(name, kind)                                                                                            \
    int name(int at, const char *path, struct kind *into, int flags) {                                                \
        touch(path);                                                                                                  \
        return NEXT(name)(at, path, into, flags);                                                                     \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
STAT(stat, stat)
STAT(lstat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)
STAT(statvfs, statvfs)
STAT(statvfs64, statvfs64)
STATAT(fstatat, stat)
STATAT(fstatat64, stat64)

DIR *opendir(const char *path) {
    touch(path);
    return NEXT(opendir)(path);
}

int access(const char *path, int mode) {
    touch(path);
    return NEXT(access)(path, mode);
}

ssize_t readlink(const char *path, char *into, size_t size) {
    touch(path);
    return NEXT(readlink)(path, into, size);
}
