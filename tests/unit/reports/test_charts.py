"""The chart as data: what is drawn, in which colours, and that a renderer accepts it."""

import itertools
import json
import math

import pytest

from warpctl.reports.charts import NARROW, WIDE, front_charts, scatter
from warpctl.reports.estimate import REWARD, estimate_front
from warpctl.reports.plotted import KL, LENGTH, SELF_SIMILARITY, axis_of, plotted
from warpctl.reports.trajectories import Trajectory


def front_of(evaluated):
    return estimate_front(evaluated, confidence_level=0.95, max_kl=20.0, num_replicates=100)


def front_chart(front, measure=REWARD, *, size=WIDE, **options):
    return scatter(plotted(front, KL, measure), axis_of(KL), axis_of(measure), size=size, **options)


def layers(chart, mark):
    return [layer for layer in chart["layer"] if layer["mark"]["type"] == mark]


def values(layer):
    return layer["data"]["values"]


def test_every_point_is_drawn_once_at_its_means_with_both_intervals(evaluated_run):
    front = front_of(evaluated_run())

    chart = front_chart(front)

    (points,) = layers(chart, "point")
    assert [(value["x"], value["y"]) for value in values(points)] == [
        (point.kl.mean, point.reward.mean) for point in front.points
    ]
    bars = [(value["xLow"], value["xHigh"], value["yLow"], value["yHigh"]) for value in values(points)]
    assert bars == [(max(p.kl.low, 0), p.kl.high, p.reward.low, p.reward.high) for p in front.points]
    across, upright = (rule["encoding"] for rule in layers(chart, "rule"))
    assert (across["x"]["field"], across["x2"]["field"]) == ("xLow", "xHigh")
    assert (upright["y"]["field"], upright["y2"]["field"]) == ("yLow", "yHigh")


def test_each_iterations_line_starts_at_sft_and_leaves_members_out(evaluated_run):
    chart = front_chart(front_of(evaluated_run(iterations=2, rates=("0.3", "1"))))

    lines = values(layers(chart, "line")[-1])
    assert [value["rate"] for value in lines if value["series"] == "iteration 2"] == [0.0, 0.3, 1.0]


def test_rates_are_labelled_with_room_and_members_are_open(evaluated_run):
    chart = front_chart(front_of(evaluated_run(iterations=1, members=2, rates=("0.3", "1"))))

    (labels,) = layers(chart, "text")
    (points,) = layers(chart, "point")
    assert [value["label"] for value in values(labels)] == ["0.3", "1"]
    assert points["encoding"]["fill"]["condition"] == {"test": "datum.kind === 'member'", "value": "#ffffff"}


def test_the_rates_of_controls_are_left_to_the_table(evaluated_run):
    chart = front_chart(front_of(evaluated_run(iterations=1, controls=("NoAnchor",))))

    (labels,) = layers(chart, "text")
    assert {value["series"] for value in values(labels)} == {"iteration 1"}


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("kl", [0.5, 1.0, 9.0, 40.0])
def test_ticks_are_round_start_at_zero_and_keep_their_distance(evaluated_point, named_point, kl, size):
    chart = front_chart(front_of([named_point("liti/1", evaluated_point(kl=kl))]), size=size)

    x = layers(chart, "point")[0]["encoding"]["x"]
    ticks, largest = x["axis"]["values"], x["scale"]["domain"][1]
    gaps = [
        size.width * (math.sqrt(right) - math.sqrt(left)) / math.sqrt(largest)
        for left, right in itertools.pairwise(ticks)
    ]
    assert ticks[0] == 0
    assert len(ticks) >= 4
    assert min(gaps) >= 40 - 1e-9


def test_an_iteration_and_a_control_look_the_same_whatever_else_is_drawn(evaluated_run):
    looks = {}
    for run in (
        evaluated_run(iterations=1, controls=("SftAnchor",)),
        evaluated_run(iterations=5, controls=("NoAnchor", "SftAnchor", "ComputeMatched")),
    ):
        encoding = layers(front_chart(front_of(run)), "point")[0]["encoding"]
        for name in ("color", "shape"):
            scale = encoding[name]["scale"]
            for series, look in zip(scale["domain"], scale["range"], strict=True):
                looks.setdefault((name, series), set()).add(look)

    assert {len(found) for found in looks.values()} == {1}
    colours = [next(iter(found)) for (name, _), found in looks.items() if name == "color"]
    shapes = [next(iter(found)) for (name, _), found in looks.items() if name == "shape"]
    assert len(set(colours)) == len(colours) == 9  # SFT, five iterations, three controls
    assert len(set(shapes)) == 9


@pytest.mark.parametrize("measure", [REWARD, "truth"])
def test_the_band_joins_the_points_that_no_other_beats_by_this_reward(evaluated_run, measure):
    front = front_of(evaluated_run(controls=("NoAnchor",)))

    band = values(layers(front_chart(front, measure), "line")[0])

    own = [(p.kl.mean, p.measure(measure).mean) for p in front.points if not p.named.control]
    beaten = {(k, r) for k, r in own for a, b in own if a <= k and b >= r and (a, b) != (k, r)}
    assert [(max(v["x"], 0), v["y"]) for v in band] == sorted((max(k, 0), r) for k, r in own if (k, r) not in beaten)


def test_a_point_without_the_held_out_reward_is_left_out_of_its_chart_only(evaluated_run):
    run = evaluated_run(iterations=1)
    run[-1] = evaluated_run(iterations=1, held_out=False)[-1]
    front = front_of(run)

    counts = [len(plotted(front, KL, name)) for name in front.measures]

    assert counts == [len(front.points), len(front.points) - 1]


def test_trajectories_are_drawn_in_the_order_of_their_steps_in_the_hue_of_their_series(evaluated_run):
    path = Trajectory(series="control NoAnchor", member=0, kl=(0.0, 2.0, 1.5), reward=(0.0, 0.5, 0.7))
    unknown = Trajectory(series="iteration 9", member=1, kl=(1.0,), reward=(1.0,))

    chart = front_chart(front_of(evaluated_run(controls=("NoAnchor",))), trajectories=[path, unknown])

    drawn = values(layers(chart, "line")[1])
    assert [(v["step"], v["x"], v["y"]) for v in drawn] == [(0, 0.0, 0.0), (1, 2.0, 0.5), (2, 1.5, 0.7)]
    assert {v["series"] for v in drawn} == {"control NoAnchor"}


@pytest.mark.parametrize(("x", "y"), [(KL, LENGTH), (LENGTH, "truth"), (KL, SELF_SIMILARITY)])
def test_other_quantities_have_their_own_axes_and_no_band(evaluated_run, x, y):
    front = front_of(evaluated_run())

    chart = scatter(plotted(front, x, y), axis_of(x), axis_of(y), size=WIDE)

    encoding = layers(chart, "point")[0]["encoding"]
    assert encoding["x"]["scale"]["type"] == ("sqrt" if x == KL else "linear")
    assert len(layers(chart, "line")) == 1
    assert len(values(layers(chart, "point")[0])) == len(front.points)


def test_a_tip_has_title_kl_rewards_and_length(evaluated_run):
    tips = {point.tip for point in plotted(front_of(evaluated_run(rates=("0.3", "1"))), KL, REWARD)}

    lines = next(tip for tip in tips if tip.startswith("iteration 2, LITI 0.3")).split("\n")
    assert [line.rsplit(" ", 3)[0].split(" ")[0] for line in lines] == [
        "iteration", "KL", "trained-on", "held-out", "length",
    ]  # fmt: skip
    assert any(tip.startswith("SFT\n") for tip in tips)


def test_a_renderer_makes_svg_and_a_small_png_of_it(evaluated_run):
    pytest.importorskip("vl_convert")
    from warpctl.reports.render import has_renderer, to_png, to_svg

    spec = front_charts(front_of(evaluated_run()))

    svg, png = to_svg(spec), to_png(spec)
    assert json.loads(json.dumps(spec, allow_nan=False)) == spec
    assert svg.startswith("<svg")
    assert "<script" not in svg
    assert "held-out reward: truth" in svg
    assert png.startswith(b"\x89PNG\r\n")
    assert len(png) < 120_000
    assert has_renderer()
