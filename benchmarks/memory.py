"""Peak memory of frozen training by the number of images: flat, since no more than a few batches are in memory.

    python -m benchmarks.memory [--images 1000,10000,50000] [--size 96]

Each number is a process of its own, on generated JPEGs of this many pixels a side, with the backbone `tiny-resnet`.
What it reports is the most that was resident (ru_maxrss).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.frozen import make_pictures
from benchmarks.machine import describe

GOAL = 1.2
ROOT = Path(__file__).resolve().parent.parent
_TRAIN = """
import resource, sys, tl_core
tl_core.train(data=sys.argv[1])
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_of(data: Path, home: Path) -> float:
    """Megabytes that a process of its own needs at most to train on `data`."""
    answer = subprocess.run(
        [sys.executable, "-c", _TRAIN, str(data)],
        env={**os.environ, "TL_HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    kilobytes = int(answer.stdout.split("PEAK")[1].split()[0])
    return kilobytes / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--images", type=lambda text: sorted(map(int, text.split(","))), default=[1_000, 10_000, 50_000]
    )
    parser.add_argument("--size", type=int, default=96)
    arguments = parser.parse_args()
    print(describe())
    peaks: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        data, made = Path(folder) / "pictures", 0
        for images in arguments.images:
            make_pictures(data, range(made, images), (arguments.size, arguments.size))
            made = images
            peaks[images] = peak_of(data, Path(folder) / f"home {images}")
            print(f"{images:>7,} images: {peaks[images]:,.0f} MB", flush=True)
    growth = max(peaks.values()) / min(peaks.values())
    verdict = "reached" if growth <= GOAL else f"missed by {growth / GOAL - 1:.0%}"
    print(f"most against least {growth:.2f}, goal ≤ {GOAL} ({verdict})")


if __name__ == "__main__":
    main()
