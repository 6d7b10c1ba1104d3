"""Pictures from Vega-Lite specs, by vl-convert (no browser, no network). The extra `report` installs it."""

from __future__ import annotations

from typing import Any

from warpctl.reports.png import small_png

PNG_SCALE = 2.0


def has_renderer() -> bool:
    """Whether vl-convert is installed."""
    try:
        import vl_convert  # noqa: F401  # only whether it is there
    except ImportError:
        return False
    return True


def to_svg(spec: dict[str, Any]) -> str:
    """The chart as SVG that needs no script."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return svg


def to_png(spec: dict[str, Any]) -> bytes:
    """The chart as PNG, two pixels a unit, on white."""
    import vl_convert

    png: bytes = vl_convert.vegalite_to_png(spec, scale=PNG_SCALE, allowed_base_urls=[])
    return small_png(png)
