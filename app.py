"""Start the page: `python app.py`, then open the address it prints."""

import argparse
import os
import sys
from urllib.request import getproxies_environment


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    _prepare(options)
    from tl_core.ui.serve import serve

    return serve(options.host, options.port, share=options.share, open_browser=options.open)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python app.py", description="Teach an image classifier, in the browser.")
    parser.add_argument("--host", help="address to listen on (default: this computer only)")
    parser.add_argument("--port", type=int, help="port (default: 7860, or the next free one)")
    parser.add_argument("--home", help="folder for runs and images (default: TL_HOME, or your user's data folder)")
    parser.add_argument("--share", action="store_true", help="also a public address, through Gradio's tunnel")
    parser.add_argument("--shared", action="store_true", help="several people: each sees only their own runs")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser.parse_args(arguments)


def _prepare(options: argparse.Namespace) -> None:
    """What gradio and the core read from the environment when they are imported or asked."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # no calls home, no version check
    if options.home:
        os.environ["TL_HOME"] = options.home
    host = options.host or os.environ.get("GRADIO_SERVER_NAME")  # which gradio goes by
    if options.shared or options.share or not _is_loopback(host):
        os.environ.setdefault("TL_SHARED", "1")
    _ask_ourselves_directly(host)


def _ask_ourselves_directly(host: str | None) -> None:
    """Gradio asks its own page whether it is there, and would ask a proxy that the environment names for it."""
    proxies = getproxies_environment()
    excepted = proxies.pop("no", "")
    if proxies and excepted != "*":  # with none named, those of the system count, but not beside a no_proxy
        names = ",".join(filter(None, [excepted, "localhost", "127.0.0.1", "::1", host]))
        os.environ.update(no_proxy=names, NO_PROXY=names)


def _is_loopback(host: str | None) -> bool:
    return host is None or host in ("localhost", "::1") or host.startswith("127.")


if __name__ == "__main__":
    sys.exit(main())
