"""How answers and progress look on a terminal. Text only: plain values in, lines out; must not compute figures."""

import shlex
import sys
import time
from types import TracebackType
from typing import Any

from tl_core.errors import printable
from tl_core.images.wording import spoken_pace
from tl_core.options import flag

BAR_INTERVAL = 0.2  # seconds between redraws on a terminal
SHOWN_SCORE = 0.0005  # what would be written 0.0 % tells a person nothing
LINE_INTERVAL = 10.0  # seconds between lines where stderr is a file or a pipe


class Progress:
    """One line on stderr that counts, with the time left; nothing at all for work that is over in a moment."""

    def __init__(self) -> None:
        self.title = ""
        self.live = sys.stderr.isatty()
        self._begun = self._drawn = time.monotonic()
        self._first = 0  # a continued run does not begin at 0
        self._width = 0
        self._heard = True  # until whoever reads has gone (`| head`, a closed terminal), which ends no training

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, title: str, done: int, total: int) -> None:
        now = time.monotonic()
        if title != self.title:
            self.clear()
            self.title = title
            self._begun = self._drawn = now
            self._first = done
        if now - self._drawn < (BAR_INTERVAL if self.live else LINE_INTERVAL):
            return
        self._drawn = now
        text = f"{title} {done:,}/{total:,}{self._time_left(done, total, now)}" if total else title
        if self.live:
            self._put("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._put(text + "\n")

    def write(self, text: str) -> int:
        """Lines of a log, above the counting line: a Progress can stand where a text stream is wanted."""
        self.clear()
        self._put(text)
        return len(text)

    def flush(self) -> None:
        """Every line is out already."""

    def clear(self) -> None:
        if self._width:
            self._put("\r" + " " * self._width + "\r")
            self._width = 0

    def _put(self, text: str) -> None:
        if not self._heard:
            return
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._heard = False

    def _time_left(self, done: int, total: int, now: float) -> str:
        if done == self._first:
            return ""
        return f", {spoken_seconds((now - self._begun) / (done - self._first) * (total - done))} left"


def spoken_seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def spoken_place(place: int) -> str:
    """A place in the queue from 1; 0 for a run that was never begun and does not wait either."""
    if not place:
        return "not begun"
    ending = "th" if 10 < place % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place:,}{ending} in the queue"


def spoken_accuracy(metrics: dict[str, Any]) -> str:
    """The one honest sentence about a model: accuracy, its interval, on what."""
    low, high = metrics["accuracy_ci"]
    part = "" if metrics["split"] == "all" else f"{metrics['split']} "
    return (
        f"{metrics['accuracy']:.1%} of {metrics['images']:,} {part}images right (95 % interval {low:.1%} to {high:.1%})"
    )


def lines_of_training(report: dict[str, Any]) -> list[str]:
    again = f"python -m tl_core resume {report['run_id']}"
    if report["model_dir"] is None:
        return [f"stopped before there was a model; {again} continues", *lines_of_delivery(report)]
    metrics = report["metrics"]
    lines = [
        "",
        spoken_accuracy(metrics) + (", each judged by folds that left it out" if metrics["method"] == "k-fold" else ""),
        *report.get("warnings", ()),
        *lines_of_baseline(metrics),
        *lines_of_control(report.get("control")),
        *lines_of_parity(report["parity"]),
        f"{spoken_seconds(report['seconds']['total'])} in all",
        f"model:   {report['model_dir']}",
        f"predict: python -m tl_core predict {report['run_id']} IMAGE",
    ]
    if report["stopped"]:
        lines.append(f"stopped early; {again} continues")
    elif report["strategy"] == "frozen" and not report.get("choice"):
        lines.append("next:    --strategy auto also trains the backbone, for minutes, where that is likely to gain")
    return [*lines, *lines_of_delivery(report)]


def lines_of_delivery(report: dict[str, Any]) -> list[str]:
    """Where the model was published when it was done, or why it was not, and what to do."""
    push = report.get("push")
    if push is None:
        return []
    if "error" not in push:
        return [f"published: {place}" for place in (push["url"], push["space_url"]) if place]
    lines = [f"not published as {push['repo_id']}: {push['error']}", *(f"  {line}" for line in push["details"])]
    return lines if report["stopped"] else [*lines, f"publish: {push['command']}"]


def lines_of_baseline(metrics: dict[str, Any]) -> list[str]:
    guess = metrics["baseline"]
    if metrics["accuracy_ci"][0] > guess["accuracy"]:
        return []
    label = printable(repr(guess["label"]))
    return [f"not shown to be better than always saying {label}, which is right on {guess['accuracy']:.1%} of them"]


def lines_of_control(control: dict[str, Any] | None) -> list[str]:
    if control is None or control["stopped"]:
        return []
    if control.get("failed"):
        return [f"the control failed: {control['failed']}"]
    low, high = control["difference_ci"]
    doubt = ": not shown to be a difference" if low <= 0 <= high else ""
    return [
        f"from random weights: {control['accuracy']:.1%} right after {spoken_seconds(control['seconds'])} (this took "
        f"{spoken_seconds(control['transfer_seconds'])}); transfer is worth {100 * control['difference']:+.1f} points "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}){doubt}"
    ]


def lines_of_parity(parity: dict[str, Any]) -> list[str]:
    if parity["passed"] is None:
        return []
    if parity["passed"]:
        return [f"transformers' own pipeline, asked about {parity['images']} of them, gives the same probabilities"]
    return [f"transformers' own pipeline differs by up to {parity['max_abs_diff']:.1g} on {parity['images']} of them"]


def lines_of_evaluation(value: dict[str, Any], limit: int = 30) -> list[str]:
    metrics = value["metrics"]
    lines = [spoken_accuracy(metrics), f"macro-F1 {metrics['macro_f1']:.3f}"]
    if metrics["fitted_on"]:
        lines.append(f"The model was fitted on {metrics['fitted_on']:,} of them: new images will do less well.")
    present = [row for row in value["per_class"] if row["support"]]
    absent = len(value["per_class"]) - len(present)
    if absent:
        lines.append(f"{absent:,} of the model's classes are not in these images")
    rows = sorted(present, key=lambda row: row["f1"])[:limit]
    width = max((len(row["label"]) for row in rows), default=0)
    width = min(width, 40)
    lines.append(f"{'class (worst first)':{width}}  precision  recall     f1  images")
    for row in rows:
        name = printable(row["label"])[:width]
        lines.append(
            f"{name:{width}}  {row['precision']:9.3f}  {row['recall']:6.3f}  {row['f1']:5.3f}  {row['support']:6,}"
        )
    return lines


def lines_of_predictions(predictions: list[dict[str, Any]]) -> list[str]:
    lines = []
    for prediction in predictions:
        lines.append(printable(prediction["file"]))
        for place, entry in enumerate(prediction["labels"]):
            if place == 0 or entry["score"] >= SHOWN_SCORE:
                lines.append(f"  {entry['score']:6.1%}  {printable(entry['label'])}")
    return lines


def lines_of_models(models: list[dict[str, Any]]) -> list[str]:
    width = max(len(model["id"]) for model in models)
    lines = []
    for model in models:
        cost = "" if model["seconds_per_image"] is None else spoken_pace(model["seconds_per_image"])
        mark = " (default)" if model["default"] else " (embedded)" if model["embedded"] else ""
        lines.append(
            f"{model['id']:{width}}  {model['family']:12}  {model['parameters'] / 1e6:6.1f} M  "
            f"{model['image_size']:4} px  {cost:>7}  {model['licence']}{mark}"
        )
        lines.append(f"{'':{width}}  {model['summary']}")
    return lines


def lines_of_ranking(value: dict[str, Any]) -> list[str]:
    """A table, best first, then what may be concluded from it."""
    headings = ("backbone", "accuracy", "95 % interval", "k-NN", "LogME", "an image", "parameters", "on disk", "sees")
    rows = [headings, *map(_row_of_ranking, value["backbones"])]
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))])
        for row in rows
    ]
    for place, row in enumerate(value["backbones"][1:], 2):
        if not row["distinguishable"]:
            lines[place] += "  not distinguishable from the first"
    chosen = value["recommendation"]
    return [
        *lines,
        "",
        f"for accuracy: {printable(chosen['accuracy']['reason'])}",
        f"for speed:    {printable(chosen['speed']['reason'])}",
        *map(printable, value["notes"]),
        "next:         " + _training_after(value),
    ]


def _training_after(value: dict[str, Any]) -> str:
    """The command that trains what a ranking recommends, on the same division."""
    words = {"data": value["data"], "model": value["recommendation"]["accuracy"]["id"]}
    words |= {name: value[name] for name in ("image_column", "label_column", "seed") if value[name]}
    given = [word for name, found in words.items() for word in (flag(name), printable(str(found)))]
    return "python -m tl_core " + shlex.join(["train", *given])


def spoken_size(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def lines_of_planned(value: dict[str, Any]) -> list[str]:
    """What would be published: each file with its size, then where and how much."""
    lines = []
    for part in filter(None, (value, value.get("space"))):
        width = max(len(f"{file['bytes']:,}") for file in part["files"])
        lines += [f"{file['bytes']:{width},}  {printable(file['path'])}" for file in part["files"]]
        lines.append(f"{len(part['files']):,} files of {part['bytes']:,} bytes would go to {part['url']}")
    wanted = value.get("variables") or {}
    return [*lines, *(f"{name}={printable(text)} would be set there, if it is not so" for name, text in wanted.items())]


def lines_of_pushed(value: dict[str, Any]) -> list[str]:
    said = _spoken_changes(value["changes"])
    if value.get("space_changes"):
        said = f"model: {said}; demo: {_spoken_changes(value['space_changes'])}"
    lines = [f"{said}; {value['bytes']:,} bytes sent", value["url"]]
    lines += [f"{name}={printable(value['variables'][name])} set" for name in value.get("variables_set") or ()]
    return [*lines, value["space_url"]] if value.get("space_url") else lines


def _spoken_changes(changes: dict[str, list[str]]) -> str:
    """How many files were what."""
    return ", ".join(
        f"{len(changes[name]):,} {name}" for name in ("new", "changed", "removed", "same") if changes[name]
    )


def _row_of_ranking(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["score_ci"]
    height, width = row["input_size"]
    return (
        *(printable(row["id"]), f"{row['score']:.1%}", f"{low:.1%} to {high:.1%}", f"{row['neighbours']:.1%}"),
        *(f"{row['logme']:.3f}", spoken_pace(row["seconds_per_image"]), f"{row['parameters'] / 1e6:.1f} M"),
        *(spoken_size(row["size"]), f"{width} × {height} px"),
    )


def lines_of_runs(views: list[dict[str, Any]]) -> list[str]:
    if not views:
        return ["no runs yet; start one with `python -m tl_core train --data sample:digits`"]
    width = max(len(view["run_id"]) for view in views)
    lines = []
    for view in views:
        if view["state"] == "queued":
            words = spoken_place(view["place"])
        elif view["metrics"]:
            words = spoken_accuracy(view["metrics"])
            if view["state"] == "stopped" and view["total"]:
                words += f", after {view['step']:,} of {view['total']:,} steps"
        elif view["message"]:
            words = view["message"]
        elif view["state"] in ("stopped", "lost"):
            words = f"`python -m tl_core resume {view['run_id']}` continues"
        else:
            words = view["stage"] + (f" {view['step']:,}/{view['total']:,}" if view["total"] else "")
        if view["unpublished"] and view["state"] == "succeeded":
            words += f"; not published: `{view['unpublished']['command']}`"
        lines.append(f"{view['run_id']:{width}}  {view['state']:9}  {words}")
    return lines
