"""The parts of a status screen. docs/status-and-top.md says what each column means."""

from collections.abc import Iterable, Mapping

from rich.text import Text

from proxy.cli.section import Column, Row, Section
from proxy.cli.status_view import CANARY_COLOURS, COLOURS, Trends, lasted, number
from proxy.controlplane.canary_status import CanaryStatus
from proxy.controlplane.client_status import ClientTraffic
from proxy.controlplane.key_status import KeyStatus
from proxy.controlplane.status import MemberStatus, PoolStatus, Quantiles, Status, Traffic, UpstreamStatus

_TRAFFIC = (Column("req/s"), Column("failed"), Column("first byte ms\np50 / p95 / p99", 1))
_NOTHING = "-"


def sections(status: Status, trends: Trends) -> dict[str, Section]:
    """Those that have something to show."""
    found = {
        "upstreams": upstreams(status, trends),
        "pools": pools(status, trends),
        "canaries": canaries(status.canaries),
        "keys": keys(status),
        "clients": clients(status),
    }
    return {name: section for name, section in found.items() if section.rows}


def upstreams(status: Status, trends: Trends) -> Section:
    columns = (
        Column("upstream"),
        Column("health", words=12),
        Column("in\nflight"),
        *_TRAFFIC,
        Column("whole ms\np50 / p95", 3),
        Column("last\nfailed", 2),
        Column("retried\n/s", 4),
        Column("trend", 5),
        Column("answers", 6, words=20),
    )
    return Section("upstreams", columns, [_upstream(*of, trends) for of in status.upstreams.items()])


def _upstream(name: str, upstream: UpstreamStatus, trends: Trends) -> Row:
    traffic, failed_s = upstream.traffic, upstream.last_failure_ago_s
    cells: list[str | Text] = [
        name,
        coloured(upstream.health),
        str(upstream.inflight),
        *_traffic(traffic),
        _quantiles(traffic.duration_ms, "p50", "p95"),
        _NOTHING if failed_s is None else lasted(failed_s),
        _rate(traffic.retries_per_s, "yellow"),
        Text(trends.line(name), "cyan"),
        Text(codes(traffic), "dim"),
    ]
    targets = [
        Row((f"  {address}", coloured(target.state), str(target.inflight)), inflight=target.inflight)
        for address, target in upstream.targets.items()
    ]
    return Row(cells, traffic.requests_per_s, traffic.failed_percent, upstream.inflight, targets)


def pools(status: Status, trends: Trends) -> Section:
    """Each pool, and below it its members."""
    columns = (
        Column("pool"),
        Column("weight", 3),
        Column("share %\nasked / now", 2),
        Column("health", words=12),
        Column("in\nflight", 4),
        *_TRAFFIC,
        Column("retried\n/s", 5),
        Column("ejected\nso far", 6),
        Column("trend", 5),
    )
    return Section("pools and members", columns, [_pool(*of, status, trends) for of in status.pools.items()])


def _pool(name: str, pool: PoolStatus, status: Status, trends: Trends) -> Row:
    traffic = pool.traffic
    ejections = sum({member.upstream: member.ejections for member in pool.members}.values())
    cells: list[str | Text] = [
        Text(name, "bold"), "", "", "", str(pool.inflight), *_traffic(traffic),
        _rate(traffic.retries_per_s, "yellow"), str(ejections or _NOTHING),
    ]  # fmt: skip
    members = [_member(member, pool, status, trends) for member in pool.members]
    return Row(cells, traffic.requests_per_s, traffic.failed_percent, pool.inflight, members)


def _member(member: MemberStatus, pool: PoolStatus, status: Status, trends: Trends) -> Row:
    traffic, whole, upstream = member.traffic, pool.traffic.requests_per_s, status.upstreams[member.upstream]
    state = coloured(member.state if member.state != "up" else upstream.health)
    if member.ejected_s and member.state == "ejected":
        state.append(f" {lasted(member.ejected_s)}")
    now = f"{100 * traffic.requests_per_s / whole:2.0f}" if whole else " -"
    cells: list[str | Text] = [
        "  " + " ".join(filter(None, [member.upstream, member.model, member.key and f"key {member.key}"])),
        str(member.weight),
        f"{member.share_percent:.0f} / {now}",
        state,
        str(upstream.inflight),
        *_traffic(traffic),
        _rate(traffic.retries_per_s, "yellow"),
        str(member.ejections or _NOTHING),
        Text(trends.line(member.upstream), "cyan"),
    ]
    return Row(cells, traffic.requests_per_s, traffic.failed_percent, upstream.inflight)


def canaries(found: Mapping[str, CanaryStatus]) -> Section:
    columns = (
        Column("canary"),
        Column("state", words=12),
        Column("weight"),
        Column("step", 4),
        Column("worse\nE / back at"),
        Column("no worse\nleast / up at", 2),
        Column("p50 first byte ms\nbaseline / canary", 1),
        Column("errors %\nbaseline / canary", 1),
        Column("since", 5),
        Column("baseline → canary", 6, words=12),
        Column("waits for", 3, words=36),
    )
    return Section("canaries", columns, [_canary(*of) for of in found.items()])


def _canary(name: str, canary: CanaryStatus) -> Row:
    worse = proved = Text(_NOTHING)
    if canary.evidence is not None and canary.threshold is not None:
        colour = "bold red" if canary.evidence >= canary.threshold else ""
        worse = Text(f"{number(canary.evidence)} / {number(canary.threshold)}", colour)
    if canary.proofs and canary.proof_wanted is not None:
        proved = Text(f"{number(min(canary.proofs.values()))} / {number(canary.proof_wanted)}")
    arms = [canary.arms[arm] for arm in ("baseline", "canary") if arm in canary.arms]
    waits = [f"{arm.first_byte_ms['p50']:.0f}" if "p50" in arm.first_byte_ms else _NOTHING for arm in arms]
    errors = [_NOTHING if arm.error_percent is None else f"{arm.error_percent:.1f}" for arm in arms]
    cells: list[str | Text] = [
        name,
        Text(canary.state.replace("_", " "), CANARY_COLOURS.get(canary.state, "")),
        f"{canary.weight:g} %",
        f"{canary.step + 1} of {len(canary.steps)}" if canary.steps else _NOTHING,
        worse,
        proved,
        " / ".join(waits),
        " / ".join(errors),
        lasted(canary.since_s),
        f"{canary.baseline} → {canary.canary}{' (shadow)' if canary.mode == 'shadow' else ''}",
        "; ".join(canary.waits_for) or _NOTHING,
    ]
    return Row(cells, canary.weight, canary.evidence or 0.0)


def keys(status: Status) -> Section:
    columns = (
        Column("key"),
        Column("state", words=12),
        Column("in\nflight"),
        Column("answers\n/s", 1),
        Column("quota\nused", 1),
        Column("refused", 3, words=12),
        Column("last used\nago", 4),
        Column("value", 5, words=12),
        Column("rests, rotation", 1, words=28),
    )
    every = [(f"{name}/{key}", of) for name, upstream in status.upstreams.items() for key, of in upstream.keys.items()]
    return Section("keys", columns, [_key(*of) for of in every])


def _key(name: str, key: KeyStatus) -> Row:
    state = coloured(key.state)
    if key.state == "resting" and key.resting:
        state.append(f" {key.resting}")
    notes = [f"{model or 'any model'} {lasted(left_s)}" for model, left_s in key.cooling_s.items()]
    if key.rotation is not None:
        notes.append(" → ".join(filter(None, [key.rotation, key.candidate])))
    if key.draining:
        notes.append(f"{key.draining} in flight on older values")
    cells: list[str | Text] = [
        name,
        state,
        str(key.inflight),
        _rate(key.answers_per_s),
        f"{key.used_percent:.0f} %" if key.used_percent else _NOTHING,
        Text(", ".join(f"{status}: {count}" for status, count in key.refusals.items()) or _NOTHING),
        _NOTHING if key.last_used_ago_s is None else lasted(key.last_used_ago_s),
        Text(key.fingerprint, "dim"),
        "; ".join(notes) or _NOTHING,
    ]
    return Row(cells, key.answers_per_s, sum(key.refusals.values()), key.inflight)


def clients(status: Status) -> Section:
    columns = (
        Column("client"),
        Column("in\nflight"),
        Column("req/s"),
        Column("refused\n/s"),
        Column("refused\nso far", 3),
        Column("tokens\na minute", 2),
        Column("requests left\nof a minute's", 1),
        Column("tokens left\nof a minute's", 1),
        Column("at once\nof at most", 4),
    )
    note = f"{status.clients_quiet} never called" if status.clients_quiet else ""
    return Section("clients", columns, [_client(*of) for of in status.clients.items()], note)


def _client(name: str, client: ClientTraffic) -> Row:
    most = client.limits.get("concurrent")
    tokens = client.tokens_per_minute
    cells: list[str | Text] = [
        name,
        str(client.inflight),
        _rate(client.requests_per_s),
        _rate(client.refused_per_s, "yellow"),
        ", ".join(f"{count} {limit}" for limit, count in client.refused_by.items()) or _NOTHING,
        _NOTHING if tokens is None else f"{tokens:,.0f}",
        _left(client, "requests_per_minute"),
        _left(client, "tokens_per_minute"),
        _NOTHING if most is None else _warned(client.inflight < most, f"{client.inflight} / {most}"),
    ]
    return Row(cells, client.requests_per_s, client.refused_per_s, client.inflight)


def _left(client: ClientTraffic, limit: str) -> str | Text:
    if limit not in client.limits:
        return _NOTHING
    left, most = client.left.get(limit, 0), client.limits[limit]
    return _warned(left > most / 10, f"{left:,} / {most:,}")


def _warned(well: bool, text: str) -> Text:
    return Text(text, "" if well else "yellow")


def coloured(state: str) -> Text:
    return Text.assemble((state, COLOURS.get(state, "")))


def codes(traffic: Traffic) -> str:
    """`200: 593, 429: 3`."""
    return ", ".join(f"{status}: {count}" for status, count in traffic.codes.items())


def _rate(per_s: float, colour: str = "") -> Text:
    return Text(f"{per_s:.1f}", colour) if per_s else Text(_NOTHING)


def _traffic(traffic: Traffic) -> Iterable[str | Text]:
    yield f"{traffic.requests_per_s:.1f}"
    yield Text(f"{traffic.failed_percent:.1f} %", "red" if traffic.failed_percent else "")
    yield _quantiles(traffic.first_byte_ms, "p50", "p95", "p99")


def _quantiles(quantiles: Quantiles | None, *shares: str) -> str:
    if quantiles is None:
        return _NOTHING
    values = [getattr(quantiles, share) for share in shares]
    return " / ".join(f"{value:.1f}" if value < 10 else f"{value:.0f}" for value in values)
