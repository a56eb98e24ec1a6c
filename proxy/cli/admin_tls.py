"""How commands reach an admin API over https: which certificate they show, and whose they believe.

An operator asks a pod by its address, or as 127.0.0.1, which no certificate names. Not to look at names would hand the
token to any holder of a certificate of the same authority. So the server's own certificate, if it is in the file that
is given, is believed under every name; one that an authority in there vouches for must have the name asked for.
"""

import ssl
import urllib.request
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates


def opener(url: str, cacert: Path | None, cert: Path | None, key: Path | None) -> urllib.request.OpenerDirector:
    """Not by way of the environment's proxies: it is a matter between a command and a Serinus.

    Raises click.UsageError.
    """
    direct = urllib.request.ProxyHandler({})
    if not url.lower().startswith("https:"):
        return urllib.request.build_opener(direct)
    try:
        return urllib.request.build_opener(direct, _Https(cacert, cert, key))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise click.UsageError(f"--cacert, --cert and --key name files in PEM format ({why})") from None


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, cacert: Path | None, cert: Path | None, key: Path | None) -> None:
        """Raises OSError and ValueError."""
        self._by_name = self._pinned = _context(cacert, cert, key)
        self._own: list[bytes] = []
        if cacert is not None:
            own = load_pem_x509_certificates(cacert.read_bytes())
            self._own = [certificate.public_bytes(Encoding.DER) for certificate in own]
            self._pinned = _context(cacert, cert, key)
            self._pinned.check_hostname = False
            self._pinned.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN  # whatever else it is fit for
        super().__init__(context=self._by_name)

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        connection: Any = partial(_Connection, pinned=self._pinned, own=self._own)
        return self.do_open(connection, request, context=self._by_name)


class _Connection(HTTPSConnection):
    def __init__(self, *where: Any, pinned: ssl.SSLContext, own: list[bytes], **options: Any) -> None:
        super().__init__(*where, **options)
        self._pinned, self._own = pinned, own

    def connect(self) -> None:
        """Raises OSError. Nothing is sent to a server that is not believed."""
        try:
            super().connect()
        except ssl.SSLCertVerificationError:
            if not self._own:
                raise
            HTTPConnection.connect(self)
            self.sock = shown = self._pinned.wrap_socket(self.sock, server_hostname=self.host)
            if shown.getpeercert(binary_form=True) not in self._own:
                self.close()
                raise


def _context(cacert: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=cacert)
    if cert is not None:
        context.load_cert_chain(cert, key, _refuse_passphrase)
    return context


def _refuse_passphrase() -> str:
    """A command in a script has nobody to type it."""
    raise OSError("the key has a passphrase")
