"""What each strategy, and each backbone, is worth: accuracy by strategy and by training images per class.

    python -m benchmarks.transfer DATA [DATA ...] [--strategies frozen,lp-ft,full] [--models tiny-resnet]
                                  [--per-class 10,50,all] [--seeds 0,1,2] [--max-steps N] [--out results.jsonl]

For each seed a stratified 15 % of the images is kept for testing, and the training sets are nested: the 10 images of a
class are among the 50. Of each training set the product takes a stratified 15 % for validation. `random:NAME` is the
architecture of a backbone with random weights, `frozen+K` is `frozen` with K varied versions of each image. Each result
is written down as soon as it is there: started again, the program computes what is missing, and prints the table of
all; with `auto` among the strategies also its regret, which is how far it stays behind the best of the others. Begin a
new file after a change of the code.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tl_core
from tl_core.images.collection import Collection
from tl_core.images.duplicates import find_duplicates
from tl_core.images.splits import Division, divide
from tl_core.settings import read_settings
from tl_core.sources import open_data, open_model

RANDOM = "random:"
STEPLESS = "frozen"
VERSIONS = "+"
AUTO = "auto"


def main() -> None:
    arguments = parse_arguments()
    results = read_results(arguments.out)
    for data in arguments.data:
        collection = open_data(data, read_settings())
        groups = find_duplicates(collection.pictures).groups
        for seed in arguments.seeds:
            division = divide(collection, groups, seed, folds_allowed=False)
            for per_class in arguments.per_class:
                for model in arguments.models:
                    for strategy in arguments.strategies:
                        cell = {
                            "data": data,
                            "model": model,
                            "strategy": strategy,
                            "per_class": per_class,
                            "seed": seed,
                            "max_steps": None if strategy.startswith(STEPLESS) else arguments.max_steps,
                        }
                        if any(all(result[key] == value for key, value in cell.items()) for result in results):
                            continue
                        result = cell | measure(cell, collection, division)
                        results.append(result)
                        with arguments.out.open("a", encoding="utf-8") as stream:
                            stream.write(json.dumps(result) + "\n")
                        print(json.dumps(result), file=sys.stderr, flush=True)
    wanted = [result for result in results if is_wanted(result, arguments)]
    print_table(wanted, arguments)
    print_regret(wanted)


def parse_arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--strategies", type=words, default=["frozen", "last-blocks", "full", "lp-ft", "scratch"])
    parser.add_argument("--models", type=words, default=["tiny-resnet"])
    parser.add_argument("--per-class", type=words, default=["10", "50", "all"])
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in words(text)], default=[0, 1, 2])
    parser.add_argument("--max-steps", type=int, default=None, help="optimiser steps of each training (derived)")
    parser.add_argument("--out", type=Path, default=Path("benchmark-transfer.jsonl"))
    return parser.parse_args()


def read_results(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(whole), encoding="utf-8")  # without a line that a kill cut off
    return [json.loads(line) for line in whole]


def is_wanted(result: dict[str, Any], arguments: argparse.Namespace) -> bool:
    steps = None if result["strategy"].startswith(STEPLESS) else arguments.max_steps
    return (
        result["data"] in arguments.data
        and result["model"] in arguments.models
        and result["strategy"] in arguments.strategies
        and result["per_class"] in arguments.per_class
        and result["seed"] in arguments.seeds
        and result["max_steps"] == steps
    )


def measure(cell: dict[str, Any], collection: Collection, division: Division) -> dict[str, Any]:
    """Train on so many images per class in a new home, as a person would; accuracy and seconds."""
    with tempfile.TemporaryDirectory() as folder, home(Path(folder) / "home"):
        pictures = Path(folder) / "pictures"
        lay_out(collection, division, cell["per_class"], cell["seed"], pictures)
        strategy, _, versions = cell["strategy"].partition(VERSIONS)
        options = {} if cell["max_steps"] is None else {"max_steps": cell["max_steps"]}
        report = tl_core.train(
            data=str(pictures),
            model=find_model(cell["model"], cell["seed"], Path(folder) / "random"),
            strategy=strategy,
            views=int(versions or 0),
            seed=cell["seed"],
            **options,
        )
        if report["stopped"]:
            raise SystemExit("stopped; started again, it goes on with this training from its beginning")
        metrics = report["metrics"]
        return {
            "taken": report["strategy"],
            "accuracy": metrics["accuracy"],
            "test_images": metrics["images"],
            "seconds": report["seconds"]["total"],
            "steps": report["training"].get("steps_done"),
            "precision": report["precision"],
        }


@contextmanager
def home(folder: Path) -> Iterator[None]:
    before = os.environ.get("TL_HOME")
    os.environ["TL_HOME"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TL_HOME"]
        else:
            os.environ["TL_HOME"] = before


def lay_out(collection: Collection, division: Division, per_class: str, seed: int, folder: Path) -> None:
    """A folder with train/CLASS and test/CLASS of links to the pictures."""
    pool = [*division.train, *division.validation]
    random.Random(seed).shuffle(pool)
    taken: dict[str, int] = {}
    chosen = []
    for index in pool:
        label = collection.pictures[index].label
        taken[label] = taken.get(label, 0) + 1
        if per_class == "all" or taken[label] <= int(per_class):
            chosen.append(index)
    for part, indices in (("train", chosen), ("test", division.test)):
        for index in indices:
            picture = collection.pictures[index]
            place = folder / part / picture.label / f"{index}{picture.path.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(picture.path.resolve())


def find_model(word: str, seed: int, folder: Path) -> str:
    """The word itself, or a folder with random weights for `random:NAME`."""
    if not word.startswith(RANDOM):
        return word
    from tl_core.ml.backbone import load_backbone, save_backbone

    source = open_model(word.removeprefix(RANDOM), read_settings())
    save_backbone(load_backbone(source, ["a", "b"], pretrained=False, seed=seed), folder)
    return str(folder)


def print_table(results: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Markdown: mean accuracy over the seeds, lowest and highest, mean seconds."""
    print("| data | backbone | strategy | " + " | ".join(f"{n} per class" for n in arguments.per_class) + " |")
    print("| --- | --- | --- |" + " --- |" * len(arguments.per_class))
    for data in dict.fromkeys(arguments.data):
        for model in arguments.models:
            for strategy in arguments.strategies:
                row = [r for r in results if (r["data"], r["model"], r["strategy"]) == (data, model, strategy)]
                cells = [describe([r for r in row if r["per_class"] == n]) for n in arguments.per_class]
                print(f"| {Path(data).name} | {model} | `{strategy}` | " + " | ".join(cells) + " |")


def print_regret(results: list[dict[str, Any]]) -> None:
    """How many points `auto` stays behind the best mean accuracy of the others, of which `scratch` is none."""
    regrets = []
    for cell, members in group_by(results, "data", "model", "per_class").items():
        means = {
            strategy: statistics.mean(result["accuracy"] for result in of_one)
            for (strategy,), of_one in group_by(members, "strategy").items()
        }
        others = {strategy: mean for strategy, mean in means.items() if strategy not in (AUTO, "scratch")}
        if AUTO in means and others:
            best = max(others, key=others.__getitem__)
            regrets.append(100 * (others[best] - means[AUTO]))
            taken = ", ".join(sorted({result["taken"] for result in members if result["strategy"] == AUTO}))
            print(
                f"{Path(cell[0]).name}, {cell[1]}, {cell[2]} per class: auto took {taken}, {regrets[-1]:+.1f} points "
                f"behind {best}"
            )
    if regrets:
        print(f"mean regret of auto: {statistics.mean(regrets):.2f} points over {len(regrets)} cells, goal at most 1")


def group_by(results: list[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result[name] for name in names), []).append(result)
    return groups


def describe(results: list[dict[str, Any]]) -> str:
    if not results:
        return "–"
    found = [100 * result["accuracy"] for result in results]
    seconds = statistics.mean(result["seconds"] for result in results)
    return f"{statistics.mean(found):.1f} % ({min(found):.1f}–{max(found):.1f}), {seconds:.0f} s"


if __name__ == "__main__":
    main()
