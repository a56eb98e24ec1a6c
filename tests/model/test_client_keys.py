"""Keys as they are issued, and the digests that are kept of them."""

import hashlib
import hmac
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.client_keys import NEEDED_BYTES, digest, is_well_formed, key_hash, new_key, parse_key_hash

BASE62 = string.digits + string.ascii_letters
KEYS = st.binary(min_size=NEEDED_BYTES, max_size=NEEDED_BYTES).map(new_key)
KEY = new_key(bytes(range(NEEDED_BYTES)))


# --- the form of a key ---------------------------------------------------------------------------------------------


def test_form_of_a_key_never_changes():
    """Keys are out there for years: each one issued must stay well-formed."""
    assert KEY == "srn_jlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf4cAOFq"
    assert new_key(bytes(NEEDED_BYTES)) == "srn_" + "0" * 32 + "0KBbdf"
    assert is_well_formed(KEY)


@given(KEYS)
def test_every_key_is_well_formed(key):
    assert len(key) == 42
    assert key.startswith("srn_")
    assert set(key[4:]) <= set(BASE62)
    assert is_well_formed(key)


@given(st.binary(min_size=NEEDED_BYTES, max_size=NEEDED_BYTES), st.integers(0, NEEDED_BYTES - 1), st.integers(1, 255))
def test_each_byte_of_chance_matters(chance, at, change):
    other = bytearray(chance)
    other[at] ^= change
    assert new_key(bytes(other)) != new_key(chance)


def test_all_characters_are_used_alike():
    """Base 62 by `byte % 62` would give the first 8 characters a fifth more than their share."""
    chances = (hashlib.sha256(str(number).encode()).digest() for number in range(4000))
    drawn = "".join(new_key(chance)[4:36] for chance in chances)
    expected = len(drawn) / 62
    assert all(abs(drawn.count(character) - expected) < 0.12 * expected for character in BASE62)


def test_more_chance_is_welcome():
    assert is_well_formed(new_key(b"\xff" * 64))


@pytest.mark.parametrize("count", [0, 16, NEEDED_BYTES - 1])
def test_too_little_chance_makes_no_key(count):
    with pytest.raises(ValueError, match=f"at least 32 random bytes, got {count}"):
        new_key(bytes(count))


@given(KEYS, st.integers(0, 41), st.sampled_from(BASE62 + "-_ \n\xe9"))
def test_one_wrong_character_is_noticed(key, at, character):
    wrong = key[:at] + character + key[at + 1 :]
    assert is_well_formed(wrong) == (wrong == key)


@given(KEYS, st.integers(0, 40))
def test_two_swapped_neighbours_are_noticed(key, at):
    wrong = key[:at] + key[at + 1] + key[at] + key[at + 2 :]
    assert is_well_formed(wrong) == (wrong == key)


@given(KEYS, st.integers(0, 41))
def test_a_missing_or_doubled_character_is_noticed(key, at):
    assert not is_well_formed(key[:at] + key[at + 1 :])
    assert not is_well_formed(key[:at] + key[at] + key[at:])


@pytest.mark.parametrize("text", ["", "srn_", "sk-proj-abc", KEY + "\n", " " + KEY, KEY + KEY, KEY.upper()])
def test_what_is_none_of_ours_is_not_well_formed(text):
    assert not is_well_formed(text)


@given(st.text())
def test_no_text_is_well_formed_by_chance_or_raises(text):
    assert not is_well_formed(text)
    assert not is_well_formed("srn_" + text)


# --- digests -------------------------------------------------------------------------------------------------------


def test_without_a_pepper_it_is_plain_sha_256():
    assert digest(b"test", None) == hashlib.sha256(b"test").digest()


def test_with_a_pepper_it_is_hmac_sha_256():
    """RFC 4231, test case 2."""
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert digest(b"what do ya want for nothing?", b"Jefe").hex() == expected


@given(st.binary(), st.binary(min_size=1))
def test_digests_agree_with_the_standard_library(key, pepper):
    assert digest(key, pepper) == hmac.new(pepper, key, "sha256").digest()
    assert digest(key, pepper) != digest(key, None)


def test_an_empty_pepper_is_refused():
    with pytest.raises(ValueError, match="the client pepper is empty"):
        digest(b"key", b"")


# --- hashes in the configuration -----------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.booleans())
def test_a_key_hash_reads_as_it_was_written(value, peppered):
    text = key_hash(value, peppered)
    assert text.startswith("hmac-sha256:" if peppered else "sha256:")
    assert parse_key_hash(text) == (value, peppered)


def test_hex_digits_may_be_capitals():
    assert parse_key_hash("sha256:" + "AB" * 32) == (b"\xab" * 32, False)


@pytest.mark.parametrize("count", [0, 20, 31, 33])
def test_only_a_digest_is_written(count):
    with pytest.raises(ValueError, match=f"a digest has 32 bytes, got {count}"):
        key_hash(bytes(count), peppered=False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "begins with sha256: or hmac-sha256:"),
        ("ab" * 32, "begins with sha256: or hmac-sha256:"),
        ("md5:" + "ab" * 16, "begins with sha256: or hmac-sha256:"),
        ("SHA256:" + "ab" * 32, "begins with sha256: or hmac-sha256:"),
        ("sha256" + "ab" * 32, "begins with sha256: or hmac-sha256:"),
        ("sha256:", "0 characters behind sha256: are no 64 hex digits"),
        ("sha256:" + "a" * 63, "63 characters behind sha256: are no 64 hex digits"),
        ("hmac-sha256:" + "a" * 65, "65 characters behind hmac-sha256: are no 64 hex digits"),
        ("sha256:" + "g" * 64, "64 characters behind sha256: are no 64 hex digits"),
        ("sha256:" + "ab " * 21 + "a", "64 characters behind sha256: are no 64 hex digits"),
        ("sha256:" + "ab" * 32 + "\n", "65 characters behind sha256: are no 64 hex digits"),
        ("sha256:" + "\u0661" * 64, "64 characters behind sha256: are no 64 hex digits"),
        (KEY, "this looks like a key, not like the hash of one"),
    ],
)
def test_what_is_no_key_hash_is_told_what_would_be(text, complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        parse_key_hash(text)
    assert "write sha256: or hmac-sha256: and the 64 hex digits behind it" in str(raised.value)


@pytest.mark.parametrize("before", ["", "sha256:", "hmac-sha256:", "md5:", "srn_"])
def test_no_error_repeats_what_may_be_a_key(before):
    secret = "QmXcVbNmAsDfGhJkL0192837465"
    with pytest.raises(ValueError, match="write sha256") as raised:
        parse_key_hash(before + secret)
    assert secret not in repr(raised.value)
    assert raised.value.__context__ is None
