"""Where does the CPU time of a request, and of a streamed event, go?

    python bench/profile.py [--fast-lane on|off] [--seconds 12] [--rate 200] [--keep FOLDER]

Each load runs twice: once alone, for the CPU time a request or an event by the kernel's accounting, once under py-spy,
for the shares. The microseconds of a part are its share of the former. A minute in all, for one lane.

A sample belongs to the innermost frame whose part is known. What the interpreter, the allocator, libc or the standard
library does (run the bytecode, match a pattern, make and free objects) counts for the one who called it: py-spy cannot
tell these apart, nor calls that the C compiler took into their callers, nor interrupts, whose time falls to whoever was
running. The kernel's part are the samples inside a system call; the kernel's own count of its time stands below the
table: where the two are far apart, believe neither. Each sample stops the process, which makes it slower and its caches
colder, and some two thousand samples are few: shares under 1 % say only "little".
"""

import argparse
import asyncio
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import stand

ALONE_S, WARM_UP_S = 8, 2
CONNECTIONS, STREAMS = 64, 500
PY_SPY = shutil.which("py-spy", path=Path(sys.executable).parent) or shutil.which("py-spy")

SYSTEM_CALLS = {
    **dict.fromkeys(("write", "writev", "send", "sendto", "sendmsg"), "kernel: write"),
    **dict.fromkeys(("read", "readv", "recv", "recvfrom", "recvmsg"), "kernel: read"),
    **dict.fromkeys(("epoll_wait", "epoll_pwait", "epoll_ctl"), "kernel: epoll"),
    **dict.fromkeys(("accept4", "close", "connect", "ioctl", "setsockopt", "shutdown", "socket"), "kernel: the rest"),
    "syscall": "kernel: the rest",
}
OURS = re.compile(r"(?:^|.*/)proxy/(?P<module>\w+(?:/\w+)*)\.py$")
# Files as py-spy shows them: the source where the library has debug symbols, else the library.
PARTS = {
    re.compile(pattern): part
    for pattern, part in {
        r"_http_parser\..*|_http_writer\..*|(.*/)?aiohttp/.*": "aiohttp (with its parser's llhttp)",
        r"(_multidict|_quoting_c|_helpers_c)\..*|(.*/)?(multidict|yarl|propcache|frozenlist)/.*": "aiohttp's libraries",
        r"(url_)?parser\.(c|cpython.*)|(.*/)?httptools/.*": "httptools (with its llhttp)",
        r"loop\.(c|cpython.*)|(.*/)?uvloop/.*": "uvloop and libuv",
        r"(async|core|linux|loop-watcher|stream|tcp|timer|uv-common)\.c": "uvloop and libuv",
        r"_asyncio(module)?\..*|(.*/)?asyncio/.*": "asyncio (tasks and futures)",
        r"_core\..*|(.*/)?msgspec/.*": "msgspec",
        r"(.*/)?prometheus_client/.*": "prometheus_client",
    }.items()
}
FRAME = re.compile(r"(?P<name>.*) \((?P<file>[^()]*)\)")

Load = Callable[[stand.Proxy, float], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Profile:
    each_us: float
    kernel: float
    kernel_recorded: float
    counts: Counter[str]


def part_of(stack: str) -> str:
    frames = [found for found in map(FRAME.fullmatch, reversed(stack.split(";"))) if found]
    if frames and "libc" in frames[0]["file"]:
        call = re.sub(r"^_*(GI_+|libc_)?", "", frames[0]["name"])
        if call in SYSTEM_CALLS:
            return SYSTEM_CALLS[call]
    return next((part for frame in frames if (part := _part_of_file(frame["file"]))), "not known")


def _part_of_file(file: str) -> str | None:
    ours = OURS.match(file)
    if ours:
        return f"ours: {ours['module']}"
    return next((part for pattern, part in PARTS.items() if pattern.fullmatch(file)), None)


def samples_by_part(raw: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        counts[part_of(stack)] += int(samples)
    return counts


async def output(*command: str, core: int = stand.CORE_LOAD) -> tuple[str, str]:
    """What a command says, and what it complains of."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*stand.pinned(core), *command, stdout=pipe, stderr=pipe)
    out, errors = await process.communicate()
    if process.returncode:
        sys.exit(f"{command[0]}: {errors.decode().strip() or out.decode().strip()}")
    return out.decode(), errors.decode()


async def requests(proxy: stand.Proxy, seconds: float) -> int:
    url = f"http://127.0.0.1:{proxy.port}/v1/chat/completions"
    script = str(stand.PEERS / "post.lua")
    out, _ = await output("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}", "-s", script, url)
    if "Non-2xx" in out:
        sys.exit(out)
    return int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]


async def events(proxy: stand.Proxy, seconds: float) -> int:
    """Rounds of streams, five seconds each."""
    loop, seen = asyncio.get_running_loop(), 0
    end_s = loop.time() + seconds
    while loop.time() < end_s:
        out, _ = await output(sys.executable, str(stand.PEERS / "sse_load.py"), str(proxy.port), str(STREAMS))
        result = json.loads(out)
        if result["bad"] or result["done"] < STREAMS:
            sys.exit(f"answers lost or bad: {out}")
        seen += result["events"]
    return seen


async def counted(proxy: stand.Proxy, running: Awaitable[int]) -> tuple[int, float, float]:
    """What the load counted, the CPU seconds it took the proxy, and the kernel's part of them."""
    user_s, kernel_s = proxy.cpu_s()
    count = await running
    user_s, kernel_s = (after - before for after, before in zip(proxy.cpu_s(), (user_s, kernel_s), strict=True))
    return count, user_s + kernel_s, kernel_s / (user_s + kernel_s)


async def recorded(proxy: stand.Proxy, load: Load, args: argparse.Namespace, raw: Path) -> int:
    assert PY_SPY is not None
    running = asyncio.ensure_future(load(proxy, args.seconds + 2))  # noqa: TID251 - awaited below
    await asyncio.sleep(1)
    what = ("--pid", str(proxy.process.pid), "--duration", str(args.seconds), "--rate", str(args.rate))
    how = ("--native", "--nolineno", "--format", "raw", "--output", str(raw))
    # On the proxy's own core: on the other it gets its turns when the load sleeps, so mostly as the proxy writes.
    _, said = await output(PY_SPY, "record", *how, *what, core=stand.CORE_PROXY)
    if "behind in sampling" in said:
        print(f"py-spy did not keep up: try a --rate below {args.rate}")
    return await running


async def profile(proxy: stand.Proxy, load: Load, args: argparse.Namespace, raw: Path) -> Profile:
    await load(proxy, WARM_UP_S)
    count, cpu_s, kernel = await counted(proxy, load(proxy, ALONE_S))
    _, _, kernel_recorded = await counted(proxy, recorded(proxy, load, args, raw))
    return Profile(cpu_s / count * 1e6, kernel, kernel_recorded, samples_by_part(raw))


def report(title: str, unit: str, found: Profile) -> None:
    samples, each_us = found.counts.total(), found.each_us
    print(f"\n{title}: {each_us:.1f} µs CPU {unit}, {samples} samples\n  {'part':44}{'share':>8}{'µs':>9}")
    ours = [(part, count) for part, count in found.counts.most_common() if part.startswith("ours: ")]
    others = [(part, count) for part, count in found.counts.most_common() if not part.startswith("ours: ")]
    for part, count in (*others, ("ours, all of it", sum(count for _, count in ours)), *ours):
        print(f"  {part:44}{count / samples:8.1%}{count / samples * each_us:9.2f}")
    seen = sum(count for part, count in others if part.startswith("kernel: ")) / samples
    print(f"  in the kernel: {seen:.1%} of the samples; by its own accounting {found.kernel_recorded:.1%} meanwhile,")
    print(f"  and {found.kernel:.1%} without py-spy")


async def main(args: argparse.Namespace) -> None:
    folder = Path(args.keep or tempfile.mkdtemp(prefix="serinus-profile-"))
    folder.mkdir(parents=True, exist_ok=True)
    loads: tuple[tuple[str, str, str, Load], ...] = (
        ("unary", f"requests of {CONNECTIONS} connections", "a request", requests),
        ("stream", f"{STREAMS} streams, an event each 20 ms", "an event", events),
    )
    for mode, title, unit, load in loads:
        async with (
            stand.peer("upstream.py", mode, core=stand.CORE_LOAD) as upstream_port,
            stand.proxy(upstream_port, fast_lane=args.fast_lane == "on", core=stand.CORE_PROXY) as proxy,
        ):
            found = await profile(proxy, load, args, folder / f"{mode}.raw")
            report(f"{title}, fast lane {args.fast_lane}", unit, found)
    if args.keep is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast-lane", choices=("on", "off"), default="on")
    parser.add_argument("--seconds", type=int, default=12, help="how long each load is recorded")
    parser.add_argument("--rate", type=int, default=200, help="samples a second")
    parser.add_argument("--keep", help="leave the recordings there, for a flame graph")
    options = parser.parse_args()
    if PY_SPY is None:
        sys.exit("py-spy is missing: pip install py-spy")
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: bench/peers/setup.sh installs it")
    asyncio.run(main(options))
