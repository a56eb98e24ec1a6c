"""A rollout before it is real: the very object that serves, driven by made-up requests and a made-up clock."""
