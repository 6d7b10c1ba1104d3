"""`warpctl version`."""

from __future__ import annotations

from warpctl.cli.terminal import result


def version() -> None:
    """Print the versions of warpctl, the schema, the store layout and Python."""
    import platform

    from warpctl import __version__
    from warpctl.artifacts import LAYOUT_VERSION
    from warpctl.spec.warp_run import API_VERSION

    result(f"warpctl {__version__}")
    result(f"schema {API_VERSION}, store layout v{LAYOUT_VERSION}")
    result(f"python {platform.python_version()} on {platform.system().lower()} {platform.machine()}")
