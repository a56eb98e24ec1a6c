"""What every record of the configuration is: frozen, strict about unknown fields, and silent about its input."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

from proxy.model.ports import Locator, SecretResolver
from proxy.model.secret import Secret


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Absent is how YAML says None, so that no editor offers `null`; titles would repeat the names."""
        written = handler.resolve_ref_schema(handler(schema))
        written.pop("title", None)
        for field in written.get("properties", {}).values():
            field.pop("title", None)
            if field.get("default", ...) is None:
                del field["default"]
            match field.get("anyOf"):
                case [inner, {"type": "null"}]:
                    del field["anyOf"]
                    field.update(inner | field)
        return written


def said(error: ValidationError) -> str:
    """What is wrong, where a mapping stands by itself and not in a configuration's file."""
    problems = error.errors(include_url=False)
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'the whole'}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in problems
    )


def _resolve(value: object, info: ValidationInfo) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(info.context, SecretResolver):
        raise TypeError("settings that hold secrets are validated with a SecretResolver as the context")
    if isinstance(value, str):
        return info.context.resolve(value)
    raise ValueError("not text: write env:NAME or file:/path, or the secret itself in quotes")


def _locate(value: Path, info: ValidationInfo) -> Path:
    return info.context.locate(value) if isinstance(info.context, Locator) else value


def listed(value: object) -> object:
    """A lone value where a list of them is meant."""
    return [value] if isinstance(value, str | int | float) else value


_SECRET_SCHEMA: dict[str, Any] = {
    "type": "string",
    "format": "secret",
    "examples": ["env:OPENAI_KEY", "file:/run/secrets/openai"],
}

SecretText = Annotated[
    Secret,
    PlainValidator(_resolve),
    PlainSerializer(repr, return_type=str, when_used="json"),
    WithJsonSchema(_SECRET_SCHEMA),
]
"""A secret by reference (`env:NAME`, `file:/path`), or itself."""

LocalFile = Annotated[
    Path, AfterValidator(_locate), PlainSerializer(lambda path: str(path.absolute()), return_type=str, when_used="json")
]
"""A file that is read: a relative path begins where the configuration file is."""
