"""The pages of `explore` at sizes and on folders that the chapter does not have."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_plots import assert_legible

from postergenre.data.tables import STOPS
from postergenre.demo.posters import draw_demo_posters
from postergenre.pages.explore import ExplorePage, plot_genre_counts, plot_together
from postergenre.pages.gallery import Posters, Tile, read_posters
from postergenre.params import Params
from postergenre.report.plots import GENRE_COLORS


def made_up(n: int, genres: list[str]) -> Posters:
    "Posters without pictures."
    rng = np.random.default_rng(0)
    targets = rng.random((n, len(genres))) < np.geomspace(0.6, 0.01, len(genres))
    findings = pd.DataFrame(columns=["kind", "count", "examples", "action"])
    return Posters([Tile(None, "p")] * n, np.full(n, "train"), genres, targets, findings, {})


@pytest.mark.parametrize(
    "n, genres",
    [
        (3, ["Drama"]),
        (160, list(GENRE_COLORS)[:3]),
        (7000, list(GENRE_COLORS)),
        (300_000, ["A genre of many words", "B", "C"]),
    ],
    ids=["one genre", "three", "25 and 7,000 posters", "300,000 posters and a long name"],
)
def test_the_charts_are_legible_at_every_size(n, genres):
    posters = made_up(n, genres)
    assert_legible(plot_genre_counts(posters))
    for share in (False, True):
        assert_legible(plot_together(posters, share))


def test_a_folder_that_stops_a_run_is_shown_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(tmp_path / "runs"))
    root = draw_demo_posters(tmp_path / "posters", 12)
    for number in range(8):
        (root / "Images" / f"demo{number:04d}.jpg").write_bytes(b"not a picture")
    params = Params(root_path=str(root), min_positives=1)
    posters = read_posters(params)
    assert STOPS in set(posters.findings["action"]) and set(posters.splits) == {""}
    assert len(posters.concerned["unreadable pictures"]) == 8 and sum(bool(tile.note) for tile in posters.tiles) == 8
    page = ExplorePage(posters, params)
    assert page.view("Posters").gallery.tiles.value.count('class="pg-grey"') == 8
    page.view("Augmentation").name.value = "demo0009"
    assert (
        len(page.view("Augmentation").views) == 8 and "not a training poster" in page.view("Augmentation").words.value
    )


def test_pictures_of_other_formats_and_shapes_become_tiles(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(tmp_path / "runs"))
    root = draw_demo_posters(tmp_path / "posters", 20)
    poster = Image.open(root / "Images" / "demo0000.jpg")
    poster.convert("CMYK").save(root / "Images" / "demo0000.jpg")
    poster.resize((1, 300)).save(root / "Images" / "demo0001.jpg")
    poster.resize((3000, 10)).save(root / "Images" / "demo0002.jpg")
    (root / "Images" / "demo0003.jpg").unlink()
    poster.convert("RGBA").save(root / "Images" / "demo0003.png")
    posters = read_posters(Params(root_path=str(root), min_positives=1))
    page = ExplorePage(posters, Params(root_path=str(root)))
    assert page.view("Posters").gallery.tiles.value.count("<img") == 20


def test_a_dropout_in_pixels_is_left_as_it_is():
    from postergenre.pages.augmentation import scaled_item

    for ends in ([8, 32], [1, 32]):
        item = {"CoarseDropout": {"hole_height_range": ends, "hole_width_range": ends, "p": 0.5}}
        assert scaled_item(item, 0.5) == item
    shares = {"CoarseDropout": {"hole_height_range": [0.1, 0.2], "hole_width_range": [0.1, 0.2], "p": 0.5}}
    assert scaled_item(shares, 0.5)["CoarseDropout"]["hole_height_range"] == [0.05, 0.1]
