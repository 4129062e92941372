import os
import resource
import subprocess
import sys

import pytest

# Blocks as large as the activations of layers, taken and freed in another thread, as the pass does. Prints the pages
# that the system has given for them, once it is known what they need.
PROGRAM = """
import ctypes, resource, sys, threading
import torch
from tl_core.ml.allocation import give_back_freed_memory, keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("cannot be set here")

prctl, PR_SET_THP_DISABLE = getattr(ctypes.CDLL(None), "prctl", None), 41
if prctl is not None:  # pages are counted here, which may be huge ones where a system makes them unasked
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)

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
CANNOT = "cannot be set here"
PAGES_OF_THE_SMALLEST = (3 << 20) // resource.getpagesize()


def pages_given(how: str, **environment: str) -> list[int]:
    """None given where nothing can be set."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, env=plain | environment, check=False
    )
    assert ended.returncode == 0 or ended.stderr.strip() == CANNOT, ended.stderr
    return [int(pages) for pages in ended.stdout.split()]


@pytest.fixture
def kept() -> list[int]:
    """Pages given while memory is kept, and after it was given back."""
    pages = pages_given("keep")
    if not pages:
        pytest.skip("this system has another C library than glibc")
    return pages


def test_memory_that_a_batch_freed_is_not_asked_for_again(kept: list[int]) -> None:
    while_kept, after_giving_back = kept
    assert while_kept < PAGES_OF_THE_SMALLEST < after_giving_back
    assert pages_given("as it comes")[0] > PAGES_OF_THE_SMALLEST


@pytest.mark.usefixtures("kept")
def test_what_the_person_has_set_for_memory_stays() -> None:
    assert pages_given("keep", MALLOC_TRIM_THRESHOLD_="131072") == []
