"""How a status looks in a terminal."""

from collections import deque
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.controlplane.recorder import Audited
from proxy.controlplane.status import MemberStatus, Quantiles, Status, Traffic

COLOURS = {
    "ok": "green",
    "up": "green",
    "leaving": "yellow",
    "failing": "bold red",
    "idle": "dim",
    "unhealthy": "bold red",
    "ejected": "bold red",
}
COLOURS |= {"active": "green", "cooling": "yellow", "resting": "bold red", "quarantined": "bold red", "revoked": "dim"}
FIRST_BYTE = "first byte ms\np50 / p95 / p99"
TREND_LOOKS = 24
_BARS = " ▁▂▃▄▅▆▇█"


class Trends:
    """Each upstream's rate, look by look, as a line of bars."""

    def __init__(self) -> None:
        self._rates: dict[str, deque[float]] = {}

    def look(self, status: Status) -> None:
        for name, upstream in status.upstreams.items():
            self._rates.setdefault(name, deque(maxlen=TREND_LOOKS)).append(upstream.traffic.requests_per_s)

    def line(self, name: str) -> str:
        most = max((rate for rates in self._rates.values() for rate in rates), default=0.0)
        bars = [_BARS[round(rate / most * (len(_BARS) - 1))] if most else " " for rate in self._rates.get(name, ())]
        return "".join(bars).rjust(TREND_LOOKS)


def headline(status: Status) -> Text:
    """One line: is it well, and how much does it do?"""
    ready = Text("ready", "green") if status.ready else Text("not ready", "bold red")
    workers = f" · {status.workers} workers" if status.workers > 1 else ""
    return Text.assemble(
        (f"Serinus {status.version}", "bold"),
        " · ",
        ready,
        f" · up {lasted(status.uptime_s)} · configuration {status.generation} · {status.connections} callers"
        f"{workers} · last {status.window_s:.0f} s: {status.traffic.requests_per_s:.1f} req/s",
    )


def reload_line(status: Status) -> Text | None:
    """How the last reload went; None if there was none."""
    last = status.last_reload
    if last is None:
        return None
    if last["result"] == "applied":
        restart = last["need_restart"]
        return Text(f"last reload: applied{'; needs a restart: ' + ', '.join(restart) if restart else ''}", "dim")
    return Text("last reload: rejected: " + "; ".join(last["problems"]), "red")


def certificate_lines(status: Status) -> Iterable[Text]:
    """Of those that somebody has to look after."""
    for listener, certificate in status.certificates.items():
        if certificate.remark:
            yield Text(f"certificate of {listener}: {certificate.remark}", "red")


def upstreams_table(status: Status, trends: Trends | None = None) -> Table:
    """With a line of bars for each, if there are `trends`."""
    table = columns("upstream", "health", "in\nflight", "req/s", "failed", FIRST_BYTE, "whole ms\np50 / p95")
    if trends is not None:
        table.add_column("", no_wrap=True)
    for name, upstream in status.upstreams.items():
        traffic = upstream.traffic
        row: list[str | Text] = [
            name,
            _coloured(upstream.health),
            str(upstream.inflight),
            *_traffic_cells(traffic),
            _quantiles(traffic.duration_ms, "p50", "p95"),
        ]
        table.add_row(*row, *([] if trends is None else [Text(trends.line(name), "cyan")]))
        for address, target in upstream.targets.items():
            table.add_row(f"  {address}", _coloured(target.state), str(target.inflight))
    return table


def pools_table(status: Status, trends: Trends | None = None) -> Table:
    """Each pool and its members, with a line of bars for each if there are `trends`."""
    table = columns("pool", "weight", "share %\nasked / now", "health", "in\nflight", "req/s", "failed", FIRST_BYTE)
    if trends is not None:
        table.add_column("", no_wrap=True)
    for name, pool in status.pools.items():
        table.add_row(Text(name, "bold"), "", "", "", "", *_traffic_cells(pool.traffic))
        for member in pool.members:
            rate, whole = member.traffic.requests_per_s, pool.traffic.requests_per_s
            upstream = status.upstreams[member.upstream]
            row: list[str | Text] = [
                Text(f"  {_member_name(member)}"),
                str(member.weight),
                f"{member.share_percent:.0f} / " + (f"{100 * rate / whole:2.0f}" if whole else " -"),
                _coloured(member.state if member.state != "up" else upstream.health),
                str(upstream.inflight),
                *_traffic_cells(member.traffic),
            ]
            table.add_row(*row, *([] if trends is None else [Text(trends.line(member.upstream), "cyan")]))
    return table


def keys_table(status: Status) -> Table | None:
    """Each upstream's keys; None where there are none."""
    table = columns("key", "state", "in\nflight", "quota\nused", "rests, s")
    for name, upstream in status.upstreams.items():
        for key_name, key in upstream.keys.items():
            rests = ", ".join(f"{model or 'any model'} {left_s:.0f}" for model, left_s in key.cooling_s.items())
            used = f"{key.used_percent:.0f} %" if key.used_percent else "-"
            table.add_row(f"{name}/{key_name}", _coloured(key.state), str(key.inflight), used, Text(rests or "-"))
    return table if table.row_count else None


def clients_table(status: Status) -> Table | None:
    """The clients that have something under way, or were refused something; None where there are none."""
    clients = columns("client", "in\nflight", "refused")
    for name, client in status.clients.items():
        clients.add_row(name, str(client.inflight), Text(str(client.refused), "yellow" if client.refused else ""))
    return clients if clients.row_count else None


def _member_name(member: MemberStatus) -> str:
    """What tells it from the pool's other members."""
    return " ".join(filter(None, [member.upstream, member.model, member.key and f"key {member.key}"]))


def _coloured(health: str) -> Text:
    return Text(health, COLOURS.get(health, ""))


def _traffic_cells(traffic: Traffic) -> Iterable[str | Text]:
    yield f"{traffic.requests_per_s:.1f}"
    yield Text(f"{traffic.failed_percent:.1f} %", "red" if traffic.failed_percent else "")
    yield _quantiles(traffic.first_byte_ms, "p50", "p95", "p99")


def _quantiles(quantiles: Quantiles | None, *shares: str) -> str:
    if quantiles is None:
        return "-"
    values = [getattr(quantiles, share) for share in shares]
    return " / ".join(f"{value:.1f}" if value < 10 else f"{value:.0f}" for value in values)


def columns(first: str, *others: str) -> Table:
    """It fits 80 columns as long as the names are short."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", collapse_padding=True)
    table.add_column(first, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def lasted(seconds: float) -> str:
    """`47 s`, `12 min`, `5 h`, `3 d`."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds:.0f} s"


def audit_view(audited: Audited) -> RenderableType:
    """The last entries, and whether all of them are what was written."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("time", "who", "from", "what", "about"):
        table.add_column(column, no_wrap=column != "about", overflow="fold")
    for entry in audited.entries:
        about = " ".join(f"{name}={value}" for name, value in entry.about.items())
        table.add_row(entry.time, entry.who, entry.origin, entry.what, Text(about))
    whole = Text(f"{audited.path}: {audited.lines} lines, and the chain holds", "green")
    broken = Text(f"{audited.path} is not what was written: {audited.broken}", "bold red")
    return Group(table, broken if audited.broken else whole)
