"""Embeddings, models, files, speech and transcriptions: what is not a conversation."""

import math

import openai as sdk
import pytest

from proxy.simulation.audio import CHUNK_BYTES, speech_chunk
from proxy.simulation.memory import Shelf

TEXT = "A canary sings in the "


async def test_equal_inputs_have_equal_unit_vectors_in_either_encoding(openai, valid):
    asked = {"model": "any", "input": ["one", "two", "one"]}
    by_default = valid(await openai.embeddings.create(**asked))  # base64
    as_floats = valid(await openai.embeddings.create(**asked, encoding_format="float"))

    one, two, again = (item.embedding for item in by_default.data)
    assert one == again != two
    assert len(one) == 256
    assert math.hypot(*one) == pytest.approx(1, abs=1e-6)
    assert [item.embedding for item in as_floats.data] == [pytest.approx(one), pytest.approx(two), pytest.approx(one)]
    assert [item.index for item in by_default.data] == [0, 1, 2]
    assert by_default.usage.prompt_tokens == 3


@pytest.mark.parametrize(("given", "count"), [("text", 1), ([1, 2, 3], 1), ([[1, 2], [3]], 2)])
async def test_inputs_may_be_text_or_tokens(openai, given, count):
    answer = await openai.embeddings.create(model="any", input=given, dimensions=8)
    assert [len(item.embedding) for item in answer.data] == [8] * count


async def test_models_are_listed_and_found(openai, behave, valid):
    behave(models=("canary-1", "mine/canary-2"))
    assert [valid(model).id async for model in openai.models.list()] == ["canary-1", "mine/canary-2"]
    assert valid(await openai.models.retrieve("mine/canary-2")).owned_by == "east"
    with pytest.raises(sdk.NotFoundError) as caught:
        await openai.models.retrieve("canary-3")
    assert caught.value.code == "model_not_found"


async def test_a_file_comes_back_byte_for_byte_until_it_is_deleted(openai, valid):
    content = bytes(range(256)) * 1000
    made = valid(await openai.files.create(file=("mine.bin", content), purpose="user_data"))

    assert (made.bytes, made.filename, made.purpose) == (256_000, "mine.bin", "user_data")
    assert (await openai.files.content(made.id)).content == content
    assert valid(await openai.files.retrieve(made.id)) == made
    assert [one.id async for one in openai.files.list()] == [made.id]
    assert valid(await openai.files.delete(made.id)).deleted
    with pytest.raises(sdk.NotFoundError):
        await openai.files.content(made.id)


async def test_files_are_listed_newest_first(openai):
    made = [await openai.files.create(file=("a.txt", b"a"), purpose="batch") for _ in range(3)]
    assert [one.id async for one in openai.files.list()] == [one.id for one in reversed(made)]


def test_a_shelf_drops_its_oldest_things_beyond_its_bounds():
    shelf = Shelf(max_things=3, max_bytes=10)
    for key in "abcd":
        shelf.put(key, b"xx")
    assert [key for key, _ in shelf.newest_first()] == ["d", "c", "b"]
    shelf.put("e", b"x" * 9)
    assert [key for key, _ in shelf.newest_first()] == ["e"]
    shelf.put("f", b"x" * 99)  # one thing is kept, however big
    assert shelf.pop("f") is not None
    assert len(shelf) == 0


@pytest.mark.parametrize(("response_format", "content_type"), [("mp3", "audio/mpeg"), ("pcm", "audio/pcm")])
async def test_speech_comes_in_chunks_at_the_pace_of_tokens(openai, behave, naps, response_format, content_type):
    behave(ttft_s=0.1, per_token_s=0.01)
    speech = openai.audio.speech.with_streaming_response
    async with speech.create(model="any", voice="alloy", input="Hi", response_format=response_format) as response:
        body = await response.read()

    assert response.headers["content-type"] == content_type
    assert response.headers["transfer-encoding"] == "chunked"
    assert body == b"".join(map(speech_chunk, range(5)))
    assert len(body) == 5 * CHUNK_BYTES
    assert naps.taken_s == pytest.approx([0.1, 0.01, 0.01, 0.01, 0.01])


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
async def test_a_transcription_has_text_and_usage(openai, valid, response_format):
    asked = {"model": "any", "file": ("talk.wav", b"x" * 48_000), "response_format": response_format}
    answer = valid(await openai.audio.transcriptions.create(**asked))
    assert answer.text == TEXT
    assert answer.usage is not None
    if response_format == "verbose_json":
        assert answer.duration == answer.segments[0].end == 1.0


async def test_a_transcription_may_be_plain_text(openai):
    file = ("talk.wav", b"x")
    assert await openai.audio.transcriptions.create(model="any", file=file, response_format="text") == TEXT + "\n"


async def test_a_transcription_is_streamed(openai, valid):
    stream = await openai.audio.transcriptions.create(model="any", file=("talk.wav", b"x"), stream=True)
    events = [valid(event) async for event in stream]
    assert [event.type for event in events] == ["transcript.text.delta"] * 5 + ["transcript.text.done"]
    assert events[-1].text == TEXT
