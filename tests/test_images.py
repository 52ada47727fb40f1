"""Pictures of every kind on their way through audit, training and prediction, which decode them alike."""

import base64
import io
import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from conftest import SMALL
from PIL import Image, ImageCms

from postergenre.config import make_params
from postergenre.data.annotations import read_annotations
from postergenre.data.audit import inspect_picture
from postergenre.data.cache import LostPostersError
from postergenre.data.dataset import PosterDataset
from postergenre.data.images import PosterError, decode_poster, describe_error, fit_poster, open_rgb
from postergenre.data.split import load_data
from postergenre.demo.posters import draw_demo_posters, draw_poster
from postergenre.pages.try_it import read_picture
from postergenre.predict.sources import ImageList, PictureFolder, pictures_in
from postergenre.report.plots import thumbnail
from postergenre.train.loop import fit
from postergenre.train.runs import release
from postergenre.train.setup import prepare
from postergenre.train.training import finalize, train_run

LOSSLESS = base64.b64decode(  # 6 x 6 pixels, lossless JPEG in RGB, made with libjpeg-turbo 3
    "/9j/7gAOQWRvYmUAZAAAAAAA/8MAEQgABgAGA1IRAEcRAEIRAP/EABgAAQEBAQEAAAAAAAAAAAAAAAMEBggH/9oADANSAEcAQgABAADn/wBa5/d3"
    "eh3d6Hoeh9Xk9XRRQ7u7u9D0PRrMprHd6Hoeh3d3d9Zk9Y7u9D0PQ7u7vq8nq6KKHd3d6Hoeh9ZlNY7vQ9Du70PQ9H//2Q=="
)
ENDINGS = {"jpe": "JPEG", "JFIF": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "avif": "AVIF", "jp2": "JPEG2000"}


@pytest.fixture
def root(tmp_path):
    return draw_demo_posters(tmp_path / "posters", 60)


@pytest.fixture(scope="module")
def poster():
    return draw_poster(["Drama"], np.random.default_rng(0))


def grey_profile() -> bytes:
    "A profile of linear grey: in sRGB, middle values become much lighter."
    curve = b"curv" + bytes(4) + bytes(4)  # no entries: linear
    white = b"XYZ " + bytes(4) + b"".join(round(v * 65536).to_bytes(4, "big") for v in (0.9642, 1, 0.8249))
    text = b"desc" + bytes(4) + (5).to_bytes(4, "big") + b"grey\0" + bytes(79)
    tags, table, body = {b"wtpt": white, b"kTRC": curve, b"desc": text, b"cprt": b"text" + bytes(4) + b"none"}, b"", b""
    for name, content in tags.items():
        place = 132 + 12 * len(tags) + len(body)
        table += name + place.to_bytes(4, "big") + len(content).to_bytes(4, "big")
        body += content + bytes(-len(content) % 4)
    head = b"\x02\x40\0\0mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + white[8:]
    content = (bytes(8) + head).ljust(128, b"\0") + len(tags).to_bytes(4, "big") + table + body
    return len(content).to_bytes(4, "big") + content[4:]


def kinds(poster: Image.Image) -> dict[str, tuple[Image.Image, dict]]:
    "Pictures for whose colours, transparency or direction something must be done."
    turned, fading = Image.Exif(), poster.convert("RGBA")
    turned[0x0112] = 6
    fading.putalpha(Image.linear_gradient("L").resize(poster.size))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return {
        "turned.jpg": (poster, {"exif": turned}),
        "fading.png": (fading, {}),
        "fading.webp": (fading, {"lossless": True}),
        "print.jpg": (poster.convert("CMYK"), {}),
        "grey.png": (poster.convert("L"), {"icc_profile": grey_profile()}),
        "fading_grey.png": (fading.convert("LA"), {"icc_profile": grey_profile()}),
        "odd_profile.png": (poster, {"icc_profile": lab}),
        "damaged_profile.jpg": (poster, {"icc_profile": b"none"}),
    }


def test_audit_dataset_prediction_page_and_plots_see_the_same(tmp_path, poster):
    for name, (image, options) in kinds(poster).items():
        image.save(tmp_path / name, **options)
    (tmp_path / "lossless.jpg").write_bytes(LOSSLESS)
    paths = pictures_in(tmp_path)
    posters, predicted = (
        PosterDataset(list(map(str, paths)), np.zeros((9, 1)), (96, 64)),
        PictureFolder(ImageList(map(str, paths)), (96, 64)),
    )
    for index, path in enumerate(paths):
        image = decode_poster(path)
        wanted = fit_poster(image, (96, 64)).transpose(2, 0, 1)
        assert image.mode == "RGB" and inspect_picture(str(path)).fault == "", path.name
        assert np.array_equal(posters[index][0], wanted) and np.array_equal(predicted[index][0], wanted), path.name
        assert np.array_equal(read_picture(io.BytesIO(path.read_bytes()), path.name), image), path.name
        assert np.array_equal(thumbnail(path, image.size), image), path.name
    assert decode_poster(tmp_path / "turned.jpg").size == poster.size[::-1]


def test_grey_profiles_are_applied_with_transparency_and_without(tmp_path, poster):
    for name in ("grey.png", "fading_grey.png"):
        image, options = kinds(poster)[name]
        image.save(tmp_path / f"with_{name}", **options)
        image.save(tmp_path / f"without_{name}")
        corrected, plain = (np.asarray(decode_poster(tmp_path / f"{how}_{name}"), int) for how in ("with", "without"))
        lighter = corrected - plain
        assert lighter.min() >= 0 and lighter.max() > 40, name


def test_a_lossless_jpeg_is_decoded_in_full_where_the_short_way_fails():
    image = np.asarray(open_rgb(io.BytesIO(LOSSLESS)))
    steps, other = (0, 7, 14, 21, 29, 36), (218, 225, 233, 240, 247, 255)
    assert image[0].tolist() == [[step, far, step] for step, far in zip(steps, other, strict=True)]
    for grey in (True, False):
        assert np.array_equal(open_rgb(io.BytesIO(LOSSLESS), about=128, grey=grey), image)


def test_threads_share_a_transform(poster):
    file = io.BytesIO()
    poster.convert("L").save(file, "PNG", icc_profile=grey_profile())
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(lambda _: np.asarray(decode_poster(io.BytesIO(file.getvalue()))).tobytes(), range(64)))
    assert len(set(decoded)) == 1


def test_training_takes_every_format_that_prediction_takes(root):
    for number, (ending, format) in enumerate(ENDINGS.items()):
        path = root / "Images" / f"demo{number:04d}.jpg"
        Image.open(path).save(path.with_suffix(f".{ending}"), format)
        path.unlink()
    (root / "Images" / "demo0007.jpg").rename(root / "Images" / "demo0007.HEIC")
    (root / "Images" / "demo0007.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(90))
    (root / "Images" / "README.txt").write_text("mine")
    data = load_data(root, (0.6, 0.2, 0.2))
    assert sum(len(part) for part in (data.train, data.valid, data.test)) == 59
    found = data.findings.set_index("kind")["examples"]
    assert "demo0007 (is in the format HEIC" in found["unreadable pictures"]
    assert found["files in Images/ without the ending of a picture"] == "README.txt"
    assert "rows without a picture" not in found and len(pictures_in(root / "Images")) == 60


def test_pipes_devices_and_circles_of_links_are_no_trap(root):
    images = root / "Images"
    for number in range(3):
        (images / f"demo{number:04d}.jpg").unlink()
    os.mkfifo(images / "demo0000.jpg")
    (images / "demo0001.jpg").symlink_to("/dev/zero")
    with open(images / "demo0002.jpg", "wb") as file:
        file.truncate(10**12)
    (images / "round").symlink_to(images)
    (images / "up").symlink_to(root)
    assert read_annotations(root).table["path"].notna().all()
    data = load_data(root, (0.6, 0.2, 0.2), min_positives=1)
    (found,) = data.findings.query("kind == 'unreadable pictures'")["examples"]
    assert "demo0000 (is a named pipe, not a file)" in found and "demo0001 (is a device, not a file)" in found
    assert "demo0002 (has 1,000,000 MB; the limit is 500" in found
    assert "pictures with the name of another" not in set(data.findings["kind"])


def test_a_small_file_that_would_fill_the_memory_is_refused_by_all(tmp_path):
    Image.new("RGBA", (8900, 8900)).save(tmp_path / "large.png")
    Image.new("1", (14_000, 14_000)).save(tmp_path / "huge.png")
    assert (tmp_path / "large.png").stat().st_size < 400_000
    words = {
        "large.png": "would take 951 MB of memory; the limit is 640",
        "huge.png": "196,000,000 pixels; the limit is 80",
    }
    for name, reason in words.items():
        path = tmp_path / name
        with pytest.raises(PosterError, match=reason):
            decode_poster(path)
        assert (
            reason in inspect_picture(str(path)).fault
            and reason in PictureFolder(ImageList([str(path)]), (96, 64))[0][1]
        )
        with pytest.raises(PosterError, match=reason):
            read_picture(path, name)


def test_no_raw_words_of_pillow_on_many_pixels(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    assert inspect_picture(str(tmp_path / "large.png")).fault.startswith("has 10000 x 10000 pixels; the limit is")
    assert describe_error(PermissionError(13, "denied")) == "cannot be read; you lack the permission"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_whose_pictures_vanish_stops(root, runs, workers, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(runs))
    monkeypatch.setattr("time.sleep", lambda _: None)
    values = {**SMALL, "experiment_name": f"vanish{workers}", "root_path": str(root), "cache": False}
    run = prepare(make_params({**values, "num_workers": workers, "min_positives": 1}))
    shutil.rmtree(root / "Images")
    with warnings.catch_warnings(action="ignore"), pytest.raises(LostPostersError, match="of 60 posters were readable"):
        fit(run)
    release(run.lock)
    assert not (run.folder / "summary.json").exists()


def test_the_share_of_lost_posters_stands_in_the_summary(root, runs, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(runs))
    values = {**SMALL, "experiment_name": "one_lost", "root_path": str(root), "cache": False, "min_positives": 1}
    run = train_run(make_params({**values, "num_workers": 0}))
    summary = pd.read_json(run.folder / "summary.json", typ="series")
    assert summary["lost_posters"] == 0
    run = prepare(make_params({**values, "num_workers": 0, "experiment_name": "two_lost"}))
    os.remove(run.data.train["path"].iloc[0])
    os.remove(run.data.valid["path"].iloc[0])
    with warnings.catch_warnings(action="ignore"):
        fit(run)
        assert finalize(run)["lost_posters"] == pytest.approx(2 / 60)
