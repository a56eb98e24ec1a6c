"""What one configuration has otherwise than another."""

import pytest

from proxy.controlplane.differences import Difference, differences
from proxy.controlplane.effective import effective
from proxy.controlplane.load import parse

BASE = """\
listen: 127.0.0.1:8080
admin: {tokens: [{name: ops, value: token-of-ops}]}
clients: [{name: web, key: key-of-web}, {name: app, key: key-of-app}]
upstreams:
  up: {base_url: "http://a.test/v1", keys: [{name: main, value: key-of-up}]}
pools: {chat: {members: [{upstream: up}]}, old: {members: [{upstream: up}]}}
routes: [{prefix: /v1, pool: chat}, {prefix: /v2, pool: old}]
"""
CHANGES = {
    "a value": ("listen: ", "drain_timeout: 1s\nlisten: ", ["~ drain_timeout"]),
    "a listener": ("listen: 127.0.0.1:8080", "listen: [127.0.0.1:8080, 127.0.0.1:8081]", ["+ listen[127.0.0.1:8081]"]),
    "a name that goes": (", {name: app, key: key-of-app}", "", ["- clients[app]"]),
    "an order of names": (
        "[{name: web, key: key-of-web}, {name: app, key: key-of-app}]",
        "[{name: app, key: key-of-app}, {name: web, key: key-of-web}]",
        [],
    ),
    "a secret": ("value: key-of-up", "value: other-key-of-up", ["~ upstreams.up.keys[main].value"]),
    "an upstream": ("upstreams:", 'upstreams:\n  new: {base_url: "http://b.test/v1"}', ["+ upstreams.new"]),
    "a route before others": ("routes: [", "routes: [{prefix: /v0, pool: chat}, ", ["+ routes[0]"]),
    "a route that is another": ("pool: old}", "pool: chat}", ["~ routes[1].pool"]),
    "a pool's member": (
        "{upstream: up}]}, old",
        "{upstream: up, weight: 3}]}, old",
        ["~ pools.chat.members[0].weight"],
    ),
    "what is read at the start": (
        "admin: {",
        "log: {format: console}\ntracing: {}\nstate_dir: other\nadmin: {listen: 127.0.0.1:1, ",
        ["! admin.listen", "! log.format", "! state_dir", "! tracing"],
    ),
    "a token": ("token-of-ops", "another-token", ["! admin.tokens[ops].value"]),
    "another token": ("{name: ops,", "{name: dev, value: x}, {name: ops,", ["! admin.tokens[dev]"]),
}


def shown(text):
    return effective(parse(text, {}).settings)


def mark(difference: Difference) -> str:
    marks = {"added": "+", "removed": "-", "changed": "~"}
    return f"{'!' if difference.needs_restart else marks[difference.kind]} {difference.path}"


@pytest.mark.parametrize(("old", "new", "found"), CHANGES.values(), ids=CHANGES)
def test_each_change_has_its_place(old, new, found):
    assert old in BASE
    assert sorted(map(mark, differences(shown(BASE), shown(BASE.replace(old, new, 1))))) == found


def test_secrets_are_told_apart_by_fingerprints():
    (found,) = differences(shown(BASE), shown(BASE.replace("key-of-up", "other-key-of-up")))
    assert found.before.startswith("<secret ")
    assert found.before != found.after
    assert "key-of-up" not in str(found)


def test_certificates_files_are_no_matter_and_tls_itself_is():
    plain, tls = {"admin": {}}, {"admin": {"tls": {"cert": "/a"}}}
    other = {"admin": {"tls": {"cert": "/b"}}}
    assert [mark(each) for each in differences(plain, tls)] == ["! admin.tls"]
    assert [mark(each) for each in differences(tls, plain)] == ["! admin.tls"]
    assert [mark(each) for each in differences(tls, other)] == ["~ admin.tls.cert"]


def test_listeners_are_as_they_are_where_workers_serve():
    one, other = (BASE.replace("8080", port) + "workers: 2\n" for port in ("8080", "8081"))
    assert [mark(each) for each in differences(shown(one), shown(other))] == [
        "! listen[127.0.0.1:8080]",
        "! listen[127.0.0.1:8081]",
    ]
