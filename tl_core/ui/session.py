"""Who asks, and whether what they ask about is theirs; what a browser keeps between two visits.

In local mode there is one owner and everything is theirs. In shared mode the owner is the hash of a random token that
the browser keeps. Every handler is an HTTP endpoint too: each one that is given a run or a draft finds it through here.
Must not know what panels show.
"""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import PurePath

import gradio as gr

from tl_core.drafts import Draft, find_draft
from tl_core.errors import JobError
from tl_core.files import existing_path
from tl_core.runs import LOCAL_OWNER, Run, list_runs
from tl_core.settings import read_settings

TOKEN_BYTES = 32
# As long as a token of so many bytes is in base64: what is shorter was not made here.
_TOKEN_LENGTH = 43
# Not a secret: it only keeps the stored values readable after the app was started again.
_STORAGE_SECRET = "tl_core"
# What a client sends for an id is repeated to it, but no more than an id has.
_SHOWN_OF_ID = 100


@dataclass(frozen=True)
class Session:
    """What one browser keeps: its token, the draft it puts together and the run it looks at. Never trusted."""

    token: gr.BrowserState
    draft: gr.BrowserState  # "ID@VERSION": another value after every edit
    run: gr.BrowserState
    ready: gr.Textbox  # changes once the browser is recognised, when panels can ask for what is theirs
    finished: gr.Textbox  # changes when a run has ended, for those who list runs or models


def build_session() -> Session:
    token, draft, run = (
        gr.BrowserState("", storage_key=f"tl_{name}", secret=_STORAGE_SECRET) for name in ("token", "draft", "run")
    )
    ready, finished = (gr.Textbox(visible="hidden", label=name) for name in ("ready", "finished"))
    return Session(token, draft, run, ready, finished)


def keep_token(token: str | None) -> str:
    """The browser's token, a new one where it has none yet."""
    if isinstance(token, str) and len(token) >= _TOKEN_LENGTH:
        return token
    return secrets.token_urlsafe(TOKEN_BYTES)


def owner_of(token: str | None) -> str:
    """Who asks. Raises JobError in shared mode where the browser has not said."""
    if not read_settings().shared:
        return LOCAL_OWNER
    if not isinstance(token, str) or len(token) < _TOKEN_LENGTH:
        raise JobError("this browser has not been recognised yet; reload the page, and allow it to store data")
    return hashlib.sha256(token.encode()).hexdigest()


def own_runs(token: str | None) -> list[Run]:
    """The asker's runs, newest first; on a computer of one's own all runs, whoever they were made as."""
    owner = owner_of(token)
    return list_runs(read_settings(), None if owner == LOCAL_OWNER else owner)[::-1]


def own_run(run_id: str | None, token: str | None) -> Run:
    """A run of the asker by its id. Raises JobError, the same for somebody else's run and one that is not there."""
    owner = owner_of(token)
    if not run_id:
        raise JobError("no run is chosen yet")
    # Found by its name, not among all: a page that watches asks every second.
    if isinstance(run_id, str) and run_id not in (".", "..") and PurePath(run_id).name == run_id:
        run = Run(read_settings().runs_dir / run_id)
        if existing_path(str(run.dir / "config.json")) and owner in (LOCAL_OWNER, run.owner()):
            return run
    raise JobError(f"there is no run {str(run_id)[:_SHOWN_OF_ID]!r} of yours")


def own_draft(word: str | None, token: str | None) -> Draft:
    """The draft that a browser keeps, by its "ID@VERSION". Raises DataError where it is missing or somebody else's."""
    return find_draft(str(word or "").partition("@")[0], read_settings(), owner_of(token))


def draft_word(draft: Draft) -> str:
    return f"{draft.id}@{draft.version}"
