"""What tests put into a repository, and a fixture that lets no time pass where the client waits."""

from types import SimpleNamespace
from typing import Any

import huggingface_hub.utils._http
import pytest

from tl_core.hub import patience
from tl_core.hub.publishing import Changes, Files, Published, look_at, publish
from tl_core.settings import Settings

TOKEN = "hf_aBcDeFgHiJ"
NAME = "tester/leaves"
CARD = b"---\nlicense: mit\n---\n\n# Leaves\n"
WEIGHTS = bytes(range(256)) * 1000
FILES: dict[str, Any] = {
    "README.md": CARD,
    "config.json": b'{"model_type": "resnet"}',
    "model.safetensors": WEIGHTS,
    "results/matrix.png": b"\x89PNG\0" + WEIGHTS[:5000],
}
BYTES = sum(map(len, FILES.values()))
SPACE_FILES: dict[str, Any] = {"README.md": b"---\ntitle: Leaves\nsdk: gradio\n---\n", "app.py": b"import gradio\n"}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited before each further try; no time passes."""
    waited: list[float] = []
    monkeypatch.setattr(huggingface_hub.utils._http, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(patience, "sleep", waited.append)
    return waited


def push(settings: Settings, files: Files = FILES, name: str = NAME, **options: Any) -> Published:
    return publish("model", name, files, TOKEN, settings, message="A model", **options)


def changes(settings: Settings, files: Files = FILES, **options: Any) -> Changes:
    found = look_at("model", NAME, files, TOKEN, settings, **options)
    assert found is not None
    return found
