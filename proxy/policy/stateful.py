"""What an upstream made and keeps, and how later calls refer to it: `/responses/resp_1`, `previous_response_id`, files.

Only who made a thing knows it. The proxy reads ids off the answers that hand them out and off the calls that bring them
back; it adds nothing to them, for an application may look at what it stores.
"""

import re
import zlib

ID = rb"[A-Za-z0-9_.:=-]{1,512}"
LOOKED_AT_BYTES = 16 * 1024  # of an answer: its id stands near its beginning
MAX_IDS_AN_ANSWER = 8

_COLLECTION = (
    rb"(?:responses|conversations|files|uploads|batches|threads|runs|assistants|vector_stores|containers|videos|evals"
    rb"|fine_tuning/jobs|skills)"
)
_OPERATION = rb"(?:runs|compact|input_tokens|search)(?:/|$)"  # in the place of an id
_ID_IN_PATH = re.compile(rb"/(?:%b|chat/completions)/(?!%b)(%b)(?=/|$)" % (_COLLECTION, _OPERATION, ID))
_CREATES = re.compile(rb"/%b$" % _COLLECTION)
_MAY_STORE = re.compile(rb"/chat/completions$")
# A quote inside a JSON string is escaped, so this finds keys and nothing that only looks like one.
_ID_IN_BODY = re.compile(
    rb'"(?:[a-z_]+_ids?|conversation|container|id)"[ \t\r\n]*:[ \t\r\n]*(?:\[[ \t\r\n]*)?"(%b)"' % ID
)
_MARKS = (b"_id", b'"conversation"', b'"container"')  # no body has an id without one of them, and most have none
_ID_IN_ANSWER = re.compile(  # messages are never called for without their thread, and are many
    rb'"(?:id|thread_id|file_id|output_file_id|error_file_id)"[ \t\r\n]*:[ \t\r\n]*"(?!msg_)(%b)"' % ID
)


def ids_in_path(target: bytes) -> tuple[bytes, ...]:
    """The ids of kept things in a request's path."""
    return tuple(_ID_IN_PATH.findall(target.partition(b"?")[0]))


def ids_in_body(body: bytes) -> list[bytes]:
    """What may be ids of kept things in a JSON body."""
    return _ID_IN_BODY.findall(body) if any(mark in body for mark in _MARKS) else []


def hands_out(method: bytes, target: bytes) -> bool:
    """Does the answer to this call hand out an id? What is asked about a kept thing may: a batch names its files."""
    path = target.partition(b"?")[0]
    if method == b"POST" and _CREATES.search(path) is not None:
        return True
    return method in (b"GET", b"POST") and bool(ids_in_path(path)) and not path.endswith(b"/content")


def may_store(method: bytes, target: bytes) -> bool:
    """Does it where its body says `store`?"""
    return method == b"POST" and _MAY_STORE.search(target.partition(b"?")[0]) is not None


def ids_in_answer(payload: bytes) -> list[bytes]:
    """The ids that the beginning of an answer's body hands out: a JSON object's or the first events of a stream."""
    if payload.startswith(b"\x1f\x8b"):
        payload = _unpacked(payload)
    return _ID_IN_ANSWER.findall(payload)[:MAX_IDS_AN_ANSWER]


def _unpacked(payload: bytes) -> bytes:
    """As much of a gzip stream as its beginning tells, bounded."""
    try:
        return zlib.decompressobj(wbits=31).decompress(payload, LOOKED_AT_BYTES)
    except zlib.error:
        return b""
