"""Answers to prompts: batched generation with left padding and one BOS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from plot_exp.data.examples import Message
from plot_exp.data.tokenise import ChatTokeniser, fit_prompt
from plot_exp.models.policy import Policy
from plot_exp.progress import Bar, silent

# What a model's own generation config may set otherwise: Qwen2.5's has a repetition penalty,
# which changes greedy answers too.
PLAIN_DECODING: dict[str, object] = {
    "do_sample": False,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "min_p": None,
    "typical_p": None,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """One generated response.

    Attributes:
        text: without special tokens.
        ids: the generated ids, EOS included where the model ended by itself.
        finished: whether it did, before the token limit.
    """

    text: str
    ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class Generator:
    """A model with its tokenizer and limits, ready to answer.

    Attributes:
        max_prompt: tokens of a prompt; a longer one loses its oldest part.
    """

    policy: Policy
    tokeniser: ChatTokeniser
    max_new_tokens: int
    batch_size: int
    max_prompt: int
    sampling: Sampling = Sampling()

    def __call__(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        samples: int = 1,
        bar: Bar = silent,
        label: str = "generating",
    ) -> list[list[Answer]]:
        """`samples` answers to each prompt, in the order of the prompts.

        Raises:
            ValueError: several samples are asked of greedy decoding, which has one answer.
        """
        if samples > 1 and not self.sampling.temperature:
            raise ValueError("greedy decoding gives one answer; several need a temperature")
        encoded = [self.encode(prompt) for prompt in prompts]
        order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
        starts = range(0, len(order), self.batch_size)
        answers: list[list[Answer]] = [[] for _ in encoded]
        training = self.policy.training
        self.policy.eval()
        for number, start in enumerate(bar(starts, label, len(starts))):
            indices = order[start : start + self.batch_size]
            with torch.random.fork_rng(devices=self._cuda()):
                torch.manual_seed(self.sampling.seed * 1_000_003 + number)
                found = self._batch([encoded[index] for index in indices], samples)
            for place, answer in enumerate(found):
                answers[indices[place // samples]].append(answer)
        self.policy.train(training)
        return answers

    def encode(self, prompt: Sequence[Message]) -> tuple[int, ...]:
        """The ids that the model answers, cut to `max_prompt`."""
        return fit_prompt(self.tokeniser, prompt, self.max_prompt)[0]

    def _cuda(self) -> list[torch.device]:
        return [self.policy.device] if self.policy.device.type == "cuda" else []

    @torch.no_grad()
    def _batch(self, prompts: Sequence[tuple[int, ...]], samples: int) -> list[Answer]:
        tokenizer = self.tokeniser.tokenizer
        width = max(len(prompt) for prompt in prompts)
        input_ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
            attention_mask[row, width - len(prompt) :] = 1
        options: dict[str, object] = dict(PLAIN_DECODING)
        if self.sampling.temperature > 0:
            options |= {
                "do_sample": True,
                "temperature": self.sampling.temperature,
                "top_p": self.sampling.top_p,
                "num_return_sequences": samples,
            }
        device = self.policy.device
        generated = self.policy.model.generate(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            max_new_tokens=self.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=self._end_ids(),
            **options,
        )
        return [self._answer(row) for row in generated[:, width:].tolist()]

    def _end_ids(self) -> list[int]:
        """The tokenizer's EOS and those of the model's generation config (Llama 3 has three)."""
        listed = self.policy.model.generation_config.eos_token_id
        others = listed if isinstance(listed, list) else [listed]
        return sorted({self.tokeniser.eos_id, *(one for one in others if one is not None)})

    def _answer(self, row: list[int]) -> Answer:
        ends = self._end_ids()
        length = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
        ids = tuple(row[:length])
        return Answer(self.tokeniser.decode(ids), ids, bool(ids) and ids[-1] in ends)
