"""Which tensors SLERP is applied to together.

The paper applies SLERP "independently to the 28 layers" and says nothing about the rest. Here, at granularity Layer:

- tensors of one layer are a group: the name up to its first component that is a number ("model.layers.7");
- what is in no layer is grouped by module: embeddings, final norm and head are groups of their own
  ("model.embed_tokens", "model.norm", "lm_head"; a module's weight and bias stay together);
- a tied head is not stored, so there is nothing to do for it.

Groups are runs of sorted tensor names: they come in the order in which checkpoints are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from warpctl.spec.merge_method import Granularity

GLOBAL_GROUP = "model"
_LAYER = re.compile(r"(?:.*?\.)?[0-9]+(?=\.)")
_PARAMETER = re.compile(r"\.(?:weight|bias)$")


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors, sorted by name, that share one set of SLERP coefficients."""

    name: str
    tensors: tuple[str, ...]


def layer_of(tensor: str) -> str:
    """Name of the Layer group of a tensor: its layer, or else its module."""
    match = _LAYER.match(tensor)
    return match.group() if match else _PARAMETER.sub("", tensor)


def split_into_groups(tensors: Iterable[str], granularity: Granularity) -> tuple[Group, ...]:
    """All tensors, each in exactly one group; names ascend within groups and from group to group.

    A module whose tensors are not neighbours in the sorted order (a submodule's lie between) is split there;
    the later part is named after its first tensor.
    """
    names = sorted(tensors)
    if granularity is Granularity.GLOBAL:
        return (Group(GLOBAL_GROUP, tuple(names)),)
    if granularity is Granularity.TENSOR:
        return tuple(Group(name, (name,)) for name in names)
    groups: dict[str, Group] = {}
    for key, run in groupby(names, key=layer_of):
        members = tuple(run)
        name = members[0] if key in groups else key
        groups[name] = Group(name, members)
    return tuple(groups.values())
