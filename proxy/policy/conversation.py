"""Which conversation a request is of, as far as its caller says: those of one are to stay with one arm.

Vendors ask for an id of the user or of the prompt's cache, and route by it themselves; what a caller sends for them is
as good here. Of several the one counts that changes least within a conversation.
Source: https://platform.openai.com/docs/guides/prompt-caching (`prompt_cache_key`), /docs/guides/safety-best-practices
(`safety_identifier`, once `user`), https://docs.anthropic.com/en/api/messages (`metadata.user_id`)
"""

import msgspec

from proxy.policy.fields import Pair

SESSION = b"x-session-id"


class _Body(msgspec.Struct):
    prompt_cache_key: msgspec.Raw = msgspec.Raw()
    safety_identifier: msgspec.Raw = msgspec.Raw()
    user: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    previous_response_id: msgspec.Raw = msgspec.Raw()


_body = msgspec.json.Decoder(_Body)


def conversation(passed: list[Pair], body: bytes) -> str | None:
    """Its id; None for a request that says nothing of any."""
    for name, value in passed:
        if name.lower() == SESSION and value:
            return value.decode("latin-1")
    try:
        said = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # no JSON object: it says nothing
        return None
    found = (said.prompt_cache_key, said.safety_identifier, said.user)
    return next(filter(None, map(_text, (*found, _member(said.metadata), said.previous_response_id))), None)


def _text(raw: bytes | msgspec.Raw) -> str | None:
    """Of a JSON string; None for anything else."""
    try:
        return msgspec.json.decode(raw, type=str) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _member(raw: msgspec.Raw) -> bytes:
    try:
        return bytes(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get("user_id", b"")) if raw else b""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b""
