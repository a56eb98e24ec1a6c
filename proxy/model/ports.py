"""What the words need from the rooms above, as protocols: the words themselves read no file and no environment."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from proxy.model.secret import Secret


@runtime_checkable
class SecretResolver(Protocol):
    """Turns what the configuration says about a secret (`env:NAME`, `file:/path`) into the secret.

    Handed to pydantic as the validation's `context`. A `ValueError` from `resolve` becomes the error an operator reads:
    its text names the place that was looked at, never the value.
    """

    def resolve(self, text: str) -> Secret: ...


@runtime_checkable
class Locator(Protocol):
    """Optional second face of the context: says where a relative path of the configuration points to."""

    def locate(self, path: Path) -> Path: ...
