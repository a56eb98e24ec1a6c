"""Decisions, and nothing else: no await, no I/O, no clock of its own. Time and chance come in as arguments."""
