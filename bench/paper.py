"""Estimate what predicting millions of posters costs, from parts measured on one core: python -m bench.scale --paper

Seconds are processor time. Each part runs in a process of its own. A prediction job is run with two numbers of posters:
the difference gives the time per poster, and the rest is what every process pays before its first poster.
"""

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

MODEL, IMG_SIZE = "tf_efficientnet_lite0", (288, 192)
FEW, MANY = 512, 1536  # numbers of posters of the two prediction jobs
NAMES, LINKS = 1_000_000, 20_000  # names in the measured list, and files in the measured folder
SHARD = 4096  # images per shard, as the job chooses for that many


def _usage() -> tuple[float, float]:
    "Return processor seconds and peak memory (MB) of this process."
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def write_model(folder: Path) -> dict[str, Any]:
    "Export a network with random weights, which is as fast as a trained one."
    from postergenre.export.files import torchscript_file
    from postergenre.export.job import export_notes
    from postergenre.model.classifier import create_model

    genres = [f"Genre {number:02d}" for number in range(23)]
    meta = {"genres": genres, "thresholds": [0.5] * 23, "metrics": {}, "img_size": IMG_SIZE, "squash": False}
    notes = export_notes(meta | {"versions": {}}, "none", "")
    model = create_model(MODEL, len(genres), IMG_SIZE, pretrained=False)
    (folder / "model.ts").write_bytes(torchscript_file(model, IMG_SIZE, False, notes))
    return {}


def decode(folder: Path) -> dict[str, Any]:
    "Decode and resize posters; return milliseconds and bytes per poster."
    from postergenre.data.dataset import load_poster

    paths = (folder / f"{FEW}.txt").read_text().splitlines()
    load_poster(paths[0], IMG_SIZE)
    started = _usage()[0]
    for path in paths:
        load_poster(path, IMG_SIZE)
    size = sum(os.path.getsize(path) for path in paths) / len(paths)
    return {"milliseconds": 1000 * (_usage()[0] - started) / len(paths), "bytes": size}


def predict(folder: Path, n: int) -> dict[str, Any]:
    "Predict n posters as the job does; return the seconds and the memory of the process."
    from postergenre.params import PredictParams
    from postergenre.predict.job import predict_folder

    given = {"model": "model.ts", "images": f"{n}.txt", "output": f"{n}.parquet"}
    predict_folder(PredictParams(**{name: str(folder / file) for name, file in given.items()}, n_shown=1))
    seconds, megabytes = _usage()
    return {"seconds": seconds, "MB": megabytes}


def write_shard(folder: Path) -> dict[str, Any]:
    "Write the table of a shard; return seconds, and bytes per row. Random scores cannot be compressed."
    from postergenre.predict.job import Shards, _write_shard
    from postergenre.predict.scorer import predictions_table

    shards, names = Shards(folder / "shard.parquet", {}, range(SHARD), SHARD), [f"Genre {n:02d}" for n in range(23)]
    shards.folder.mkdir()
    shards.write_state(finished=False)
    predictor = SimpleNamespace(genres=names, thresholds=np.full(23, 0.5))
    scores = np.random.default_rng(0).random((SHARD, 23), dtype=np.float32)
    started, paths = _usage()[0], [f"posters/{row % 1000:03d}/tt{row:08d}.jpg" for row in range(SHARD)]
    _write_shard(shards, 0, predictions_table(paths, scores, [""] * SHARD, predictor))
    return {"seconds": _usage()[0] - started, "bytes": shards.path(0).stat().st_size / SHARD}


def read_names(folder: Path, name: str) -> dict[str, Any]:
    "List images as a prediction job does; return seconds and megabytes per million."
    from postergenre.predict.sources import digest_of, list_images

    before = _usage()
    images = list_images(str(folder / name))
    digest_of(images)
    return {
        key: (after - earlier) * 1e6 / len(images)
        for key, after, earlier in zip(("seconds", "MB"), _usage(), before, strict=True)
    }


PARTS = {
    "model": write_model,
    "decode": decode,
    "few": lambda folder: predict(folder, FEW),
    "many": lambda folder: predict(folder, MANY),
    "shard": write_shard,
    "list": lambda folder: read_names(folder, "names.txt"),
    "folder": lambda folder: read_names(folder, "links"),
}


def prepare(
    folder: Path,
    posters: Path | None,  # folder of pictures; None: demo posters
) -> None:
    "Write the lists and folders that the parts read."
    from postergenre.data.images import ENDINGS, list_files
    from postergenre.demo.posters import draw_demo_posters

    source = posters or draw_demo_posters(folder / "demo", 200) / "Images"
    paths = [path for path in list_files(source) if path.lower().endswith(ENDINGS)]
    for n in (FEW, MANY):
        (folder / f"{n}.txt").write_text("\n".join(paths[row % len(paths)] for row in range(n)))
    with (folder / "names.txt").open("w") as file:
        file.writelines(f"posters/{row % 1000:03d}/tt{row:08d}.jpg\n" for row in range(NAMES))
    (folder / "links").mkdir()
    for row in range(LINKS):
        (folder / "links" / f"tt{row:08d}.jpg").symlink_to(paths[0])


def measure_parts(posters: Path | None = None) -> dict[str, dict[str, Any]]:
    "Run each part on one core, in a process of its own."
    measured = {}
    with tempfile.TemporaryDirectory() as temporary:
        prepare(Path(temporary), posters)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "RUNS_PATH": temporary}
        for part in PARTS:
            command = [sys.executable, "-m", "bench.paper", part, temporary]
            found = subprocess.run(command, capture_output=True, text=True, env=environment)
            if found.returncode:
                raise RuntimeError(f"{part} failed:\n{found.stderr}")
            measured[part] = json.loads(found.stdout.splitlines()[-1])
            print(f"{part}: {measured[part]}", file=sys.stderr)
    return measured


def estimate(
    measured: dict[str, dict[str, Any]],  # from `measure_parts`
    images: int = 10_000_000,
    machines: int = 32,
) -> pd.Series:
    "Return what predicting the images costs if every machine uses one core, as text by name."
    few, many, names, folder = (measured[part] for part in ("few", "many", "list", "folder"))
    each = (many["seconds"] - few["seconds"]) / (MANY - FEW)
    start, own, millions = few["seconds"] - FEW * each, images / machines, images / 1e6
    size, memory = measured["decode"]["bytes"], many["MB"] + names["MB"] * millions
    hours = (start + names["seconds"] * millions + own * each) / 3600
    return pd.Series(
        {
            "decoding a poster": f"{measured['decode']['milliseconds']:.2f} ms",
            "decoding and scoring a poster": f"{1000 * each:.1f} ms, {1 / each:.0f} posters/s",
            "start of a process, to its first poster": f"{start:.0f} s",
            "hours": f"{hours:.1f}",
            "bytes read": f"{images * size / 1e9:,.0f} GB ({size / 1000:.1f} KB per poster)",
            "requests, all machines together": f"{machines / each:,.0f}/s, {machines * size / each / 1e6:,.0f} MB/s",
            "memory of a process": f"{memory:,.0f} MB, {names['MB'] * millions:,.0f} of them for the list",
            "reading the list, in every process": f"{names['seconds'] * millions:.0f} s",
            "listing one folder instead, in every process": (
                f"{folder['seconds'] * millions:,.0f} s and {folder['MB'] * millions:,.0f} MB"
            ),
            "output": (
                f"{images * measured['shard']['bytes'] / 1e9:.1f} GB in {machines * math.ceil(own / SHARD):,} files of "
                f"{SHARD:,} rows"
            ),
            "writing such a file": f"{measured['shard']['seconds']:.2f} s",
            "lost if a process is killed": f"{SHARD * each + start:,.0f} s at most",
        }
    )


def main(
    part: str,
    folder: Path,
) -> None:
    "Run one part on one core and print what it took."
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(json.dumps(PARTS[part](folder)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
