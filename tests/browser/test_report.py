"""The report in a real browser: on a desk, a phone, paper, in the dark, without script, with a keyboard."""

from __future__ import annotations

import itertools
import re

import pytest

from tests.browser.conftest import VIEWS
from tests.browser.pages import RIGHT_TO_LEFT

PAGES = ("hostile_five", "plain_one", "partly_judged")

NUM_ROWS = {"hostile_five": 1 + 5 * (5 + 5) + 3 * 2, "plain_one": 1 + 1 + 5, "partly_judged": 1 + 2 * (2 + 5)}
"""Policies in the table of the front."""

TEXT_SIZES = """() => [...document.querySelectorAll('figure svg text')]
  .filter((text) => text.textContent && text.getClientRects().length)
  .map((text) => parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b))"""

CONTRASTS = """() => {
  const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(channel);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = luminance(getComputedStyle(document.body).backgroundColor);
  const ratio = (text) => {
    const [low, high] = [luminance(text), page].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const of = (selector, property) => [...document.querySelectorAll(selector)]
    .filter((element) => element.getClientRects().length)
    .map((element) => getComputedStyle(element)[property])
    .filter((colour) => /^rgb\\(/.test(colour))
    .map(ratio);
  return {text: of('p, td, th, caption, dt, dd, li, blockquote, figcaption, .quiet', 'color'),
          marks: of('figure [data-tip]', 'stroke')};
}"""


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_everything_is_shown_within_the_screen_and_nothing_is_complained_of(open_page, name, view):
    opened = open_page(name, view)
    page = opened.page

    assert opened.complaints == []
    width = page.viewport_size["width"]
    assert page.locator("html").evaluate("element => element.scrollWidth") <= width
    pictures = page.get_by_role("img").all()
    assert len(pictures) == 2 + 3 + 2 if name != "plain_one" else 1 + 3 + 1
    for picture in pictures:
        box = picture.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["width"] > 200
    region = page.get_by_role("region", name="Points of the front")
    assert region.locator("tbody tr:not(:has(.group))").count() == NUM_ROWS[name]
    assert page.title() == "ml/demo: KL-reward front"


@pytest.mark.parametrize("view", ["desktop", "phone", "print"])
def test_text_in_charts_can_be_read(open_page, view):
    sizes = open_page("hostile_five", view).page.evaluate(TEXT_SIZES)

    assert len(sizes) > 100
    assert min(sizes) >= {"print": 7.5}.get(view, 9.5)


@pytest.mark.parametrize("view", ["desktop", "dark", "print"])
def test_text_and_marks_stand_out_from_the_page(open_page, view):
    ratios = open_page("hostile_five", view).page.evaluate(CONTRASTS)

    assert min(ratios["text"]) >= 4.5
    assert len(ratios["marks"]) > 300
    assert min(ratios["marks"]) >= 3


@pytest.mark.parametrize("view", ["desktop", "dark"])
def test_each_iteration_and_control_has_a_hue_of_its_own_in_every_chart(open_page, view):
    page = open_page("hostile_five", view).page

    hues = page.evaluate(
        """() => [...document.querySelectorAll('figure')].map((figure) => Object.fromEntries(
          [...figure.querySelectorAll('[data-tip]')].map((mark) =>
            [mark.dataset.tip.split('\\n')[0].split(',')[0], getComputedStyle(mark).stroke])))"""
    )
    series = {
        "SFT",
        *(f"iteration {i}" for i in range(1, 6)),
        "control NoAnchor",
        "control SftAnchor",
        "control ComputeMatched",
    }
    assert [set(chart) for chart in hues[:5]] == [series] * 5
    assert len(set(hues[0].values())) == 9
    assert all(chart[name] == hues[0][name] for chart in hues for name in chart)


def test_the_page_has_names_headings_and_headers_for_who_cannot_see_it(open_page):
    page = open_page("hostile_five").page

    names = [picture.get_attribute("aria-label") for picture in page.get_by_role("img").all()]
    assert names[0] == "Trained-on reward against KL; the table below has the numbers"
    assert len(set(names)) == len(names)
    assert page.get_by_role("figure", name="Cosine of task vectors by layer").count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    levels = [int(tag[1]) for tag in page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => h.tagName)")]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('[role=region], section, figure, svg[role=img], button, [tabindex]')]
          .filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim()))
          .map((e) => e.outerHTML.slice(0, 100))"""
    )
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('th')].every((cell) => cell.scope)")
    assert page.locator("html").get_attribute("lang") == "en"
    assert (
        page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size")
        == page.locator("[id]").count()
    )


def test_points_tell_their_numbers_under_the_pointer(open_page):
    opened = open_page("hostile_five")
    page = opened.page
    mark = page.locator("figure .wide [data-tip^='iteration 5, merged']").first

    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + box["height"] / 2)

    lines = page.locator(".tip").inner_text().split("\n")
    assert lines[0] == "iteration 5, merged (LITI 1)"
    assert re.fullmatch(r"KL \d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\] nats", lines[1])
    assert [line.split(" ")[0] for line in lines[2:]] == ["trained-on", "held-out", "length"]
    tip = page.locator(".tip").bounding_box()
    assert tip["x"] + tip["width"] <= 1280
    page.mouse.move(5, 5)
    assert page.locator(".tip").is_hidden()
    assert opened.complaints == []


def test_a_keyboard_walks_along_the_points_and_hides_series(open_page):
    page = open_page("partly_judged").page

    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.tagName"))
        if reached[-1] == "FIGURE":
            break
    assert reached == ["BUTTON", "BUTTON", "FIGURE"]  # SFT is always shown
    page.keyboard.press("ArrowRight")
    assert page.locator(".tip").inner_text().startswith("SFT\n")
    page.keyboard.press("ArrowRight")
    second = page.get_by_role("status").inner_text()
    assert second.startswith("iteration ")
    page.keyboard.press("End")
    assert page.get_by_role("status").inner_text().startswith("iteration 2")
    page.keyboard.press("Home")
    assert page.locator(".tip").inner_text().startswith("SFT\n")
    page.keyboard.press("Escape")
    assert page.locator(".tip").is_hidden()

    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    shown = page.locator("figure .wide [data-tip]:visible")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    assert [
        each for each in shown.evaluate_all("marks => marks.map(m => m.dataset.tip)") if "iteration 2" in each
    ] == []
    page.keyboard.press("Space")
    assert [each for each in shown.evaluate_all("marks => marks.map(m => m.dataset.tip)") if "iteration 2" in each]


@pytest.mark.parametrize("point", ["SFT", "iteration 2, RL run 2"])
def test_a_finger_finds_the_nearest_point_also_at_the_edges(open_page, point):
    page = open_page("partly_judged", "phone").page
    mark = page.locator(f"figure .narrow [data-tip^='{point}']").first
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()

    page.touchscreen.tap(box["x"] + 2, box["y"] + 2)

    assert page.locator(".tip").inner_text().startswith(point)
    tip = page.locator(".tip").bounding_box()
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= 390


def test_hostile_completions_are_text(open_page):
    opened = open_page("hostile_five")
    page = opened.page

    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    quotes = page.locator(".answer blockquote")
    texts = quotes.all_inner_texts()
    assert any(text.startswith("<script>document.title='hacked';alert(1)</script><img src=x") for text in texts)
    assert any("{{ 7 * 7 }}" in text for text in texts)
    assert any(text.endswith("[cut]") for text in texts)
    widest = quotes.evaluate_all("quotes => Math.max(...quotes.map((q) => q.scrollWidth - q.clientWidth))")
    assert widest <= 0


def test_right_to_left_completions_run_from_right_to_left(open_page):
    page = open_page("hostile_five").page

    quote = page.locator("blockquote", has_text=RIGHT_TO_LEFT).first

    assert quote.evaluate("element => getComputedStyle(element).direction") == "rtl"
    assert page.locator("blockquote", has_text="<script>").first.evaluate("e => getComputedStyle(e).direction") == "ltr"


def test_without_script_all_is_there_and_nothing_pretends_to_work(open_page):
    page = open_page("partly_judged", "no script").page

    assert page.get_by_role("button").count() == 0
    assert page.get_by_role("img").count() == 7
    assert page.locator("figure[tabindex]").count() == 0
    page.locator("summary", has_text="Table of lengths").click()
    assert page.get_by_role("region", name="Lengths and self-similarity").is_visible()


def test_paper_has_everything_on_white_also_what_is_folded_on_a_screen(open_page):
    page = open_page("partly_judged", "print").page

    assert page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        page.get_by_role("cell", name="Self-similarity")
        .or_(page.get_by_text("Self-similarity", exact=True))
        .first.is_visible()
    )
    heights = page.locator("details .scroll").evaluate_all("all => all.map((e) => e.getBoundingClientRect().height)")
    assert min(heights) > 40
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_points_without_the_held_out_reward_are_in_the_other_charts_and_dashed_in_the_table(open_page):
    page = open_page("partly_judged").page

    marks = [
        {
            tip.split("\n")[0]
            for tip in figure.locator(".wide [data-tip]").evaluate_all("m => m.map(x => x.dataset.tip)")
        }
        for figure in page.locator("figure:has(.wide)").all()
    ]
    assert "iteration 2, LITI 0.3" in marks[0]
    assert "iteration 1, LITI 0.3" in marks[1]
    assert not any(title.startswith("iteration 2") for title in marks[1])
    row = page.get_by_role("region", name="Points of the front").locator("tbody").nth(2).locator("tr").nth(1)
    assert row.locator("td").nth(2).inner_text() == "-"


def test_a_run_without_held_out_reward_says_what_it_cannot_show(open_page):
    page = open_page("plain_one").page

    assert page.get_by_text("No held-out reward judged this run").is_visible()


def test_five_iterations_of_five_runs_stay_below_two_megabytes(page_file):
    assert page_file("hostile_five").stat().st_size < 2_000_000
