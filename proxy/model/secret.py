"""A secret that can be held and used but not shown: whatever prints it prints its fingerprint."""

from hashlib import sha256


def fingerprint(value: str) -> str:
    """The first 8 hex digits of the value's SHA-256: enough to tell two secrets apart, useless to guess one."""
    return sha256(value.encode()).hexdigest()[:8]


class Secret:
    """A credential in memory. `reveal()` is the only way to its text."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    @property
    def fingerprint(self) -> str:
        return fingerprint(self._value)

    def __repr__(self) -> str:
        return f"<secret {self.fingerprint}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")
