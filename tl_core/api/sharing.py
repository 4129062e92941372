"""A run's model handed on, as a file or on the Hub, and this app as a Space.

A token is the caller's, or where none is given the one that huggingface_hub finds on this computer.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_core.errors import ConfigError, JobError
from tl_core.hub.names import Kind
from tl_core.runs import LIVE_STATES, Run, find_run
from tl_core.settings import read_settings
from tl_core.sources import Ticker


def pack(run: str, folder: str | Path) -> Path:
    """A zip of a run's model in `folder`, for plain transformers; its path. Raises JobError."""
    from tl_core.packing import pack_model

    return pack_model(find_run(run, read_settings()), Path(folder))


def push(
    run: str,
    repo_id: str,
    *,
    private: bool = False,
    space: bool = False,
    examples: bool = False,
    replace: bool | Mapping[Kind, str] = False,
    token: str | None = None,
    dry_run: bool = False,
    ticker: Ticker | None = None,
) -> dict[str, Any]:
    """Publish a run's model on the Hub as `repo_id`, "owner/name"; with `space` a demo of it too.

    {repo_id, url, commit, files: [{path, bytes}], bytes sent, changes, and of the demo, or None, space_url and
    space_changes}. With `examples` the demo shows a test picture of each class, which is then public. What is there
    already is changed only with `replace`, and parts of an earlier model are deleted then; {"model": commit, "space":
    commit} allows it only while these are what is there.
    `dry_run` needs neither token nor network: {repo_id, url, files, bytes, space: the same or None}. Raises
    ConfigError, JobError, DataError, HubError; the same call again goes on after an interruption.
    """
    from tl_core.sharing import choose_examples, push_run, rehearse

    if examples and not space:
        raise ConfigError(
            "--examples are pictures for a demo to show, and there is none: add --space, or leave them out"
        )
    settings = read_settings()
    found = _ended(find_run(run, settings))
    pictures = choose_examples(found) if examples else []
    if dry_run:
        return rehearse(found, repo_id, space=space, private=private, examples=pictures)
    given: dict[str, Any] = {"private": private, "space": space, "replace": replace, "examples": pictures}
    return push_run(found, repo_id, _token(token), settings, **given, ticker=ticker)


def deploy(
    repo_id: str,
    *,
    private: bool = False,
    hardware: str | None = None,
    variables: Mapping[str, str] | None = None,
    replace: bool = False,
    token: str | None = None,
    dry_run: bool = False,
    ticker: Ticker | None = None,
) -> dict[str, Any]:
    """Put this app on a Space of its own, "owner/name": {repo_id, url, commit, files: [{path, bytes}], bytes sent,
    changes, variables, variables_set}; a second time sends only what has changed.

    `hardware` is what the Space suggests to those who duplicate it; `variables` are settings of the app there, such as
    {"TL_MAX_IMAGES": "20000"}. `dry_run` needs neither token nor network. Raises ConfigError, HubError.
    """
    from tl_core.deployment import deploy_app, rehearse_deploy

    if dry_run:
        return rehearse_deploy(repo_id, private=private, hardware=hardware, variables=variables)
    given: dict[str, Any] = {"private": private, "hardware": hardware, "variables": variables, "replace": replace}
    return deploy_app(repo_id, _token(token), read_settings(), **given, ticker=ticker)


def _ended(run: Run) -> Run:
    """The run, of which nothing changes while it is read. Raises JobError for one that is being worked on."""
    state = run.view().state
    if state in LIVE_STATES:
        raise JobError(f"run {run.id} is {state}; push it once it has ended, or end it with `stop {run.id}`")
    return run


def _token(given: str | None) -> str:
    from tl_core.hub.account import token_at_hand

    return given or token_at_hand() or ""  # of which the Hub's side says what to do
