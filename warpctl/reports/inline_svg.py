"""A renderer's SVG made part of a page: its colours as CSS variables, one accessible name, points that a script can find.

Only drawing elements and attributes are kept, so nothing that a chart was given (such as a reward's name) can be more than
text. Coordinates are rounded to a tenth of a pixel, which halves the size.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from warpctl.errors import FinalError
from warpctl.reports.palette import variables

_SVG = "http://www.w3.org/2000/svg"
_ELEMENTS = frozenset({"svg", "g", "path", "line", "rect", "text", "tspan", "defs", "clipPath"})
_ATTRIBUTES = frozenset(
    [
        "class",
        "clip-path",
        "d",
        "dx",
        "dy",
        "fill",
        "fill-opacity",
        "font-family",
        "font-size",
        "font-weight",
        "height",
        "id",
        "opacity",
        "stroke",
        "stroke-dasharray",
        "stroke-linecap",
        "stroke-miterlimit",
        "stroke-opacity",
        "stroke-width",
        "text-anchor",
        "transform",
        "viewBox",
        "width",
        "x",
        "x1",
        "x2",
        "y",
        "y1",
        "y2",
    ]
)
_NUMBERS = frozenset({"d", "transform", "x", "x1", "x2", "y", "y1", "y2", "width", "height"})
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_DEFAULTS = {("opacity", "1"), ("fill-opacity", "1"), ("stroke-opacity", "1"), ("font-weight", "normal")}
_TIP = "data-tip"


def inline_svg(svg: str, *, name: str, prefix: str) -> str:
    """The SVG as an element of a page: role img, named `name`; `prefix` keeps its ids apart from those of other charts.

    A mark's description becomes `data-tip`: the whole picture has one name, the table beneath has its numbers.
    """
    ET.register_namespace("", _SVG)
    try:
        root = ET.fromstring(svg)  # noqa: S314  # our renderer's own output
    except ET.ParseError as error:
        raise FinalError(
            f"the renderer's SVG cannot be read: {error}", hint="another version of vl-convert?"
        ) from error
    colours = {light: f"var(--{variable})" for variable, (light, _) in variables().items()}
    _clean(root, colours, prefix)
    for attribute in ("width", "height"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", name)
    return ET.tostring(root, encoding="unicode")


def _clean(element: ET.Element, colours: dict[str, str], prefix: str) -> None:
    tip = element.get("aria-label") if element.get("aria-roledescription") == "point" else None
    kept = {
        name: _value(name, value, colours, prefix)
        for name, value in element.attrib.items()
        if name in _ATTRIBUTES and (name, value) not in _DEFAULTS
    }
    kept.pop("class", None)
    element.attrib.clear()
    element.attrib.update(kept)
    if tip:
        element.set(_TIP, tip)
    for child in list(element):
        if not _is_drawn(child):
            element.remove(child)
            continue
        _clean(child, colours, prefix)


def _is_drawn(element: ET.Element) -> bool:
    """Vega leaves many an empty background and foreground."""
    if element.tag.removeprefix(f"{{{_SVG}}}") not in _ELEMENTS or element.get("display") == "none":
        return False
    return "background" not in (element.get("class") or "")


def _value(name: str, value: str, colours: dict[str, str], prefix: str) -> str:
    if name in ("fill", "stroke"):
        return colours.get(value.lower(), value)
    if name == "id":
        return f"{prefix}-{value}"
    if name == "clip-path":
        return value.replace("url(#", f"url(#{prefix}-")
    if name in _NUMBERS:
        return _NUMBER.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), value)
    return value
