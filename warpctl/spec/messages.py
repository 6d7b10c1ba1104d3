"""What is said about a field that cannot be accepted: its range in words, and a hint that teaches."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic.alias_generators import to_camel

from warpctl.spec.base import DECIMAL_PATTERN
from warpctl.spec.fields import SpecField, fields, pattern_of
from warpctl.spec.models import FUNCTION_PATTERN, REWARD_NAME_PATTERN, TEXT_PATTERN, URI_PATTERN, URL_PATTERN
from warpctl.spec.quantity import QUANTITY_PATTERN
from warpctl.spec.source import Place
from warpctl.spec.warp_run import NAME_PATTERN

HINTS: Final[dict[str, str]] = {
    "metadata.name": "for example: demo-2",
    "spec.merge.litiRate": "0 keeps the init, 1 keeps the merged policy",
    "spec.evaluation.litiRates": "0 is the SFT policy, which is always evaluated; 1 is the merged policy, 2 extrapolates",
    "spec.evaluation.confidenceLevel": '"0.95" asks for 95% intervals',
    "spec.evaluation.numPrompts": "null uses all evaluation prompts",
    "spec.training.emaRate": "about 1/steps to 2/steps works; for no anchor at all write anchor: NoAnchor",
    "spec.training.klCoefficient": "0 switches the KL term off; the paper uses 0.1",
    "spec.training.maxKl": "Unlimited never stops a run; the paper stops at 200 nats",
    "spec.training.baseline": "set spec.training.numGenerations to 2 or more",
    "spec.training.batchSize": "it counts completions, not prompts",
    "spec.training.microBatchSize": "null takes the whole batch at once",
    "spec.training.steps": "one for each iteration, the last one repeating: [9000], or [9000, 7000, 7000, 5000, 5000]",
    "spec.training.optimizer.learningRate": 'the paper uses "1e-6"',
    "spec.training.optimizer.maxGradNorm": "Unlimited does not clip",
    "spec.training.rewardShaping.clip": "null does not clip",
    "spec.training.rewardShaping.lengthPenalty": "it is subtracted once per token; the paper's appendix uses 0.0005",
    "spec.training.sampling.temperature": "1 samples from the policy as it is; the paper uses 0.9",
    "spec.training.sampling.topP": "1 samples from the whole distribution",
    "spec.budget.gpuHours": "null sets no limit",
    "spec.models.rewards": "a run optimises the weighted sum of 1 to 8 rewards",
}

PATTERNS: Final[dict[str, tuple[str, str]]] = {
    NAME_PATTERN: (
        "must be lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends",
        "",
    ),
    REWARD_NAME_PATTERN: ("must be lower-case letters, digits and hyphens, with a letter or digit at both ends", ""),
    URI_PATTERN: ("must be a URI or path without line breaks and without white space at its ends", ""),
    URL_PATTERN: ("must be an http:// or https:// URL", ""),
    TEXT_PATTERN: ("must be a text without white space", ""),
    FUNCTION_PATTERN: ("must be package.module:function", "for example: my_rewards.judge:score"),
    QUANTITY_PATTERN: ("must be a Kubernetes quantity", 'for example: "4", "500m" or "64Gi"'),
}


_NOTHING = {"", "null", "~"}


def interval_words(interval: str) -> str:
    """An interval in words: [0, 1] is "in [0, 1]", (0, inf) is "greater than 0", none is ""."""
    if not interval:
        return ""
    if interval.endswith("inf)"):
        low = interval[1:].partition(",")[0]
        return f"at least {low}" if interval.startswith("[") else f"greater than {low}"
    return f"in {interval}"


def explain(kind: str, context: Mapping[str, Any], path: str, place: Place, *, variant: str) -> tuple[str, str]:
    """Message and hint for a pydantic error of this kind at a field.

    `context` is pydantic's, `variant` the `type` of the mapping that holds the field, if it has one.
    """
    pattern = pattern_of(path)
    field = fields().get(pattern) or fields().get(pattern.removesuffix("[]"))
    taught = HINTS.get(pattern.removesuffix("[]"), "")
    match kind:
        case "disagreement":
            said = context["problem"], "" if pattern.endswith("[]") else taught
        case "missing" | "union_tag_not_found":
            said = "is required", _required_hint(field, variant)
        case "extra_forbidden":
            said = _unknown(pattern, place.text, variant)
        case "enum" | "literal_error" | "union_tag_invalid":
            said = _not_allowed(field, place)
        case "string_pattern_mismatch":
            message, hint = PATTERNS.get(context["pattern"], (f"must match {context['pattern']}", ""))
            said = message, hint or taught
        case "too_short" | "too_long":
            said = f"must have {field.size} items" if field else "has the wrong number of items", taught
        case "string_too_short":
            said = "must not be empty", taught
        case "string_too_long":
            said = f"must have at most {context['max_length']} characters", taught
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            said = f"must be {interval_words(field.range if field else '')}", taught
        case _:
            said = _wrong_kind(kind, field, place, taught)
    return said


def _wrong_kind(kind: str, field: SpecField | None, place: Place, taught: str) -> tuple[str, str]:
    words = f" {interval_words(field.range)}".rstrip() if field else ""
    is_number = bool(re.fullmatch(DECIMAL_PATTERN, place.text)) and not place.is_quoted
    match kind:
        case "decimal" | "unquoted_decimal":
            hint = f'quote it: "{place.text}"' if is_number else 'a decimal is written as "0.01" or "1e-6"'
            if field is not None and field.is_limit and not is_number:
                hint = taught
            return f"must be a quoted decimal{words}", hint
        case "int_type":
            unquote = place.is_quoted and re.fullmatch(r"[0-9]+", place.text)
            hint = f"write it without quotes: {place.text}" if unquote else taught
            return f"must be an integer{words}", hint
        case "bool_type":
            return "must be true or false", _boolean_hint(place.text)
        case "string_type":
            is_scalar = place.text not in {*_NOTHING, "a mapping", "a list"}
            return "must be a text", f'quote it: "{place.text}"' if is_scalar else ""
        case "tuple_type":
            return "must be a list", f"write [{place.text}]" if place.text not in {*_NOTHING, "a mapping"} else ""
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a mapping", "give its fields, or leave the line out" if place.text in _NOTHING else ""
        case _:
            return "cannot be accepted", taught


def _boolean_hint(text: str) -> str:
    words = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
    return f"write {words[text.lower()]}" if text.lower() in words else ""


def _required_hint(field: SpecField | None, variant: str) -> str:
    if field is None:
        return ""
    if len(field.allowed) == 1:
        return f"write {field.name}: {field.allowed[0]}"
    if field.allowed:
        return f"one of {', '.join(field.allowed)}"
    of_variant = re.search(rf"{variant}: (.*?)(?= [A-Z]\w+: |$)", field.doc) if variant in field.variants else None
    return of_variant[1] if of_variant else field.doc


def _not_allowed(field: SpecField | None, place: Place) -> tuple[str, str]:
    allowed = field.allowed if field else ()
    message = f"must be one of {', '.join(value or '(empty)' for value in allowed)}"
    if len(allowed) == 1:
        message = f"must be {allowed[0]}" if place.text != allowed[0] else f'must be the text "{allowed[0]}"'
    if place.text in allowed:
        return message, f'quote it: "{place.text}"'
    close = _closest(place.text, allowed)
    return message, f"did you mean {close}?" if close else ""


def _unknown(pattern: str, key: str, variant: str) -> tuple[str, str]:
    section = pattern.removesuffix(key).removesuffix(".")
    here = {field.name: field for field in fields().values() if field.section == section}
    known = [name for name, field in here.items() if not field.variants or not variant or variant in field.variants]
    message = f"is not a field of {section or 'a WarpRun'}"
    if key in here:
        return (
            f"{message} of type {variant}",
            f"type {' and '.join(here[key].variants)} has it; this type has: {', '.join(known)}",
        )
    close = _closest(to_camel(key) if "_" in key else key, known)
    if close:
        return message, f"did you mean {close}?"
    elsewhere = [field.section for field in fields().values() if field.name == key and field.section.startswith("spec")]
    if elsewhere and len(elsewhere) <= 3:
        return message, f"it belongs to {' or '.join(elsewhere)}"
    return message, f"its fields are: {', '.join(known)}"


def _closest(word: str, known: tuple[str, ...] | list[str]) -> str:
    lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.7)
    return lower[close[0]] if close else ""
