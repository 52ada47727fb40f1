"""`explore` in a browser: a page is turned, a genre chosen, the other tabs opened, the augmentation weakened."""

import time

from browsing import run_all


def seconds_until(page, text: str, act) -> float:
    "How long it takes until a text stands on the page after something was done."
    start = time.perf_counter()
    act()
    page.get_by_text(text).first.wait_for(timeout=30_000)
    return time.perf_counter() - start


def test_pages_and_genres_of_the_gallery(lab, page, shots):
    address, folder = lab
    notebook = folder / "nbs" / "explore.ipynb"
    text = notebook.read_text(encoding="utf-8")
    changed = text.replace("n_demo_posters: int = 160", "n_demo_posters: int = 200")  # those are drawn already
    assert changed != text
    notebook.write_text(changed, encoding="utf-8")
    run_all(page, address, "explore.ipynb")
    page.get_by_text("of 9: 1 to 24 of 200").wait_for(timeout=120_000)
    tiles = page.locator(".pg-tile:visible")
    assert tiles.count() == 24 and "demo0000" in tiles.first.inner_text()

    turn = page.get_by_role("button", name="next ›").first
    turned = seconds_until(page, "of 9: 25 to 48 of 200", turn.click)
    assert tiles.count() == 24 and "demo0024" in tiles.first.inner_text()
    page.screenshot(path=str(shots / "explore_posters.png"))

    genres = page.locator("select[multiple]").first
    option = genres.locator("option", has_text="Horror").inner_text()
    count = int(option.split("(")[1].rstrip(")"))
    chosen = seconds_until(page, f"{count} of 200 posters", lambda: genres.select_option(label=option))
    page.get_by_text(f"of {-(-count // 24)}: 1 to {min(24, count)} of {count}").wait_for(timeout=30_000)
    assert tiles.count() == min(24, count) and all("Horror" in text for text in tiles.all_inner_texts())
    page.screenshot(path=str(shots / "explore_horror.png"))
    print(f"a page after {turned:.2f} s, a genre after {chosen:.2f} s")

    for tab in ("Genres", "Genres together", "Audit"):
        page.locator(".lm-TabBar-tabLabel", has_text=tab).last.click()
        page.wait_for_timeout(500)
        page.screenshot(path=str(shots / f"explore_{tab.lower().replace(' ', '_')}.png"))
    page.locator(".lm-TabBar-tabLabel", has_text="Augmentation").click()
    yaml = page.locator("pre", has_text="augmentations: light")
    yaml.wait_for(timeout=30_000)
    page.locator(".noUi-handle:visible").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.locator("pre", has_text="scale: [").wait_for(timeout=30_000)
    assert tiles.count() == 8 and "as it is" in tiles.first.inner_text()
    page.screenshot(path=str(shots / "explore_augmentation.png"))
