"""What an OpenAI-compatible server is asked for one completion, and how its answer is read."""

from __future__ import annotations

from typing import Any

from plot_exp.generators.base import Completion, Prompt, Sampling, is_dialogue
from plot_exp.generators.exchange import FailureError

LARGEST_SEED = 2**31


def question(
    model: str, prompt: Prompt, sampling: Sampling, sample: int, limit_key: str
) -> tuple[str, dict[str, Any]]:
    """The path below the base address, and the body.

    Dialogues go to `chat/completions`, where the server applies its chat template; text and ids go
    to `completions`.
    """
    body: dict[str, Any] = {
        "model": model,
        limit_key: sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.temperature:
        body["seed"] = (sampling.seed * 1_000_003 + sample) % LARGEST_SEED
    if sampling.top_p != 1.0:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    for name in ("frequency_penalty", "presence_penalty"):
        if value := getattr(sampling, name):
            body[name] = value
    if is_dialogue(prompt):
        body["messages"] = [{"role": turn.role, "content": turn.content} for turn in prompt]
        if sampling.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        return "chat/completions", body
    body["prompt"] = prompt if isinstance(prompt, str) else [int(str(one)) for one in prompt]
    if sampling.top_logprobs:
        body["logprobs"] = sampling.top_logprobs
    return "completions", body


def completion(answer: dict[str, Any], sampling: Sampling) -> Completion:
    """The completion in a server's answer.

    Raises:
        FailureError: it holds none.
    """
    try:
        choice = answer["choices"][0]
        text = choice["text"] if "text" in choice else _content(choice["message"])
        reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        text, reason, choice = None, None, {}
    if not isinstance(text, str):
        error = answer.get("error")
        said = error.get("message") if isinstance(error, dict) else error
        raise FailureError(
            f"the answer holds no completion{f' but says: {said}' if said else ''}", passing=True
        )
    if reason == "content_filter":
        return Completion("", "filtered")
    for stop in sampling.stop:
        text = text.partition(stop)[0]
    cut_short = reason in ("length", "max_tokens")
    return Completion(
        text.strip(),
        "length" if cut_short else "stop",
        top_logprobs=_top_logprobs(choice.get("logprobs")),
    )


def _content(message: dict[str, Any]) -> Any:
    """The text of a message, which may come as null, as parts, or as a refusal."""
    content = message["content"]
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type", "text") == "text")
    return message.get("refusal") or "" if content is None else content


def _top_logprobs(found: Any) -> tuple[dict[str, float], ...] | None:
    """The likeliest tokens at each place, from either interface's form; None for no such form."""
    try:
        if "content" in found:
            return tuple(
                {one["token"]: float(one["logprob"]) for one in reversed(place["top_logprobs"])}
                for place in found["content"]
            )
        return tuple(
            {token: float(logp) for token, logp in place.items()} for place in found["top_logprobs"]
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
