"""95 % intervals hold the truth about 95 times in 100; `interval_coverage.py` counts it for other methods too."""

import numpy as np
import pytest
from interval_coverage import GENRES, PREVALENCE, SKILL, coverage, draw, noise, true_ap

from postergenre.metrics.intervals import confidence_interval, genre_intervals, paired_difference
from postergenre.metrics.metrics import average_precision, rank_posters


def test_the_truth_is_that_of_many_posters():
    targets, scores = draw(200_000, np.random.default_rng(1))
    assert np.allclose(average_precision(rank_posters(targets, scores[0])), true_ap(PREVALENCE, SKILL), atol=0.015)
    assert true_ap(np.array([0.3]), np.array([0.0])) == pytest.approx(0.3, abs=1e-3)  # no skill


def test_intervals_hold_the_truth_as_often_as_they_claim():
    "250 repetitions: between 92 and 98 is what 95 looks like, except that few genres have ten of 200 posters."
    held = coverage(200, repetitions=250, seed=2)["ours"]
    assert len(held) == 19 and held.between(90, 99).all(), held
    for figure in ("AP", "macro AP", "equal models", "better model"):
        assert 93 <= held[held.index.str.startswith(f"{figure}, ")].mean() <= 97, held


def test_the_percentiles_of_a_bootstrap_do_not():
    "The simulation can tell a wrong interval from a right one."
    held = coverage(200, repetitions=100, n_resamples=100, seed=3)
    assert held.loc["macro AP, 5 to 50%", "percentile"] < 85 < 90 < held.loc["macro AP, 5 to 50%", "ours"]
    assert held.loc["macro AP, 5%", "basic"] < 92


def test_genres_that_barely_count_do_not_raise_an_average():
    "With 5 % of 200 posters, a genre counts if it has as many positives as are due, or more: its AP is too high."
    rng, truth, held = np.random.default_rng(4), true_ap(np.array([0.05]), np.array([1.1]))[0], []
    for _ in range(200):
        targets = (noise(200, 0.2, rng) > 1.645).astype(float)
        scores = 1 / (1 + np.exp(-1.1 * targets - noise(200, 0.3, rng)))
        found = confidence_interval(targets, scores, GENRES)
        held.append(found["low"] <= truth <= found["high"])
    assert np.mean(held) > 0.86, np.mean(held)


def test_six_positives_give_an_interval_that_ap_can_reach():
    "Neither 1.000 to 1.000, nor one that begins below the AP of the worst order."
    rng, targets = np.random.default_rng(0), np.zeros((200, 1))
    targets[:6] = 1
    worst = average_precision(rank_posters(targets, np.linspace(0, 0.5, 200)[:, None]))[0]
    for skill in (0.0, 0.5, 1.0, 1.5, 2.0):
        scores = 1 / (1 + np.exp(-skill * targets - rng.normal(size=targets.shape)))
        row = genre_intervals(targets, scores, ["News"], min_positives=5).loc["News"]
        ap = confidence_interval(targets, scores, ["News"], min_positives=5)["value"]
        assert worst - 1e-9 < row["ap_low"] <= ap <= row["ap_high"] < 1 and row["ap_high"] - row["ap_low"] > 0.05
    assert genre_intervals(targets, targets / 2, ["News"], min_positives=5).isna().all(axis=None)  # a perfect order


def test_too_few_positives_are_a_reason():
    targets, (scores, *_) = draw(200, np.random.default_rng(0))
    targets[:, 0] = np.arange(200) < 2
    for found in (
        confidence_interval(targets, scores, GENRES, min_positives=2),
        paired_difference(targets, scores, scores / 2, GENRES, min_positives=2),
    ):
        assert found["low"] is None and "an averaged genre has 2 among 200 posters" in found["reason"]
    spread = genre_intervals(targets, scores, GENRES, min_positives=2)
    assert spread.loc[GENRES[0]].isna().all() and spread.loc[GENRES[1:]].notna().all(axis=None)


def test_twenty_genres_take_little_time():
    import time

    rng = np.random.default_rng(0)
    targets = (rng.random((1000, 20)) < np.geomspace(0.05, 0.5, 20)).astype(float)
    scores = 1 / (1 + np.exp(-targets - rng.normal(size=targets.shape)))
    names, began = [f"genre {number}" for number in range(20)], time.process_time()
    confidence_interval(targets, scores, names)
    paired_difference(targets, scores, scores**2, names)
    genre_intervals(targets, scores, names)
    assert time.process_time() - began < 1  # 0.05 s; a thousand resamples took 1.2 s
