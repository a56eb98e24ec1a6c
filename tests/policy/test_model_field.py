"""The model that a body names: found where a JSON parser finds it, replaced without touching anything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.errors import BadRequest
from proxy.policy.model_field import find_model

JSON = b"application/json"

keys = st.text(max_size=8) | st.sampled_from(["model", "Model", 'a"model', "model\\", "\\", '"'])
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12) | st.just("model")
documents = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))
bodies = st.dictionaries(keys, documents, max_size=5)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\r\n\t", "\n:\t ")])


def models_of(document: dict[str, object]) -> list[object]:
    return [value for key, value in document.items() if key.lower() == "model"]


@given(bodies, st.text(max_size=20), separators, st.booleans(), st.integers(0, 5))
def test_agrees_with_json(document, model, between, ascii_only, place):
    others = [(key, value) for key, value in document.items() if key.lower() != "model"]
    document = dict([*others[:place], ("model", model), *others[place:]])
    body = json.dumps(document, separators=between, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = find_model(body, JSON)
    assert found is not None
    assert found.value == model
    replaced = found.replaced(body, 'new "model" ü')
    assert json.loads(replaced) == document | {"model": 'new "model" ü'}
    assert list(json.loads(replaced)) == list(document)
    assert replaced.startswith(body[: found.start])
    assert replaced.endswith(body[found.end :])
    assert len(replaced) == len(body) - (found.end - found.start) + len('"new \\"model\\" ü"'.encode())


@given(bodies, separators, st.booleans())
def test_finds_one_plain_model_or_none_or_refuses(document, between, ascii_only):
    body = json.dumps(document, separators=between, ensure_ascii=ascii_only).encode()
    models = models_of(document)
    try:
        found = find_model(body, JSON)
    except BadRequest:
        assert len(models) > 1 or not isinstance(models[0], str)
    else:
        assert (found is None) == ("model" not in document)
        assert found is None or (found.value == document["model"] and len(models) == 1)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    try:
        find_model(body, JSON)
    except BadRequest:
        return
    assert isinstance(json.loads(body), dict)


FOUND: dict[str, tuple[bytes, str]] = {
    "first": (b'{"model":"m","n":1}', "m"),
    "last": (b'{"n":{"model":"nested"},"model":"m"}', "m"),
    "before a nested one": (b'{"model":"m","n":[{"model":"nested"}]}', "m"),
    "beside a value that reads model": (b'{"n":"model","model":"m"}', "m"),
    "beside a text that quotes one": (b'{"n":"{\\"model\\":\\"x\\"}","model":"m"}', "m"),
    "behind a text that ends in model": (b'{"n":"a\\"model","model":"m"}', "m"),
    "behind a backslash": (b'{"n":"\\\\","model":"m"}', "m"),
    "key in escapes": (b'{"\\u006dodel":"m"}', "m"),
    "value in escapes": (b'{"model":"\\u006d\\/\\n"}', "m/\n"),
    "value of other letters": ('{"model":"模型 🐤"}'.encode(), "模型 🐤"),
    "blanks all around": (b' \r\n{ "model"\t:\n "m" } ', "m"),
    "empty": (b'{"model":""}', ""),
}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("kind", [b"", JSON, b"application/json; charset=utf-8", b"application/vnd.x+json"])
def test_model_is_found(name, kind):
    body, model = FOUND[name]
    found = find_model(body, kind)
    assert found is not None
    assert found.value == model
    assert json.loads(found.replaced(body, "new")) == json.loads(body) | {"model": "new"}


REFUSED: dict[str, bytes] = {
    "twice": b'{"model":"a","model":"b"}',
    "twice, once in escapes": b'{"model":"a","\\u006dodel":"b"}',
    "twice, once in capitals": b'{"model":"a","MODEL":"b"}',
    "twice, capitals first": b'{"Model":"a","model":"b"}',
    "number": b'{"model":1}',
    "null": b'{"model":null}',
    "object": b'{"model":{"model":"a"}}',
    "list": b'{"model":["a"]}',
    "no JSON": b"model=a",
    "half of it": b'{"model":"a"',
    "something behind it": b'{"model":"a"}{"model":"b"}',
    "list of documents": b'[{"model":"a"}]',
    "text": b'"model"',
    "nothing": b"",
    "byte order mark": b'\xef\xbb\xbf{"model":"a"}',
    "UTF-16": '{"model":"a"}'.encode("utf-16"),
    "broken UTF-8": b'{"model":"a\xff"}',
    "nested without end": b'{"a":' + b"[" * 100_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_cannot_be_known_is_refused(name):
    with pytest.raises(BadRequest):
        find_model(REFUSED[name], JSON)


@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-www-form-urlencoded", b"audio/wav"])
def test_other_bodies_name_no_model(kind):
    assert find_model(b'{"model":"a"}', kind) is None


# --- multipart -----------------------------------------------------------------------------------------------------

FORM = b"multipart/form-data; boundary=b0"


def part(name: bytes, content: bytes) -> bytes:
    return b"--b0\r\nContent-Disposition: form-data; name=%b\r\n\r\n%b\r\n" % (name, content)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b0--\r\n"


AUDIO = part(b'"file"; filename="a.wav"', b"\x00\r\n--b\r\nmodel\xff")


@given(st.text("abcdefghij-./:", max_size=40).map(str.encode), st.binary(max_size=200))
def test_part_is_found_and_only_its_content_replaced(model, audio):
    audio = audio.replace(b"--b0", b"")
    body = form(part(b'"file"; filename="a"', audio), part(b'"model"', model), part(b"n", b"1"))
    found = find_model(body, FORM)
    assert found is not None
    assert found.value.encode() == model
    assert found.replaced(body, "new") == form(
        part(b'"file"; filename="a"', audio), part(b'"model"', b"new"), part(b"n", b"1")
    )


FORMS: dict[str, tuple[bytes, bytes, str | None]] = {
    "quoted boundary": (b'Multipart/Form-Data; charset=x; Boundary="b0"', form(part(b'"model"', b"m")), "m"),
    "bare name": (FORM, form(part(b"model", b"m"), AUDIO), "m"),
    "name in capitals": (FORM, form(part(b'"Model"', b"m")), "m"),
    "more fields in the head": (
        FORM,
        form(AUDIO, part(b'"model"\r\nContent-Type: text/plain', b"m")),
        "m",
    ),
    "preamble": (
        FORM,
        b"ignored --b0\r\n" + form(part(b'"model"', b"m"))[0:0] + b"x\r\n" + form(part(b"model", b"m")),
        "m",
    ),
    "blanks behind the boundary": (FORM, form(part(b"model", b"m")).replace(b"--b0\r\n", b"--b0 \t\r\n", 1), "m"),
    "no such part": (FORM, form(AUDIO, part(b'"models"', b"m")), None),
    "file called model": (FORM, form(part(b'"file"; filename="model"', b"m")), None),
}


@pytest.mark.parametrize("name", FORMS)
def test_part_is_found(name):
    kind, body, model = FORMS[name]
    found = find_model(body, kind)
    assert (found and found.value) == model


REFUSED_FORMS: dict[str, tuple[bytes, bytes]] = {
    "twice": (FORM, form(part(b"model", b"a"), part(b"model", b"b"))),
    "twice, once in capitals": (FORM, form(part(b"model", b"a"), part(b"MODEL", b"b"))),
    "no boundary": (b"multipart/form-data", form(part(b"model", b"a"))),
    "two boundaries": (FORM + b"; boundary=b1", form(part(b"model", b"a"))),
    "no end": (FORM, part(b"model", b"a")),
    "hidden behind what is nearly a boundary": (
        FORM,
        form(part(b"model", b"a"), b'--b0x\r\nContent-Disposition: form-data; name="n"\r\n', part(b"model", b"b")),
    ),
    "part without a head": (FORM, form(b"--b0\r\nContent-Disposition: form-data; name=model\r\n")),
    "two names": (FORM, form(part(b'"n"; name="model"', b"a"))),
    "two dispositions": (FORM, form(part(b'"n"\r\nContent-Disposition: form-data; name="model"', b"a"))),
    "name on a folded line": (FORM, form(part(b'"n";\r\n name="model"', b"a"))),
    "name behind a bare LF": (FORM, form(part(b'"n"\nContent-Disposition: form-data; name="model"', b"a"))),
    "extended name": (FORM, form(b"--b0\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\na\r\n")),
    "name with a backslash": (FORM, form(part(b'"mod\\el"', b"a"))),
    "long model": (FORM, form(part(b"model", b"a" * 300))),
    "8-bit model": (FORM, form(part(b"model", b"\xe9"))),
}


@pytest.mark.parametrize("name", REFUSED_FORMS)
def test_part_that_cannot_be_known_is_refused(name):
    kind, body = REFUSED_FORMS[name]
    with pytest.raises(BadRequest):
        find_model(body, kind)


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest):
        find_model(b'{"\x80odel":"m"}', b"application/json")
    assert find_model('{"model":"m","text":"ä"}'.encode(), b"application/json").value == "m"
