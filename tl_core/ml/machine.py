"""What this process computes on, and in how many threads. Must not know models or data."""

import math
import os
import platform
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Lock
from typing import Any, TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")

# Each holds the activations of a batch of its own; on larger machines each computes on several cores.
MAX_SIDE_BY_SIDE = 8
# What a core's cache holds decides. Milliseconds for a picture of 224 px in batches of 1, 2, 4, 8 and 16, two cores
# side by side: ResNet-18 fp32 19, 17, 15, 13, 15, bf16 11, 8, 7, 6, 7; ViT-S bf16 29, 29, 26, 24, 24; MobileNetV2 fp32
# 12, 10, 13, 19, 20. Of the 96 px of small backbones a batch of 16 is faster by a third than one of 8.
BATCH_PIXELS = 8 * 224 * 224
MAX_BATCH = 16
ACCELERATOR_BATCH = 32
# Done while who asks is busy with what came before: enough that no thread waits, few enough to fit in memory.
ITEMS_AHEAD = 2
_dividing = Lock()


def current_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def supports_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 may be fast there.

    On a CPU that oneDNN has no bfloat16 for (x86 without AVX-512, Arm without BF16) torch computes them in another way:
    a ResNet-18 takes 3 to 5 times as long as in float32, a ViT-S 6 times (2 cores of an EPYC with AVX2). Where oneDNN
    only emulates it, or torch was built without oneDNN, it has to be tried.
    """
    if device.type != "cpu":
        return True
    try:
        supported = torch.ops.mkldnn._is_mkldnn_bf16_supported
    except AttributeError:
        return True
    return bool(supported())


def describe_machine() -> dict[str, Any]:
    """Device and processor in words, for reports and cards."""
    device = current_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else _processor_name()
    return {"device": device.type, "name": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def threads_side_by_side() -> int:
    """In how many threads many batches are sooner computed, each whole in one of them; 1 on an accelerator.

    Where torch divides each operation among the cores, all wait for the slowest one at its end, and each thread that
    reads pictures makes one of them slow. On two cores a ResNet-18 at 224 px in bf16 takes 9 to 14 ms for a picture so,
    and 6 to 8 ms in two threads that do not wait for each other.
    """
    if current_device().type != "cpu":
        return 1
    with _dividing:
        return min(torch.get_num_threads(), MAX_SIDE_BY_SIDE)


def pictures_at_a_time(size: tuple[int, int]) -> int:
    """How many pictures of (height, width) pixels a backbone that does not train computes at a time."""
    if current_device().type != "cpu":
        return ACCELERATOR_BATCH
    return max(1, min(MAX_BATCH, BATCH_PIXELS // math.prod(size)))


@contextmanager
def computing_side_by_side(threads: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, among which torch's are divided: an operation takes no more of them than its thread has."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            with _dividing:
                _divide(pool, threads)
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _divide(pool: ThreadPoolExecutor, threads: int) -> None:
    whole = torch.get_num_threads()
    ready = Barrier(threads + 1)

    def take_share(place: int) -> None:
        torch.get_num_threads()  # a thread takes the number of all when it first asks: from then on it has its own
        torch.set_num_threads(max(1, whole // threads + (place < whole % threads)))
        ready.wait()

    try:
        for place in range(threads):
            pool.submit(take_share, place)
        ready.wait()
    except BaseException:  # a thread that cannot be started, an interrupt: nobody may wait for those who do not come
        ready.abort()
        pool.shutdown()
        raise
    finally:
        torch.set_num_threads(whole)  # of threads to come, which those have set as well


def map_side_by_side(work: Callable[[A], B], items: Sequence[A], threads: int) -> Generator[B]:
    """`work` of each item, in their order, in so many threads; no more than a few items ahead of who asks.

    One thread is the caller's own. Raises what `work` raises, when its turn has come.
    """
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[B]] = deque()
    with computing_side_by_side(threads) as pool:
        for place in range(len(items)):
            for item in items[place + len(waiting) : place + threads + ITEMS_AHEAD]:
                waiting.append(pool.submit(work, item))
            yield waiting.popleft().result()


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
