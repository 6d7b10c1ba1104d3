"""The page: self-contained, inert to hostile text, complete with and without charts."""

import json
import re
from html.parser import HTMLParser

import pytest

from warpctl.reports.charts import INK, hues
from warpctl.reports.estimate import distinct, estimate_front
from warpctl.reports.facts import StageFacts
from warpctl.reports.page import NOTICE, TINY_NOTICE, Chart, Report, data_island, render_page, themed
from warpctl.reports.samples import MAX_CHARACTERS, draw_samples
from warpctl.reports.table import front_document

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\" ' & {{ 7 * 7 }} </blockquote> "
    "\u202e\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd" + "long" * 2000
)


class Elements(HTMLParser):
    """Collects start tags and the text of the page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def facts(stage_id="merge/1"):
    return StageFacts(
        stage_id=stage_id,
        kind="merge",
        key="a" * 64,
        manifest_digest="b" * 64,
        content_digest="c" * 64,
        attempt_id="one",
        num_attempts=3,
        started_at="2026-11-20T23:26:28.000Z",
        ended_at="2026-11-20T23:27:28.000Z",
        gpu_seconds=12.0,
        versions={"numpy": "2.3.1"},
        weight_bytes=1000,
    )


def page(evaluated, *, charts=(), is_tiny=True, spec=None, max_kl=200.0):
    front = estimate_front(evaluated, confidence_level=0.95, max_kl=20.0, num_replicates=50)
    return render_page(
        Report(
            document=front_document(front, run="default/demo", max_kl=max_kl),
            charts=charts,
            samples=draw_samples(distinct(evaluated)[:2]),
            stages=[facts()],
            spec=spec or {"seed": 3},
            is_tiny=is_tiny,
            temperature="0.9",
        )
    )


def test_hostile_completions_and_specs_are_text_and_nothing_else(evaluated_run):
    html = page(evaluated_run(completion=HOSTILE), spec={"note": HOSTILE})
    clean = page(evaluated_run())

    elements = Elements(html)
    # Nothing in the data adds an element: tags are those of a page with tame completions and one [cut] note each.
    extra = [("span", {"class": "muted"})] * 12
    assert sorted(map(str, elements.tags)) == sorted(map(str, [*Elements(clean).tags, *extra]))
    assert elements.named("img") == []
    assert "<script>alert" not in html
    assert "{{ 7 * 7 }}" in html
    shown = [text for text in elements.texts if text.startswith("<script>alert(1)</script><img")]
    assert len(shown) == 12
    assert max(len(text) for text in shown) <= MAX_CHARACTERS + 1
    assert all(a.get("dir") == "auto" for a in elements.named("blockquote"))


def test_the_only_script_element_is_a_data_island_that_cannot_run(evaluated_run):
    html = page(evaluated_run())

    (script,) = Elements(html).named("script")
    assert script == {"type": "application/json", "id": "front-data"}
    island = json.loads(re.search(r'id="front-data">(.*?)</script>', html, re.DOTALL)[1])
    assert island["run"] == "default/demo"
    (policy,) = [m["content"] for m in Elements(html).named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_the_page_needs_nothing_else(evaluated_run):
    html = page(evaluated_run(), charts=[Chart("Reward", '<svg xmlns="http://www.w3.org/2000/svg"></svg>')])

    loaded = [(tag, a) for tag, a in Elements(html).tags if {"src", "href", "xlink:href"} & set(a)]
    assert loaded == []
    assert "url(" not in html
    assert "@import" not in html
    assert len(html) < 2_000_000


def test_the_data_island_cannot_end_its_element():
    text = data_island({"a": "</script><!-- & <script>"})

    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & <script>"}


def test_a_tiny_run_says_first_what_it_does_not_prove(evaluated_run):
    tiny, large = page(evaluated_run()), page(evaluated_run(), is_tiny=False)

    first_paragraphs = [re.search(r"</h1>\s*<p[^>]*>(.*?)</p>", html, re.DOTALL)[1] for html in (tiny, large)]
    expected = [notice.replace("'", "&#39;") for notice in (TINY_NOTICE, NOTICE)]
    assert first_paragraphs == expected


def test_every_point_and_stage_has_a_row(evaluated_run):
    evaluated = evaluated_run(controls=("NoAnchor",))

    elements = Elements(page(evaluated))

    text = " ".join(elements.texts)
    assert len(elements.named("tr")) == 1 + len(distinct(evaluated)) + 2 * (1 + 2) + 2
    assert "whole run" in text
    assert "merge/1" in text
    assert "numpy 2.3.1" in text
    assert [a["class"] for a in elements.named("tr") if "class" in a] == ["best"]


def test_without_a_renderer_the_page_says_so_and_keeps_its_tables(evaluated_run):
    html = page(evaluated_run())

    assert "the renderer is not installed" in html
    assert Elements(html).named("figure") == []


@pytest.mark.parametrize("iterations", [1, 5])
def test_runs_of_any_length_make_a_page(evaluated_run, iterations):
    html = page(evaluated_run(iterations=iterations, members=5))

    assert f"--hue-{iterations - 1}: " in html
    assert f"--hue-{iterations}: " not in html


def test_half_a_run_makes_half_a_page(evaluated_point, named_point):
    html = page([named_point("sft", evaluated_point(kl=0.0), liti_rate="0")], max_kl=None)

    assert "What each iteration" not in html
    assert "Best without a KL budget: SFT" in html


def test_charts_follow_the_pages_colours():
    svg = f'<svg><path fill="{INK}" stroke="{hues(2)[1]}"/></svg>'

    assert themed(svg, 2) == '<svg><path fill="var(--ink)" stroke="var(--hue-1)"/></svg>'


def test_samples_are_the_same_prompts_for_every_policy_and_every_time(evaluated_run):
    policies = distinct(evaluated_run())[:3]

    samples = draw_samples(policies)

    assert samples == draw_samples(policies)
    assert len({sample.prompt for sample in samples}) == 6
    for sample in samples:
        place = policies[0][1].prompts.index(sample.prompt)
        assert [c.text for c in sample.completions] == [point.completions[place] for _, point in policies]
        assert [c.reward for c in sample.completions] == [point.reward[place] for _, point in policies]
