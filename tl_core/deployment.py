"""This app as a Space: which files make it, and the one command that puts them there.

What a Space needs beside the app lies in `spaces_config/`. Must not know how a repository is written to; a token is an
argument, and is never kept or told.
"""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tl_core.errors import ConfigError
from tl_core.hub.account import account_of, check_may_create
from tl_core.hub.plan import check_name, plan_of, told_changes
from tl_core.hub.publishing import Changes, look_at, publish
from tl_core.settings import Settings
from tl_core.sources import Ticker

PROJECT = Path(__file__).resolve().parent.parent
CARD = "spaces_config/app/README.md"
# Sent whole, as far as their files are of these kinds: what an editor or an interpreter leaves behind is not.
FOLDERS = ("tl_core", "spaces_config")
KINDS = frozenset({".py", ".md", ".txt", ".json", ".css", ".svg", ".safetensors"})
SINGLE = ("app.py", "LICENSE")
# A Space with this file in it is one of this app, and a new version of the app may take its place.
OURS = "tl_core/deployment.py"
_FOR_TESTS = "# for the tests"
_SDK = re.compile(r"^sdk: gradio$", re.MULTILINE)
_SUGGESTED = re.compile(r"^suggested_hardware: .*$", re.MULTILINE)
_HARDWARE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def app_files(hardware: str | None = None) -> dict[str, Path | bytes]:
    """Everything the app needs on a Space: path in the Space -> file here, or bytes. No tests, documents, caches, runs.

    `hardware` is what the Space suggests to those who duplicate it; None for the free one. Raises ConfigError where
    this is not the project's folder but an installed package.
    """
    missing = [name for name in (*SINGLE, CARD, "requirements.txt") if not (PROJECT / name).is_file()]
    if missing:
        raise ConfigError(
            f"{PROJECT} is not this project's folder (it has no {missing[0]}): run `deploy` in a copy of the project, "
            "with `python -m tl_core` there"
        )
    found = [path for folder in FOLDERS for path in (PROJECT / folder).rglob("*") if _belongs(path)]
    return {
        **{path.relative_to(PROJECT).as_posix(): path for path in sorted(found)},
        **{name: PROJECT / name for name in SINGLE},
        "README.md": _card(hardware).encode(),
        "requirements.txt": requirements().encode(),
    }


def requirements() -> str:
    """The project's requirements without those of its tests, and with what signing in needs.

    torch is the same for every hardware: its usual build works without a GPU too, and a Space's hardware can be
    changed at any time.
    """
    text = (PROJECT / "requirements.txt").read_text(encoding="utf-8").partition(_FOR_TESTS)[0]
    return re.sub(r"^gradio\b(?!\[)", "gradio[oauth]", text, flags=re.MULTILINE)


def rehearse_deploy(repo_id: str, *, private: bool = False, hardware: str | None = None) -> dict[str, Any]:
    """What `deploy_app` would send, with neither token nor network: {repo_id, url, private, files: [{path, bytes}],
    bytes}. Raises as that does."""
    check_name(repo_id)
    return {**plan_of("space", repo_id, app_files(hardware)), "private": private}


def deploy_app(
    repo_id: str,
    token: str,
    settings: Settings,
    *,
    private: bool = False,
    hardware: str | None = None,
    replace: bool = False,
    ticker: Ticker | None = None,
) -> dict[str, Any]:
    """Put this app on the Space `repo_id`, made if it is not there: {repo_id, url, commit, files, bytes sent, changes}.

    A second time only what has changed is sent, and what the app no longer has is removed. A Space that holds something
    else is changed with `replace` alone. Raises ConfigError, HubError.
    """
    check_name(repo_id)
    files = app_files(hardware)
    check_may_create(account_of(token, settings), repo_id)
    found = look_at("space", repo_id, files, token, settings)
    ours = found is not None and OURS in (*found.same, *found.changed)
    sent = publish(
        "space",
        repo_id,
        files,
        token,
        settings,
        private=private,
        message="Update the app" if ours else "Add the app",
        replace=ours or replace,
        remove=_left_over(found) if ours else (),
        ticker=ticker and (lambda done, total: ticker("sending the app, bytes", done, total)),
    )
    changed = {"bytes": sent.sent_bytes, "changes": told_changes(sent.changes)}
    return {**plan_of("space", repo_id, files), "url": sent.url, "commit": sent.commit, "private": private, **changed}


def _belongs(path: Path) -> bool:
    words = path.relative_to(PROJECT).parts
    hidden = any(word.startswith(".") or word == "__pycache__" for word in words)
    return path.is_file() and not path.is_symlink() and path.suffix in KINDS and not hidden


def _card(hardware: str | None) -> str:
    tested_with = f"sdk: gradio\nsdk_version: {version('gradio')}"
    text = _SDK.sub(tested_with, (PROJECT / CARD).read_text(encoding="utf-8"))
    if hardware is None:
        return text
    if not _HARDWARE.fullmatch(hardware):
        raise ConfigError(f"{hardware!r} is no hardware of a Space; it looks like cpu-basic, cpu-upgrade or t4-small")
    return _SUGGESTED.sub(f"suggested_hardware: {hardware}", text)


def _left_over(found: Changes | None) -> tuple[str, ...]:
    """What an earlier version of the app had and this one has not."""
    folders = tuple(f"{folder}/" for folder in FOLDERS)
    return tuple(path for path in found.kept if path.startswith(folders)) if found is not None else ()
