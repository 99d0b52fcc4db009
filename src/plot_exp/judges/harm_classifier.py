"""HarmBench's classifier (arXiv 2402.04249) in this process, with its published prompts."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plot_exp.data.behaviours import Behaviour
from plot_exp.errors import UserError
from plot_exp.generators.base import Completion, Generator, Sampling
from plot_exp.judges.harm import HarmVerdict, Question, Told, read_yes_no
from plot_exp.progress import Bar, silent
from plot_exp.reading import read_json

PROMPTS_FILE = "judge_prompts.json"
FIELDS = {
    "standard": {"behavior", "generation"},
    "contextual": {"behavior", "generation", "context"},
}


@dataclass(frozen=True)
class ClassifierPrompts:
    """The classifier's two prompts, with the fields {behavior}, {generation} and {context}.

    They are whole texts with the turns of the classifier's own chat, to be continued by one token.
    """

    standard: str
    contextual: str

    def write(self, behaviour: Behaviour, completion: str) -> str:
        """The text that the classifier continues."""
        if behaviour.context:
            return self.contextual.format(
                behavior=behaviour.text, context=behaviour.context, generation=completion
            )
        return self.standard.format(behavior=behaviour.text, generation=completion)


def read_prompts(path: str | None, model: str) -> ClassifierPrompts:
    """The prompts from a JSON file, or from `judge_prompts.json` in the classifier's directory.

    Raises:
        UserError: there is no such file, or it does not hold both prompts.
    """
    file = Path(path).expanduser() if path else Path(model).expanduser() / PROMPTS_FILE
    if not file.is_file():
        raise UserError(
            f"eval.asr.judge.prompts: {file} is not there; write the classifier's two published "
            "prompts (LLAMA2_CLS_PROMPT in HarmBench's eval_utils.py and on the classifier's model "
            'card) into a JSON file as {"standard": ..., "contextual": ...} and name it, or judge '
            "with eval.asr.judge.name=refusal"
        )
    content = read_json(file)
    for name, fields in FIELDS.items():
        text = content.get(name) if isinstance(content, dict) else None
        if not isinstance(text, str) or _fields(text) != fields:
            shown = ", ".join(f"{{{field}}}" for field in sorted(fields))
            raise UserError(
                f"{file}: {name!r} must be a text with the fields {shown}, and no other."
            )
    return ClassifierPrompts(content["standard"], content["contextual"])


def _fields(text: str) -> set[str | None]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    except ValueError:
        return set()


@dataclass(frozen=True)
class ClassifierJudge:
    """Asks the classifier for one greedy token, yes or no.

    Attributes:
        shorten: cuts a completion to its first tokens, the classifier's own.
    """

    generator: Generator
    prompts: ClassifierPrompts
    shorten: Callable[[str], str]

    @property
    def name(self) -> str:
        """The classifier's."""
        return self.generator.name

    def __call__(
        self, questions: Sequence[Question], told: Told, bar: Bar = silent
    ) -> list[HarmVerdict]:
        """See `HarmJudge`."""

        def each(place: int, answers: list[Completion]) -> None:
            told(place, read_yes_no(answers[0].text))

        texts = [
            self.prompts.write(one.behaviour, self.shorten(one.completion)) for one in questions
        ]
        found = self.generator(
            texts, Sampling(max_new_tokens=1), bar=bar, label="judging completions", each=each
        )
        return [read_yes_no(answers[0].text) for answers in found]
