"""config.json of a model whose weights were written anew: it must name the type that they now have."""

from __future__ import annotations

import json
from typing import Any

from warpctl.errors import InputError
from warpctl.storage.file_names import CONFIG

_DTYPE_NAMES = frozenset({"dtype", "torch_dtype"})


def config_with_dtype(data: bytes, dtype: str, *, source: str) -> bytes:
    """config.json with `dtype` under whichever name it knows the type by, nested configs (text_config, ...) too.

    A config that names no type gets `dtype`. Raises InputError, which names `source`, when it is not a JSON object.
    """
    try:
        config = _changed(json.loads(data), dtype)
    except (ValueError, AttributeError) as error:
        raise InputError(f"{source}: {CONFIG} is malformed ({error})", hint="get the checkpoint again") from error
    config = config if _DTYPE_NAMES & config.keys() else {**config, "dtype": dtype}
    return (json.dumps(config, indent=2, allow_nan=False) + "\n").encode()


def _changed(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    changed = dict(config.items())
    for name, value in config.items():
        if name in _DTYPE_NAMES:
            changed[name] = dtype
        elif name.endswith("_config") and isinstance(value, dict):
            changed[name] = _changed(value, dtype)
    return changed
