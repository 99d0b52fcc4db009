"""Are the model's own responses still fluent? Perplexity under the reference, variety, length."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from plot_exp.config.evals import FluencyConfig
from plot_exp.data.examples import PreferenceExample
from plot_exp.data.loader import evaluation_batches
from plot_exp.data.overlap import prompt_hash
from plot_exp.data.tokenise import TokenisedExample
from plot_exp.evals.base import CannotRunError, Outcome, Subject, Tools, Workspace
from plot_exp.evals.intervals import summarise
from plot_exp.evals.record import Record
from plot_exp.evals.selection import spread
from plot_exp.generators.base import Completion, Sampling
from plot_exp.models.reference import Reference
from plot_exp.ops.scores import Request


@dataclass(frozen=True)
class Fluency:
    """See `Benchmark`.

    Attributes:
        examples: whose prompts are answered.
    """

    examples: Sequence[PreferenceExample]
    sampling: Sampling
    name: str = "fluency"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Benchmark`."""
        content = " ".join(prompt_hash(one.prompt) for one in self.examples)
        digest = hashlib.sha256(content.encode()).hexdigest()
        return {"sampling": asdict(self.sampling), "data": digest}

    def run(self, subject: Subject, workspace: Workspace) -> Outcome:
        """See `Benchmark`."""
        answers = self._answers(subject, workspace)
        rows = [answers[place] for place in range(len(self.examples))]
        lengths = [float(len(row["ids"])) for row in rows if row["ids"]]
        texts = [row["text"] for row in rows]
        metrics = summarise("fluency/finished", [float(one["finished"]) for one in rows], rate=True)
        metrics |= summarise("fluency/response_length", lengths, rate=False)
        metrics |= {f"fluency/distinct_{n}": distinct(texts, n) for n in (1, 2)}
        notes = [f"Fluency: {len(rows)} held-out prompts."]
        if subject.local is None or subject.reference is None:
            notes.append("Fluency: no reference at hand, so there is no perplexity under it.")
        elif lengths:
            metrics["fluency/perplexity_under_reference"] = self._perplexity(subject, rows)
            metrics["fluency/perplexity_under_reference/count"] = float(len(lengths))
        samples = [
            {
                "prompt": [asdict(message) for message in example.prompt],
                "response": row["text"],
                "verdict": None,
                "category": example.category,
                "origin": str(example.origin),
            }
            for example, row in zip(self.examples, rows, strict=True)
        ]
        return Outcome(metrics, samples, notes)

    def _answers(self, subject: Subject, workspace: Workspace) -> Record:
        answers = Record(workspace.folder / "answers.jsonl")
        waiting = [place for place in range(len(self.examples)) if place not in answers]

        def write(place: int, found: list[Completion]) -> None:
            (one,) = found
            row = {"text": one.text, "ids": list(one.ids), "finished": one.finished}
            answers.add(waiting[place], row)

        subject.generator(
            [self.examples[place].prompt for place in waiting],
            self.sampling,
            bar=workspace.bar,
            label="answering held-out prompts",
            each=write,
        )
        return answers

    def _perplexity(self, subject: Subject, rows: Sequence[Mapping[str, Any]]) -> float:
        assert subject.local is not None
        assert subject.reference is not None
        generated = [
            TokenisedExample(
                example,
                subject.local.encode(example.prompt, self.sampling.max_new_tokens),
                (tuple(row["ids"]),),
            )
            for example, row in zip(self.examples, rows, strict=True)
            if row["ids"]
        ]
        pad_id = subject.local.tokeniser.tokenizer.pad_token_id
        return perplexity(subject.reference, generated, subject.local.batch_size, pad_id)


def build(settings: FluencyConfig, tools: Tools) -> Fluency:
    """See `Benchmark`."""
    examples = spread(tools.examples(), lambda one: f"{one.dataset}/{one.category}", settings.limit)
    if not examples:
        raise CannotRunError("fluency: `dataset` holds no held-out example to answer")
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)
    return Fluency(examples, sampling)


@torch.no_grad()
def perplexity(
    reference: Reference, generated: Sequence[TokenisedExample], batch_size: int, pad_id: int
) -> float:
    """exp of the mean negative log-probability a token of generated responses, over all tokens.

    Raises:
        ValueError: there is no token.
    """
    total, tokens = 0.0, 0
    with reference.live() as model:
        for batch in evaluation_batches(generated, batch_size, pad_id):
            scores = model(batch.to(model.device), Request())
            total += float(scores.token_logps.double().sum())
            tokens += len(scores.token_logps)
    if not tokens:
        raise ValueError("perplexity needs at least one token")
    return math.exp(-total / tokens)


def distinct(texts: Sequence[str], n: int) -> float:
    """Different word n-grams over all word n-grams of the texts; 0 where there is none."""
    grams: list[tuple[str, ...]] = []
    for text in texts:
        words = text.split()
        grams += [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
