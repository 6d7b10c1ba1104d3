"""docs/configuration.md, from the models: `python -m warpctl.spec.config_reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from warpctl.spec.controller_config import ControllerConfig, Defaults, Images, Tenancy

_HEAD = """# The controller's configuration

<!-- Made from warpctl/spec/controller_config.py by `python -m warpctl.spec.config_reference`; a test keeps it up to date. -->

A YAML file that the controller reads once, when it starts: `manifests/base/config.yaml`, a ConfigMap in a cluster. An unknown field is
refused. [docs/operations.md](operations.md) says how to install it.

| Field | Default | Meaning |
|---|---|---|
"""
_SECTIONS: dict[str, type[BaseModel]] = {
    "images": Images,
    "defaults": Defaults,
    "tenancy[]": Tenancy,
    "": ControllerConfig,
}


def markdown() -> str:
    """The whole page."""
    return _HEAD + "".join(row for section, model in _SECTIONS.items() for row in _rows(section, model))


def _rows(section: str, model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        default: Any = info.get_default(call_default_factory=True)
        if isinstance(default, BaseModel) or name == "tenancy":
            continue
        shown = (
            "none" if default in ("", (), {}) else ", ".join(default) if isinstance(default, tuple) else str(default)
        )
        path = f"{section}.{info.alias or name}" if section else str(info.alias or name)
        yield f"| `{path}` | {shown} | {' '.join((info.description or '').split())} |\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
