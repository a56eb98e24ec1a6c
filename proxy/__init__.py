"""Serinus: a load-balancing reverse proxy for LLM APIs with canary routing."""

__version__ = "0.1.0"
