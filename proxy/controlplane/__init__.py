"""What steers the path: configuration, reload, probes, the admin API. Never imports the data plane."""
