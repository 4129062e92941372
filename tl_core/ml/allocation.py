"""How this process takes memory from the system: what a batch frees is kept for the next. Must not know what for."""

import ctypes
import os
from collections.abc import Callable

# mallopt(3): how much of what is free at the end of a heap is kept; how large a block has to be to be apart from heaps.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 << 20  # bytes of one block; glibc takes no more on 64 bits
MOST_KEPT = 1 << 30  # bytes of a heap, of which each thread may have one
_OF_THE_PERSON = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have the activations of one batch lie where those of the last one did; whether that could be set.

    The system clears each page that it gives: left alone, glibc returns the megabytes of each layer and asks for them
    again, 1,000 pages for a picture of 224 px, which took 15 to 20 % of a ResNet-18's bf16 pass on two cores. What the
    person has set stays, and any GLIBC_TUNABLES count as that.
    """
    if any(name in os.environ for name in _OF_THE_PERSON):
        return False
    mallopt = _of_glibc("mallopt")
    return bool(mallopt and mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, MOST_KEPT))


def give_back_freed_memory() -> None:
    """Return to the system what is kept, when other work begins than that it was kept for."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):  # another C library, another system
        return None
    return found
