"""Which hue and marker each series has: fixed by iteration and by control, whatever else is in the picture.

So iteration 2 looks the same in the page made after it and in the last one, in every chart, alone and in comparisons.
Colours are written into charts for a light background; a page turns them into CSS variables (inline_svg.py), so that its
dark style reaches them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

INK = "#1f2328"
MUTED = "#6e7781"
GRID = "#d8dee4"
PAPER = "#ffffff"

SFT_SERIES = "SFT"

# Viridis (van der Walt and Smith, 2015), five anchors: ordered in lightness, distinct in all common colour blindnesses.
_VIRIDIS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
# Five, for the iterations of the paper; later ones start over with other markers.
_ON_LIGHT = (0.0, 0.24, 0.38, 0.49, 0.6)  # beyond, contrast against white falls below 3:1
_ON_DARK = (0.36, 0.54, 0.7, 0.85, 1.0)  # below, contrast against the dark page falls below 3:1
_SHAPES = ("circle", "square", "triangle-up", "triangle-down", "triangle-right", "triangle-left")
_STAR = "M0,-1L0.2245,-0.309L0.9511,-0.309L0.3633,0.118L0.5878,0.809L0,0.382L-0.5878,0.809L-0.3633,0.118L-0.9511,-0.309L-0.2245,-0.309Z"
_X = "M-1,-0.62L-0.62,-1L0,-0.38L0.62,-1L1,-0.62L0.38,0L1,0.62L0.62,1L0,0.38L-0.62,1L-1,0.62L-0.38,0Z"


@dataclass(frozen=True)
class Style:
    """How a series is drawn."""

    variable: str
    """CSS variable of its colour."""
    light: str
    dark: str
    shape: str
    """A Vega symbol: a name, or an SVG path in a square of side 2."""
    dash: tuple[int, ...]


def _viridis(position: float) -> str:
    scaled = position * (len(_VIRIDIS) - 1)
    below = min(int(scaled), len(_VIRIDIS) - 2)
    share = scaled - below
    mixed = (round(a + (b - a) * share) for a, b in zip(_VIRIDIS[below], _VIRIDIS[below + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


_LIGHT = tuple(_viridis(position) for position in _ON_LIGHT)
_DARK = tuple(_viridis(position) for position in _ON_DARK)

# After Okabe and Ito's vermilion, reddish purple and yellow (2008), darkened to 3:1 on white: warm, unlike any iteration.
_CONTROLS = {
    "ComputeMatched": Style("control-compute-matched", "#9a6a00", "#f0c14b", _STAR, (6, 3)),
    "NoAnchor": Style("control-no-anchor", "#c8500a", "#ff9a5c", _X, (2, 3)),
    "SftAnchor": Style("control-sft-anchor", "#a83a78", "#f08fc0", "cross", (8, 3, 2, 3)),
}
_SFT = Style("ink", INK, "#e6e9ed", "diamond", ())
_OTHER = Style("muted", MUTED, "#9aa4ae", "stroke", (4, 4))


def iteration_style(iteration: int) -> Style:
    """Style of an iteration (from 1 on): hues come back every five, markers every six, so 30 iterations differ."""
    place = (iteration - 1) % len(_LIGHT)
    return Style(f"hue-{place + 1}", _LIGHT[place], _DARK[place], _SHAPES[(iteration - 1) % len(_SHAPES)], ())


def series_style(series: str) -> Style:
    """Style by the name that table.series_label gives: `SFT`, `iteration 2`, `control NoAnchor`; `run 2` of a comparison."""
    kind, _, name = series.partition(" ")
    if kind == "iteration":
        return iteration_style(int(name))
    if kind == "run":  # no order among runs: neighbours far apart
        hue = iteration_style(1 + 3 * (int(name) - 1) % len(_LIGHT))
        return replace(hue, shape=iteration_style(int(name)).shape)
    if kind == "control":
        return _CONTROLS.get(name, _OTHER)
    return _SFT


def variables() -> dict[str, tuple[str, str]]:
    """Every CSS variable that a chart may use: name to its light and dark value."""
    styles = [*(iteration_style(place + 1) for place in range(len(_LIGHT))), *_CONTROLS.values()]
    fixed = {
        "ink": (INK, _SFT.dark),
        "muted": (MUTED, _OTHER.dark),
        "grid": (GRID, "#2b323a"),
        "page": (PAPER, "#0f1318"),
    }
    return fixed | {style.variable: (style.light, style.dark) for style in styles}


_GLYPHS = {
    "circle": "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
    "square": "M-.88,-.88H.88V.88H-.88Z",
    "triangle-up": "M0,-.95L1,.8H-1Z",
    "triangle-down": "M0,.95L1,-.8H-1Z",
    "triangle-right": "M.95,0L-.8,1V-1Z",
    "triangle-left": "M-.95,0L.8,1V-1Z",
    "cross": "M-.4,-1H.4V-.4H1V.4H.4V1H-.4V.4H-1V-.4H-.4Z",
    "diamond": "M0,-1L1,0L0,1L-1,0Z",
    "stroke": "M-1,0H1",
}


def glyph(style: Style) -> str:
    """The marker as an SVG path in a square of side 2 around 0, for legends."""
    return _GLYPHS.get(style.shape, style.shape)
