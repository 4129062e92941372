"""What every test lives in: a home folder of its own, one thread, and no network but this machine's loopback."""

import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported anywhere: two threads on a busy machine wait for each other longer than one computes.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("HF_TOKEN", None)

import pytest

from tl_core.settings import Settings, read_settings

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
