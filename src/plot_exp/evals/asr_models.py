"""The attacks of an evaluation, and the models that write prompts and judge for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plot_exp.attacks.base import Attack
from plot_exp.config.attacks import ASRConfig
from plot_exp.config.model import ModelConfig
from plot_exp.data.examples import Message
from plot_exp.data.tokenise import ChatTokeniser
from plot_exp.errors import UserError
from plot_exp.evals.base import Subject, Tools
from plot_exp.generators.base import Generator, Sampling
from plot_exp.generators.endpoint import EndpointGenerator
from plot_exp.generators.local import LocalGenerator
from plot_exp.judges.copyright import CopyrightJudge
from plot_exp.judges.harm import HarmJudge, RefusalJudge
from plot_exp.judges.harm_classifier import ClassifierJudge, ClassifierPrompts, read_prompts
from plot_exp.judges.harm_endpoint import ModelJudge


class Attackers:
    """Who writes the prompts of Zero-Shot and SFS; loaded once, when first asked for."""

    def __init__(self, config: ASRConfig, tools: Tools) -> None:
        self.settings, self.tools = config.attacker, tools
        self._generator: Generator | None = None

    @property
    def name(self) -> str:
        """The endpoint's model, the directory or hub id, or the attacked model itself."""
        if self.settings.endpoint.url is not None:
            return str(self.settings.endpoint.model)
        return self.settings.model or "the attacked model itself"

    def open(self, subject: Subject) -> Generator:
        """The attacker.

        Raises:
            UserError: it cannot be loaded or asked.
        """
        if self._generator is None:
            if self.settings.endpoint.url is not None:
                self._generator = EndpointGenerator(
                    self.settings.endpoint,
                    self.tools.cache_dir / "answers",
                    key_name="eval.asr.attacker.endpoint",
                )
            elif self.settings.model is None:
                return subject.generator
            else:
                named = ModelConfig(name=self.settings.model, dtype=self.settings.dtype)
                self._generator = _local(
                    named, "eval.asr.attacker.model", self.settings.batch_size, subject
                )
        return self._generator


class Judges:
    """Who judges; the classifier is loaded once, when there is something to judge.

    Attributes:
        name: beside every number.

    Raises:
        UserError: the classifier's prompts are missing.
        CannotRunError: the judge is an endpoint, and none is named.
    """

    def __init__(self, config: ASRConfig, tools: Tools) -> None:
        self.config = config.judge
        copied = config.copyright
        self.copyright = CopyrightJudge(
            copied.threshold, copied.shingle, copied.window, copied.book_window
        )
        self.prompts: ClassifierPrompts | None = None
        self._judge: HarmJudge | None = None
        if self.config.name == "refusal":
            self._judge = RefusalJudge()
        elif self.config.name == "endpoint":
            self._judge = ModelJudge(tools.open_judge(self.config.endpoint, "attack success"))
        else:
            self.prompts = read_prompts(self.config.prompts, self.config.model)
        self.name = self._judge.name if self._judge is not None else self.config.model

    @property
    def settings(self) -> Mapping[str, Any]:
        """What verdicts depend on."""
        prompts = [self.prompts.standard, self.prompts.contextual] if self.prompts else None
        return {
            "kind": self.config.name,
            "name": self.name,
            "prompts": prompts,
            "completion_tokens": self.config.completion_tokens if prompts else None,
        }

    def open(self, subject: Subject) -> HarmJudge:
        """The judge.

        Raises:
            UserError: the classifier cannot be loaded.
        """
        if self._judge is None:
            assert self.prompts is not None
            named = ModelConfig(name=self.config.model, dtype=self.config.dtype)
            generator = _local(named, "eval.asr.judge.model", self.config.batch_size, subject)
            limit = self.config.completion_tokens

            def shorten(text: str) -> str:
                return first_tokens(generator.tokeniser, text, limit)

            self._judge = ClassifierJudge(generator, self.prompts, shorten)
        return self._judge


def first_tokens(tokeniser: ChatTokeniser, text: str, limit: int) -> str:
    """The text of the first `limit` tokens; the text itself where it has no more."""
    tokenizer = tokeniser.tokenizer
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    if len(ids) <= limit:
        return text
    shortened: str = tokenizer.decode(ids[:limit], clean_up_tokenization_spaces=False)
    return shortened


def attack_of(
    name: str, config: ASRConfig, attackers: Attackers, subject: Subject, folder: Path
) -> Attack:
    """The attack of this name on the subject.

    Args:
        folder: where GCG keeps unfinished cases.

    Raises:
        CannotRunError: it needs the weights of a model behind an endpoint.
        UserError: the attacker cannot be loaded or asked.
    """
    if name == "zero_shot":
        from plot_exp.attacks.zero_shot import ZeroShot

        return ZeroShot(attackers.open(subject), config.zero_shot, config.seed)
    from plot_exp.attacks.gbda import GBDA
    from plot_exp.attacks.gcg import GCG
    from plot_exp.attacks.model import AttackedModel
    from plot_exp.attacks.pez import PEZ
    from plot_exp.attacks.sfs import SFS
    from plot_exp.attacks.uat import UAT

    model = AttackedModel(*subject.weights(name))

    def answer(text: str, tokens: int) -> str:
        asked = [[Message("user", text)]]
        return subject.generator(asked, Sampling(max_new_tokens=tokens))[0][0].text

    attacks: dict[str, Any] = {
        "sfs": lambda: SFS(model, attackers.open(subject), config.sfs, config.seed),
        "pez": lambda: PEZ(model, config.pez, config.seed),
        "gbda": lambda: GBDA(model, config.gbda, config.seed),
        "uat": lambda: UAT(model, config.uat),
        "gcg": lambda: GCG(model, config.gcg, config.seed, answer, folder),
    }
    found: Attack = attacks[name]()
    return found


def _local(named: ModelConfig, key: str, batch_size: int, subject: Subject) -> LocalGenerator:
    """A model in this process, on the device of the attacked one."""
    from plot_exp.models.load import load_model, load_tokenizer
    from plot_exp.models.policy import Policy, freeze

    try:
        tokenizer, model = load_tokenizer(named), load_model(named)
    except UserError as error:
        raise UserError(str(error).replace("model.name=", f"{key}=", 1)) from error
    policy = freeze(Policy(model))
    if subject.local is not None:
        policy.to(subject.local.policy.device)
    return LocalGenerator(policy, ChatTokeniser(tokenizer), batch_size, name=named.name)
