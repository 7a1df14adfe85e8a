"""How OpenAI-compatible servers refuse a request, in their own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from tests.doubles.openai import OpenAIDouble

ALLOWED = frozenset(
    (
        *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "seed"),
        *("logprobs", "top_logprobs", "response_format", "reasoning_effort"),
    )
)
"""Fields that OpenAI knows; with any other it answers 400."""
TEMPLATE_TOKENS = 8
"""Tokens that the double counts for a prompt besides its words."""


def error(status: int, message: str, **more: Any) -> web.Response:
    """An error as OpenAI gives them; ``more``: further fields of it."""
    fields = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": fields | more}, status=status)


def refusal(double: OpenAIDouble, body: dict[str, Any]) -> web.Response | None:
    """Why the server refuses the request; None where it takes it."""
    if body["model"] not in double.models and not double.any_model:
        text = f"The model `{body['model']}` does not exist."
        return error(404, text, param="model", code="model_not_found")
    roles = [message["role"] for message in body["messages"]]
    if "system" in roles and not double.system_role:
        return error(400, "System role not supported")
    unknown = [name for name in body if double.kind == "openai" and name not in ALLOWED]
    for name in [*unknown, *(name for name in body if name in double.refuses)]:
        if not double.names_fields:
            return error(400, "Invalid request.")
        if name == "max_tokens":
            text = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            )
            return error(400, text, param=name, code="unsupported_parameter")
        return error(400, f"Unknown parameter: '{name}'.", param=name)
    if (asked := body.get("top_logprobs", 0)) > double.most_logprobs:
        text = (
            f"Requested sample logprobs of {asked}, which is greater than max allowed: "
            f"{double.most_logprobs}"
        )
        param = "top_logprobs" if double.names_fields else None
        return error(400, text if param else "Invalid request.", param=param)
    prompt, limit = prompt_tokens(body), answer_limit(body)
    if prompt + (0 if double.kind == "llamacpp" else limit) > double.context:
        return _too_long(double, prompt, limit)
    return None


def _too_long(double: OpenAIDouble, prompt: int, limit: int) -> web.Response:
    if double.kind == "llamacpp":
        text = (
            f"request ({prompt} tokens) exceeds the available context size "
            f"({double.context} tokens), try increasing it"
        )
        more = {"type": "exceed_context_size_error", "code": 400}
        return error(400, text, **more, n_prompt_tokens=prompt, n_ctx=double.context)
    if double.kind == "openai":
        text = (
            f"This model's maximum context length is {double.context} tokens. However, your "
            f"messages resulted in {prompt} tokens. Please reduce the length of the messages."
        )
        return error(400, text, param="messages", code="context_length_exceeded")
    if double.kind == "sglang":
        text = (
            f"Requested token count exceeds the model's maximum context length of "
            f"{double.context} tokens. You requested a total of {prompt + limit} tokens: "
            f"{prompt} tokens from the input messages and {limit} tokens for the completion."
        )
        return web.json_response(
            {"object": "error", "message": text, "type": "BadRequestError", "code": 400},
            status=400,
        )
    text = (
        f"You passed {prompt} input tokens and requested {limit} output tokens. However, the "
        f"model's context length is only {double.context} tokens, resulting in a maximum input "
        f"length of {double.context - limit} tokens."
    )
    return error(400, text, type="BadRequestError", param="input_tokens", code=400)


def prompt_tokens(body: Mapping[str, Any]) -> int:
    return TEMPLATE_TOKENS + sum(len(message["content"].split()) for message in body["messages"])


def answer_limit(body: Mapping[str, Any]) -> int:
    return body.get("max_tokens", body.get("max_completion_tokens", 4096))
