"""Measure how the cost of each part grows with the number of posters: nice -n 12 python -m bench.scale [--rows N ...]

Draws folders of tiny, mostly different pictures, and runs each part in a process of its own. Seconds are processor
time, because other programs on the machine would change the time of day. With --paper it measures instead what a poster
of usual size costs, and estimates from this what 10 million of them would cost on 32 machines.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from bench.paper import estimate, measure_parts

GENRES = [f"Genre {number:02d}" for number in range(23)]
SIZE = (24, 16)  # height and width of the cached posters, pixels: small, so that decoding them does not decide
SAME = 0.01  # share of pictures that are files with the bytes of another, and share that are saved again smaller


def draw_folder(
    folder: Path,
    n: int,  # number of posters
    links: int = 0,  # number of different files that all names link to; 0: nearly every poster has a picture of its own
) -> None:
    "Write train.csv and Images/ with small pictures, some of which are copies of others."
    rng, images = np.random.default_rng(n), folder / "Images"
    images.mkdir(parents=True)
    n_drawn = links or n - 2 * int(SAME * n)
    for row in range(n):
        path = images / f"tt{row:07d}.jpg"
        if row < n_drawn:
            noise = rng.integers(0, 256, (27, 18), dtype=np.uint8)
            Image.fromarray(noise).resize((48, 72), Image.Resampling.BICUBIC).save(path, quality=80)
        elif links or row % 2:
            os.link(images / f"tt{row % n_drawn:07d}.jpg", path)
        else:
            with Image.open(images / f"tt{row - n_drawn:07d}.jpg") as image:
                image.save(path, quality=60)
    frequent = 1 / np.arange(1, 1 + len(GENRES))
    drawn = rng.random((n, len(GENRES))) < frequent
    drawn[~drawn.any(axis=1), 0] = True
    names = ["|".join(np.array(GENRES)[row]) for row in drawn]
    pd.DataFrame({"Id": [f"tt{row:07d}" for row in range(n)], "Genre": names}).to_csv(folder / "train.csv", index=False)


def remembered(folder: Path) -> Path:
    return folder / "pictures.npz"


def read_table(folder: Path) -> Callable[[], Any]:
    "Read the table and list the pictures."
    from postergenre.data.annotations import read_annotations

    return lambda: read_annotations(folder)


def audit(folder: Path) -> Callable[[], Any]:
    "Inspect all pictures, find the copies, and write what was found."
    from postergenre.data.annotations import read_annotations
    from postergenre.data.audit import check_pictures

    annotations = read_annotations(folder)
    return lambda: check_pictures(folder, annotations, remembered(folder))


def copies(folder: Path) -> Callable[[], Any]:
    "Find the copies alone, among pictures that are inspected already."
    from postergenre.data.copies import find_copies

    with np.load(remembered(folder)) as stored:
        _, first = np.unique(stored["digest"], return_index=True)
        thumbnails = stored["thumbnail"][np.sort(first)]
    return lambda: find_copies(thumbnails)


def copies_across(folder: Path) -> Callable[[], Any]:
    "Refuse a given split with copies on both sides."
    from postergenre.data.annotations import read_annotations
    from postergenre.data.audit import check_pictures
    from postergenre.data.tables import AuditError

    annotations = read_annotations(folder)
    annotations.table["split"] = np.random.default_rng(0).choice(["train", "valid"], len(annotations.table))

    def refuse() -> int:
        try:
            check_pictures(folder, annotations, remembered(folder))
        except AuditError as error:
            return len(str(error))
        raise RuntimeError("The copies across the splits were not found.")

    return refuse


def split(folder: Path) -> Callable[[], Any]:
    "Load the data: read, audited by an earlier job, split, hashed."
    from postergenre.data.split import load_data

    return lambda: load_data(folder, cache=remembered(folder))


def save_split(folder: Path) -> Callable[[], Any]:
    "Write the split into the folder of a run."
    from postergenre.data.split import load_data

    data = load_data(folder, cache=remembered(folder))
    return lambda: data.save(folder / "run")


def _paths(folder: Path) -> list[str]:
    return sorted(map(str, (folder / "Images").iterdir()))


def cache(folder: Path) -> Callable[[], Any]:
    "Decode the posters into the cache."
    from postergenre.data.cache import cached_posters

    paths = _paths(folder)
    return lambda: cached_posters(folder / "cache", paths, SIZE)


def cache_again(folder: Path) -> Callable[[], Any]:
    "Open the cache, and read every poster once in random order."
    from postergenre.data.cache import cached_posters

    paths = _paths(folder)

    def read() -> int:
        posters = cached_posters(folder / "cache", paths, SIZE)
        return sum(int(posters.load(paths[row])[0, 0, 0]) for row in np.random.default_rng(0).permutation(len(paths)))

    return read


def _scored(n: int) -> tuple[np.ndarray, np.ndarray]:
    "Return targets and scores of n posters."
    rng = np.random.default_rng(0)
    targets = (rng.random((n, len(GENRES))) < 1 / np.arange(2, 2 + len(GENRES))).astype(np.uint8)
    logits = 1.2 * targets + rng.normal(size=targets.shape) - 2
    return targets, (1 / (1 + np.exp(-logits))).astype(np.float32)


def thresholds(folder: Path) -> Callable[[], Any]:
    "Tune a threshold per genre."
    from postergenre.metrics.metrics import tune_thresholds

    given = _scored(rows_of(folder))
    return lambda: tune_thresholds(*given)


def genres(folder: Path) -> Callable[[], Any]:
    "Compute the metrics of each genre, and describe which genres are missing in the averages."
    from postergenre.metrics.metrics import describe_evaluable, genre_table

    targets, scores = _scored(rows_of(folder))
    return lambda: (genre_table(targets, scores, GENRES), describe_evaluable(targets, GENRES, len(targets) // 10))


def intervals(folder: Path) -> Callable[[], Any]:
    "Compute the intervals of all metrics and of each genre."
    from postergenre.metrics.intervals import genre_intervals, summary_table

    given = _scored(rows_of(folder))
    return lambda: (summary_table(*given, GENRES), genre_intervals(*given, GENRES))


def comparison(folder: Path) -> Callable[[], Any]:
    "Compare two runs by the files of their predictions."
    from postergenre.report.comparison import compare_runs

    targets, scores = _scored(rows_of(folder))
    true = ["|".join(np.array(GENRES)[row]) for row in targets.astype(bool)]
    for name, values in {"one": scores, "other": scores**1.1}.items():
        table = pd.DataFrame(values, columns=GENRES).round(6)
        table.insert(0, "Id", [f"tt{row:07d}" for row in range(len(table))])
        table.insert(1, "true", true)
        (folder / name).mkdir(exist_ok=True)
        table.to_csv(folder / name / "valid_predictions.csv", index=False)
        (folder / name / "params.yaml").write_text("min_positives: 10\n")
    del targets, scores, true, table
    return lambda: compare_runs(folder / "one", folder / "other")


def predictions(folder: Path) -> Callable[[], Any]:
    "Make the table of predictions in shards, and write it as one CSV file."
    from types import SimpleNamespace

    from postergenre.predict.scorer import predictions_table

    _, scores = _scored(rows_of(folder))
    predictor, step = SimpleNamespace(genres=GENRES, thresholds=np.full(len(GENRES), 0.5)), 4096  # a large shard

    def write() -> None:
        with (folder / "predictions.csv").open("w") as file:
            for start in range(0, len(scores), step):
                part = scores[start : start + step]
                names = [f"{row}.jpg" for row in range(start, start + len(part))]
                predictions_table(names, part, [""] * len(part), predictor).to_csv(file, index=False, header=not start)

    return write


def explore(folder: Path) -> Callable[[], Any]:
    "Read all posters, and build the first view of the page `explore`."
    from postergenre.data.split import remembered_pictures
    from postergenre.pages.explore import ExplorePage
    from postergenre.pages.gallery import read_posters
    from postergenre.params import Params

    os.environ["RUNS_PATH"] = str(folder / "runs")
    place = remembered_pictures(folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    os.link(remembered(folder), place)
    params = Params(root_path=str(folder))
    return lambda: ExplorePage(read_posters(params), params)


PARTS: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "read the table": read_table,
    "audit": audit,
    "search for copies": copies,
    "copies across splits": copies_across,
    "load and split": split,
    "write the split": save_split,
    "decode into the cache": cache,
    "read from the cache": cache_again,
    "thresholds": thresholds,
    "metrics per genre": genres,
    "confidence intervals": intervals,
    "comparison": comparison,
    "predictions as CSV": predictions,
    "explore, first view": explore,
}


def rows_of(folder: Path) -> int:
    "Return the number of posters, which is the name of the folder."
    return int(folder.name)


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def do_part(
    part: str,
    folder: Path,
) -> dict[str, float]:
    "Do one part in this process; return seconds and peak memory, both without what came before."
    work = PARTS[part](folder)
    before, started = _megabytes(), _processor_seconds()
    work()
    return {"seconds": _processor_seconds() - started, "MB": _megabytes(), "MB before": before}


def measure(
    part: str,
    folder: Path,
) -> dict[str, Any]:
    "Do one part in a process of its own."
    command = [sys.executable, "-m", "bench.scale", "--do", part, str(folder)]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(f"{part} failed with {folder.name} posters:\n{found.stderr}")
    return {"part": part, "rows": rows_of(folder), **json.loads(found.stdout.splitlines()[-1])}


def growth_table(
    measured: pd.DataFrame,  # part, rows, seconds, MB
) -> pd.DataFrame:
    "Return seconds and megabytes by part and number of rows, and the exponent of growth between the last two."
    seconds, memory = (
        measured.pivot(index="part", columns="rows", values=name).reindex(measured["part"].unique())
        for name in ("seconds", "MB")
    )
    table = pd.DataFrame({f"{rows:,}": seconds[rows].map("{:.2f} s".format) for rows in seconds})
    for rows in table:
        table[rows] += ", " + memory[int(rows.replace(",", ""))].map("{:,.0f} MB".format)
    sizes = list(seconds)
    for small, large in zip(sizes, sizes[1:], strict=False):
        steps = math.log(large / small)
        table[f"exponent {small:,} to {large:,}"] = (np.log(seconds[large] / seconds[small]) / steps).round(2)
    return table.rename_axis("part")


def main() -> None:
    "Measure and print."
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[3_000, 10_000, 30_000])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--links", type=int, default=0, help="number of different files; 0: nearly all differ")
    parser.add_argument("--folder", type=Path, help="where folders are drawn and kept; default: a temporary folder")
    parser.add_argument("--paper", action="store_true", help="estimate what 10 million posters would cost")
    parser.add_argument("--posters", type=Path, help="folder of pictures for --paper; default: demo posters")
    parser.add_argument("--do", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        print(json.dumps(do_part(given.do[0], Path(given.do[1]))))
        return
    if given.paper:
        print(estimate(measure_parts(given.posters)).to_frame("10 million posters, 32 machines").to_markdown())
        return
    with tempfile.TemporaryDirectory() as temporary:
        measured = []
        for n in given.rows:
            folder = (given.folder or Path(temporary)) / str(n)
            if not folder.exists():
                draw_folder(folder, n, given.links)
            for part in given.parts:
                measured.append(measure(part, folder))
                print("{rows:,} {part}: {seconds:.2f} s, {MB:,.0f} MB".format(**measured[-1]), file=sys.stderr)
    print(growth_table(pd.DataFrame(measured)).to_markdown())


if __name__ == "__main__":
    main()
