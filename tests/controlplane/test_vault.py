"""What is sealed opens under its master key and for its purpose alone, whole or not at all, and nothing tells of it."""

import pickle
import re
import string
import traceback
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.controlplane.vault import MasterKey, Unreadable, Vault, new_master_key

MARKER = "S3CR3T-5f1c"
RAW, OTHER_RAW = bytes(range(32)), bytes(range(100, 132))
KEY, OTHER_KEY = MasterKey(RAW), MasterKey(OTHER_RAW)
VAULT = Vault([KEY])

# Sealed once, under RAW. It has to open in every version that reads v1.
FROM_EARLIER = (
    "sealed:v1:83657913:DsfkUlt6zQ6BPQt5bJWJEwAqOM5mYRoAvsANqbCBn3QXoavAj6P17uwXreHuHzMpnn2a3SgYJz46Yzxja2zDVCO1c5DVz"
    "XIZFdM_-V6l1GFXT7kqg1N_BT2IUPRM4RbyUGPycX_6m4HjGV_Eo0WlVsdofHsnQ9HaNbM"
)
# Found by trying: two keys, one id.
TWINS = [MasterKey(number.to_bytes(32, "big")) for number in (63332, 66337)]


def content_of(sealed: str) -> bytes:
    text = sealed.split(":")[3]
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def with_content(content: bytes, key_id: str = KEY.key_id) -> str:
    return f"sealed:v1:{key_id}:{urlsafe_b64encode(content).rstrip(b'=').decode()}"


def refusal(vault: Vault, sealed: str, purpose: str = "config") -> str:
    """The message with which it does not open, neither to be read nor to be moved; nothing raised holds the marker."""
    messages = []
    for way in (vault.unseal, vault.rewrap):
        with pytest.raises(Unreadable) as caught:
            way(sealed, purpose)
        assert MARKER not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    return messages[0]


def test_layout_is_the_documented_one() -> None:
    sealed = VAULT.seal(MARKER, "config")
    scheme, version, key_id, text = sealed.split(":")
    assert (scheme, version) == ("sealed", "v1")
    assert key_id == sha256(b"serinus master key id\0" + RAW).hexdigest()[:8]
    assert "=" not in text
    content = content_of(sealed)
    mark = sha256(b"serinus sealed v1 purpose\0config").digest()[:16]
    assert content[:16] == mark
    bound_to = b"serinus sealed v1 data key\0" + key_id.encode() + mark
    data_key = AESGCM(RAW).decrypt(content[16:28], content[28:76], bound_to)
    assert len(data_key) == 32
    value = AESGCM(data_key).decrypt(content[76:88], content[88:], b"serinus sealed v1 value\0config")
    assert value == MARKER.encode()


def test_value_from_an_earlier_version_opens() -> None:
    assert VAULT.unseal(FROM_EARLIER, "config") == "sk-golden-ключ"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
@example("", "")
@example("a\0b\r\n", "key:openai/main")
def test_what_was_sealed_opens_as_it_was(plaintext: str, purpose: str) -> None:
    sealed = VAULT.seal(plaintext, purpose)
    assert Vault.is_sealed(sealed)
    assert re.fullmatch(r"sealed:v1:[0-9a-f]{8}:[0-9A-Za-z_-]+", sealed)
    assert VAULT.unseal(sealed, purpose) == plaintext


@given(st.text() | st.from_regex(r"sealed:(v1:(83657913:([0-9A-Za-z_-]{130,200})?)?)?", fullmatch=True))
@example("sealed:v1:83657913:")
@example("sealed:v1:83657913:A")
@example(f"sealed:v1:{KEY.key_id}:{'A' * 138}")
@example("sealed:v1:83657913:ключ")
@example(f"sealed:{'9' * 5000}:")
def test_no_text_breaks_it(text: str) -> None:
    with pytest.raises(Unreadable):
        VAULT.unseal(text, "config")


def test_data_keys_and_nonces_are_used_once() -> None:
    contents = [content_of(VAULT.seal(MARKER, "config")) for _ in range(50)]
    for start, end in ((16, 28), (28, 76), (76, 88), (88, None)):
        assert len({content[start:end] for content in contents}) == 50


def test_every_changed_bit_is_noticed() -> None:
    content = content_of(VAULT.seal("k", "config"))
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            assert refusal(VAULT, with_content(bytes(changed))).startswith("damaged")


def test_every_changed_letter_is_noticed() -> None:
    """That of the last one, too, of whose bits base64 ignores some."""
    for plaintext in ("", "k", "kk"):  # all lengths, modulo 3
        sealed = VAULT.seal(plaintext, "config")
        for place, letter in enumerate(sealed):
            for other in set("+/=:\n" + string.ascii_letters + string.digits) - {letter}:
                with pytest.raises(Unreadable):
                    VAULT.unseal(sealed[:place] + other + sealed[place + 1 :], "config")


def test_every_cut_is_noticed() -> None:
    sealed = VAULT.seal(MARKER, "config")
    for length in range(len(sealed)):
        refusal(VAULT, sealed[:length])
    for more in ("A", "AAAA", "=", "\n", " ", ":"):
        assert refusal(VAULT, sealed + more).startswith("damaged")


def test_parts_of_two_values_make_none() -> None:
    one, other = (content_of(VAULT.seal(text, "config")) for text in ("one", "other"))
    assert refusal(VAULT, with_content(one[:76] + other[76:])).startswith("damaged")


def test_wrong_purpose_is_told_from_damage() -> None:
    sealed = VAULT.seal(MARKER, "key:openai/main")
    assert refusal(VAULT, sealed, "config") == (
        "sealed for another purpose than 'config': seal the value again, with --purpose config"
    )
    # One who swaps the mark does not get further.
    mark = content_of(VAULT.seal("", "config"))[:16]
    assert refusal(VAULT, with_content(mark + content_of(sealed)[16:])).startswith("damaged")


def test_value_is_bound_to_its_purpose_and_not_by_the_mark_alone() -> None:
    content = content_of(VAULT.seal(MARKER, "key:openai/main"))
    data_key = KEY.unwrap(content[16:76], content[:16])
    assert data_key is not None
    mark = content_of(VAULT.seal("", "config"))[:16]
    assert refusal(VAULT, with_content(mark + KEY.wrap(data_key, mark) + content[76:])).startswith("damaged")


def test_missing_master_key_is_named_and_so_are_those_at_hand() -> None:
    third = MasterKey(b"\1" * 32)
    assert refusal(Vault([OTHER_KEY, third, third]), VAULT.seal(MARKER, "config")) == (
        f"sealed under master key {KEY.key_id}, and at hand is {OTHER_KEY.key_id}, {third.key_id}: "
        "add that master key behind the first, or seal the value again"
    )


def test_key_id_of_another_master_key_does_not_help() -> None:
    content = content_of(VAULT.seal(MARKER, "config"))
    vault = Vault([KEY, OTHER_KEY])
    assert refusal(vault, with_content(content, OTHER_KEY.key_id)).startswith("damaged")


def test_another_version_is_named() -> None:
    sealed = VAULT.seal(MARKER, "config").replace("v1", "v2")
    assert refusal(VAULT, sealed) == (
        "sealed in format v2, and this Serinus reads v1: run a newer one, or seal the value again"
    )


@pytest.mark.parametrize(
    "text", [MARKER, f"sealed:{MARKER}", f"sealed:v1:{MARKER}", f"sealed:v1:83657913:{MARKER}", ""]
)
def test_secret_in_the_place_of_a_sealed_value_is_not_shown(text: str) -> None:
    message = refusal(VAULT, text)
    assert "paste the whole line that `serinus seal` prints" in message


def test_what_is_meant_to_be_sealed() -> None:
    assert all(map(Vault.is_sealed, ("sealed:v1:", "sealed:")))
    assert not any(map(Vault.is_sealed, ("sealed", "env:KEY", " sealed:", "")))


def test_rewrap_moves_the_data_key_and_leaves_the_value() -> None:
    sealed = VAULT.seal(MARKER, "config")
    vault = Vault([OTHER_KEY, MasterKey(b"\1" * 32), KEY])
    assert vault.key_id == OTHER_KEY.key_id
    moved = vault.rewrap(sealed, "config")
    assert Vault([OTHER_KEY]).unseal(moved, "config") == MARKER
    assert KEY.key_id not in moved
    assert content_of(moved)[:16] == content_of(sealed)[:16]
    assert content_of(moved)[16:28] != content_of(sealed)[16:28]
    assert content_of(moved)[76:] == content_of(sealed)[76:]
    assert vault.rewrap(moved, "config") is moved


def test_any_master_key_reads_and_the_first_writes() -> None:
    vault = Vault([KEY, OTHER_KEY])
    assert vault.unseal(Vault([OTHER_KEY]).seal(MARKER, "config"), "config") == MARKER
    assert VAULT.unseal(vault.seal(MARKER, "config"), "config") == MARKER


@pytest.mark.parametrize("keys", [TWINS, TWINS[::-1]])
def test_master_keys_of_one_id_are_told_apart(keys: list[MasterKey]) -> None:
    assert keys[0].key_id == keys[1].key_id
    vault = Vault(keys)
    sealed = Vault([keys[1]]).seal(MARKER, "config")
    assert vault.unseal(sealed, "config") == MARKER
    assert Vault([keys[0]]).unseal(vault.rewrap(sealed, "config"), "config") == MARKER


def test_vault_without_a_key_is_none() -> None:
    with pytest.raises(ValueError, match="no master key: set SERINUS_MASTER_KEY, or name a file that holds one"):
        Vault([])


def test_broken_text_is_not_sealed() -> None:
    with pytest.raises(ValueError, match="the value is no text: give it as UTF-8") as caught:
        VAULT.seal(f"{MARKER}\udcff", "config")
    assert MARKER not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_sealed_bytes_that_are_no_text_are_not_shown() -> None:
    content = content_of(VAULT.seal("", "config"))
    data_key = KEY.unwrap(content[16:76], content[:16])
    assert data_key is not None
    value = AESGCM(data_key).encrypt(bytes(12), MARKER.encode() + b"\xff", b"serinus sealed v1 value\0config")
    with pytest.raises(Unreadable, match="what is sealed is no text") as caught:
        VAULT.unseal(with_content(content[:76] + bytes(12) + value), "config")
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "text", [b64encode(RAW).decode(), RAW.hex(), RAW.hex().upper(), f" {b64encode(RAW).decode()}\n"]
)
def test_master_key_from_text(text: str) -> None:
    assert MasterKey.parse(text).key_id == KEY.key_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        MARKER,
        b64encode(RAW[1:]).decode(),
        b64encode(RAW + b"1").decode(),
        RAW.hex()[1:],
        b64encode(RAW).decode().replace("AAEC", "AA*EC"),
        "ключ",
        "\udcff",
        "=" * 44,
    ],
)
def test_what_is_no_master_key_is_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        MasterKey.parse(text)
    assert str(caught.value) == ("no master key: it has to be 32 random bytes in base64: openssl rand -base64 32")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("between", [",", " ", "\n", ", ", "\r\n", ",\n"])
def test_several_master_keys_from_text(between: str) -> None:
    text = between.join((b64encode(RAW).decode(), OTHER_RAW.hex()))
    assert [key.key_id for key in MasterKey.parse_all(text + between)] == [KEY.key_id, OTHER_KEY.key_id]


def test_wrong_one_of_several_master_keys_is_counted() -> None:
    with pytest.raises(ValueError, match=r"^number 2 of 2: no master key: ") as caught:
        MasterKey.parse_all(f"{b64encode(RAW).decode()},{MARKER}")
    assert MARKER not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ValueError, match=r"^no master key: "):
        MasterKey.parse_all(MARKER)
    assert MasterKey.parse_all(" , \n") == ()


def test_master_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a master key has 32 bytes, not 16"):
        MasterKey(bytes(16))


def test_master_key_shows_its_id_only() -> None:
    assert repr(KEY) == str(KEY) == f"<master key {KEY.key_id}>"
    assert KEY.key_id != sha256(RAW).hexdigest()[:8]
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(KEY)


def test_new_master_keys_are_master_keys_and_differ() -> None:
    assert len({MasterKey.parse(new_master_key()).key_id for _ in range(20)}) == 20
