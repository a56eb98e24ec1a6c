"""From settings to a snapshot: what requests find worked out, and what is refused although it could be read."""

import math
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from proxy.controlplane.build import build, prove
from proxy.controlplane.certificates import read
from proxy.controlplane.load import parse
from proxy.controlplane.problems import ConfigInvalid, path_text
from proxy.model.settings import ListenerTls, Settings
from proxy.obs.metrics import Metrics
from proxy.state.live import Registry
from proxy.state.snapshot import Snapshot
from tests.support.running import config_for

URL = "http://127.0.0.1:8000/v1/"
SECURE_URL = "https://api.vendor.test/v1"


def settings_of(config: str) -> Settings:
    return parse(config, {}).settings


def built(config: str, registry: Registry | None = None) -> Snapshot:
    return build(settings_of(config), registry or Registry(), Metrics(), generation=1)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of PEM files, right and wrong."""
    folder = tmp_path_factory.mktemp("pems")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca")
    issued, other = ca.issue_cert("localhost"), ca.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert")
    issued.private_key_pem.write_to_path(folder / "key")
    other.private_key_pem.write_to_path(folder / "other-key")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
    (folder / "locked-key").write_bytes(locked)
    (folder / "empty").touch()
    (folder / "text").write_text("no PEM at all\n")
    (folder / "bytes").write_bytes(b"\xff\xfe\x00")
    for private in ("key", "other-key", "locked-key", "empty"):
        (folder / private).chmod(0o640)
    return folder


# --- upstreams ---------------------------------------------------------------------------------------------------


def test_base_url_is_taken_apart() -> None:
    upstream = built(config_for(URL)).upstreams["up0"]
    assert (upstream.endpoint.host, upstream.endpoint.port, upstream.endpoint.tls) == ("127.0.0.1", 8000, None)
    assert upstream.base_path == b"/v1"
    assert upstream.after_target == b" HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"


def test_each_address_is_an_upstream_that_has_its_name_in_common() -> None:
    addresses = {"up0": ("10.0.0.7", "fd00::8")}
    snapshot = build(settings_of(config_for(SECURE_URL)), Registry(), Metrics(), 1, addresses)
    first, second = snapshot.upstreams.values()
    assert list(snapshot.upstreams) == ["up0@10.0.0.7", "up0@fd00::8"]
    assert [(each.name, each.endpoint.host) for each in (first, second)] == [("up0", "10.0.0.7"), ("up0", "fd00::8")]
    assert first.endpoint.server_name == second.endpoint.server_name == "api.vendor.test"
    assert first.keys is second.keys
    assert first.live is not second.live
    assert [member.upstream for member in snapshot.pools[0].members] == [first, second]


def test_limits_that_are_none_are_infinite() -> None:
    upstream = built(config_for(URL, upstream="timeouts: {first_byte: none, idle: 2m}")).upstreams["up0"]
    assert (upstream.first_byte_timeout_s, upstream.idle_timeout_s, upstream.total_timeout_s) == (
        math.inf,
        120.0,
        math.inf,
    )


def test_key_replaces_the_callers_field_and_nothing_else() -> None:
    upstream = built(config_for(URL, upstream="auth: x-api-key, headers: {X-Team: search}")).upstreams["up0"]
    assert upstream.keys[0].line == b"x-api-key: upstream-key-0\r\n"
    assert upstream.fixed_lines == b"x-team: search\r\n"
    assert upstream.overridden == {b"x-api-key", b"x-team"}


def test_equal_endpoints_compare_equal_and_others_do_not(pems: Path) -> None:
    def endpoint(tls: str) -> object:
        return built(config_for(SECURE_URL, upstream=f"tls: {{{tls}}}")).upstreams["up0"].endpoint

    trusting = endpoint(f"ca: '{pems / 'ca'}'")
    assert trusting == endpoint(f"ca: '{pems / 'ca'}'")
    others = [endpoint(""), endpoint("verify: false"), endpoint(f"ca: '{pems / 'ca'}', server_name: other.test")]
    assert trusting not in others
    assert len(set(others)) == 3


def test_renewed_authorities_are_another_endpoint(tmp_path: Path) -> None:
    def endpoint() -> object:
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca")
        return built(config_for(SECURE_URL, upstream=f"tls: {{ca: '{tmp_path / 'ca'}'}}")).upstreams["up0"].endpoint

    assert endpoint() != endpoint()


def test_certificates_are_verified_unless_told_otherwise() -> None:
    verified, unverified = (
        built(config_for(SECURE_URL, upstream=extra)).upstreams["up0"].endpoint.tls
        for extra in ("", "tls: {verify: false}")
    )
    assert verified is not None
    assert unverified is not None
    assert (verified.verify_mode, verified.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (unverified.verify_mode, unverified.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("file", ["text", "bytes", "empty", "key"])
def test_unusable_authorities_are_named_all_at_once(pems: Path, file: str) -> None:
    registry = Registry()
    config = config_for(SECURE_URL, SECURE_URL, upstream=f"tls: {{ca: '{pems / file}'}}")
    with pytest.raises(ConfigInvalid) as caught:
        built(config, registry)
    assert [str(problem) for problem in caught.value.problems] == [
        f"configuration: upstreams.up{number}.tls.ca: {pems / file} holds no PEM certificates of authorities"
        for number in range(2)
    ]


def test_refused_configuration_leaves_no_trace(pems: Path) -> None:
    registry, metrics = Registry(), Metrics()
    settings = settings_of(config_for(SECURE_URL, upstream=f"tls: {{ca: '{pems / 'text'}'}}"))
    with pytest.raises(ConfigInvalid):
        build(settings, registry, metrics, generation=2)
    assert not registry.upstreams
    assert not metrics._series


# --- the rest ----------------------------------------------------------------------------------------------------


def test_what_is_live_outlives_the_snapshot() -> None:
    registry = Registry()
    first, second = (built(config_for(URL), registry).upstreams["up0"] for _ in range(2))
    assert first is not second
    assert first.live is second.live
    assert first.keys[0].live is second.keys[0].live


def test_replicas_sign_alike_and_others_do_not() -> None:
    ours, again = built(config_for(URL)), built(config_for(URL, keys=False))
    other = built(config_for("http://127.0.0.1:8001/v1"))
    assert ours.deployment_id == again.deployment_id != other.deployment_id
    assert ours.via_line == b"via: 1.1 " + ours.deployment_id + b"\r\n"


def test_globs_mean_whole_names() -> None:
    top = "clients: [{name: a, key: k, models: ['gpt-*', o1]}]"
    keys = built(config_for(URL, clients=False, top=top)).clients
    assert keys is not None
    (client,) = (key.client for key in keys.by_digest.values())
    assert [client.may_use(model) for model in ("gpt-4", "o1", "o10", "xgpt-4", "gpt-\n")] == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_route_is_told_apart_by_prefix_and_model() -> None:
    (first, second) = built(config_for(URL, route="model: 'gpt-*'")).routes
    assert (first.label, first.prefix, second.label) == ("/v1 gpt-*", b"/v1", "/anthropic gpt-*")
    assert [member.upstream.name for member in first.series] == ["up0"]


def test_root_prefix_is_everything() -> None:
    config = config_for(URL).replace("prefix: /anthropic", "prefix: /")
    root = built(config).routes[1]
    assert root.prefix == b""
    assert root.matches_path(b"/anything")


# --- listeners ---------------------------------------------------------------------------------------------------


def listener_tls(pems: Path, **files: str) -> ListenerTls:
    return ListenerTls.model_validate({name: pems / file for name, file in files.items()})


@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [
        ("cert", "other-key", "KEY_VALUES_MISMATCH"),
        ("text", "key", ""),
        ("cert", "empty", ""),
        ("empty", "key", ""),
        ("cert", "locked-key", "the key has a passphrase"),
    ],
)
def test_unusable_certificate_is_named_with_its_place(pems: Path, cert: str, key: str, why: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read(("listen", 1, "tls"), listener_tls(pems, cert=cert, key=key))
    (problem,) = caught.value.problems
    assert str(problem).startswith("configuration: listen[1].tls: the certificate and key cannot be used together (")
    assert why in problem.message
    assert "None" not in problem.message


@pytest.mark.parametrize("authorities", ["text", "empty", "bytes", "key"])
def test_file_without_authorities_is_named_with_its_place(pems: Path, authorities: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        read(("admin", "tls"), listener_tls(pems, cert="cert", key="key", client_ca=authorities))
    (problem,) = caught.value.problems
    assert str(problem) == (
        f"configuration: admin.tls.client_ca: {pems / authorities} holds no PEM certificates of authorities"
    )


def test_proof_names_what_every_listener_and_upstream_lacks(pems: Path) -> None:
    tls = f"tls: {{cert: '{pems / 'text'}', key: '{pems / 'key'}'}}"
    listen = f"listen: [{{address: 127.0.0.1:0, {tls}}}, {{address: 127.0.0.1:1, {tls}}}]\nadmin: {{{tls}}}"
    extra = f"tls: {{ca: '{pems / 'text'}'}}"
    with pytest.raises(ConfigInvalid) as caught:
        prove(settings_of(config_for(SECURE_URL, top=listen, upstream=extra)))
    places = [path_text(problem.path) for problem in caught.value.problems]
    assert places == ["upstreams.up0.tls.ca", "listen[0].tls", "listen[1].tls", "admin.tls"]
    prove(settings_of(config_for(SECURE_URL)))
