"""What an operator sees: metrics, each declared once, and structured logs without secrets."""
