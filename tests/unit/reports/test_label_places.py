"""Labels: beside their markers, never on a marker or another label, off the lines where there is a choice."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from warpctl.reports.label_places import MARKER_RADIUS, Box, Placed, place_labels

ROOM = {"width": 300.0, "height": 200.0}


def box(marker, placed: Placed, text="0.3"):
    return Box.around((marker[0] + placed.dx, marker[1] + placed.dy), 6.2 * len(text), 11)


def test_a_lonely_label_keeps_off_the_line_through_its_marker():
    marker = (150.0, 100.0)
    rising = [(0.0, 200.0), marker, (300.0, 0.0)]

    (placed,) = place_labels([(marker, "0.3")], markers=[marker], lines=[rising], **ROOM)

    corner = box(marker, placed)
    assert not any(corner.contains((x, 200 - x * 2 / 3)) for x in range(301))


def test_a_label_without_room_is_left_out_and_the_first_one_chose():
    marker = (8.0, 8.0)

    places = place_labels([(marker, "0.3"), (marker, "0.5")], markers=[marker], lines=[], width=35, height=20)

    assert [place is None for place in places] == [False, True]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200)), min_size=1, max_size=25))
def test_no_label_covers_a_marker_or_another_label_or_leaves_the_plot(markers):
    places = place_labels([(marker, "0.3") for marker in markers], markers=markers, lines=[markers], **ROOM)

    boxes = [box(marker, place) for marker, place in zip(markers, places, strict=True) if place]
    around = [Box.around(marker, 2 * MARKER_RADIUS, 2 * MARKER_RADIUS) for marker in markers]
    assert not any(label.overlaps(marker) for label in boxes for marker in around)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(b.left >= 0 and b.top >= 0 and b.right <= 300 and b.bottom <= 200 for b in boxes)
