/* Lets a process fail to read one of its files, by LD_PRELOAD. See failing_reads() in faulty_reads.py.
 *
 * FAULT_WHO    text in the command line of the process that is to fail (arguments separated by spaces)
 * FAULT_FILE   name of the file, without its folder
 * FAULT_CALL   open, read or stat
 * FAULT_ERRNO  the error's number
 * FAULT_NTH    which of the process's calls fails, from 1; 0: each of them
 * FAULT_MARK   a file that the failing call makes; once it is there, nothing fails unless FAULT_NTH is 0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int concerned, nth, code, seen;
static const char *file, *call, *mark;

__attribute__((constructor)) static void begin(void) {
    const char *who = getenv("FAULT_WHO");
    file = getenv("FAULT_FILE"), call = getenv("FAULT_CALL"), mark = getenv("FAULT_MARK");
    if (!who || !file || !call || !mark || !getenv("FAULT_NTH") || !getenv("FAULT_ERRNO"))
        return;
    nth = atoi(getenv("FAULT_NTH")), code = atoi(getenv("FAULT_ERRNO"));
    char line[8192] = "";
    long at = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    long size = syscall(SYS_read, at, line, sizeof line - 1);
    syscall(SYS_close, at);
    for (long i = 0; i < size; i++)
        line[i] = line[i] ? line[i] : ' ';
    concerned = strstr(line, who) != NULL;
}

static int fails(const char *what, const char *path) {
    if (!concerned || !path || strcmp(what, call))
        return 0;
    const char *name = strrchr(path, '/');
    if (strcmp(name ? name + 1 : path, file) || (++seen != nth && nth))
        return 0;
    long made = syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (made >= 0)
        syscall(SYS_close, made);
    else if (nth)
        return 0;
    errno = code;
    return 1;
}

static int reading(int flags) { return (flags & O_ACCMODE) == O_RDONLY && !(flags & O_DIRECTORY); }

#define MODE(flags)                                                                                                   \
    mode_t mode = 0;                                                                                                  \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                            \
        va_list rest;                                                                                                 \
        va_start(rest, flags);                                                                                        \
        mode = va_arg(rest, mode_t);                                                                                  \
        va_end(rest);                                                                                                 \
    }
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPEN(name)                                                                                                    \
    int name(const char *path, int flags, ...) {                                                                      \
        MODE(flags)                                                                                                   \
        return reading(flags) && fails("open", path) ? -1 : NEXT(name)(path, flags, mode);                            \
    }
#define OPENAT(name)                                                                                                  \
    int name(int folder, const char *path, int flags, ...) {                                                          \
        MODE(flags)                                                                                                   \
        return reading(flags) && fails("open", path) ? -1 : NEXT(name)(folder, path, flags, mode);                    \
    }
#define STAT(name, kind)                                                                                              \
    int name(const char *path, struct kind *into) {                                                                   \
        return fails("stat", path) ? -1 : NEXT(name)(path, into);                                                     \
    }
#define STATAT(name, kind)                                                                                            \
    int name(int folder, const char *path, struct kind *into, int flags) {                                            \
        return fails("stat", path) ? -1 : NEXT(name)(folder, path, into, flags);                                      \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
STAT(stat, stat)
STAT(lstat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)
STATAT(fstatat, stat)
STATAT(fstatat64, stat64)

ssize_t read(int handle, void *into, size_t size) {
    if (concerned && !strcmp(call, "read")) {
        char link[64], path[4096];
        snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
        long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
        if (length > 0) {
            path[length] = 0;
            if (fails("read", path))
                return -1;
        }
    }
    return NEXT(read)(handle, into, size);
}
