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

from proxy.policy.limits import estimated_tokens

HEAD_BYTES = 4 * 1024  # a `message_start` is a few hundred bytes
TAIL_BYTES = 16 * 1024  # OpenAI's responses have a caller's metadata, up to 9 KiB, behind their usage

_NEAR_BYTES = 2 * 1024  # of the tail, where nearly all is found: the rest need not be cleared of its chunk sizes
_OBJECT_BYTES = 4 * 1024  # a usage with all its details has some hundred
_MOST_OBJECTS = 8  # that are looked into: bounds the work, whatever an upstream sends
_MOST_TOKENS = 100_000_000  # no request's; a nonsensical number must not leave its client in debt for a year

_CHUNK_SIZE = re.compile(rb"\r\n[0-9A-Fa-f]{1,16}(?:[ \t]*;[^\r\n]{0,256})?\r\n")
_EVENT = b"data:"
_BACKSLASH = ord("\\")
_KEY = b'"usage"'
_OBJECT = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\{)")
# OpenAI's usage, as nearly all are: its sum before its details, and no chunk's size in it.
_SUM = re.compile(rb'"usage"[ \t]*:[ \t]*\{[^{}\\\r]*"total_tokens"[ \t\n]*:[ \t\n]*([0-9]{1,8})[ \t\n]*[,}]')
_DECODER = json.JSONDecoder()  # its raw_decode stops where the object ends, and ours do not end the bytes
_COUNTS = frozenset(
    (
        "total_tokens",
        "prompt_tokens",
        "completion_tokens",
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
    )
)


def is_json(content_type: bytes) -> bool:
    """Is a body of this type a text, whose length tells of tokens?"""
    return b"json" in content_type.lower()


class Meter:
    """Keeps the two ends of an answer as its pieces pass, at most HEAD_BYTES + TAIL_BYTES and the last piece."""

    __slots__ = ("_bytes", "_event_stream", "_events", "_head", "_kind", "_tail", "_tail_bytes")

    def __init__(self, piece: bytes, event_stream: bool, kind: bytes) -> None:
        """`piece`: its beginning; `kind`: its Content-Type, for the length of a text tells of tokens."""
        self._event_stream, self._kind = event_stream, kind
        self._events = piece.count(_EVENT) if event_stream else 0
        self._bytes = self._tail_bytes = len(piece)
        self._head, self._tail = piece[:HEAD_BYTES], [piece]

    def add(self, piece: bytes) -> None:
        if self._bytes < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - self._bytes]
        size = len(piece)
        self._bytes += size
        if self._event_stream:
            self._events += piece.count(_EVENT)
        tail = self._tail
        tail.append(piece)
        self._tail_bytes += size
        while self._tail_bytes - len(tail[0]) >= TAIL_BYTES:
            self._tail_bytes -= len(tail.pop(0))

    def used(self, prompt: int) -> int:
        """What was used, by the answer's own word; where it has none, of a prompt with so many tokens.

        Vendors send about an event for each token of a stream, and text has about a token for four bytes.
        """
        told = _plain_sum(self._tail[-1])
        if told is None:
            told = used_tokens(self._head, b"".join(self._tail))
        if told is not None:
            return told
        if self._event_stream:
            return prompt + self._events
        return prompt + (estimated_tokens(self._bytes) if is_json(self._kind) else 0)


def used_tokens(head: bytes, tail: bytes) -> int | None:
    """The tokens of an answer whose body begins with `head` and ends with `tail`; they may overlap.

    None where they do not say: compressed answers, formats of others, streams of which nobody asked for usage. An
    Anthropic stream that ended early tells at least its prompt, and that much is told. Never raises.
    """
    last = _last_usage(tail[-_NEAR_BYTES:]) or _last_usage(tail[-TAIL_BYTES:])
    if last is not None and "total_tokens" in last:
        return _total(last)
    first = _message_start(head[:HEAD_BYTES])
    if first is not None:  # later counts are sums, and today's repeat the prompt's
        return _total(first | (last or {}))
    return None if last is None or last.keys() == {"output_tokens"} else _total(last)


def _plain_sum(piece: bytes) -> int | None:
    """The sum of the last usage where it is plain to see, at a quarter of the cost; None: look closely."""
    at = piece.rfind(_KEY, -_NEAR_BYTES)
    if at <= 0 or piece[at - 1] == _BACKSLASH:
        return None
    found = _SUM.match(piece, at)
    return None if found is None else int(found[1])


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
    total = usage.get("total_tokens")
    if type(total) is int and 0 <= total <= _MOST_TOKENS:
        return {"total_tokens": total}  # which is all that is asked for
    counts = {name: count for name, count in usage.items() if name in _COUNTS and type(count) is int}
    return counts if all(0 <= count <= _MOST_TOKENS for count in counts.values()) else {}


def _total(counts: dict[str, int]) -> int:
    """OpenAI's sum where there is one (Gemini's has its thoughts in it, which no other field has), else our own."""
    total = counts.get("total_tokens")
    return sum(counts.values()) if total is None else total
