"""Sealed values: secrets that a file may hold, because only a master key opens them.

A sealed value is `sealed:v1:KEY_ID:` and, in base64url without padding,

    mark of the purpose 16 | nonce 12 | data key 32 + tag 16 | nonce 12 | the value in UTF-8 + tag 16

A fresh data key encrypts the value, the master key encrypts ("wraps") the data key, both by AES-256-GCM with random
nonces. So a new master key takes over by wrapping data keys anew, and values stay as they are. What they are bound to
(additional authenticated data) is, for the value, version and purpose; for the data key, version, key id and the mark.
The value is not bound to the key id, which changes where it does not. The mark is what tells a wrong purpose from
damage, for it is known to be whole once the data key is open. A value's length can be seen.

A purpose is a word for the use of a value, and a value opens for no other. Those in configurations have "config",
wherever they stand, so that they can be moved and copied as YAML is; what Serinus keeps of its own is bound to the one
thing that it is for, as in "key:UPSTREAM/NAME", for nobody moves it but by tampering. Sealing keeps a secret from who
reads a file. Who writes a configuration can name an upstream of his own beside a sealed value, whatever it is bound to.
Source: NIST SP 800-38D, whose 8.3 allows 2**32 random nonces for a key: so many values for a master key.
"""

import re
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from secrets import token_bytes
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MASTER_KEY_VARIABLE = "SERINUS_MASTER_KEY"
CONFIG_PURPOSE = "config"

_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_MARK_BYTES = 16
_WRAPPED_BYTES = _NONCE_BYTES + _KEY_BYTES + _TAG_BYTES
_LEAST_BYTES = _MARK_BYTES + _WRAPPED_BYTES + _NONCE_BYTES + _TAG_BYTES

# One label for each use of a hash or cipher: what one use puts out never passes for another's.
_ID_LABEL = b"serinus master key id\0"
_MARK_LABEL = b"serinus sealed v1 purpose\0"
_WRAP_LABEL = b"serinus sealed v1 data key\0"
_VALUE_LABEL = b"serinus sealed v1 value\0"

_SEALED = re.compile(r"sealed:v1:([0-9a-f]{8}):([0-9A-Za-z_-]+)")
_VERSION = re.compile(r"sealed:(v[0-9]{1,3}):")
_HEX = re.compile(r"[0-9A-Fa-f]{64}")


class Unreadable(ValueError):
    """A sealed value that does not open. The message says why and what to do, and holds no part of it."""


class MasterKey:
    """Wraps and unwraps data keys. It is known by its id, and nothing shows more of it."""

    __slots__ = ("_cipher", "key_id")

    def __init__(self, key: bytes) -> None:
        """Raises ValueError unless there are 32 bytes."""
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a master key has {_KEY_BYTES} bytes, not {len(key)}")
        self.key_id = sha256(_ID_LABEL + key).hexdigest()[:8]
        self._cipher = AESGCM(key)

    @classmethod
    def parse(cls, text: str) -> "MasterKey":
        """From base64, or from 64 hex digits. Raises ValueError, which does not show the text."""
        key = _key_in(text.strip())
        if key is None:
            raise ValueError(
                f"no master key: it has to be {_KEY_BYTES} random bytes in base64: openssl rand -base64 32"
            )
        return cls(key)

    @classmethod
    def parse_all(cls, text: str) -> tuple["MasterKey", ...]:
        """Several, separated by commas or white space, in their order. Raises ValueError, which counts from 1."""
        keys: list[MasterKey] = []
        words = text.replace(",", " ").split()
        for place, word in enumerate(words, 1):
            try:
                keys.append(cls.parse(word))
            except ValueError as error:
                which = f"number {place} of {len(words)}: " if len(words) > 1 else ""
                raise ValueError(f"{which}{error}") from None
        return tuple(keys)

    def wrap(self, data_key: bytes, mark: bytes) -> bytes:
        return _encrypted(self._cipher, data_key, self._bound_to(mark))

    def unwrap(self, wrapped: bytes, mark: bytes) -> bytes | None:
        """The data key; None if another master key wrapped it, for another mark, or if it is damaged."""
        return _decrypted(self._cipher, wrapped, self._bound_to(mark))

    def _bound_to(self, mark: bytes) -> bytes:
        return _WRAP_LABEL + self.key_id.encode() + mark

    def __repr__(self) -> str:
        return f"<master key {self.key_id}>"

    def __reduce__(self) -> str:
        raise TypeError("a master key is not pickled")


class Vault:
    """Seals under the first master key, opens with any."""

    __slots__ = ("_master_keys",)

    def __init__(self, master_keys: Sequence[MasterKey]) -> None:
        """Raises ValueError if there is no key."""
        if not master_keys:
            raise ValueError(f"no master key: set {MASTER_KEY_VARIABLE}, or name a file that holds one")
        self._master_keys = tuple(master_keys)

    @property
    def key_id(self) -> str:
        """The id of the master key that writes."""
        return self._master_keys[0].key_id

    @staticmethod
    def is_sealed(text: str) -> bool:
        """Is it meant to be a sealed value, whether it opens or not?"""
        return text.startswith("sealed:")

    def seal(self, plaintext: str, purpose: str) -> str:
        """Another text each time. Raises ValueError for what is no text: lone surrogates, Python's for broken UTF-8."""
        if any("\ud800" <= character <= "\udfff" for character in plaintext):
            raise ValueError("the value is no text: give it as UTF-8")
        first, mark, data_key = self._master_keys[0], _mark(purpose), token_bytes(_KEY_BYTES)
        value = _encrypted(AESGCM(data_key), plaintext.encode(), _VALUE_LABEL + purpose.encode())
        return str(_Envelope(first.key_id, mark, first.wrap(data_key, mark), value))

    def unseal(self, text: str, purpose: str) -> str:
        """Raises Unreadable."""
        plain = _text_in(self._open(_Envelope.parse(text), purpose).plain)
        if plain is None:
            raise Unreadable("what is sealed is no text: seal the value again, as UTF-8")
        return plain

    def rewrap(self, text: str, purpose: str) -> str:
        """The same value, with its data key under the first master key; `text` itself where that is so already.

        Raises Unreadable for all that `unseal` would not open: once the old master key is thrown away, it is too late.
        """
        envelope, first = _Envelope.parse(text), self._master_keys[0]
        opened = self._open(envelope, purpose)
        if opened.master_key is first:
            return text
        wrapped = first.wrap(opened.data_key, envelope.mark)
        return str(envelope._replace(key_id=first.key_id, wrapped=wrapped))

    def _open(self, envelope: "_Envelope", purpose: str) -> "_Opened":
        # By chance, two master keys may have one id.
        candidates = [key for key in self._master_keys if key.key_id == envelope.key_id]
        if not candidates:
            at_hand = ", ".join(dict.fromkeys(key.key_id for key in self._master_keys))
            raise Unreadable(
                f"sealed under master key {envelope.key_id}, and at hand is {at_hand}: "
                "add that master key behind the first, or seal the value again"
            )
        for master_key in candidates:
            data_key = master_key.unwrap(envelope.wrapped, envelope.mark)
            if data_key is not None:
                break
        else:
            raise _damaged()
        if envelope.mark != _mark(purpose):
            raise Unreadable(
                f"sealed for another purpose than {purpose!r}: seal the value again, with --purpose {purpose}"
            )
        plain = _decrypted(AESGCM(data_key), envelope.value, _VALUE_LABEL + purpose.encode())
        if plain is None:
            raise _damaged()
        return _Opened(master_key, data_key, plain)


class _Envelope(NamedTuple):
    """A sealed value in its parts; those that are encrypted begin with their nonce."""

    key_id: str
    mark: bytes
    wrapped: bytes
    value: bytes

    @classmethod
    def parse(cls, text: str) -> "_Envelope":
        """Raises Unreadable. No part of the text is shown, for it may be a secret that was never sealed."""
        if not Vault.is_sealed(text):
            raise Unreadable("not a sealed value: paste the whole line that `serinus seal` prints")
        if (version := _VERSION.match(text)) and version[1] != "v1":
            raise Unreadable(
                f"sealed in format {version[1]}, and this Serinus reads v1: run a newer one, or seal the value again"
            )
        if not (found := _SEALED.fullmatch(text)):
            raise _damaged()
        content = _bytes_in(found[2])
        if content is None or len(content) < _LEAST_BYTES:
            raise _damaged()
        wrapped_end = _MARK_BYTES + _WRAPPED_BYTES
        return cls(found[1], content[:_MARK_BYTES], content[_MARK_BYTES:wrapped_end], content[wrapped_end:])

    def __str__(self) -> str:
        return f"sealed:v1:{self.key_id}:{_base64url(self.mark + self.wrapped + self.value)}"


class _Opened:
    """What came out of an envelope. A class of its own, and no tuple, so that nothing prints it."""

    __slots__ = ("data_key", "master_key", "plain")

    def __init__(self, master_key: MasterKey, data_key: bytes, plain: bytes) -> None:
        self.master_key = master_key
        self.data_key = data_key
        self.plain = plain


def new_master_key() -> str:
    """The text of a fresh one."""
    return b64encode(token_bytes(_KEY_BYTES)).decode()


def _damaged() -> Unreadable:
    return Unreadable(
        "damaged, a part is missing or was changed: paste the whole line that `serinus seal` prints, on one line"
    )


def _mark(purpose: str) -> bytes:
    return sha256(_MARK_LABEL + purpose.encode()).digest()[:_MARK_BYTES]


def _encrypted(cipher: AESGCM, plain: bytes, bound_to: bytes) -> bytes:
    nonce = token_bytes(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, bound_to)


def _decrypted(cipher: AESGCM, encrypted: bytes, bound_to: bytes) -> bytes | None:
    try:
        return cipher.decrypt(encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:], bound_to)
    except InvalidTag:
        return None


# These give None where they could raise: Python's errors carry the text that they stumbled over, and whatever is raised
# while one is handled keeps it as its context, `from None` or not.


def _key_in(text: str) -> bytes | None:
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    try:
        key = b64decode(text, validate=True)
    except ValueError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _text_in(plain: bytes) -> str | None:
    try:
        return plain.decode()
    except UnicodeDecodeError:
        return None


def _bytes_in(text: str) -> bytes | None:
    try:
        content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return content if _base64url(content) == text else None  # the last digit has bits that decoding ignores


def _base64url(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()
