"""Several processes that torchrun or `accelerate launch` started with the same words: what these ask for is done once.

The first process does it; the others help where they can, and say nothing. torch is loaded only where there are
several. Must not know what is asked for, or what can be divided.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# What such a process is told by its launcher. All of it together: a cluster may name a world that is not of processes.
PLACE = ("LOCAL_RANK", "RANK", "WORLD_SIZE")


def is_one_of_several() -> bool:
    """Whether a launcher started this process with others, and it is not at work for them already."""
    return all(name in os.environ for name in PLACE) and int(os.environ["WORLD_SIZE"]) > 1


def once(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, done by the first of several processes alone; all of them get its answer, or its TLError.

    All of them have to call it. What it divides, it divides through `tl_core.ml.shards`.
    """

    @wraps(function)
    def done_once(*arguments: P.args, **options: P.kwargs) -> R:
        if not is_one_of_several():
            return function(*arguments, **options)
        from tl_core.ml.shards import take_part

        def work() -> R:
            with _launcher_hidden():
                return function(*arguments, **options)

        return take_part(work)

    return done_once


@contextmanager
def _launcher_hidden() -> Iterator[None]:
    """As if this process were alone: a Trainer, or a process that is started, would wait for others to train with."""
    hidden = {name: os.environ.pop(name) for name in PLACE}
    try:
        yield
    finally:
        os.environ.update(hidden)
