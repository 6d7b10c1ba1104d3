"""SVG in a page: named, in the page's colours, with drawing elements only."""

from xml.etree import ElementTree as ET

import pytest

from warpctl.errors import FinalError
from warpctl.reports.inline_svg import inline_svg
from warpctl.reports.palette import INK, iteration_style

SVG = f"""<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="marks" width="10" height="8"
viewBox="0 0 10 8" onload="alert(1)"><defs><clipPath id="clip0"><rect width="5.123456" height="1"/></clipPath></defs>
<script>alert(1)</script><a xlink:href="https://example.com"><text>link</text></a>
<g clip-path="url(#clip0)" role="graphics-object" aria-roledescription="symbol mark container" style="color: red">
<path aria-label="SFT&#10;KL 0 &lt;b&gt;" role="graphics-symbol" aria-roledescription="point" transform="translate(1.23456,-0.04)"
 fill="{INK}" stroke="{iteration_style(1).light}" opacity="1"/>
<path class="background" d="M0,0"/><path display="none" d="M0,0"/></g><foreignObject/><image href="x"/></svg>"""


def test_the_picture_has_one_name_and_its_points_carry_what_is_said_of_them():
    root = ET.fromstring(inline_svg(SVG, name='Reward "a" & <b>', prefix="one"))

    assert (root.get("role"), root.get("aria-label"), root.get("width")) == ("img", 'Reward "a" & <b>', None)
    assert [each.get("data-tip") for each in root.iter() if each.get("data-tip")] == ["SFT\nKL 0 <b>"]
    assert [each for each in root.iter() if each is not root and (each.get("role") or each.get("aria-label"))] == []


def test_only_drawing_elements_and_attributes_are_left():
    text = inline_svg(SVG, name="x", prefix="one")

    root = ET.fromstring(text)
    tags = [each.tag.rpartition("}")[2] for each in root.iter()]
    assert tags == ["svg", "defs", "clipPath", "rect", "g", "path"]
    assert not {name for each in root.iter() for name in each.attrib} & {"onload", "style", "class", "href"}


def test_colours_are_variables_numbers_are_rounded_and_ids_are_its_own():
    text = inline_svg(SVG, name="x", prefix="one")

    assert 'fill="var(--ink)"' in text
    assert 'stroke="var(--hue-1)"' in text
    assert 'transform="translate(1.2,-0)"' in text
    assert 'width="5.1"' in text
    assert 'id="one-clip0"' in text
    assert 'clip-path="url(#one-clip0)"' in text


def test_what_is_no_svg_is_said_to_be_none():
    with pytest.raises(FinalError, match="the renderer's SVG cannot be read"):
        inline_svg("<svg", name="x", prefix="one")
