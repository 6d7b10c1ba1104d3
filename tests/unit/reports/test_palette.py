"""Hues: ordered, readable on both backgrounds, fixed; markers tell apart what hues cannot."""

import itertools

import pytest

from warpctl.reports.palette import glyph, iteration_style, series_style, variables

CONTROLS = ("NoAnchor", "SftAnchor", "ComputeMatched")


def luminance(colour):
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_hues_of_five_iterations_grow_lighter_by_visible_steps(theme):
    lights = [luminance(getattr(iteration_style(i), theme)) + 0.05 for i in range(1, 6)]

    assert min(after / before for before, after in itertools.pairwise(lights)) > 1.2


def test_every_colour_stands_out_from_its_background():
    drawn = {name: pair for name, pair in variables().items() if name not in ("grid", "page")}

    assert min(contrast(light, "#ffffff") for light, _ in drawn.values()) > 3
    assert min(contrast(dark, "#0f1318") for _, dark in drawn.values()) > 3


def test_thirty_iterations_and_all_controls_differ_in_hue_or_marker():
    styles = [iteration_style(i) for i in range(1, 31)] + [series_style(f"control {name}") for name in CONTROLS]

    assert len({(style.light, style.shape) for style in styles}) == 33


def test_controls_differ_from_each_other_in_hue_marker_and_dash():
    styles = [series_style(f"control {name}") for name in CONTROLS]

    assert [len(set(column)) for column in zip(*((s.light, s.shape, s.dash) for s in styles), strict=True)] == [3, 3, 3]


def test_every_marker_has_a_path_for_the_legend():
    styles = [*(iteration_style(i) for i in range(1, 7)), series_style("SFT"), series_style("control Other")]
    styles += [series_style(f"control {name}") for name in CONTROLS]

    assert all(glyph(style).startswith("M") for style in styles)


def test_the_charts_of_a_page_use_no_colour_but_these_variables(evaluated_run):
    pytest.importorskip("vl_convert")
    import re

    from warpctl.reports.estimate import estimate_front
    from warpctl.reports.figures import front_figures
    from warpctl.reports.render import to_svg

    run = evaluated_run(iterations=5, controls=CONTROLS)
    front = estimate_front(run, confidence_level=0.95, max_kl=20.0, num_replicates=20)

    svg = front_figures(front, to_svg)[0].wide

    used = set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg))
    assert used - {"none", "transparent"} <= {f"var(--{name})" for name in variables()}
    assert {"var(--ink)", "var(--hue-5)", "var(--control-no-anchor)"} <= used
