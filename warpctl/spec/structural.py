"""From pydantic models to a structural schema, the kind of JSON schema that a Kubernetes API server takes.

It has no references, no alternatives and no tuples: unions of models are merged (rules say which field belongs to which `type`),
null, which is as good as absent, is left out, and what JSON schema cannot say of a text, such as the range of a decimal, is a rule (cel.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel

from warpctl.spec.base import UNLIMITED
from warpctl.spec.cel import CelRule, expand, in_interval, member
from warpctl.spec.fields import SpecField, fields, pattern_of
from warpctl.spec.messages import HINTS, interval_words

Schema = dict[str, Any]

INT32: Final = 2**31 - 1
_KEPT: Final[tuple[str, ...]] = (
    *("type", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "minProperties"),
    *("maxProperties", "enum"),
)


def structural_schema(model: type[BaseModel], path: str) -> Schema:
    """Schema of a model whose fields stand below `path`, such as "spec"; "" is for models that fields() does not list."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _Builder(raw.get("$defs", {}), _models(model)).build(raw, path, owner=model)


class _Builder:
    def __init__(self, definitions: Mapping[str, Schema], models: Mapping[str, type[BaseModel]]) -> None:
        self.definitions = definitions
        self.models = models

    def build(self, raw: Schema, path: str, *, owner: type[BaseModel] | None = None) -> Schema:
        """One value's schema; `owner` is its model, if it is one."""
        description = raw.get("description", "")
        if "$ref" in raw:
            name = raw["$ref"].rpartition("/")[2]
            referred = self.build(self.definitions[name], path, owner=self.models.get(name))
            return _described(referred, description)
        if "anyOf" in raw:
            (some,) = [each for each in raw["anyOf"] if each != {"type": "null"}]
            return _described(self.build(some, path), description)
        if "oneOf" in raw:
            return _described(self._union(raw["oneOf"], path), description)
        if "const" in raw:
            raw = {**raw, "type": "string", "enum": [raw["const"]]}
        schema: Schema = {name: raw[name] for name in _KEPT if name in raw}
        if schema.get("type") == "integer":
            schema["format"] = "int32" if raw.get("maximum", INT32 + 1) <= INT32 else "int64"
        if schema.get("type") == "array":
            schema["items"] = self.build(raw["items"], f"{path}[]")
            schema["x-kubernetes-list-type"] = "atomic"
        if isinstance(raw.get("additionalProperties"), dict):
            schema["additionalProperties"] = self.build(raw["additionalProperties"], "")
        if "properties" in raw:
            schema |= self._object(raw, path, owner)
        rules = _range_rules(path)
        if rules:
            schema["x-kubernetes-validations"] = rules
        return _described(schema, description)

    def _object(self, raw: Schema, path: str, owner: type[BaseModel] | None) -> Schema:
        below = f"{path}." if path else ""
        found: Schema = {
            "properties": {name: self.build(each, f"{below}{name}") for name, each in raw["properties"].items()}
        }
        if raw.get("required"):
            found["required"] = list(raw["required"])
        rules = [expand(rule, owner) for rule in _rules(owner)] if owner else []
        if rules:
            found["x-kubernetes-validations"] = rules
        return found

    def _union(self, variants: list[Schema], path: str) -> Schema:
        """Models that differ by `type`, as one: every field of any of them, and rules for what the type asks and forbids."""
        by_type: dict[str, Schema] = {}
        for variant in variants:
            built = self.build(variant, path)
            by_type[built["properties"]["type"]["enum"][0]] = built
        properties: Schema = {}
        for built in by_type.values():
            for name, each in built["properties"].items():
                properties.setdefault(name, each)
        properties["type"] = {**properties["type"], "enum": list(by_type)}
        required = [name for name in properties if all(name in each["required"] for each in by_type.values())]
        rules = [rule for name in properties if name not in required for rule in _type_rules(name, by_type)]
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "x-kubernetes-validations": rules,
        }


def _type_rules(name: str, by_type: Mapping[str, Schema]) -> Iterator[Schema]:
    """Which types must have a field, and which may."""
    at = f"self.{member(name)}"
    having = [each for each, built in by_type.items() if name in built["properties"]]
    needing = [each for each, built in by_type.items() if name in built["required"]]
    if len(having) < len(by_type):
        yield {
            "rule": f"!has({at}) || self.type in {having}",
            "message": f"is not a field of this type: only {' and '.join(having)} has it",
            "fieldPath": f".{name}",
        }
    if needing:
        yield {
            "rule": f"!(self.type in {needing}) || has({at})",
            "message": f"is required with type {' and '.join(needing)}",
            "fieldPath": f".{name}",
        }


def _range_rules(path: str) -> list[Schema]:
    """The interval of a decimal, which is a text to the API server."""
    field = _decimal_at(path)
    if field is None or not field.range:
        return []
    hint = HINTS.get(path.removesuffix("[]"), "")
    message = f"must be {interval_words(field.range)}" + (f"; {hint}" if hint else "")
    rule = in_interval("double(self)", field.range)
    return [{"rule": f"self == '{UNLIMITED}' || {rule}" if field.is_limit else rule, "message": message}]


def _decimal_at(path: str) -> SpecField | None:
    """The field whose value, or whose item, is a decimal that stands at this path."""
    is_item = path.endswith("[]")
    field = fields().get(pattern_of(path.removesuffix("[]")))
    wanted = "list of decimals" if is_item else "decimal"
    return field if field is not None and field.kind == wanted else None


def _rules(model: type[BaseModel]) -> tuple[CelRule, ...]:
    return getattr(model, "cel", ())


def _described(schema: Schema, description: str) -> Schema:
    """A field's own description wins over that of its model."""
    words = " ".join(description.split())
    return {"description": words, **{k: v for k, v in schema.items() if k != "description"}} if words else schema


def _models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The model and all those below it, by name."""
    found = {model.__name__: model}
    for info in model.model_fields.values():
        for each in _models_in(info.annotation):
            if each.__name__ not in found:
                found |= _models(each)
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not Literal:
        for each in get_args(annotation):
            yield from _models_in(each)
