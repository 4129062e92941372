"""How a process of ours ends: as soon as it has nothing more to say.

Python takes apart, object by object, what torch and transformers have loaded, which takes it a second or two and frees
nothing that the system does not free by itself. Must not know what the process did.
"""

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED = 130


def end_with(work: Callable[[], int]) -> NoReturn:
    """Do `work` as the last thing of this process, and exit with its code.

    Threads are waited for and exit handlers are called as ever, but for those registered before this call.
    """
    code = 1  # of a fault, which Python has then shown

    def leave() -> None:
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        except (OSError, ValueError):  # nobody reads any more: that is Python's to say, in its own end
            return
        os._exit(code)

    atexit.register(leave)  # the first to be registered is the last to be called
    try:
        code = work()
    except SystemExit as request:
        code = request.code if isinstance(request.code, int) else int(request.code is not None)
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        raise
    sys.exit(code)
