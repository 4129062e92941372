"""Serve the page: an address, the queue of runs, and what to say where that fails.

Must not know panels.
"""

import sys
import threading

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from tl_core.errors import TLError
from tl_core.jobs import keep_queue
from tl_core.settings import Settings, read_settings
from tl_core.ui.app import build_app, launch_options

# On a computer of one's own only it may be asked by name: a page elsewhere that lets its own name point here (DNS
# rebinding) would otherwise be let in as the owner.
_OWN_NAMES = ["localhost", "127.0.0.1", "[::1]"]
CANNOT_BE_MENDED_HERE = 2


def serve(host: str | None, port: int | None, *, share: bool = False, open_browser: bool = False) -> int:
    """Until it is interrupted; the exit code. Trainings go on when the page is closed."""
    try:
        settings = read_settings()
    except TLError as failure:
        return _refuse(failure.message)
    stopped = threading.Event()
    threading.Thread(target=keep_queue, args=(settings, stopped), name="queue", daemon=True).start()
    app = build_app()
    try:
        app.launch(
            server_name=host,
            server_port=port,
            share=share,
            inbrowser=open_browser,
            app_kwargs={"middleware": _middleware(settings)},
            **launch_options(settings),
        )
    except OSError as failure:
        return _refuse(f"the page cannot be served: {failure}")
    finally:
        stopped.set()
    return 0


def _middleware(settings: Settings) -> list[Middleware]:
    return [] if settings.shared else [Middleware(TrustedHostMiddleware, allowed_hosts=_OWN_NAMES)]


def _refuse(sentence: str) -> int:
    sys.stderr.write(f"error: {sentence}\n")
    return CANNOT_BE_MENDED_HERE
