"""From what the configuration says about a secret to the secret.

Errors name the variable or the file, never what is in it. A name is shown only if it looks like one: whoever writes
`env:` and then the key itself must not find the key in a log.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from proxy.controlplane.shape import closest
from proxy.controlplane.vault import CONFIG_PURPOSE, MASTER_KEY_VARIABLE, MasterKey, Vault
from proxy.model.secret import Secret

# A token is some hundred bytes; this is a file that was mistaken for one.
FILE_BYTES_MAX = 64 * 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_FOREIGN = re.compile(r"\$[A-Z_][A-Z0-9_]*|\$\{[^}]*\}|\$\{\{.*\}\}|os\.environ/.*")


class SecretReader:
    """The resolver and locator that settings are validated with; remembers what it found and what it noticed."""

    def __init__(
        self, environ: Mapping[str, str], base: Path, master_keys: Sequence[str] = (), *, where_set: str = "export it"
    ) -> None:
        """`master_keys`: ways to them, as the configuration has them; the environment may hold one more.

        `where_set`: how a variable gets into `environ`, for whoever forgot one.
        """
        self._environ = environ
        self._base = base
        self._master_keys, self._where_set = master_keys, where_set
        self.known: dict[str, Secret] = {}  # by the text in the configuration
        self.remarks: dict[str, list[str]] = {}
        self.files: dict[Path, bytes] = {}  # that were named, with what `digests` says of them

    def locate(self, path: Path) -> Path:
        return self._base / path

    def resolve(self, text: str) -> Secret:
        """Raises ValueError with an operator's message."""
        scheme, _, rest = text.partition(":")
        remarks: list[str] = []
        match scheme:
            case "env":
                value = self._from_environment(rest)
            case "file":
                value = self._from_file(rest)
            case "sealed":
                value = self.vault().unseal(text, CONFIG_PURPOSE)
            case _:
                value = self._as_it_stands(text)
                remarks.append("the secret stands here in plain text: write env:NAME or file:/path")
        self.known[text] = Secret(value)
        self.remarks[text] = remarks + _noticed(value)
        return self.known[text]

    def vault(self) -> Vault:
        """What opens sealed values. Raises ValueError where a master key is none, or there is none at all."""
        keys: list[MasterKey] = []
        for text in self._master_keys:
            if Vault.is_sealed(text):
                raise ValueError("a master key cannot be sealed itself: write env:NAME or file:/path")
            keys += MasterKey.parse_all(self.resolve(text).reveal())
        keys += MasterKey.parse_all(self._environ.get(MASTER_KEY_VARIABLE, ""))
        return Vault(keys)

    def vault_if_any(self) -> Vault | None:
        try:
            return self.vault()
        except ValueError:
            return None

    def _from_environment(self, name: str) -> str:
        if not _VARIABLE.fullmatch(name):
            raise ValueError("after env: comes no name of an environment variable: write it as in env:OPENAI_KEY")
        value = self._environ.get(name)
        which = name if _SHOWABLE.fullmatch(name) else "it names"
        if value:
            try:
                value.encode()
            except UnicodeEncodeError:  # Python hides bytes that are no UTF-8 in lone surrogates
                raise ValueError(f"the environment variable {which} holds no text: put it in as UTF-8") from None
            return value
        if value is not None:
            raise ValueError(f"the environment variable {which} is empty: give it a value")
        likely = closest(name, [known for known, text in self._environ.items() if text and _SHOWABLE.fullmatch(known)])
        hint = f"did you mean {likely}?" if likely else self._where_set
        raise ValueError(f"the environment variable {which} is not set: {hint}")

    def _from_file(self, text: str) -> str:
        if not text or "\0" in text:
            raise ValueError("after file: comes no path: write it as in file:/run/secrets/openai")
        path = self.locate(Path(text))
        self.files[path.absolute()] = b""
        try:
            content = read_private(path)
            self.files[path.absolute()] = sha256(content).digest()
            value = content.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{path} holds no text: write the secret into it as UTF-8") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {(error.strerror or 'no reason given').lower()}") from None
        value = value.removesuffix("\n").removesuffix("\r")
        if not value:
            raise ValueError(f"{path} is empty: write the secret into it")
        return value

    @staticmethod
    def _as_it_stands(text: str) -> str:
        if not text.strip():
            raise ValueError("an empty secret: write env:NAME or file:/path")
        if _FOREIGN.fullmatch(text):
            raise ValueError("variables are not replaced inside values: write env: and the variable's name")
        if re.match(r"(?i)\s*(env|file|sealed)\s*:", text):
            raise ValueError(
                "neither a secret nor a way to one: write env:NAME or file:/path, small and without blanks"
            )
        return text


def digests(files: Iterable[Path]) -> dict[Path, bytes]:
    """What tells whether they have changed; empty where one cannot be read."""
    return {path: _digest(path) for path in files}


def _digest(path: Path) -> bytes:
    try:
        return sha256(read_private(path)).digest()
    except (OSError, ValueError):
        return b""


def read_private(path: Path) -> bytes:
    """The content of a file that not everybody may read. Raises ValueError and OSError."""
    # Not blocking: opening a pipe would wait for its writer. The checks look at what was opened, not at the path.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is not a file: name the file that holds the secret")
        if mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ValueError(f"{path} is open to all users: chmod 640 it, or defaultMode: 0440 in Kubernetes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(FILE_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"{path} is too large for a secret: name the file that holds just that")
    return content


def _noticed(value: str) -> list[str]:
    """What is seldom meant, but can be."""
    remarks = []
    if value != value.strip():
        remarks.append("the secret begins or ends with a blank or line break: is it a part of it?")
    if "\n" in value.strip() or "\r" in value.strip():
        remarks.append("the secret has a line break inside: does the file or variable hold more than it?")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        remarks.append("the secret is in quotes, which are sent too: remove them where it is stored")
    return remarks
