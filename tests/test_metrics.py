"""Figures of a report: against scikit-learn, scipy and values worked out by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import classification_report, confusion_matrix, f1_score, top_k_accuracy_score

from tl_core.ml.metrics import macro_f1_interval, measure, paired_difference, wilson_interval


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(7, 0.5), size=300)
    targets = np.array([random.choice(7, p=row) for row in probabilities])
    return probabilities, targets, ["日本語", "a/b", "train station", "🙂", "x" * 200, "None", "10"]


def test_every_figure_agrees_with_scikit_learn(predictions):
    probabilities, targets, labels = predictions
    predicted = probabilities.argmax(axis=1)
    report = measure(probabilities, targets, labels, "test")

    assert report["split"] == "test"
    assert report["images"] == 300
    assert report["accuracy"] == np.mean(predicted == targets)
    assert report["macro_f1"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert report["top_k"]["k"] == 5
    assert report["top_k"]["accuracy"] == pytest.approx(top_k_accuracy_score(targets, probabilities, k=5))
    assert report["confusion_matrix"] == confusion_matrix(targets, predicted).tolist()
    assert report["labels"] == labels
    expected = classification_report(targets, predicted, labels=range(7), target_names=labels, output_dict=True)
    for row in report["per_class"]:
        wanted = expected[row["label"]]
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx(
            [wanted["precision"], wanted["recall"], wanted["f1-score"], wanted["support"]]
        )


def test_report_survives_json(predictions):
    report = measure(*predictions, "test")
    assert json.loads(json.dumps(report)) == report


def test_calibration_error_of_a_case_worked_out_by_hand():
    # 0.61 and 0.65 share the tenth of fifteen bins, (0.6, 0.667], and one of the two is right; 0.95 stands alone.
    probabilities = np.array([[0.61, 0.39], [0.35, 0.65], [0.95, 0.05]])
    report = measure(probabilities, np.array([0, 0, 0]), ["a", "b"], "test")
    assert report["calibration_error"] == pytest.approx((2 * abs(0.63 - 0.5) + abs(0.95 - 1.0)) / 3)


def test_confidence_on_a_bin_edge_belongs_to_the_lower_bin():
    # Guo et al. close bins on the right: 0.8 is the upper edge of the twelfth bin, 0.81 in the thirteenth.
    probabilities = np.array([[0.8, 0.2], [0.81, 0.19]])
    report = measure(probabilities, np.array([0, 1]), ["a", "b"], "test")
    assert report["calibration_error"] == pytest.approx((0.2 + 0.81) / 2)


def test_sure_and_always_right_is_calibrated():
    report = measure(np.eye(3), np.arange(3), ["a", "b", "c"], "test")
    assert report["calibration_error"] == 0
    assert report["accuracy"] == report["macro_f1"] == 1


def test_undefined_figures_are_zero_and_absent_classes_stay_out_of_the_average():
    # Class c is neither held out nor predicted, class b is predicted once though no image of it was held out.
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    report = measure(probabilities, np.array([0, 0]), ["a", "b", "c"], "test")
    assert report["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    unknown = {"precision": 0.0, "recall": 0.0, "recall_ci": [0.0, 1.0], "f1": 0.0, "support": 0}
    assert report["per_class"][1:] == [{"label": "b", **unknown}, {"label": "c", **unknown}]
    assert report["confusion_matrix"] == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(("classes", "k"), [(2, 1), (3, 2), (6, 5), (40, 5)])
def test_top_k_always_leaves_a_class_out(classes, k):
    report = measure(np.full((1, classes), 1 / classes), np.array([0]), [str(n) for n in range(classes)], "test")
    assert report["top_k"] == {"k": k, "accuracy": 1.0, "accuracy_ci": list(wilson_interval(1, 1))}


@pytest.mark.parametrize(
    ("images", "targets", "labels"), [(0, 0, 2), (3, 2, 2), (3, 3, 1)], ids=["no image", "targets", "labels"]
)
def test_shapes_that_disagree_are_refused(images, targets, labels):
    with pytest.raises(ValueError, match="probabilities"):
        measure(np.full((images, 2), 0.5), np.zeros(targets, dtype=int), ["a", "b"][:labels], "test")


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (0, 50), (50, 50), (81, 263), (4999, 5000)])
def test_wilson_interval_agrees_with_scipy(successes, trials):
    reference = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((reference.low, reference.high))


def test_shares_of_pictures_have_their_intervals():
    probabilities = np.array([[0.6, 0.4, 0.0], [0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0, 1, 0], [0, 1, 0], [0.6, 0.4, 0.0]])
    report = measure(probabilities, np.array([0, 0, 0, 1, 1, 2]), ["a", "b", "c"], "test")
    assert [row["recall_ci"] for row in report["per_class"]] == [
        list(wilson_interval(*of)) for of in [(2, 3), (2, 2), (0, 1)]
    ]
    assert report["top_k"]["accuracy_ci"] == list(wilson_interval(5, 6))


def test_the_interval_of_macro_f1_holds_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    shares = np.full((6, 6), 0.2 / 5)
    np.fill_diagonal(shares, 0.8)  # of every class 80 % are right, so that the true macro-F1 is 0.8
    matrices = [random.multinomial(300, shares.ravel() / 6).reshape(6, 6) for _ in range(100)]
    intervals = [macro_f1_interval(matrix) for matrix in matrices]
    assert 88 <= sum(low <= 0.8 <= high for low, high in intervals) <= 99
    assert all(high - low < 0.15 for low, high in intervals)


def test_the_interval_of_macro_f1_is_the_same_each_time_and_sure_where_all_are_right():
    assert macro_f1_interval(np.diag([3, 0, 4])) == (1.0, 1.0)
    matrix = np.array([[5, 2], [1, 9]])
    assert macro_f1_interval(matrix) == macro_f1_interval(matrix)


def test_wilson_interval_without_trials_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_measuring_leaves_nothing_in_the_home_folder_and_needs_no_network(tmp_path: Path):
    """In a process of its own, because libraries read HOME once."""
    program = (
        "import socket, numpy\n"
        "def refuse(*arguments): raise AssertionError(f'network: {arguments}')\n"
        "socket.socket.connect = refuse\n"
        "from tl_core.ml.metrics import measure\n"
        "measure(numpy.eye(2), numpy.arange(2), ['a', 'b'], 'test')\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "TRANSFORMERS_"))
    }
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        env={**environment, "HOME": str(home), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert list(home.rglob("*")) == []


def table(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """So many pictures that both models got right, the first alone, the second alone, neither."""
    one = [True] * (both + first) + [False] * (second + neither)
    two = [True] * both + [False] * first + [True] * second + [False] * neither
    return np.array(one), np.array(two)


@pytest.mark.parametrize(
    ("cells", "difference", "low", "high"),
    [
        ((36, 12, 2, 0), 0.2000, 0.0569, 0.3404),  # Newcombe 1998, table I
        ((1, 1, 7, 12), -0.2857, -0.5069, -0.0256),  # Fagerland, Lydersen and Laake 2014, airway hyper-responsiveness
    ],
)
def test_the_difference_of_two_models_has_the_published_interval(
    cells: tuple[int, int, int, int], difference: float, low: float, high: float
) -> None:
    assert paired_difference(*table(*cells)) == pytest.approx((difference, low, high), abs=1e-4)


def test_two_models_that_agree_on_everything_differ_by_nothing() -> None:
    difference, low, high = paired_difference(*table(30, 0, 0, 10))
    assert difference == 0 and low < 0 < high
    assert paired_difference(*table(20, 0, 0, 0))[0] == 0
    with pytest.raises(ValueError):
        paired_difference(np.array([], dtype=bool), np.array([], dtype=bool))
