"""Who asks, and whether what they ask about is theirs; what a browser keeps between two visits.

In local mode there is one owner and everything is theirs. In shared mode the owner is who is signed in with Hugging
Face, else the hash of a random token that the browser keeps; what was made before signing in stays its browser's.
Every handler is an HTTP endpoint too: each one that is given a run or a draft finds it through here. Must not know what
panels show.
"""

import hashlib
from dataclasses import dataclass
from pathlib import PurePath

import gradio as gr

from tl_core.drafts import Draft, find_draft, list_drafts
from tl_core.errors import DataError, JobError
from tl_core.files import existing_path
from tl_core.runs import LOCAL_OWNER, Run, list_runs
from tl_core.settings import read_settings
from tl_core.ui.signin import is_offered, who_is_signed_in

# As long as 32 bytes are in base64: what is shorter was not made by `MAKE_TOKEN`.
_TOKEN_LENGTH = 43
# In the browser, so that whoever presses a button before the server has answered is somebody already.
MAKE_TOKEN = f"""(kept) => {{
  if (typeof kept === "string" && kept.length >= {_TOKEN_LENGTH}) return kept;
  const drawn = btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(32))));
  return drawn.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}}"""
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
    ready: gr.Textbox  # changes once the browser has its token, when panels can ask for what is theirs
    finished: gr.Textbox  # changes when a run has ended, for those who list runs or models


def build_session() -> Session:
    token, draft, run = (
        gr.BrowserState("", storage_key=f"tl_{name}", secret=_STORAGE_SECRET) for name in ("token", "draft", "run")
    )
    ready, finished = (gr.Textbox(visible="hidden", label=name) for name in ("ready", "finished"))
    return Session(token, draft, run, ready, finished)


def owner_of(token: str | None) -> str:
    """As whom the asker makes something new. Raises JobError in shared mode where nobody has been recognised."""
    return owners_of(token)[0]


def owners_of(token: str | None) -> tuple[str, ...]:
    """Whose things are the asker's: who is signed in, and this browser. Raises JobError as `owner_of`."""
    if not read_settings().shared:
        return (LOCAL_OWNER,)
    signed_in, owners = who_is_signed_in(), []
    if signed_in is not None:
        owners.append(signed_in.owner)
    if isinstance(token, str) and len(token) >= _TOKEN_LENGTH:
        owners.append(hashlib.sha256(token.encode()).hexdigest())
    if not owners:
        raise JobError("this browser has not been recognised; reload the page")
    return tuple(owners)


def own_runs(token: str | None) -> list[Run]:
    """The asker's runs, newest first; on a computer of one's own all runs, whoever they were made as."""
    owners = owners_of(token)
    return [run for run in list_runs(read_settings()) if owners == (LOCAL_OWNER,) or run.owner() in owners][::-1]


def own_run(run_id: str | None, token: str | None) -> Run:
    """A run of the asker by its id. Raises JobError, the same for somebody else's run and one that is not there."""
    owners = owners_of(token)
    if not run_id:
        raise JobError("no run is chosen yet")
    # Found by its name, not among all: a page that watches asks every second.
    if isinstance(run_id, str) and run_id not in (".", "..") and PurePath(run_id).name == run_id:
        run = Run(read_settings().runs_dir / run_id)
        if existing_path(str(run.dir / "config.json")) and (owners == (LOCAL_OWNER,) or run.owner() in owners):
            return run
    signed_out = is_offered(read_settings()) and who_is_signed_in() is None
    hint = "; if it was made while you were signed in, sign in again" if signed_out else ""
    raise JobError(f"there is no run {str(run_id)[:_SHOWN_OF_ID]!r} of yours{hint}")


def own_draft(word: str | None, token: str | None) -> Draft:
    """The draft that a browser keeps, by its "ID@VERSION". Raises DataError where it is missing or somebody else's."""
    draft_id, settings = str(word or "").partition("@")[0], read_settings()
    *others, last = owners_of(token)
    for owner in others:
        try:
            return find_draft(draft_id, settings, owner)
        except DataError:  # as whom else they may have made it
            continue
    return find_draft(draft_id, settings, last)


def own_drafts(token: str | None) -> list[Draft]:
    """The asker's drafts, newest first."""
    found = [draft for owner in owners_of(token) for draft in list_drafts(read_settings(), owner)]
    return sorted(found, key=lambda draft: (draft.created_ns(), draft.id), reverse=True)


def draft_word(draft: Draft) -> str:
    return f"{draft.id}@{draft.version}"
