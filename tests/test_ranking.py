"""Ranking backbones: the sample, the folds, LogME and neighbours, the order, and what is said about it."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import save_resnet, save_vit
from pictures import make_folder
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

import tl_core

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import ranking as benchmark
from tl_core.cli import main
from tl_core.errors import ConfigError, DataError, HubError, ModelError
from tl_core.images.collection import Picture
from tl_core.images.duplicates import find_duplicates
from tl_core.images.splits import divide
from tl_core.ml import backbone_pass
from tl_core.ml.candidates import at_hand
from tl_core.ml.cross_validation import Judges
from tl_core.ml.ranking import TIMED_AGAIN, TIMED_IMAGES, Ranked, Ranking, choose_sample, rank_backbones
from tl_core.ml.recommendation import fastest_alike, recommend
from tl_core.ml.transferability import log_maximum_evidence, neighbour_accuracy
from tl_core.settings import read_settings
from tl_core.sources import open_data, open_model

CLASSES = {"red": 30, "green": 30, "blue": 30}


def colour_blind(folder: Path) -> str:
    """A backbone that sees grey alone: its first layer takes the mean of the three channels."""
    return edited(folder, lambda stem: stem.mean(dim=1, keepdim=True).expand_as(stem).clone())


def blind(folder: Path) -> str:
    """A backbone whose features are the same for every picture."""
    return edited(folder, torch.zeros_like)


def edited(folder: Path, change) -> str:
    save_resnet(folder)
    weights = load_file(folder / "model.safetensors")
    stem = "resnet.embedder.embedder.convolution.weight"
    save_file({**weights, stem: change(weights[stem])}, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_folder(tmp_path_factory.mktemp("ranking") / "photos", CLASSES))


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """From the worst to the best."""
    folder = tmp_path_factory.mktemp("backbones")
    return [blind(folder / "blind"), colour_blind(folder / "grey"), str(save_resnet(folder / "seeing").path)]


@pytest.fixture(scope="module")
def ranked(photos: str, backbones: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_HOME", str(tmp_path_factory.mktemp("home")))
        return tl_core.rank(photos, models=backbones)


def test_the_backbone_that_sees_most_comes_first(ranked: dict, backbones: list[str]) -> None:
    assert [row["id"] for row in ranked["backbones"]] == backbones[::-1]
    best, middle, worst = ranked["backbones"]
    assert best["score"] > 0.9 > middle["score"] > worst["score"]
    assert worst["score"] == pytest.approx(ranked["baseline"], abs=0.1)
    assert best["logme"] > middle["logme"] > worst["logme"]
    assert best["neighbours"] > middle["neighbours"]
    for row in ranked["backbones"]:
        assert row["score_ci"][0] <= row["score"] <= row["score_ci"][1]
        assert row["seconds_per_image"] > 0 and row["parameters"] > 0 and row["size"] > 0
        assert tuple(row["input_size"]) == (32, 32) and row["features"] == 16


def test_each_is_compared_with_the_best_on_the_same_pictures(ranked: dict) -> None:
    best, _, worst = ranked["backbones"]
    assert (best["difference"], best["distinguishable"]) == (0.0, False)
    assert worst["distinguishable"] and worst["difference_ci"][0] > 0
    assert worst["difference"] == pytest.approx(best["score"] - worst["score"])
    assert ranked["recommendation"]["accuracy"]["id"] == best["id"]
    assert json.loads(json.dumps(ranked)) is not None


def test_the_same_backbone_twice_is_told_as_not_distinguishable(tmp_path: Path, photos: str) -> None:
    models = [str(save_resnet(tmp_path / name).path) for name in ("one", "other")]
    value = tl_core.rank(photos, models=models, images=60)
    first, second = value["backbones"]
    assert first["score"] == second["score"] and not second["distinguishable"]
    assert "Not distinguishable from it" in value["recommendation"]["accuracy"]["reason"]


def test_a_second_ranking_and_a_training_compute_nothing_again(
    photos: str, backbones: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tl_core.rank(photos, models=backbones[2:])
    seen: list[int] = []
    encode = backbone_pass.encode_batch

    def watched(model, head, pixels, precision):
        seen.append(len(pixels))
        return encode(model, head, pixels, precision)

    monkeypatch.setattr(backbone_pass, "encode_batch", watched)
    home = read_settings().home
    before = {file.name: file.stat().st_size for file in (home / "features").iterdir()}
    second = tl_core.rank(photos, models=backbones[2:])
    assert max(seen) <= 32 and sum(seen) <= TIMED_AGAIN * TIMED_IMAGES  # how fast it is, as all are known
    assert second["backbones"][0]["score"] == first["backbones"][0]["score"]
    assert {file.name: file.stat().st_size for file in (home / "features").iterdir()} == before
    seen.clear()
    tl_core.train(photos, model=backbones[2])
    assert sum(seen) == 0  # 90 pictures: the ranking has seen them all


def test_one_broken_backbone_does_not_end_the_others(tmp_path: Path, photos: str, backbones: list[str]) -> None:
    broken = save_vit(tmp_path / "broken").path
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:200])
    value = tl_core.rank(photos, models=[str(broken), backbones[2], "someone/not-here", "tiny-resnt"], images=30)
    assert [row["id"] for row in value["backbones"]] == [backbones[2]]
    reasons = {entry["id"]: entry["reason"] for entry in value["failed"]}
    assert set(reasons) == {str(broken), "someone/not-here", "tiny-resnt"}
    assert "cannot be loaded" in reasons[str(broken)]
    assert "did you mean tiny-resnet" in reasons["tiny-resnt"]


def test_where_all_fail_it_is_an_error(tmp_path: Path, photos: str) -> None:
    broken = save_vit(tmp_path / "broken").path
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be loaded"):
        tl_core.rank(photos, models=[str(broken)])
    with pytest.raises(ModelError, match="none of 2 backbones") as caught:
        tl_core.rank(photos, models=[str(broken), "tiny-resnt"])
    assert len(caught.value.details) == 2
    with pytest.raises(HubError):
        tl_core.rank(photos, models=["someone/not-here"])
    with pytest.raises(ConfigError, match="no backbone is named"):
        tl_core.rank(photos, models=[])
    with pytest.raises(ConfigError, match="--images is 0"):
        tl_core.rank(photos, images=0)


def test_without_names_it_is_what_needs_no_network(settings) -> None:
    embedded = [row["id"] for row in tl_core.models() if row["embedded"]]
    assert at_hand(settings) == embedded


def test_what_was_fetched_from_the_hub_before_is_ranked_too(tmp_path: Path, photos: str, hub, monkeypatch) -> None:
    from hub_server import CLOSED, Repo

    folder = save_resnet(tmp_path / "model").path
    hub.repos["microsoft/resnet-18"] = Repo({file.name: file.read_bytes() for file in folder.iterdir()})
    open_model("microsoft/resnet-18", read_settings())
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    assert at_hand(read_settings())[-1] == "microsoft/resnet-18"
    value = tl_core.rank(photos, models=["microsoft/resnet-18"], images=30)
    assert value["backbones"][0]["kind"] == "hub"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from tl_core.cli import main; code = main(['rank', '--help']); "
        "print(sorted({'torch', 'transformers', 'numpy', 'scipy', 'PIL', 'huggingface_hub'} & set(sys.modules)), code)"
    )
    root = Path(__file__).parent.parent
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert "--models" in answer.stdout and answer.stdout.splitlines()[-1] == "[] 0"


def test_the_sample_is_of_all_classes_seeded_and_in_no_order(photos: str) -> None:
    pictures = open_data(photos, read_settings()).pictures
    alone, pool = list(range(len(pictures))), list(range(len(pictures)))
    sample = choose_sample(pictures, pool, alone, 30, 0)
    assert Counter(pictures[index].label for index in sample) == {"red": 10, "green": 10, "blue": 10}
    assert choose_sample(pictures, pool[::-1], alone, 30, 0) == sample
    assert choose_sample(pictures, pool, alone, 30, 1) != sample
    assert len(choose_sample(pictures, pool, alone, 1, 0)) == 6  # two of each class, whatever is asked
    assert len(choose_sample(pictures, pool, alone, None, 0)) == 90


def made_up(label: str, number: int) -> Picture:
    name = f"{label}/{number}"
    return Picture(Path(name), name, label, None, 8, 8, "RGB", name, 0, b"")


def test_a_large_class_leaves_room_for_small_ones_and_copies_come_last() -> None:
    pictures = [made_up("many", n) for n in range(5000)] + [made_up("few", n) for n in range(7)]
    groups = [0 if n < 4900 else n for n in range(len(pictures))]
    sample = choose_sample(pictures, range(len(pictures)), groups, None, 0)
    assert Counter(pictures[index].label for index in sample) == {"many": 60, "few": 7}
    assert sum(groups[index] == 0 for index in sample) == 1
    wide = [made_up(str(c), n) for c in range(600) for n in range(3)]
    assert len(choose_sample(wide, range(len(wide)), range(len(wide)), None, 0)) == 1200


def test_what_a_training_tests_on_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = open_data(str(make_folder(tmp_path / "photos", {"a": 110, "b": 110})), read_settings())
    division = divide(collection, find_duplicates(collection.pictures).groups, 3)
    tested = {collection.pictures[index].digest for index in division.test}
    asked: list[str] = []
    compute = backbone_pass.compute_features

    def watched(pictures, *rest, **more):
        asked.extend(picture.digest for picture in pictures)
        return compute(pictures, *rest, **more)

    monkeypatch.setattr(backbone_pass, "compute_features", watched)
    source = open_model(str(save_resnet(tmp_path / "model").path), read_settings())
    ranking = rank_backbones([source], collection, read_settings(), images=500, seed=3)
    assert tested and asked and not tested & set(asked)
    assert ranking.sampled == len(division.train) + len(division.validation)


def test_near_duplicates_never_judge_one_another() -> None:
    targets = np.repeat([0, 1], 20)
    groups = [number // 2 for number in range(40)]
    for train, test, inner in Judges(targets, groups, 0).rounds:
        assert not {groups[row] for row in train} & {groups[row] for row in test}
        for inside, held in inner:
            assert max(inside.max(), held.max()) < len(train)
            assert not {groups[row] for row in train[inside]} & {groups[row] for row in train[held]}


def test_folds_judge_each_picture_once() -> None:
    judges = Judges(np.repeat([0, 1, 2], 100), range(300), 0)
    assert judges.judged.tolist() == list(range(300))
    assert all(len(inner) == 1 for *_, inner in judges.rounds)  # 240 pictures to learn from: one fold chooses


def evidence_at(point: np.ndarray, features: np.ndarray, one_hot: np.ndarray) -> float:
    """log p(y | F, α, β) itself, of a Gaussian with covariance I / β + F Fᵀ / α."""
    alpha, beta = np.exp(point)
    covariance = np.eye(len(features)) / beta + features @ features.T / alpha
    return float(multivariate_normal.logpdf(one_hot, np.zeros(len(features)), covariance))


@pytest.mark.parametrize(("rows", "width"), [(40, 5), (30, 30), (20, 35)])
def test_logme_is_the_largest_evidence(rows: int, width: int) -> None:
    random = np.random.default_rng(rows)
    targets = np.arange(rows) % 3
    features = random.normal(size=(rows, width)) + 0.8 * np.eye(3)[targets] @ random.normal(size=(3, width))
    best = []
    for label in range(3):
        one_hot = (targets == label).astype(float)
        found = [
            minimize(lambda point: -evidence_at(point, features, one_hot), start, method="Nelder-Mead")  # noqa: B023
            for start in ([0.0, 0.0], [3.0, 2.0], [5.0, 1.0])
        ]
        best.append(-min(result.fun for result in found) / rows)
    assert log_maximum_evidence(features.astype(np.float32), targets) == pytest.approx(np.mean(best), abs=1e-4)


def test_logme_of_features_that_say_nothing_or_everything_is_a_number() -> None:
    targets = np.repeat([0, 1], 10)
    nothing, everything = np.zeros((20, 4), dtype=np.float32), np.eye(2, dtype=np.float32)[targets]
    assert np.isfinite(log_maximum_evidence(nothing, targets))
    assert log_maximum_evidence(everything, targets) > log_maximum_evidence(nothing, targets) + 1
    assert np.isfinite(log_maximum_evidence(np.eye(20, dtype=np.float32), targets))


def test_neighbours_by_hand() -> None:
    angles = np.radians([0, 10, 20, 30, 90, 100])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32) * [[1], [9], [2], [5], [1], [3]]
    targets, alone = np.array([0, 0, 0, 1, 1, 1]), np.arange(6)
    # The nearest other: right for 0°, 10°, 20° (10° or 30° tie: the first), 90° and 100°, and wrong for 30°.
    assert neighbour_accuracy(features, targets, alone, 1) == pytest.approx(5 / 6)
    # Of three: 30° has 20°, 10°, 0°; 90° has 100°, 30°, 20°; 100° has 90°, 30°, 20°.
    assert neighbour_accuracy(features, targets, alone, 3) == pytest.approx(5 / 6)
    # 0° and 10° as copies of each other: 0° then has 20° nearest, 10° too; 90° and 100°: both have 30°, right still.
    assert neighbour_accuracy(features, targets, np.array([0, 0, 1, 2, 3, 3]), 1) == pytest.approx(5 / 6)
    assert neighbour_accuracy(features, targets, np.zeros(6, dtype=int), 1) == 0.0


def test_where_classes_tie_the_nearest_decides() -> None:
    features = np.array([[1, 0], [1, 0.1], [1, 0.3]], dtype=np.float32)
    assert neighbour_accuracy(features, np.array([0, 0, 1]), np.arange(3), 2) == pytest.approx(2 / 3)


def row(name: str, score: float, seconds: float, behind: tuple[float, float, float] | None = None) -> Ranked:
    difference, low, high = behind or (0.0, 0.0, 0.0)
    return Ranked(
        *(name, "folder", score, (score - 0.05, score + 0.05), difference, (low, high), low > 0),
        *(score, 0.1, seconds, 1_000_000, 4_000_000, (32, 32), 16),
    )


def ranking(*rows: Ranked) -> Ranking:
    return Ranking(list(rows), {}, 100, 100, "a", 0.5, 0)


def test_for_speed_it_is_the_fastest_that_is_not_shown_to_be_worse() -> None:
    best, alike = row("big", 0.9, 0.1), row("small", 0.88, 0.02, (0.02, -0.01, 0.05))
    worse = row("tiny", 0.7, 0.001, (0.2, 0.1, 0.3))
    chosen = recommend(ranking(best, alike, worse))
    assert (chosen["accuracy"]["id"], chosen["speed"]["id"]) == ("big", "small")
    assert "5.0 times as fast as big" in chosen["speed"]["reason"]
    only_loss = recommend(ranking(best, worse))
    assert only_loss["speed"]["id"] == "big"
    assert "nothing faster is as good. tiny takes 1.0 ms" in only_loss["speed"]["reason"]
    assert "20.0 points (95 % interval +10.0 to +30.0) behind" in only_loss["accuracy"]["reason"]
    assert fastest_alike([best, replace(alike, seconds_per_image=0.09)]) is best  # two timings may differ so much


def test_a_score_no_better_than_guessing_is_said_so() -> None:
    assert "always saying 'a'" in recommend(ranking(row("x", 0.52, 0.1)))["accuracy"]["reason"]


def test_few_pictures_are_said_to_tell_little(tmp_path: Path, backbones: list[str]) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 6, "b": 6, "alone": 1})
    value = tl_core.rank(str(photos), models=backbones[2:])
    assert value["judged"] == 12
    said = " ".join(value["notes"])
    assert "cannot be judged: 'alone'" in said and "one more right or wrong moves a figure by 8 points" in said


def test_nothing_to_judge_is_an_error_that_says_what_to_do(tmp_path: Path, backbones: list[str]) -> None:
    photos = make_folder(tmp_path / "photos", {"a": 1, "b": 1})
    with pytest.raises(DataError, match="add images, at least two for each class"):
        tl_core.rank(str(photos), models=backbones[2:])
    shutil.rmtree(photos / "b")
    with pytest.raises(DataError, match="only one class"):
        tl_core.rank(str(photos), models=backbones[2:])


def test_the_command_prints_a_table_or_one_object(
    photos: str, backbones: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rank", photos, "--models", f"{backbones[0]},{backbones[2]},tiny-resnt", "--images", "30"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out.index(backbones[2]) < out.index(backbones[0])
    assert "for accuracy: " in out and "for speed: " in out and f"--model {backbones[2]}\n" in out
    assert "left out: tiny-resnt: " in err
    assert main([*words, "--seed", "3"]) == 0
    assert f"--model {backbones[2]} --seed 3\n" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in value["backbones"]] == [backbones[2], backbones[0]]
    assert main(["rank", photos, "--models", "tiny-resnt", "--json"]) == 2
    out, err = capsys.readouterr()
    assert "did you mean" in json.loads(out)["error"] and err.startswith("error: ")


def test_agreement_of_two_orders() -> None:
    assert benchmark.agreement([1, 2, 3], [0.5, 0.7, 0.9]) == pytest.approx((1.0, 1.0, 0.0))
    assert benchmark.agreement([3, 2, 1], [0.5, 0.7, 0.9]) == pytest.approx((-1.0, -1.0, 0.4))
    assert benchmark.agreement([1, 1], [0.5, 0.6]) == (None, None, pytest.approx(0.1))


def test_the_benchmark_goes_on_where_it_was_killed(
    tmp_path: Path,
    photos: str,
    backbones: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = tmp_path / "results.jsonl"
    words = [photos, "--models", ",".join(backbones[1:]), "--strategy", "frozen", "--per-class", "10"]
    monkeypatch.setattr(sys, "argv", ["ranking", *words, "--out", str(results)])
    benchmark.main()
    table = capsys.readouterr().out
    whole = results.read_text(encoding="utf-8")
    assert [json.loads(line)["method"] for line in whole.splitlines()] == ["rank", "frozen"] * 2
    assert "| cross-validated head |" in table and backbones[2] in table
    results.write_text(whole[:-20], encoding="utf-8")  # killed while it wrote the last line
    benchmark.main()
    again = results.read_text(encoding="utf-8").splitlines()
    assert again[:3] == whole.splitlines()[:3]
    assert json.loads(again[3])["accuracy"] == json.loads(whole.splitlines()[3])["accuracy"]
