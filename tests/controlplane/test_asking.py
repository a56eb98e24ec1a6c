"""How the control plane asks an upstream: in the words of the API that its settings speak of."""

import pytest

from proxy.controlplane import asking
from proxy.controlplane.load import parse


def upstream(fields):
    text = f"upstreams: {{up: {{{fields}}}}}\npools: {{p: {{members: [{{upstream: up}}]}}}}\n"
    return parse(text + "routes: [{prefix: /, pool: p}]\n", {}).settings.upstreams["up"]


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ("base_url: 'https://api.openai.com/v1'", "https://api.openai.com/v1/models"),
        ("base_url: 'https://api.anthropic.com', auth: x-api-key", "https://api.anthropic.com/v1/models"),
        ("base_url: 'https://gateway/claude/v1', auth: x-api-key", "https://gateway/claude/v1/models"),
        ("base_url: 'https://gateway', headers: {anthropic-version: 2026-01-01}", "https://gateway/v1/models"),
        ("base_url: 'http://127.0.0.1:8000'", "http://127.0.0.1:8000/models"),
    ],
)
def test_list_of_models_is_where_its_api_has_it(fields, url):
    assert asking.url(upstream(fields), "/models") == url


def test_key_goes_where_the_upstream_wants_it():
    claude = upstream("base_url: 'https://a.example', auth: x-api-key, keys: [{name: k, value: sk-ant}]")
    assert asking.headers(claude, claude.keys[0].value) == {
        "accept-encoding": "identity",
        "x-api-key": "sk-ant",
        "anthropic-version": asking.ANTHROPIC_VERSION,
    }
    openai = upstream(
        "base_url: 'https://a.example/v1', headers: {openai-organization: o}, keys: [{name: k, value: sk}]"
    )
    assert asking.headers(openai, openai.keys[0].value)["authorization"] == "Bearer sk"
    assert "authorization" not in asking.headers(openai, None)
