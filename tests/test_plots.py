"Figures at the sizes that runs need: nothing clipped, nothing written over something else."

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axis import Axis, Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from postergenre.metrics.intervals import genre_intervals
from postergenre.metrics.metrics import METRICS, genre_table
from postergenre.report.plots import (
    GENRE_COLORS,
    genre_colors,
    plot_genre_table,
    plot_history,
    plot_lr_find,
    plot_schedule,
    poster_grid,
)


def drawn_texts(figure):
    "Every text that is drawn: of the ticks only those in view."
    ticks = {text for tick in figure.findobj(Tick) for text in tick.findobj(Text)}
    texts = [text for text in figure.findobj(Text) if text not in ticks]
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-6 * (high - low)
        labels = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        texts += [label for place, label in labels if low - slack <= place <= high + slack]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def assert_legible(figure):
    "Every text lies within the figure, and no two lie on each other."
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"{text!r} is cut off"
    for place, (first, box) in enumerate(boxes):
        for second, other in boxes[place + 1 :]:
            overlap_x = min(box.x1, other.x1) - max(box.x0, other.x0)
            overlap_y = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert overlap_x < 1 or overlap_y < 2, f"{first!r} lies on {second!r}"
    assert plt.get_fignums() == []


def a_history(n_epochs, metrics):
    epochs = np.arange(n_epochs)
    columns = {name: 0.3 - 0.2 * 0.9**epochs for name in metrics}
    floors = {f"{name}_floor": np.full(n_epochs, 0.1) for name in metrics}
    return pd.DataFrame({"epoch": epochs, "train_loss": 0.5 * 0.9**epochs, "valid_loss": 0.5 + 0 * epochs,
                         "lr": 1e-3 / (1 + epochs)} | columns | floors)  # fmt: skip


@pytest.mark.parametrize("n_epochs", [1, 100])
@pytest.mark.parametrize("valid_metric", ["macro_ap", "loss"])
def test_history_is_legible(n_epochs, valid_metric):
    assert_legible(plot_history(a_history(n_epochs, [name for name in METRICS if name != "loss"]), valid_metric))
    assert_legible(plot_history(a_history(n_epochs, ["macro_ap"]), valid_metric))


@pytest.mark.parametrize("n_genres", [1, 8, 24])
def test_genre_table_is_legible(n_genres):
    rng = np.random.default_rng(0)
    genres = list(GENRE_COLORS)[:n_genres]
    targets = (rng.random((800, n_genres)) < np.geomspace(0.5, 0.001, 24)[:n_genres]).astype(float)
    scores = np.clip(0.4 * targets + 0.6 * rng.random(targets.shape), 0, 1)
    table = genre_table(targets, scores, genres)
    assert_legible(plot_genre_table(table))
    assert_legible(plot_genre_table(table.join(genre_intervals(targets, scores, genres))))
    assert_legible(plot_genre_table(genre_table(targets, targets, genres)))  # all perfect
    formulas = ["$\\bad$", *genres[1:]]
    assert_legible(plot_genre_table(genre_table(targets, targets, formulas)))  # a name is no formula


@pytest.mark.parametrize(("n_images", "n_columns"), [(1, 6), (5, 4), (9, 8)])
@pytest.mark.parametrize("size", [(182, 268), (400, 250)])
def test_grid_is_legible(n_images, n_columns, size):
    genres = ["Documentary", "Animation", "Reality-TV", "Adventure", "Biography", "Thriller", "Crime", "War"]
    images = [Image.new("RGB", size, "navy")] * n_images
    scores = [dict.fromkeys(genres, 0.88)] * n_images
    predicted, true = [genres[2:]] * n_images, [genres[:4]] * n_images
    titles = ["a_long_name_of_a_file_with_a_poster.jpg"] * n_images
    assert_legible(poster_grid(images, predicted, true, scores, titles, n_columns=n_columns))
    assert_legible(poster_grid(images, predicted, n_columns=n_columns))


def test_rates_are_legible():
    assert_legible(plot_schedule(np.geomspace(1e-5, 3e-7, 3000), 100))
    assert_legible(plot_schedule({"head": [1e-3] * 50, "backbone": [1e-4] * 50}, 100))
    lr = np.geomspace(1e-7, 10, 100)
    table = pd.DataFrame({"lr": lr, "loss": 0.7 + lr**2, "smoothed": 0.7 + lr**2})
    assert_legible(plot_lr_find(table, {"low": 1e-4, "high": 1e-2}))
    assert_legible(plot_lr_find(table))


def test_colors_do_not_depend_on_the_company():
    alone = {genre: genre_colors([genre])[genre] for genre in [*GENRE_COLORS, "Film noir", "Äventyr", ""]}
    assert genre_colors(reversed(alone)) == alone
    assert all(color.startswith("#") and len(color) == 7 for color in alone.values())
