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
    page.get_by_text("validation posters").last.wait_for(timeout=20_000)
    page.get_by_text("sort by").first.scroll_into_view_if_needed()
    page.mouse.move(800, 500)
    page.mouse.wheel(0, 430)
    page.wait_for_timeout(500)
    page.screenshot(path=str(shots / "compare.png"))
