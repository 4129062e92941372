"""How long a person waits for the first thing: `--help`, the first page, the first prediction; and for what.

    python -m benchmarks.startup [--rounds N] [--limit X]

Each is a process of its own in a new TL_HOME, measured from its start, in the other order every second round; beside
them bare Python and an empty Gradio app. What is compared was started one after the other: the median of the rounds'
own ratios, for a machine's speed changes between rounds. The prediction through the page is asked by a client, not a
browser, whose visit would have loaded the model ahead. Exit code 1 if the page of the app takes more than X times the
empty one's. Where the time goes is one more start each under `-X importtime`: seconds that a package's own modules
take to import.
"""

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from gradio_client import Client, handle_file
from PIL import Image

from benchmarks.machine import describe

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1.3
PATIENCE = 120.0  # seconds for a page to come
MODEL = "tiny-resnet"
PACKAGES_NAMED, LEAST_NAMED = 6, 0.01  # at most so many, of at least so many seconds
_WATCHING = ["-X", "importtime"]
_HELP = ["-m", "tl_core", "--help"]
_APP = ["app.py"]
_EMPTY = ["-c", "import gradio as gr\nwith gr.Blocks() as app:\n    gr.Markdown('empty')\napp.launch()"]
_IMPORT = re.compile(r"^import time:\s*(-?\d+) \|\s*-?\d+ \|\s*([^\s.]+)", re.MULTILINE)


def run_command(arguments: list[str]) -> tuple[float, str]:
    """Seconds of a whole process, and what it wrote to stderr."""
    with tempfile.TemporaryDirectory() as home:
        begun = time.perf_counter()
        command = [sys.executable, *arguments]
        ended = subprocess.run(command, cwd=ROOT, env=_environment(home), capture_output=True, text=True)
        taken = time.perf_counter() - begun
    if ended.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{ended.stderr}")
    return taken, ended.stderr


@contextmanager
def served(arguments: list[str]) -> Iterator[tuple[str, float, Path]]:
    """The address of a page that has answered, when its process was started, and the file of its stderr."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as home:
        written = Path(home) / "stderr.txt"
        with written.open("wb") as errors:
            begun = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**_environment(home), "GRADIO_SERVER_PORT": str(port)},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        try:
            while not _answers(address):
                if process.poll() is not None or time.perf_counter() - begun > PATIENCE:
                    raise SystemExit(f"no page came:\n{written.read_text()}")
                time.sleep(0.02)
            yield address, begun, written
        finally:
            process.terminate()
            process.wait()


def open_page(arguments: list[str]) -> tuple[float, str]:
    """Seconds from starting Python to the first whole page, and what was written to stderr until then."""
    with served(arguments) as (_, begun, written):
        return time.perf_counter() - begun, written.read_text()


def measure_app(picture: Path) -> dict[str, float]:
    """From starting Python to the first whole page, and to the first answer about a picture."""
    with served(_APP) as (address, begun, _):
        page = time.perf_counter() - begun
        client = Client(address, verbose=False, analytics_enabled=False, download_files=False)
        answer, _, said = client.predict(MODEL, "", handle_file(picture), "", api_name="/ask")
        answered = time.perf_counter() - begun
        client.close()
    if said or "%" not in answer:
        raise SystemExit(f"the page gave no prediction: {said or answer}")
    return {"page": page, "answer": answered, "answer after page": answered - page}


def measure_round(picture: Path, *, backwards: bool) -> dict[str, float]:
    measures: list[Callable[[], dict[str, float]]] = [
        lambda: {"python": run_command(["-c", "pass"])[0]},
        lambda: {"--help": run_command(_HELP)[0]},
        lambda: {"predict": run_command(_predict(picture))[0]},
        lambda: {"empty page": open_page(_EMPTY)[0]},
        lambda: measure_app(picture),
    ]
    seconds: dict[str, float] = {}
    for measure in reversed(measures) if backwards else measures:
        seconds |= measure()
    return seconds


def sum_imports(written: str) -> dict[str, float]:
    """Seconds that the own modules of each package took, by what `-X importtime` wrote; they add up to the whole.

    Python takes what another thread imports meanwhile for a part of the module: less than nothing is then its own.
    """
    seconds: dict[str, float] = {}
    for own, package in _IMPORT.findall(written):
        name = "standard library" if package in sys.stdlib_module_names else package
        seconds[name] = seconds.get(name, 0.0) + max(int(own), 0) / 1e6
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def print_medians(rounds: list[dict[str, float]], limit: float) -> float:
    """The ratio of the first page to that of an empty Gradio app."""
    median = {name: statistics.median(seconds[name] for seconds in rounds) for name in rounds[0]}
    ratios = [seconds["page"] / seconds["empty page"] for seconds in rounds]
    ratio = statistics.median(ratios)
    verdict = "reached" if ratio <= limit else f"missed by {ratio / limit - 1:.0%}"
    print(f"seconds, median of {len(rounds)}")
    print(f"  --help {median['--help']:.2f}; Python alone {median['python']:.2f}")
    print(f"  first page {median['page']:.2f}; empty Gradio app {median['empty page']:.2f}")
    print(f"  ratio {ratio:.2f} (rounds: {min(ratios):.2f} to {max(ratios):.2f}), goal ≤ {limit:g} ({verdict})")
    print(f"  first prediction on the command line {median['predict']:.2f}")
    later = median["answer after page"]
    more = statistics.median(seconds["answer"] - seconds["empty page"] for seconds in rounds)
    print(f"  first prediction through the page {median['answer']:.2f}; {later:.2f} after the page,")
    print(f"    {more:.2f} after the page of an empty Gradio app", flush=True)
    return ratio


def print_where(what: str, taken: float, written: str) -> None:
    imports = sum_imports(written)
    total = sum(imports.values())
    named = {name: seconds for name, seconds in list(imports.items())[:PACKAGES_NAMED] if seconds >= LEAST_NAMED}
    parts = {**named, "other packages": total - sum(named.values()), "other work": taken - total}
    told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
    print(f"  {what}, {taken:.2f} s: {told}", flush=True)


def _predict(picture: Path) -> list[str]:
    return ["-m", "tl_core", "predict", MODEL, str(picture)]


def _environment(home: str) -> dict[str, str]:
    """As it is, but that compiled modules are kept from the first start on, as Python does unless it is told not to."""
    own = {"GRADIO_ANALYTICS_ENABLED": "False", "TL_HOME": home, "GRADIO_TEMP_DIR": f"{home}/gradio"}
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | own


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            return bool(answer.read())
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=float, default=LIMIT)
    options = parser.parse_args()
    print(f"{describe()}, gradio {version('gradio')}, Python {sys.version.split()[0]}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.linear_gradient("L").convert("RGB").save(picture)
        rounds = [measure_round(picture, backwards=bool(number % 2)) for number in range(options.rounds)]
        ratio = print_medians(rounds, options.limit)
        print("where they go (seconds of imports, and the rest)")
        print_where("--help", *run_command([*_WATCHING, *_HELP]))
        print_where("first page", *open_page([*_WATCHING, *_APP]))
        print_where("prediction on the command line", *run_command([*_WATCHING, *_predict(picture)]))
    return 0 if ratio <= options.limit else 1


if __name__ == "__main__":
    sys.exit(main())
