"""What an answer says: tokens of meaningless text, or the arguments of a tool call, cut as a model would stream them.

Text repeats one list of words, so an answer of n tokens is the same in every run and every API, and a test can know it.
A tool is called whenever tools are given and allowed, save when the conversation ends with a tool's result: a caller
that runs tools until it gets text must come to an end. Its arguments come from its schema, a value for each property.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.simulation.errors import ApiError

_TEXT = (
    "A canary sings in the morning and the whole mine listens for its song because a silent bird means danger while a "
    "steady one lets every lamp go deeper into the dark seam below"
)
_TOKENS = tuple(word + " " for word in _TEXT.split())
_ARGUMENT_PIECE_CHARS = 6
_CHARS_PER_TOKEN = 4  # the vendors' own rule of thumb for English
MAX_TOKENS = 200_000  # beyond any model's longest answer: more is a mistake of the caller's


@dataclass(frozen=True, slots=True)
class Generation:
    pieces: tuple[str, ...]  # tokens of text, or of the arguments' JSON
    tool: str | None  # the name of the tool called
    limited: bool  # the request's own limit ended it
    prompt_tokens: int

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        return len(self.pieces)


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    schema: object


def say(tokens: int, *, limited: bool, prompt: object) -> Generation:
    rounds = -(-tokens // len(_TOKENS))
    return Generation((_TOKENS * rounds)[:tokens], None, limited, count_tokens(prompt))


def call_tool(tool: Tool, *, prompt: object) -> Generation:
    """A call of this tool; its text is the arguments' JSON, always an object."""
    arguments = msgspec.json.encode(sample(tool.schema)).decode()
    cuts = range(0, len(arguments), _ARGUMENT_PIECE_CHARS)
    pieces = tuple(arguments[cut : cut + _ARGUMENT_PIECE_CHARS] for cut in cuts)
    return Generation(pieces, tool.name, limited=False, prompt_tokens=count_tokens(prompt))


def requested_length(body: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that the request sets: a number of tokens, at least 1."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_TOKENS:
            raise ApiError(400, f"{name}: expected a whole number from 1 to {MAX_TOKENS}", param=name)
        return value
    return None


def choose(tools: list[Tool], wanted: object) -> Tool:
    """The tool that the request names, or else the first."""
    return next((tool for tool in tools if tool.name == wanted), tools[0])


def count_tokens(prompt: object) -> int:
    """About as many tokens as a vendor would count in all strings of the prompt; at least 1."""
    return max(1, -(-_count_chars(prompt) // _CHARS_PER_TOKEN))


def _count_chars(part: object) -> int:
    if isinstance(part, str):
        return len(part)
    if isinstance(part, list):
        return sum(map(_count_chars, part))
    if isinstance(part, dict):
        return sum(map(_count_chars, part.values()))
    return 0


def sample(schema: object) -> Any:
    """One value that this JSON schema allows, for the types that tools use."""
    if not isinstance(schema, dict):
        return {}
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "string":
            return "canary"
        case "integer":
            return 1
        case "number":
            return 1.5
        case "boolean":
            return True
        case "array":
            return [sample(schema["items"])] if "items" in schema else []
        case _:
            properties = schema.get("properties")
            return {name: sample(part) for name, part in properties.items()} if isinstance(properties, dict) else {}
