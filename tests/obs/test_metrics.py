from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from proxy.obs.histogram import Histogram
from proxy.obs.metrics import (
    CHUNK_BUCKETS_S,
    DURATION_BUCKETS_S,
    FIRST_BYTE_BUCKETS_S,
    OVERHEAD_BUCKETS_S,
    Metrics,
    SeriesLabels,
)

LABELS = SeriesLabels("/v1", "chat", "openai")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def samples(metrics):
    """Every sample of the exposition, by name and labels."""
    text = metrics.render("")[0].decode()
    families = parser.text_string_to_metric_families(text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def labelled(labels=LABELS, **more):
    names = ("route", "pool", "upstream", "arm")
    return tuple(sorted({**dict(zip(names, labels.values(), strict=True)), **more}.items()))


# --- histograms --------------------------------------------------------------------------------------------------


def test_observation_on_a_bound_is_within_it():
    histogram = Histogram((0.1, 1))
    for seconds in (0.1, 0.5, 1, 1.0001, 99):
        histogram.observe(seconds)
    assert histogram.cumulative() == [("0.1", 1.0), ("1", 3.0), ("+Inf", 5.0)]
    assert histogram.sum_s == pytest.approx(101.6001)


@given(st.lists(st.floats(min_value=0, max_value=1e6)))
def test_buckets_never_fall_and_end_with_all(observed):
    histogram = Histogram(FIRST_BYTE_BUCKETS_S)
    for seconds in observed:
        histogram.observe(seconds)
    counts = [count for _, count in histogram.cumulative()]
    assert all(low <= high for low, high in pairwise(counts))
    assert counts[-1] == len(observed)
    assert counts[:-1] == [sum(seconds <= bound for seconds in observed) for bound in FIRST_BYTE_BUCKETS_S]


@pytest.mark.parametrize("bounds_s", [DURATION_BUCKETS_S, FIRST_BYTE_BUCKETS_S, OVERHEAD_BUCKETS_S, CHUNK_BUCKETS_S])
def test_bounds_rise(bounds_s):
    assert list(bounds_s) == sorted(set(bounds_s))


# --- the exposition ----------------------------------------------------------------------------------------------


def test_what_was_counted_is_exported():
    metrics = Metrics()
    series = metrics.series(LABELS)
    series.count(200)
    series.count(200)
    series.count(502)
    series.disconnects = 3
    series.duration.observe(2)
    series.first_byte.observe(0.2)
    series.overhead.observe(0.0002)
    series.per_chunk.observe(0.02)
    series.input_tokens, series.output_tokens = 140, 90
    metrics.generation, metrics.reloads["rejected"] = 7, 2
    metrics.cooldowns = lambda: [("openai", "main", 2)]
    metrics.inflight, metrics.connections = lambda: [("openai", 4)], lambda: 5
    found = samples(metrics)
    assert found["serinus_requests_total", labelled(code="200")] == 2
    assert found["serinus_requests_total", labelled(code="502")] == 1
    assert found["serinus_client_disconnects_total", labelled()] == 3
    assert found["serinus_request_duration_seconds_bucket", labelled(le="1")] == 0
    assert found["serinus_request_duration_seconds_bucket", labelled(le="2.5")] == 1
    assert found["serinus_request_duration_seconds_sum", labelled()] == 2
    assert found["serinus_time_to_first_byte_seconds_count", labelled()] == 1
    assert found["serinus_overhead_seconds_sum", labelled()] == 0.0002
    assert found["serinus_time_per_output_chunk_seconds_bucket", labelled(le="0.01")] == 0
    assert found["serinus_time_per_output_chunk_seconds_bucket", labelled(le="0.025")] == 1
    assert found["serinus_tokens_total", labelled(direction="input")] == 140
    assert found["serinus_tokens_total", labelled(direction="output")] == 90
    assert found["serinus_key_cooldowns_total", (("key", "main"), ("upstream", "openai"))] == 2
    assert found["serinus_upstream_inflight", (("upstream", "openai"),)] == 4
    assert found["serinus_client_connections", ()] == 5
    assert found["serinus_config_generation", ()] == 7
    assert found["serinus_config_reloads_total", (("result", "rejected"),)] == 2
    assert found["serinus_config_reloads_total", (("result", "applied"),)] == 0


def test_series_of_equal_labels_is_one_and_outlives_a_reload():
    metrics = Metrics()
    assert metrics.series(LABELS) is metrics.series(SeriesLabels("/v1", "chat", "openai"))
    assert metrics.series(LABELS) is not metrics.series(SeriesLabels("/v1", "chat", "azure"))


def test_traffic_without_an_upstream_has_counts_and_no_times():
    metrics = Metrics()
    metrics.series(SeriesLabels()).count(404)
    found = samples(metrics)
    assert found["serinus_requests_total", labelled(SeriesLabels(), code="404")] == 1
    assert not [name for name, _ in found if name.startswith("serinus_request_duration")]


def test_tokens_that_nobody_counts_are_not_exported_as_none():
    metrics = Metrics()
    metrics.series(LABELS).count(200)
    assert not [name for name, _ in samples(metrics) if name.startswith("serinus_tokens")]


def test_labels_may_hold_anything():
    metrics = Metrics()
    odd = SeriesLabels('/v1 gpt-"4\\*', "chat\n", "up")
    metrics.series(odd).count(200)
    assert samples(metrics)["serinus_requests_total", labelled(odd, code="200")] == 1


@pytest.mark.parametrize(
    ("accept", "content_type"), [("", "text/plain"), (OPENMETRICS, "application/openmetrics-text")]
)
def test_format_is_the_one_asked_for(accept, content_type):
    metrics = Metrics()
    series = metrics.series(LABELS)
    series.count(200)
    series.duration.observe(1)
    body, answered = metrics.render(accept)
    assert answered.startswith(content_type)
    parse = (openmetrics if accept else parser).text_string_to_metric_families
    names = {family.name for family in parse(body.decode())}
    assert {"serinus_request_duration_seconds", "process_open_fds", "python_info"} <= names


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=x", ";", ",,", "text/plain;version", "\xff"])
def test_odd_wish_is_answered_with_plain_text(accept):
    assert Metrics().render(accept)[1].startswith("text/plain")


def test_every_metric_of_ours_is_described():
    families = list(Metrics().collect())
    assert all(family.documentation for family in families)
    assert all(family.name.startswith("serinus_") for family in families)
