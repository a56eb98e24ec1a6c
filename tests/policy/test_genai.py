import pytest

from proxy.policy.genai import operation_of, provider_of


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        (b"/v1/chat/completions", "chat"),
        (b"/v1/completions", "text_completion"),
        (b"/v1/embeddings", "embeddings"),
        (b"/v1/responses", "chat"),
        (b"/anthropic/v1/messages", "chat"),
        (b"/v1/models", None),
        (b"/v1/responses/resp_1", None),
    ],
)
def test_an_operation_is_known_by_its_path(path, operation):
    assert operation_of(path) == operation


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("API.OpenAI.com", "openai"),
        ("my-resource.openai.azure.com", "azure.ai.openai"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "aws.bedrock"),
        ("api.anthropic.com", "anthropic"),
        ("notapi.openai.com.example", None),
        ("evilapi.openai.com", None),
        ("127.0.0.1", None),
    ],
)
def test_a_provider_is_known_by_its_host(host, provider):
    assert provider_of(host) == provider
