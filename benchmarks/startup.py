"""How long until the first page, against an empty Gradio app started beside it.

    python -m benchmarks.startup [--rounds N] [--limit X]

Each round starts both in turn, in the other order every second time, and asks each for its page until it answers.
Prints the ratio of the medians; exit code 1 above the limit.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1.3
PATIENCE = 120.0  # seconds for a page to come
_EMPTY = "import gradio as gr\nwith gr.Blocks() as app:\n    gr.Markdown('empty')\napp.launch(server_port={port})"


def seconds_to_first_page(kind: str) -> float:
    """From starting Python to the first whole answer."""
    port = _free_port()
    command = {
        "empty": [sys.executable, "-c", _EMPTY.format(port=port)],
        "app": [sys.executable, "app.py", "--port", str(port)],
    }[kind]
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "TL_HOME": home}
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
                        answer.read()
                    return time.perf_counter() - begun
                except OSError:
                    if process.poll() is not None or time.perf_counter() - begun > PATIENCE:
                        raise
                    time.sleep(0.02)
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=LIMIT)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"empty": [], "app": []}
    for number in range(options.rounds):
        for kind in sorted(seconds, reverse=bool(number % 2)):
            seconds[kind].append(seconds_to_first_page(kind))
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    ratio = medians["app"] / medians["empty"]
    print(f"first page: {medians['app']:.2f} s, empty Gradio app {medians['empty']:.2f} s (median of {options.rounds})")
    print(f"ratio {ratio:.2f}, limit {options.limit:.2f}")
    return 0 if ratio <= options.limit else 1


if __name__ == "__main__":
    sys.exit(main())
