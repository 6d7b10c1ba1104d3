"""What `warpctl merge` will do, from headers and listings alone: which bytes are read, which files are written, where."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from warpctl.errors import InputError, UserError
from warpctl.merging.groups import Group
from warpctl.merging.slerp_weights import SlerpRule, num_layers, slerp_weights
from warpctl.spec.decimals import decimal_text
from warpctl.spec.merge_method import Granularity, MergeMethod, SlerpOf, SlerpOrder
from warpctl.storage.file_names import CONFIG, MERGE_RECORD
from warpctl.storage.headers import MAX_SHARD_BYTES, STORED_AS, split_into_shards
from warpctl.storage.new_folder import NewFolder
from warpctl.storage.plain_folder import OnBytes, PlainFolder, untold
from warpctl.storage.tensors import Checkpoint
from warpctl.workers.merge_memory import upload_bytes
from warpctl.workers.merge_reading import DEFAULT_MEMORY_BYTES, GroupPlan, plan_groups
from warpctl.workers.merge_sources import Source, Sources
from warpctl.workers.model_config import config_with_dtype

_KEPT_ENDINGS: Final = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
_TEMPLATES: Final = "additional_chat_templates/"
_OF_TRAINING: Final = frozenset({MERGE_RECORD, "trainer_state.json", "all_results.json", "train_results.json"})


@dataclass(frozen=True, kw_only=True)
class MergeRequest:
    """What to merge, and how. All places are folders or URI prefixes; `merged_out` may be ""."""

    init: str
    policies: tuple[str, ...]
    out: str
    merged_out: str = ""
    liti_rate: Decimal = Decimal(1)
    order: SlerpOrder = SlerpOrder.PAPER
    granularity: Granularity = Granularity.LAYER
    linear_weights: tuple[float, ...] = ()
    """Of each policy, instead of SLERP and LITI: their weighted average, in which the init weighs what is left of 1."""
    slerp_rules: tuple[SlerpRule, ...] = ()
    """lambda of a recipe, instead of order and LITI: of two policies, or of init and policy as `slerp_of` says."""
    slerp_of: SlerpOf = SlerpOf.TASK_VECTORS
    num_layers: int = 0
    """That a recipe takes the models for; 0: any."""
    dtype: str = "float32"
    max_shard_bytes: int = MAX_SHARD_BYTES
    memory_bytes: int = DEFAULT_MEMORY_BYTES

    @property
    def merging_bytes(self) -> int:
        """Of the memory, what is not for results on their way."""
        return self.memory_bytes - upload_bytes((self.out, self.merged_out))

    def to_json(self) -> dict[str, Any]:
        """For merge.json and programs."""
        return {
            "init": self.init,
            "policies": list(self.policies),
            "out": self.out,
            "mergedOut": self.merged_out or None,
            **self._how(),
            "dtype": self.dtype,
        }

    def _how(self) -> dict[str, Any]:
        if self.linear_weights:
            return {"linearWeights": list(self.linear_weights)}
        if self.slerp_rules:
            rules = [{"filter": rule.part or None, "values": list(rule.values)} for rule in self.slerp_rules]
            return {
                "slerpOf": self.slerp_of.value,
                "slerpWeight": rules if self.slerp_weight is None else self.slerp_weight,
                "granularity": self.granularity.value,
            }
        return {
            "litiRate": decimal_text(self.liti_rate),
            "order": self.order.value,
            "granularity": self.granularity.value,
        }

    @property
    def is_of_weights(self) -> bool:
        """Whether the init is a model like the others: nobody has moved away from it."""
        return bool(self.linear_weights) or self.slerp_of is SlerpOf.WEIGHTS

    @property
    def slerp_weight(self) -> float | None:
        """lambda, if it is one for all tensors."""
        one_of_all = (
            len(self.slerp_rules) == 1 and not self.slerp_rules[0].part and len(self.slerp_rules[0].values) == 1
        )
        return self.slerp_rules[0].values[0] if one_of_all else None

    def method(self, tensors: Iterable[str]) -> MergeMethod:
        """As a merge stage has it in its task, or as a recipe has it for these tensors. UserError when it is for other ones."""
        tensors = list(tensors)
        if self.num_layers and (found := num_layers(tensors)) != self.num_layers:
            raise UserError(
                f"slices: layer_range ends at {self.num_layers}, the models have {found} layers",
                hint="layers cannot be left out or stacked here; mergekit-yaml does that",
            )
        return MergeMethod(
            granularity=self.granularity,
            order=self.order,
            liti_rate=self.liti_rate,
            slerp_of=self.slerp_of,
            slerp_weights=slerp_weights(self.slerp_rules, tensors) if self.slerp_rules else {},
        )


@dataclass(frozen=True)
class MergePlan:
    """A merge whose inputs fit together and whose targets are free."""

    request: MergeRequest
    method: MergeMethod
    folders: tuple[PlainFolder, ...]
    targets: tuple[NewFolder, ...]
    sources: Sources = field(repr=False)
    groups: tuple[GroupPlan, ...]
    read_bytes: int
    write_bytes: int
    num_parameters: int
    copied: tuple[str, ...]
    """Files of the init that the result gets as they are."""
    config: bytes

    @property
    def read_twice(self) -> tuple[str, ...]:
        """Groups that do not fit into memory: once for the inner products, once more to be combined."""
        return tuple(plan.group.name for plan in self.groups if plan.is_read_twice)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "tensors": len(self.sources.specs),
            "parameters": self.num_parameters,
            "groups": len(self.groups),
            "groupsReadTwice": len(self.read_twice),
            "bytesToRead": self.read_bytes,
            "bytesToWrite": self.write_bytes,
            "copiedFiles": list(self.copied),
            "tiedCopies": list(self.sources.tied_copies),
        }


def plan_merge(request: MergeRequest, *, on_bytes: OnBytes = untold) -> MergePlan:
    """Look at targets and headers. UserError or InputError, which name the input, for all that can be known so early."""
    targets = tuple(NewFolder.open(uri, on_bytes=on_bytes) for uri in (request.out, request.merged_out) if uri)
    if len({target.uri for target in targets}) < len(targets):
        raise UserError(f"both results would go to {request.out}", hint="--merged-out needs a folder of its own")
    opened = [_open(uri, on_bytes) for uri in (request.init, *request.policies)]
    sources = Sources.check([Source(uri, checkpoint) for uri, _, checkpoint in opened])
    method = request.method(spec.name for spec in sources.specs)
    groups = plan_groups(sources, method, memory_bytes=request.merging_bytes)
    if request.linear_weights:  # no angles, no inner products
        groups = tuple(GroupPlan(plan.group, (), plan.combination) for plan in groups)
    shards = split_into_shards(sources.specs, dtype=STORED_AS[request.dtype], max_shard_bytes=request.max_shard_bytes)
    write_bytes = len(targets) * sum(shard.size for shard in shards)
    _check_space(targets, write_bytes // len(targets))
    init = opened[0][1]
    return MergePlan(
        request=request,
        method=method,
        folders=tuple(folder for _, folder, _ in opened),
        targets=targets,
        sources=sources,
        groups=groups,
        read_bytes=sum((1 + plan.is_read_twice) * _stored_bytes(sources, plan.group) for plan in groups),
        write_bytes=write_bytes,
        num_parameters=sum(math.prod(spec.shape) for spec in sources.specs),
        copied=tuple(name for name in init.names() if _is_of_the_model(name)),
        config=config_with_dtype(_config(init), request.dtype, source=init.uri),
    )


def _open(uri: str, on_bytes: OnBytes) -> tuple[str, PlainFolder, Checkpoint]:
    folder = PlainFolder.open(uri, on_bytes=on_bytes)
    try:
        return uri, folder, Checkpoint.open(folder)
    except InputError as error:
        message = error.message if folder.uri in error.message else f"{uri}: {error.message}"
        raise InputError(message, hint=error.hint) from error


def _check_space(targets: Sequence[NewFolder], target_bytes: int) -> None:
    """UserError when a local disk has no room for all of it; leftovers of an earlier merge make room."""
    needed, freed, disks = Counter[int](), Counter[int](), dict[int, tuple[Path, Path]]()
    for target in targets:
        path = target.local_path()
        if path is not None:
            disk = next(folder for folder in (path, *path.parents) if folder.exists())
            device = disk.stat().st_dev
            needed[device] += target_bytes
            freed[device] += sum(target.unfinished.values())
            disks.setdefault(device, (path, disk))
    for device, (path, disk) in disks.items():
        room = shutil.disk_usage(disk).free + freed[device]
        if room < needed[device]:
            raise UserError(
                f"{path} has room for {room / 1e9:.1f} GB, the result is {needed[device] / 1e9:.1f} GB",
                hint="free some space, choose another place, or take --dtype bfloat16",
            )


def _config(init: PlainFolder) -> bytes:
    if CONFIG not in init.names():
        raise InputError(f"{init.uri} has no {CONFIG}", hint="the result would be no model; add it to the init")
    return init.read(CONFIG)


def _is_of_the_model(name: str) -> bool:
    """Tokenizer, generation config, chat templates, code; not weights in any format, cards, or a trainer's leavings."""
    if "/" in name and not name.startswith(_TEMPLATES):
        return False
    is_index = name.endswith(".index.json")  # of whichever format
    return name.endswith(_KEPT_ENDINGS) and not is_index and name != CONFIG and name not in _OF_TRAINING


def _stored_bytes(sources: Sources, group: Group) -> int:
    checkpoints: Iterable[Checkpoint] = (source.checkpoint for source in sources.all)
    return sum(checkpoint.tensors[name].num_bytes for checkpoint in checkpoints for name in group.tensors)
