"""Tables that people have: each is read as it is meant, or refused with the rows that are not clear."""

import gzip
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from postergenre.data.annotations import read_annotations
from postergenre.data.columns import RESERVED, TableFormat
from postergenre.data.experiment import audit_folder
from postergenre.data.split import audit, load_data
from postergenre.data.tables import AuditError
from postergenre.demo.posters import draw_demo_posters
from postergenre.demo.things import DEMO_GENRES
from postergenre.errors import ConfigError
from postergenre.params import AuditParams

PARTS = (0.6, 0.2, 0.2)


@pytest.fixture
def rows(root) -> pd.DataFrame:
    "Id, and Genre as a list of names."
    table = pd.read_csv(root / "train.csv")[["Id", "Genre"]]
    return table.assign(Genre=[[genre for genre in DEMO_GENRES if f"'{genre}'" in cell] for cell in table["Genre"]])


def written(rows, separator: str = "|") -> pd.DataFrame:
    return rows.assign(Genre=[separator.join(genres) for genres in rows["Genre"]])


def kinds(findings) -> dict[str, tuple]:
    return {row.kind: (row.count, row.examples, row.action) for row in findings.itertuples(index=False, name="Row")}


def save(table, root, name="train.csv", **options) -> None:
    (root / "train.csv").unlink(missing_ok=True)
    table.to_csv(root / name, index=False, **options)


def bars(rows):
    return written(rows)


WAYS = {
    "a NumPy list": lambda rows: rows.assign(Genre=[str(np.array(genres, dtype=object)) for genres in rows["Genre"]]),
    "bytes": lambda rows: rows.assign(Genre=[str([genre.encode() for genre in genres]) for genres in rows["Genre"]]),
    "commas": lambda rows: written(rows, ", "),
    "semicolons in cells": lambda rows: written(rows, ";"),
    "mappings": lambda rows: rows.assign(
        Genre=[[{"id": 1, "name": genre} for genre in cell] for cell in rows["Genre"]]
    ),
    "other names": lambda rows: bars(rows).set_axis(["image_name", "tags"], axis=1),
    "imdbId": lambda rows: bars(rows).set_axis(["imdbId", "Genre"], axis=1),
    "file names": lambda rows: bars(rows).assign(Id=rows["Id"] + ".jpg"),
    "paths": lambda rows: bars(rows).assign(Id="Images/" + rows["Id"] + ".jpg"),
    "a row number as Id": lambda rows: bars(rows).set_axis(["filename", "Genre"], axis=1).assign(Id=range(len(rows))),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_gives_the_same_data(way, root, rows):
    before = load_data(root, PARTS)
    save(WAYS[way](rows), root)
    data = load_data(root, PARTS)
    assert (data.genres, data.data_hash, data.split_hash) == (DEMO_GENRES, before.data_hash, before.split_hash)


FILES = {
    "semicolons": ("train.csv", lambda text: text.replace(",", ";").encode(), "columns separated by semicolons"),
    "tabs": ("train.tsv", lambda text: text.replace(",", "\t").encode(), "columns separated by tabs"),
    "gzip": ("train.csv.gz", lambda text: gzip.compress(text.encode()), "`Genre`"),
    "UTF-16": ("train.csv", lambda text: text.encode("utf-16"), "text in UTF-16"),
}


@pytest.mark.parametrize("file", FILES)
def test_every_kind_of_text_file_gives_the_same_data(file, root, rows):
    before, (name, encode, said) = load_data(root, PARTS).data_hash, FILES[file]
    (root / "train.csv").unlink()
    (root / name).write_bytes(encode(written(rows).to_csv(index=False)))
    data = load_data(root, PARTS)
    assert data.data_hash == before and said in data.reading


def test_parquet_and_excel_give_the_same_data(root, rows):
    before = load_data(root, PARTS).data_hash
    (root / "train.csv").unlink()
    rows.to_parquet(root / "train.parquet")
    assert load_data(root, PARTS).data_hash == before
    (root / "train.parquet").unlink()
    written(rows).to_excel(root / "train.xlsx", index=False)
    assert load_data(root, PARTS).data_hash == before


def test_latin_1_is_read_and_told(root, rows):
    save(written(rows).replace("Drama", "Comédie", regex=True), root, encoding="latin-1")
    data = load_data(root, PARTS)
    assert "Comédie" in data.genres and "text in Latin-1" in data.reading


@pytest.mark.parametrize("nothing", ["nan", "None", "null", "NaN", "<NA>", "[]", "[nan]"])
def test_a_cell_that_says_nothing_names_no_genre(nothing, root, rows):
    table = written(rows)
    table.loc[:2, "Genre"] = nothing
    save(table, root)
    data = load_data(root, PARTS)
    assert data.genres == DEMO_GENRES and kinds(data.findings)["rows without a genre"][0] == 3
    assert "3 rows without a genre" in data.reading


def test_tags_separated_by_spaces_are_asked_about_and_separated_when_told(root, rows):
    save(written(rows, " ").rename(columns={"Genre": "tags"}), root)
    found = kinds(load_data(root, PARTS, min_positives=1).findings)
    count, examples, action = found["different cells of tags that may name several genres"]
    assert count > 5 and examples.count("row ") == 2 and "genre_separator: ' '" in action
    data = load_data(root, PARTS, how=TableFormat(genre_separator=" "))
    assert data.genres == DEMO_GENRES and "separated by ' '" in data.reading


def test_two_rows_that_disagree_are_quoted(root, rows):
    table = written(rows, ", ")
    table.loc[7, "Genre"] = "Drama; Horror"
    save(table, root)
    first = table["Genre"].str.contains(",").idxmax()
    with pytest.raises(ValueError) as caught:
        load_data(root, PARTS)
    message = str(caught.value)
    assert f"row {first + 1} ({table['Genre'][first]!r})" in message and "row 8 ('Drama; Horror')" in message
    assert message.startswith("train.csv ") and "genre_separator" in message
    save(written(rows).assign(Id=rows["Id"].where(rows.index > 0, "x/" + rows["Id"] + ".jpg")), root)
    with pytest.raises(ValueError, match=r"row 2 \('demo0001'\) without folder and ending, row 1 \('x/demo0000.jpg'\)"):
        load_data(root, PARTS)


def test_a_column_of_0_and_1_that_no_cell_names_is_no_genre(root, rows):
    save(written(rows).assign(video=[number % 2 == 0 for number in range(len(rows))]), root)
    data = load_data(root, PARTS)
    assert data.genres == DEMO_GENRES
    assert kinds(data.findings)["columns of train.csv that are not genres"][:2] == (1, "video")
    save(written(rows).assign(Drama=0), root)
    disagree = kinds(load_data(root, PARTS).findings)["text and 0/1 columns disagree in train.csv"]
    assert disagree[0] == sum("Drama" in genres for genres in rows["Genre"]) and disagree[1].endswith("in Drama")


@pytest.mark.parametrize("name", ["A|B", "true", "error", "path", "genres", "look", "fault", "A\nB", "A\tB"])
@pytest.mark.parametrize("layout", ["columns", "lists"])
def test_a_genre_that_would_break_a_table_is_refused_by_name(name, layout, root, rows):
    flags = {genre: [int(genre in cell) for cell in rows["Genre"]] for genre in [*DEMO_GENRES[1:], DEMO_GENRES[0]]}
    flags[name] = flags.pop(DEMO_GENRES[0])
    columns = pd.DataFrame({"Id": rows["Id"], **flags})
    lists = rows.assign(Genre=[[name, *cell] for cell in rows["Genre"]])
    save(columns if layout == "columns" else lists, root)
    with pytest.raises(ValueError) as caught:
        load_data(root, PARTS)
    assert f"a genre named {name!r}" in str(caught.value) and "Rename it" in str(caught.value)


def test_no_column_next_to_those_of_the_genres_can_be_the_name_of_one(drawn, tmp_path):
    from postergenre.predict.scorer import predictions_table
    from postergenre.train.training import save_predictions

    data = load_data(drawn, PARTS)
    scores = np.full((len(data.valid), len(data.genres)), 0.5)
    targets = data.valid[data.genres].to_numpy()
    save_predictions(tmp_path / "scores.csv", data, "valid", SimpleNamespace(scores=scores, targets=targets))
    predictor = SimpleNamespace(genres=data.genres, thresholds=np.full(len(data.genres), 0.4))
    predicted = predictions_table(list(data.valid["Id"]), scores, [""] * len(scores), predictor)
    columns = {*pd.read_csv(tmp_path / "scores.csv"), *predicted, *data.valid} - set(data.genres)
    assert columns >= {"Id", "true", "error"} and columns <= set(RESERVED)


def test_genres_and_ids_that_look_like_numbers_are_read_back_as_text(tmp_path):
    from postergenre.report.comparison import predictions_of, thresholds_of

    (tmp_path / "valid_predictions.csv").write_text("Id,28,12,true\n007,0.5,0.5,28\n7,0.5,0.5,12\n")
    (tmp_path / "genres.csv").write_text("genre,threshold\n28,0.5\n12,0.25\n")
    table = predictions_of(tmp_path)
    assert list(table.index) == ["007", "7"] and list(table["true"]) == ["28", "12"]
    assert thresholds_of(tmp_path, ["12", "28"]).tolist() == [0.25, 0.5]


@pytest.mark.parametrize("genre", ["Action & Adventure", "A<b>", "*Drama*", "[x](y)", "Children's"])
def test_the_model_card_counts_genres_of_any_name(genre):
    from postergenre.report.documents import card_tables

    table = pd.DataFrame(
        {"positives": [7, 22], "ap": 0.5, "ap_low": 0.4, "ap_high": 0.6, "floor": 0.1, "threshold": 0.5},
        index=[genre, "Drama"],
    )
    metrics = pd.DataFrame({"value": [0.5], "low": 0.4, "high": 0.6, "floor": 0.1}, index=["macro_ap"])
    _, card = card_tables(SimpleNamespace(metrics=metrics, table=table))
    first, second = card.splitlines()[2:]
    assert first.split(" | ")[1] == "7" and second.split(" | ")[1] == "22" and "nan" not in card
    assert "*Drama*" not in card and "[x]" not in card and "<b>" not in card


def test_files_of_a_split_under_other_names_are_named(root, rows):
    for name in ("val.csv", "test.csv"):
        shutil.copy(root / "train.csv", root / name)
    count, examples, action = kinds(load_data(root, PARTS).findings)["tables that look like part of a split"]
    assert (count, examples) == (2, "test.csv, val.csv") and "train_df.csv, valid_df.csv and test_df.csv" in action
    (root / "val.csv").unlink()
    load_data(root, PARTS).save(root)
    (root / "test_df.csv").unlink()
    assert kinds(load_data(root).findings)["tables that look like part of a split"][1] == "test.csv"


def test_ids_without_their_zeros_are_shown_next_to_the_picture(root, rows):
    for path in (root / "Images").iterdir():
        path.rename(path.with_name(path.name.replace("demo", "008")))
    save(written(rows).assign(Id=[int(name.removeprefix("demo")) + 80_000 for name in rows["Id"]]), root)
    with pytest.raises(AuditError, match=r"for instance Id 80000; Images/ has 0080000.jpg"):
        load_data(root, PARTS)


def test_a_table_without_rows_says_so(root):
    (root / "train.csv").write_text("Id,Genre\n")
    with pytest.raises(ValueError, match="train.csv has no rows"):
        load_data(root, PARTS)


def test_rare_labels_leave_no_split_empty(root, rows):
    save(rows.assign(Genre=[f"label {number % 41}" for number in range(60)]), root)
    table = read_annotations(root).table
    assert len(table) == 60
    data = load_data(root, (0.8, 0.1, 0.1))
    count, _, action = kinds(data.findings)["genres too rare to be stratified"]
    assert (count, action) == (41, "posters distributed evenly") and len(data.train) == 48 and len(data.valid) > 2
    save(rows.assign(Genre=[f"label {number}" for number in range(60)]), root)
    with pytest.raises(
        AuditError, match="48 of 48 genres have only one poster"
    ):  # all the others have no poster to learn
        load_data(root, (0.8, 0.1, 0.1))


def test_counts_of_split_files_are_whole_numbers(root, rows):
    table = written(rows)
    for split, part in {"train": table[:40], "valid": table[40:]}.items():
        without = part[~part["Genre"].str.contains("Western")] if split == "valid" else part
        without.to_csv(root / f"{split}_df.csv", index=False)
    found = kinds(audit(root, min_positives=60))
    assert "Western (0)" in found["genres with fewer than 60 posters in valid"][1]
    assert not any(".0)" in examples for _, examples, _ in found.values())
    assert (load_data(root, min_positives=1).valid[DEMO_GENRES].dtypes == np.uint8).all()


def test_parameters_name_what_cannot_be_found(root, rows):
    table = written(rows, "/").set_axis(["what", "kind of film"], axis=1).assign(imdb="1", file="2")
    save(table, root)
    how = TableFormat("what", "Kind of Film", "/")
    data = load_data(root, PARTS, how=how)
    assert (
        data.genres == DEMO_GENRES and "ids from `what`; genres from `kind of film`, separated by '/'" in data.reading
    )
    with pytest.raises(ValueError, match="`genre_column`: given 'kinds'; allowed: a column of the table"):
        load_data(root, PARTS, how=TableFormat("what", "kinds"))


def test_an_audit_reads_as_a_run_does_and_ends_as_it_would(root, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(tmp_path / "runs"))
    report = audit_folder(AuditParams(root_path=str(root), split_fractions=list(PARTS), min_positives=1))
    data = load_data(root, PARTS, min_positives=1)
    assert report.reading == data.reading and report.findings.equals(data.findings) and report.stop()
    assert report.genres["valid"].to_dict() == data.valid[data.genres].sum().to_dict()
    save(written(rows).assign(Id="x" + rows["Id"]), root)
    wrong = audit_folder(AuditParams(root_path=str(root), pictures=False))
    with pytest.raises(AuditError, match="Is it the right folder"):
        wrong.stop()
    save(written(rows, ";").assign(Genre=["A;B", *["A, B"] * 59]), root)
    with pytest.raises(ConfigError, match="genres are written in two ways"):
        audit_folder(AuditParams(root_path=str(root)))


def test_an_audit_stops_where_training_would_for_want_of_validation_posters(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(tmp_path / "runs"))
    root = draw_demo_posters(tmp_path / "few", 60)
    report = audit_folder(AuditParams(root_path=str(root)))
    with pytest.raises(ConfigError, match="The validation split cannot choose a best checkpoint"):
        report.stop()
    assert "0 of" in str(report.problem)
    report = audit_folder(AuditParams(root_path=str(root), min_positives=1, split_fractions=[0.5, 0.4, 0.1]))
    assert report.stop() == "Nothing here stops a training run."
    in_folds = audit_folder(AuditParams(root_path=str(root), min_positives=1, fold=[1, 50]))
    with pytest.raises(ConfigError, match="The validation split cannot choose a best checkpoint"):
        in_folds.stop()
    assert all(f"- {kind}: " in str(report) for kind in report.findings["kind"])
