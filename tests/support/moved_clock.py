"""Moves the wall clock of real processes, by a small library that is loaded before all others."""

import shutil
import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
/* The wall clock moved by the number of seconds in the file $JUMP, and it and the boot clock by those in $SLEPT, as
   after so long a suspend. The monotonic clock back by those in $ASLEEP, as in a boot that has seen such a suspend. */
static long seconds_in(const char *path) {
    long seconds = 0;
    FILE *file = path ? fopen(path, "re") : NULL;
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}
int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, now);
    if (code) return code;
    if (which == CLOCK_REALTIME) now->tv_sec += seconds_in(getenv("JUMP"));
    if (which == CLOCK_REALTIME || which == CLOCK_BOOTTIME) now->tv_sec += seconds_in(getenv("SLEPT"));
    if (which == CLOCK_MONOTONIC && getenv("ASLEEP")) now->tv_sec -= atol(getenv("ASLEEP"));
    return code;
}
"""


class WallClock:
    """`environment`: what makes a process see this clock. File times stay the kernel's, so that a clock set forward
    makes whatever is saved look old."""

    def __init__(self, folder: Path) -> None:
        """Build it in `folder`. Raises OSError where no C compiler is."""
        if shutil.which("gcc") is None:
            raise FileNotFoundError("gcc is not installed")
        source, library = folder / "jump.c", folder / "jump.so"
        source.write_text(SOURCE)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        self._jump, self._slept = folder / "jump", folder / "slept"
        self.environment = {
            "LD_PRELOAD": str(library),
            "JUMP": str(self._jump),
            "SLEPT": str(self._slept),
        }

    def set(self, offset_s: int) -> None:
        """Set how many seconds the clock is off the true time, for all its processes, from now on."""
        _write(self._jump, offset_s)

    def sleep(self, seconds: int) -> None:
        """Let the machine have slept so long, for all its processes, from now on."""
        _write(self._slept, seconds)


def _write(path: Path, seconds: int) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(str(seconds))
    draft.replace(path)
