"""`compare` as people use it: sorted with the mouse, two runs compared."""

from browsing import run_all


def test_runs_are_sorted_and_two_of_them_compared(lab, page, shots):
    address, _ = lab
    run_all(page, address, "compare.ipynb")
    table = page.locator(".jp-OutputArea-output table").first
    table.wait_for(timeout=120_000)
    page.locator(".jp-OutputArea-output img").first.wait_for(timeout=20_000)
    names = table.locator("tbody tr td:first-child")
    before = names.all_inner_texts()
    assert {"head", "full"} <= set(before)
    select = page.locator(".widget-dropdown")
    select.filter(has_text="sort by").locator("select").select_option("run")
    page.wait_for_function(
        "names => document.querySelector('.jp-OutputArea-output table tbody tr td').innerText == names",
        arg=max(before),
        timeout=10_000,
    )
    assert names.all_inner_texts() == sorted(before, reverse=True)
    select.filter(has_text="compare").locator("select").select_option("head")
    select.filter(has_text="with").locator("select").select_option("full")
    page.get_by_text("posters, macro_ap of full is").last.wait_for(timeout=20_000)
    assert page.get_by_text("validation posters, macro_ap of full").count() == 1
    assert page.get_by_text("test posters, macro_ap of full").count() == 1
    heads = table.locator("thead th").all_inner_texts()
    assert "valid macro_ap" in heads and not any(name.startswith(("swa_", "export_")) for name in heads)
    page.get_by_text("sort by").first.scroll_into_view_if_needed()
    page.mouse.move(800, 500)
    page.mouse.wheel(0, 430)
    page.wait_for_timeout(500)
    page.screenshot(path=str(shots / "compare.png"))


def test_the_table_alone_is_scrolled_and_its_first_column_stands_still(lab, page, shots):
    "On the page that the test above has left."
    table = page.locator(".pg-runs")
    table.scroll_into_view_if_needed()
    widths = "e => {const box = e.closest('.widget-html'); return [box.scrollWidth, box.clientWidth]}"
    wide, seen = table.evaluate(widths)
    output = page.locator(".jp-OutputArea-output", has=table)
    assert wide > seen and output.evaluate("e => e.scrollWidth <= e.clientWidth"), (wide, seen)
    name = table.locator("tbody tr td:first-child").first
    before = name.bounding_box()["x"]
    table.evaluate("e => {e.closest('.widget-html').scrollLeft = 300}")
    page.wait_for_timeout(300)
    assert abs(name.bounding_box()["x"] - before) < 1
    page.screenshot(path=str(shots / "compare_scrolled.png"))


def test_no_curve_is_words(lab, page, shots):
    curves = page.locator(".widget-select-multiple select").first
    curves.select_option([])
    page.get_by_text("Choose a run.").wait_for(timeout=20_000)
    assert not page.locator(".widget-image").first.is_visible()
    page.screenshot(path=str(shots / "compare_no_curve.png"))
