"""OpenAI's speech and transcriptions: bytes that are no sound, in the shape and at the pace of sound."""

from typing import Any

from aiohttp import web

from proxy.simulation.call import Call
from proxy.simulation.errors import ApiError
from proxy.simulation.events import HOLE, EventStream, TokenEvent, event
from proxy.simulation.form import Upload, read_form
from proxy.simulation.generation import Generation, say

CHUNK_BYTES = 480  # 10 ms of 24 kHz 16-bit mono, what voice vendors send at once
_CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_BYTES_PER_SECOND = 48_000
_CHUNKS = tuple(bytes((first + i) % 251 for i in range(CHUNK_BYTES)) for first in range(251))


def speech_chunk(index: int) -> bytes:
    """The chunk at this place of any speech: 251 of them differ, so a lost or repeated one shows."""
    return _CHUNKS[index % len(_CHUNKS)]


async def speech(call: Call) -> web.StreamResponse:
    body = await call.json()
    await call.admit(body.get("model"))
    for name in ("input", "voice"):
        if not body.get(name):
            raise ApiError(400, f"{name}: Field required", param=name)
    content_type = _CONTENT_TYPES.get(body.get("response_format") or "mp3")
    if content_type is None:
        raise ApiError(400, f"response_format: expected one of {', '.join(_CONTENT_TYPES)}", param="response_format")
    await call.pace.first()
    response = web.StreamResponse(headers={"content-type": content_type})
    response.enable_chunked_encoding()
    await response.prepare(call.request)
    await call.pour(response, range(call.behaviour.tokens), speech_chunk)
    return response


async def transcriptions(call: Call) -> web.StreamResponse:
    form = await read_form(call.request)
    await call.admit(form.fields.get("model"))
    upload = form.uploads.get("file")
    if upload is None:
        raise ApiError(400, "file: Field required", param="file")
    generation = say(call.behaviour.tokens, limited=False, prompt=form.fields.get("prompt"))
    if form.fields.get("stream", "").lower() == "true":
        return await _stream_transcript(call, generation)
    await call.pace.whole(generation.tokens)
    match form.fields.get("response_format", "json"):
        case "json":
            return await call.answer({"text": generation.text, "usage": _usage(generation)})
        case "verbose_json":
            return await call.answer(_verbose(generation, upload))
        case "text":
            return web.Response(text=generation.text + "\n")
        case other:
            raise ApiError(400, f"response_format: {other} is not simulated", param="response_format")


def _usage(generation: Generation) -> dict[str, Any]:
    return {
        "type": "tokens",
        "input_tokens": generation.prompt_tokens,
        "input_token_details": {"text_tokens": 0, "audio_tokens": generation.prompt_tokens},
        "output_tokens": generation.tokens,
        "total_tokens": generation.prompt_tokens + generation.tokens,
    }


def _verbose(generation: Generation, upload: Upload) -> dict[str, Any]:
    duration_s = len(upload.content) / _BYTES_PER_SECOND
    segment = {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": duration_s,
        "text": generation.text,
        "tokens": list(range(generation.tokens)),
        "temperature": 0.0,
        "avg_logprob": -0.1,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.0,
    }
    return {
        "task": "transcribe",
        "language": "english",
        "duration": duration_s,
        "text": generation.text,
        "segments": [segment],
        "usage": {"type": "duration", "seconds": duration_s},
    }


async def _stream_transcript(call: Call, generation: Generation) -> web.StreamResponse:
    await call.pace.first()
    stream = await EventStream.begin(call.request)
    await call.pour(stream, generation.pieces, TokenEvent({"type": "transcript.text.delta", "delta": HOLE}).fill)
    done = {"type": "transcript.text.done", "text": generation.text, "usage": _usage(generation)}
    await stream.send(event(done))
    return stream
