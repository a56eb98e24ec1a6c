"""Where a request body names its model: the value, and the very bytes that hold it.

An allow-list is only as good as the agreement between who checks and who serves. JSON with two `model` keys, or the key
spelt with escapes or in capitals, is read one way here and another way there. So where the model decides, it must be
there once and plain to see, or the request is refused; and where it is replaced, exactly its bytes are, and no others.
"""

import json
import re
from dataclasses import dataclass

import msgspec

from proxy.model.errors import BadRequest


@dataclass(frozen=True, slots=True)
class ModelField:
    """The model's name, and the span of the bytes that stand for it in the body (a JSON string with its quotes)."""

    value: str
    start: int
    end: int
    quoted: bool

    def replaced(self, body: bytes, model: str) -> bytes:
        """The body with `model` in this field's place, every other byte as it was."""
        text = json.dumps(model, ensure_ascii=False) if self.quoted else model
        return body[: self.start] + text.encode() + body[self.end :]


_CHARSET = re.compile(rb"charset[ \t]*=[ \t]*[\"']?([^\"'; \t]*)", re.IGNORECASE)
_OTHERS = ("models", "fallbacks")  # OpenRouter's and LiteLLM's: models to try instead


def names_others(body: bytes) -> bool:
    """Does a JSON body name models to fall back to?"""
    try:
        return any(key.lower() in _OTHERS for key in msgspec.json.decode(body, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # it is no JSON object


def is_readable(content_type: bytes) -> bool:
    """Can a body of this type be looked into for its model?"""
    kind = content_type.partition(b";")[0].strip().lower()
    return not kind or b"json" in kind or kind == b"multipart/form-data"


def find_model(body: bytes, content_type: bytes) -> ModelField | None:
    """The model that `body` names; None where it names none. Raises BadRequest where it cannot be known for certain."""
    kind, _, parameters = content_type.partition(b";")
    kind = kind.strip().lower()
    if kind == b"multipart/form-data":
        return _in_form(body, parameters)
    charset = _CHARSET.search(parameters)
    if charset is not None and charset[1].lower() not in (b"utf-8", b"utf8", b"us-ascii"):
        raise BadRequest("The body must be in UTF-8, for its model must be known to send it on.")
    return _in_json(body) if is_readable(content_type) else None


class _Peek(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw(b"")


_PEEK = msgspec.json.Decoder(_Peek)
_PLAIN = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)
# The end of a short key with an escape of ASCII in it: it might read `model`. Bounded, for callers write long texts.
_ESCAPED_KEY = re.compile(rb'\\u00[0-9A-Fa-f]{2}[^"]{0,24}"[ \t\r\n]*:')
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")


def _in_json(body: bytes) -> ModelField | None:
    try:
        if not body.isascii():
            body.decode()  # msgspec skips over what is no UTF-8 where nobody asks for it
        peek = _PEEK.decode(body)  # also proves that all of the body is one valid JSON object
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("The body must be one valid JSON object, for its model decides where it goes.") from None
    if not bytes(peek.model):
        return None
    # Nearly always: then it can only be that one. In lower case, for Go's encoding/json takes "Model" for it too.
    if body.lower().count(b'"model"') == 1 and _ESCAPED_KEY.search(body) is None:
        found = _PLAIN.search(body)
        spans = [] if found is None else [found.span(1)]
    else:
        spans = _top_level_models(body)
    if len(spans) != 1:
        raise BadRequest("The body must name its model exactly once, as a string.", param="model")
    start, end = spans[0]
    return ModelField(_text(body[start:end]), start, end, quoted=True)


def _top_level_models(body: bytes) -> list[tuple[int, int]]:
    """The spans of the values of all keys that read `model`, in any case, in the outermost object of valid JSON."""
    spans, depth = [], 0
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
        elif depth == 1 and (colon := _COLON.match(body, token.end())) and _text(token[0]).lower() == "model":
            value = _TOKEN.match(body, colon.end())
            if value is None or body[value.start()] != ord('"'):
                raise BadRequest("The model must be a string.", param="model")
            spans.append(value.span())
    return spans


def _text(token: bytes) -> str:
    try:
        return msgspec.json.decode(token, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("The model must be a string.", param="model") from None


_BOUNDARY = re.compile(rb'boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_DISPOSITION = re.compile(rb"\r\ncontent-disposition:([^\r]*)", re.IGNORECASE)
_PART_NAME = re.compile(rb'[; \t]name(\*?)=(?:"([^"]*)"|([^\s;"]*))', re.IGNORECASE)
_ODD_LINES = re.compile(rb"\r\n[ \t]|\r(?!\n)|(?<!\r)\n|\x00")  # folded, or ended in ways that not all take for an end
_MAX_MODEL_BYTES = 256


def _in_form(body: bytes, parameters: bytes) -> ModelField | None:
    """The part called `model` of a multipart/form-data body (RFC 7578)."""
    found = []
    for start, end in _parts(body, parameters):
        head_end = body.find(b"\r\n\r\n", start, end)
        if head_end < 0:
            raise BadRequest("The multipart body has a part without a head.")
        if _part_name(body[start:head_end]) == b"model":
            value = body[head_end + 4 : end]
            if not value.isascii() or len(value) > _MAX_MODEL_BYTES:
                raise BadRequest("The part `model` must be a short plain text.", param="model")
            found.append(ModelField(value.decode(), head_end + 4, end, quoted=False))
    if len(found) > 1:
        raise BadRequest("The body must name its model exactly once.", param="model")
    return found[0] if found else None


def _parts(body: bytes, parameters: bytes) -> list[tuple[int, int]]:
    """The spans of the parts, each from the CRLF that ends its delimiter to the one that begins the next."""
    boundaries = _BOUNDARY.findall(parameters)
    if len(boundaries) != 1:
        raise BadRequest("The multipart body must name one boundary.")
    boundary = re.escape(boundaries[0][0] or boundaries[0][1])
    spans, start = [], -1
    for delimiter in re.finditer(rb"(?:\A|\r\n)--" + boundary + rb"(?:(--)|[ \t]*(?=\r\n))?", body):
        if start >= 0:
            spans.append((start, delimiter.start()))
        if delimiter[1]:
            return spans
        start = delimiter.end()
        if body[start : start + 2] != b"\r\n":
            raise BadRequest("The multipart body has a line that is nearly its boundary.")
    raise BadRequest("The multipart body has no end.")


def _part_name(head: bytes) -> bytes:
    """What a part is called. Raises BadRequest where others might read another name."""
    dispositions = _DISPOSITION.findall(head)
    names = _PART_NAME.findall(dispositions[0]) if dispositions else []
    if len(dispositions) > 1 or len(names) > 1 or _ODD_LINES.search(head):
        raise BadRequest("The multipart body has a part whose name is not plain.")
    if not names:
        return b""
    extended, quoted, bare = names[0]
    if extended or b"\\" in quoted:
        raise BadRequest("The multipart body has a part whose name is not plain.")
    name: bytes = quoted or bare
    return name.lower()
