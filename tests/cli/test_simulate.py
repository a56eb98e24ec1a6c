"""`serinus canary simulate`: a whole rollout in made-up time, told, drawn, and refused where it is asked wrongly."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from proxy.cli import main

SPEC = "baseline: a\ncanary: b\nsteps: [{set_weight: 20}, {set_weight: 100}]\n"
QUICK = "analysis: {min_step_duration: 1m, metrics: [{name: ttft, allowed_increase: 1.5}]}\n"


@pytest.fixture
def simulate(tmp_path: Path):
    def simulate(spec: str, *options: str, scenario: str = "") -> Result:
        (tmp_path / "spec.yaml").write_text(spec)
        if scenario:
            (tmp_path / "scenario.yaml").write_text(scenario)
            options = (*options, "--scenario", str(tmp_path / "scenario.yaml"))
        return CliRunner().invoke(main, ["canary", "simulate", str(tmp_path / "spec.yaml"), *options])

    return simulate


def test_a_canary_that_fails_fast_is_rolled_back_and_exits_with_3(simulate):
    result = simulate(SPEC, "--seed", "1", scenario="canary: {fast_failures: 0.5}\nduration: 30m\n")
    assert result.exit_code == 3
    *_, back, _, end = result.output.splitlines()
    assert "rolled_back: E=" in back
    assert end.startswith("failed at 0% after ")
    assert end.endswith("(seed 1)")


def test_a_rehearsal_tells_nobody_and_needs_no_secret_of_a_webhook(simulate):
    webhook = "webhooks: [{url: 'https://hooks.example.com', secret: env:NOT_SET}]\n"
    result = simulate(SPEC + webhook, "--seed", "1", scenario="canary: {fast_failures: 0.5}\nduration: 30m\n")
    assert "rolled_back" in result.output


def test_one_that_is_as_good_is_promoted(simulate):
    result = simulate(SPEC + QUICK, "--seed", "1", "--json", scenario="before: 10m\n")
    end = msgspec.json.decode(result.output)
    assert (result.exit_code, end["state"], end["weight"]) == (0, "succeeded", 1.0)
    assert any("promoted" in event for event in end["events"])


def test_the_same_seed_tells_the_same(simulate):
    one, other = (simulate(SPEC, "--seed", "7", scenario="duration: 5m\n").output for _ in range(2))
    assert one == other


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_it_is_drawn(simulate, tmp_path, kind):
    picture = tmp_path / f"out.{kind}"
    result = simulate(SPEC, "--seed", "1", "--plot", str(picture), scenario="duration: 5m\n")
    assert result.exit_code == 0
    assert picture.read_bytes()[:40].lstrip().startswith((b"<?xml", b"\x89PNG"))


def test_a_canary_of_a_configuration_is_found_by_its_name(simulate):
    one, two = "one: {baseline: a, canary: b, weight: 10}", "two: {baseline: c, canary: d, weight: 20}"
    config = f"upstreams: {{}}\ncanaries:\n  {one}\n  {two}\n"
    result = simulate(config)
    assert (result.exit_code, "has the canaries one, two: choose one with --canary" in result.output) == (2, True)
    result = simulate(config, "--canary", "two", "--seed", "1", scenario="duration: 1m\n")
    assert (result.exit_code, "20%" in result.output) == (0, True)


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("steps: 5", (), "baseline: Field required; canary: Field required; steps: Input should be a valid tuple"),
        ("a: [", (), "not valid YAML"),
        (SPEC, ("--plot", "x.gif"), ".gif is no picture that is drawn here: write .svg or .png"),
    ],
)
def test_what_is_wrong_is_told(simulate, spec, options, said):
    result = simulate(spec, *options, scenario="duration: 1m\n")
    assert (result.exit_code, said in result.output) == (1, True), result.output
