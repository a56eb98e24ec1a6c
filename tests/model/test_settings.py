"""The settings as a tree: their defaults, their YAML names, and the schema that editors get."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from proxy.model.secret import Secret
from proxy.model.settings import Address, Settings, Timeouts, Upstream


class Plain:
    """Takes a secret's text for the secret."""

    def resolve(self, text: str) -> Secret:
        return Secret(text)


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections, context=Plain())


def test_defaults() -> None:
    default = settings()
    assert default == Settings()
    assert [str(listener.address) for listener in default.listen] == ["127.0.0.1:8080"]
    assert default.admin.listen == Address("127.0.0.1", 9090)
    assert default.state_dir == Path(".serinus")
    assert (default.drain_timeout_s, default.pre_drain_s) == (30, 5)
    timeouts = Timeouts()
    assert (timeouts.connect_s, timeouts.first_byte_s, timeouts.idle_s, timeouts.total_s) == (5, 600, 300, None)


def test_listen_takes_text_a_list_and_mappings() -> None:
    assert settings(listen="0.0.0.0:80").listen[0].address.port == 80
    several = settings(listen=["127.0.0.1:1", {"address": "127.0.0.1:2", "tls": {"cert": "c", "key": "k"}}]).listen
    assert [(listener.address.port, listener.tls is not None) for listener in several] == [(1, False), (2, True)]


def test_well_known_and_own_auth() -> None:
    def auth(**fields: Any) -> tuple[str, str]:
        found = Upstream.model_validate({"base_url": "https://x"} | fields, context=Plain()).auth
        return found.header, found.prefix

    assert auth() == ("authorization", "Bearer ")
    assert auth(auth="x-api-key") == ("x-api-key", "")
    assert auth(auth="api-key") == ("api-key", "")
    assert auth(auth={"header": "X-Token", "prefix": "Token "}) == ("x-token", "Token ")


def test_client_keys_under_either_name() -> None:
    clients = [
        {"name": "a", "key": "k1"},
        {"name": "b", "keys": ["k2", "k3"]},
        {"name": "c", "key_hash": "sha256:" + "0A" * 32},
    ]
    a, b, c = settings(clients=clients).clients
    assert (a.keys, b.keys, c.keys) == ((Secret("k1"),), (Secret("k2"), Secret("k3")), ())
    assert c.key_hashes == ("sha256:" + "0a" * 32,)


def test_prefix_and_header_names_are_made_plain() -> None:
    routes = [{"prefix": "/v1/", "pool": "p", "headers": {"X-Team": "Search"}}, {"prefix": "/", "pool": "p"}]
    first, second = settings(routes=routes).routes
    assert (first.prefix, first.headers, second.prefix) == ("/v1", {"x-team": "Search"}, "/")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().log.level = "debug"  # type: ignore[misc]


def test_python_names_are_no_yaml_names() -> None:
    with pytest.raises(ValidationError):
        settings(drain_timeout_s="5s")


def test_written_settings_read_the_same_again_save_their_secrets() -> None:
    text = settings(clients=[{"name": "a", "key": "S3CR3T"}]).model_dump_json(by_alias=True)
    assert "S3CR3T" not in text
    assert Secret("S3CR3T").fingerprint in text
    written = settings(listen="[::1]:80", pre_drain="90s").model_dump(mode="json", by_alias=True, exclude_none=True)
    assert settings(**written) == settings(listen="[::1]:80", pre_drain="90s")


def test_secrets_need_a_resolver() -> None:
    with pytest.raises(TypeError, match="SecretResolver"):
        Settings.model_validate({"clients": [{"name": "a", "key": "k"}]})


def records(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "Settings", schema
    yield from schema["$defs"].items()


def test_schema_describes_every_field() -> None:
    for name, record in records(Settings.model_json_schema()):
        assert record["description"], name
        assert record["additionalProperties"] is False, name
        for field, properties in record["properties"].items():
            refers = "$ref" in properties  # pydantic leaves out a description that the record has too
            assert properties.get("description") or refers, f"{name}.{field}"


def test_schema_shows_what_yaml_may_contain() -> None:
    schema = Settings.model_json_schema()
    assert "null" not in str(schema)
    assert schema["properties"]["drain_timeout"]["default"] == "30s"
    assert schema["$defs"]["Timeouts"]["properties"]["total"]["default"] == "none"
    assert schema["$defs"]["Route"]["properties"]["buffer"]["type"] == "string"
    text, several = schema["properties"]["listen"]["anyOf"]
    assert text["type"] == "string"
    assert {entry.get("type", "record") for entry in several["items"]["anyOf"]} == {"string", "record"}
    assert [kind.get("type", "record") for kind in schema["$defs"]["Upstream"]["properties"]["auth"]["anyOf"]] == [
        "string",
        "record",
    ]
