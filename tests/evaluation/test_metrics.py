"""Metrics against scikit-learn, intervals against known values and a direct resampling."""

from __future__ import annotations

import warnings

import numpy
import pytest
import torch
from sklearn import metrics as sklearn

from lorafy.evaluation.metrics import classification_metrics, quick_metrics, wilson_interval
from lorafy.evaluation.mistakes import worst_mistakes
from lorafy.types import Example
from tolerances import BOOTSTRAP_SHARE, FOUR_DIGITS

NAMES = ["a", "b", "c", "d"]


def made_up(num_examples: int = 200, classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (num_examples,), generator=generator)
    scores = torch.randn(num_examples, 4, generator=generator)
    return scores + 1.5 * torch.nn.functional.one_hot(labels, 4), labels


def test_against_scikit_learn():
    scores, labels = made_up()
    truth, predicted = labels.numpy(), scores.argmax(-1).numpy()
    found = classification_metrics(scores, labels, NAMES)
    expected = {
        "accuracy": sklearn.accuracy_score(truth, predicted),
        "f1_macro": sklearn.f1_score(truth, predicted, average="macro"),
        "f1_weighted": sklearn.f1_score(truth, predicted, average="weighted"),
        "precision_macro": sklearn.precision_score(truth, predicted, average="macro"),
        "recall_macro": sklearn.recall_score(truth, predicted, average="macro"),
        "loss": sklearn.log_loss(truth, scores.double().softmax(-1).numpy()),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    report = sklearn.classification_report(truth, predicted, target_names=NAMES, output_dict=True)
    for name in NAMES:
        per_class = found["per_class"][name]
        assert per_class["f1"] == pytest.approx(report[name]["f1-score"])
        assert per_class["precision"] == pytest.approx(report[name]["precision"])
        assert per_class["recall"] == pytest.approx(report[name]["recall"])
        assert per_class["support"] == report[name]["support"]
    assert found["confusion_matrix"] == sklearn.confusion_matrix(truth, predicted).tolist()
    assert found["majority_accuracy"] == pytest.approx(numpy.bincount(truth).max() / len(truth))
    quick = quick_metrics(scores, labels)
    assert quick == {name: pytest.approx(found[name]) for name in ("loss", "accuracy", "f1_macro")}


def test_a_class_absent_from_truth_and_predictions_does_not_lower_the_mean():
    scores = torch.tensor([[3.0, 0, -9, -9], [0, 3.0, -9, -9], [3.0, 0, -9, -9]])
    found = classification_metrics(scores, torch.tensor([0, 1, 0]), NAMES)
    assert (found["accuracy"], found["f1_macro"], found["f1_weighted"]) == (1.0, 1.0, 1.0)
    assert found["f1_macro_interval"] == [1.0, 1.0]
    assert found["per_class"]["d"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert numpy.array(found["confusion_matrix"]).shape == (4, 4)


def test_a_class_absent_from_truth_but_predicted_counts_as_scikit_learn_counts_it():
    scores, labels = made_up(classes=3)
    assert (scores.argmax(-1) == 3).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = classification_metrics(scores, labels, NAMES)
    expected = sklearn.f1_score(labels, scores.argmax(-1), average="macro", zero_division=0)
    assert found["f1_macro"] == pytest.approx(expected)
    assert found["per_class"]["d"]["f1"] == 0.0


@pytest.mark.parametrize(
    ("num_correct", "total", "expected"),
    [
        (8, 10, (0.4902, 0.9433)),  # R: prop.test(8, 10, correct = FALSE)
        (10, 10, (0.7225, 1.0)),
        (0, 10, (0.0, 0.2775)),
        (81, 263, (0.2553, 0.3662)),  # Newcombe 1998, table I: method 3
    ],
)
def test_wilson(num_correct: int, total: int, expected: tuple[float, float]):
    assert wilson_interval(num_correct, total) == pytest.approx(expected, abs=FOUR_DIGITS)


def resampled_f1(truth: numpy.ndarray, predicted: numpy.ndarray) -> tuple[float, float]:
    """The bootstrap as it is defined: draw examples with replacement; the mean over the classes that are there."""
    generator = numpy.random.default_rng(1)
    values = []
    for _ in range(1_000):
        rows = generator.integers(0, len(truth), len(truth))
        left, right = truth[rows], predicted[rows]
        present = sorted({*left, *right})
        hits = [((left == c) & (right == c)).sum() for c in present]
        sizes = [(left == c).sum() + (right == c).sum() for c in present]
        values.append(numpy.mean([2 * hit / size for hit, size in zip(hits, sizes, strict=True)]))
    low, high = numpy.percentile(values, [2.5, 97.5])
    return low, high


@pytest.mark.parametrize("rare", [False, True])
def test_the_bootstrap_is_that_of_resampled_examples(rare: bool):
    scores, labels = made_up(150)
    if rare:  # one example of the last class: a third of the draws have none of it
        labels = labels.clamp(max=2)
        labels[0] = 3
        scores[:, 3] = -9
        scores[0, 3] = 9
    found = classification_metrics(scores, labels, NAMES)
    low, high = found["f1_macro_interval"]
    assert low < found["f1_macro"] < high
    expected = resampled_f1(labels.numpy(), scores.argmax(-1).numpy())
    assert (low, high) == pytest.approx(expected, abs=BOOTSTRAP_SHARE)


def test_the_worst_mistakes_come_first_and_name_their_row():
    scores = torch.tensor([[0.0, 1.0], [5.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 0, 1])
    examples = [Example(f"text {i}", "xy"[labels[i]], "data.csv", 10 + i) for i in range(4)]
    mistakes = worst_mistakes(scores, labels, examples, ["x", "y"])
    assert [(m["row"], m["label"], m["predicted"]) for m in mistakes] == [(11, "y", "x"), (10, "x", "y")]
    assert mistakes[0]["probability"] == pytest.approx(scores[1].softmax(0)[0].item())
