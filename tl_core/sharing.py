"""A finished run handed to others: its model, and on request a demo of it, as repositories on the Hub.

What is published names no folder and no picture of this computer. `published.json` in the run folder remembers where it
went. Must not know how a repository is written to, nor who asks; a token is an argument, and is never kept or told.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import filelock

from tl_core.config import TrainConfig
from tl_core.demo_space import demo_files
from tl_core.errors import DataError, HubError, JobError
from tl_core.files import write_json, writing_to_home
from tl_core.hub.account import Account, account_of, check_may_create
from tl_core.hub.plan import check_name, plan_of, told_changes
from tl_core.hub.publishing import Changes, Files, Kind, Published, look_at, publish
from tl_core.model_card import check_card, render_card
from tl_core.result_pictures import result_pictures
from tl_core.runs import Run
from tl_core.settings import Settings, read_settings
from tl_core.sources import Ticker

DEMO = "-demo"  # what the name of a model's Space ends with
MOST_EXAMPLES = 6  # one row under the demo's picture
# Of an earlier model in the same repository: transformers would take these for parts of the new one.
_SUPERSEDED = (
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json"),
    *("preprocessor_config.json", "processor_config.json", "adapter_config.json", "results/*"),
)
# What a report holds of this computer, and of the names that a person gave to files.
_PRIVATE = frozenset({"run_dir", "model_dir", "path", "file", "files", "skipped", "conflicts", "notes"})


def files_of(run: Run, repo_id: str) -> Files:
    """Everything that is published of a run: its model folder, a card that names `repo_id`, the report, its pictures.

    Raises JobError for a run without a model, HubError where the Hub would refuse its card.
    """
    report, config = _result_of(run)
    pictures = result_pictures(report, run.events())
    card = render_card(report, config, name=config.get("name"), model=repo_id, pictures=dict.fromkeys(pictures, ""))
    check_card(card)
    model = {path.relative_to(run.model_dir).as_posix(): path for path in sorted(run.model_dir.rglob("*"))}
    return {
        **{name: path for name, path in model.items() if path.is_file()},
        "README.md": card.encode(),
        "report.json": (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode(),
        **pictures,
    }


def rehearse(
    run: Run, repo_id: str, *, space: bool = False, private: bool = False, examples: Sequence[Path] = ()
) -> dict[str, Any]:
    """What `push_run` would send, found out with neither token nor network.

    {repo_id, url, private, files: [{path, bytes}], bytes, space: the same of the demo, or None}. Raises as `push_run`.
    """
    demo_id = _demo_name(repo_id, space)
    planned = {**plan_of("model", repo_id, files_of(run, repo_id)), "private": private, "space": None}
    if space:
        planned["space"] = plan_of("space", demo_id, _demo_of(run, repo_id, examples, read_settings()))
    return planned


def push_run(
    run: Run,
    repo_id: str,
    token: str,
    settings: Settings,
    *,
    private: bool = False,
    space: bool = False,
    replace: bool = False,
    examples: Sequence[Path] = (),
    ticker: Ticker | None = None,
) -> dict[str, Any]:
    """Publish the run's model as `repo_id`, and with `space` a demo of it, which shows `examples`.

    {repo_id, url, commit, private, files: [{path, bytes}], bytes: those that were sent, changes, space_url or None}.
    What is there already is changed only with `replace`. After any failure the same call goes on where it was. Raises
    JobError, DataError, HubError; whatever can be found out before the first byte is sent is.
    """
    demo_id = _demo_name(repo_id, space)
    files = files_of(run, repo_id)
    demo = _demo_of(run, repo_id, examples, settings, _commit_of(run, repo_id)) if space else {}
    _check_account(token, settings, repo_id, demo_id if space else None)
    found = look_at("model", repo_id, files, token, settings)
    left = _left_over(found)
    if not replace:
        _refuse_change("model", repo_id, found, left)
        if space:
            _refuse_change("space", demo_id, look_at("space", demo_id, demo, token, settings))

    def send(kind: Kind, name: str, content: Files, remove: tuple[str, ...] = ()) -> Published:
        sent = publish(
            kind,
            name,
            content,
            token,
            settings,
            private=private,
            message=f"Add run {run.id}",
            replace=replace,
            remove=remove,
            ticker=ticker and (lambda done, total: ticker(f"sending the {kind}, bytes", done, total)),
        )
        _remember(run, sent, private, settings)
        return sent

    model = send("model", repo_id, files, left)
    answer = {
        **plan_of("model", repo_id, files),
        "url": model.url,
        "commit": model.commit,
        "private": private,
        "bytes": model.sent_bytes,
        "changes": told_changes(model.changes),
        "space_url": None,
    }
    if space:
        try:
            demo = _demo_of(run, repo_id, examples, settings, model.commit)
            answer["space_url"] = send("space", demo_id, demo).url
        except HubError as failure:
            raise HubError(
                f"the model is at {model.url}, but not its demo: {failure.message}", failure.details
            ) from failure
    return answer


def check_push(
    config: TrainConfig, repo_id: str, token: str, settings: Settings, *, space: bool = False, replace: bool = False
) -> Account:
    """Whether a training with this configuration could be pushed, asked before it begins: whose token it is.

    Raises HubError for a name that cannot be, a token that may not create it, a card that the Hub would refuse, and a
    repository that holds something already, which only `replace` changes.
    """
    demo_id = _demo_name(repo_id, space)
    card = render_card({}, config.portable().to_json(), name=config.name, model=repo_id)
    check_card(card)
    account = _check_account(token, settings, repo_id, demo_id if space else None)
    wanted: dict[Kind, str] = {"model": repo_id, "space": demo_id} if space else {"model": repo_id}
    for kind, name in wanted.items():
        found = look_at(kind, name, {"README.md": card.encode()}, token, settings)
        if not replace:
            _refuse_change(kind, name, found, _left_over(found))
    return account


def published(run: Run) -> list[dict[str, Any]]:
    """Where the run went: [{repo_id, url, kind, commit, at, private}], the newest last."""
    try:
        kept = json.loads((run.dir / "published.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return kept if isinstance(kept, list) else []


def space_of(repo_id: str) -> str:
    """The id of a model's demo. Not the model's own: a Space of that name may be there for something else."""
    return repo_id + DEMO


def choose_examples(run: Run) -> list[Path]:
    """A test picture of each of the first classes, for a demo to show: the first in the report, right or wrong.

    Only with the person's consent: these become public. Raises DataError where the model has been taught every picture
    that it was judged on, or none of them is on this disk any more.
    """
    report = run.report() or {}
    if (report.get("metrics") or {}).get("method") != "held-out":
        raise DataError(f"run {run.id} has no test pictures that its model was not taught; publish it without examples")
    found: dict[str, Path] = {}
    for row in report.get("predictions") or []:
        if row["label"] not in found and Path(row["path"]).is_file():
            found[row["label"]] = Path(row["path"])
    if not found:
        raise DataError(f"the test pictures of run {run.id} are not on this disk any more; publish it without examples")
    return list(found.values())[:MOST_EXAMPLES]


def _demo_name(repo_id: str, space: bool) -> str:
    """`space_of`. Raises HubError as `check_name` does, for the model and, where there is to be one, the demo."""
    for name in [repo_id, space_of(repo_id)] if space else [repo_id]:
        check_name(name)
    return space_of(repo_id)


def _check_account(token: str, settings: Settings, *names: str | None) -> Account:
    """Whose token it is. Raises HubError where they may not create one of these repositories."""
    account = account_of(token, settings)
    for name in filter(None, names):
        check_may_create(account, name)
    return account


def _result_of(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's report and configuration as they may be published. Raises JobError where there is no model."""
    report = run.report()
    if report is None or not (run.model_dir / "config.json").is_file():
        raise JobError(f"run {run.id} is {run.view().state} and has no model to publish; `runs` shows which have one")
    config = run.config().portable()
    told = _without(report, _PRIVATE)
    data = _without(report["data"], _PRIVATE | {"warnings"})  # which name files
    return {**told, "data": {**data, "source": config.data}, "command": config.command()}, config.to_json()


def _without(value: Any, keys: frozenset[str]) -> Any:
    """A copy of a JSON value without these keys, at any depth."""
    if isinstance(value, Mapping):
        return {key: _without(below, keys) for key, below in value.items() if key not in keys}
    if isinstance(value, list):
        return [_without(below, keys) for below in value]
    return value


def _demo_of(run: Run, repo_id: str, examples: Sequence[Path], settings: Settings, commit: str | None = None) -> Files:
    """The files of a demo that asks the model at `commit`, whose figures it shows. Raises DataError."""
    report, config = _result_of(run)
    _check_examples(run, examples)
    return demo_files(
        repo_id=repo_id,
        title=config.get("name") or repo_id.partition("/")[2],
        report=report,
        examples={f"{place}, {path.name}": _read(path) for place, path in enumerate(examples, 1)},
        settings=settings,
        revision=commit,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise DataError(f"the example {path.name} cannot be read: {failure.strerror or failure}") from failure


def _check_examples(run: Run, examples: Sequence[Path]) -> None:
    """Raises DataError where one of these pictures is not of the run's test part."""
    if not examples:
        return
    report = run.report() or {}
    held_out = (report.get("metrics") or {}).get("method") == "held-out"
    tested = {row["path"] for row in report.get("predictions") or []} if held_out else set()
    foreign = [path.name for path in examples if str(path) not in tested]
    if foreign:
        raise DataError(f"an example must be a test picture of run {run.id}, and {foreign[0]} is not")


def _left_over(found: Changes | None) -> tuple[str, ...]:
    """What an earlier model left in a repository, and would be taken for a part of the new one."""
    kept = found.kept if found is not None else ()
    return tuple(path for path in kept if any(fnmatch(path, pattern) for pattern in _SUPERSEDED))


def _commit_of(run: Run, repo_id: str) -> str | None:
    """The commit that this run's model had when it was last published there."""
    return next((entry["commit"] for entry in reversed(published(run)) if entry["repo_id"] == repo_id), None)


def _refuse_change(kind: Kind, repo_id: str, found: Changes | None, left: tuple[str, ...] = ()) -> None:
    """Raises HubError where publishing would change what somebody has put there, or has to remove what was `left`."""
    if found is not None and (found.needs_replace or left):
        removed = f"; {len(left):,} of an earlier model deleted" if left else ""
        raise HubError(
            f"the {kind} {repo_id} exists with other content: {found}{removed}; nothing was sent; allow it with "
            "--replace, or take another name",
            [f"- {path}" for path in left],
        )


def _remember(run: Run, sent: Published, private: bool, settings: Settings) -> None:
    """Add to published.json, unless it is there already. Raises JobError where the run folder cannot be written."""
    entry = {"repo_id": sent.id, "url": sent.url, "kind": sent.kind, "commit": sent.commit}
    with writing_to_home(settings), filelock.FileLock(run.dir / "published.lock"):
        known = published(run)
        if not any(entry.items() <= earlier.items() for earlier in known):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(run.dir / "published.json", [*known, {**entry, "at": now, "private": private}])
