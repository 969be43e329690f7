/* A libcuda.so.1 without a GPU, beside the libnvidia-ml.so.1 of nvml.c: what a process holds is a file in alloc/ of
 * $FAKE_NVML_DIR, and moving it out takes that file away. The targets are real processes that compute on the CPU.
 *
 *   cuda/PID        "STATE UUID MIB": a process that is locked (1), checkpointed (2) or failed (3); missing: running
 *   cuda/behaviour  lines of "key=value", read anew at each call:
 *                   lock, checkpoint, restore, unlock   the error that this call gives, 0 for none
 *                   hang      the call that does not return while the file cuda/hang is there: 1 lock, 2 checkpoint,
 *                             3 restore
 *                   kills     1: a lock ends its target
 *                   final     1: a process whose restore met a full GPU can never be restored again
 *                   mib_per_s how fast memory moves; 0: at once
 *                   no_calls  1: this driver is too old to move anything
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int CUresult;
enum { OK = 0, BAD_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, OS_CALL = 304, ILLEGAL_STATE = 401, UNSUPPORTED = 801 };
enum { RUNNING, LOCKED, CHECKPOINTED, FAILED };
static const size_t MIB = 1024 * 1024;
static void *memory[64];
static int parts;

static void path_of(char *out, size_t size, const char *name) {
    const char *folder = getenv("FAKE_NVML_DIR");
    snprintf(out, size, "%s/%s", folder ? folder : "/nonexistent", name);
}

static long behaviour(const char *key) {
    char path[512], line[128];
    path_of(path, sizeof path, "cuda/behaviour");
    FILE *f = fopen(path, "r");
    long value = 0;
    size_t n = strlen(key);
    if (!f) return 0;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && line[n] == '=') value = strtol(line + n + 1, NULL, 0);
    fclose(f);
    return value;
}

static void nap(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (ms > 0 && nanosleep(&left, &left)) {}
}

static void hang(long which) {
    char path[512];
    path_of(path, sizeof path, "cuda/hang");
    while (behaviour("hang") == which && access(path, F_OK) == 0) nap(20);
}

static void take_time(long mib) {
    long speed = behaviour("mib_per_s");
    if (speed) nap(mib * 1000 / speed);
}

static int put(const char *path, const char *text) {
    char draft[600];
    const char *name = strrchr(path, '/');
    snprintf(draft, sizeof draft, "%.*s/.%s.%d", (int)(name - path), path, name + 1, getpid());
    FILE *f = fopen(draft, "w");
    if (!f) return 0;
    fputs(text, f);
    fclose(f);
    return rename(draft, path) == 0;
}

struct process { int state; char uuid[96]; long mib; };

static int holds(int pid, char *uuid, long *mib, char *path, size_t size) { /* finds its file in alloc/ */
    char folder[512], end[16];
    int found = 0, whose;
    path_of(folder, sizeof folder, "alloc");
    DIR *dir = opendir(folder);
    if (!dir) return 0;
    snprintf(end, sizeof end, "%d.", pid);
    for (struct dirent *e; !found && (e = readdir(dir));) {
        if (strncmp(e->d_name, end, strlen(end))) continue;
        snprintf(path, size, "%s/%s", folder, e->d_name);
        FILE *f = fopen(path, "r");
        if (!f) continue;
        found = fscanf(f, "%95s %d %ld", uuid, &whose, mib) == 3;
        fclose(f);
    }
    closedir(dir);
    return found;
}

static int alive(int pid) { /* as in nvml.c: a zombie has given its memory back */
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    char *got = fgets(line, sizeof line, f), *end = got ? strrchr(line, ')') : NULL;
    fclose(f);
    return end && end[1] && end[2] != 'Z' && end[2] != 'X';
}

static void note_of(int pid, char *path, size_t size) {
    char name[64];
    snprintf(name, sizeof name, "cuda/%d", pid);
    path_of(path, size, name);
}

static CUresult look(int pid, struct process *p) {
    char path[512], alloc[800];
    if (behaviour("no_calls")) return UNSUPPORTED;
    if (!alive(pid)) return BAD_VALUE;
    memset(p, 0, sizeof *p);
    note_of(pid, path, sizeof path);
    FILE *f = fopen(path, "r");
    if (f) {
        int got = fscanf(f, "%d %95s %ld", &p->state, p->uuid, &p->mib);
        fclose(f);
        if (got == 3) return OK;
    }
    return holds(pid, p->uuid, &p->mib, alloc, sizeof alloc) ? OK : BAD_VALUE;
}

static void become(int pid, const struct process *p, int state) {
    char path[512], text[256];
    note_of(pid, path, sizeof path);
    snprintf(text, sizeof text, "%d %s %ld\n", state, p->uuid, p->mib);
    if (state == RUNNING) unlink(path);
    else put(path, text);
}

static void freed(int pid) {
    char path[800], uuid[96];
    long mib;
    if (holds(pid, uuid, &mib, path, sizeof path)) unlink(path);
}

static long free_mib(const char *uuid) { /* as nvml.c counts: total and used of the state, less what the living hold */
    char path[800], folder[512], line[1024], whose[96], key[128];
    long total = 0, used = 0, reserved = 0, mib;
    int pid;
    path_of(path, sizeof path, "state");
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    snprintf(key, sizeof key, " uuid=%s ", uuid);
    while (fgets(line, sizeof line, f)) {
        if (!strstr(line, key)) continue;
        char *at;
        if ((at = strstr(line, " total="))) total = strtol(at + 7, NULL, 0);
        if ((at = strstr(line, " used="))) used = strtol(at + 6, NULL, 0);
        if ((at = strstr(line, " reserved="))) reserved = strtol(at + 10, NULL, 0);
    }
    fclose(f);
    path_of(folder, sizeof folder, "alloc");
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] == '.' || !(f = fopen(path, "r"))) continue;
        if (fscanf(f, "%95s %d %ld", whose, &pid, &mib) == 3 && !strcmp(whose, uuid) && alive(pid) && mib > 0) used += mib;
        fclose(f);
    }
    if (dir) closedir(dir);
    return total - reserved - used;
}

CUresult cuInit(unsigned flags) {
    (void)flags;
    return getenv("FAKE_NVML_DIR") ? OK : NO_DEVICE;
}

CUresult cuGetErrorName(CUresult code, const char **name) {
    switch (code) {
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return OK;
    case OS_CALL: *name = "CUDA_ERROR_OPERATING_SYSTEM"; return OK;
    case ILLEGAL_STATE: *name = "CUDA_ERROR_ILLEGAL_STATE"; return OK;
    case UNSUPPORTED: *name = "CUDA_ERROR_NOT_SUPPORTED"; return OK;
    default: *name = "CUDA_ERROR_INVALID_VALUE"; return OK;
    }
}

CUresult cuCheckpointProcessGetState(int pid, int *state) {
    struct process p;
    CUresult code = look(pid, &p);
    *state = p.state;
    return code;
}

CUresult cuCheckpointProcessLock(int pid, void *arguments) {
    struct process p;
    (void)arguments;
    CUresult code = look(pid, &p);
    if (code) return code;
    hang(1);
    if (behaviour("kills")) { kill(pid, SIGKILL); return OS_CALL; }
    if ((code = (CUresult)behaviour("lock"))) return code;
    if (p.state != RUNNING) return ILLEGAL_STATE;
    become(pid, &p, LOCKED);
    return OK;
}

CUresult cuCheckpointProcessCheckpoint(int pid, void *arguments) {
    struct process p;
    (void)arguments;
    CUresult code = look(pid, &p);
    if (code) return code;
    if (p.state != LOCKED) return ILLEGAL_STATE;
    hang(2);
    if ((code = (CUresult)behaviour("checkpoint"))) return code;
    take_time(p.mib);
    become(pid, &p, CHECKPOINTED);
    freed(pid);
    return OK;
}

CUresult cuCheckpointProcessRestore(int pid, void *arguments) {
    struct process p;
    char path[900], text[256], name[160];
    (void)arguments;
    CUresult code = look(pid, &p);
    if (code) return code;
    if (p.state == FAILED) return OS_CALL;
    if (p.state != CHECKPOINTED) return ILLEGAL_STATE;
    hang(3);
    if ((code = (CUresult)behaviour("restore"))) return code;
    if (free_mib(p.uuid) < p.mib) {
        if (behaviour("final")) become(pid, &p, FAILED);
        return OUT_OF_MEMORY;
    }
    take_time(p.mib / 4);
    snprintf(name, sizeof name, "alloc/%d.%s", pid, p.uuid);
    path_of(path, sizeof path, name);
    snprintf(text, sizeof text, "%s %d %ld\n", p.uuid, pid, p.mib);
    put(path, text);
    become(pid, &p, LOCKED);
    return OK;
}

CUresult cuCheckpointProcessUnlock(int pid, void *arguments) {
    struct process p;
    (void)arguments;
    CUresult code = look(pid, &p);
    if (code) return code;
    if ((code = (CUresult)behaviour("unlock"))) return code;
    if (p.state != LOCKED) return ILLEGAL_STATE;
    become(pid, &p, RUNNING);
    return OK;
}

/* A context of the calling process itself, on the first GPU that it may see. */

CUresult cuDeviceGet(int *device, int number) {
    *device = number;
    return getenv("CUDA_VISIBLE_DEVICES") ? OK : NO_DEVICE;
}

CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
    (void)device;
    *context = memory;
    return OK;
}

CUresult cuCtxSetCurrent(void *context) {
    (void)context;
    return OK;
}

CUresult cuCtxSynchronize(void) {
    return OK;
}

static void wait_until_unlocked(void) { /* its own calls stand still while it is locked or out */
    struct process p;
    while (look(getpid(), &p) == OK && p.state != RUNNING) nap(5);
}

CUresult cuMemAlloc_v2(uint64_t *at, size_t bytes) {
    char path[900], name[160], text[256], uuid[96];
    long had = 0, mib = (long)(bytes / MIB);
    snprintf(uuid, sizeof uuid, "%s", getenv("CUDA_VISIBLE_DEVICES"));
    if (strchr(uuid, ',')) *strchr(uuid, ',') = 0;
    char whose[96];
    if (!holds(getpid(), whose, &had, path, sizeof path)) had = 0;
    if (free_mib(uuid) < mib || parts == 64) return OUT_OF_MEMORY;
    if (!(memory[parts] = calloc(1, bytes))) return OUT_OF_MEMORY;
    *at = (uint64_t)(uintptr_t)memory[parts++];
    snprintf(name, sizeof name, "alloc/%d.%s", getpid(), uuid);
    path_of(path, sizeof path, name);
    snprintf(text, sizeof text, "%s %d %ld\n", uuid, getpid(), had + mib);
    return put(path, text) ? OK : OS_CALL;
}

CUresult cuMemsetD32_v2(uint64_t at, unsigned value, size_t count) {
    wait_until_unlocked();
    unsigned *to = (unsigned *)(uintptr_t)at;
    for (size_t i = 0; i < count; i++) to[i] = value;
    return OK;
}

CUresult cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) {
    wait_until_unlocked();
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return OK;
}
