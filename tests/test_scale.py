"""How cost grows with the number of posters: operations that must not be repeated, and the script that measures it.

Tests in `test_copies.py` and `test_metrics.py` count the comparisons of pictures and the evaluations of metrics.
"""

import shutil

import numpy as np
import pandas as pd
import pytest

from bench import scale
from bench.paper import FEW, MANY, estimate, prepare, read_names, write_shard
from postergenre.data import annotations
from postergenre.data.annotations import read_annotations
from postergenre.data.audit import check_pictures, inspect_pictures
from postergenre.pages.gallery import _concerned_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    drawn = tmp_path_factory.mktemp("scale") / "400"
    scale.draw_folder(drawn, 400)
    return drawn


def test_a_drawn_folder_has_the_promised_copies_and_nothing_else(folder):
    table = check_pictures(folder, read_annotations(folder), scale.remembered(folder)).table
    n_same = int(scale.SAME * 400)
    assert len(table) == 400 and table["group"].nunique() == 400 - 2 * n_same
    assert table["digest"].nunique() == 400 - n_same  # half of the copies were saved again


def test_a_folder_of_links_has_few_pictures(tmp_path):
    scale.draw_folder(tmp_path / "60", 60, links=4)
    table = check_pictures(tmp_path / "60", read_annotations(tmp_path / "60")).table
    assert table["group"].value_counts().tolist() == [15] * 4


@pytest.mark.parametrize("part", scale.PARTS)
def test_every_part_can_be_measured(part, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(tmp_path))
    if not scale.remembered(folder).exists():
        scale.do_part("audit", folder)
    if part == "read from the cache" and not (folder / "cache").exists():
        scale.do_part("decode into the cache", folder)
    if part == "decode into the cache":
        shutil.rmtree(folder / "cache", ignore_errors=True)
    found = scale.do_part(part, folder)
    assert found["seconds"] >= 0 and found["MB"] >= found["MB before"] > 10


def test_the_exponent_is_that_of_the_growth():
    rows = [
        {"part": part, "rows": n, "seconds": 1e-6 * n**power, "MB": 100.0}
        for part, power in (("linear", 1), ("quadratic", 2))
        for n in (1000, 10_000)
    ]
    table = scale.growth_table(pd.DataFrame(rows))
    assert table["exponent 1,000 to 10,000"].tolist() == [1, 2]
    assert table.loc["quadratic", "10,000"] == "100.00 s, 100 MB"


def test_the_estimate_follows_from_the_measured_parts():
    measured = {
        "few": {"seconds": 10 + 0.01 * FEW, "MB": 0},
        "many": {"seconds": 10 + 0.01 * MANY, "MB": 1000.0},
        "shard": {"seconds": 0.1, "bytes": 200.0},
        "list": {"seconds": 1.0, "MB": 60.0},
        "folder": {"seconds": 12.0, "MB": 500.0},
        "decode": {"milliseconds": 2.0, "bytes": 20_000.0},
    }
    found = estimate(measured, images=10_000_000, machines=32)
    assert found["hours"] == "0.9"  # 312,500 posters at 100 per second
    assert found["start of a process, to its first poster"] == "10 s"
    assert found["bytes read"].startswith("200 GB") and found["requests, all machines together"].startswith("3,200/s")
    assert found["memory of a process"].startswith("1,600 MB, 600")
    assert found["listing one folder instead, in every process"] == "120 s and 5,000 MB"
    assert found["output"] == "2.0 GB in 2,464 files of 4,096 rows"


def test_a_shard_is_written_as_the_job_writes_it(tmp_path):
    found = write_shard(tmp_path)
    assert 23 * 4 < found["bytes"] < 200 and found["seconds"] > 0


def test_names_are_counted_per_million(tmp_path, root, monkeypatch):
    monkeypatch.setattr("bench.paper.NAMES", 2000)
    monkeypatch.setattr("bench.paper.LINKS", 30)
    prepare(tmp_path, root / "Images")
    assert len((tmp_path / f"{MANY}.txt").read_text().splitlines()) == MANY
    for name, n in (("names.txt", 2000), ("links", 30)):
        found = read_names(tmp_path, name)
        assert 0 <= found["seconds"] < 60 * 1e6 / n and found["MB"] >= 0


def test_thumbnails_are_read_only_if_a_picture_is_new(root, tmp_path, monkeypatch):
    paths, cache, read = sorted(map(str, (root / "Images").iterdir())), tmp_path / "pictures.npz", []
    first = inspect_pictures(paths[:-1], cache)
    stored = type(np.load(cache))
    plain = stored.__getitem__
    monkeypatch.setattr(stored, "__getitem__", lambda file, name: read.append(name) or plain(file, name))
    assert inspect_pictures(paths[:-1], cache).equals(first) and "fault" in read and "thumbnail" not in read
    assert len(inspect_pictures(paths, cache)) == len(paths) and "thumbnail" in read


def test_names_are_only_compared_if_a_picture_is_missing(monkeypatch):
    pictures, simplified = {f"tt{row}": f"Images/tt{row}.jpg" for row in range(9)}, []
    plain = annotations.plain_name
    monkeypatch.setattr(annotations, "plain_name", lambda name: simplified.append(name) or plain(name))
    assert annotations._picture_hint(list(pictures), pictures) == "" and not simplified
    assert annotations._picture_hint(["TT-3"], pictures) == "for instance Id TT-3; Images/ has tt3.jpg"


def test_copies_are_sorted_into_findings_without_work_per_group(monkeypatch):
    calls = []
    for kind in (pd.Series, pd.DataFrame):
        plain = kind.nunique
        count = lambda *given, plain=plain, **named: calls.append(0) or plain(*given, **named)  # noqa: E731
        monkeypatch.setattr(kind, "nunique", count)
    n = 40
    table = pd.DataFrame({"path": "a", "fault": "", "split": "train", "group": np.arange(n) // 2, "Drama": 1, "War": 0})
    table.loc[1, "War"], table.loc[3, "split"] = 1, "valid"
    found = _concerned_rows(table, ["Drama", "War"])
    assert found["the same picture with other genres"] == [[0, 1]]
    assert found["the same picture in more than one split file"] == [[2, 3]]
    assert found["the same picture under several ids"] == [[row, row + 1] for row in range(4, n, 2)]
    assert len(calls) < 5
