"""What transformers saves is merged, and what the merge publishes transformers loads: a tied Gemma, several shards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GemmaForCausalLM

from tests.builders.merge_stage import inputs_of, merge_stage, run_merge
from warpctl.merging.slerp import slerp
from warpctl.spec.merge_method import SlerpOrder
from warpctl.storage.store import Store

pytestmark = pytest.mark.integration

CONFIG = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 32,
}  # fmt: skip


def saved(model, folder, **options):
    model.save_pretrained(folder, **options)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_tied_gemma_in_bfloat16_and_float32_is_merged_and_loads_as_float32(tmp_path):
    torch.manual_seed(0)
    init = GemmaForCausalLM(GemmaConfig(**CONFIG)).to(torch.bfloat16)
    members = []
    for _ in range(2):
        member = GemmaForCausalLM(GemmaConfig(**CONFIG))
        member.load_state_dict({k: v.float() + 0.01 * torch.randn(v.shape) for k, v in init.state_dict().items()})
        member.tie_weights()
        members.append(member)
    files = [
        saved(init, tmp_path / "init", max_shard_size="10KB"),
        *[saved(member, tmp_path / f"member{m}") for m, member in enumerate(members)],
    ]
    assert sum(name.endswith(".safetensors") for name in files[0]) > 1
    store = Store.open(str(tmp_path / "store"))
    artifact = run_merge(merge_stage(store.root, inputs_of(store, files), liti_rate="1"), max_shard_bytes=8192)
    folder = artifact.download(tmp_path / "out", prefix="next-init/")
    merged, report = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert merged.dtype == torch.float32
    assert merged.lm_head.weight is merged.model.embed_tokens.weight

    name = "model.embed_tokens.weight"
    start = init.state_dict()[name].double().numpy()
    deltas = np.stack([member.state_dict()[name].double().numpy() - start for member in members])
    weights = slerp(np.tensordot(deltas, deltas, ([1, 2], [1, 2])), SlerpOrder.PAPER).weights
    expected = start + np.tensordot(weights, deltas, 1)
    np.testing.assert_allclose(merged.state_dict()[name].numpy(), expected, rtol=1e-7, atol=1e-9)
    assert torch.isfinite(merged(torch.arange(8)[None]).logits).all()
