"""The page: self-contained, inert to hostile text, complete with and without charts."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from warpctl.reports.contrasts import contrasts
from warpctl.reports.estimate import REWARD, distinct, estimate_front
from warpctl.reports.facts import StageFacts
from warpctl.reports.merges import merge_facts
from warpctl.reports.page import NOTICE, TINY_NOTICE, Figures, Report, Seeds, data_island, render_page
from warpctl.reports.samples import MAX_CHARACTERS, draw_samples, worst_regrets
from warpctl.reports.table import front_document
from warpctl.reports.win_rate import win_rates

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
        gpu_seconds=7200.0,
        worker_seconds=3600.0,
        kept_seconds=1800.0,
        lost_seconds=900.0,
        versions={"numpy": "2.3.1"},
        weight_bytes=1000,
    )


def merge(iteration=1):
    group = {"norms": [1.0, 2.0], "cosines": [[1, 0.25], [0.25, 1]], "weightCosines": [[1, 0.999], [0.999, 1]]}
    names = ("model.embed_tokens", "model.layers.0")
    groups = [{**group, "group": name, "initNorm": 10.0, "mergedNorm": 1.6, "degenerate": []} for name in names]
    return merge_facts({"members": ["a", "b"], "summary": {"cosine": 0.2}, "groups": groups}, iteration=iteration)


def page(evaluated, *, is_tiny=True, spec=None, max_kl=200.0, figures=None):
    front = estimate_front(evaluated, confidence_level=0.95, max_kl=20.0, num_replicates=50)
    shown = distinct(evaluated)[:2]
    return render_page(
        Report(
            document=front_document(front, run="default/demo", max_kl=max_kl),
            figures=figures or Figures(),
            samples=draw_samples(shown),
            regrets=worst_regrets(shown, sft=shown[0][1], chosen=shown[-1][1], judge=REWARD),
            win_rates=win_rates(evaluated, num_replicates=20),
            contrasts=contrasts(evaluated, confidence_level=0.95, max_kl=20.0),
            merges=[merge()],
            stages=[facts()],
            spec=spec or {"seed": 3},
            seeds=Seeds(run=3, evaluation=0),
            is_tiny=is_tiny,
            temperature="0.9",
        )
    )


def test_hostile_completions_and_specs_are_text_and_nothing_else(evaluated_run):
    html = page(evaluated_run(completion=HOSTILE), spec={"note": HOSTILE})
    clean = page(evaluated_run())

    elements = Elements(html)
    shown = [text for text in elements.texts if text.startswith("<script>alert(1)</script><img")]
    # Nothing in the data adds an element: tags are those of a page with tame completions and one [cut] note each.
    extra = [("span", {"class": "quiet"})] * len(shown)
    assert sorted(map(str, elements.tags)) == sorted(map(str, [*Elements(clean).tags, *extra]))
    assert elements.named("img") == []
    assert "<script>alert" not in html
    assert "{{ 7 * 7 }}" in html
    assert len(shown) >= 12
    assert max(len(text) for text in shown) <= MAX_CHARACTERS + 1
    assert all(a.get("dir") == "auto" for a in elements.named("blockquote"))


def test_the_only_script_that_may_run_is_the_pages_own_by_its_hash(evaluated_run):
    html = page(evaluated_run())

    island, script = Elements(html).named("script")
    assert island == {"type": "application/json", "id": "front-data"}
    assert script == {}
    text = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    (policy,) = [m["content"] for m in Elements(html).named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        f"script-src 'sha256-{digest}'",
    ]
    assert "innerHTML" not in text
    data = json.loads(re.search(r'id="front-data">(.*?)</script>', html, re.DOTALL)[1])
    assert data["run"] == "default/demo"


def test_the_page_needs_nothing_else(evaluated_run):
    html = page(evaluated_run())

    loaded = [(tag, a) for tag, a in Elements(html).tags if {"src", "href", "xlink:href"} & set(a)]
    assert loaded == []
    assert "url(" not in html
    assert "@import" not in html


def test_the_data_island_cannot_end_its_element():
    text = data_island({"a": "</script><!-- & <script>"})

    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & <script>"}


def test_a_tiny_run_says_first_what_it_does_not_prove(evaluated_run):
    tiny, large = page(evaluated_run()), page(evaluated_run(), is_tiny=False)

    first_paragraphs = [re.search(r"</h1>\s*<p[^>]*>(.*?)</p>", html, re.DOTALL)[1] for html in (tiny, large)]
    assert first_paragraphs == [notice.replace("'", "&#39;") for notice in (TINY_NOTICE, NOTICE)]
    for unproven in ("EMA anchor above", "orthogonal task vectors", "later iterations that gain at equal KL"):
        assert unproven in TINY_NOTICE.partition("Not reproduced at this scale")[2]


def rows(html):
    """The text of each row of the page's tables."""
    found = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in found]


def test_every_point_and_stage_has_its_rows_and_the_best_one_says_so(evaluated_run):
    evaluated = evaluated_run(controls=("NoAnchor",))

    found = rows(page(evaluated))

    names = [row.split("  ")[0] for row in found]
    # Front, and length with self-similarity; of merged policies each iteration has one.
    assert len([name for name in names if name.startswith("LITI 0.3")]) == 2 * 3
    assert len([name for name in names if name.startswith("merged (LITI 1) ")]) >= 2 * 2
    assert [name for name in names if name.startswith("iteration 2 minus iteration 1")]
    assert [name for name in names if name.startswith("iteration 2 minus control NoAnchor")]
    assert any(re.match(r"merged \(LITI 1\), iteration 2 SFT \d+% \[\d+, \d+\]", name) for name in names)
    assert "merge/1 aaaaaaaaaaaa bbbbbbbbbbbb cccccccccccc 3 2026-11-20 23:26:28 3600 7200 900" in names
    assert len([name for name in names if "(best)" in name]) == 1


def test_gpu_hours_are_split_into_useful_and_lost(evaluated_run):
    """One published attempt of an hour on two GPUs; of earlier ones half an hour was gone on from, a quarter lost."""
    html = page(evaluated_run())

    assert "<dt>GPU-hours</dt><dd>3.00 useful, 0.50 lost</dd>" in html
    assert "<dd>1.50 useful, 0.25 lost" in html
    assert "2 further attempts" in html


def test_what_a_merge_saw_stands_by_layer(evaluated_run):
    found = rows(page(evaluated_run()))

    assert "embed_tokens 0.250 0.99900 15.00 2.00 1.067" in found
    assert "0 0.250 0.99900 15.00 2.00 1.067" in found


def test_without_a_compute_matched_control_the_page_says_what_it_cannot_show(evaluated_run):
    without, with_it = (page(evaluated_run(controls=(name,))) for name in ("NoAnchor", "ComputeMatched"))

    assert "at equal cost nothing is shown" in without
    assert "at equal cost nothing is shown" not in with_it
    assert "iteration 2 minus control ComputeMatched" in with_it


def test_without_a_held_out_reward_the_page_says_what_it_cannot_show(evaluated_run):
    html = page(evaluated_run(held_out=False))

    assert "cannot show whether it was exploited" in html
    assert "which flatters the policy that exploits it more" in html


def test_without_a_renderer_the_page_says_so_and_keeps_its_tables(evaluated_run):
    html = page(evaluated_run())

    assert "the renderer is not installed" in html
    assert Elements(html).named("figure") == []


@pytest.mark.parametrize("iterations", [1, 5])
def test_runs_of_any_length_make_a_page(evaluated_run, iterations):
    found = rows(page(evaluated_run(iterations=iterations, members=5)))

    assert len([row for row in found if row.startswith("RL run 5 ")]) == 2 * iterations


def test_half_a_run_makes_half_a_page(evaluated_point, named_point):
    html = page([named_point("sft", evaluated_point(kl=0.0), liti_rate="0")], max_kl=None)

    assert "What each front is worth" not in html
    assert '<h2 id="wins">' not in html
    assert "Best without a KL budget: SFT" in html
