"""Simulated LLM upstreams: for the demo, the tests and the benchmarks. Imports nothing else of Serinus."""
