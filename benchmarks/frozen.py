"""Frozen training against the least it could take, and against transformers' Trainer with the backbone frozen by hand.

    python -m benchmarks.frozen [--images 2000] [--models resnet-18,vit-s] [--rounds 3] [--epochs 10]
                                [--measured-epochs N]

The pictures are generated JPEGs, the backbones have random weights at 224 px. The floor is one parallel decode and one
forward pass in the precision that the run chose, warm, by torch's threads together or side by side, whichever is
faster, of the model as transformers has it, with its batch norms. First runs, each in a new home, and floors are
measured in turns, and of each the fastest counts: what else the machine does slows either. Imports and loading the
model are timed apart. With `--measured-epochs` below `--epochs` the Trainer's time is extrapolated from those, and the
output says so. Each goal is a ratio within one process, or seconds of work after start-up; nothing is asserted.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BEGUN = time.perf_counter()
import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import tl_core  # noqa: E402
from benchmarks.machine import describe  # noqa: E402
from benchmarks.plain_trainer import answer_apart, divide, make_trainer, prepared  # noqa: E402
from tl_core.ml.libraries import load_libraries  # noqa: E402
from tl_core.ml.machine import computing_side_by_side, pictures_at_a_time, threads_side_by_side  # noqa: E402
from tl_core.ml.precision import Precision, prepare  # noqa: E402

IMPORTING = time.perf_counter() - BEGUN
CLASSES = 10
PICTURE = (500, 375)  # as most photographs in collections of small ones are
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "resnet-18": lambda: ResNetForImageClassification(
        ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=CLASSES)
    ),
    "vit-s": lambda: ViTForImageClassification(
        ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=CLASSES)
    ),
    "tiny": lambda: ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=CLASSES)
    ),
}
GOALS = {"floor": 1.15, "trainer": 20.0, "again": 2.0, "ten more": 1.5}
MORE = 10
FLOOR_PARTS = 5


def make_picture(label: int, number: int, size: tuple[int, int] = PICTURE) -> Image.Image:
    """Blobs whose colour leans towards the class, with grain as a camera leaves it."""
    random = np.random.default_rng(1_000_000 * label + number)
    tint = 0.5 + 0.4 * np.cos(2 * np.pi * (label / CLASSES + np.arange(3) / 3))
    blobs = 255 * np.clip(random.uniform(0, 1, (8, 8, 3)) * 0.7 + 0.3 * tint, 0, 1)
    smooth = Image.fromarray(blobs.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = random.normal(0, 4, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))


def make_pictures(folder: Path, numbers: range, size: tuple[int, int] = PICTURE) -> None:
    """Picture `number` goes to class number % CLASSES."""
    for label in range(CLASSES):
        (folder / f"class {label}").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        label = number % CLASSES
        make_picture(label, number, size).save(folder / f"class {label}" / f"{number}.jpg", quality=88)


def make_model(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    MODELS[name]().save_pretrained(folder)
    ViTImageProcessor(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]).save_pretrained(folder)


def seconds_of_floor(files: Sequence[Path], model_dir: Path, dtype: str) -> tuple[float, float, Precision]:
    """Seconds of one decode of every file in parallel, and of one forward pass in the fastest layout of `dtype`.

    Each is the fastest of a few parts, so that what else the machine does makes the floor no higher.
    """
    threads = threads_side_by_side()
    model = AutoModelForImageClassification.from_pretrained(model_dir).eval()
    pixels = torch.rand(pictures_at_a_time((224, 224)), 3, 224, 224)

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    def forward(precision: Precision) -> float:
        batch = pixels.contiguous(memory_format=precision.memory_format)
        prepare(model, precision)

        def answer(_: int = 0) -> None:
            with torch.inference_mode(), precision.autocast(pixels.device):
                model(pixel_values=batch)

        together = _fastest_of(answer)
        with computing_side_by_side(threads) as pool:
            side_by_side = _fastest_of(lambda: list(pool.map(answer, range(threads)))) / threads
        return min(together, side_by_side) / len(pixels)

    layouts = [Precision(dtype, last, "", plain) for last in (False, True) for plain in (False, True)]
    per_picture = {precision: forward(precision) for precision in layouts}
    fastest = min(per_picture, key=per_picture.__getitem__)
    parts = [files[start::FLOOR_PARTS] for start in range(FLOOR_PARTS)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoding = min(_seconds_of(lambda: list(pool.map(decode, part))) / len(part) for part in parts)  # noqa: B023
    return decoding * len(files), per_picture[fastest] * len(files), fastest


def _fastest_of(work: Callable[[], object]) -> float:
    """Seconds of the fastest time, of some, after the first."""
    work()
    return min(_seconds_of(work) for _ in range(FLOOR_PARTS))


def _seconds_of(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def seconds_of_trainer(data: Path, model_dir: Path, epochs: float, folder: Path) -> tuple[float, float]:
    """transformers' own example with the backbone frozen by hand: seconds, and accuracy on every tenth picture."""
    taught, held = divide(data, CLASSES)
    trainer = make_trainer(model_dir, taught, folder, frozen=True, num_train_epochs=epochs)
    taken = _seconds_of(trainer.train)
    answers = trainer.predict(prepared(held, AutoImageProcessor.from_pretrained(model_dir)))
    return taken, float((answers.predictions.argmax(-1) == answers.label_ids).mean())


def train_once(data: Path, model_dir: Path) -> tuple[float, dict[str, Any]]:
    begun = time.perf_counter()
    report = tl_core.train(data=str(data), model=str(model_dir))
    return time.perf_counter() - begun, report


def stages_of(report: dict[str, Any]) -> dict[str, float]:
    """Seconds between a stage's announcement and the next one's."""
    lines = (Path(report["run_dir"]) / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    stages = [event for event in events if event["kind"] in ("start", "stage")]
    ends = [*(event["time"] for event in stages[1:]), events[-1]["time"]]
    spent: dict[str, float] = {}
    for event, end in zip(stages, ends, strict=True):
        name = event.get("name", "opening, and choosing the precision")
        spent[name] = spent.get(name, 0.0) + end - event["time"]
    return spent


def measure(name: str, data: Path, folder: Path, arguments: argparse.Namespace) -> None:
    model_dir, images = folder / name, arguments.images
    make_model(name, model_dir)
    begun = time.perf_counter()
    AutoModelForImageClassification.from_pretrained(model_dir)
    loading = time.perf_counter() - begun
    print(f"\n{name}: {images:,} JPEGs of {PICTURE[0]} × {PICTURE[1]}; loading the model {loading:.1f} s", flush=True)

    firsts, floors = [], []
    for number in range(arguments.rounds):
        os.environ["TL_HOME"] = str(folder / f"home {number} of {name}")
        firsts.append(train_once(data, model_dir))
        dtype = firsts[-1][1]["precision"]
        floors.append((dtype, *seconds_of_floor(sorted(data.rglob("*.jpg")), model_dir, dtype)))
    first, report = min(firsts, key=lambda run: run[0])
    alike = [parts for dtype, *parts in floors if dtype == report["precision"]]
    decoding, forward, precision = min(alike, key=lambda parts: parts[0] + parts[1])
    floor = decoding + forward
    ratio = first / floor
    spent = " ".join(f"{taken:.1f}" for taken, _ in firsts), " ".join(f"{parts[1] + parts[2]:.1f}" for parts in floors)
    print(f"  first runs {spent[0]} s, floors {spent[1]} s")
    print(f"  first run {first:.1f} s ({report['precision']}, {report['precision_reason']})")
    print(f"  by stage: {_spoken_stages(report, first)}")
    print(f"  floor {floor:.1f} s: {decoding:.1f} s decoding, {forward:.1f} s forward in {precision.label}")
    print(f"  ratio {ratio:.2f}, goal ≤ {GOALS['floor']} ({_distance(GOALS['floor'] / ratio)})")

    again, second = train_once(data, model_dir)
    print(f"  second run {again:.1f} s, goal ≤ {GOALS['again']} s ({_distance(GOALS['again'] / again)})")
    print(f"  by stage: {_spoken_stages(second, again)}")
    more = folder / f"more for {name}"
    shutil.copytree(data, more, copy_function=os.link)
    tl_core.check(str(more))  # a copy has other paths; what is measured is the ten pictures
    make_pictures(more, range(images, images + MORE))
    ten, third = train_once(more, model_dir)
    print(f"  ten more pictures {ten:.1f} s, goal ≤ {GOALS['ten more']} s ({_distance(GOALS['ten more'] / ten)})")
    print(f"  by stage: {_spoken_stages(third, ten)}")

    if arguments.epochs:
        measured = min(arguments.epochs, arguments.measured_epochs or arguments.epochs)
        taken, accuracy = answer_apart(seconds_of_trainer, data, model_dir, measured, folder / "trainer")
        by_trainer = taken * arguments.epochs / measured
        how = "" if measured == arguments.epochs else f" (extrapolated from {measured:g} epochs)"
        gain = by_trainer / first
        print(f"  Trainer, {arguments.epochs:g} epochs {by_trainer:.0f} s{how}, accuracy {accuracy:.1%}")
        print(
            f"  this project {report['metrics']['accuracy']:.1%}, {gain:.1f} × as fast, goal ≥ {GOALS['trainer']:.0f} "
            f"({_distance(gain / GOALS['trainer'])})"
        )


def _spoken_stages(report: dict[str, Any], seconds: float) -> str:
    """Of a training of so many seconds: before the run was there files are checked, and features may be computed."""
    stages = stages_of(report)
    stages = {"before the run": seconds - sum(stages.values()), **stages}
    return ", ".join(f"{stage} {taken:.1f} s" for stage, taken in stages.items())


def _distance(reached: float) -> str:
    return "reached" if reached >= 1 else f"missed by {1 / reached - 1:.0%}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["resnet-18", "vit-s"])
    parser.add_argument("--rounds", type=int, default=3, help="of a first run and its floor; the fastest counts")
    parser.add_argument("--epochs", type=float, default=10.0, help="of the Trainer; 0 leaves it out")
    parser.add_argument("--measured-epochs", type=float, help="extrapolate the Trainer's time from so many")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    load_libraries()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        make_pictures(Path(folder) / "few", range(2 * CLASSES))
        make_model("tiny", Path(folder) / "tiny")
        os.environ["TL_HOME"] = str(Path(folder) / "home")
        starting = train_once(Path(folder) / "few", Path(folder) / "tiny")[0]
        print(f"imports {IMPORTING:.1f} s; a first run of {2 * CLASSES} pictures, with what it loads, {starting:.1f} s")
        data = Path(folder) / "pictures"
        make_pictures(data, range(arguments.images))
        for name in arguments.models:
            measure(name, data, Path(folder), arguments)


if __name__ == "__main__":
    main()
