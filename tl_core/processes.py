"""A process by a name that stays its own: a process id is used again, its id and start time together are not.

Must not know what the process does.
"""

from typing import Any, TypeGuard

import psutil

# A start time is read from the system's clock ticks; two readings of the same process differ by less (seconds).
_START_TIME_TOLERANCE = 2.0


def name_process(pid: int) -> dict[str, Any]:
    """{pid, started}, the latter in seconds since the epoch. Raises psutil.NoSuchProcess."""
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def lives(named: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    """Whether there is a name, and its process runs: one that has ended and was not asked after does not."""
    if named is None:
        return False
    try:
        process = psutil.Process(int(named["pid"]))
        same = abs(process.create_time() - float(named["started"])) < _START_TIME_TOLERANCE
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):  # gone, or named in a damaged file
        return False
    except psutil.AccessDenied:  # it is somebody else's: the id was used again
        return False
