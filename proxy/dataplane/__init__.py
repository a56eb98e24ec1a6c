"""The path of a request: accept, decide, send, relay, account. Never imports the control plane."""
