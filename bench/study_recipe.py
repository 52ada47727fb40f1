"""What fine-tuning adds to the head, what each overlay adds to fine-tuning, and what either costs.

A sweep trains the runs: the recipe of `params/full.yaml`, and every overlay of it. All choices are made on validation
posters; `tested` measures the recipe on test posters.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import special

from postergenre.errors import ConfigError
from postergenre.params import Schema, parameter
from postergenre.paths import runs_path
from postergenre.sweep.outcome import (
    choose_variant,
    interval_of,
    measure_runs,
    measured_variants,
    on_same_posters,
    planned_runs,
    scored_test_posters,
    scored_valid_posters,
    spread_of,
    verdict,
)
from postergenre.sweep.plan import Plan, PlannedRun
from postergenre.train.runs import SUMMARY, read_json
from postergenre.values import Flag


class StudyRecipeParams(Schema):
    "Parameters of the study `study_recipe`."

    sweep: str = parameter("bench/study_recipe.yaml", "sweep file of the recipe and its overlays", min_length=1)
    test: Flag = parameter(False, "measure the recipe and its head on test posters, for good")


def finished_runs(plan: Plan) -> dict[str, list[PlannedRun]]:
    "Return the runs of the head and of each finished variant; raise `ConfigError` if the base is not finished."
    table, _ = measured_variants(plan)
    if table.loc["base", "state"] != "finished":
        raise ConfigError(
            f"The base of {plan.origin} is not finished. Train the runs first: see the top of the notebook."
        )
    variants = {name: runs for name, runs in planned_runs(plan).items() if table.loc[name, "state"] == "finished"}
    return {"head": plan.heads, **variants}


def label_of(runs: list[PlannedRun]) -> str:
    "Return what a variant is called in tables and plots."
    names = {"head": "head", "base": "full"}
    return names.get(runs[0].variant) or ", ".join(str(value) for value in runs[0].settings.values())


def seconds_of(runs: list[PlannedRun]) -> float:
    "Return the mean of the seconds that a run takes."
    return float(np.mean([read_json(runs_path() / run.name / SUMMARY, "seconds")["seconds"] for run in runs]))


def with_the_head(
    runs: list[PlannedRun],
    predictions: Callable,
) -> Callable:
    "Return the predictions of an ensemble of each run and the head from which it started: the mean of their logits."
    heads = {run.name: run.params.checkpoint_name for run in runs}

    def averaged(run: str) -> tuple[list[str], np.ndarray, np.ndarray]:
        genres, targets, scores = predictions(run)
        _, _, first = predictions(heads[run])
        logits = [special.logit(np.clip(each, 1e-6, 1 - 1e-6)) for each in (scores, first)]  # six digits are stored
        return genres, targets, special.expit(np.mean(logits, axis=0))

    return averaged


def measure_stages(
    plan: Plan,
    predictions: Callable = scored_valid_posters,
    names: list[str] | None = None,  # variants to measure; none: all that are finished
) -> pd.DataFrame:
    "Return label, macro AP (a `Measured`) and seconds of the head, of each variant, and of the base with its head."
    found = {name: runs for name, runs in finished_runs(plan).items() if names is None or name in names}
    head = seconds_of(plan.heads)
    rows = {}
    for name, runs in found.items():
        seconds = seconds_of(runs) + (head if name != "head" else 0)
        rows[name] = {"variant": label_of(runs), "measured": measure_runs(runs, predictions), "seconds": seconds}
    if "base" in found:
        both = measure_runs(found["base"], with_the_head(found["base"], predictions))
        rows["base and head"] = {"variant": "full and head", "measured": both, "seconds": rows["base"]["seconds"]}
    return pd.DataFrame.from_dict(rows, orient="index")


def compare_with(
    stages: pd.DataFrame,  # from `measure_stages`
    reference: str,  # row that the others are compared with
) -> pd.DataFrame:
    "Return macro AP of each row, and by how much it is above the reference, both with 95 % intervals."
    rows = []
    for name, stage in stages.iterrows():
        measured = stage["measured"]
        low, high = interval_of(measured)
        row = {"variant": stage["variant"], "macro_ap": measured.value, "low": low, "high": high}
        row |= {"no_skill": measured.floor, **_gain(stages["measured"], name, reference), "seconds": stage["seconds"]}
        rows.append(row)
    table = pd.DataFrame(rows).set_index("variant")
    return table.sort_values("macro_ap", ascending=False, kind="stable")


def _gain(measured: pd.Series, name: str, reference: str) -> dict[str, object]:
    "Return by how much a variant is above the reference, with the interval and the verdict of the comparison."
    if name == reference or reference not in measured:
        return {"gain": np.nan, "gain_low": np.nan, "gain_high": np.nan, "verdict": ""}
    difference, comparisons = measured[name] - measured[reference], max(1, len(measured) - 1)
    half = spread_of(difference).half_width()
    ends = {"gain_low": difference.value - half, "gain_high": difference.value + half}
    return {"gain": difference.value, **ends, "verdict": verdict(difference, comparisons)}


def learning_curves(plan: Plan, name: str) -> pd.DataFrame:
    "Return macro AP on validation posters after each epoch, and the seconds until then: means over a variant's runs."
    curves = []
    for run in finished_runs(plan)[name]:
        folder = runs_path() / run.name
        epochs = pd.read_csv(folder / "metrics.csv")
        start = read_json(folder / SUMMARY, "seconds")["seconds"] - epochs["seconds"].sum()  # data, features, results
        curves.append(pd.DataFrame({"seconds": start + epochs["seconds"].cumsum(), "macro_ap": epochs["macro_ap"]}))
    return pd.concat(curves, keys=range(len(curves))).groupby(level=1).mean()


def plot_frontier(
    plan: Plan,
    compared: pd.DataFrame,  # from `compare_with`, of the same plan
) -> Figure:
    "Plot macro AP over seconds: the head, fine-tuning from it, and where each overlay ends."
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    head, full = learning_curves(plan, "head"), learning_curves(plan, "base")
    start, best = compared.loc["head", ["seconds", "macro_ap"]]
    axes.plot(head["seconds"], head["macro_ap"], marker=".", label="head")
    seconds, values = [start, *(start + full["seconds"])], [best, *full["macro_ap"]]
    axes.plot(seconds, values, marker=".", label="full, from the best epoch of each head")
    both = compared.loc["full and head"]
    axes.plot(both["seconds"], both["macro_ap"], "D", label="full and head, logits averaged")
    others = compared.drop(["head", "full", "full and head"])
    axes.scatter(others["seconds"], others["macro_ap"], marker="x", color="0.4", label="full with an overlay")
    line = {"arrowstyle": "-", "color": "0.8", "linewidth": 0.7, "relpos": (0, 0.5)}
    for place, (label, at) in enumerate(others[["seconds", "macro_ap"]].iterrows()):  # the highest first
        to = (1.03, 0.95 - 0.055 * place)
        axes.annotate(
            label, at, to, textcoords="axes fraction", arrowprops=line, fontsize=7, verticalalignment="center"
        )
    axes.set_xlabel("seconds of head and fine-tuning together")
    axes.set_ylabel("macro AP on validation posters")
    axes.legend(loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def tested(plan: Plan) -> pd.DataFrame:
    "Choose the recipe for good, and compare it with its head on test posters, which no choice may follow."
    choose_variant(plan, "base")
    stages = measure_stages(plan, scored_test_posters, ["head", "base"])
    stages["measured"] = stages["measured"].map(on_same_posters)
    return compare_with(stages, "head")
