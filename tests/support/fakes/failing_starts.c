/* Lets a chosen process fail to start others, by LD_PRELOAD, as long as a file is there. See test_machine_trouble.py.
 *
 * START_WHO    text in the command line of the process that is to fail (arguments separated by spaces)
 * START_ERRNO  the error's number
 * START_WHILE  the file
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int concerned, code;
static const char *file;

__attribute__((constructor)) static void begin(void) {
    const char *who = getenv("START_WHO");
    file = getenv("START_WHILE");
    if (!who || !file || !getenv("START_ERRNO"))
        return;
    code = atoi(getenv("START_ERRNO"));
    char line[8192] = "";
    int at = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t size = read(at, line, sizeof line - 1);
    close(at);
    for (ssize_t i = 0; i < size; i++)
        line[i] = line[i] ? line[i] : ' ';
    concerned = strstr(line, who) != NULL;
}

static int fails(void) { return concerned && access(file, F_OK) == 0 ? (errno = code) : 0; }

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

pid_t fork(void) { return fails() ? -1 : NEXT(fork)(); }

/* A function that returns twice on one stack cannot be wrapped; a fork serves as well. */
pid_t vfork(void) { return fails() ? -1 : NEXT(fork)(); }

int socketpair(int domain, int type, int protocol, int ends[2]) {
    return code != EAGAIN && fails() ? -1 : NEXT(socketpair)(domain, type, protocol, ends);
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const words[], char *const environment[]) {
    return fails() ? code : NEXT(posix_spawn)(pid, path, actions, attributes, words, environment);
}
