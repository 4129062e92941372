"""What tests live in: a home folder of their own, one thread, no network but its loopback; what several ask for."""

import gc
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

# Before torch is imported anywhere: two threads on a busy machine wait for each other longer than one computes.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("HF_TOKEN", None)

import pytest

from tl_core.runs import LOCAL_OWNER, Run
from tl_core.settings import Settings, read_settings

if TYPE_CHECKING:  # torch and the Hub's client are for those tests alone that ask for them
    from hub_server import Hub
    from studio import Studio

    from tl_core.drafts import Draft

_connect = socket.socket.connect


def _connect_to_loopback(self: socket.socket, address: object) -> None:
    host = address[0] if isinstance(address, tuple) else ""
    if self.family in (socket.AF_INET, socket.AF_INET6) and host not in ("127.0.0.1", "localhost", "::1"):
        raise OSError(f"tests have no network, and something wanted {host}")
    _connect(self, address)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("hub") is None:
        monkeypatch.setattr(socket.socket, "connect", _connect_to_loopback)
        # For processes that a test starts: nobody listens there.
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home folder, also for processes that a test starts."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TL_HOME", str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield folder


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> Iterator[None]:
    """accelerate collects garbage after each training, and looks through whatever modules and tests have made."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def settings(home: Path) -> Settings:
    return read_settings()


@pytest.fixture
def draft(settings: Settings) -> "Draft":
    from tl_core.drafts import create_draft

    return create_draft(settings, LOCAL_OWNER)


@pytest.fixture
def offline(settings: Settings) -> Settings:
    return replace(settings, offline=True)


@pytest.fixture
def use_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point the client at a server, with a cache and no token of its own. A test fails if the client waits to retry."""
    import huggingface_hub.constants
    import huggingface_hub.utils._http

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    clock = SimpleNamespace(sleep=lambda seconds: pytest.fail("waited to retry"))
    monkeypatch.setattr(huggingface_hub.utils._http, "time", clock)
    return lambda url: monkeypatch.setenv("HF_ENDPOINT", url)


@pytest.fixture
def hub(use_hub: Callable[[str], None]) -> Iterator["Hub"]:
    """A Hub without any repository yet."""
    from hub_server import serve

    with serve({}) as server:
        use_hub(server.url)
        yield server


@pytest.fixture(scope="session")
def photos_of_studio(tmp_path_factory: pytest.TempPathFactory) -> "Studio":
    from studio import CLASSES, open_studio

    folder = tmp_path_factory.mktemp("studio")
    return open_studio(folder / "photos", dict(zip(CLASSES, (5, 5, 6), strict=True)), Settings(home=folder / "home"))


@pytest.fixture
def studio(photos_of_studio: "Studio", settings: Settings) -> "Studio":
    """Sixteen pictures of three classes, eight of which train, and a home folder for this test."""
    return replace(photos_of_studio, settings=settings)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home with one run, of classes with names that want to be markup, and that run's id."""
    from page import NAMES
    from pictures import make_folder

    from tl_core import api

    home = tmp_path_factory.mktemp("trained")
    data = make_folder(home / "photos", dict.fromkeys(NAMES, 24))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_HOME", str(home / "home"))
        report = api.train(data=str(data))
    return home / "home", report["run_id"]


@pytest.fixture
def run(trained: tuple[Path, str], home: Path) -> Run:
    """That run, in this test's own home."""
    shutil.copytree(trained[0] / "runs", home / "runs")
    return Run(home / "runs" / trained[1])


@pytest.fixture
def report(run: Run) -> dict[str, Any]:
    found = run.report()
    assert found is not None
    return found
