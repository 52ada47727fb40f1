"""`compare` as people use it: sorted, searched, downloaded, rows chosen, runs compared, renamed and deleted."""

import shutil

import pandas as pd
import pytest
from browsing import run_all

HOSTILE = "<img src=x onerror=document.title=1>"


@pytest.fixture(scope="module")
def compare(lab, shown, page):
    "The page, with two runs more: one to delete, and one on other data with markup in its note and its parameters."
    address, _ = lab
    spare = shutil.copytree(shown / "head", shown / "spare")
    other = shutil.copytree(shown / "head", shown / "other")
    (other / "note.txt").write_text(HOSTILE)
    with (other / "params.yaml").open("a") as file:
        file.write(f'"{HOSTILE}": "{HOSTILE}"\n')
    summary = (other / "summary.json").read_text()
    hash_before = summary.partition('"data_hash": "')[2][:64]
    (other / "summary.json").write_text(summary.replace(hash_before, "f" * 64))
    run_all(page, address, "compare.ipynb")
    page.locator(".dt-scroll-body tbody tr").first.wait_for(timeout=120_000)
    page.locator(".jp-OutputArea-output img").first.wait_for(timeout=20_000)
    yield page
    for folder in (spare, other, shown / "renamed"):
        shutil.rmtree(folder, ignore_errors=True)


def names(page) -> list[str]:
    "The names of the runs in the table, from the top."
    return page.locator(".dt-scroll-body tbody tr td:first-child").all_inner_texts()


def test_runs_are_sorted_searched_and_downloaded(compare, shots, tmp_path):
    page = compare
    before = names(page)
    assert {"head", "full", "spare", "other"} <= set(before)
    page.screenshot(path=str(shots / "compare.png"))
    heading = page.locator(".dt-scroll-head th", has_text="run").first
    heading.click()
    page.wait_for_function(
        "names => [...document.querySelectorAll('.dt-scroll-body tbody tr td:first-child')]"
        ".map(e => e.innerText).join() == names",
        arg=",".join(sorted(before)),
        timeout=10_000,
    )
    page.locator(".dt-search input").fill("lr_find")
    page.wait_for_function("() => document.querySelectorAll('.dt-scroll-body tbody tr').length == 2", timeout=10_000)
    assert set(names(page)) == {"lrf_head", "lrf_full"}
    page.locator(".dt-search input").fill("")
    page.wait_for_function("() => document.querySelectorAll('.dt-scroll-body tbody tr').length > 2", timeout=10_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "runs.csv")
    table = pd.read_csv(tmp_path / "runs.csv")
    assert set(table["run"]) == set(before) and HOSTILE in set(table["note"])
    page.get_by_role("button", name="Choose columns").click()
    page.locator(".dt-button-collection").get_by_text("no_skill", exact=True).click()
    page.screenshot(path=str(shots / "compare_columns.png"))
    page.keyboard.press("Escape")
    assert page.locator(".dt-scroll-head th", has_text="no_skill").count() == 0


def test_names_from_files_are_text(compare):
    page = compare
    assert page.get_by_text(HOSTILE).first.is_visible()
    assert page.title() != "1" and page.locator("table img").count() == 0


def test_chosen_rows_are_drawn_and_changed_after_a_question(compare, shown, shots):
    page = compare
    page.locator(".dt-scroll-body tbody tr", has_text="spare").locator("td").nth(1).click()
    page.locator("b", has_text="spare").wait_for(timeout=10_000)
    select = page.locator(".widget-dropdown").filter(has_text="with").locator("select")
    select.select_option("spare")
    page.get_by_label("name").last.fill("head")
    page.get_by_role("button", name="Rename …").click()
    page.get_by_text("runs/head already exists. Choose another name.").wait_for(timeout=10_000)
    page.get_by_label("name").last.fill("renamed")
    page.get_by_role("button", name="Rename …").click()
    page.get_by_text("Rename runs/spare to runs/renamed?").wait_for(timeout=10_000)
    assert (shown / "spare").is_dir()
    page.screenshot(path=str(shots / "compare_rename.png"))
    page.get_by_role("button", name="Yes").click()
    page.get_by_text("runs/spare is now runs/renamed.").wait_for(timeout=10_000)
    assert not (shown / "spare").exists() and (shown / "renamed").is_dir()
    page.locator(".dt-scroll-body tbody td", has_text="renamed").first.wait_for(timeout=10_000)
    assert "spare" not in names(page)
    assert select.input_value() == "renamed" and "spare" not in select.inner_text()
    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Yes").click()
    page.get_by_text("Moved to runs/.deleted/renamed/1.").wait_for(timeout=10_000)
    assert not (shown / "renamed").exists() and (shown / ".deleted" / "renamed" / "1" / "summary.json").is_file()


def test_two_runs_are_compared_and_other_data_are_drawn_apart(compare, shown, shots, pictures):
    page = compare
    body = page.locator(".dt-scroll-body tbody")
    before = page.locator(".widget-image").first.get_attribute("src")
    body.locator("tr", has_text="full").locator("td").nth(1).click()
    body.locator("tr", has_text="other").locator("td").nth(1).click(modifiers=["Control"])
    page.locator("b", has_text="full, other").wait_for(timeout=10_000)
    image = page.locator(".widget-image").first
    page.wait_for_function("src => document.querySelector('.widget-image').src != src", arg=before, timeout=10_000)
    image.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    page.screenshot(path=str(shots / "compare_apart.png"))
    size = image.evaluate("e => e.naturalHeight / e.naturalWidth")
    assert size > 0.6, size  # two axes, one below the other
    select = page.locator(".widget-dropdown")
    select.filter(has_text="compare").locator("select").select_option("head")
    select.filter(has_text="with").locator("select").select_option("full")
    page.get_by_text("posters, macro_ap of head is").last.wait_for(timeout=20_000)
    assert page.get_by_text("validation posters, macro_ap of head").count() == 1
    assert page.get_by_text("test posters, macro_ap of head").count() == 1
    page.screenshot(path=str(shots / "compare_pair.png"))
    (shown / "other" / "note.txt").write_text("on other posters")
    refresh = page.locator("button[title='Read the runs again']")
    refresh.click()
    page.locator("td", has_text="on other posters").last.wait_for(timeout=20_000)
    refresh.evaluate("button => button.scrollIntoView()")
    page.wait_for_timeout(500)
    pictures("compare", page.locator(".jp-NotebookPanel-notebook"))


def test_the_table_works_in_a_page_of_voila(browser, served, shown):
    "Without JupyterLab, and without anything from another host."
    page, answered = browser.new_page(), set()
    address = served("compare.ipynb")
    page.on("response", lambda response: answered.add(response.url))
    page.goto(address, timeout=120_000)
    page.locator(".dt-scroll-body tbody tr").first.wait_for(timeout=60_000)
    assert {"head", "full"} <= set(names(page))
    assert {url for url in answered if not url.startswith((address, "blob:", "data:"))} == set()
    page.close()
