"""`python -m proxy` is `serinus`."""

from proxy.cli import main

main()
