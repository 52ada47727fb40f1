"Metrics against scikit-learn on many random tables: ties, one poster, rare genres, weights."

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from postergenre.metrics import intervals, metrics
from postergenre.metrics.intervals import confidence_interval, metric_contributions, paired_difference
from postergenre.metrics.metrics import (
    METRICS,
    average_precision,
    evaluable_genres,
    genre_table,
    predict_labels,
    rank_labels,
    rank_posters,
    roc_auc,
    summary_metrics,
    tune_thresholds,
)
from postergenre.paths import write_json
from postergenre.train.callbacks import Evaluation
from postergenre.train.training import describe_split


def random_posters(seed):
    "A table of random size, skill and coarseness of scores; every genre has a positive and a negative."
    rng = np.random.default_rng(seed)
    n_posters, n_genres = int(rng.integers(2, 300)), int(rng.integers(1, 9))
    targets = (rng.random((n_posters, n_genres)) < rng.uniform(0.02, 0.98, n_genres)).astype(float)
    targets[0], targets[-1] = 1, 0
    scores = np.clip(0.3 * rng.random() * targets + rng.random(targets.shape), 0, 1)
    return targets, scores.round(int(rng.integers(1, 9))).astype(np.float32), rng


@pytest.mark.parametrize("seed", range(60))
def test_ap_and_auc_are_those_of_scikit_learn(seed):
    targets, scores, rng = random_posters(seed)
    weights = rng.integers(0, 3, len(targets)).astype(float)
    weights[[0, -1]] += 1  # keeps a positive and a negative
    for weight in (None, weights):
        for ours, theirs in [(average_precision, average_precision_score), (roc_auc, roc_auc_score)]:
            expected = theirs(targets, scores, average=None, sample_weight=weight)
            assert np.allclose(ours(rank_posters(targets, scores), weight), expected, rtol=0, atol=1e-12)
            expected = theirs(targets, scores, average="micro", sample_weight=weight)
            assert np.allclose(ours(rank_labels(targets, scores), weight), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_headline_is_the_mean_over_the_counted_genres(seed):
    targets, scores, rng = random_posters(seed)
    genres = [f"genre {number}" for number in range(targets.shape[1])]
    counted, cut = evaluable_genres(targets, 3), rng.random()
    if not counted.any():
        pytest.skip("a table without a counted genre")
    result = summary_metrics(targets, scores, genres, cut, min_positives=3)
    kept, ranked, decisions = targets[:, counted], scores[:, counted], predict_labels(scores, cut)[:, counted]
    assert result["macro_ap"] == pytest.approx(average_precision_score(kept, ranked, average="macro"), abs=1e-12)
    assert result["micro_auc"] == pytest.approx(roc_auc_score(kept, ranked, average="micro"), abs=1e-12)
    for average in ("macro", "micro"):
        expected = f1_score(kept, decisions, average=average, zero_division=0) if kept.shape[1] > 1 else None
        if expected is not None:
            assert result[f"{average}_f1"] == pytest.approx(expected, abs=1e-12)


def test_a_genre_without_positives_never_reaches_an_average():
    targets, scores, _ = random_posters(3)
    genres = [f"genre {number}" for number in range(targets.shape[1])]
    before = summary_metrics(targets, scores, genres, min_positives=1)
    targets, scores = np.insert(targets, 0, 0, axis=1), np.insert(scores, 0, 0.9, axis=1)
    after = summary_metrics(targets, scores, ["absent", *genres], min_positives=1)
    assert after == before | {"n_genres_total": len(genres) + 1}
    table = genre_table(targets, scores, ["absent", *genres], min_positives=1)
    assert np.isnan(table.loc["absent", "auc"]) and not table.loc["absent", "counted"]


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_beats_the_tuned_one(seed):
    targets, scores, _ = random_posters(seed)
    tuned = tune_thresholds(targets, scores, min_positives=1)
    for column in range(targets.shape[1]):
        truth = targets[:, column]
        candidates = np.append(np.unique(scores[:, column]), 1)
        yes = scores[:, [column]] >= candidates  # (posters, candidates)
        best = (2 * truth @ yes / (yes.sum(axis=0) + truth.sum())).max()
        chosen = predict_labels(scores[:, [column]], tuned[column]).ravel()
        assert f1_score(truth, chosen) == pytest.approx(best, abs=1e-12)
        if (scores[:, column] == np.float32(tuned[column])).any():  # only where there is nothing below it
            assert tuned[column] == 0


def test_a_paired_comparison_needs_the_same_posters():
    targets, scores, _ = random_posters(5)
    with pytest.raises(ValueError, match="must both be"):
        paired_difference(targets, scores, scores[:-1], [f"{n}" for n in range(targets.shape[1])], min_positives=1)


def without_a_poster(metric, targets, scores) -> float:
    "A metric as scikit-learn computes it; F1 at 0.5."
    average, _, kind = metric.partition("_")
    if kind == "f1":
        decisions = (scores >= 0.5).astype(float)
        return (
            f1_score(targets.ravel(), decisions.ravel())
            if average == "micro"
            else np.mean([f1_score(*columns) for columns in zip(targets.T, decisions.T, strict=True)])
        )
    return {"ap": average_precision_score, "auc": roc_auc_score}[kind](targets, scores, average=average)


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric != "loss"])
@pytest.mark.parametrize("seed", range(4))
def test_a_contribution_is_the_change_without_its_poster(seed, metric):
    "Ties included, also of labels of one poster."
    targets, scores, _ = random_posters(seed)
    targets, scores = np.vstack([targets[:30]] * 3), np.vstack([scores[:30]] * 3).round(1).astype(np.float64)
    targets, scores = np.hstack([targets, 1 - targets]), np.hstack([scores, scores])  # so that a label always remains
    targets[[0, 30, 60]] = np.arange(targets.shape[1]) % 2  # each genre has positives and negatives
    targets[[1, 31, 61]] = 1 - np.arange(targets.shape[1]) % 2
    n = len(targets)
    added = metric_contributions((targets, scores, np.full(targets.shape[1], 0.5, dtype=np.float32)), metric)
    whole, kept = without_a_poster(metric, targets, scores), ~np.eye(n, dtype=bool)
    for poster in range(0, n, 7):
        expected = (1 - 1 / n) * (whole - without_a_poster(metric, targets[kept[poster]], scores[kept[poster]]))
        assert added[poster] == pytest.approx(expected, abs=1e-12)


def test_no_metric_is_computed_once_per_poster(monkeypatch):
    calls = []
    for name in ("rank_posters", "average_precision", "roc_auc", "count_labels", "rank_labels"):
        plain = getattr(metrics, name)
        for module in (metrics, intervals):
            if hasattr(module, name):
                count = lambda *given, plain=plain, name=name: calls.append(name) or plain(*given)  # noqa: E731
                monkeypatch.setattr(module, name, count)
    numbers = []
    for n in (200, 400):
        rng = np.random.default_rng(0)
        targets = (rng.random((n, 4)) < 0.4).astype(float)
        calls.clear()
        table = intervals.summary_table(targets, rng.random((n, 4)), list("abcd"))
        assert table["low"].notna().all()
        numbers.append(len(calls))
    assert numbers[0] == numbers[1] < 100


def test_without_a_spread_there_is_a_reason_that_a_summary_can_hold(tmp_path):
    "A run must not fail at its very end because eleven of its genres have one positive each."
    targets = np.eye(60, 11)
    genres = [f"genre {number}" for number in range(11)]
    spread = confidence_interval(targets, targets / 2, genres, min_positives=1)
    assert spread["value"] == 1 and "too few positives" in spread["reason"]
    write_json(tmp_path / "summary.json", spread)
    evaluation = Evaluation(0.5, targets, targets / 2)
    figures = describe_split(evaluation, genres, np.full(11, 0.5), min_positives=1)
    assert figures["macro_ap"] == 1 and figures["macro_ap_spread"]["low"] is None
    write_json(tmp_path / "summary.json", figures)
