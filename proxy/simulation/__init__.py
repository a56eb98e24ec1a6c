"""Simulated LLM upstreams: for the demo, the tests and the benchmarks. Imports nothing else of Serinus.

A `SimulatedUpstream` speaks the OpenAI and Anthropic APIs over a real socket, exactly enough that the vendors' own SDKs
parse every answer. What it says is meaningless; how fast it says it, and how it fails, is set by its `Behaviour`, which
may be replaced while it runs. Names of models ask for failures that come every time:

| model | answer |
|---|---|
| `status-NNN` (400 to 599) | an error with that status, in the dialect of the API; 429 has `retry-after: 1` |
| `hang` | none, until the caller goes |
| `cut` | a stream's first three tokens, or half of a whole answer; then the connection closes without an end |

Any other name is served, unless `Behaviour.strict_models`.
"""

from proxy.simulation.behaviour import Behaviour
from proxy.simulation.upstream import Seen, SimulatedUpstream

__all__ = ["Behaviour", "Seen", "SimulatedUpstream"]
