"""Where the providers are that LiteLLM names, and which of them can be reached without a translation.

A provider belongs in `PROVIDERS` if it has an API in OpenAI's words (or is Anthropic) at a base URL that takes a plain
key. The URLs and the variables are those that LiteLLM 1.7x and the providers' own documents name; where LiteLLM uses
the provider's other API, the URL is that of the provider's OpenAI-compatible one.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provider:
    base_url: str = ""  # empty: a deployment has to say it
    key_variable: str = ""  # where LiteLLM looks for a key that the deployment does not have
    base_variable: str = ""  # and for its base URL
    auth: str = "bearer"
    dialect: str = "openai"
    below_base: str = ""  # what its OpenAI-compatible API adds to what LiteLLM is given
    model_prefix: str = ""  # what LiteLLM puts before a model's name that has no slash
    families: tuple[str, ...] = ()  # globs for its own models' names, where they are unmistakable


_OPENAI_FAMILIES = (
    *("gpt-*", "chatgpt-*", "ft:gpt-*", "o1*", "o3*", "o4*", "text-embedding-*", "omni-moderation-*"),
    *("dall-e-*", "tts-*", "whisper-*", "davinci-*", "babbage-*", "computer-use-*", "codex-*"),
)
_OPENAI = Provider("https://api.openai.com/v1", "OPENAI_API_KEY", "OPENAI_API_BASE", families=_OPENAI_FAMILIES)
_COMPATIBLE = Provider()
_OLLAMA = Provider("http://localhost:11434", "", "OLLAMA_API_BASE", below_base="/v1")

PROVIDERS: dict[str, Provider] = {
    "openai": _OPENAI,
    "text-completion-openai": _OPENAI,
    "anthropic": Provider(
        "https://api.anthropic.com",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_API_BASE",
        auth="x-api-key",
        dialect="anthropic",
        below_base="/v1",
        families=("claude-*",),
    ),
    "azure": Provider("", "AZURE_API_KEY", "AZURE_API_BASE", auth="api-key"),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", families=("gemini-*",)
    ),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "MISTRAL_API_BASE"),
    "codestral": Provider("https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY", "CODESTRAL_API_BASE"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY", "GROQ_API_BASE"),
    "together_ai": Provider("https://api.together.xyz/v1", "TOGETHERAI_API_KEY", "TOGETHER_AI_API_BASE"),
    "deepseek": Provider(
        "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "DEEPSEEK_API_BASE", families=("deepseek-*",)
    ),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "OPENROUTER_API_BASE"),
    "fireworks_ai": Provider(
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        "FIREWORKS_API_BASE",
        model_prefix="accounts/fireworks/models/",
    ),
    "xai": Provider("https://api.x.ai/v1", "XAI_API_KEY", "XAI_API_BASE", families=("grok-*",)),
    "perplexity": Provider("https://api.perplexity.ai", "PERPLEXITYAI_API_KEY", families=("sonar*",)),
    "cohere": Provider("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", families=("command-*",)),
    "cohere_chat": Provider("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", families=("command-*",)),
    "deepinfra": Provider("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "nvidia_nim": Provider("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY", "NVIDIA_NIM_API_BASE"),
    "cerebras": Provider("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "CEREBRAS_API_BASE"),
    "sambanova": Provider("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", "SAMBANOVA_API_BASE"),
    "meta_llama": Provider("https://api.llama.com/compat/v1", "LLAMA_API_KEY", "LLAMA_API_BASE"),
    "ai21": Provider("https://api.ai21.com/studio/v1", "AI21_API_KEY", "AI21_API_BASE"),
    "ai21_chat": Provider("https://api.ai21.com/studio/v1", "AI21_API_KEY", "AI21_API_BASE"),
    "volcengine": Provider("https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY", "VOLCENGINE_API_BASE"),
    "friendliai": Provider("https://api.friendli.ai/serverless/v1", "FRIENDLIAI_API_KEY", "FRIENDLI_API_BASE"),
    "moonshot": Provider("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "MOONSHOT_API_BASE"),
    "dashscope": Provider("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "huggingface": Provider("https://router.huggingface.co", "HF_TOKEN", "HF_API_BASE", below_base="/v1"),
    "ollama": _OLLAMA,
    "ollama_chat": _OLLAMA,
    "hosted_vllm": Provider("", "HOSTED_VLLM_API_KEY", "HOSTED_VLLM_API_BASE"),
    "lm_studio": Provider("", "LM_STUDIO_API_KEY", "LM_STUDIO_API_BASE"),
    "llamafile": Provider("http://127.0.0.1:8080/v1", "", "LLAMAFILE_API_BASE"),
    "litellm_proxy": Provider("", "LITELLM_PROXY_API_KEY", "LITELLM_PROXY_API_BASE"),
    **dict.fromkeys(("vllm", "xinference", "openai_like", "custom_openai", "aiohttp_openai", "infinity"), _COMPATIBLE),
}

_SIGNED = "its requests are signed with cloud credentials, and Serinus signs none"
_OWN_API = "its API is its own, and Serinus translates none into another"
UNREACHABLE: dict[str, str] = {
    **dict.fromkeys(("bedrock", "bedrock_converse", "sagemaker", "sagemaker_chat"), _SIGNED),
    **dict.fromkeys(("vertex_ai", "vertex_ai_beta", "oci"), _SIGNED),
    **dict.fromkeys(("replicate", "watsonx", "palm", "nlp_cloud", "aleph_alpha", "petals", "predibase"), _OWN_API),
    **dict.fromkeys(("snowflake", "cloudflare", "voyage", "jina_ai", "triton", "topaz", "assemblyai"), _OWN_API),
    **dict.fromkeys(("deepgram", "elevenlabs", "recraft", "clarifai", "maritalk", "baseten"), _OWN_API),
    "azure_ai": "its path and version depend on the model. Where the resource has an OpenAI-compatible URL "
    "(https://NAME.services.ai.azure.com/openai/v1), write it as openai/MODEL with that as its api_base",
    "databricks": "LiteLLM works out its URL and token. Write it as openai/MODEL with "
    "api_base: https://WORKSPACE/serving-endpoints and a token as its api_key",
    "github": "write it as openai/PUBLISHER/MODEL with api_base: https://models.github.ai/inference",
    "github_copilot": "its tokens are fetched anew all the time, which Serinus does not do",
}
STAY_BEHIND = (
    "Until then leave LiteLLM running for it, and make it an upstream: base_url: http://LITELLM:4000/v1, with a "
    "route for this model"
)

_BY_NAME = (
    (("gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-", "dall-e-", "tts-", "whisper-", "ft:gpt-"), "openai"),
    (("omni-moderation-", "text-moderation-", "davinci-", "babbage-", "codex-"), "openai"),
    (("claude-",), "anthropic"),
    (("command-",), "cohere"),
    (("gemini-",), "vertex_ai"),
)


def provider_of(model: str, api_base: str | None) -> tuple[str, str]:
    """Its provider and the name there, as LiteLLM tells them apart. The provider is empty where nothing tells."""
    first, slash, rest = model.partition("/")
    if slash and (first in PROVIDERS or first in UNREACHABLE):
        return first, rest
    if model == "*":
        return "openai", model
    for name, provider in PROVIDERS.items():
        if api_base and provider.base_url and provider.base_url.partition("://")[2] in api_base:
            return name, model
    return next((name for beginnings, name in _BY_NAME if model.startswith(beginnings)), ""), model
