"""Exact and trained heads: against scikit-learn, and in the corners (one class, one image, constant features)."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from transformers import TrainerCallback

from tl_core.ml import heads, logistic_regression
from tl_core.ml.head_training import fit_by_trainer
from tl_core.ml.heads import class_weights, fit_exact, log_loss_and_accuracy, refit


def blobs(images, width, classes, spread=1.0):
    """Features with correlated columns of very different size and offset, as backbones give them."""
    random = np.random.default_rng(0)
    targets = random.integers(0, classes, images)
    latent = random.normal(size=(classes, 12))[targets] + spread * random.normal(size=(images, 12))
    mixed = latent @ random.normal(size=(12, width)) + 0.5 * random.normal(size=(images, width))
    return (mixed * np.logspace(-1, 1, width) + np.linspace(-5, 5, width)).astype(np.float32), targets


def reference(features, targets, strength, weights=None):
    """scikit-learn's multinomial model on standardised features, to a tight tolerance."""
    scaler = StandardScaler().fit(features.astype(np.float64))
    balanced = None if weights is None else dict(enumerate(weights))
    model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=20_000, class_weight=balanced)
    model.fit(scaler.transform(features.astype(np.float64)), targets)
    return lambda others: model.predict_proba(scaler.transform(others.astype(np.float64)))


@pytest.mark.parametrize("strength", [100.0, 1.0, 0.01])
@pytest.mark.parametrize(("images", "width"), [(400, 40), (60, 200)], ids=["more images", "more features"])
def test_folded_weights_give_the_probabilities_of_scikit_learn(images, width, strength):
    features, targets = blobs(images + 100, width, 5)
    features, targets, others = features[100:], targets[100:], features[:100]
    head = refit(features, targets, 5, strength)
    assert head.converged
    assert head.weight.shape == (5, width)
    assert head.weight.dtype == head.bias.dtype == np.float32
    expected = reference(features, targets, strength)
    np.testing.assert_allclose(head.probabilities(features), expected(features), atol=1e-4)
    np.testing.assert_allclose(head.probabilities(others), expected(others), atol=5e-4)


def test_two_classes_are_the_symmetric_multinomial_model():
    features, targets = blobs(200, 20, 2)
    head = refit(features, targets, 2, strength=1.0)
    np.testing.assert_allclose(head.weight[0], -head.weight[1], atol=1e-6)
    # scikit-learn fits one row w for two classes; ours are w/2 and −w/2, whose penalty is half of |w|².
    np.testing.assert_allclose(head.probabilities(features), reference(features, targets, 0.5)(features), atol=1e-4)


def test_class_weights_are_those_of_scikit_learn_and_are_used():
    features, targets = blobs(300, 20, 3, spread=4.0)
    kept = np.flatnonzero((targets != 2) | (np.arange(300) % 10 == 0))
    features, targets = features[kept], targets[kept]
    weights = class_weights(targets, 3)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=targets))
    head = refit(features, targets, 3, 1.0, weights)
    np.testing.assert_allclose(
        head.probabilities(features), reference(features, targets, 1.0, weights)(features), atol=1e-4
    )


def test_class_weights_of_a_class_without_images():
    assert class_weights(np.array([0, 0, 0, 2]), 3) == pytest.approx([4 / 6, 1, 2])


def test_the_strength_that_validates_best_is_taken():
    features, targets = blobs(400, 60, 4, spread=3.0)
    validation = features[150:], targets[150:]
    head = fit_exact(features[:150], targets[:150], 4, validation=validation)
    assert [score.setting for score in head.scores] == sorted((score.setting for score in head.scores), reverse=True)
    chosen = next(score for score in head.scores if score.setting == head.strength)
    assert chosen.log_loss == min(score.log_loss for score in head.scores)
    assert log_loss_and_accuracy(head.logits(validation[0]), validation[1]) == pytest.approx(
        (chosen.log_loss, chosen.accuracy), abs=1e-3
    )
    for strength in (head.strength * 10, head.strength / 10):
        other = refit(features[:150], targets[:150], 4, strength)
        assert log_loss_and_accuracy(other.logits(validation[0]), validation[1])[0] > chosen.log_loss


def test_a_head_unsure_of_everything_is_not_preferred_to_one_that_is_often_right():
    # The class shows only once the noise both features share is removed, which takes weak regularisation. Every fifth
    # held-out image lies far on the wrong side: being sure costs more log-loss there than it gains elsewhere.
    random = np.random.default_rng(0)
    targets = np.tile([0, 1], 100)
    signal, noise = targets * 2 - 1.0, 5 * random.normal(size=200)
    signal[100::5] *= -10
    features = np.column_stack([noise + signal, noise]).astype(np.float32)
    head = fit_exact(features[:100], targets[:100], 2, validation=(features[100:], targets[100:]))
    chosen = next(score for score in head.scores if score.setting == head.strength)
    assert min(head.scores, key=lambda score: score.log_loss).accuracy < 0.7
    assert chosen.accuracy > 0.75
    assert chosen.log_loss > min(score.log_loss for score in head.scores)


def test_a_path_gives_what_a_fit_from_nothing_gives():
    features, targets = blobs(250, 60, 4, spread=3.0)
    validation = features[150:], targets[150:]
    features, targets = features[:150], targets[:150]
    head = fit_exact(features, targets, 4, validation=validation)
    alone = refit(features, targets, 4, head.strength)
    np.testing.assert_allclose(head.probabilities(features), alone.probabilities(features), atol=1e-4)


@pytest.mark.parametrize(("images", "width"), [(120, 30), (40, 90)], ids=["more images", "more features"])
def test_what_was_folded_onto_raw_features_is_unfolded_again(images, width):
    features, targets = blobs(images, width, 3)
    features[:, 4] = 7.3  # a constant
    problem = logistic_regression.RegressionProblem(features, targets, 5)  # two classes have no image
    solution = problem.solve(3.0)
    again = problem.unfold(*problem.fold(solution))
    np.testing.assert_allclose(again, solution.coefficients, atol=1e-4 * np.abs(solution.coefficients).max())


def test_where_every_image_is_right_no_surer_head_is_sought_to_the_end():
    features, targets = blobs(220, 16, 2, spread=0.05)
    head = fit_exact(features[:154], targets[:154], 2, validation=(features[154:], targets[154:]))
    assert head.scores[-1].accuracy == 1
    assert head.strength > heads.STRENGTHS[-1]
    assert all(score.log_loss > heads.LEAST_GAIN for score in head.scores[:-1])
    as_good = min(score.log_loss for score in head.scores) + heads.LEAST_GAIN
    assert all(score.log_loss > as_good for score in head.scores if score.setting > head.strength)


def test_a_head_that_overfits_ever_more_is_not_followed_for_single_images():
    random = np.random.default_rng(0)
    features, targets = random.normal(size=(600, 8)).astype(np.float32), random.integers(0, 120, 600)
    head = fit_exact(features[:300], targets[:300], 120, validation=(features[300:], targets[300:]))
    assert head.scores[-1].log_loss > np.log(120)
    assert head.scores[-1].setting > 100 * heads.STRENGTHS[-1]


@pytest.mark.parametrize(
    ("losses", "accuracies", "tried"),
    [
        ([0.60, 0.59, 0.58, 0.61, 0.62, 0.63], [0.80, 0.75, 0.75, 0.85, 0.85, 0.85], 6),  # the choice goes back
        ([0.60, 0.61, 0.62, 0.63, 0.64, 0.65], [0.60, 0.62, 0.64, 0.66, 0.66, 0.66], 6),  # right ever more often
        ([0.60, 0.61, 0.62, 0.63, 0.64, 0.65], [0.60, 0.60, 0.60, 0.66, 0.66, 0.66], 3),
        ([0.60, 0.80, 0.90, 1.00, 1.10, 1.20], [0.60, 0.62, 0.64, 0.66, 0.66, 0.66], 3),  # by guessing ever more surely
        ([0.60, 0.01, 1e-4, 1e-5, 1e-6, 1e-7], [0.60, 1.00, 1.00, 1.00, 1.00, 1.00], 3),  # nothing left to gain
    ],
)
def test_a_path_ends_where_nothing_is_gained(monkeypatch, losses, accuracies, tried):
    features, targets = blobs(100, 16, 2)
    said = iter(zip(losses, accuracies, strict=True))
    monkeypatch.setattr(heads, "log_loss_and_accuracy", lambda *_: next(said))
    monkeypatch.setattr(heads, "STRENGTHS", tuple(10.0**exponent for exponent in (2, 1, 0, -1, -2, -3)))
    head = fit_exact(features[:50], targets[:50], 2, validation=(features[50:], targets[50:]), roughly=True)
    assert len(head.scores) == tried


def test_a_head_begun_from_a_near_one_is_the_same_and_sooner_there(monkeypatch):
    features, targets = blobs(200, 60, 4, spread=3.0)
    training = np.flatnonzero((targets != 3) & (np.arange(200) < 150))  # of one class only the others know
    held = np.setdiff1d(np.arange(200), training)
    rough = fit_exact(
        features[training], targets[training], 4, validation=(features[held], targets[held]), roughly=True
    )
    assert rough.scores
    looks = []  # whenever all features are multiplied
    for name in ("_look", "_times_curvature"):
        compute = getattr(logistic_regression.RegressionProblem, name)

        def count(*given, compute=compute):
            looks.append(1)
            return compute(*given)

        monkeypatch.setattr(logistic_regression.RegressionProblem, name, count)
    whole = slice(100)
    alone = refit(features[whole], targets[whole], 4, rough.strength)
    from_nothing = len(looks)
    looks.clear()
    begun = refit(features[whole], targets[whole], 4, rough.strength, near=alone)
    assert len(looks) < from_nothing / 2
    np.testing.assert_allclose(begun.probabilities(features), alone.probabilities(features), atol=1e-4)
    far = refit(features, targets, 4, rough.strength, near=rough)
    expected = refit(features, targets, 4, rough.strength)
    np.testing.assert_allclose(far.probabilities(features), expected.probabilities(features), atol=1e-4)


@pytest.mark.parametrize("strength", [1e-3, 1e-2, 1.0])
def test_a_start_that_is_sure_and_wrong_leads_to_the_minimum_all_the_same(strength):
    random = np.random.default_rng(2)
    targets = random.integers(0, 5, 200)
    features = (random.normal(size=(5, 256))[targets] + random.normal(size=(200, 256))).astype(np.float32)
    near = refit(features[:160], targets[:160], 5, strength)
    targets[170] = (targets[170] + 1) % 5
    warm, cold = refit(features, targets, 5, strength, near=near), refit(features, targets, 5, strength)
    assert warm.converged and cold.converged
    np.testing.assert_allclose(warm.probabilities(features), cold.probabilities(features), atol=1e-3)


def test_a_start_far_off_costs_no_more_than_none(monkeypatch):
    features, targets = blobs(200, 60, 4, spread=3.0)
    problem = logistic_regression.RegressionProblem(features, targets, 4)
    looked = []
    look = problem._look
    monkeypatch.setattr(problem, "_look", lambda *asked: looked.append(1) or look(*asked))
    alone = problem.solve(1.0)
    from_nothing = len(looked)
    looked.clear()
    led_astray = problem.solve(1.0, -1000 * alone.coefficients)
    assert len(looked) <= from_nothing + 1
    np.testing.assert_allclose(led_astray.coefficients, alone.coefficients, atol=1e-6)


def test_loss_and_gradient_belong_together_however_far_apart_logits_are():
    features, targets = blobs(60, 5, 3)
    problem = logistic_regression.RegressionProblem(features, targets, 3)
    penalty = np.array([1.0] * 5 + [0.0])
    far = 200 * np.random.default_rng(0).normal(size=(3, 6))  # images lie hundreds from their class
    here = problem._look(far, penalty, np.float64)
    logits = problem._rotated.astype(np.float64) @ far.T
    expected = -log_softmax(logits, axis=1)[np.arange(60), targets].sum() + 0.5 * np.sum(penalty * far**2)
    assert here.loss == pytest.approx(expected)
    assert (logits.max(axis=1) - logits[np.arange(60), targets]).max() > 100
    for place in [(0, 0), (1, 3), (2, 5)]:
        step = np.zeros_like(far)
        step[place] = 1e-4
        around = [problem._look(far + side * step, penalty, np.float64).loss for side in (1, -1)]
        assert here.gradient[place] == pytest.approx((around[0] - around[1]) / 2e-4, rel=1e-4, abs=1e-4)


def test_folds_score_every_image_once_and_the_head_learns_from_all():
    features, targets = blobs(60, 30, 3, spread=2.0)
    folds = list(StratifiedKFold(5).split(features, targets))
    head = fit_exact(features, targets, 3, folds=folds)
    chosen = next(score for score in head.scores if score.setting == head.strength)
    held_out = np.zeros((60, 3))
    for train, held in folds:
        held_out[held] = refit(features[train], targets[train], 3, head.strength).logits(features[held])
    assert log_loss_and_accuracy(held_out, targets)[0] == pytest.approx(chosen.log_loss, abs=1e-3)
    np.testing.assert_array_equal(head.weight, refit(features, targets, 3, head.strength).weight)


def test_without_anything_to_validate_on_a_default_strength_is_used():
    features, _ = blobs(2, 30, 2)
    head = fit_exact(features, np.array([0, 1]), 2)
    assert head.strength == heads.DEFAULT_STRENGTH
    assert head.logits(features).argmax(axis=1).tolist() == [0, 1]


def test_a_class_without_images_has_a_row_that_never_wins():
    features, targets = blobs(50, 20, 5)
    kept = targets != 3
    head = refit(features[kept], targets[kept], 5, 1.0)
    assert head.weight.shape == (5, 20)
    far = 1e3 * np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
    probabilities = head.probabilities(np.concatenate([features, far]))
    assert not (probabilities.argmax(axis=1) == 3).any()
    assert probabilities[:, 3].max() < 1 / kept.sum()
    assert (probabilities[:50, 3] > 0).all()


def test_folds_may_leave_a_class_with_one_image_out_of_training():
    features, targets = blobs(20, 10, 3)
    targets[:] = 0
    targets[10:19] = 1
    targets[19] = 2
    folds = [
        (np.flatnonzero(np.arange(20) % 4 != part), np.flatnonzero(np.arange(20) % 4 == part)) for part in range(4)
    ]
    head = fit_exact(features, targets, 3, folds=folds)
    assert np.isfinite([score.log_loss for score in head.scores]).all()
    assert head.converged


def test_only_one_class_present_is_predicted_always():
    features, _ = blobs(5, 8, 2)
    head = refit(features, np.full(5, 1), 2, 1.0)
    assert head.logits(features).argmax(axis=1).tolist() == [1] * 5


def test_constant_features_are_ignored_and_never_divide_by_zero():
    features, targets = blobs(100, 10, 3)
    with_constants = np.column_stack([features, np.zeros(100), np.full(100, 7.3), 1e4 + 1e-4 * targets]).astype(
        np.float32
    )
    head = refit(with_constants, targets, 3, 1.0)
    np.testing.assert_array_equal(head.weight[:, 10:], 0)
    np.testing.assert_allclose(
        head.probabilities(with_constants), refit(features, targets, 3, 1.0).probabilities(features), atol=1e-4
    )


def test_features_that_are_all_constant_give_the_class_frequencies():
    head = refit(np.ones((10, 4), dtype=np.float32), np.array([0] * 7 + [1] * 3), 2, 1.0)
    np.testing.assert_allclose(head.probabilities(np.ones((1, 4), dtype=np.float32)), [[0.7, 0.3]], atol=1e-4)


def test_a_thousand_classes_of_five_images():
    random = np.random.default_rng(0)
    centres = random.normal(size=(1000, 64))
    targets = np.repeat(np.arange(1000), 5)
    features = (centres[targets] + 0.3 * random.normal(size=(5000, 64))).astype(np.float32)
    head = refit(features, targets, 1000, 100.0)
    assert head.converged
    fresh = (centres + 0.3 * random.normal(size=(1000, 64))).astype(np.float32)
    assert np.mean(head.logits(fresh).argmax(axis=1) == np.arange(1000)) > 0.95


def test_blocks_of_rows_change_nothing(monkeypatch):
    features, targets = blobs(100, 20, 3)
    whole = refit(features, targets, 3, 1.0)
    monkeypatch.setattr(logistic_regression, "BLOCK_ROWS", 7)
    np.testing.assert_allclose(refit(features, targets, 3, 1.0).weight, whole.weight, rtol=1e-3, atol=1e-6)


def test_a_solver_that_gave_up_says_so(monkeypatch):
    monkeypatch.setattr(logistic_regression, "MAX_STEPS", 2)
    features, targets = blobs(100, 20, 3)
    assert not refit(features, targets, 3, 0.01).converged


def test_the_trained_head_comes_near_the_exact_one(tmp_path, capsys):
    features, targets = blobs(500, 40, 4, spread=0.8)
    validation = features[300:400], targets[300:400]
    trained = fit_by_trainer(
        features[:300], targets[:300], 4, validation=validation, output_dir=tmp_path, seed=0, steps=200
    )
    exact = fit_exact(features[:300], targets[:300], 4, validation=validation)
    accuracies = [np.mean(head.logits(features[400:]).argmax(axis=1) == targets[400:]) for head in (trained, exact)]
    assert accuracies[0] >= accuracies[1] - 0.03
    assert capsys.readouterr().out == ""
    # What is returned is the candidate with the least validation loss, folded for raw features.
    best = min(score.log_loss for score in trained.scores)
    assert log_loss_and_accuracy(trained.logits(validation[0]), validation[1])[0] == pytest.approx(best, abs=1e-4)


def test_training_ends_early_when_validation_gets_worse(tmp_path):
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 200)).astype(np.float32)
    targets = random.integers(0, 2, 40)
    head = fit_by_trainer(
        features, targets, 2, validation=(features, 1 - targets), output_dir=tmp_path, seed=0, steps=100
    )
    assert head.scores[-1].setting < 100


def test_trainer_without_validation_runs_all_epochs_and_reports_to_callbacks(tmp_path):
    seen = []

    class Listener(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(state.global_step)

    features, targets = blobs(50, 10, 3)
    head = fit_by_trainer(
        features,
        targets,
        3,
        validation=None,
        output_dir=tmp_path,
        seed=0,
        epochs=3,
        batch_size=20,
        weights=class_weights(targets, 3),
        callbacks=[Listener()],
    )
    assert seen == list(range(1, 10))
    assert head.scores == ()
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_trains_the_same_head(tmp_path):
    features, targets = blobs(50, 10, 3)
    first, second = (
        fit_by_trainer(features, targets, 3, validation=None, output_dir=tmp_path, seed=5, steps=10, batch_size=16)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.weight, second.weight)


def test_importing_heads_and_their_training_loads_no_torch():
    program = (
        "import sys, tl_core.ml.heads, tl_core.ml.head_training, tl_core.ml.features, tl_core.ml.metrics\n"
        "print({'torch', 'transformers', 'evaluate', 'datasets'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "set()"
