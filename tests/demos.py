"""Demos of a model for tests: their files, made and laid down, and pictures to put in."""

import io
from pathlib import Path
from typing import Any

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
