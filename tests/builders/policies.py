"""Committed policies of a few thousand parameters with the tiny laboratory's words, for tests of torch workers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers import GemmaForCausalLM

from tests.builders.evaluations import publish_stage
from warpctl.spec.stage_input import ImportTask, InputArtifact, StageKind
from warpctl.storage.store import Store
from warpctl.tiny.policy import policy_config
from warpctl.tiny.recipe import Recipe
from warpctl.tiny.tokenizer import make_tokenizer


def policy_files(seed: int, *, scale: float = 4.0, width: int = 16) -> dict[str, bytes]:
    """A random Gemma with its tokenizer, as files; `scale` makes its distributions uneven."""
    torch.manual_seed(seed)
    model = GemmaForCausalLM(policy_config(Recipe(width=width, num_heads=2, num_layers=1)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def publish_policy(
    store: Store,
    files: dict[str, bytes],
    *,
    role: str,
    stage_id: str,
    kind: StageKind = StageKind.IMPORT,
    inputs: tuple[InputArtifact, ...] = (),
) -> InputArtifact:
    """Commit the files as an artifact of any kind; a merge has them under merged/."""
    prefix = "merged/" if kind is StageKind.MERGE else ""
    return publish_stage(
        store,
        stage_id=stage_id,
        kind=kind,
        role=role,
        task=ImportTask(what="Model", uri=role, revision="main"),
        files={f"{prefix}{name}": data for name, data in files.items()},
        inputs=inputs,
    )
