"""A pass of the backbone divided among the processes that torchrun or `accelerate launch` started.

The first process does whatever was asked for, as if it were alone: it has the run folder, the feature store, the
terminal. The others wait until it announces a pass. Then each computes every so-manieth batch, all exchange what they
have in rounds, and the first one stores it. Features are those of one process but for rounding. Must not know what
features are for, or what a run is.
"""

import atexit
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from traceback import format_exception
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist

from tl_core.errors import JobError, TLError
from tl_core.ml.feature_store import Vectors
from tl_core.ml.features import Division, Encoded, Encoder, undivided

R = TypeVar("R")

# Between two exchanges, which take some milliseconds. If all is killed, so many batches of each process are lost.
BATCHES_IN_ROUND = 8
# Fewer batches for each process are sooner computed by one than the backbone has been sent to the others.
LEAST_BATCHES = 2
# Who has said nothing for so long in the midst of a pass hangs: a round of the slowest backbones takes a minute or two.
ROUND_TIMEOUT = timedelta(minutes=15)
# Between passes the first process may train for days. Its end is noticed at once, since the connection ends with it.
WAIT_TIMEOUT = timedelta(days=30)
MEETING_TIMEOUT = timedelta(minutes=5)  # for all processes to have loaded torch


class Pass(Protocol):
    """What computes features, and can be sent to another process."""

    def encoder(self) -> Encoder[Any]: ...


@dataclass(frozen=True)
class _Announced:
    work: Pass
    batches: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class _Ended:
    """What the first process has done: an answer, or how it failed, of which it tells itself."""

    answer: Any = None
    failure: TLError | SystemExit | None = None


@dataclass(frozen=True)
class _Share:
    """What a process has to say at an exchange."""

    encoded: Sequence[tuple[int, Vectors]] = ()  # places among all batches, features
    failure: TLError | str | None = None  # a TLError, or the traceback of a fault
    leaves: bool = False


class _LostError(Exception):
    """The connection to another process is gone, or it says nothing any more."""


@dataclass(frozen=True)
class Team:
    """This process among `size` that work together; the first has `index` 0."""

    index: int
    size: int
    between_passes: Any  # a torch.distributed.ProcessGroup of all, as is the next
    in_a_pass: Any

    def lead(self, work: Callable[[], R]) -> R:
        """Do `work` with the others at hand, then let them go, with its answer or its failure."""
        global _leading
        ended = _Ended(failure=SystemExit(1))
        try:
            _leading = self
            answer = work()
            ended = _Ended(answer)
            return answer
        except TLError as failure:
            ended = _Ended(failure=failure)
            raise
        finally:
            _leading = None
            with suppress(_LostError):  # has been told, or does not matter any more
                self._say(ended)

    def follow(self) -> Any:
        """Compute shares for the first process until it has ended; its answer. Raises its TLError.

        Interrupts are its affair: at the next exchange it says whether all stop.
        """
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while isinstance(heard := self._say(None), _Announced):
                for _ in self._compute(heard, heard.work.encoder()):
                    pass  # the first process keeps it
        except _LostError as failure:  # one of the others is enough to say so
            raise SystemExit(f"process {self.index}: {failure}" if self.index == 1 else 1) from failure
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if heard.failure is not None:
            raise heard.failure
        return heard.answer

    def divide(self, work: Pass, tell: Callable[[str], None]) -> Division[Any]:
        """How to compute batches in all processes, for `compute_features`; `tell` hears how many each computed.

        Raises JobError where another process ends before its share is done, and whatever made one fail.
        """

        def in_all(batches: Sequence[Sequence[Any]], here: Callable[[Any], Encoded[Any]]) -> Encoded[Any]:
            if len(batches) < LEAST_BATCHES * self.size:
                yield from here(batches)
                return
            try:
                self._say(announced := _Announced(work, batches))
                yield from self._compute(announced, here, tell)
            except _LostError as failure:
                raise JobError(
                    f"one of the {self.size} processes that compute features together has ended, or does not answer; "
                    "what was stored until then is kept for the next attempt"
                ) from failure

        return in_all

    def _compute(
        self,
        announced: _Announced,
        here: Callable[[Sequence[Sequence[Any]]], Encoded[Any]],
        tell: Callable[[str], None] = lambda text: None,
    ) -> Encoded[Any]:
        """All batches with their features, from whichever process; the same rounds in each of them."""
        batches = announced.batches
        places = range(self.index, len(batches), self.size)
        own = here([batches[place] for place in places])
        numbered = ((place, encoded) for place, (_, encoded) in zip(places, own, strict=True))
        computed = [0] * self.size
        left = len(batches)
        while left:
            share, fault = _compute_share(islice(numbered, BATCHES_IN_ROUND))
            shares = self._exchange(share)
            failed = [index for index, each in enumerate(shares) if each.failure is not None]
            for index, each in enumerate(shares):
                left -= len(each.encoded)
                computed[index] += sum(len(encoded) for _, encoded in each.encoded)
            if not left:
                parts = " + ".join(f"{number:,}" for number in computed)
                tell(f"{self.size} processes computed the features of {parts} images")
            try:
                for each in shares:
                    yield from ((batches[place], encoded) for place, encoded in each.encoded)
            except GeneratorExit:
                if left and not failed:
                    self._exchange(_Share(leaves=True))
                raise
            if self.index and (failed or shares[0].leaves):
                return
            if failed:
                failure = fault or shares[failed[0]].failure
                if isinstance(failure, Exception):
                    raise failure
                raise RuntimeError(f"in process {failed[0]} of {self.size}:\n{failure}")

    def _say(self, word: Any) -> Any:
        """What the first process has to say between passes; the others hear it."""
        said = [word]
        with _connected():
            dist.broadcast_object_list(said, src=0, group=self.between_passes)
        return said[0]

    def _exchange(self, share: _Share) -> list[_Share]:
        shares: list[Any] = [None] * self.size
        with _connected():
            dist.all_gather_object(shares, share, group=self.in_a_pass)
        return shares


def _compute_share(encoded: Iterable[tuple[int, Vectors]]) -> tuple[_Share, Exception | None]:
    """What there is of a round; if it was a failure that ended it, that as well, with its traceback."""
    done: list[tuple[int, Vectors]] = []
    try:
        for batch in encoded:
            done.append(batch)
    except Exception as failure:  # whatever it is, all processes have to hear of it
        told = failure if isinstance(failure, TLError) else "".join(format_exception(failure))
        return _Share(done, told), failure
    return _Share(done), None


def take_part(work: Callable[[], R]) -> R:
    """`work`, done by the first of the processes, which all call this; its answer in each of them.

    Raises JobError where the others cannot be reached, and whatever `work` raises; SystemExit in the others where that
    is no TLError.
    """
    global _team
    if _team is None:
        _team = _meet()
    return _team.follow() if _team.index else _team.lead(work)


def processes() -> int:
    """How many a pass is divided among that begins now."""
    return 1 if _leading is None else _leading.size


def division(work: Pass, tell: Callable[[str], None]) -> Division[Any]:
    """How to compute the batches of a pass, for `compute_features`: divided where there are several processes."""
    return undivided if _leading is None else _leading.divide(work, tell)


_team: Team | None = None  # this process's, for as long as it lives
_leading: Team | None = None  # the same, while this process leads it


def _meet() -> Team:
    """Connect to the others, and take the accelerator of this process's own."""
    from accelerate import PartialState

    try:
        state = PartialState(cpu=not torch.accelerator.is_available(), backend="gloo", timeout=MEETING_TIMEOUT)
        waiting, working = (dist.new_group(backend="gloo", timeout=limit) for limit in (WAIT_TIMEOUT, ROUND_TIMEOUT))
    except RuntimeError as failure:
        raise JobError(f"the other processes of the launcher cannot be reached: {failure}") from failure
    # Else its threads are still there when the interpreter's end destroys them, which at times aborts the process.
    atexit.register(_take_leave)
    return Team(state.process_index, state.num_processes, waiting, working)


def _take_leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as failure:  # what torch raises for a connection that was closed, or has timed out
        raise _LostError("another process has ended, or does not answer") from failure
