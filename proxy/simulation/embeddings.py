"""OpenAI's embeddings: unit vectors made from a hash of the input, so equal inputs have equal vectors everywhere."""

import math
from array import array
from base64 import b64encode
from hashlib import shake_256
from typing import Any

import msgspec
from aiohttp import web

from proxy.simulation.call import Call
from proxy.simulation.errors import ApiError
from proxy.simulation.generation import count_tokens, requested_length

DEFAULT_DIMENSIONS = 256
_MAX_INPUTS = 2048  # OpenAI's own limits
_MAX_DIMENSIONS = 3072


async def embeddings(call: Call) -> web.StreamResponse:
    body = await call.json()
    await call.admit(body.get("model"))
    inputs = _inputs(body.get("input"))
    dimensions = requested_length(body, "dimensions") or DEFAULT_DIMENSIONS
    if dimensions > _MAX_DIMENSIONS:
        raise ApiError(400, f"dimensions: expected at most {_MAX_DIMENSIONS}", param="dimensions")
    encoding_format = body.get("encoding_format") or "float"
    if encoding_format not in ("float", "base64"):
        raise ApiError(400, "encoding_format: expected float or base64", param="encoding_format")
    data = [_embedding(index, one, dimensions, encoding_format) for index, one in enumerate(inputs)]
    # Tokens given as numbers are counted as they are.
    used = sum(count_tokens(one) if isinstance(one, str) else len(one) for one in inputs)
    await call.pace.first()
    usage = {"prompt_tokens": used, "total_tokens": used}
    return await call.answer({"object": "list", "data": data, "model": call.model, "usage": usage})


def vector(
    text: str | list[int], dimensions: int = DEFAULT_DIMENSIONS
) -> "array[float]":  # quoted: it cannot be subscripted before Python 3.12
    """The unit vector, in 32-bit floats, of a text or of its tokens."""
    digest = shake_256(text.encode() if isinstance(text, str) else msgspec.json.encode(text)).digest(dimensions)
    raw = [byte - 127.5 for byte in digest]  # never zero
    length = math.hypot(*raw)
    return array("f", (part / length for part in raw))


def _embedding(index: int, one: str | list[int], dimensions: int, encoding_format: str) -> dict[str, Any]:
    made = vector(one, dimensions)
    shown = b64encode(made.tobytes()).decode() if encoding_format == "base64" else made.tolist()
    return {"object": "embedding", "index": index, "embedding": shown}


def _inputs(given: object) -> list[str | list[int]]:
    """One text, its tokens, or a list of either."""
    if isinstance(given, str) and given:
        return [given]
    if isinstance(given, list) and 0 < len(given) <= _MAX_INPUTS:
        if all(isinstance(one, int) for one in given):
            return [given]
        if all(isinstance(one, str | list) and one for one in given):
            return given
    raise ApiError(400, "input: expected text, tokens, or a list of either", param="input")
