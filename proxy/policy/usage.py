"""How many tokens an answer says it used, read from the two ends of its bytes.

A proxy that passes bytes on would have to parse every event of every stream to know. It need not: all vendors put the
usage near the end, and Anthropic's streams the prompt's part of it near the beginning. So who relays keeps the first
HEAD_BYTES and the last TAIL_BYTES, and here the last `"usage"` in them is looked for. Their pieces are as they came:
begun and cut anywhere, with the sizes of HTTP's chunks between them, even in the middle of a number.

A text about usage is no usage: inside a JSON string each quote is escaped, so `"usage":` with bare quotes is a key.
Source: https://platform.openai.com/docs/api-reference/chat, .../responses-streaming and .../embeddings,
https://docs.anthropic.com/en/docs/build-with-claude/streaming, RFC 9112 7.1 for the chunks. vLLM, Gemini's
OpenAI-compatible endpoint and many others answer as OpenAI does.

What counts is what the provider's own rate limit counts. OpenAI's counts a prompt whole, cached or not ("caching does
not affect rate limits", https://platform.openai.com/docs/guides/prompt-caching). Anthropic's counts what is written to
its cache and not what is read from it (https://docs.anthropic.com/en/api/rate-limits, cache-aware ITPM).
"""

import json
import re
from typing import NamedTuple

from proxy.policy.limits import estimated_tokens

HEAD_BYTES = 4 * 1024  # a `message_start` is a few hundred bytes
TAIL_BYTES = 16 * 1024  # OpenAI's responses have a caller's metadata, up to 9 KiB, behind their usage

_NEAR_BYTES = 2 * 1024  # of the tail, where nearly all is found: the rest need not be cleared of its chunk sizes
_OBJECT_BYTES = 4 * 1024  # a usage with all its details has some hundred
_MOST_OBJECTS = 8  # that are looked into: bounds the work, whatever an upstream sends
_MOST_TOKENS = 100_000_000  # no request's; a nonsensical number must not leave its client in debt for a year

_CHUNK_SIZE = re.compile(rb"\r\n[0-9A-Fa-f]{1,16}(?:[ \t]*;[^\r\n]{0,256})?\r\n")
_BACKSLASH = ord("\\")
_KEY = b'"usage"'
_OBJECT = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\{)")
# OpenAI's usage, as nearly all are: the prompt and the sum before the details, and no chunk's size in it.
_PLAIN = re.compile(
    rb'"usage"[ \t]*:[ \t]*\{[^{}\\\r]*"prompt_tokens"[ \t\n]*:[ \t\n]*([0-9]{1,8})[ \t\n]*,'
    rb'[^{}\\\r]*"total_tokens"[ \t\n]*:[ \t\n]*([0-9]{1,8})[ \t\n]*[,}]'
)
_DECODER = json.JSONDecoder()  # its raw_decode stops where the object ends, and ours do not end the bytes
_COUNTS = frozenset(
    (
        "total_tokens",
        "prompt_tokens",
        "completion_tokens",
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
    )
)
_OF_NO_PROMPT = frozenset(("output_tokens", "cache_read_input_tokens"))


class Usage(NamedTuple):
    """Tokens of one request."""

    input: int  # the whole prompt, cached or not
    output: int
    limited: int  # what the provider's rate limit counts of both


def is_json(content_type: bytes) -> bool:
    """Is a body of this type a text, whose length tells of tokens?"""
    return b"json" in content_type.lower()


class Meter:
    """Keeps the two ends of an answer as its pieces pass, at most HEAD_BYTES + TAIL_BYTES and the last piece."""

    __slots__ = ("_bytes", "_head", "_kind", "_tail", "_tail_bytes")

    def __init__(self, piece: bytes, kind: bytes) -> None:
        """`piece`: its beginning; `kind`: its Content-Type, for the length of a text tells of tokens."""
        self._kind = kind
        self._bytes = self._tail_bytes = len(piece)
        self._head, self._tail = piece[:HEAD_BYTES], [piece]

    def add(self, piece: bytes) -> None:
        if self._bytes < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - self._bytes]
        size = len(piece)
        self._bytes += size
        tail = self._tail
        tail.append(piece)
        self._tail_bytes += size
        while self._tail_bytes - len(tail[0]) >= TAIL_BYTES:
            self._tail_bytes -= len(tail.pop(0))

    def usage(self) -> Usage | None:
        """What was used, by the answer's own word."""
        return _plain_usage(self._tail[-1]) or usage_told(self._head, b"".join(self._tail))

    def estimate(self, prompt: int, events: int) -> int:
        """What was used by an answer without a word on it: of a prompt with so many tokens, with so many events.

        Vendors send about an event for each token of a stream, and text has about a token for four bytes.
        """
        return prompt + (events or (estimated_tokens(self._bytes) if is_json(self._kind) else 0))


def usage_told(head: bytes, tail: bytes) -> Usage | None:
    """The tokens of an answer whose body begins with `head` and ends with `tail`; they may overlap.

    None where they do not say: compressed answers, formats of others, streams of which nobody asked for usage. An
    Anthropic stream that ended early tells at least its prompt, and that much is told. Never raises.
    """
    last = _last_usage(tail[-_NEAR_BYTES:]) or _last_usage(tail[-TAIL_BYTES:])
    if last is not None and "total_tokens" in last:
        return _of_sum(last)
    first = _message_start(head[:HEAD_BYTES])
    if first is not None:  # later counts are sums, and today's repeat the prompt's
        return _added_up(first | (last or {}))
    return None if last is None or last.keys() <= _OF_NO_PROMPT else _added_up(last)


def _plain_usage(piece: bytes) -> Usage | None:
    """The last usage where it is plain to see, at a quarter of the cost; None: look closely."""
    at = piece.rfind(_KEY, -_NEAR_BYTES)
    if at <= 0 or piece[at - 1] == _BACKSLASH:
        return None
    found = _PLAIN.match(piece, at)
    if found is None:
        return None
    prompt, total = int(found[1]), int(found[2])
    return Usage(prompt, total - prompt, total) if prompt <= total else None


def _without_chunk_sizes(piece: bytes) -> bytes:
    """Also of bytes without chunks: JSON has no bare line of hex digits, and server-sent events none that matters."""
    return _CHUNK_SIZE.sub(b"", piece) if b"\r" in piece else piece


def _last_usage(piece: bytes) -> dict[str, int] | None:
    """The counts of the last usage that counts tokens: one that is null does not, nor does a schema's."""
    piece = _without_chunk_sizes(piece)
    at, looks = piece.rfind(b'_tokens"') + 1, 0  # none is behind it, and many a stream has none at all
    while looks < _MOST_OBJECTS and (at := piece.rfind(_KEY, 0, at)) >= 0:
        value = _OBJECT.match(piece, at + len(_KEY))
        if value is not None and not piece.endswith(b"\\", 0, at):
            looks += 1
            if counts := _counts(piece, value.end()):
                return counts
    return None


def _message_start(piece: bytes) -> dict[str, int] | None:
    """The counts with which an Anthropic stream begins."""
    piece = _without_chunk_sizes(piece)
    event = piece.find(b'"message_start"')
    at = piece.find(_KEY, event)
    if event < 0 or at < 0:
        return None
    value = _OBJECT.match(piece, at + len(_KEY))
    return None if value is None else _counts(piece, value.end()) or None


def _counts(piece: bytes, start: int) -> dict[str, int]:
    """The counts in the JSON object that starts there; none where it is cut, broken, or counts what cannot be."""
    try:
        usage, _ = _DECODER.raw_decode(piece[start : start + _OBJECT_BYTES].decode("latin-1"))
    except (ValueError, RecursionError):
        return {}
    counts = {name: count for name, count in usage.items() if name in _COUNTS and type(count) is int}
    total = counts.get("total_tokens")
    if total is not None and 0 <= total <= _MOST_TOKENS:
        return counts  # by which the others are judged
    return counts if all(0 <= count <= _MOST_TOKENS for count in counts.values()) else {}


def _of_sum(counts: dict[str, int]) -> Usage:
    """OpenAI's, who adds up itself: what is not the prompt's is output. Gemini's sum has its thoughts in it, which no
    other field has; and where there is nothing but a sum, as of embeddings, nothing was put out."""
    total = counts["total_tokens"]
    prompt = counts.get("prompt_tokens", counts.get("input_tokens"))
    if prompt is None:
        prompt = total - counts.get("completion_tokens", counts.get("output_tokens", 0))
    prompt = min(max(prompt, 0), total)
    return Usage(prompt, total - prompt, total)


def _added_up(counts: dict[str, int]) -> Usage:
    """Anthropic's, and of those who leave the sum to others."""
    output = counts.get("output_tokens", 0) + counts.get("completion_tokens", 0)
    cached = counts.get("cache_read_input_tokens", 0)
    prompt = sum(counts.values()) - output
    return Usage(prompt, output, prompt + output - cached)
