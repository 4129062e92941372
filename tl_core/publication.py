"""What goes out when a run is published: its model with card, report and pictures, and the files of a demo.

No folder and no picture of this computer is named in it, and no picture is in it but those that somebody has agreed to.
Must not know the Hub, nor where the run went before.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tl_core.card_metadata import project_address, without_folder
from tl_core.demo_space import demo_files
from tl_core.errors import DataError, JobError
from tl_core.files import json_text
from tl_core.hub.publishing import Files
from tl_core.model_card import check_card, render_card
from tl_core.parts import recall_parts
from tl_core.recall_chart import recall_chart
from tl_core.result_pictures import result_pictures
from tl_core.runs import Run
from tl_core.settings import Settings, read_settings

MOST_EXAMPLES = 6  # one row under the demo's picture
# What of a report is published. All else stays: it holds folders of this computer, and names that a person gave files.
_TOLD = (
    *("run_id", "strategy", "choice", "stopped", "warnings", "metrics", "control", "parity", "backbone", "teacher"),
    *("precision", "precision_reason", "training", "refit", "seconds", "seed", "machine", "versions"),
)
_TOLD_OF_DATA = ("images", "classes", "revision", "fingerprint", "sizes", "balance", "splits")
_DIGEST_BYTES = 16  # as `Picture.digest` has it


def files_of(run: Run, repo_id: str) -> Files:
    """Everything that is published of a run: its model folder, a card that names `repo_id`, the report, its pictures.

    Raises JobError for a run without a model, HubError where the Hub would refuse its card.
    """
    report, config = _result_of(run)
    with _made_by_this_version(run):
        pictures = {**result_pictures(report, run.events()), **recall_chart(report)}
        card = render_card(
            report,
            config,
            name=config.get("name"),
            model=repo_id,
            pictures=dict.fromkeys(pictures, ""),
            project_url=project_address(read_settings()),
        )
    check_card(card)
    return {
        **_model_of(run),
        "README.md": card.encode(),
        "training_config.json": _as_file(config),  # older versions named folders in theirs
        "report.json": _as_file(report),
        **pictures,
    }


def demo_of(run: Run, repo_id: str, examples: Sequence[Path], settings: Settings, commit: str | None = None) -> Files:
    """The files of a demo that asks the model at `commit`, whose figures it shows. Raises JobError, DataError."""
    report, config = _result_of(run)
    shown = {f"{place}, {path.name}": content for place, (path, content) in enumerate(_read(run, examples), 1)}
    with _made_by_this_version(run, "publish it without a demo, or "):
        return demo_files(
            repo_id=repo_id,
            title=config.get("name") or repo_id.partition("/")[2],
            report=report,
            examples=shown,
            settings=settings,
            revision=commit,
        )


def choose_examples(run: Run) -> list[Path]:
    """A test picture of each of the first classes, for a demo to show: the first in the report, right or wrong.

    Only with the person's consent: these become public. Raises DataError where the model has been taught every picture
    that it was judged on, or none of them is on this disk any more as it was.
    """
    tested = _tested(run)
    if not tested:
        raise DataError(f"run {run.id} has no test pictures that its model was not taught; publish it without examples")
    digests = _digests(run)
    found: dict[str, Path] = {}
    for path, label in tested.items():
        if label not in found and len(found) < MOST_EXAMPLES and _digest_of_file(path) in digests:
            found[label] = path
    if not found:
        raise DataError(
            f"the test pictures of run {run.id} are not on this disk any more, or have changed; publish it without "
            "examples"
        )
    return list(found.values())


def _as_file(value: Mapping[str, Any]) -> bytes:
    return (json_text(value, indent=1) + "\n").encode()


def _model_of(run: Run) -> dict[str, Path]:
    """The files of the model, without what an operating system or an editor has put beside them, and without links,
    which may lead anywhere."""
    files = {path.relative_to(run.model_dir): path for path in sorted(run.model_dir.rglob("*"))}
    return {
        place.as_posix(): path
        for place, path in files.items()
        if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in place.parts)
    }


def _result_of(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's report and configuration as they may be published. Raises JobError where there is no model."""
    report = run.report()
    if report is None or not (run.model_dir / "config.json").is_file():
        raise JobError(f"run {run.id} is {run.view().state} and has no model to publish; `runs` shows which have one")
    config = run.config().portable()
    told = {key: report[key] for key in _TOLD if key in report}
    for part in ("backbone", "teacher"):
        if told.get(part):
            told[part] = {**told[part], "id": without_folder(told[part].get("id", ""))}
    if (told.get("control") or {}).get("failed"):
        told["control"] = {**told["control"], "failed": True}  # why is said in words that may name anything
    data = {**_of_data(report.get("data") or {}), "source": config.data}
    return {**told, "data": data, "command": config.command()}, config.recipe()


def _of_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """How many pictures are alike or in two parts is told, which ones is not."""
    alike = data.get("duplicates") or {}
    counted = {
        kind: {key: value for key, value in found.items() if isinstance(value, int)}
        for kind, found in alike.items()
        if isinstance(found, dict)
    }
    leaked = (data.get("leakage") or {}).get("images")
    return {
        **{key: data[key] for key in _TOLD_OF_DATA if key in data},
        **({"duplicates": counted} if counted else {}),
        **({"leakage": {"images": leaked}} if isinstance(leaked, int) else {}),
    }


@contextmanager
def _made_by_this_version(run: Run, otherwise: str = "") -> Iterator[None]:
    """Raises JobError where the report lacks what is asked of it."""
    try:
        yield
    except KeyError as failure:
        raise JobError(
            f"the report of run {run.id} was written by an older version of this program and has no {failure}; "
            f"{otherwise}train it again"
        ) from failure


def _tested(run: Run) -> dict[Path, str]:
    """The test pictures that the model was not taught, each with its class."""
    report = run.report() or {}
    if (report.get("metrics") or {}).get("method") != "held-out":
        return {}
    return {Path(row["path"]): row["label"] for row in report.get("predictions") or []}


def _digests(run: Run) -> frozenset[str]:
    """Of the test pictures as they were when the run was tested with them."""
    parts = recall_parts(run)
    return parts.test if parts is not None else frozenset()


def _digest_of_file(path: Path) -> str | None:
    try:
        return _digest(path.read_bytes())
    except OSError:
        return None


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def _read(run: Run, examples: Sequence[Path]) -> list[tuple[Path, bytes]]:
    """These pictures as they are now. Raises DataError where one cannot be read, or is not what the run was tested
    with: nobody has agreed to that."""
    if not examples:
        return []
    tested, digests = _tested(run), _digests(run)
    read = []
    for path in examples:
        if path not in tested:
            raise DataError(f"an example must be a test picture of run {run.id}, and {path.name} is not")
        try:
            content = path.read_bytes()
        except OSError as failure:
            raise DataError(f"the example {path.name} cannot be read: {failure.strerror or failure}") from failure
        if _digest(content) not in digests:
            raise DataError(
                f"the example {path.name} has changed since run {run.id} was tested with it; choose the examples "
                "again, or publish without"
            )
        read.append((path, content))
    return read
