/* A libnvidia-ml.so.1 without a GPU. Every answer comes from the folder $FAKE_NVML_DIR, read anew at each call,
 * so that a test can change memory, temperature, errors and hangs while a program has the library open.
 *
 *   state     lines of "word key=value ...": driver (init, hang_ms, version), gpu, mig (instances, after their gpu);
 *             "_" in a value is a blank. Amounts are MiB. Unknown keys are ignored.
 *   alloc/    a file for each allocation: "uuid pid MiB". It counts while that process lives, as on a card.
 *
 * -DOLD_DRIVER leaves out what drivers of 2020 did not have: the second memory call, the third process lists,
 * event reasons, margins, MIG.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int nvmlReturn_t;
typedef struct device {
    char uuid[96], name[96];
    long total, used, reserved, temp, slowdown, margin, util, power, reasons, index;
    long handle_rc, uuid_rc, mem_rc, temp_rc, hang_ms, mig_on;
    int parent; /* slot of the GPU this is an instance of, or -1 */
} *nvmlDevice_t;

enum { OK, UNINIT = 1, BAD = 2, UNSUPPORTED = 3, NOT_FOUND = 6, SMALL = 7, NO_DRIVER = 9 };
enum { SLOTS = 64 };
static struct device slots[SLOTS];
static int used_slots, is_open;
static long init_rc, driver_hang_ms;
static char version[64];
static const unsigned long long MIB = 1024 * 1024;

static void path_of(char *out, size_t size, const char *name) {
    const char *folder = getenv("FAKE_NVML_DIR");
    snprintf(out, size, "%s/%s", folder ? folder : "/nonexistent", name);
}

static long number(const char *pair, const char *key, long otherwise) {
    size_t n = strlen(key);
    return strncmp(pair, key, n) || pair[n] != '=' ? otherwise : strtol(pair + n + 1, NULL, 0);
}

static void text(const char *pair, const char *key, char *out, size_t size) {
    size_t n = strlen(key);
    if (strncmp(pair, key, n) || pair[n] != '=') return;
    snprintf(out, size, "%s", pair + n + 1);
    for (char *c = out; *c; c++) if (*c == '_') *c = ' ';
}

static void set(struct device *d, const char *pair) {
    text(pair, "uuid", d->uuid, sizeof d->uuid);
    text(pair, "name", d->name, sizeof d->name);
#define NUMBER(field, key) d->field = number(pair, key, d->field)
    NUMBER(total, "total"); NUMBER(used, "used"); NUMBER(reserved, "reserved"); NUMBER(temp, "temp");
    NUMBER(slowdown, "slowdown"); NUMBER(margin, "margin"); NUMBER(util, "util"); NUMBER(power, "power"); NUMBER(reasons, "reasons");
    NUMBER(handle_rc, "handle_rc"); NUMBER(uuid_rc, "uuid_rc"); NUMBER(mem_rc, "mem_rc");
    NUMBER(temp_rc, "temp_rc"); NUMBER(hang_ms, "hang_ms"); NUMBER(mig_on, "mig");
}

static int alive(int pid) { /* a zombie has given its memory back */
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    char *got = fgets(line, sizeof line, f);
    fclose(f);
    char *end = got ? strrchr(line, ')') : NULL;
    return end && end[1] && end[2] != 'Z' && end[2] != 'X';
}

struct process { unsigned pid; unsigned long long bytes; unsigned gi, ci; };
static struct process processes[256];

static int list(const char *uuid) { /* fills `processes`; returns their number */
    char folder[512], path[800], whose[96];
    int count = 0, pid;
    long mib;
    path_of(folder, sizeof folder, "alloc");
    DIR *dir = opendir(folder);
    if (!dir) return 0;
    for (struct dirent *e; (e = readdir(dir)) && count < 256;) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *f = fopen(path, "r");
        if (!f) continue;
        if (fscanf(f, "%95s %d %ld", whose, &pid, &mib) == 3 && !strcmp(whose, uuid) && alive(pid)) {
            struct process one = {(unsigned)pid, mib < 0 ? ~0ULL : mib * MIB, 0, 0};
            processes[count++] = one;
        }
        fclose(f);
    }
    closedir(dir);
    return count;
}

static int load(void) {
    char path[512], line[1024];
    path_of(path, sizeof path, "state");
    FILE *f = fopen(path, "r");
    used_slots = 0, init_rc = NO_DRIVER, driver_hang_ms = 0;
    if (!f) return 0;
    init_rc = OK;
    int gpus = 0, last_gpu = -1;
    while (fgets(line, sizeof line, f) && used_slots < SLOTS) {
        char *save, *word = strtok_r(line, " \n", &save), *pair;
        if (!word) continue;
        struct device fresh = {.parent = -1, .index = gpus};
        snprintf(fresh.name, sizeof fresh.name, "Fake GPU");
        while ((pair = strtok_r(NULL, " \n", &save))) {
            set(&fresh, pair);
            if (!strcmp(word, "driver")) {
                init_rc = number(pair, "init", init_rc);
                driver_hang_ms = number(pair, "hang_ms", driver_hang_ms);
                text(pair, "version", version, sizeof version);
            }
        }
        if (!strcmp(word, "gpu")) gpus++, last_gpu = used_slots, slots[used_slots++] = fresh;
        if (!strcmp(word, "mig")) fresh.parent = last_gpu, slots[used_slots++] = fresh;
    }
    fclose(f);
    return gpus;
}

static void hang(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (ms && nanosleep(&left, &left)) {}
}

#define DEVICE(d) \
    if (!is_open) return UNINIT; \
    load(); \
    if (init_rc) return (nvmlReturn_t)init_rc; \
    hang((d)->hang_ms); \
    if ((d)->handle_rc) return (nvmlReturn_t)(d)->handle_rc

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    load();
    hang(driver_hang_ms);
    if (!init_rc) is_open++;
    return (nvmlReturn_t)init_rc;
}
nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
nvmlReturn_t nvmlShutdown(void) { return is_open ? (is_open--, OK) : UNINIT; }
const char *nvmlErrorString(nvmlReturn_t rc) {
    switch (rc) {
    case 0: return "Success";
    case 3: return "Not Supported";
    case 9: return "Driver Not Loaded";
    case 13: return "Function Not Found";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned size) {
    if (!is_open) return UNINIT;
    load();
    snprintf(out, size, "%s", version);
    return (nvmlReturn_t)init_rc;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    if (!is_open) return UNINIT;
    *count = (unsigned)load();
    hang(driver_hang_ms);
    return (nvmlReturn_t)init_rc;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    if (!is_open) return UNINIT;
    load();
    for (int i = 0; i < used_slots; i++)
        if (slots[i].parent < 0 && slots[i].index == (long)index) {
            *device = &slots[i];
            return (nvmlReturn_t)slots[i].handle_rc;
        }
    return BAD;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *out, unsigned size) {
    DEVICE(d);
    snprintf(out, size, "%s", d->uuid);
    return (nvmlReturn_t)d->uuid_rc;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *out, unsigned size) {
    DEVICE(d);
    snprintf(out, size, "%s", d->name);
    return OK;
}

static unsigned long long in_use(nvmlDevice_t d) {
    unsigned long long bytes = d->used * MIB;
    for (int i = 0, n = list(d->uuid); i < n; i++) if (processes[i].bytes != ~0ULL) bytes += processes[i].bytes;
    return bytes;
}

static unsigned long long left(nvmlDevice_t d) {
    unsigned long long usable = (d->total - d->reserved) * MIB, bytes = in_use(d);
    return bytes > usable ? 0 : usable - bytes;
}

struct memory { unsigned long long total, free, used; };
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, struct memory *m) {
    DEVICE(d);
    if (d->mem_rc) return (nvmlReturn_t)d->mem_rc;
    m->total = d->total * MIB, m->free = left(d), m->used = m->total - m->free;
    return OK;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, int sensor, unsigned *temp) {
    (void)sensor;
    DEVICE(d);
    if (d->temp_rc) return (nvmlReturn_t)d->temp_rc;
    *temp = (unsigned)d->temp;
    return OK;
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t d, int which, unsigned *temp) {
    DEVICE(d);
    if (!d->slowdown) return UNSUPPORTED;
    *temp = (unsigned)d->slowdown + (which == 0 ? 3 : 0);
    return OK;
}

struct rates { unsigned gpu, memory; };
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, struct rates *rates) {
    DEVICE(d);
    if (d->parent >= 0) return UNSUPPORTED;
    rates->gpu = (unsigned)d->util, rates->memory = 0;
    return OK;
}

struct sample { unsigned pid; unsigned long long at_us; unsigned sm, memory, encoder, decoder; };
nvmlReturn_t nvmlDeviceGetProcessUtilization(
    nvmlDevice_t d, struct sample *out, unsigned *room, unsigned long long since_us
) { /* all of them keep it equally busy */
    DEVICE(d);
    if (d->parent >= 0) return UNSUPPORTED;
    int n = list(d->uuid);
    unsigned had = *room;
    *room = (unsigned)n;
    if (n && (!out || had < (unsigned)n)) return SMALL;
    for (int i = 0; i < n; i++)
        out[i] = (struct sample){processes[i].pid, since_us + 1, (unsigned)d->util, 0, 0, 0};
    return OK;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t d, unsigned *milliwatts) {
    DEVICE(d);
    if (!d->power) return UNSUPPORTED;
    *milliwatts = (unsigned)d->power;
    return OK;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t d, unsigned long long *reasons) {
    DEVICE(d);
    *reasons = (unsigned long long)d->reasons;
    return OK;
}

static nvmlReturn_t give(nvmlDevice_t d, unsigned *room, struct process *out) {
    int n = list(d->uuid);
    unsigned had = *room;
    *room = (unsigned)n;
    if (n && (!out || had < (unsigned)n)) return SMALL;
    if (n) memcpy(out, processes, n * sizeof *out);
    return OK;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t d, unsigned *room, struct process *out) {
    DEVICE(d);
    return give(d, room, out);
}

#ifndef OLD_DRIVER
struct memory2 { unsigned version; unsigned long long total, reserved, free, used; };
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, struct memory2 *m) {
    DEVICE(d);
    if (d->mem_rc) return (nvmlReturn_t)d->mem_rc;
    m->total = d->total * MIB, m->reserved = d->reserved * MIB, m->free = left(d);
    m->used = m->total - m->reserved - m->free;
    return OK;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned *room, struct process *out) {
    DEVICE(d);
    return give(d, room, out);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned *room, struct process *out) {
    (void)out;
    DEVICE(d);
    *room = 0;
    return OK;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t d, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(d, reasons);
}

struct margin { unsigned version; int margin; };
nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t d, struct margin *m) {
    DEVICE(d);
    if (!d->margin) return UNSUPPORTED;
    m->margin = (int)d->margin;
    return OK;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned *now, unsigned *later) {
    DEVICE(d);
    *now = *later = (unsigned)d->mig_on;
    return OK;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t d, unsigned *count) {
    DEVICE(d);
    *count = 7;
    return OK;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t d, unsigned number, nvmlDevice_t *out) {
    DEVICE(d);
    for (int i = 0; i < used_slots; i++)
        if (slots[i].parent >= 0 && &slots[slots[i].parent] == d && number-- == 0) {
            *out = &slots[i];
            return OK;
        }
    return NOT_FOUND;
}
#endif
