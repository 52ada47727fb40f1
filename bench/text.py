"""Compare the rate at which posters are read with that of rapidocr's default settings, on one core.

    python bench/text.py FOLDER_WITH_POSTERS [--posters 30] [--repeats 3]

Both read the same posters in turn, poster by poster, so that a busy machine slows both. Printed are seconds per poster
(the median over repeats of the mean over posters), the ratio, and how many words both found.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rapidocr
from PIL import Image

from postergenre.data.images import decode_poster
from postergenre.predict.sources import pictures_in
from postergenre.text.reading import TextReader


def default_reader(threads: int | None = None) -> Callable[[Image.Image], str]:
    "Return a reader with the default settings of rapidocr, or with a given number of threads per network."
    given = {} if threads is None else {"EngineConfig.onnxruntime.intra_op_num_threads": threads}
    engine = rapidocr.RapidOCR(params={"Global.log_level": "error", **given})
    return lambda picture: "\n".join(engine(np.array(picture)[..., ::-1]).txts or ())


def measure(pictures: list[Image.Image], repeats: int) -> tuple[dict[str, float], dict[str, list[str]]]:
    "Return seconds per poster and texts of each reader."
    readers = {"default": default_reader(), "default, one thread": default_reader(1), "postergenre": TextReader()}
    for read in readers.values():
        for picture in pictures[:3]:
            read(picture)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    texts: dict[str, list[str]] = {}
    for _ in range(repeats):
        spent, texts = dict.fromkeys(readers, 0.0), {name: [] for name in readers}
        for picture in pictures:
            for name, read in readers.items():
                began = time.perf_counter()
                texts[name].append(read(picture))
                spent[name] += time.perf_counter() - began
        for name in readers:
            seconds[name].append(spent[name] / len(pictures))
    return {name: statistics.median(values) for name, values in seconds.items()}, texts


def main() -> None:
    "Measure and print."
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--posters", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    paths = pictures_in(given.folder)
    chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, given.posters).round().astype(int)]
    seconds, texts = measure([decode_poster(path) for path in chosen], given.repeats)
    for name, value in seconds.items():
        n_letters = statistics.median(len(text) for text in texts[name])
        ratio = seconds["default"] / value
        print(f"{name:20} {value:.3f} s per poster, {ratio:.1f} times the default rate; {n_letters:.0f} letters")
    words = [[set(text.lower().split()) for text in texts[name]] for name in ("default", "postergenre")]
    common = sum(len(a & b) for a, b in zip(*words, strict=True))
    print(f"{common / sum(map(len, words[0])):.0%} of the default's words were read alike.")


if __name__ == "__main__":
    main()
