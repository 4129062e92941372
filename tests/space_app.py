"""This app as a Space has it: the files that `deploy` sends in a folder of their own, started as a Space starts them.

What a Space is given: https://huggingface.co/docs/hub/spaces-overview, https://huggingface.co/docs/hub/spaces-oauth.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from asking import asking
from browser import App, free_port, served
from gradio_client import handle_file
from hub_state import contents_of

from tl_core.catalogue import DEFAULT_MODEL
from tl_core.deployment import app_files

# What nobody has set on a Space, and what a test's own machine may have set.
_OWN = ("HF_", "TL_", "GRADIO_", "OAUTH_", "SPACE_", "PYTHON")
SIGN_IN = {
    "OAUTH_CLIENT_ID": "client-of-this-space",
    "OAUTH_CLIENT_SECRET": "secret-of-this-space",
    "OAUTH_SCOPES": "openid profile contribute-repos",
}


def unpack(folder: Path) -> Path:
    """The app as it lies on a Space."""
    for name, content in contents_of(app_files()).items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return folder


def _package_of_spaces(folder: Path) -> Path:
    """A stand-in for the package that each Gradio Space has: Gradio wraps handlers with it, and reloads with it."""
    about = {
        "spaces/__init__.py": "def gradio_auto_wrap(fn): return fn\n",
        "spaces/reloading.py": "def start_reload_server(**_): pass\n",
        "spaces-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: spaces\nVersion: 1.0\n",
    }
    for name, text in about.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def ask(app: App, image: Path) -> str:
    """The answer's markup to a picture, by the model that the page begins with."""
    with asking(app.address) as client:
        answer, _, said = client.predict(DEFAULT_MODEL, "", handle_file(image), "", api_name="/ask")
    assert not said
    return str(answer)


@contextmanager
def running_space(folder: Path, hub: str, more: Mapping[str, str] | None = None) -> Iterator[App]:
    """What `deploy` sends, served from `folder` as a Space serves it, with `more` as its owner's variables.

    `hub` is the address of the Hub, who signs people in too. Where no TL_HOME is among `more`, the app chooses itself
    where it keeps things.
    """
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(_OWN)},
        **{"SYSTEM": "spaces", "SPACE_ID": "ada/teach", "SPACE_AUTHOR_NAME": "ada", "SPACE_HOST": "ada-teach.hf.space"},
        **{"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": str(free_port())},
        **SIGN_IN,
        "OPENID_PROVIDER_URL": hub,
        "HF_ENDPOINT": hub,
        "HF_HOME": str(folder / "hf"),
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(_package_of_spaces(folder / "platform")),
        **(more or {}),
    }
    home = Path(environment.get("TL_HOME", temporary / "tl_core"))
    with served([], unpack(folder / "app"), environment, home, folder / "stderr.txt") as app:
        yield app
