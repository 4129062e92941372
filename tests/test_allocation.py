import os
import subprocess
import sys

import pytest

# Blocks as large as the activations of layers, taken and freed in another thread, as the pass does. Prints the pages
# that the system has given for them, once it is known what they need.
PROGRAM = """
import resource, sys, threading
import torch
from tl_core.ml.allocation import give_back_freed_memory, keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("cannot be set here")

def forward():
    made = torch.empty(24 << 20, dtype=torch.uint8).fill_(1)
    for megabytes in (24, 12, 12, 6, 6, 12, 3):
        made = torch.empty(megabytes << 20, dtype=torch.uint8).fill_(1)

def in_another_thread():
    for _ in range(5):
        forward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    forward()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    give_back_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    forward()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=in_another_thread)
thread.start()
thread.join()
"""
PAGES_OF_THE_SMALLEST = (3 << 20) // 4096


def pages_given(how: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, env=plain | environment, check=False
    )


def test_memory_that_a_batch_freed_is_not_asked_for_again() -> None:
    kept = pages_given("keep")
    if kept.stderr.strip() == "cannot be set here":
        pytest.skip("this system has another C library than glibc")
    while_kept, after_giving_back = map(int, kept.stdout.split())
    assert while_kept < PAGES_OF_THE_SMALLEST < after_giving_back
    assert int(pages_given("as it comes").stdout.split()[0]) > PAGES_OF_THE_SMALLEST


def test_what_the_person_has_set_for_memory_stays() -> None:
    assert pages_given("keep", MALLOC_TRIM_THRESHOLD_="131072").stderr.strip() == "cannot be set here"
