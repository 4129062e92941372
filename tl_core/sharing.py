"""A finished run handed to others: its model, and on request a demo of it, as repositories on the Hub.

Must not know what is published of a run, how a repository is written to, nor who asks; a token is an argument, and is
never kept or told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace as altered
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tl_core.config import TrainConfig
from tl_core.errors import HubError, JobError
from tl_core.hub.account import Account, account_of, check_may_create
from tl_core.hub.changes import check_allowed
from tl_core.hub.names import called, check_name
from tl_core.hub.plan import plan_of, told_changes
from tl_core.hub.publishing import Changes, Consent, Files, Kind, Occupied, Published, begin, look_at, publish
from tl_core.model_card import check_card, render_card
from tl_core.options import flag
from tl_core.publication import choose_examples, demo_of, files_of
from tl_core.published import UNPUBLISHED, last_commit, published, remember, settle
from tl_core.recall_chart import RECALL_CHART
from tl_core.result_pictures import CONFUSION_MATRIX, TRAINING_CURVES
from tl_core.runs import Run
from tl_core.settings import Settings, read_settings
from tl_core.sources import Ticker

__all__ = [
    "UNPUBLISHED",
    "Occupied",
    "check_push",
    "choose_examples",
    "files_of",
    "foresee",
    "published",
    "push_run",
    "rehearse",
    "space_of",
]

DEMO = "-demo"  # what the name of a model's Space ends with
# Of an earlier model in the same repository, beside its card: transformers would take these for parts of the new one,
# and a reader for its results. Whatever else is there, folders above all, is somebody's.
_SUPERSEDED = (
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json"),
    *("preprocessor_config.json", "processor_config.json", "adapter_config.json"),
)
# What nearly every model will be published as: before its training, what would be replaced is told by these.
_FORESEEN = (
    *("config.json", "preprocessor_config.json", "report.json", "training_config.json"),
    *(CONFUSION_MATRIX, RECALL_CHART),
)
_NO_COMMIT = "0" * 40  # stands for one that is still to be made


def rehearse(
    run: Run, repo_id: str, *, space: bool = False, private: bool = False, examples: Sequence[Path] = ()
) -> dict[str, Any]:
    """What `push_run` would send, found out with neither token nor network.

    {repo_id, url, private, files: [{path, bytes}], bytes, space: the same of the demo, or None}. Raises as `push_run`.
    """
    demo_id = _demo_name(repo_id, space)
    planned = {**plan_of("model", repo_id, files_of(run, repo_id)), "private": private, "space": None}
    if space:
        planned["space"] = plan_of("space", demo_id, demo_of(run, repo_id, examples, read_settings()))
    return planned


def foresee(
    run: Run,
    repo_id: str,
    token: str,
    settings: Settings,
    *,
    space: bool = False,
    private: bool = False,
    examples: Sequence[Path] = (),
) -> dict[Kind, Changes | None]:
    """What `push_run` would change in what is on the Hub already, without changing it; None for what is not there yet.

    Raises as `push_run` does, but for Occupied: `needs_replace` says it.
    """
    demo_id = _demo_name(repo_id, space)
    look = _Look(token, settings, private)
    found = look("model", repo_id, files_of(run, repo_id))
    if not space:
        return {"model": found}
    demo = demo_of(run, repo_id, examples, settings, _commit_to_be(run, repo_id, found))
    return {"model": found, "space": look("space", demo_id, demo)}


def push_run(
    run: Run,
    repo_id: str,
    token: str,
    settings: Settings,
    *,
    private: bool = False,
    space: bool = False,
    replace: bool | Mapping[Kind, str] = False,
    examples: Sequence[Path] = (),
    ticker: Ticker | None = None,
) -> dict[str, Any]:
    """Publish the run's model as `repo_id`, and with `space` a demo of it, which shows `examples`.

    {repo_id, url, commit, private, files: [{path, bytes}], bytes: those that were sent, changes, and of the
    demo, or None, space_url and space_changes}.
    What is there already is changed, and parts of an earlier model deleted, only with `replace`: whatever it is, or
    only what `foresee` found at these commits. After any failure the same call goes on where it was. Raises JobError,
    DataError, HubError (Occupied where `replace` does not allow it); whatever can be found out before anything is sent
    is.
    """
    demo_id = _demo_name(repo_id, space)
    files = files_of(run, repo_id)
    if space:
        demo_of(run, repo_id, examples, settings)  # what is wrong with it is said first, without the Hub
    look = _Look(token, settings, private, _check_account(token, settings, repo_id, demo_id if space else None))
    found, demo_found = look("model", repo_id, files), None
    check_allowed(called("model", repo_id), found, _consent(replace, "model"))
    if space:
        demo = demo_of(run, repo_id, examples, settings, _commit_to_be(run, repo_id, found))
        demo_found = look("space", demo_id, demo)
        check_allowed(called("space", demo_id), demo_found, _consent(replace, "space"))
        if demo_found is None:
            _begin_demo(demo_id, token, settings, private)
    unnoted: list[JobError] = []

    def send(kind: Kind, name: str, content: Files, remove: tuple[str, ...] = ()) -> Published:
        sent = publish(
            kind,
            name,
            content,
            token,
            settings,
            private=private,
            message=f"Add run {run.id}",
            replace=_consent(replace, kind),
            remove=remove,
            ticker=ticker and (lambda done, total: ticker(f"sending the {kind}, bytes", done, total)),
        )
        try:
            remember(run, sent, settings)
        except JobError as failure:
            unnoted.append(failure)
        return sent

    model = send("model", repo_id, files, found.removed if found is not None else ())
    commit = (last_commit(run, repo_id) if model.changes.is_empty else None) or model.commit
    answer = {
        **plan_of("model", repo_id, files),
        "url": model.url,
        "commit": commit,
        "private": model.private,
        "bytes": model.sent_bytes,
        "changes": told_changes(model.changes),
        "space_url": None,
        "space_changes": None,
    }
    if space:
        try:
            sent = send("space", demo_id, demo_of(run, repo_id, examples, settings, commit))
        except HubError as failure:
            said = f"the model is at {model.url}, but not its demo: {failure.message}"
            raise HubError(said, failure.details) from failure
        answer |= {"space_url": sent.url, "space_changes": told_changes(sent.changes)}
        answer["bytes"] += sent.sent_bytes
    try:
        settle(run, repo_id, settings)
    except JobError as failure:
        unnoted.append(failure)
    if unnoted:
        places = " and ".join(filter(None, (answer["url"], answer["space_url"])))
        raise JobError(f"it is at {places}, but the run's folder cannot tell so: {unnoted[0].message}") from unnoted[0]
    return answer


def check_push(
    config: TrainConfig,
    repo_id: str,
    token: str,
    settings: Settings,
    *,
    private: bool = False,
    space: bool = False,
    replace: bool = False,
) -> Account:
    """Whether a training with this configuration could be pushed, asked before it begins: whose token it is.

    Raises HubError for a name that cannot be, a token that may not create it or write to it, a card that the Hub would
    refuse, a repository that holds something already, which only `replace` changes, and a public one where it is to be
    `private`.
    """
    demo_id = _demo_name(repo_id, space)
    card = render_card({}, config.recipe(), name=config.name, model=repo_id)
    check_card(card)
    account = _check_account(token, settings, repo_id, demo_id if space else None)
    look = _Look(token, settings, private, account)
    wanted: dict[Kind, str] = {"model": repo_id, "space": demo_id} if space else {"model": repo_id}
    for kind, name in wanted.items():
        to_come = ("model.safetensors", *_FORESEEN) if kind == "model" else ("app.py",)
        found = look(kind, name, {"README.md": card.encode(), **dict.fromkeys(to_come, b"not made yet")})
        check_allowed(called(kind, name), found, replace, flag("push_replace"))
    return account


def space_of(repo_id: str) -> str:
    """The id of a model's demo. Not the model's own: a Space of that name may be there for something else."""
    return repo_id + DEMO


class _Look:
    """`look_at` with one token, for one visibility, and what `account`, where it is known, may create; what an earlier
    model left counts as to be deleted."""

    def __init__(self, token: str, settings: Settings, private: bool, account: Account | None = None) -> None:
        self._token, self._settings, self._private, self._account = token, settings, private, account

    def __call__(self, kind: Kind, repo_id: str, files: Files) -> Changes | None:
        found = look_at(kind, repo_id, files, self._token, self._settings, private=self._private)
        if self._account is not None:
            check_may_create(self._account, repo_id, kind=kind, there=found is not None)
        if found is None or kind != "model":
            return found
        left = tuple(path for path in found.kept if _is_superseded(path))
        kept = tuple(path for path in found.kept if path not in left)
        return altered(found, kept=kept, removed=left, needs_replace=found.needs_replace or bool(left))


def _consent(replace: bool | Mapping[Kind, str], kind: Kind) -> Consent:
    return replace if isinstance(replace, bool) else replace.get(kind, False)


def _is_superseded(path: str) -> bool:
    if "/" in path:
        return path in (CONFUSION_MATRIX, RECALL_CHART, TRAINING_CURVES)
    return any(fnmatch(path, pattern) for pattern in _SUPERSEDED)


def _commit_to_be(run: Run, repo_id: str, found: Changes | None) -> str:
    """The commit of the model once it is published: that which it has, where nothing changes."""
    if found is None or not found.is_empty:
        return _NO_COMMIT
    return last_commit(run, repo_id) or found.commit


def _demo_name(repo_id: str, space: bool) -> str:
    """`space_of`. Raises HubError as `check_name` does, for the model and, where there is to be one, the demo."""
    for name in [repo_id, space_of(repo_id)] if space else [repo_id]:
        check_name(name)
    return space_of(repo_id)


def _begin_demo(demo_id: str, token: str, settings: Settings, private: bool) -> None:
    """Create the demo's Space, before the model is sent: whether a person may have one is known only then."""
    try:
        begin("space", demo_id, token, settings, private=private)
    except HubError as failure:
        said = f"{failure.message}; the model alone, without the demo, may go all the same"
        raise type(failure)(said, failure.details) from failure


def _check_account(token: str, settings: Settings, repo_id: str, demo_id: str | None) -> Account:
    """Whose token it is. Raises HubError where they may not create one of these repositories."""
    account = account_of(token, settings)
    check_may_create(account, repo_id, kind="model")
    if demo_id is not None:
        check_may_create(account, demo_id, kind="space")
    return account
