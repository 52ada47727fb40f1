"""`explore` in a browser: pages, genres, an enlarged poster, an order by scores, and the other tabs."""

import time

from browsing import run_all, set_parameters


def seconds_until(locator, act) -> float:
    "How long it takes until something is seen after something was done."
    start = time.perf_counter()
    act()
    locator.first.wait_for(timeout=30_000)
    return time.perf_counter() - start


def test_a_page_is_turned_and_a_genre_chosen(lab, page, shots):
    address, folder = lab
    set_parameters(folder / "nbs" / "explore.ipynb", n_demo_posters=200)  # those that are drawn already
    run_all(page, address, "explore.ipynb")
    tiles = page.locator(".pg-tile:visible")
    tiles.filter(has_text="demo0000").wait_for(timeout=120_000)
    assert tiles.count() == 24 and page.get_by_text("of 9: 1 to 24 of 200").is_visible()

    turned = seconds_until(tiles.filter(has_text="demo0024"), page.get_by_role("button", name="next ›").first.click)
    assert tiles.count() == 24 and page.get_by_text("of 9: 25 to 48 of 200").is_visible()
    page.locator(".widget-tab").evaluate("tab => tab.scrollIntoView()")
    page.screenshot(path=str(shots / "explore_posters.png"))

    genres = page.locator("select[multiple]").first
    option = genres.locator("option", has_text="Horror").inner_text()
    count = int(option.split("(")[1].rstrip(")"))
    pages, on_page = -(-count // 24), min(24, count)
    said = page.get_by_text(f"of {pages}: 1 to {on_page} of {count}")
    chosen = seconds_until(said, lambda: genres.select_option(label=option))
    page.wait_for_function(
        "n => {const t = [...document.querySelectorAll('.pg-tile')].filter(e => e.offsetParent);"
        " return t.length == n && t.every(e => e.innerText.includes('Horror'))}",
        arg=on_page,
    )
    assert page.get_by_text(f"{count} of 200 posters").is_visible()
    page.screenshot(path=str(shots / "explore_horror.png"))
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("of 9: 1 to 24 of 200").wait_for(timeout=20_000)
    print(f"a page after {turned:.2f} s, a genre after {chosen:.2f} s")


def test_a_poster_is_enlarged_and_posters_are_sorted_by_a_score(lab, page, shown, shots, pictures):
    "On the page that the test above has left."
    tiles, poster = page.locator(".pg-tile:visible"), page.locator(".pg-poster:visible")
    tiles.filter(has_text="demo0003").click()
    poster.filter(has_text="demo0003").wait_for(timeout=10_000)
    assert "demo0003.jpg" in poster.inner_text() and poster.locator("img").evaluate("e => e.naturalHeight") >= 300
    tiles.filter(has_text="demo0005").focus()
    page.keyboard.press("Enter")
    poster.filter(has_text="demo0005").wait_for(timeout=10_000)

    select = page.locator(".widget-dropdown:visible")
    select.filter(has_text="scores of").locator("select").select_option("full")
    select.filter(has_text="sort by").locator("select").select_option("score of the genre")
    page.locator(".widget-dropdown:visible select").filter(has_text="Western").last.select_option("Horror")
    table = max(
        (line.split(",") for name in ("valid", "test") for line in lines(shown / "full" / f"{name}_predictions.csv")),
        key=lambda row: float(row[5]),
    )
    page.locator(".pg-tile:visible").first.filter(has_text=table[0]).wait_for(timeout=10_000)
    tiles.first.click()
    poster.filter(has_text="score of full").wait_for(timeout=10_000)
    assert table[0] in poster.inner_text() and f"{float(table[5]):.2f}" in poster.inner_text()
    page.locator(".widget-tab").evaluate("tab => tab.scrollIntoView()")
    page.screenshot(path=str(shots / "explore_poster.png"))
    page.locator(".pg-path:visible").evaluate("e => {e.innerText = e.innerText.replace(/.*(?=demo_posters)/, 'runs/')}")
    pictures("explore", page.locator(".jp-NotebookPanel-notebook"))
    page.locator("button[title=Close]:visible").click()
    poster.wait_for(state="hidden", timeout=10_000)


def lines(path) -> list[str]:
    "The rows of a table; Horror is the sixth column."
    head, *rows = path.read_text().splitlines()
    assert head.split(",")[5] == "Horror", head
    return rows


def test_the_other_views(lab, page, shots):
    "On the page that the test above has left."
    from playwright.sync_api import expect

    tab = page.locator(".lm-TabBar-tabLabel")
    for name in ("Genres", "Genres together", "Audit"):
        tab.get_by_text(name, exact=True).click()
        if name != "Audit":
            page.locator(".widget-image:visible").first.wait_for(timeout=20_000)
        page.wait_for_timeout(500)
        page.screenshot(path=str(shots / f"explore_{name.lower().replace(' ', '_')}.png"))
        if name == "Genres together":
            images = page.locator(".widget-image:visible")
            before = images.get_attribute("src")
            page.get_by_role("button", name="share of the row's genre").click()
            expect(images).not_to_have_attribute("src", before, timeout=10_000)  # of a single image
    tab.get_by_text("Augmentation", exact=True).click()
    page.locator("pre:visible", has_text="augmentations: light").wait_for(timeout=60_000)
    tiles = page.locator(".pg-tile:visible")
    assert tiles.count() == 8 and "as it is" in tiles.first.inner_text()
    page.locator(".noUi-handle:visible").first.focus()
    weaker = page.locator("pre:visible", has_text="RandomResizedCrop: {scale: [0.")
    print(f"a weaker recipe after {seconds_until(weaker, lambda: page.keyboard.press('ArrowLeft')):.2f} s")
    page.screenshot(path=str(shots / "explore_augmentation.png"))
