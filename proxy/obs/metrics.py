"""Every metric, declared once.

On the request path a metric is a plain slot of an object that is bound when a configuration is built:
prometheus_client's labels and histograms cost microseconds each. What the slots hold becomes Prometheus families only
when somebody scrapes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from proxy.obs.histogram import Histogram

# An LLM's answer takes from tens of milliseconds to many minutes; what we add is microseconds to a few milliseconds.
DURATION_BUCKETS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
FIRST_BYTE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CHUNK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
OVERHEAD_BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)


@dataclass(frozen=True, slots=True)
class SeriesLabels:
    """What tells one kind of traffic from another. All of it comes from the configuration, never from a caller."""

    route: str = ""
    pool: str = ""
    upstream: str = ""
    arm: str = ""

    def values(self) -> list[str]:
        return [self.route, self.pool, self.upstream, self.arm]


class Series:
    """The counts of one kind of traffic."""

    __slots__ = (
        "codes",
        "disconnects",
        "duration",
        "failures",
        "first_byte",
        "input_tokens",
        "output_tokens",
        "overhead",
        "per_chunk",
        "retried",
    )

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.disconnects = 0
        self.failures = 0  # that count against the upstream
        self.retried = 0  # those of them that the caller never saw: another upstream was asked
        self.input_tokens = self.output_tokens = 0  # as answers tell them, of those that are asked
        self.duration = Histogram(DURATION_BUCKETS_S)
        self.first_byte = Histogram(FIRST_BYTE_BUCKETS_S)
        self.overhead = Histogram(OVERHEAD_BUCKETS_S)
        self.per_chunk = Histogram(CHUNK_BUCKETS_S)  # a stream's mean

    def count(self, status: int) -> None:
        self.codes[status] = self.codes.get(status, 0) + 1


class MemberState(NamedTuple):
    """One upstream in one pool."""

    pool: str
    upstream: str
    up: bool  # neither ejected nor unhealthy
    ejections: int


class KeyState(NamedTuple):
    """One key of one upstream."""

    upstream: str
    key: str
    state: str


class PoolState(NamedTuple):
    name: str
    retries: Mapping[str | int, int]  # by why the try before failed
    panics: int


class CanaryState(NamedTuple):
    """One canary. By family, by arm, by result."""

    name: str
    weight: float  # 0..1
    state: str
    evidence: Mapping[str, float]
    latencies_s: Mapping[str, float]
    copies: Mapping[str, int]


class Metrics(Collector):
    """All counts of this process, and their rendering."""

    def __init__(self) -> None:
        self._series: dict[SeriesLabels, Series] = {}
        self.reloads: dict[str, int] = {"applied": 0, "rejected": 0}
        self.generation = 0
        self.inflight: Callable[[], Iterable[tuple[str, int]]] = tuple  # pairs of upstream name and open requests
        self.outcomes: Callable[[], Iterable[tuple[str, str, int]]] = tuple  # upstream's name, outcome, how many
        self.connections: Callable[[], int] = int  # open connections of callers
        self.workers: Callable[[], int] = int  # processes that serve
        self.members: Callable[[], Iterable[MemberState]] = tuple
        self.pools: Callable[[], Iterable[PoolState]] = tuple
        self.keys: Callable[[], Iterable[KeyState]] = tuple
        self.canaries: Callable[[], Iterable[CanaryState]] = tuple
        self.transitions: Mapping[tuple[str, str], int] = {}  # of canaries: how often what happened to which
        self.certificates: Callable[[], Iterable[tuple[str, float]]] = (
            tuple  # listener, end in seconds after 1970 began
        )
        self.cooldowns: Callable[[], Iterable[tuple[str, str, int]]] = tuple  # upstream, its key, how many
        self.spans: dict[str, int] = {}  # of traces, by what became of them
        self.rotations: Mapping[str, int] = {}  # of keys, by how they ended
        self.limited: Callable[[], Iterable[tuple[str, str, int]]] = tuple  # client, its limit, how many it refused
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def series(self, labels: SeriesLabels) -> Series:
        """The series with these labels; the same one each time, across reloads too."""
        return self._series.get(labels) or self._series.setdefault(labels, Series())

    def all_series(self) -> Iterable[tuple[SeriesLabels, Series]]:
        return self._series.items()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format that the `accept` header asks for."""
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # of a version that is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        yield from self._traffic()
        inflight = GaugeMetricFamily("serinus_upstream_inflight", "Requests open on an upstream", labels=["upstream"])
        for name, count in self.inflight():
            inflight.add_metric([name], count)
        yield inflight
        ended = CounterMetricFamily("serinus_upstream_outcomes", "How exchanges ended", labels=["upstream", "outcome"])
        for name, outcome, count in self.outcomes():
            ended.add_metric([name, outcome], count)
        yield ended
        yield from self._pools()
        yield from self._keys()
        yield from self._canaries()
        expiry = GaugeMetricFamily(
            "serinus_certificate_expiry_timestamp_seconds", "When a listener's certificate ends", labels=["listener"]
        )
        for listener, ends_s in self.certificates():
            expiry.add_metric([listener], ends_s)
        yield expiry
        limited = CounterMetricFamily("serinus_limited", "Requests refused, by limit", labels=["client", "limit"])
        for name, limit, count in self.limited():
            limited.add_metric([name, limit], count)
        yield limited
        yield GaugeMetricFamily("serinus_client_connections", "Open connections of callers", value=self.connections())
        yield GaugeMetricFamily("serinus_workers", "Processes that serve", value=self.workers())
        yield GaugeMetricFamily(
            "serinus_config_generation", "Number of the configuration in force", value=self.generation
        )
        reloads = CounterMetricFamily("serinus_config_reloads", "Reloads of the configuration", labels=["result"])
        for result, count in self.reloads.items():
            reloads.add_metric([result], count)
        yield reloads
        spans = CounterMetricFamily("serinus_trace_spans", "By what became of them", labels=["result"])
        for result, count in self.spans.items():
            spans.add_metric([result], count)
        yield spans

    def _keys(self) -> Iterator[Metric]:
        names = ["upstream", "key", "state"]
        states = GaugeMetricFamily("serinus_key_state", "1 for the state that a key is in", labels=names)
        for key in self.keys():
            states.add_metric(list(key), 1)
        rotations = CounterMetricFamily("serinus_key_rotations", "Rotations, by how they ended", labels=["result"])
        for result, count in self.rotations.items():
            rotations.add_metric([result], count)
        cooldowns = CounterMetricFamily("serinus_key_cooldowns", "Rests after a 429", labels=["upstream", "key"])
        for upstream, name, count in self.cooldowns():
            cooldowns.add_metric([upstream, name], count)
        yield from (states, rotations, cooldowns)

    def _canaries(self) -> Iterator[Metric]:
        weight = GaugeMetricFamily("serinus_canary_weight", "Its share of the requests, 0..1", labels=["canary"])
        state = GaugeMetricFamily(
            "serinus_canary_state", "1 for the state that a canary is in", labels=["canary", "state"]
        )
        evidence = GaugeMetricFamily(
            "serinus_canary_evidence", "That it is worse: 1 says nothing", labels=["canary", "family"]
        )
        latency = GaugeMetricFamily(
            "serinus_canary_rolling_latency_seconds", "The mean that bands go by", labels=["canary", "arm"]
        )
        moved = CounterMetricFamily("serinus_canary_transitions", "What happened to it", labels=["canary", "to"])
        copies = CounterMetricFamily("serinus_canary_copies", "Of requests, in a shadow", labels=["canary", "result"])
        for each in self.canaries():
            weight.add_metric([each.name], each.weight)
            state.add_metric([each.name, each.state], 1)
            for family, values in ((evidence, each.evidence), (latency, each.latencies_s), (copies, each.copies)):
                for label, value in values.items():
                    family.add_metric([each.name, label], value)
        for what, count in self.transitions.items():
            moved.add_metric(list(what), count)
        yield from (weight, state, evidence, latency, moved, copies)

    def _pools(self) -> Iterator[Metric]:
        names = ["pool", "upstream"]
        up = GaugeMetricFamily("serinus_upstream_healthy", "Is it in service?", labels=names)
        ejections = CounterMetricFamily("serinus_upstream_ejections", "Left out for its failures", labels=names)
        for member in self.members():
            up.add_metric([member.pool, member.upstream], member.up)
            ejections.add_metric([member.pool, member.upstream], member.ejections)
        retries = CounterMetricFamily("serinus_retries", "Requests sent again elsewhere", labels=["pool", "reason"])
        panics = CounterMetricFamily("serinus_pool_panics", "Picks among members all of whom were out", labels=["pool"])
        for pool in self.pools():
            for reason, count in pool.retries.items():
                retries.add_metric([pool.name, str(reason)], count)
            panics.add_metric([pool.name], pool.panics)
        yield from (up, ejections, retries, panics)

    def _traffic(self) -> Iterator[Metric]:
        names = ["route", "pool", "upstream", "arm"]
        requests = CounterMetricFamily("serinus_requests", "Requests answered, by status", labels=[*names, "code"])
        gone = CounterMetricFamily(
            "serinus_client_disconnects", "Callers that left before their answer ended", labels=names
        )
        duration = HistogramMetricFamily(
            "serinus_request_duration_seconds", "From a request's head to its answer's last byte", labels=names
        )
        first_byte = HistogramMetricFamily(
            "serinus_time_to_first_byte_seconds", "From sending upstream to its first byte", labels=names
        )
        overhead = HistogramMetricFamily("serinus_overhead_seconds", "Time added by the proxy itself", labels=names)
        per_chunk = HistogramMetricFamily(
            "serinus_time_per_output_chunk_seconds", "From a stream's first byte to its last, by event", labels=names
        )
        tokens = CounterMetricFamily("serinus_tokens", "Used, as answers tell it", labels=[*names, "direction"])
        for labels, series in self._series.items():
            values = labels.values()
            for status, count in series.codes.items():
                requests.add_metric([*values, str(status)], count)
            if labels.upstream:
                gone.add_metric(values, series.disconnects)
                for family, histogram in (
                    (duration, series.duration),
                    (first_byte, series.first_byte),
                    (overhead, series.overhead),
                    (per_chunk, series.per_chunk),
                ):
                    family.add_metric(values, histogram.cumulative(), histogram.sum_s)
            if series.input_tokens or series.output_tokens:  # else they are counted nowhere, which is not none used
                tokens.add_metric([*values, "input"], series.input_tokens)
                tokens.add_metric([*values, "output"], series.output_tokens)
        yield from (requests, gone, duration, first_byte, overhead, per_chunk, tokens)
