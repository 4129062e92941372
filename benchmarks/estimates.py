"""What the page says a training will take, against what it took.

    python -m benchmarks.estimates [DATA ...] [--models tiny-resnet] [--strategies frozen,last-blocks,full,lp-ft]

For every data (the two samples), model and strategy: the estimate, asked for before anything is kept of these pictures,
then the same training as a process of its own in a new home, from its start to its end. A training that ends early,
because nothing is gained any more, is held against the whole estimate all the same; which did, and at which of their
steps, is said, and how many of the others are near. The goal is a share of the runs; nothing is asserted.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tl_core
from benchmarks.machine import describe

ROOT = Path(__file__).resolve().parent.parent
WITHIN = 0.25
GOAL = 0.8  # of the runs


def measure(data: str, model: str, strategy: str, home: Path) -> tuple[dict[str, Any], float, str]:
    """What was foretold, the seconds that it took, and where it ended early ("" where it did not)."""
    os.environ["TL_HOME"] = str(home)
    foretold = tl_core.preview({"data": data, "model": model, "strategy": strategy})
    command = ["train", "--data", data, "--model", model, "--strategy", strategy, "--json"]
    begun = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "tl_core", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - begun
    if ended.returncode:
        raise SystemExit(ended.stderr)
    training = json.loads(ended.stdout)["training"]
    done, planned = training.get("steps_done"), training.get("steps")
    return foretold, taken, "" if done == planned else f"{done:,} of {planned:,} steps"


def main() -> None:
    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["sample:digits", "sample:shapes"])
    parser.add_argument("--models", type=words, default=["tiny-resnet"])
    parser.add_argument("--strategies", type=words, default=["frozen", "last-blocks", "full", "lp-ft", "scratch"])
    arguments = parser.parse_args()
    print(describe())
    print("| data | backbone | strategy | estimate | took | estimate / took | ended early |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- |")
    ratios, whole = [], []
    for data, model, strategy in itertools.product(arguments.data, arguments.models, arguments.strategies):
        with tempfile.TemporaryDirectory() as home:
            foretold, taken, early = measure(data, model, strategy, Path(home))
        ratios.append(foretold["seconds"] / taken)
        whole += [] if early else ratios[-1:]
        span = f"{foretold['seconds']:.0f} s ({foretold['seconds_low']:.0f}–{foretold['seconds_high']:.0f})"
        row = [Path(data).name, model, f"`{strategy}`", span, f"{taken:.0f} s", f"{ratios[-1]:.2f}", early]
        print(f"| {' | '.join(row)} |", flush=True)
    near, near_whole = (sum(abs(ratio - 1) <= WITHIN for ratio in some) for some in (ratios, whole))
    reached = "reached" if near >= GOAL * len(ratios) else "missed"
    print(f"{near} of {len(ratios)} within {WITHIN:.0%}, goal {GOAL:.0%} of them ({reached})")
    print(f"of those that took all their steps {near_whole} of {len(whole)}")


if __name__ == "__main__":
    main()
