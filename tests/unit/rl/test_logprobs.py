"""Log-probabilities of completions equal transformers' own forward pass, whatever stands around them."""

from __future__ import annotations

import pytest
import torch

from tests.builders.architectures import CONFIGS, FUSED, VOCABULARY, make_model
from warpctl.rl.fused import may_fuse
from warpctl.rl.logprobs import (
    completion_logits,
    completion_logprobs,
    micro_batched_logprobs,
    padded_logprobs,
    sequence_logprobs,
)

PROMPTS = [[1, 5, 6], [1, 7, 8, 9, 10, 11, 12], [1, 5], [1, 30, 31, 32]]
COMPLETIONS = [[4, 9, 2], [3], [20, 21, 22, 23, 24, 2], [9, 2]]
TEMPERATURE = 0.7


def own_forward(model, prompt, completion):
    """One sequence alone, by transformers with nothing around it: log softmax(logits / T) of each completion token."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].double()
    table = (logits / TEMPERATURE).log_softmax(dim=-1)
    return torch.stack([table[len(prompt) + t - 1, token] for t, token in enumerate(completion)])


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_agrees_with_its_own_forward(name):
    """Prompts and completions of different lengths in one batch: padding on both sides."""
    model = make_model(name)

    logprobs_BT, in_completion_BT = completion_logprobs(
        model, PROMPTS, COMPLETIONS, temperature=TEMPERATURE, pad_token=0
    )

    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        expected = own_forward(model, prompt, completion)
        torch.testing.assert_close(logprobs_BT[row, : len(completion)].double(), expected, rtol=2e-5, atol=2e-5)
        assert in_completion_BT[row].tolist() == [t < len(completion) for t in range(6)]
        assert logprobs_BT[row, len(completion) :].tolist() == [0.0] * (6 - len(completion))
    assert logprobs_BT.min() < -1


@pytest.mark.parametrize("prompts", [PROMPTS, [[1, 5, 6]] * 4], ids=["padded", "one length"])
@pytest.mark.parametrize("name", sorted(FUSED))
def test_the_fused_pass_has_the_gradient_of_transformers_own(name, prompts, monkeypatch):
    """Every weight's gradient of the log-probabilities, to rounding."""
    model = make_model(name)
    assert may_fuse(model, capacity=20)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad(set_to_none=True)
        logprobs_BT, _ = completion_logprobs(model, prompts, COMPLETIONS, temperature=TEMPERATURE, pad_token=0)
        (logprobs_BT * torch.linspace(-1, 1, logprobs_BT.numel()).view_as(logprobs_BT)).sum().backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}

    fused = gradients()
    monkeypatch.setattr("warpctl.rl.logprobs.may_fuse", lambda *_, **__: False)
    own = gradients()

    assert fused.keys() == own.keys()
    for weight, gradient in own.items():
        torch.testing.assert_close(
            fused[weight], gradient, rtol=1e-3, atol=2e-5, msg=lambda text, w=weight: f"{w}: {text}"
        )
    assert max(gradient.abs().max() for gradient in own.values()) > 0.05


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gemma", "llama", "qwen2", "mistral-window"])
def test_padding_on_either_side_is_irrelevant(name, side):
    """The same sequences, padded by hand on the left or the right and read by transformers with mask and positions."""
    model = make_model(name)
    sequences = [prompt + completion for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
    longest = max(map(len, sequences))
    rows, masks, starts = [], [], []
    for sequence in sequences:
        padding = [0] * (longest - len(sequence))
        mask = [1] * len(sequence)
        rows.append(padding + sequence if side == "left" else sequence + padding)
        masks.append(padding + mask if side == "left" else mask + padding)
        starts.append(len(padding) if side == "left" else 0)
    mask = torch.tensor(masks)
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor(rows), attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)
        ).logits
    table = (logits / TEMPERATURE).log_softmax(dim=-1)

    logprobs_BT, _ = completion_logprobs(model, PROMPTS, COMPLETIONS, temperature=TEMPERATURE, pad_token=0)

    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        first = starts[row] + len(prompt) - 1
        expected = table[row, first : first + len(completion)].gather(1, torch.tensor(completion)[:, None])[:, 0]
        torch.testing.assert_close(logprobs_BT[row, : len(completion)], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("pad_token", [0, 2, 17])
def test_the_pad_token_does_not_matter(pad_token):
    """A tokenizer without one may use any, the end of sequence too."""
    model = make_model("gemma")
    reference, _ = completion_logprobs(model, PROMPTS, COMPLETIONS, temperature=1.0, pad_token=36)

    logprobs_BT, _ = completion_logprobs(model, PROMPTS, COMPLETIONS, temperature=1.0, pad_token=pad_token)

    torch.testing.assert_close(logprobs_BT, reference, rtol=1e-6, atol=1e-6)


def test_the_end_of_sequence_token_is_included():
    model = make_model("llama")

    with_end, _ = completion_logprobs(model, [[1, 5]], [[4, 9, 2]], temperature=1.0, pad_token=0)
    without, _ = completion_logprobs(model, [[1, 5]], [[4, 9]], temperature=1.0, pad_token=0)

    end = with_end[0, 2]
    assert end < -0.1
    torch.testing.assert_close(with_end.sum() - without.sum(), end, rtol=0, atol=1e-5)


def test_padding_has_no_gradient_even_where_it_is_garbage():
    model = make_model("gemma")
    logprobs_BT, in_completion_BT = completion_logprobs(model, PROMPTS, COMPLETIONS, temperature=1.0, pad_token=0)
    sequence_logprobs(logprobs_BT, in_completion_BT)[1].backward()
    batch = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    model.zero_grad()
    alone_BT, in_alone_BT = completion_logprobs(model, PROMPTS[1:2], COMPLETIONS[1:2], temperature=1.0, pad_token=0)
    sequence_logprobs(alone_BT, in_alone_BT)[0].backward()
    alone = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    assert (batch - alone).norm() < 1e-5 * alone.norm()


def test_logits_come_a_few_completions_at_a_time():
    model = make_model("qwen2")
    whole, _ = completion_logprobs(model, PROMPTS, COMPLETIONS, temperature=TEMPERATURE, pad_token=0)

    with torch.no_grad():
        parts = list(completion_logits(model, PROMPTS, COMPLETIONS, pad_token=0, micro_batch=3))
    logprobs_BT = micro_batched_logprobs(
        model, PROMPTS, COMPLETIONS, temperature=TEMPERATURE, pad_token=0, micro_batch=3
    )

    assert [part.rows for part in parts] == [range(3), range(3, 4)]
    assert [tuple(part.logits_BTV.shape) for part in parts] == [(3, 6, VOCABULARY), (1, 2, VOCABULARY)]
    torch.testing.assert_close(logprobs_BT, whole.detach(), rtol=1e-5, atol=1e-5)
    assert not logprobs_BT.requires_grad


def test_ragged_logprobs_are_padded_with_zeros():
    padded = padded_logprobs([torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])], torch.device("cpu"))

    assert padded.tolist() == [[-1.0, -2.0], [-3.0, 0.0]]
