"""Demos of a model for tests: their files, made and laid down, started, and pictures to put in."""

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patience import PATIENCE
from pictures import picture
from PIL import Image

from tl_core.demo_space import demo_files
from tl_core.settings import Settings

NAME = "owner/leaves"


def make_demo(report: dict[str, Any], settings: Settings, **more: Any) -> dict[str, bytes]:
    return demo_files(**{"repo_id": NAME, "title": "Leaves", "report": report, "settings": settings, **more})


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def put_down(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def half_clear(mode: str) -> Image.Image:
    image = picture(0.1, 3).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 12, 32))
    image.paste((200, 0, 0, 90), (12, 0, 20, 32))
    return image.convert(mode)


@contextmanager
def started(
    folder: Path, *arguments: str, lacking: Iterable[str] = (), **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`python app.py` in isolated mode: this project is not on its path, though it may be installed.

    The packages `lacking` are as if they were not installed.
    """
    program = f"import runpy, sys; sys.modules |= dict.fromkeys({sorted(lacking)!r}); "
    program += "runpy.run_path('app.py', run_name='__main__')"
    given = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TL_", "GRADIO_"))},
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-u", "-c", program, *arguments],
            cwd=folder,
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def told(process: subprocess.Popen[bytes], folder: Path) -> str:
    """What it said by the time that it told its address, or ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        said = (folder / "output.txt").read_text(errors="replace")
        if re.search(r"http://127\.0\.0\.1:\d+", said) or process.poll() is not None:
            return (folder / "output.txt").read_text(errors="replace")
        time.sleep(0.1)  # between two looks
    raise AssertionError(f"neither an address nor an end: {said}")
