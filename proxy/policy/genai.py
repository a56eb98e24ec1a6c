"""What OpenTelemetry's conventions for generative AI call an API's operations and its providers.

https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/, of the semantic conventions 1.40.
"""

_OPERATIONS = (
    (b"/chat/completions", "chat"),
    (b"/completions", "text_completion"),
    (b"/embeddings", "embeddings"),
    (b"/responses", "chat"),
    (b"/messages", "chat"),
)
_PROVIDERS = (  # by how a host's name ends
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("amazonaws.com", "aws.bedrock"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "x_ai"),
    ("api.cohere.com", "cohere"),
    ("api.perplexity.ai", "perplexity"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
)


def operation_of(path: bytes) -> str | None:
    """What a call of this path does; None for one that asks no model."""
    return next((name for end, name in _OPERATIONS if path.endswith(end)), None)


def provider_of(host: str) -> str | None:
    """Whose API this host is, of those that have a name in the conventions."""
    host = host.lower()
    return next((name for end, name in _PROVIDERS if host == end or host.endswith(f".{end}")), None)
