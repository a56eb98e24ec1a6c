"""What an operator says about who may call: by which keys they are known, and what they may use."""

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from proxy.model.client_keys import key_hash, parse_key_hash
from proxy.model.limit_settings import ClientLimits
from proxy.model.quantities import Moment, Name
from proxy.model.record import Record, SecretText, listed
from proxy.model.secret import Secret


def _key_hash(value: str) -> str:
    return key_hash(*parse_key_hash(value))


KeyHash = Annotated[
    str, AfterValidator(_key_hash), Field(json_schema_extra={"pattern": "^(hmac-)?sha256:[0-9A-Fa-f]{64}$"})
]
KeyHashes = Annotated[
    tuple[KeyHash, ...], BeforeValidator(listed, json_schema_input_type=KeyHash | tuple[KeyHash, ...])
]
ModelGlobs = tuple[Annotated[str, Field(min_length=1)], ...]


class Client(Record):
    """Someone who may call, known by a key."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [x]} for x in ("key", "keys", "key_hash")]})

    name: Name = Field(description="How logs and metrics call this client.")
    key: SecretText | None = Field(None, description="Its key: env:NAME, file:/path, or (with a warning) plain text.")
    key_list: tuple[SecretText, ...] = Field((), alias="keys", description="Several keys that are valid side by side.")
    key_hashes: KeyHashes = Field(
        (),
        alias="key_hash",
        description="What is kept of its key, as `serinus clients new` prints it: hmac-sha256: or sha256: and 64 hex "
        "digits; or a list: no secret here.",
    )
    models: ModelGlobs | None = Field(None, description="The models it may use, as globs such as gpt-*. Absent: all.")
    limits: ClientLimits = Field(default_factory=ClientLimits, description="How much it may use.")
    expires_s: Moment | None = Field(
        None, alias="expires", description="From then on its keys are refused: 2027-01-31, or 2027-01-31T18:00:00Z."
    )

    @model_validator(mode="after")
    def _is_known_by_something(self) -> Self:
        if self.key is not None and self.key_list:
            raise ValueError("key and keys are both there: put all of them under keys")
        if not (self.keys or self.key_hashes):
            raise ValueError("a client needs a key: write key: env:NAME, or key_hash: sha256:…")
        return self

    @property
    def keys(self) -> tuple[Secret, ...]:
        """All keys that are held in the clear, whether under `key` or `keys`."""
        return self.key_list if self.key is None else (self.key,)
