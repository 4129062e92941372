"""This app as a Space: which files make it, and the one command that puts them there.

What a Space needs beside the app lies in `spaces_config/`. Must not know how a repository is written to; a token is an
argument, and is never kept or told.
"""

import logging
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tl_core.errors import ConfigError
from tl_core.hub.account import account_of, check_may_create
from tl_core.hub.names import check_hardware, check_name
from tl_core.hub.plan import plan_of, told_changes
from tl_core.hub.publishing import Changes, look_at, publish
from tl_core.hub.variables import set_variables
from tl_core.settings import Settings, check_variable
from tl_core.sources import Ticker

PROJECT = Path(__file__).resolve().parent.parent
CARD = "spaces_config/app/README.md"
# Sent whole, as far as their files are of these kinds: what an editor or an interpreter leaves behind is not.
FOLDERS = ("tl_core", "spaces_config")
KINDS = frozenset({".py", ".md", ".txt", ".json", ".css", ".svg", ".safetensors"})
SINGLE = ("app.py", "LICENSE")
# A Space with this file in it is one of this app, perhaps one that somebody has changed. While its newest commit is one
# of ours a new version of the app may take its place.
OURS = "tl_core/deployment.py"
COMMIT_TITLE = "Deploy tl_core"
_FOR_TESTS = "# for the tests"
_SDK = re.compile(r"^sdk: gradio$", re.MULTILINE)
_SUGGESTED = re.compile(r"^suggested_hardware: .*$", re.MULTILINE)

log = logging.getLogger(__name__)


def app_files(hardware: str | None = None) -> dict[str, Path | bytes]:
    """Everything the app needs on a Space: path in the Space -> file here, or bytes. No tests, documents, caches, runs.

    In a git checkout, only what git knows: whatever else lies in these folders is not for everybody to see.
    `hardware` is what the Space suggests to those who duplicate it; None for the free one. Raises ConfigError where
    this is not the project's folder but an installed package, and where git cannot be asked.
    """
    missing = [name for name in (*SINGLE, CARD, "requirements.txt") if not (PROJECT / name).is_file()]
    if missing:
        raise ConfigError(
            f"{PROJECT} is not this project's folder (it has no {missing[0]}): run `deploy` in a copy of the project, "
            "with `python -m tl_core` there"
        )
    found = {
        path.relative_to(PROJECT).as_posix(): path
        for folder in FOLDERS
        for path in sorted((PROJECT / folder).rglob("*"))
        if _belongs(path)
    }
    known = _known_to_git()
    if known is not None and (strangers := [name for name in found if name not in known]):
        log.warning(
            "not sent, because git does not know it (`git add` what belongs to the app): %s", ", ".join(strangers)
        )
    return {
        **{name: path for name, path in found.items() if known is None or name in known},
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


def rehearse_deploy(
    repo_id: str, *, private: bool = False, hardware: str | None = None, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What `deploy_app` would send, with neither token nor network: {repo_id, url, private, files: [{path, bytes}],
    bytes, variables}. Raises as that does."""
    check_name(repo_id)
    wanted = _checked(variables, private=private)
    return {**plan_of("space", repo_id, app_files(hardware)), "private": private, "variables": wanted}


def deploy_app(
    repo_id: str,
    token: str,
    settings: Settings,
    *,
    private: bool = False,
    hardware: str | None = None,
    variables: Mapping[str, str] | None = None,
    replace: bool = False,
    ticker: Ticker | None = None,
) -> dict[str, Any]:
    """Put this app on the Space `repo_id`, made if it is not there: {repo_id, url, commit, files, bytes sent, changes,
    variables, variables_set: names of those that were not so already}.

    A second time only what has changed is sent, and what the app no longer has is removed. A Space that holds something
    else, or that somebody has changed since, is changed with `replace` alone. `variables` are settings of the app for
    that Space; others that it has stay. Raises ConfigError, HubError.
    """
    check_name(repo_id)
    wanted = _checked(variables, private=private)
    files = app_files(hardware)
    account = account_of(token, settings)
    check_may_create(account, repo_id, kind="space")
    found = look_at("space", repo_id, files, token, settings, private=private, ours=(COMMIT_TITLE,))
    check_may_create(account, repo_id, kind="space", there=found is not None)
    sent = publish(
        "space",
        repo_id,
        files,
        token,
        settings,
        private=private,
        message=COMMIT_TITLE,
        replace=replace,
        remove=_left_over(found),
        ours=(COMMIT_TITLE,),
        ticker=ticker and (lambda done, total: ticker("sending the app, bytes", done, total)),
    )
    changed = {"bytes": sent.sent_bytes, "changes": told_changes(sent.changes)}
    told = {"url": sent.url, "commit": sent.commit, "private": sent.private}
    done = {"variables": wanted, "variables_set": list(set_variables(repo_id, wanted, token, settings))}
    return {**plan_of("space", repo_id, files), **told, **changed, **done}


def _checked(variables: Mapping[str, str] | None, *, private: bool) -> dict[str, str]:
    for name, text in (variables or {}).items():
        if check_variable(name, text) is False and name == "TL_SHARED" and not private:
            raise ConfigError(
                f"TL_SHARED={text} would show everybody on a public Space the runs of all, and let them use its "
                "secrets; add --private, or leave it out"
            )
    return dict(variables or {})


def _belongs(path: Path) -> bool:
    words = path.relative_to(PROJECT).parts
    hidden = any(word.startswith(".") or word == "__pycache__" for word in words)
    return path.is_file() and not path.is_symlink() and path.suffix in KINDS and not hidden


def _known_to_git() -> set[str] | None:
    """The files of FOLDERS that are in git; None where this is no checkout. Raises ConfigError."""
    if not (PROJECT / ".git").exists():
        return None
    asked = ["git", "ls-files", "-z", "--", *FOLDERS]
    try:
        listed = subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as failure:
        raise ConfigError(
            f"git cannot be asked which files of {PROJECT} belong to the app ({failure}); install git, or deploy from "
            "a copy without its .git"
        ) from failure
    return set(listed.stdout.split("\0"))


def _card(hardware: str | None) -> str:
    tested_with = f"sdk: gradio\nsdk_version: {version('gradio')}"
    text = _SDK.sub(tested_with, (PROJECT / CARD).read_text(encoding="utf-8"))
    if hardware is None:
        return text
    check_hardware(hardware)
    return _SUGGESTED.sub(f"suggested_hardware: {hardware}", text)


def _left_over(found: Changes | None) -> tuple[str, ...]:
    """What an earlier version of the app had and this one has not."""
    if found is None or OURS not in (*found.same, *found.changed):
        return ()
    folders = tuple(f"{folder}/" for folder in FOLDERS)
    return tuple(path for path in found.kept if path.startswith(folders))
