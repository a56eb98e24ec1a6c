"""Commands that ask an admin API over https: whom they believe, and what they show."""

import asyncio
import datetime

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy.cli import main
from tests.support.authority import Authority
from tests.support.running import config_for

TOKEN = "0ps-t0ken"
QUIET = {"SERINUS_ADMIN": "", "SERINUS_ADMIN_CACERT": "", "SERINUS_ADMIN_CERT": "", "SERINUS_ADMIN_KEY": ""}


async def call(*arguments: object, **environ: object) -> Result:
    """The command in a thread: it blocks, and the proxy that it asks is in this one."""
    given = {name: str(value) for name, value in (QUIET | {"SERINUS_ADMIN_TOKEN": TOKEN} | environ).items()}
    return await asyncio.to_thread(CliRunner(env=given).invoke, main, [str(argument) for argument in arguments])


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def serving(proxy):
    """Starts a proxy whose admin API has this certificate; gives its port."""

    async def serving(files, client_ca=None):
        cert, key = files
        callers = "" if client_ca is None else f", client_ca: '{client_ca}'"
        tls = f"tls: {{cert: '{cert}', key: '{key}'{callers}}}"
        admin = f"admin: {{listen: 127.0.0.1:0, tokens: [{{name: ops, value: {TOKEN}}}], {tls}}}"
        running = await proxy(config_for("http://127.0.0.1:1/v1", top=f"listen: 127.0.0.1:0\n{admin}"))
        return running.serinus.admin_address[1]

    return serving


@pytest.fixture
def self_signed(tmp_path):
    """A certificate and its key, as `openssl req -x509` makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "serinus")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = tmp_path / "self.crt", tmp_path / "self.key"
    cert_file.write_bytes(made.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key_file.chmod(0o600)
    return cert_file, key_file


@pytest.mark.parametrize("command", [["status"], ["keys", "list"], ["top", "--count", "1"]], ids=" ".join)
async def test_commands_believe_what_the_authority_signed_for_the_name(command, authority, serving):
    port = await serving(authority.issue("localhost"))
    asked = await call(*command, "--admin", f"https://localhost:{port}", "--cacert", authority.ca_file)
    assert asked.exit_code == 0, asked.output
    assert "up0" in asked.output


async def test_name_of_a_certificate_that_an_authority_signed_counts(authority, serving):
    port = await serving(authority.issue("somebody.else"))
    asked = await call("status", "--admin", f"https://127.0.0.1:{port}", "--cacert", authority.ca_file)
    assert asked.exit_code == 1
    assert "IP address mismatch" in asked.output


async def test_own_certificate_is_believed_under_every_name(authority, serving):
    cert, key = authority.issue("serinus.internal")
    url = f"https://127.0.0.1:{await serving((cert, key))}"
    assert (await call("status", "--admin", url, "--cacert", cert)).exit_code == 0
    assert (await call("status", SERINUS_ADMIN=url, SERINUS_ADMIN_CACERT=cert)).exit_code == 0


async def test_self_signed_certificate_is_believed(self_signed, serving):
    asked = await call(
        "status", "--admin", f"https://127.0.0.1:{await serving(self_signed)}", "--cacert", self_signed[0]
    )
    assert asked.exit_code == 0, asked.output


async def test_another_certificate_of_the_same_authority_is_not(authority, serving):
    cert, _ = authority.issue("serinus.internal")
    cert.write_bytes(cert.read_bytes() + authority.ca_file.read_bytes())
    port = await serving(authority.issue("somebody.else"))
    asked = await call("status", "--admin", f"https://127.0.0.1:{port}", "--cacert", cert)
    assert (asked.exit_code, "IP address mismatch" in asked.output) == (1, True)


async def test_unknown_authority_is_told_with_what_helps(authority, serving):
    port = await serving(authority.issue("localhost"))
    asked = await call("status", "--admin", f"https://localhost:{port}")
    assert asked.exit_code == 1
    assert "certificate" in asked.output
    assert "--cacert names whom to believe" in asked.output


async def test_certificate_is_shown_where_one_is_needed(authority, serving):
    files = authority.issue("localhost")
    url = f"https://localhost:{await serving(files, client_ca=authority.ca_file)}"
    cert, key = authority.issue("operator")
    both = cert.with_name("both.pem")
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    known = ["--admin", url, "--cacert", authority.ca_file]
    refused = await call("status", *known)
    assert (refused.exit_code, "wants a --cert" in refused.output) == (1, True)
    for asked in (
        await call("status", *known, "--cert", cert, "--key", key),
        await call("status", *known, "--cert", both),
        await call("status", *known, SERINUS_ADMIN_CERT=cert, SERINUS_ADMIN_KEY=key),
        await call("status", "--admin", url.replace("localhost", "127.0.0.1"), "--cacert", files[0], "--cert", both),
    ):
        assert asked.exit_code == 0, asked.output


async def test_http_to_https_is_told_with_what_helps(authority, serving):
    asked = await call("status", "--admin", f"http://127.0.0.1:{await serving(authority.issue('localhost'))}")
    assert (asked.exit_code, "With admin.tls it is https://" in asked.output) == (1, True)


async def test_files_of_no_use_are_a_wrong_use(authority, tmp_path):
    (tmp_path / "text").write_text("no PEM at all\n")
    _, key = authority.issue("operator")
    other, _ = authority.issue("other")
    for options in (["--cacert", tmp_path / "text"], ["--cert", tmp_path / "text"], ["--cert", other, "--key", key]):
        asked = await call("status", "--admin", "https://127.0.0.1:1", *options)
        assert asked.exit_code == 2, asked.output
        assert "name files in PEM format" in " ".join(asked.output.split())
    assert (await call("status", "--cacert", tmp_path / "absent")).exit_code == 2
