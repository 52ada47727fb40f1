"""Tables of the measured times, what was aimed at, and the text of bench/README.md."""

import pandas as pd
import torch

from bench.competitors.run import COMPETITORS
from bench.competitors.work import read_work
from bench.measure import LABELS, processor
from bench.params import BenchParams
from postergenre.paths import resolve_path, runs_path, write_atomically
from postergenre.report.comparison import markdown, replace_part

TARGETS = (  # job, against whom, times faster on a CPU, and on a GPU
    ("head", "fastai", 30.0, 10.0),
    ("finetune", "best competitor", 1.4, None),
    ("finetune", "fastai", None, 2.5),
    ("finetune", "limit", 0.95, 0.9),
    ("predict", "fastai", 5.0, 3.0),
)
FP32_DIFFERENCE = 0.02  # largest allowed difference of the scores of a folder
START = (15.0, 20.0)  # seconds from the start of a process to its first training step, on a CPU and on a GPU


def speed_column(job: str) -> str:
    "Return the column by which a job is judged: the time of a stage, or posters per second."
    return "wall_seconds" if job == "head" else "posters_per_second"


def summarize(
    values: pd.Series,
    digits: int,
) -> str:
    "Return the median, with lowest and highest if there are several values."
    middle = f"{values.median():,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({values.min():,.{digits}f} to {values.max():,.{digits}f})"


def ratio_table(
    table: pd.DataFrame,  # from `run_bench`
) -> pd.DataFrame:
    "Return one row per job and contender: how many times faster this project is, and the share of the limit."
    rows = []
    for job in table["job"].unique():
        part = table[table["job"] == job]
        median = part.groupby("contender", sort=False)[speed_column(job)].median()
        own, limit = median.get("postergenre"), median.get("limit")
        for contender, value in sorted(median.items(), key=lambda item: item[0] == "limit"):
            mine = part[part["contender"] == contender]
            row = {"job": LABELS[job], "contender": contender}
            row["precision"] = "" if job == "decode" else mine["precision"].iloc[0]
            row["seconds"] = summarize(mine["wall_seconds"], 1) if job == "head" else ""
            row["posters/s"] = "" if job == "head" else summarize(mine["posters_per_second"], 1)
            compared = own is not None and contender in COMPETITORS
            row["ours is faster by"] = f"{value / own if job == 'head' else own / value:.1f}" if compared else ""
            row["share of the limit"] = f"{value / limit:.2f}" if limit and contender != "limit" else ""
            row["macro AP"] = f"{mine['macro_ap'].mean():.3f}" if job == "head" else ""
            rows.append(row)
    return pd.DataFrame(rows).set_index("job")


def stages_table(
    table: pd.DataFrame,  # from `run_bench`
) -> pd.DataFrame:
    "Return seconds per stage of this project's jobs in the last repeat; `to the first step` includes the start."
    rows = {}
    for job in ("head", "finetune"):
        mine = table[(table["job"] == job) & (table["contender"] == "postergenre")]
        if len(mine):
            last = mine.iloc[-1]
            rows[LABELS[job]] = {"to the first step": last["start_seconds"], **last["stages"]}
    return pd.DataFrame(rows).T.round(1).astype(object).fillna("").rename_axis("job")


def condition_for(
    job: str,
    against: str,  # a contender
    part: pd.DataFrame,  # rows of the job, from `run_bench`
) -> tuple[str, bool]:
    "Return what must be true for a speed to count, in words and figures, and whether it is true."
    own = part[part["contender"] == "postergenre"]
    if part["sitting"].nunique() > 1:
        return "both sides were measured in one run", False
    if job == "head":
        ours, theirs = own["macro_ap"].mean(), part.loc[part["contender"] == against, "macro_ap"].mean()
        return f"macro AP {ours:.3f} is no less than {theirs:.3f}", bool(ours >= theirs)
    if job == "predict":
        most = own["max_difference_to_fp32"].max()
        return f"scores differ from fp32 by {FP32_DIFFERENCE:g} at most: {most:.3f}", bool(most <= FP32_DIFFERENCE)
    return "", True


def targets_table(
    table: pd.DataFrame,  # from `run_bench`
) -> pd.DataFrame:
    "Return what was aimed at and what was reached, if both sides were measured."
    rows = []
    for job, against, on_processor, on_gpu in TARGETS:
        target = on_gpu if torch.cuda.is_available() else on_processor
        part = table[table["job"] == job]
        median = part.groupby("contender")[speed_column(job)].median()
        competitors = median[median.index.isin(COMPETITORS)]
        other = competitors.max() if against == "best competitor" and len(competitors) else median.get(against)
        if target is None or other is None or "postergenre" not in median:
            continue
        reached = median["postergenre"] / other if job != "head" else other / median["postergenre"]
        provided, holds = condition_for(job, against, part)
        row = {"job": LABELS[job], "against": against, "target": target, "reached": round(reached, 2)}
        rows.append({**row, "provided that": provided, "met": bool(reached >= target and holds)})
    own = table[(table["job"] == "finetune") & (table["contender"] == "postergenre")]
    if "start_seconds" in own and own["start_seconds"].notna().any():
        target, reached = START[torch.cuda.is_available()], own["start_seconds"].median()
        row = {"job": LABELS["finetune"], "against": "the clock, in seconds to its first step", "target": target}
        rows.append({**row, "reached": round(reached, 2), "provided that": "", "met": bool(reached < target)})
    return pd.DataFrame(rows)


def write_results(
    params: BenchParams,
    table: pd.DataFrame,  # from `run_bench`
    ratios: pd.DataFrame,  # from `ratio_table`
    targets: pd.DataFrame,  # from `targets_table`
) -> None:
    "Write `bench.md`, and replace the results in the file that the parameter `readme` names."
    work = read_work(runs_path() / params.experiment_name / "work")
    sittings = "one run" if table["sitting"].nunique() == 1 else "several runs"
    words = [
        f"Measured in {sittings} on {processor()}: {len(work.paths('train')):,} posters to train on and "
        f"{len(work.paths('valid')):,} to validate, {work.img_size[0]} x {work.img_size[1]} pixels, batches of "
        f"{work.batch_size}; medians, with lowest and highest if there are repeats (head stage: "
        f"{params.head_repeats}, else {params.repeats}). Of a fine-tuning epoch, the second one counts.",
        "The limit is this project's own step, in its precision.",
    ]
    if "compiled" in set(table["contender"]):
        words.insert(1, "`compiled` counts both, with the time to compile.")
    text = f"{' '.join(words)}\n\n{markdown(ratios)}"
    if len(targets):
        text += "\n\nTimes faster, or the share of the limit, next to what was aimed at:\n\n"
        text += markdown(targets.set_index("job"))
    stages = stages_table(table)
    if len(stages):
        text += f"\n\nTime of this project's own jobs by stage, in seconds:\n\n{markdown(stages)}"
    with write_atomically(runs_path() / params.experiment_name / "bench.md") as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")
    if params.readme:
        replace_part(resolve_path(params.readme), "benchmark", text)
