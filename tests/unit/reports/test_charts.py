"""The chart as data: what is drawn, in which colours, and that a renderer accepts it."""

import itertools
import json
import math

import pytest

from warpctl.reports.charts import Trajectory, front_chart, front_charts, hues
from warpctl.reports.estimate import estimate_front


def front_of(evaluated):
    return estimate_front(evaluated, confidence_level=0.95, max_kl=20.0, num_replicates=100)


def layers(chart, mark):
    return [layer for layer in chart["layer"] if layer["mark"]["type"] == mark]


def luminance(colour):
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_every_point_is_drawn_once_at_its_means_with_both_intervals(evaluated_run):
    front = front_of(evaluated_run())

    chart = front_chart(front)

    (points,) = layers(chart, "point")
    drawn = [(value["kl"], value["y"]) for value in points["data"]["values"]]
    assert drawn == [(point.kl.mean, point.reward.mean) for point in front.points]
    across, upright = layers(chart, "rule")
    assert (across["encoding"]["x"]["field"], across["encoding"]["x2"]["field"]) == ("kl_low", "kl_high")
    assert (upright["encoding"]["y"]["field"], upright["encoding"]["y2"]["field"]) == ("low", "high")


def test_each_iterations_line_starts_at_sft_and_leaves_members_out(evaluated_run):
    chart = front_chart(front_of(evaluated_run(iterations=2, rates=("0.3", "1"))))

    lines = layers(chart, "line")[-1]["data"]["values"]
    of_second = [value["rate"] for value in lines if value["series"] == "iteration 2"]
    assert of_second == [0.0, 0.3, 1.0]


def test_rates_are_labelled_and_members_are_open(evaluated_run):
    chart = front_chart(front_of(evaluated_run(iterations=1, members=2, rates=("0.3", "1"))))

    labels = [value["label"] for layer in layers(chart, "text") for value in layer["data"]["values"]]
    (points,) = layers(chart, "point")
    assert labels == ["", "", "", "0.3", "1"]
    assert points["encoding"]["fillOpacity"]["condition"] == {"test": "datum.kind === 'member'", "value": 0}


def test_the_rates_of_controls_are_left_to_the_table(evaluated_run):
    with_controls = front_chart(front_of(evaluated_run(iterations=1, controls=("NoAnchor",))))
    without = front_chart(front_of(evaluated_run(iterations=1)))

    def labels(chart):
        return [v["label"] for layer in layers(chart, "text") for v in layer["data"]["values"] if v["label"]]

    assert labels(with_controls) == labels(without) == ["0.15", "0.3", "0.5", "0.75", "1"]


@pytest.mark.parametrize("width", [0.5, 1.0, 9.0, 40.0])
def test_ticks_are_round_start_at_zero_and_keep_their_distance(evaluated_point, named_point, width):
    chart = front_chart(front_of([named_point("liti/1", evaluated_point(kl=width))]))

    encoding = layers(chart, "point")[0]["encoding"]
    ticks = encoding["x"]["axis"]["values"]
    gaps = [math.sqrt(right) - math.sqrt(left) for left, right in itertools.pairwise(ticks)]
    assert ticks[0] == 0
    assert len(ticks) >= 4
    assert min(gaps) >= 0.07 * math.sqrt(width)


def test_colour_and_marker_both_tell_iterations_apart(evaluated_run):
    chart = front_chart(front_of(evaluated_run(iterations=5, controls=("NoAnchor",))))

    encoding = layers(chart, "point")[0]["encoding"]
    colours, shapes = encoding["color"]["scale"]["range"], encoding["shape"]["scale"]["range"]
    assert len(set(shapes)) == len(set(colours)) == 7  # SFT, five iterations, one control


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_hues_are_ordered_in_lightness_and_readable_on_their_background(count):
    light, dark = hues(count), hues(count, is_dark=True)

    assert [luminance(hue) for hue in light] == sorted(luminance(hue) for hue in light)
    assert min(contrast(hue, "#ffffff") for hue in light) > 2.6
    assert min(contrast(hue, "#0f1318") for hue in dark) > 4.5


def test_the_front_line_joins_the_non_dominated_points_in_order_of_kl(evaluated_run):
    front = front_of(evaluated_run())

    band = layers(front_chart(front), "line")[0]["data"]["values"]

    assert [value["kl"] for value in band] == sorted(p.kl.mean for p in front.points if p.is_on_front)
    assert all(value["on_front"] for value in band)


def test_a_point_without_the_held_out_reward_is_left_out_of_its_chart_only(evaluated_run):
    run = evaluated_run(iterations=1)
    run[-1] = evaluated_run(iterations=1, held_out=False)[-1]
    front = front_of(run)

    counts = [len(layers(front_chart(front, name), "point")[0]["data"]["values"]) for name in front.measures]

    assert counts == [len(front.points), len(front.points) - 1]


def test_trajectories_are_drawn_in_the_order_of_their_steps(evaluated_run):
    path = Trajectory(iteration=1, member=2, kl=(0.0, 2.0, 1.5), reward=(0.0, 0.5, 0.7))

    chart = front_chart(front_of(evaluated_run()), trajectories=[path])

    drawn = layers(chart, "line")[1]["data"]["values"]
    assert [(value["step"], value["kl"], value["y"]) for value in drawn] == [
        (0, 0.0, 0.0),
        (1, 2.0, 0.5),
        (2, 1.5, 0.7),
    ]
    assert {value["series"] for value in drawn} == {"iteration 1"}


def test_a_renderer_makes_svg_and_png_of_it(evaluated_run):
    pytest.importorskip("vl_convert")
    from warpctl.reports.render import has_renderer, to_png, to_svg

    spec = front_charts(front_of(evaluated_run()))

    svg, png = to_svg(spec), to_png(spec)
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec
    assert svg.startswith("<svg")
    assert "<script" not in svg
    assert "held-out reward: truth" in svg
    assert png.startswith(b"\x89PNG\r\n")
    assert has_renderer()
