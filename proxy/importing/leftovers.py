"""What a LiteLLM configuration says and ours has no place for: each by its name, with why and what to do instead.

The names are those of LiteLLM's documents (proxy/config_settings). One that is not here is named all the same.
"""

from typing import Any

from proxy.importing.source import Source

_NO_BODY = "LiteLLM puts it into each request; Serinus changes no byte of a body: let callers send it"
_PRICE = "Serinus counts tokens, not money"
_DATABASE = "Serinus keeps no database: clients and their limits stand in the configuration"
_REDIS = "Serinus shares nothing between machines: each has its own counts. Take out what redis was for"
_CALLBACK = "no callbacks: docs/metrics.md has Prometheus' metrics, tracing is OTLP, log.access a line for each request"
_CACHE = "no answers are cached: providers' prompt caches are, with balance: prefix_hash"
_GUARDRAIL = "no guardrails: Serinus looks into no prompt or answer"
_FROM_ANSWER = "Serinus does not read why an answer was refused: the caller sees it and decides"
_NOT_NEEDED = "not needed here"
_LOG = "see log.level and log.format"
_BUDGET = "no budgets in money: clients have limits in requests and tokens a minute"

_BODY = (
    *("temperature", "max_tokens", "max_completion_tokens", "top_p", "top_k", "seed", "stop", "n", "user", "tools"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "response_format", "extra_body", "reasoning_effort"),
    *("thinking", "tool_choice", "stream", "stream_options", "metadata", "drop_params", "additional_drop_params"),
    *("cache_control_injection_points", "merge_reasoning_content_in_choices", "allowed_openai_params", "dimensions"),
)
_CONVERTED = (
    *("model", "api_key", "api_base", "base_url", "api_version", "custom_llm_provider", "organization", "timeout"),
    *("rpm", "tpm", "weight", "order", "extra_headers", "headers", "litellm_credential_name"),
)
_PARAMS = {
    **dict.fromkeys(_BODY, _NO_BODY),
    "stream_timeout": "one limit holds for both: timeouts.first_byte, until the first byte of any answer",
    "max_retries": "the pool's retry.attempts says how often a request is tried in all",
    "num_retries": "the pool's retry.attempts says how often a request is tried in all",
    "max_parallel_requests": "write it as max_connections of the upstream",
    **dict.fromkeys(
        ("azure_ad_token", "tenant_id", "client_id", "client_secret"),
        "Serinus fetches no tokens: use an API key of the resource",
    ),
    **dict.fromkeys(("input_cost_per_token", "output_cost_per_token", "input_cost_per_second"), _PRICE),
    **dict.fromkeys(("max_budget", "budget_duration"), _BUDGET),
    **dict.fromkeys(("mock_response", "mock_timeout"), "nothing is made up: its provider is called"),
    "tags": "write a route with headers for it: which requests it takes, and its pool",
    "guardrails": _GUARDRAIL,
    "use_in_pass_through": _NOT_NEEDED,
    "ssl_verify": "write it as tls: {verify: false} or tls: {ca: FILE} of the upstream",
    "region_name": "Serinus knows no regions: leave out the deployments that must not be used",
    "model_info": _NOT_NEEDED,
}
_ENTRY = {
    "model_info": "prices, modes and ids are not needed here; for an access group list models under clients",
    "guardrails": _GUARDRAIL,
}
_GENERAL = {
    **dict.fromkeys(
        ("database_url", "store_model_in_db", "database_connection_pool_limit", "database_connection_timeout"),
        "keys that were issued into the database are not in this file. LiteLLM keeps each as its SHA-256, which is "
        "what key_hash takes: see docs/migrate-from-litellm.md",
    ),
    **dict.fromkeys(("disable_spend_logs", "disable_spend_updates", "maximum_spend_logs_retention_period"), _DATABASE),
    **dict.fromkeys(
        ("alerting", "alerting_threshold", "alerting_args", "alert_types"),
        "alerts are Prometheus' to send: see docs/alerts.md",
    ),
    **dict.fromkeys(
        ("custom_auth", "enable_jwt_auth", "litellm_jwtauth"), "callers show a key, or a certificate (tls.client_ca)"
    ),
    "pass_through_endpoints": "write an upstream and a route with its prefix for each",
    "global_max_parallel_requests": "write it as downstream.max_connections",
    "max_parallel_requests": "write it as concurrent, in each client's limits",
    "completion_model": "callers name their model",
    "background_health_checks": "write health: {path: /models} at each upstream that is to be asked",
    "health_check_interval": "write it as health: {interval: …} at each upstream that is to be asked",
    "forward_client_headers_to_llm_api": "callers' headers always go on, save those of the connection",
    "set_verbose": _LOG,
}
_LITELLM = {
    **dict.fromkeys(("callbacks", "success_callback", "failure_callback", "service_callbacks"), _CALLBACK),
    **dict.fromkeys(("turn_off_message_logging", "redact_user_api_key_info"), "Serinus logs no body and no key"),
    **dict.fromkeys(("cache", "cache_params"), _CACHE),
    "drop_params": "nothing is taken out of a body: a provider that does not know a parameter says so to the caller",
    "modify_params": "nothing is changed in a body",
    **dict.fromkeys(("context_window_fallbacks", "content_policy_fallbacks"), _FROM_ANSWER),
    **dict.fromkeys(("max_budget", "budget_duration", "default_internal_user_params", "max_end_user_budget"), _BUDGET),
    **dict.fromkeys(("set_verbose", "json_logs", "telemetry"), _LOG),
    "ssl_verify": "write it as tls: {verify: false} or tls: {ca: FILE} of the upstreams",
    "default_team_settings": _CALLBACK,
    "model_alias_map": "write a route for each name, to a pool whose members have the model",
    "guardrails": _GUARDRAIL,
    "force_ipv4": "addresses are the system's to choose",
}
_ROUTER = {
    **dict.fromkeys(("redis_host", "redis_password", "redis_port", "redis_url", "cache_responses"), _REDIS),
    **dict.fromkeys(("context_window_fallbacks", "content_policy_fallbacks"), _FROM_ANSWER),
    "enable_pre_call_checks": "limits of keys always hold; prompts are not measured against context windows",
    "retry_policy": "retry.on lists what is tried again, for all pools alike",
    "model_group_retry_policy": "write retry at the pool",
    "allowed_fails_policy": "outlier counts what is the upstream's fault: no connection, no valid answer, 5xx",
    "retry_after": "another try comes at once, elsewhere; a 429's own retry-after is kept",
    "routing_strategy_args": "balance: peak_ewma needs none",
    "stream_timeout": _PARAMS["stream_timeout"],
    "max_fallbacks": "each pool has one fallback",
    **dict.fromkeys(("enable_tag_filtering", "tag_filtering_match_any"), _PARAMS["tags"]),
    "set_verbose": _LOG,
}
_TOP = {
    "guardrails": _GUARDRAIL,
    "include": "import each of these files as well, and put the parts together",
    "callback_settings": _CALLBACK,
    **dict.fromkeys(
        ("files_settings", "finetune_settings", "assistant_settings", "batch_settings"),
        "calls on files, batches and assistants go by the same routes, to who made the thing",
    ),
    **dict.fromkeys(
        ("mcp_servers", "mcp_tools", "search_tools", "vector_store_registry", "prompts", "agents"),
        "Serinus relays calls of models only",
    ),
}
_KNOWN_TOP = ("model_list", "router_settings", "litellm_settings", "general_settings", "environment_variables")
_SECTIONS: tuple[tuple[str, dict[str, str], tuple[str, ...]], ...] = (
    ("general_settings", _GENERAL, ("master_key",)),
    ("litellm_settings", _LITELLM, ("request_timeout", "num_retries", "fallbacks", "default_fallbacks", "allowed_fails",
                                    "cooldown_time")),
    ("router_settings", _ROUTER, ("routing_strategy", "num_retries", "allowed_fails", "cooldown_time", "fallbacks",
                                  "timeout", "model_group_alias", "default_fallbacks", "disable_cooldowns")),
)  # fmt: skip
_UNKNOWN = "nothing here does what it does"


def _is_off(value: object) -> bool:
    """Says nothing. A number does, 0 too."""
    return value is None or value is False or value in ([], {}, "")


def of_deployment(source: Source, path: tuple[str | int, ...], entry: dict[str, Any]) -> None:
    """Names what one entry of model_list says beyond what was converted."""
    for name, value in entry["litellm_params"].items():
        if name not in _CONVERTED and not _is_off(value):
            source.dropped((*path, "litellm_params", name), _PARAMS.get(name, _UNKNOWN))
    for name, value in entry.items():
        if name not in ("model_name", "litellm_params", "rpm", "tpm", "weight") and not _is_off(value):
            source.dropped((*path, name), _ENTRY.get(name, _UNKNOWN))


def of_all(source: Source) -> None:
    """Names what the rest of the file says beyond what was converted."""
    for name, value in source.data.items():
        if name not in (*_KNOWN_TOP, "credential_list") and not _is_off(value):
            source.dropped((name,), _TOP.get(name, _UNKNOWN))
    for section, known, converted in _SECTIONS:
        for name, value in source.section(section).items():
            if name not in converted and not _is_off(value):
                source.dropped((section, name), known.get(name, _UNKNOWN))
    for name in source.section("environment_variables"):
        what = "put it into the environment of `serinus serve`, or into its --env-file, if it is needed at all"
        source.to_do(("environment_variables", name), what)
