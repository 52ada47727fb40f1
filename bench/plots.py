"""A plot of the measured times."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from bench.measure import LABELS
from bench.results import speed_column


def plot_bench(
    table: pd.DataFrame,  # from `run_bench`
) -> Figure:
    "Plot one panel per job: a bar for each contender's median, a dot for each repeat, a line for the limit."
    jobs = [job for job in table["job"].unique() if job != "decode"]
    figure, axes = plt.subplots(1, len(jobs), figsize=(3.4 * len(jobs), 2.6), layout="constrained", squeeze=False)
    for axis, job in zip(axes[0], jobs, strict=True):
        part, column = table[table["job"] == job], speed_column(job)
        median = part[part["contender"] != "limit"].groupby("contender")[column].median().sort_values()
        colors = ["#0072b2" if contender == "postergenre" else "#bbbbbb" for contender in median.index]
        axis.barh(median.index, median, color=colors)
        for place, contender in enumerate(median.index):
            values = part.loc[part["contender"] == contender, column]
            axis.plot(values, [place] * len(values), ".", color="black", markersize=4)
        limit = part.loc[part["contender"] == "limit", column]
        if len(limit):
            axis.axvline(limit.median(), color="#d55e00", linestyle="--", label="limit")
            axis.legend(fontsize=8, loc="lower right", framealpha=1)
        axis.set(title=LABELS[job], xlabel="seconds, less is better" if job == "head" else "posters/s, more is better")
        axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure
