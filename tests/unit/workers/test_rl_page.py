"""docs/training.md is true to the code: its links, its tests, its metrics, its settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from warpctl.spec.fields import leaf_fields
from warpctl.workers.tracking import NAMES

PAGE = Path(__file__).parents[3] / "docs" / "training.md"
TEXT = PAGE.read_text()
LINKS = re.findall(r"\[[^\]]+\]\((\.\./[^)]+|[a-z]+\.md)\)", TEXT)


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_a_link_leads_to_a_file(link):
    assert (PAGE.parent / link).resolve().exists()


def test_every_test_that_it_names_is_in_a_file_that_it_links():
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    sources = "".join((PAGE.parent / link).read_text() for link in LINKS if "/test_" in link)

    assert len(named) == 6
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_every_metric_is_explained():
    table = TEXT[TEXT.index("## What is measured") : TEXT.index("Timings (")]
    assert {name for name in NAMES if f"`{name}`" not in table} == set()


def test_every_setting_of_an_rl_run_is_mentioned():
    """By its own name, or by that of the section that it is in."""
    settings = [path.removeprefix("spec.training.") for path in leaf_fields() if path.startswith("spec.training.")]
    missing = [path for path in settings if f"{path}`" not in TEXT and not re.search(rf"`{path.split('.')[0]}\b", TEXT)]

    assert missing == []
