"""Whom to ask: a base URL, a model, and the key if one is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.benchmark.dialects import Dialect, Message

SECRET_LEAST = 8  # characters: no shorter word of a header can be one


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Two of them are never the same, so that one can be measured against itself."""

    name: str
    base_url: str  # as an SDK would be given it
    model: str
    key: str | None = field(repr=False)  # None: none is sent
    dialect: Dialect
    headers: Mapping[str, str]  # beside the dialect's own
    fields: Mapping[str, Any]  # of the body, in place of the dialect's own; None takes one out

    @property
    def url(self) -> str:
        base, path = self.base_url.rstrip("/"), self.dialect.path
        return base + (path.removeprefix("/v1") if base.endswith("/v1") else path)

    @property
    def all_headers(self) -> dict[str, str]:
        return {**self.dialect.headers(self.key), **self.headers}

    def body(self, messages: Sequence[Message], tokens: int, *, stream: bool) -> bytes:
        body = self.dialect.body(self.model, messages, tokens, stream=stream) | dict(self.fields)
        return msgspec.json.encode({name: value for name, value in body.items() if value is not None})

    def without_secrets(self, text: str) -> str:
        """What a peer said, who may have repeated what it was sent."""
        words = [word for value in self.headers.values() for word in value.split() if len(word) >= SECRET_LEAST]
        for secret in sorted([self.key or "", *words], key=len, reverse=True):
            text = text.replace(secret, "***") if secret else text
        return text
