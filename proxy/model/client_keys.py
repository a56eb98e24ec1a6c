"""The keys that callers show: what an issued one looks like, and what is kept of it instead of its text.

A key is `srn_`, 32 random base62 characters and 6 that check the rest. The prefix lets scanners of public code find one
that leaked; the check lets us say "mistyped" rather than "unknown" without asking anybody. Letters and digits only: a
double click selects all of it, and no shell or URL bends it.
Source of the form: https://github.blog/2021-04-05-behind-githubs-new-authentication-token-formats/

Kept is only a digest. The keys have 190 bits, so a plain SHA-256 gives nobody a way back; a slow hash, right for
passwords, would cost every request what it costs a guesser. Clients may also be listed with keys of their own making,
which can be guessed: a pepper that is stored elsewhere makes a stolen list of digests worthless for these as well.
"""

import hmac
import re
import zlib
from hashlib import sha256

PREFIX = "srn_"
NEEDED_BYTES = 32  # of chance for a key: 62**32 stands for 190.5 bits
PLAIN, PEPPERED = "sha256:", "hmac-sha256:"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARACTERS = 32
_CHECK_CHARACTERS = 6  # 62**6 > 2**32
_FORM = re.compile(rf"({PREFIX}[0-9A-Za-z]{{{_RANDOM_CHARACTERS}}})([0-9A-Za-z]{{{_CHECK_CHARACTERS}}})")
_HEX = re.compile("[0-9A-Fa-f]{64}")
_WRITE = "write sha256: or hmac-sha256: and the 64 hex digits behind it, as `serinus clients new NAME` prints them"


def new_key(random_bytes: bytes) -> str:
    """A key made of at least NEEDED_BYTES fresh bytes of a cryptographic source. Raises ValueError for fewer.

    The bytes are read as one number, whose last 32 digits to the base 62 are taken. With 32 bytes the likeliest key is
    likelier than the rarest by a part in 2**65: no bias that anybody could see or use.
    """
    if len(random_bytes) < NEEDED_BYTES:
        raise ValueError(f"a key needs at least {NEEDED_BYTES} random bytes, got {len(random_bytes)}")
    body = PREFIX + _base62(int.from_bytes(random_bytes, "big"), _RANDOM_CHARACTERS)
    return body + _check(body)


def is_well_formed(text: str) -> bool:
    """Is this a key as they are issued, check and all? If not, it was mistyped, cut, or never one of ours.

    It says nothing about whether the key is valid. One wrong character is always noticed, of other mistakes all but one
    in 2**32.
    """
    found = _FORM.fullmatch(text)
    return found is not None and found[2] == _check(found[1])


def digest(key: bytes, pepper: bytes | None) -> bytes:
    """What is kept of a key, 32 bytes: HMAC-SHA-256 (RFC 2104) under the pepper, plain SHA-256 where there is none.

    Raises ValueError for an empty pepper, which protects nothing and looks as if it did.
    """
    if pepper is None:
        return sha256(key).digest()
    if not pepper:
        raise ValueError("the client pepper is empty: give it at least a byte, better 32 random ones, or set none")
    return hmac.digest(pepper, key, "sha256")


def key_hash(digest: bytes, peppered: bool) -> str:
    """A digest as a configuration has it. Raises ValueError for what is no digest."""
    if len(digest) != sha256().digest_size:
        raise ValueError(f"a digest has {sha256().digest_size} bytes, got {len(digest)}")
    return (PEPPERED if peppered else PLAIN) + digest.hex()


def parse_key_hash(text: str) -> tuple[bytes, bool]:
    """The digest that a configuration has, and whether it was made with a pepper.

    Raises ValueError, which never repeats the text: people put the key itself where its hash belongs.
    """
    scheme, colon, digits = text.partition(":")
    if text.startswith(PREFIX):
        raise ValueError(f"this looks like a key, not like the hash of one: {_WRITE}")
    if scheme + colon not in (PLAIN, PEPPERED):
        raise ValueError(f"a key hash begins with sha256: or hmac-sha256:, and this one does not: {_WRITE}")
    if not _HEX.fullmatch(digits):
        raise ValueError(f"{len(digits)} characters behind {scheme}: are no 64 hex digits: {_WRITE}")
    return bytes.fromhex(digits), scheme + colon == PEPPERED


def _check(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    """The last so many digits of a number, with leading zeros."""
    digits = []
    for _ in range(characters):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
