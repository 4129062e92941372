"""A model that is published as soon as its training has succeeded: what is found out before, and what is done after.

The run has succeeded whatever becomes of that: `unpublished.json` in its folder says what has not been published yet,
why, and the command that does it. Must not know how a model is published, nor what training is.
"""

import shlex
import traceback
from dataclasses import dataclass
from typing import Any

from tl_core.config import TrainConfig
from tl_core.errors import TLError
from tl_core.files import read_json, write_json, writing_to_home
from tl_core.hub.account import token_at_hand
from tl_core.recorder import Recorder, StopRequested
from tl_core.runs import Run
from tl_core.settings import Settings
from tl_core.sharing import UNPUBLISHED, check_push, push_run

PUSHING = "pushing"
_INTERRUPTED = "it was interrupted before all had arrived"


@dataclass(frozen=True)
class Wish:
    """Where a run's model is to be published, and how: the options of `push`."""

    repo_id: str
    private: bool
    space: bool
    replace: bool

    @property
    def options(self) -> dict[str, Any]:
        return {"private": self.private, "space": self.space, "replace": self.replace}

    def command(self, run: Run) -> str:
        """The command that publishes the run as wished."""
        flags = [f"--{name}" for name, is_on in self.options.items() if is_on]
        return shlex.join(["python", "-m", "tl_core", "push", run.id, "--repo-id", self.repo_id, *flags])


def wish_of(run: Run) -> Wish | None:
    """None for a run that is not to be published by itself."""
    config = read_json(run.dir / "config.json") or {}
    if not config.get("push_to"):
        return None
    return Wish(config["push_to"], *(bool(config.get(f"push_{name}")) for name in ("private", "space", "replace")))


def check_delivery(config: TrainConfig, token: str | None, settings: Settings) -> str | None:
    """The token that the model of such a training will be published with: `token`, else the one at hand.

    None where nothing is to be published. Raises HubError for whatever would be in the way, as `check_push` does.
    """
    if config.push_to is None:
        return None
    token = token or token_at_hand() or ""
    options = {"private": config.push_private, "space": config.push_space, "replace": config.push_replace}
    check_push(config, config.push_to, token, settings, **options)
    return token


def announce(run: Run, recorder: Recorder, token: str | None) -> None:
    """Say at the beginning that a model will not be published for want of a token."""
    wish = wish_of(run)
    if wish is not None and not _has_token(token):
        recorder.note(
            f"the model will not be published: nobody has given this run an access token; `{wish.command(run)}` does "
            "it once the run has succeeded"
        )


def withhold(run: Run, recorder: Recorder) -> dict[str, Any]:
    """Say that a run which was stopped is not published: {push: {repo_id, error, …}}, {} where it was not to be."""
    wish = wish_of(run)
    if wish is None:
        return {}
    again = f"python -m tl_core resume {run.id}"
    sentence = f"the run was stopped; `{again}` continues it, and publishes it once it has succeeded"
    _tell(f"not published as {wish.repo_id}: {sentence}", recorder)
    return {"push": {"repo_id": wish.repo_id, "error": sentence, "details": [], "command": again}}


def deliver(run: Run, wish: Wish, token: str | None, settings: Settings, recorder: Recorder) -> dict[str, Any]:
    """Publish the model of a run that has succeeded: {repo_id, url, commit, space_url, bytes}, or where that fails, or
    the person has it stopped, {repo_id, error, details, command}. Raises nothing but KeyboardInterrupt, and JobError
    where the run folder cannot be written.
    """

    def owe(error: str, details: tuple[str, ...] = ()) -> dict[str, Any]:
        owed = {"repo_id": wish.repo_id, "error": error, "details": list(details), "command": wish.command(run)}
        with writing_to_home(settings):
            write_json(run.dir / UNPUBLISHED, owed)
        return owed

    def tick(_: str, sent: int, total: int) -> None:
        recorder.progress(sent, total)
        if sent < total and run.stop_requested():  # with the last byte it is done, or nearly
            raise StopRequested

    owe(_INTERRUPTED)  # true until something else is, even of a process that is killed
    with writing_to_home(settings):
        recorder.stage(PUSHING)
    try:
        if run.stop_requested():
            raise StopRequested
        token = token or token_at_hand() or ""
        done = push_run(run, wish.repo_id, token, settings, **wish.options, ticker=tick)
    except TLError as failure:
        owed = owe(failure.message, failure.details)
    except StopRequested:
        owed = owe("you have stopped that before all had arrived")
    except KeyboardInterrupt:
        recorder.note(f"not published as {wish.repo_id}: {_INTERRUPTED}; `{wish.command(run)}` goes on")
        raise
    except Exception as failure:  # the model is there and is good: what may have been our fault must not take it away
        told = "".join(traceback.format_exception(failure)).rstrip()
        recorder.say(told.replace(token, "…") if token else told, echoed=not recorder.writes_log)
        owed = owe(f"an unexpected {type(failure).__name__}; log.txt in the run folder has the details")
    else:
        demo = f", its demo at {done['space_url']}" if done["space_url"] else ""
        _tell(f"published at {done['url']}{demo}", recorder)
        return {name: done[name] for name in ("repo_id", "url", "commit", "space_url", "bytes")}
    _tell(f"not published as {wish.repo_id}: {owed['error']}; `{owed['command']}` tries again", recorder)
    for detail in owed["details"]:
        recorder.say(f"  {detail}", echoed=not recorder.writes_log)
    return owed


def _has_token(token: str | None) -> bool:
    try:
        return bool(token or token_at_hand())
    except TLError:
        return False


def _tell(sentence: str, recorder: Recorder) -> None:
    """A note that whoever called says in the report's words; where nobody did, the log is all there is."""
    recorder.event("note", text=sentence)
    recorder.say(sentence, echoed=not recorder.writes_log)
