"""Prediction of folders, lists and URLs: in shards that survive a kill or a full disk, on several machines."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from predicting import GENRES, MODEL, draw, everywhere, job, stand_in, table_in

from postergenre.errors import ConfigError
from postergenre.paths import write_atomically
from postergenre.predict import job as predict_job
from postergenre.predict import scorer, sources
from postergenre.predict.job import shards_folder, show_predictions
from postergenre.predict.scorer import score_with_loader
from postergenre.predict.sources import PictureFolder, list_images, remote_pictures

SCRIPT = Path(__file__).parent / "predicting.py"


@pytest.fixture
def folder(tmp_path) -> Path:
    draw(tmp_path / "images", 10)
    return tmp_path


def read(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, keep_default_na=False)


# Folders and lists


def test_a_csv_and_a_folder_of_shards_are_the_same_table(folder):
    (folder / "images" / "0003.png").write_bytes(b"no picture")
    found = job(folder, shard_size=3)
    assert str(found).startswith("10 pictures: 1 unreadable,")
    job(folder, output=str(folder / "a.parquet"), shard_size=3)
    dataset, table = read(folder / "a.parquet"), read(folder / "predictions.csv")
    assert (
        list(dataset) == ["path", "error", "genres", *GENRES]
        and len(list((folder / "a.parquet").glob("*.parquet"))) == 4
    )
    for column in ("path", "error", "genres"):
        assert dataset[column].tolist() == table[column].tolist()
    assert (
        dataset[GENRES]
        .astype(float)
        .round(6)
        .equals(table[GENRES].replace("", np.nan).astype("float32").astype(float).round(6))
    )
    assert table["path"].tolist() == [f"{number:04d}.png" for number in range(10)]
    assert table.loc[3, "error"].startswith("0003.png is empty or not a picture") and table.loc[3, "genres"] == ""
    assert not list(folder.glob(".*"))


def test_a_folder_that_vanishes_stops_the_job_which_goes_on_when_it_is_back(folder, monkeypatch):
    job(folder, output=str(folder / "whole.csv"))
    scored, images, away = [], folder / "images", folder / "away"

    def vanish(*given):
        scored.append(scorer.score_batch)
        if len(scored) == 2 and images.exists():
            images.rename(away)
        return score_batch(*given)

    score_batch = scorer.score_batch
    monkeypatch.setattr(scorer, "score_batch", vanish)
    with pytest.raises(ConfigError, match="is not there any more. Complete shards are kept"):
        job(folder, shard_size=4, batch_size=2)
    away.rename(images)
    job(folder, shard_size=4, batch_size=2)
    assert (folder / "predictions.csv").read_bytes() == (folder / "whole.csv").read_bytes()


def test_the_table_does_not_depend_on_shards_batches_or_threads(folder):
    wanted = None
    for number, values in enumerate(({}, {"shard_size": 1}, {"batch_size": 3, "shard_size": 7}, {"num_workers": 0})):
        output = folder / f"{number}.csv"
        job(folder, output=str(output), **values)
        wanted = wanted or output.read_bytes()
        assert output.read_bytes() == wanted, values


def test_lists_name_images_by_relative_and_absolute_path_in_their_own_order(folder):
    names = ["images/0004.png", str(folder / "images" / "0001.png"), "images/gone.png", "images/0004.png"]
    pd.DataFrame({"path": names, "year": 1}).to_csv(folder / "a.csv", index=False)
    pd.DataFrame({"poster": names, "year": 1}).to_csv(folder / "b.csv", index=False, sep=";", encoding="utf-8-sig")
    (folder / "c.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*names[:2], "", *names[2:]]).encode())
    pq.write_table(pa.table({"path": pa.array(names).dictionary_encode()}), folder / "d.parquet")
    tables = []
    for name, column in (("a.csv", None), ("b.csv", "poster"), ("c.txt", None), ("d.parquet", "path")):
        job(folder, images=str(folder / name), path_column=column, overwrite=True)
        tables.append(read(folder / "predictions.csv"))
        assert tables[-1]["path"].tolist() == names, name
        assert tables[-1].equals(tables[0])
    assert tables[0]["error"].tolist() == ["", "", "gone.png does not exist. Replace it, or leave it out.", ""]
    assert tables[0].loc[0, GENRES].tolist() == tables[0].loc[3, GENRES].tolist()


def test_a_pipe_or_device_in_a_list_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe.png")
    (folder / "list.txt").write_text("pipe.png\n/dev/zero\nimages\nimages/0000.png\n")
    job(folder, images=str(folder / "list.txt"))
    table = read(folder / "predictions.csv")
    assert [("not a file" in error) for error in table["error"]] == [True, True, True, False]


@pytest.mark.parametrize(
    ("name", "content", "values", "words"),
    [
        ("a.csv", b"file,year\na.png,1\n", {}, "a.csv has no column `path`. Give one of its columns: file, year"),
        ("a.csv", b"file,year\na.png,1\n", {"path_column": "files"}, "Did you mean `file`? Its columns: file, year"),
        ("a.csv", b"a.png\nb.png\n", {}, "'a.png', which is no column name. Add a first line `path`"),
        ("a.csv", b"path\n", {}, "a.csv names no image"),
        ("a.csv", b"", {}, "a.csv names no image"),
        ("a.csv", b"path\ncaf\xe9.png\n", {}, "a.csv cannot be read as a table in UTF-8"),
        (
            "a.csv",
            b"path\na.png\nParis, Texas.png\n",
            {},
            "line 3 of a.csv has 2 values, and the first line 1. Put a path",
        ),
        ("a.parquet", b"PAR1", {}, "a.parquet cannot be read as Parquet"),
        ("a.txt", b"\n\n", {}, "a.txt names no image"),
        ("a.txt", b"a.png\n", {"path_column": "path"}, "has a path in each line, and no columns"),
        ("a.txt", b"nowhere://a/b.png\n", {}, "nowhere:// cannot be opened: Protocol not known: nowhere"),
        ("a.json", b"[]", {}, "is a file. Give a folder, or a list of images (.csv, .txt, .parquet)"),
    ],
)
def test_a_list_that_cannot_be_used_says_why(folder, name, content, values, words):
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        job(folder, images=str(folder / name), **values)
    assert words in str(raised.value)
    assert {path.name for path in folder.iterdir()} == {"images", MODEL, name}


def test_a_list_that_is_not_there_and_a_column_of_a_folder_are_refused(folder):
    with pytest.raises(ConfigError, match="b.csv is not there. Give a folder or a list"):
        job(folder, images=str(folder / "b.csv"))
    for missing in ("imagse", "imagse/below"):
        with pytest.raises(ConfigError, match="imagse.* is not there. Did you mean `images`. Give a folder or a list"):
            job(folder, images=str(folder / missing))
    with pytest.raises(ConfigError, match="given path, but .* is no list"):
        job(folder, path_column="path")


# S3


@pytest.fixture
def bucket(monkeypatch):
    "An empty bucket on a server of this machine."
    pytest.importorskip("s3fs", reason="s3fs is not installed (the optional extra s3)")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed (the extra dev)")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # of what a test before left
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("bucket")
    yield files
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_images_and_lists_on_s3_give_the_table_of_their_local_copies(folder, bucket):
    images = folder / "images"
    (images / "below").mkdir()
    (images / "below" / "odd name #1?.png").write_bytes((images / "0001.png").read_bytes())
    (images / "broken.png").write_bytes(b"no picture")
    (images / ".hidden.png").write_bytes(b"")
    for path in sorted(images.rglob("*.png")):
        bucket.pipe_file(f"bucket/posters/{path.relative_to(images)}", path.read_bytes())
    job(folder)
    job(folder, images="s3://bucket/posters/", output=str(folder / "remote.csv"))
    assert read(folder / "remote.csv").equals(read(folder / "predictions.csv"))

    names = ["posters/0002.png", "s3://bucket/posters/0001.png", "posters/gone.png", str(images / "0003.png")]
    bucket.pipe_file("bucket/list.csv", "\n".join(["path", *names]).encode())
    found = job(folder, images="s3://bucket/list.csv", output=str(folder / "listed.csv"))
    table, whole = read(folder / "listed.csv"), read(folder / "predictions.csv").set_index("path")
    assert table["error"].tolist()[2] == "gone.png cannot be fetched (FileNotFoundError). Replace it, or leave it out."
    for row, name in ((0, "0002.png"), (1, "0001.png"), (3, "0003.png")):
        assert table.loc[row, GENRES].astype(float).tolist() == whole.loc[name, GENRES].astype(float).tolist()
    assert found.locations[:2] == ["s3://bucket/posters/0002.png", "s3://bucket/posters/0001.png"]
    assert show_predictions(found) is not None


def test_forked_loader_processes_have_connections_of_their_own(folder, bucket):
    for path in sorted((folder / "images").iterdir()):
        bucket.put_file(str(path), f"bucket/{path.name}")
    images, predictor = list_images("s3://bucket"), stand_in()
    dataset = PictureFolder(images, predictor.img_size)
    assert dataset[0][1] == ""  # this process has a connection
    batches = [range(first, first + 2) for first in range(0, 10, 2)]
    found = list(score_with_loader(predictor, dataset, batches, num_workers=2))
    assert len(found) == 5
    assert all(errors == ["", ""] and np.isfinite(scores).all() for scores, errors in found)


def test_a_listing_is_never_an_old_one(folder, bucket, monkeypatch):
    content = (folder / "images" / "0000.png").read_bytes()
    for n in (1, 2):
        bucket.pipe_file(f"bucket/{n}.png", content)
        assert len(list_images("s3://bucket")) == n
    files = Mock(find=Mock(return_value=["place/a.png"]))  # other file systems keep listings
    monkeypatch.setattr(sources, "file_system", lambda url: (files, "place"))
    assert remote_pictures("other://place") == ["a.png"]
    assert [call[0] for call in files.method_calls] == ["invalidate_cache", "find"]


def test_a_bucket_that_is_not_there_is_told(bucket):
    with pytest.raises((ConfigError, FileNotFoundError), match="s3://nowhere"):
        list_images("s3://nowhere/posters")


def test_s3_without_its_package_says_what_to_install(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setattr(sys.modules["fsspec.registry"], "_registry", {})
    monkeypatch.setattr(sys.modules["fsspec.registry"], "registry", {})
    with pytest.raises(ConfigError, match=r'Run `pip install "postergenre\[s3\]"`'):
        job(folder, images="s3://bucket/posters")


# Kills and full disks


@pytest.mark.parametrize("name", ["predictions.csv", "predictions.parquet"])
def test_a_killed_job_resumes_after_the_last_complete_shard(tmp_path, name):
    draw(tmp_path / "images", 60)
    output, values = tmp_path / name, {"output": str(tmp_path / name), "shard_size": 6, "batch_size": 2}
    shards = shards_folder(output)
    line = [sys.executable, SCRIPT, "slowly", tmp_path, json.dumps(values)]
    process = subprocess.Popen(line, stderr=subprocess.PIPE)
    while len(list(shards.glob("[!.]*.parquet"))) < 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    before = {path: path.stat().st_mtime_ns for path in shards.glob("[!.]*.parquet")}
    assert 3 <= len(before) < 10 and all(len(pd.read_parquet(path)) == 6 for path in before)

    scored = []
    with pytest.MonkeyPatch.context() as patch:
        score_batch = scorer.score_batch
        patch.setattr(scorer, "score_batch", lambda *given: (scored.append(len(given[1])), score_batch(*given))[1])
        found = job(tmp_path, **values)
    assert sum(scored) == 60 - 6 * len(before) and found.n_images == 60
    if output.is_dir():
        assert all(path.stat().st_mtime_ns == before[path] for path in before)
    resumed = table_in(output)
    output.rename(tmp_path / "aside")
    job(tmp_path, **values)
    assert resumed == table_in(output)


def test_a_kill_at_any_file_operation_leaves_what_was_there_or_the_table(tmp_path, environment, in_fork):
    done = in_fork(everywhere, tmp_path / "everywhere", environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    moments = json.loads(done.stdout)
    assert all(count > 10 for count in moments.values()) and len(moments) == 4


def full_after(shards: int, monkeypatch) -> None:
    "Let the disk be full in the middle of a later shard."
    write_table, written = pq.write_table, []

    def write(table, file):
        if len(written) == shards:
            file.write(b"PAR1 and a part of the shard")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(file)
        write_table(table, file)

    monkeypatch.setattr(pq, "write_table", write)


@pytest.mark.parametrize("name", ["predictions.csv", "predictions.parquet"])
def test_a_full_disk_loses_no_complete_shard(folder, monkeypatch, name):
    output, values = folder / name, {"output": str(folder / name), "shard_size": 3}
    job(folder, **values)
    wanted = table_in(output)
    output.rename(folder / "aside")
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="no space left for predictions"):
        full_after(2, patch)
        job(folder, **values)
    left = sorted(path.name for path in shards_folder(output).iterdir() if path.name[0] not in "._")
    assert len(left) == 2 and not list(folder.rglob("*.tmp"))
    full_after(2, monkeypatch)  # there is room for the two that are missing
    job(folder, **values)
    assert table_in(output) == wanted


def test_a_disk_that_is_really_full(folder):
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "none", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small file system can be mounted by root alone")
    try:
        output, values = disk / "predictions.csv", {"output": str(disk / "predictions.csv"), "shard_size": 1}
        with pytest.raises(ConfigError, match="no space left for predictions.csv"):
            job(folder, **values)
        kept = list(shards_folder(output).glob("[!.]*.parquet"))
        assert 2 <= len(kept) < 10 and all(len(pd.read_parquet(path)) == 1 for path in kept)
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        job(folder, **values)
        job(folder, shard_size=1)
        assert output.read_bytes() == (folder / "predictions.csv").read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_memory_does_not_grow_with_the_images(tmp_path):
    line = [sys.executable, SCRIPT, "memory", str(tmp_path / "memory"), "500", "10000"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    few, many = json.loads(done.stdout)
    assert many < 1.2 * few and (many - few) / 9_500 < 2, (few, many)  # kB per image; decoded, each has 5


# What belongs together


def test_shards_of_another_model_list_or_parameter_are_not_mixed_in(folder, monkeypatch):
    output = folder / "predictions.csv"
    full_after(2, monkeypatch)
    with pytest.raises(ConfigError, match="no space left"):
        job(folder, shard_size=3)
    monkeypatch.undo()
    changed = {
        "`shard_size` was 3, now 4": {"shard_size": 4},
        "`mixed_precision` was auto, now no": {"shard_size": 3, "mixed_precision": "no"},
    }
    for words, values in changed.items():
        with pytest.raises(ConfigError, match=words):
            job(folder, **values)
    (folder / "images" / "0000.png").rename(folder / "images" / "first.png")
    with pytest.raises(ConfigError, match="`images` was [0-9a-f]{12}, now"):
        job(folder, shard_size=3)
    (folder / "images" / "first.png").rename(folder / "images" / "0000.png")
    (folder / MODEL).write_bytes(b"other weights")
    with pytest.raises(ConfigError, match="`model` was .* or `overwrite: true` to start again"):
        job(folder, shard_size=3)
    assert not output.exists()
    job(folder, shard_size=3, overwrite=True)
    assert len(read(output)) == 10 and not list(folder.glob(".*"))


def test_machines_share_a_folder_without_coordination(folder):
    job(folder, shard_size=2)
    whole, output = read(folder / "predictions.csv"), folder / "shared.parquet"
    for i in (3, 1, 2):
        found = job(folder, output=str(output), shard=[i, 3], shard_size=2)
        assert str(found).startswith(f"Part {i} of 3: ")
    table = read(output)
    assert table["path"].tolist() == whole["path"].tolist()
    assert np.array_equal(table[GENRES], whole[GENRES].astype("float32"))
    with pytest.raises(ConfigError, match="`shards` was 3, now 4"):
        job(folder, output=str(output), shard=[1, 4], shard_size=2)
    with pytest.raises(ConfigError, match="is there already"):
        job(folder, output=str(output), shard=[2, 3], shard_size=2)
    job(folder, output=str(output), shard=[2, 3], shard_size=2, overwrite=True)  # replaces its own part alone
    assert read(output).equals(table)


def test_parts_in_csv_have_their_part_in_the_name(folder):
    job(folder)
    lines = (folder / "predictions.csv").read_text().splitlines()
    parts = []
    for i in range(1, 13):  # more parts than images: some are empty
        job(folder, shard=[i, 12])
        header, *rows = (folder / f"predictions.{i}-of-12.csv").read_text().splitlines()
        assert header == lines[0]
        parts += rows
    assert parts == lines[1:]


# What is there


def test_nothing_is_overwritten_unasked(folder):
    output = folder / "predictions.csv"
    output.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        job(folder)
    assert output.read_text() == "mine" and not list(folder.glob(".*"))
    for name in ("file.parquet", "folder.parquet/file"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        job(folder, output=str(folder / "file.parquet"))
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="is a folder of something else"):
            job(folder, output=str(folder / "folder.parquet"), overwrite=overwrite)
    assert (folder / "folder.parquet" / "file").read_text() == (folder / "file.parquet").read_text() == "mine"
    job(folder, output=str(folder / "file.parquet"), overwrite=True)
    assert len(read(folder / "file.parquet")) == 10
    with pytest.raises(ConfigError, match="is there already"):
        job(folder, output=str(folder / "file.parquet"))


def test_a_table_that_appears_during_the_job_is_kept(folder, monkeypatch):
    output = folder / "predictions.csv"
    write_shards = predict_job.write_shards
    monkeypatch.setattr(predict_job, "write_shards", lambda *given: (write_shards(*given), output.write_text("mine")))
    with pytest.raises(ConfigError, match="another predictions.csv has appeared"):
        job(folder)
    monkeypatch.undo()
    assert output.read_text() == "mine"
    output.unlink()
    job(folder)
    assert len(read(output)) == 10


def test_two_jobs_do_not_write_one_table_at_once(folder, monkeypatch):
    said = []

    def write_shards(*given):
        with pytest.raises(ConfigError) as raised:
            job(folder)
        said.append(str(raised.value))
        return original(*given)

    original = predict_job.write_shards
    monkeypatch.setattr(predict_job, "write_shards", write_shards)
    job(folder)
    assert said == ["`output`: another job is writing predictions.csv right now. Give another name."]


def test_a_damaged_shard_is_made_again(folder, monkeypatch):
    output = folder / "a.parquet"
    full_after(3, monkeypatch)
    with pytest.raises(ConfigError):
        job(folder, output=str(output), shard_size=3)
    monkeypatch.undo()
    first, second, _ = sorted(output.glob("[!_.]*"))
    first.write_bytes(first.read_bytes()[:-20])
    pq.write_table(pq.read_table(second).slice(0, 2), second)
    job(folder, output=str(output), shard_size=3)
    assert read(output)["path"].tolist() == [f"{number:04d}.png" for number in range(10)]


def test_a_genre_that_cannot_be_a_column_is_refused_before_any_work(folder, monkeypatch):
    import dataclasses

    monkeypatch.setattr(
        "predicting.stand_in", lambda *_, **__: dataclasses.replace(stand_in(), genres=["error", "A", "A"])
    )
    with pytest.raises(ConfigError, match="cannot have a column for genre A, error"):
        job(folder)
    assert {path.name for path in folder.iterdir()} == {"images", MODEL}


def test_a_shard_is_absent_until_it_is_complete(tmp_path):
    with pytest.raises(ZeroDivisionError), write_atomically(tmp_path / "shard.parquet") as unfinished:
        unfinished.write_bytes(b"half")
        assert [path.name[0] for path in tmp_path.iterdir()] == ["."]  # readers of a data set skip hidden files
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
