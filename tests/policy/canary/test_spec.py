"""What an operator writes: all of it is read, and what is wrong is named with its place and what would be right."""

from copy import deepcopy
from typing import Any

import pytest
import yaml

from proxy.policy.canary import CanarySpec
from proxy.policy.canary.analysis import Metric
from proxy.policy.canary.spec import Slo, Step, WarmUp

EXAMPLE: dict[str, Any] = yaml.safe_load("""
baseline: chat
canary: chat-next
mode: canary
unit: request
epoch: 1h
force_header: false
warmup: {min_requests: 200, duration: 5m, max_duration: 30m, weight: 1}
steps: [{set_weight: 5}, {set_weight: 25}, {pause: {}}, {set_weight: 50}, {set_weight: 100}]
analysis:
  method: evidence
  alpha: 0.01
  alpha_advance: 0.05
  interval: 5s
  min_samples: {canary: 50, baseline: 200}
  min_step_duration: 5m
  max_step_duration: 12h
  on_inconclusive: pause
  metrics:
    - {name: ttft, allowed_increase: 1.10}
    - {name: time_per_chunk, allowed_increase: 1.10}
    - {name: errors, allowed_delta: 0.01}
    - {name: stalls, max_gap: 15s, allowed_delta: 0.005}
slo: {ttft_p95: 4s, error_rate: 0.02}
bake: {duration: 1h}
webhooks: [{url: "https://example.com/told", events: [rolled_back, promoted]}]
""")
BANDS: dict[str, Any] = yaml.safe_load("""
baseline: a
canary: b
analysis: {method: bands, interval: 5m, window: 5m, metric: ttft, initial: 10, min: 1, max: 100,
           bands: [{below: 50ms, change: +10}, {below: 100ms, change: -5}], otherwise: alert}
""")


def changed(path: str, value: object, example: dict[str, Any] = EXAMPLE) -> dict[str, Any]:
    found = deepcopy(example)
    at = found
    *above, last = path.split(".")
    for name in above:
        at = at.setdefault(name, {})
    at[last] = value
    return found


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in EXAMPLE.items() if name not in names}


def test_the_example_is_read_whole():
    spec = CanarySpec.parse(EXAMPLE)
    assert (spec.baseline, spec.canary, spec.unit, spec.mode, spec.sticky) == (
        "chat",
        "chat-next",
        "request",
        "canary",
        False,
    )
    assert spec.warmup == WarmUp(0.01, 200, 300.0, 1800.0)
    assert spec.steps == (Step(0.05), Step(0.25), Step(), Step(0.5), Step(1.0))
    assert spec.analysis.metrics[3] == Metric("stalls", 0.005, 15.0)
    assert spec.slo == Slo(4.0, pytest.approx(0.05), 0.02)
    assert (spec.bake_s, spec.epoch_s) == (3600.0, 3600.0)
    assert spec.judgements == 5  # three steps, the warm-up, one in reserve


def test_what_the_analysis_leaves_out_is_what_the_example_shows():
    assert CanarySpec.parse(without("analysis")).analysis == CanarySpec.parse(EXAMPLE).analysis


def test_a_warm_up_an_slo_and_a_bake_are_there_where_they_are_written():
    spec = CanarySpec.parse(without("warmup", "slo", "bake"))
    assert (spec.warmup, spec.slo, spec.bake_s, spec.judgements) == (None, None, 0.0, 4)
    assert CanarySpec.parse(changed("warmup", {})).warmup == WarmUp()


def test_a_weight_alone_is_a_fixed_split():
    spec = CanarySpec.parse({"baseline": "a", "canary": "b", "weight": 10})
    assert (spec.steps, spec.analysis.method) == ((Step(0.1),), "none")


def test_sticky_units_have_a_guard_that_is_paid_for():
    assert CanarySpec.parse(changed("unit", "header:X-Tenant")).judgements == 6


def test_bands_are_read():
    bands = CanarySpec.parse(BANDS).analysis.bands
    assert bands is not None
    assert (bands.initial, bands.lowest, bands.highest, bands.window_s) == (0.1, 0.01, 1.0, 300.0)
    assert [(band.below_s, band.change) for band in bands.bands] == [(0.05, 0.1), (0.1, -0.05)]
    assert CanarySpec.parse(BANDS).analysis.interval_s == 300.0


def test_another_spec_has_another_hash_and_another_order_does_not():
    one = CanarySpec.parse(EXAMPLE)
    assert CanarySpec.parse(dict(reversed(EXAMPLE.items()))).hash == one.hash
    assert CanarySpec.parse(changed("analysis.alpha", 0.02)).hash != one.hash


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("baseline", None, "baseline: not a name: write up to 64 letters"),
        ("baseline", "chat-next", "the whole: chat-next is the baseline and the canary: name another pool"),
        ("unit", "header:", "unit: no unit: write request, conversation, client or header:NAME"),
        ("epoch", "1 hour", "epoch: '1 hour' is not a duration: write 1h"),
        ("mode", "mirror", "mode: Input should be 'canary' or 'shadow'"),
        ("force_header", "yes", "force_header: Input should be a valid boolean"),
        ("weight", 10, "the whole: several are there: write one of steps, weight and analysis: {method: bands}"),
        ("warmup.duration", 5, "warmup.duration: 5 is not a duration: write 5s, 250ms or 2m"),
        ("warmup.max_duration", "1m", "warmup: max_duration is shorter than duration: write at least as much"),
        ("warmup.weight", 100, "warmup.weight: Input should be less than or equal to 99"),
        ("steps", [], "the whole: none of them is there: write one of steps, weight and analysis: {method: bands}"),
        (
            "steps",
            [{"pause": {}}, {"set_weight": 5}],
            "the whole: steps begin with a pause: write set_weight first",
        ),
        (
            "steps",
            [{"set_weight": 25}, {"set_weight": 5}],
            "the whole: steps: 5 comes after 25: write weights that rise",
        ),
        ("steps", [{"set_weight": 101}], "steps.0.set_weight: Input should be less than or equal to 100"),
        ("steps", [{"wait": 5}], "steps.0.wait: Extra inputs are not permitted"),
        (
            "steps",
            [{"set_weight": 100}, {"pause": {}}],
            "the whole: steps: a pause after 100 holds nothing: write it before",
        ),
        ("steps", 5, "steps: Input should be a valid tuple"),
        ("analysis.alpha", 1, "analysis.alpha: Input should be less than or equal to 0.5"),
        ("analysis.alpha", "low", "analysis.alpha: Input should be a valid number"),
        ("analysis.method", "magic", "analysis.method: Input should be 'evidence', 'bands' or 'none'"),
        (
            "analysis.min_samples.canary",
            -1,
            "analysis.min_samples.canary: Input should be greater than or equal to 0",
        ),
        (
            "analysis.max_step_duration",
            "1m",
            "analysis: max_step_duration is shorter than min_step_duration: write at least as much",
        ),
        (
            "analysis.metrics",
            [{"name": "ttft", "allowed_increase": 0.9}],
            "analysis.metrics.0.allowed_increase: Input should be greater than or equal to 1",
        ),
        (
            "analysis.metrics",
            [{"name": "ttft"}, {"name": "ttft"}],
            "analysis: metrics: one is there twice: leave one",
        ),
        (
            "analysis.metrics",
            [{"name": "errors", "allowed_increase": 2}],
            "analysis.metrics.0: errors is a share of requests: write allowed_delta, such as 0.01",
        ),
        ("slo.ttft_p95", 4, "slo.ttft_p95: 4 is not a duration: write 4s, 250ms or 2m"),
        ("slo.ttft_p100", "4s", "slo.ttft_p100: Extra inputs are not permitted"),
        ("webhooks", [{"url": "https://x", "events": ["moved"]}], "webhooks.0.events.0: Input should be 'began', "),
        ("unti", "client", "unti: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_what_would_be_right(path, value, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        CanarySpec.parse(changed(path, value))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "steps",
            [{"set_weight": 5}],
            "the whole: several are there: write one of steps",
        ),
        ("analysis.bands", [], "analysis: bands are missing: write bands"),
        (
            "analysis.bands",
            [{"below": "1s", "change": 1}, {"below": "1s", "change": 2}],
            "analysis: bands: each must end above the one before it",
        ),
        (
            "analysis.bands",
            [{"below": "1s", "change": "up"}],
            "analysis.bands.0.change: Input should be a valid number",
        ),
        ("analysis.initial", 0, "analysis: initial is not within min and max: write one that is"),
    ],
)
def test_what_is_wrong_with_bands_as_well(path, value, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        CanarySpec.parse(changed(path, value, BANDS))
    assert str(error.value).startswith(message)


def test_what_is_no_mapping_is_said_to_be_none():
    with pytest.raises(ValueError, match="the whole: Input should be a valid dictionary"):
        CanarySpec.parse([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="baseline: Field required"):
        CanarySpec.parse({})
