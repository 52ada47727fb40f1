"""What the words on posters add: alone and with the image, by number of training posters, with and without names.

The image is judged once, by a finished run. The words are fitted on its training posters and judged on its validation
and test posters together; the weight for each of the two splits is chosen on the other.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from postergenre.data.experiment import cache_folder
from postergenre.data.split import targets_of
from postergenre.errors import ConfigError
from postergenre.metrics.intervals import verdict_of
from postergenre.params import Schema, parameter
from postergenre.report.predictions import FinishedRun, open_finished, scores_of_split
from postergenre.text.reading import read_posters
from postergenre.text.words import add_evidence, choose_weight, fit_words, judge_words, strongest_words


class StudyTextParams(Schema):
    "Parameters of the study `study_text`."

    experiment_name: str = parameter("head", "finished run whose scores are used: a folder below runs/")
    sizes: list[int] = parameter([125, 250, 500, 1000], "numbers of training posters; all are added at the end")
    repeats: int = parameter(3, "draws of training posters per number", ge=1)
    n_posters: int | None = parameter(None, "number used of each split, evenly spread; none: all", "posters", ge=10)


@dataclass(frozen=True)
class Posters:
    "Some posters with their words, and their scores by the network if they are judged."

    texts: list[str]
    targets: np.ndarray  # (posters, genres), 0 or 1
    scores: np.ndarray | None = None  # (posters, genres)


@dataclass(frozen=True)
class Study:
    "The posters of a run, read."

    run: FinishedRun
    train: Posters
    judged: dict[str, Posters]  # validation and test posters

    @property
    def targets(self) -> np.ndarray:
        return np.concatenate([part.targets for part in self.judged.values()])

    @property
    def image(self) -> np.ndarray:
        return np.concatenate([part.scores for part in self.judged.values()])


def read_study(params: StudyTextParams) -> Study:
    "Open the run, and read its posters, or take their words from the cache."
    run, parts = open_finished(params.experiment_name), {}
    for split in ("train", "valid", "test"):
        frame = getattr(run.data, split)
        n = min(params.n_posters or len(frame), len(frame))
        rows = np.unique(np.linspace(0, len(frame) - 1, n).round().astype(int))
        scores = None if split == "train" else scores_of_split(run, split).scores[rows]
        texts = read_posters(cache_folder(run.params), frame["path"].iloc[rows])
        parts[split] = Posters(texts, targets_of(frame.iloc[rows], run.genres), scores)
    return Study(run, parts.pop("train"), parts)


def judge(study: Study, rows: np.ndarray, change: Callable[[str], str] = str) -> dict[str, Any]:
    "Fit the words on some training posters, each text changed first; return the figures of `judge_words` and seconds."
    began, enough = time.perf_counter(), study.run.params.min_positives
    model = fit_words([change(study.train.texts[row]) for row in rows], study.train.targets[rows], study.run.genres)
    texts = {split: [change(text) for text in part.texts] for split, part in study.judged.items()}
    evidence = {split: model.evidence(texts[split]) for split in texts}
    weights = {s: choose_weight(p.targets, p.scores, evidence[s], enough) for s, p in study.judged.items()}
    other = dict(zip(weights, reversed(weights.values()), strict=True))
    both = [add_evidence(part.scores, evidence[s], other[s]) for s, part in study.judged.items()]
    alone = [model.scores(texts[split]) for split in texts]
    scores = {"image": study.image, "text": np.concatenate(alone), "both": np.concatenate(both)}
    found = judge_words(study.targets, scores, study.run.genres, enough)
    return found | {"weights": other, "seconds": time.perf_counter() - began}


def _row(found: dict[str, Any]) -> dict[str, Any]:
    "Return the figures of one row of a table."
    compared = found["comparison"]
    return {
        "words alone": found["text"],
        "image alone": found["image"],
        "both": found["both"],
        "gain": compared["difference"],
        "95 % from": compared["low"],
        "95 % to": compared["high"],
        "both is": verdict_of(compared),
        "weights": ", ".join(f"{weight:g}" for weight in found["weights"].values()),
        "seconds": found["seconds"],
    }


def by_size(study: Study, params: StudyTextParams) -> pd.DataFrame:
    "Return one row per number of training posters and draw; the largest number is all of them."
    total, rows = len(study.train.texts), []
    for size in [*(size for size in params.sizes if size < total), total]:
        for draw in range(params.repeats if size < total else 1):
            chosen = np.random.default_rng(draw).permutation(total)[:size]
            try:
                rows.append({"training posters": size, "draw": draw} | _row(judge(study, chosen)))
            except ConfigError as error:
                print(f"{size} training posters: {error}")
    return pd.DataFrame(rows)


def plot_sizes(table: pd.DataFrame) -> Figure:
    "Plot macro AP over the number of training posters; bars are the interval of the gain over the image alone."
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes, means = figure.subplots(), table.groupby("training posters").mean(numeric_only=True)
    for name in ("words alone", "image alone", "both"):
        axes.plot(means.index, means[name], ".-", label=name)
    low, high = means["both"] - means["image alone"] - means["95 % from"], means["95 % to"] - means["gain"]
    if low.notna().all():
        axes.errorbar(means.index, means["both"], [low.clip(0), high.clip(0)], fmt="none", color="C2", capsize=3)
    axes.set_xscale("log")
    axes.set_xticks(means.index, [f"{n:,}" for n in means.index])
    axes.minorticks_off()
    axes.set_xlabel("training posters of the words")
    axes.set_ylabel("macro AP")
    axes.legend()
    return figure


def first_names() -> frozenset[str]:
    "Return common first names in lower case; raise `ConfigError` if the package that lists them is missing."
    try:
        import names
    except ImportError:
        raise ConfigError("Names of people cannot be told from words: `pip install names` lists first names.") from None
    found = set()
    for kind in ("male", "female"):
        with open(names.full_path(f"dist.{kind}.first"), encoding="utf-8") as file:
            found |= {line.split()[0].lower() for line in file if float(line.split()[2]) < 85}
    return frozenset(found)


def split_names(text: str, first: frozenset[str]) -> tuple[str, str]:
    "Return the names of people in a text and its other words: a name is a first name and the word after it."
    people, others = [], []
    for line in text.splitlines():
        is_name = False
        words = re.findall(r"[^\W_]+", line)
        for place, word in enumerate(words):
            starts = word.lower() in first and place + 1 < len(words)
            (people if is_name or starts else others).append(word)
            is_name = starts
        others.append("\n")
    return " ".join(people), " ".join(others)


def by_kind(study: Study) -> pd.DataFrame:
    "Return a row for all words, for the names of people alone, and for all other words."
    kinds: dict[str, Callable[[str], str]] = {"all words": str}
    try:
        first = first_names()
        kinds |= {"names of people": lambda text: split_names(text, first)[0]}
        kinds |= {"all but names": lambda text: split_names(text, first)[1]}
    except ConfigError as error:
        print(error)
    everything, rows = np.arange(len(study.train.texts)), []
    for kind, change in kinds.items():
        n_words = np.mean([len(change(text).split()) for text in study.train.texts])
        rows.append({"words": kind, "per poster": n_words} | _row(judge(study, everything, change)))
    return pd.DataFrame(rows)


def telling(study: Study, n: int = 12) -> dict[str, Sequence[str]]:
    "Return the words that speak most for each genre that can be evaluated."
    model = fit_words(study.train.texts, study.train.targets, study.run.genres)
    enough = study.train.targets.sum(axis=0) >= study.run.params.min_positives
    return {genre: strongest_words(model, genre, n) for genre, kept in zip(model.genres, enough, strict=True) if kept}
