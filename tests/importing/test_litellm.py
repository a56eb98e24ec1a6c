"""LiteLLM's configurations, converted: word for word what comes of ten of them, and that whatever is printed loads.

`litellm/NAME.yaml` gives `NAME.expected`. After a change, run with UPDATE_GOLDEN=1 and read the difference.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.controlplane.build import prove
from proxy.controlplane.load import Loaded, parse
from proxy.controlplane.problems import ConfigInvalid
from proxy.importing.litellm import Imported, convert

CASES = sorted((Path(__file__).parent / "litellm").glob("*.yaml"))
ENVIRON = {"AZURE_API_BASE": "https://corp.openai.azure.com/", "TEAM_SECRET": "S3CR3T-9"}


def converted(text: str, file: str = "config.yaml") -> Imported:
    return convert(text, file, ENVIRON)


def loaded(text: str) -> Loaded:
    """Read as `serinus check` does, with every variable set that it names."""
    found = parse(text, {name: f"sk-{name}" for name in re.findall(r"env:(\w+)", text)})
    prove(found.settings)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_configuration_becomes_the_one_expected(case: Path) -> None:
    expected = case.with_suffix(".expected")
    actual = converted(case.read_text(), case.name).text
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(actual)
    assert actual == expected.read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_what_is_printed_is_valid_and_nothing_in_it_is_worth_a_warning(case: Path) -> None:
    assert loaded(converted(case.read_text()).text).warnings == ()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_no_secret_is_copied(case: Path) -> None:
    imported = converted(case.read_text())
    assert "S3CR3T" not in imported.text + str(imported.remarks)


LEFT_OUT = """\
router_settings: {retry_policy: {TimeoutErrorRetries: 3}, brand_new_in_router: 1}
litellm_settings: {cache: true, brand_new_in_litellm: 1}
general_settings: {alerting: [slack], brand_new_in_general: 1}
brand_new_section: {a: 1}
model_list:
  - model_name: gpt
    litellm_params: {model: openai/gpt-4o, temperature: 0, top_p: 1, brand_new_param: 1}
    brand_new_in_entry: 1
"""


def test_whatever_is_left_out_is_named_with_its_line() -> None:
    named = {(remark.path[-1], remark.line) for remark in converted(LEFT_OUT).remarks if remark.kind.name == "DROPPED"}
    assert named == {
        ("retry_policy", 1),
        ("brand_new_in_router", 1),
        ("cache", 2),
        ("brand_new_in_litellm", 2),
        ("alerting", 3),
        ("brand_new_in_general", 3),
        ("brand_new_section", 4),
        ("temperature", 7),
        ("top_p", 7),
        ("brand_new_param", 7),
        ("brand_new_in_entry", 8),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "config.yaml: nothing is written in it: begin with model_list:"),
        ("- a\n", "config.yaml:1: not a mapping: begin with model_list:"),
        ("model_list:\n- model_name: *\n", "config.yaml:2: not valid YAML: a '*' or '&' begins an alias"),
        ("upstreams: {}\n", "config.yaml: model_list is missing: is it a configuration of LiteLLM?"),
        ("model_list: []\nmodel_list: []\n", "config.yaml:2: model_list: here for a second time, first on line 1"),
        ("model_list: [{model_name: a}]\n", "config.yaml: nothing in it can be served by Serinus"),
    ],
)
def test_what_cannot_be_converted_at_all_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        converted(text)
    assert str(refused.value).startswith(said)


def test_refusal_says_what_was_wrong_with_each_deployment() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        converted("model_list:\n- {model_name: a, litellm_params: {model: bedrock/titan}}\n")
    assert "config.yaml:2: model_list[0].litellm_params.model: bedrock: its requests are signed" in str(refused.value)


@pytest.mark.parametrize(
    ("router", "weights"),
    [
        ("", [1, 0]),
        ("router_settings: {routing_strategy: simple-shuffle}", [1, 0]),
        ("router_settings: {routing_strategy: least-busy}", [1, 1]),
        ("router_settings: {routing_strategy: cost-based-routing}", [1, 1]),
    ],
)
def test_shares_are_those_of_a_strategy_that_looks_at_them(router: str, weights: list[int]) -> None:
    entry = "- {{model_name: gpt, litellm_params: {{model: openai/gpt, api_base: 'https://{}.test'{}}}}}\n"
    found = converted(f"model_list:\n{entry.format('a', ', rpm: 100')}{entry.format('b', '')}{router}\n")
    assert [member.weight for member in loaded(found.text).settings.pools["gpt"].members] == weights
    assert ("weight 0, as before" in found.text) == (0 in weights)


def test_key_that_is_in_the_environment_already_keeps_its_variable() -> None:
    text = "model_list: [{model_name: a, litellm_params: {model: openai/gpt-4o, api_key: sk-known}}]"
    assert "env:OPENAI_API_KEY}" in convert(text, "c", {"OPENAI_API_KEY": "sk-known"}).text
    assert "env:OPENAI_API_KEY_2}" in convert(text, "c", {"OPENAI_API_KEY": "sk-another"}).text


NAMES = st.sampled_from(
    ["gpt-4o", "claude", "*", "openai/*", "gemini-*", "a[b]c", "1e3", "yes", "2026-01-01", "mödell"]
)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**12), st.floats(), st.text(max_size=12), st.just("os.environ/SOME_KEY")
)
PARAMS = st.fixed_dictionaries(
    {"model": st.sampled_from(["openai/gpt-4o", "azure/dep", "anthropic/*", "gemini/gemini-*", "gpt-4o", "bedrock/x"])},
    optional={
        "api_base": st.sampled_from(
            ["https://x.openai.azure.com", "http://h:80/v1/", "os.environ/AZURE_API_BASE", "x"]
        ),
        "extra_headers": st.dictionaries(st.text(max_size=8), VALUES, max_size=2),
        **dict.fromkeys(("api_key", "rpm", "tpm", "weight", "order", "timeout", "organization", "api_version"), VALUES),
    },
)
ENTRIES = st.lists(st.fixed_dictionaries({"model_name": NAMES, "litellm_params": PARAMS}), min_size=1, max_size=5)
ROUTER = st.fixed_dictionaries(
    {},
    optional={
        "fallbacks": st.lists(st.dictionaries(NAMES, st.lists(NAMES, max_size=3), max_size=2), max_size=3),
        "default_fallbacks": st.lists(NAMES, max_size=2),
        "model_group_alias": st.dictionaries(NAMES, NAMES, max_size=2),
        **dict.fromkeys(("routing_strategy", "num_retries", "allowed_fails", "cooldown_time", "timeout"), VALUES),
    },
)
GENERAL = st.dictionaries(st.just("master_key"), VALUES)


@settings(max_examples=50)
@given(ENTRIES, ROUTER, GENERAL)
def test_whatever_is_printed_loads(entries: list[Any], router: dict[str, Any], general: dict[str, Any]) -> None:
    text = yaml.safe_dump({"model_list": entries, "router_settings": router, "general_settings": general})
    try:
        imported = converted(text)
    except ConfigInvalid:
        return  # nothing of it can be served
    loaded(imported.text)
