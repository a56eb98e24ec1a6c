"""A secret for a command, from standard input: an argument can be seen by all users of a machine."""

import sys

import click

from proxy.controlplane.secrets import FILE_BYTES_MAX


def secret_on_stdin(example: str) -> str:
    """What is piped in, without the line break at its end, or typed. Raises ValueError; `example` shows how."""
    try:
        value = _typed() if sys.stdin.isatty() else _piped()
    except UnicodeDecodeError:
        raise ValueError("standard input holds no text: give the secret as UTF-8") from None
    if not value:
        raise ValueError(f"standard input is empty: write the secret to it, as in: {example}")
    return value


def _typed() -> str:
    return str(click.prompt("Secret (not shown)", hide_input=True, err=True))


def _piped() -> str:
    content = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ValueError(f"more than {FILE_BYTES_MAX} bytes on standard input: is it the right file?")
    return content.decode().removesuffix("\n").removesuffix("\r")  # as of a file: secret
