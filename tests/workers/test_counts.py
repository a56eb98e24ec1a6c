"""What workers counted, added up: whatever they count and whenever they tell it, the sums are the sums of all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.model.outcome import Outcome
from proxy.obs.metrics import Metrics, SeriesLabels
from proxy.state.live import Registry
from proxy.workers.counts import Counted, Sums

HISTOGRAMS = ("duration", "first_byte", "overhead", "per_chunk")
SUMS = ("disconnects", "failures", "retried", "input_tokens", "output_tokens")
NAMES = ("a", "b")
TARGETS = ("a", "b", "a@10.0.0.1:443", "a@[::1]:443", "b@10.0.0.1:443")
KEYS = (("k", "11111111"), ("k", "22222222"))
ABOVE_KNOWS = [("a", *KEYS[0]), ("b", *KEYS[0]), ("b", *KEYS[1])]  # not of a's second
LABELS = [SeriesLabels("r", "p", name, arm) for name in NAMES for arm in ("", "canary")]


class Process:
    """A process's registry and metrics; a worker's tell what they count, in the order in which they do."""

    def __init__(self) -> None:
        self.registry, self.metrics = Registry(), Metrics()
        self.counted = Counted(self.registry, self.metrics)
        self.metrics.inflight, self.metrics.outcomes = self.registry.inflight, self.registry.outcomes
        self.metrics.limited = self.registry.limited

    def live(self, name: str):
        upstream, _, address = name.partition("@")
        return self.registry.target(upstream, address) if address else self.registry.upstream(upstream)

    def key(self, upstream: str, name: str, fingerprint: str):
        return self.registry.upstream(upstream).key(name, self.registry.account(upstream), fingerprint)


def numbers(process: Process) -> tuple[dict, dict]:
    """All counts and all gauges, without those that are 0."""
    counts, gauges = {}, {}
    for labels, series in process.metrics.all_series():
        for name in SUMS:
            counts[labels, name] = getattr(series, name)
        counts |= {(labels, "code", status): count for status, count in series.codes.items()}
        for name in HISTOGRAMS:
            counts |= {(labels, name, i): count for i, count in enumerate(getattr(series, name).counts)}
            counts[labels, name, "s"] = getattr(series, name).sum_s
    counts |= {("spans", result): count for result, count in process.metrics.spans.items()}
    registry = process.registry
    for name, live in registry.upstreams.items():
        gauges[name, "inflight"], gauges[name, "pending"] = live.inflight, live.pending
        if live.upstream != name:
            continue
        counts |= {(name, outcome): count for outcome, count in live.outcomes.items()}
        counts |= {(name, "cooldowns", key): count for key, count in live.cooldowns.items()}
        for (key, mark), held in live.keys.items():
            if (name, key, mark) in ABOVE_KNOWS:
                gauges[name, key, mark], counts[name, key, mark] = held.inflight, held.answers
                counts |= {(name, key, mark, status): count for status, count in held.refusals.items()}
    for name, pool in registry.pools.items():
        gauges["pool", name], counts["panics", name] = pool.requests, pool.panics
        counts |= {("retries", name, why): count for why, count in pool.retries.items()}
        counts |= {("ejections", name, upstream): count for upstream, count in pool.ejections.items()}
    for name, client in registry.clients.items():
        counts |= {("limited", name, limit): count for limit, count in client.limited.items()}
        counts["requests of", name], counts["tokens of", name] = client.requests, client.tokens
    for name, canary in registry.canaries.items():
        gauges["canary", name] = canary.copies
        counts["sent", name], counts["failed", name] = canary.copies_sent, canary.copies_failed
    return tuple({place: count for place, count in all_.items() if count} for all_ in (counts, gauges))


def added(some: list[dict]) -> dict:
    found = {place: sum(each.get(place, 0) for each in some) for each in some for place in each}
    return {place: pytest.approx(count) for place, count in found.items() if count}


WORKERS = st.integers(0, 2)
BY = st.sampled_from([1, 1, -1])


class Telling(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.above = Process()
        for place in ABOVE_KNOWS:
            self.above.key(*place)
        self.sums = Sums(self.above.registry, self.above.metrics)
        self.workers = [Process() for _ in range(3)]
        self.ids = [1, 2, 3]
        self.counts_of_dead: list[dict] = []

    @rule(worker=WORKERS, labels=st.sampled_from(LABELS), status=st.sampled_from([200, 429, 502]))
    def answer(self, worker, labels, status):
        series = self.workers[worker].metrics.series(labels)
        series.count(status)
        series.failures += status == 502

    @rule(worker=WORKERS, labels=st.sampled_from(LABELS), name=st.sampled_from(SUMS))
    def count(self, worker, labels, name):
        series = self.workers[worker].metrics.series(labels)
        setattr(series, name, getattr(series, name) + 1)

    @rule(
        worker=WORKERS, labels=st.sampled_from(LABELS), name=st.sampled_from(HISTOGRAMS), seconds=st.floats(1e-5, 1e4)
    )
    def observe(self, worker, labels, name, seconds):
        getattr(self.workers[worker].metrics.series(labels), name).observe(seconds)

    @rule(worker=WORKERS, name=st.sampled_from(TARGETS), what=st.sampled_from(("inflight", "pending")), by=BY)
    def open_or_close(self, worker, name, what, by):
        live = self.workers[worker].live(name)
        setattr(live, what, max(0, getattr(live, what) + by))

    @rule(worker=WORKERS, name=st.sampled_from(TARGETS), outcome=st.sampled_from(Outcome))
    def end(self, worker, name, outcome):
        self.workers[worker].live(name).outcomes[outcome] += 1

    @rule(worker=WORKERS, name=st.sampled_from(NAMES), key=st.sampled_from(KEYS), by=BY)
    def hold_key(self, worker, name, key, by):
        live = self.workers[worker].key(name, *key)
        live.inflight, live.answers = max(0, live.inflight + by), live.answers + 1

    @rule(worker=WORKERS, name=st.sampled_from(NAMES), key=st.sampled_from(KEYS), status=st.sampled_from([401, 429]))
    def refuse_key(self, worker, name, key, status):
        self.workers[worker].key(name, *key).refusals[status] += 1
        cooldowns = self.workers[worker].live(name).cooldowns
        cooldowns[key[0]] = cooldowns.get(key[0], 0) + 1

    @rule(worker=WORKERS, why=st.sampled_from([429, 503, Outcome.TIMEOUT]), by=BY)
    def use_pool(self, worker, why, by):
        pool = self.workers[worker].registry.pool("p")
        pool.requests, pool.panics = max(0, pool.requests + by), pool.panics + 1
        pool.retries[why] = pool.retries.get(why, 0) + 1
        pool.ejections["a"] = pool.ejections.get("a", 0) + 1

    @rule(worker=WORKERS, name=st.sampled_from(NAMES), limit=st.sampled_from(("requests", "tokens", "concurrent")))
    def limit(self, worker, name, limit):
        self.workers[worker].registry.client(name).limited[limit] += 1

    @rule(worker=WORKERS, result=st.sampled_from(("exported", "failed", "dropped")))
    def trace(self, worker, result):
        spans = self.workers[worker].metrics.spans
        spans[result] = spans.get(result, 0) + 1

    @rule(worker=WORKERS, name=st.sampled_from(NAMES), tokens=st.integers(0, 9))
    def call(self, worker, name, tokens):
        client = self.workers[worker].registry.client(name)
        client.requests, client.tokens = client.requests + 1, client.tokens + tokens

    @rule(worker=WORKERS, by=BY)
    def copy(self, worker, by):
        canary = self.workers[worker].registry.canary("c")
        canary.copies, canary.copies_sent = max(0, canary.copies + by), canary.copies_sent + 1
        canary.copies_failed += by < 0

    @rule(worker=WORKERS)
    def tell(self, worker):
        self.sums.add(self.ids[worker], self.workers[worker].counted.changes())

    @precondition(lambda self: len(self.counts_of_dead) < 5)
    @rule(worker=WORKERS)
    def die(self, worker):
        """Having told all, so that it is known what it told; another one follows."""
        self.tell(worker)
        self.counts_of_dead.append(numbers(self.workers[worker])[0])
        self.sums.gone(self.ids[worker])
        self.workers[worker], self.ids[worker] = Process(), max(self.ids) + 1

    @invariant()
    def sums_are_those_of_all_once_all_have_told(self):
        for worker in range(3):
            self.tell(worker)
        counts, gauges = zip(*map(numbers, self.workers), strict=True)
        assert numbers(self.above) == (added([*counts, *self.counts_of_dead]), added(list(gauges)))


class TellingRarely(Telling):
    """Likewise, where much happens in between."""

    @invariant()
    def sums_are_those_of_all_once_all_have_told(self):
        pass

    def teardown(self):
        if hasattr(self, "workers"):
            Telling.sums_are_those_of_all_once_all_have_told(self)


TestTelling = Telling.TestCase
TestTellingRarely = TellingRarely.TestCase


@pytest.fixture
def worker() -> Process:
    return Process()


@pytest.fixture
def above() -> Process:
    return Process()


@pytest.fixture
def sums(above: Process) -> Sums:
    return Sums(above.registry, above.metrics)


def test_nothing_is_told_where_nothing_happened(worker):
    worker.registry.upstream("a")
    worker.metrics.series(LABELS[0]).count(200)
    assert len(worker.counted.changes()) == 1
    assert worker.counted.changes() == []


def test_a_worker_that_is_gone_takes_back_what_it_had_open_and_no_more(worker, above, sums):
    other = Process()
    for process in (worker, other):
        process.live("a@10.0.0.1:443").inflight = 3
        process.live("a").outcomes[Outcome.OK] = 7
        process.registry.pool("p").requests = 3
        process.registry.pool("p").panics = 1
    sums.add(1, worker.counted.changes())
    sums.add(2, other.counted.changes())
    sums.gone(1)
    sums.gone(1)
    sums.gone(99)
    assert above.registry.inflight() == [("a", 3)]
    assert above.registry.upstream("a").outcomes[Outcome.OK] == 14
    assert (above.registry.pool("p").requests, above.registry.pool("p").panics) == (3, 2)


def test_what_was_forgotten_and_comes_back_takes_nothing_from_what_was_counted(worker, above, sums):
    worker.live("a").outcomes[Outcome.OK] = 5
    worker.registry.client("c").limited["tokens"] = 5
    sums.add(1, worker.counted.changes())
    worker.registry.forget_except((), {})
    worker.registry.forget_clients_except(())
    sums.add(1, worker.counted.changes())
    worker.live("a").outcomes[Outcome.OK] = 2
    worker.registry.client("c").limited["tokens"] = 2
    sums.add(1, worker.counted.changes())
    assert above.registry.outcomes()[0] == ("a", Outcome.OK.value, 7)
    assert above.registry.client("c").limited["tokens"] == 7


@given(st.lists(st.booleans(), max_size=12))
def test_a_key_that_is_known_no_more_and_comes_back_is_held_by_no_less_than_nobody(steps):
    """It is forgotten above when it is rotated away; those who hold it may still."""
    worker, above = Process(), Process()
    sums = Sums(above.registry, above.metrics)
    held, known = worker.key("a", *KEYS[0]), above.key("a", *KEYS[0])
    for comes_back in steps:
        held.inflight += 1
        sums.add(1, worker.counted.changes())
        del above.registry.upstream("a").keys[KEYS[0]]
        if comes_back:
            held.inflight -= 1
            sums.add(1, worker.counted.changes())
        known = above.key("a", *KEYS[0])
    while held.inflight:
        held.inflight -= 1
        sums.add(1, worker.counted.changes())
        assert known.inflight == held.inflight
    assert known.inflight == 0


def test_the_sums_are_rendered_as_if_one_process_had_counted_all(above, sums):
    alone = Process()

    def serve(process: Process, number: int) -> None:
        series = process.metrics.series(LABELS[0])
        for status in ((200, 200, 502), (200, 429))[number - 1]:
            series.count(status)
            series.duration.observe(0.25 * number)
        series.disconnects += number
        for target in ("a", "a@10.0.0.1:443"):
            process.live(target).inflight += number
        process.live("a").outcomes[Outcome.OK] += number
        process.registry.client("c").limited["tokens"] += number

    for number in (1, 2):
        worker = Process()
        serve(worker, number)
        serve(alone, number)
        sums.add(number, worker.counted.changes())
    rendered = [line for line in lines(above) if not line.startswith("#")]
    assert rendered == [line for line in lines(alone) if not line.startswith("#")]
    assert 'serinus_upstream_inflight{upstream="a"} 6.0' in rendered
    assert 'serinus_limited_total{client="c",limit="tokens"} 3.0' in rendered


def lines(process: Process) -> list[str]:
    rendered = process.metrics.render("")[0].decode()
    return sorted(line for line in rendered.splitlines() if "serinus_" in line)
