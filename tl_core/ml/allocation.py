"""How this process takes memory from the system: what a batch frees is kept for the next. Must not know what for."""

import ctypes
import os

# mallopt(3): what a large block is taken from the system for alone, and how much of what is free is kept.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 << 20  # bytes of one block; glibc takes no more on 64 bits
MOST_KEPT = 1 << 30  # bytes
_OF_THE_PERSON = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have the activations of one batch lie where those of the last one did; whether that could be set.

    The system clears each page that it gives: left alone, glibc returns the megabytes of each layer and asks for them
    again, 1,000 pages for a picture of 224 px, which took 15 to 20 % of a ResNet-18's bf16 pass on two cores.
    """
    if any(name in os.environ for name in _OF_THE_PERSON):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library than glibc, another system
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_M_TRIM_THRESHOLD, MOST_KEPT))
