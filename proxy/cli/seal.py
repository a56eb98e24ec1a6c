"""`serinus seal`: a secret becomes a value that a configuration may hold.

What is read is never an argument, which all users of a machine can see.
"""

import os
import re
import stat
from pathlib import Path
from tempfile import mkstemp
from typing import NamedTuple

import click

from proxy.cli.check import counted
from proxy.cli.secret_input import secret_on_stdin
from proxy.controlplane.secrets import SecretReader
from proxy.controlplane.vault import CONFIG_PURPOSE, MASTER_KEY_VARIABLE, MasterKey, Unreadable, Vault, new_master_key

# Whatever the file's format. Of a broken value it finds the beginning, which is called damaged then, not passed over.
_SEALED = re.compile(rb"(?<![0-9A-Za-z_-])sealed:v[0-9]+:[0-9A-Za-z_:-]+")


class _Rewrapped(NamedTuple):
    content: bytes
    moved: int
    kept: int


@click.command()
@click.option(
    "--purpose", default=CONFIG_PURPOSE, show_default=True, help="What it is sealed for, and opens for alone."
)
@click.option(
    "--master-key-file",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help=f"A file of master keys, read before {MASTER_KEY_VARIABLE}. May be given several times.",
)
@click.option("--rewrap", type=click.Path(path_type=Path), metavar="FILE", help="Move what is sealed in a file.")
@click.option("--new-master-key", "fresh", is_flag=True, help="Print a fresh master key, and seal nothing.")
def seal(purpose: str, files: tuple[Path, ...], rewrap: Path | None, fresh: bool) -> None:
    """Seal the secret on standard input, and print what may stand in a configuration.

    Master keys come from --master-key-file and the environment variable SERINUS_MASTER_KEY, separated by commas or
    white space. The first one seals; all of them open what is sealed.

    To change the master key, put a new one before the old, --rewrap every file, and take the old one away. --rewrap
    replaces sealed values wherever they stand in FILE, in comments too, and no other byte. It changes nothing if one of
    them cannot be read, or was sealed for another --purpose.
    """
    if fresh and rewrap is not None:
        raise click.UsageError("--new-master-key and --rewrap do different things: use one of them")
    if not purpose.strip() or not purpose.isprintable():
        raise click.UsageError("--purpose is a word, such as config")
    if fresh:
        click.echo(new_master_key())
        return
    try:
        vault = Vault(_master_keys(files))
        said = _seal(vault, purpose) if rewrap is None else _rewrap(rewrap, vault, purpose)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(said)


def _master_keys(files: tuple[Path, ...]) -> list[MasterKey]:
    """Raises ValueError, with the place."""
    reader = SecretReader(os.environ, Path())
    texts = [(str(file), reader.resolve(f"file:{file}").reveal()) for file in files]
    texts.append((MASTER_KEY_VARIABLE, os.environ.get(MASTER_KEY_VARIABLE, "")))
    keys: list[MasterKey] = []
    for place, text in texts:
        try:
            keys += MasterKey.parse_all(text)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    if not keys:
        raise ValueError(
            f"no master key: set {MASTER_KEY_VARIABLE} or name a --master-key-file; --new-master-key prints a fresh one"
        )
    return keys


def _seal(vault: Vault, purpose: str) -> str:
    value = secret_on_stdin("serinus seal < /run/secrets/openai")
    if vault.is_sealed(value):
        raise ValueError("the value on standard input is sealed already: give the secret itself")
    return vault.seal(value, purpose)


def _rewrap(file: Path, vault: Vault, purpose: str) -> str:
    """Says what became of the file. Raises ValueError, and leaves it as it was."""
    try:
        if not file.is_file():
            raise ValueError(f"{file} is no file: name the one that holds sealed values")
        path = file.resolve()  # what a link leads to is replaced, not the link
        found = _rewrapped(file, path.read_bytes(), vault, purpose)
        if found.moved:
            _replace(path, found.content)
    except OSError as error:
        why = (error.strerror or "no reason given").lower()
        raise ValueError(f"{file} cannot be rewritten: {why}") from None
    if not found.moved and not found.kept:
        return f"{file}: nothing in it is sealed"
    return f"{file}: {counted(found.moved, 'value')} moved to master key {vault.key_id}, {found.kept} there before"


def _rewrapped(file: Path, content: bytes, vault: Vault, purpose: str) -> _Rewrapped:
    """Raises ValueError, with a line for each value that cannot be read."""
    pieces, problems = [], []
    end = moved = kept = 0
    for sealed in _SEALED.finditer(content):
        try:
            rewrapped = vault.rewrap(sealed[0].decode(), purpose).encode()
        except Unreadable as error:
            line = content.count(b"\n", 0, sealed.start()) + 1
            problems.append(f"{file}:{line}: {error}")
            continue
        pieces += [content[end : sealed.start()], rewrapped]
        end = sealed.end()
        moved += rewrapped != sealed[0]
        kept += rewrapped == sealed[0]
    if problems:
        count = counted(len(problems), "sealed value")
        raise ValueError("\n".join([f"{file} is as it was: {count} cannot be read", *problems]))
    return _Rewrapped(b"".join([*pieces, content[end:]]), moved, kept)


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all, whenever the machine stops. Mode and owner stay: who could read the file still can."""
    was = path.stat()
    descriptor, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            made = os.fstat(descriptor)
            if (made.st_uid, made.st_gid) != (was.st_uid, was.st_gid):
                os.fchown(descriptor, was.st_uid, was.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(was.st_mode))
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(directory: Path) -> None:
    """The new name is on the disk, too."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
