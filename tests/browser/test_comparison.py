"""Several runs on one page, in a real browser."""

from __future__ import annotations

import pytest

from tests.browser.conftest import VIEWS


@pytest.mark.parametrize("view", VIEWS)
def test_both_fronts_are_shown_within_the_screen_and_nothing_is_complained_of(open_page, view):
    opened = open_page("two_runs", view)
    page = opened.page

    assert opened.complaints == []
    assert page.title() == "Fronts of first-run, second-run"
    width = page.viewport_size["width"]
    assert page.locator("html").evaluate("element => element.scrollWidth") <= width
    pictures = [picture.bounding_box() for picture in page.get_by_role("img").all()]
    assert len(pictures) == 2
    assert all(box["width"] > 200 and box["x"] + box["width"] <= width for box in pictures)
    assert page.get_by_role("region", name="Differences of the specs").get_by_text("<script>").is_visible()
    assert page.evaluate("document.querySelectorAll('script').length") == 2


def test_each_run_has_a_hue_and_a_marker_and_its_points_say_whose_they_are(open_page):
    page = open_page("two_runs").page

    marks = page.locator("figure .wide").first.locator("[data-tip]")
    found = marks.evaluate_all(
        "marks => marks.map((m) => [m.dataset.tip.split(',')[0], getComputedStyle(m).stroke, m.getAttribute('d')])"
    )
    looks = {(name.split("\n")[0], colour, path) for name, colour, path in found}
    assert len(looks) == len({colour for _, colour, _ in looks}) == len({path for _, _, path in looks}) == 3
    assert {name for name, _, _ in looks} == {"SFT", "first-run", "second-run"}


def test_the_legend_hides_a_run(open_page):
    page = open_page("two_runs").page

    page.get_by_role("button", name="second-run (iteration 3)").click()

    tips = page.locator("figure .wide [data-tip]:visible").evaluate_all("marks => marks.map((m) => m.dataset.tip)")
    assert {tip.split(",")[0].split("\n")[0] for tip in tips} == {"SFT", "first-run"}
