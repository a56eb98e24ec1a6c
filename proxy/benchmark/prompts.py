"""What to ask: a few questions of our own, or a file of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from proxy.benchmark.dialects import Message

Prompt = Sequence[Message]

_OWN = (
    "Explain how a canary in a coal mine worked, and why it was given up.",
    "Write a short story about a bird that learns to count.",
    "Compare three ways to roll out a new version of a service.",
    "What makes a good load balancer? Answer for an engineer on their first day.",
    "Describe the sound of a finch to somebody who has never heard one.",
)


class PromptsInvalid(ValueError):
    """The file of prompts cannot be used. The message names the place."""


def _user(text: str) -> Prompt:
    return [{"role": "user", "content": text}]


OWN: tuple[Prompt, ...] = tuple(map(_user, _OWN))


class _Line(msgspec.Struct):
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """One prompt a line; in a .jsonl file each line is `{"prompt": "…"}`, `{"messages": […]}` or a string.

    Empty lines are left out. Raises PromptsInvalid.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() would also split inside JSON
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PromptsInvalid(f"{path} cannot be read: {(reason or 'no reason given').lower()}") from None
    read = _json_line if path.suffix == ".jsonl" else _user
    prompts = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                prompts.append(read(line))
            except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors
                raise PromptsInvalid(f"{path}:{number}: {error}") from None
    if not prompts:
        raise PromptsInvalid(f"{path} holds no prompts: write one a line")
    return tuple(prompts)


def _json_line(line: str) -> Prompt:
    decoded: str | _Line = msgspec.json.decode(line, type=str | _Line)
    if isinstance(decoded, str):
        return _user(decoded)
    if decoded.prompt is not None:
        return _user(decoded.prompt)
    if decoded.messages:
        for number, turn in enumerate(decoded.messages):
            if not isinstance(turn.get("role"), str) or "content" not in turn:
                raise ValueError(f"messages[{number}] needs a role, as text, and content")
        return decoded.messages
    raise ValueError('no prompt: write {"prompt": "…"}, {"messages": […]} or a string')
