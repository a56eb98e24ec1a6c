"""From a file to settings, or to everything that is wrong with it at once.

Nothing stops at the first mistake save a text that is no YAML: the schema, the names that refer to each other, the
secrets and the files are all looked at, whatever else is wrong, so that one run names what one edit has to mend.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from proxy.controlplane.crosscheck import crosscheck, remarks
from proxy.controlplane.document import Document, read
from proxy.controlplane.explain import discreet, explain
from proxy.controlplane.problems import ConfigInvalid, Problem
from proxy.controlplane.secrets import SecretReader
from proxy.controlplane.vault import Vault
from proxy.model.secret import Secret
from proxy.model.settings import Settings

# PyYAML reads some 500 KiB a second; ten thousand clients have 1.5 MiB.
FILE_BYTES_MAX = 4 * 1024 * 1024
_WHERE_SET = "export it where Serinus starts, or name a file that has it with --env-file"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration. `source_digest` is the SHA-256 of the file's bytes, in hex."""

    settings: Settings
    text: str = field(repr=False)
    warnings: tuple[Problem, ...]
    source_digest: str
    vault: Vault | None = None  # of its master keys
    secret_files: Mapping[Path, bytes] = field(default_factory=dict)  # that it names, with what `digests` says of them


def load(path: Path, environ: Mapping[str, str]) -> Loaded:
    """Reads the file and what it refers to. Raises ConfigInvalid."""
    return load_content(path, read_content(path), environ)


def load_content(path: Path, content: bytes, environ: Mapping[str, str]) -> Loaded:
    """Takes these bytes for the file's. Raises ConfigInvalid."""
    text = _text(path, content)
    return parse(text, environ, base=path.parent, file=str(path), source_digest=sha256(content).hexdigest())


def client_pepper(path: Path, environ: Mapping[str, str]) -> Secret | None:
    """The configuration's, though its other secrets may not be there. None: it has none.

    Raises ConfigInvalid where the file cannot be read, ValueError where its pepper cannot.
    """
    document, secrets = _document(read_text(path), environ, path.parent, str(path))
    pepper = document.data.get("client_pepper")
    if document.problems:
        raise ConfigInvalid(tuple(document.problems))
    if pepper is None:
        return None
    if not isinstance(pepper, str):
        raise ValueError(f"{path}: client_pepper: not a text: write env:NAME or file:/path")  # noqa: TRY004
    try:
        return secrets.resolve(pepper)
    except ValueError as error:
        raise ValueError(f"{path}: client_pepper: {error}") from None


def read_text(path: Path) -> str:
    """The file's text. Raises ConfigInvalid."""
    return _text(path, read_content(path))


def read_content(path: Path) -> bytes:
    """The file's bytes, or too many of them. Raises ConfigInvalid."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _unreadable(path, (error.strerror or "it cannot be read").lower()) from None


def _text(path: Path, content: bytes) -> str:
    """Raises ConfigInvalid."""
    if len(content) > FILE_BYTES_MAX:
        raise _unreadable(path, f"larger than {FILE_BYTES_MAX} bytes: is it the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigInvalid((Problem((), line, "not UTF-8: save it as UTF-8", str(path)),)) from None


def read_anew(loaded: Loaded, path: Path, environ: Mapping[str, str]) -> Loaded:
    """What was loaded from this file before, with what it refers to as that is now. Raises ConfigInvalid."""
    return parse(loaded.text, environ, base=path.parent, file=str(path), source_digest=loaded.source_digest)


def _unreadable(path: Path, why: str) -> ConfigInvalid:
    return ConfigInvalid((Problem((), None, why, str(path)),))


def parse(
    text: str,
    environ: Mapping[str, str],
    *,
    base: Path = Path(),
    file: str = "config.yaml",
    source_digest: str | None = None,
) -> Loaded:
    """Reads a text as if it were the file; relative paths in it begin at `base`. Raises ConfigInvalid."""
    document, secrets = _document(text, environ, base, file)
    settings, problems = None, []
    try:
        settings = Settings.model_validate(document.data, context=secrets)
    except ValidationError as error:
        problems = explain(error.errors(include_url=False), document)
    problems += crosscheck(document, secrets)
    said = {problem.path for problem in problems}
    problems += [problem for problem in document.problems if problem.path not in document.holes & said]
    warnings = _in_order(remarks(document, secrets), document)
    if settings is None or problems:
        raise ConfigInvalid(_in_order(problems, document), warnings)
    digest = source_digest or sha256(text.encode()).hexdigest()
    return Loaded(settings, text, warnings, digest, secrets.vault_if_any(), secrets.files)


def _document(text: str, environ: Mapping[str, str], base: Path, file: str) -> tuple[Document, SecretReader]:
    """What the text says, and what can resolve the secrets in it. Raises ConfigInvalid."""
    document = read(text, file)
    # What is only there to be an alias's anchor.
    document.data = {name: value for name, value in document.data.items() if not name.startswith("x-")}
    listed = document.data.get("master_keys")
    master_keys = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
    return document, SecretReader(environ, base, master_keys, where_set=_WHERE_SET)


def _in_order(problems: Iterable[Problem], document: Document) -> tuple[Problem, ...]:
    """As the file has them, none twice, and none with a path that could be a secret's text."""
    order = {path: index for index, path in enumerate(document.places)}
    ranked = sorted(problems, key=lambda problem: (problem.line or 0, order[document.existing(problem.path)]))
    return tuple(dict.fromkeys(replace(problem, path=discreet(problem.path)) for problem in ranked))
