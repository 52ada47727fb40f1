"""Bad data: files that only look like pictures, odd ids, one picture under many names, and a split that never moves."""

import random
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from postergenre.data.audit import inspect_picture
from postergenre.data.images import PosterError, decode_poster
from postergenre.data.split import audit, load_data, targets_of
from postergenre.data.tables import AuditError
from postergenre.demo.posters import draw_poster
from postergenre.demo.things import DEMO_GENRES

PARTS = (0.6, 0.2, 0.2)


def ids(data) -> dict[str, str]:
    return {poster: split for split in ("train", "valid", "test") for poster in getattr(data, split)["Id"]}


def spoilt_pictures(folder) -> None:
    "Every kind of file that was ever met under the name of a picture, and some that are sound."
    poster = draw_poster(["Drama"], np.random.default_rng(0))
    alpha = poster.convert("RGBA")
    alpha.putalpha(poster.convert("L"))
    sound = {
        "grey.jpg": poster.convert("L"),
        "print.jpg": poster.convert("CMYK"),
        "palette.png": poster.quantize(16),
        "alpha.png": alpha,
        "grey_alpha.png": alpha.convert("LA"),
        "bits.png": poster.convert("1"),
        "deep.png": Image.fromarray(np.asarray(poster.convert("L")).astype(np.uint16) * 257),
        "film.webp": poster,
        "png_inside.jpg": poster,
    }
    for name, image in sound.items():
        image.save(folder / name, format="PNG" if name == "png_inside.jpg" else None)
    for kind in ("BMP", "DDS", "EPS", "GIF", "ICNS", "ICO", "PCX", "PPM", "SGI", "TGA", "TIFF"):
        poster.save(folder / f"{kind}_inside.jpg", format=kind)
    poster.convert("F").save(folder / "floats_inside.jpg", format="TIFF")
    poster.convert("LAB").save(folder / "lab_inside.jpg", format="TIFF")
    turned = Image.Exif()
    turned[0x0112] = 6
    poster.save(folder / "turned.jpg", exif=turned)
    content = bytearray((folder / "turned.jpg").read_bytes())
    content[content.index(b"Exif\0\0") + 6] = ord("?")
    (folder / "odd_exif.jpg").write_bytes(content)
    poster.save(folder / "loop.webp", save_all=True, append_images=[poster.rotate(9)])
    for name in ("grey.jpg", "print.jpg", "palette.png", "film.webp", "deep.png"):
        content = (folder / name).read_bytes()
        for part in (3, 9, 40, 99):
            (folder / f"{part}_of_{name}").write_bytes(content[: len(content) * part // 100])
    for name, content in {"empty": b"", "page": b"<html>", "zeros": bytes(5000), "head": b"\xff\xd8\xff\xe0"}.items():
        (folder / f"{name}.jpg").write_bytes(content)
    (folder / "points_nowhere.jpg").symlink_to(folder / "gone.jpg")


def test_the_audit_accepts_just_what_the_dataset_can_decode(tmp_path):
    "A picture that the audit lets through and the loader cannot read would end a run at night."
    spoilt_pictures(tmp_path)
    wrong = []
    for path in sorted(tmp_path.iterdir()):
        accepted = inspect_picture(str(path)).fault == ""
        try:
            decode_poster(str(path))
            decoded = True
        except PosterError:
            decoded = False
        if accepted != decoded:
            wrong.append((path.name, inspect_picture(str(path))))
    assert not wrong
    refused = {path.name.split("_")[0] for path in tmp_path.glob("*_inside.jpg") if inspect_picture(str(path)).fault}
    assert refused == {"DDS", "EPS", "ICNS", "ICO", "PCX", "SGI", "TGA", "floats"}


def test_bytes_at_random_are_a_fault_and_never_an_error(tmp_path):
    rng = random.Random(0)
    poster = draw_poster(["Horror"], np.random.default_rng(1))
    for kind in ("jpg", "png", "webp"):
        poster.save(tmp_path / f"whole.{kind}")
        content = (tmp_path / f"whole.{kind}").read_bytes()
        for _ in range(60):
            broken = bytearray(content)
            for _ in range(rng.choice([1, 20, 400])):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            (tmp_path / f"broken.{kind}").write_bytes(broken)
            found = inspect_picture(str(tmp_path / f"broken.{kind}"))
            assert "0x" not in found.fault and len(found.fault) < 160
            if not found.fault:
                decode_poster(str(tmp_path / f"broken.{kind}"))


def test_odd_ids_are_kept_as_they_are_written(root):
    old = pd.read_csv(root / "train.csv", dtype=str)
    names = ["007", "7", "1e3", "nan", "NULL", "Amélie 2", "a.b", "x,y"]
    for before, after in zip(old["Id"], names, strict=False):
        (root / "Images" / f"{before}.jpg").rename(root / "Images" / f"{after}.jpg")
    old.assign(Id=names + old["Id"].tolist()[len(names) :]).to_csv(root / "train.csv", index=False)
    data = load_data(root, PARTS)
    assert set(names) <= set(ids(data)) and len(ids(data)) == 60
    data.save(root)
    again = load_data(root)
    assert ids(again) == ids(data) and again.split_hash == data.split_hash


def test_not_available_is_a_genre_until_it_is_left_out(root):
    cells = pd.read_csv(root / "train.csv", dtype=str)[["Id"]].assign(Genre=["Drama|N/A", "N/A", "Drama"] * 20)
    cells.to_csv(root / "train.csv", index=False)
    assert load_data(root, PARTS, drop_genres=()).genres == ["Drama", "N/A"]
    data = load_data(root, PARTS)
    assert data.genres == ["Drama"] and len(ids(data)) == 40
    assert targets_of(data.train, data.genres).shape == (len(data.train), 1)
    counted = data.findings.set_index("kind")["count"]
    assert counted["rows without a genre"] == 20 and counted["genres in drop_genres"] == 1


def test_a_placeholder_under_many_ids_goes_to_one_split(root):
    for number in range(1, 15):
        shutil.copy(root / "Images" / "demo0000.jpg", root / "Images" / f"demo{number:04d}.jpg")
    data = load_data(root, PARTS)
    assert len({ids(data)[f"demo{number:04d}"] for number in range(15)}) == 1
    examples = data.findings.set_index("kind")["examples"]
    assert examples["the same picture with other genres"] == "demo0000 = demo0001 = demo0002 and 12 more"


def test_the_split_is_the_same_in_another_process_and_another_folder(root, drawn):
    code = f"""
from postergenre.data.split import load_data
data = load_data({str(drawn)!r}, {PARTS!r}, split_seed=7)
print(data.data_hash, data.split_hash)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    here = load_data(root, PARTS, split_seed=7)
    assert done.stdout.split() == [here.data_hash, here.split_hash], done.stderr


def test_a_leak_is_told_in_the_table_and_in_a_sentence(root):
    load_data(root, PARTS).save(root)
    train, test = (pd.read_csv(root / f"{split}_df.csv", dtype=str) for split in ("train", "test"))
    picture = Image.open(root / "Images" / f"{train['Id'][0]}.jpg")
    picture.resize((150, 225)).save(root / "Images" / f"{test['Id'][0]}.jpg", quality=70)
    with pytest.raises(AuditError, match=r"more than one split file: 1 .*\(test\).*must not be in both"):
        load_data(root)
    table = audit(root).set_index("kind")
    assert table.loc["the same picture in more than one split file", "action"] == "stops the run"


def test_a_leak_stops_the_job_before_it_trains(root, papermill, runs):
    load_data(root, PARTS).save(root)
    seen = (root / "train_df.csv").read_text().splitlines()[1]
    with open(root / "valid_df.csv", "a") as table:
        table.write(seen + "\n")
    done = papermill("train", "leak", env={"ROOT_PATH": str(root)}, experiment_name="leak")
    assert done.returncode != 0 and "must not be in both" in done.stderr
    assert not list((runs / "leak").glob("*.pth")) and not (runs / "leak" / "summary.json").exists()


def test_a_file_that_is_no_cache_is_not_overwritten(root):
    before = (root / "train.csv").read_bytes()
    with pytest.raises(ValueError, match="cannot be the cache of an audit"):
        load_data(root, PARTS, cache=root / "train.csv")
    assert (root / "train.csv").read_bytes() == before


def test_nothing_is_written_into_the_data_folder(root):
    def tree() -> dict:
        return {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    before = tree()
    assert load_data(root, PARTS).genres == DEMO_GENRES
    assert tree() == before
