"""Several machines behind one name, `localhost`, and a proxy for which each of them is a target."""

from collections import Counter

from tests.support.raw import RawCaller, ask, get
from tests.support.running import config_for
from tests.support.scripted import Held, answering, whole

ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
ALL = "resolve: {all: true}"


def naming(address):
    """An upstream that says where it is."""
    return answering(whole(address.encode()))


def config(machine, upstream=ALL, **options):
    return config_for(f"http://localhost:{machine.port}/v1", upstream=upstream, **options)


async def served(running, count, request=None):
    """How many of so many requests each machine answered."""
    answers = [await ask(running.port, request or get()) for _ in range(count)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.field(b"x-serinus-upstream") for answer in answers} == {b"up0"}
    return Counter(answer.payload.decode() for answer in answers)


async def looked(running, after_s=31):
    """Let time pass, and look up what is due by then."""
    running.pass_time(after_s)
    await running.serinus.targets.look(running.serinus.reloader.rebuild)


def targets(running):
    """The targets as the status shows them: their states and open requests."""
    shown = running.serinus.admin.status(60).upstreams["up0"].targets
    return {address: (target.state, target.inflight) for address, target in shown.items()}


def lives(running):
    return set(running.serinus.registry.upstreams)


async def begun(running):
    """A caller in the middle of a stream."""
    caller = await RawCaller.connect(running.port)
    await caller.send(get())
    await caller.read_until(Held.FIRST)
    return caller
