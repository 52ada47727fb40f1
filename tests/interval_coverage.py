"""How often 95 % intervals hold the truth: this project's and five from the bootstrap, on drawn posters of known AP.

`python tests/interval_coverage.py 200 1000` draws 200 posters 1,000 times, which takes minutes, and prints a table in
percent. Sixteen genres have a prevalence of 5, 10, 20 or 50 %. Their scores are normal noise, plus `SKILL` for a
positive. Labels and noise are correlated, as they are on real posters. Models a and b are equally good; c is better.

Five intervals come from the bootstrap, in which as many posters are drawn from the measured ones, with repetition, a
few hundred times (Davison and Hinkley, Bootstrap Methods and their Application, 1997, chapter 5). Three are in
`scipy.stats.bootstrap`, but one resample without a positive makes its interval (nan, nan).
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy import integrate, special, stats

from postergenre.metrics.intervals import confidence_interval, genre_intervals, paired_difference
from postergenre.metrics.metrics import Ranking, evaluable_genres, rank_posters

SHARES = [0.05, 0.1, 0.2, 0.5]
PREVALENCE = np.repeat(SHARES, 4)
SKILL = np.tile([0.6, 1.1, 1.6, 2.1], 4)
BETTER = 0.2  # more skill of model c
GENRES = [f"{share:.0%} {skill}" for share, skill in zip(PREVALENCE, SKILL, strict=True)]
# genres that are averaged: those of each prevalence, and all
AVERAGED = {f"{share:.0%}": share == PREVALENCE for share in SHARES} | {"5 to 50%": PREVALENCE > 0}
FIGURES = [
    *(f"AP, {share:.0%}" for share in PREVALENCE),
    *(f"{name}, {share}" for name in ("macro AP", "equal models", "better model") for share in AVERAGED),
]


def true_ap(prevalence: np.ndarray, skill: np.ndarray) -> np.ndarray:
    "Return (genres,) AP of infinitely many posters, as an integral over the threshold."
    cut = np.linspace(-8, 11, 4000)[:, None]
    found, wrong = prevalence * stats.norm.sf(cut - skill), (1 - prevalence) * stats.norm.sf(cut)
    return integrate.trapezoid(stats.norm.pdf(cut - skill) * found / (found + wrong), cut, axis=0)


def noise(n_posters: int, shared: float, rng: np.random.Generator) -> np.ndarray:
    "Return (posters, genres) normal noise; `shared` of its variance is common to the genres of a poster."
    common, own = rng.normal(size=(n_posters, 1)), rng.normal(size=(n_posters, len(GENRES)))
    return np.sqrt(shared) * common + np.sqrt(1 - shared) * own


def draw(n_posters: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    "Return targets, and scores of models a, b and c: each (posters, genres)."
    targets = (noise(n_posters, 0.2, rng) > stats.norm.isf(PREVALENCE)).astype(float)
    common = noise(n_posters, 0.3, rng)
    scores = [
        skill * targets + np.sqrt(0.6) * common + np.sqrt(0.4) * noise(n_posters, 0.3, rng)
        for skill in (SKILL, SKILL, SKILL + BETTER)
    ]
    return targets, [special.expit(values / 4) for values in scores]  # / 4, so that none is rounded to 1


def figures_as_sums(counted: np.ndarray) -> np.ndarray:
    "Return (figures, 3 models x genres): what each figure is of the APs; NaN where no genre counts."
    genres = len(GENRES)
    rows = [np.where(np.arange(3 * genres) == genre, 1, 0 if counted[genre] else np.nan) for genre in range(genres)]
    for a, b, c in [(1, 0, 0), (-1, 1, 0), (-1, 0, 1)]:
        for averaged in AVERAGED.values():
            mean = (averaged & counted) / (averaged & counted).sum()
            rows.append(np.concatenate([a * mean, b * mean, c * mean]))
    return np.array(rows)


def measure(ranking: Ranking, weights: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Return (figures,) of a resample, and (figures, posters) the influence of each poster; scores without ties."
    counts = weights[ranking.poster]
    hits = counts * ranking.target
    seen = np.maximum(np.cumsum(counts, axis=1), 1)
    precision, positives = np.cumsum(hits, axis=1) / seen, np.maximum(hits.sum(axis=1, keepdims=True), 1)
    ap = (hits * precision).sum(axis=1, keepdims=True) / positives
    below = np.cumsum((hits * (ranking.target - precision) / seen)[:, ::-1], axis=1)[:, ::-1]
    below_wrong = np.cumsum((hits * precision / seen)[:, ::-1], axis=1)[:, ::-1]
    ranked = np.where(ranking.target > 0, precision - ap + below, -below_wrong) * len(weights) / positives
    influence = np.empty_like(ranked)
    np.put_along_axis(influence, ranking.poster, ranked, axis=1)
    return sums @ ap[:, 0], sums @ influence


def bca(value: float, drawn: np.ndarray, influence: np.ndarray) -> np.ndarray:
    "Return the ends of one BCa interval."
    shift = stats.norm.ppf(np.clip((drawn < value).mean(), 0.001, 0.999))
    skew = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    ends = shift + stats.norm.ppf([0.025, 0.975])
    return np.quantile(drawn, stats.norm.cdf(shift + ends / (1 - skew * ends)))


def bootstrap_intervals(
    targets: np.ndarray, scores: list[np.ndarray], sums: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    "Return {method: (low, high)}, each (figures,); `sums` has no NaN."
    ranking, n = rank_posters(np.tile(targets, 3), np.hstack(scores)), len(targets)
    value, influence = measure(ranking, np.ones(n), sums)
    sd, drawn, sds = np.sqrt((influence**2).sum(axis=1)) / n, [], []
    for weights in rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(float):
        figures, its_influence = measure(ranking, weights, sums)
        drawn.append(figures)
        sds.append(np.sqrt(its_influence**2 @ weights) / n)
    drawn, sds = np.array(drawn), np.array(sds)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    t_low, t_high = np.quantile((drawn - value) / np.maximum(sds, 1e-6), [0.025, 0.975], axis=0)
    half, is_ap = 1.96 * drawn.std(axis=0, ddof=1), sums.min(axis=1) >= 0
    middle, slope = (
        np.where(is_ap, special.logit(np.clip(value, 0.01, 0.99)), value),
        np.clip(value * (1 - value), 0.01, 1),
    )
    ends = [np.where(is_ap, special.expit(middle + sign * half / slope), value + sign * half) for sign in (-1, 1)]
    return {
        "percentile": (low, high),
        "basic": (2 * value - high, 2 * value - low),
        "BCa": np.transpose([bca(*column) for column in zip(value, drawn.T, influence, strict=True)]),
        "studentised": (value - t_high * sd, value - t_low * sd),
        "logit": ends,
    }


def our_intervals(targets: np.ndarray, scores: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    "Return low and high, each (figures,), as `postergenre.metrics.intervals` gives them; NaN where it gives none."
    found = [genre_intervals(targets, scores[0], GENRES).reindex(GENRES)[["ap_low", "ap_high"]].to_numpy()]
    for calculate, given in [(confidence_interval, [0]), (paired_difference, [0, 1]), (paired_difference, [0, 2])]:
        for averaged in AVERAGED.values():
            names = [genre for genre, kept in zip(GENRES, averaged, strict=True) if kept]
            if not evaluable_genres(targets[:, averaged]).any():
                found.append([[np.nan, np.nan]])
                continue
            result = calculate(targets[:, averaged], *(scores[model][:, averaged] for model in given), names)
            found.append([[np.nan if result[end] is None else result[end] for end in ("low", "high")]])
    low, high = np.vstack(found).T
    return low, high


def coverage(
    n_posters: int,
    repetitions: int,
    n_resamples: int = 0,  # of the bootstrap; 0: only this project's intervals
    seed: int = 0,
) -> pd.DataFrame:
    "Return in percent, per figure and method, the intervals that hold the truth, and in `shown` those that there are."
    rng, held = np.random.default_rng(seed), {}
    true = np.concatenate([true_ap(PREVALENCE, skill) for skill in (SKILL, SKILL, SKILL + BETTER)])
    for _ in range(repetitions):
        targets, scores = draw(n_posters, rng)
        with np.errstate(invalid="ignore"):
            sums = figures_as_sums(evaluable_genres(targets))
        there = np.isfinite(sums).all(axis=1)
        truth = sums[there] @ true
        ends = bootstrap_intervals(targets, scores, sums[there], n_resamples, rng) if n_resamples else {}
        ends["ours"] = [end[there] for end in our_intervals(targets, scores)]
        for method, (low, high) in ends.items():
            row = np.full(len(FIGURES), np.nan)
            row[there] = np.where(np.isfinite(low), (low <= truth) & (truth <= high), np.nan)
            held.setdefault(method, []).append(row)
    tables = {
        method: pd.DataFrame(rows, columns=FIGURES).T.groupby(level=0, sort=False) for method, rows in held.items()
    }
    shown = tables["ours"].apply(lambda rows: rows.notna().mean(axis=None))
    covered = {method: table.apply(lambda rows: np.nanmean(rows)) for method, table in tables.items()}
    return 100 * pd.DataFrame(covered | {"shown": shown})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("posters", type=int)
    parser.add_argument("repetitions", type=int)
    parser.add_argument("--resamples", type=int, default=300, help="of the bootstrap; 0: only this project's intervals")
    given, began = parser.parse_args(), time.monotonic()
    print(coverage(given.posters, given.repetitions, given.resamples).round(1).to_string())
    print(f"{given.posters} posters, {given.repetitions} repetitions: {time.monotonic() - began:.0f} s")
