"""Computes on the GPU for the checks, and saves nothing: `turner.py MIB BEATS`. PyTorch, and nothing of ours.

Takes MIB with a known content, counts it through BEATS times, ten times a second, and ends with "digest SUM COUNT".
"""

import sys
import time

import torch

MIB = 1024 * 1024
PART_MIB = 256


def main(mib: int, beats: int) -> int:
    held = [
        torch.arange(min(PART_MIB, mib - begin) * MIB // 4, dtype=torch.int32, device="cuda")
        for begin in range(0, mib, PART_MIB)
    ]
    sums: set[int] = set()
    for beat in range(beats):
        sums.add(sum(int(part.sum().item()) for part in held))
        print(f"beat {beat + 1}", flush=True)
        time.sleep(0.1)
    print("digest", *sorted(sums), len(sums), flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--help"]:
        print("usage: turner.py MIB BEATS")
        sys.exit(0)
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
