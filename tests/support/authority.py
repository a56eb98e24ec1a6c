"""Who issues certificates in tests, and who trusts it."""

import asyncio
import datetime
import ssl
from pathlib import Path

import trustme

Pair = tuple[Path, Path]  # a certificate and its key


class Authority:
    """Issues certificates, and knows whom to trust. Its files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._ca = folder, trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, *names: str, folder: Path | None = None, not_after: datetime.datetime | None = None) -> Pair:
        """A certificate for these names, and its key: the paths of two files, in `folder` if they are to be there."""
        issued = self._ca.issue_cert(*names, not_after=not_after)
        cert, key = ((folder or self._folder) / f"{names[0]}-{part}.pem" for part in ("cert", "key"))
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        key.chmod(0o640)
        return cert, key

    def trusting(self, shown: Pair | None = None) -> ssl.SSLContext:
        """What a caller has that trusts it, and shows this certificate."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if shown is not None:
            context.load_cert_chain(*shown)
        return context


def written(pem: Path) -> bytes:
    """The first certificate in a file."""
    text = pem.read_text()
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(text[: text.index(end) + len(end)])


async def shown(port: int) -> bytes:
    """The certificate that a listener shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found
