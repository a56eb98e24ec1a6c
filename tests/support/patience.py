"""How long a test waits for what must come: long, since a machine may be busy. It only ends what would never end."""

PATIENCE_S = 40.0  # a test as a whole has `timeout` in pyproject.toml
