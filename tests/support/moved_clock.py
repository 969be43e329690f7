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
/* The wall clock moved by the number of seconds in the file $JUMP. The monotonic clock back by those in $ASLEEP, as
   after so long a suspend. The other clocks as they are. */
int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, now);
    const char *path = which == CLOCK_REALTIME ? getenv("JUMP") : NULL;
    const char *asleep = which == CLOCK_MONOTONIC ? getenv("ASLEEP") : NULL;
    if (code == 0 && asleep) now->tv_sec -= atol(asleep);
    if (code == 0 && path) {
        FILE *file = fopen(path, "re");
        long seconds = 0;
        if (file) {
            if (fscanf(file, "%ld", &seconds) == 1) now->tv_sec += seconds;
            fclose(file);
        }
    }
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
        self._jump = folder / "jump"
        self.environment = {"LD_PRELOAD": str(library), "JUMP": str(self._jump)}

    def set(self, offset_s: int) -> None:
        """Set how many seconds the clock is off the true time, for all its processes, from now on."""
        draft = self._jump.with_suffix(".tmp")
        draft.write_text(str(offset_s))
        draft.replace(self._jump)
