"""The model card: what was trained on what, with which result, and how it is loaded.

Nothing in it tells where files lay: data are named by their dataset, or by their files' names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

import plot_exp
from plot_exp.redaction import redact
from plot_exp.report import sections
from plot_exp.report.contents import Contents, flat
from plot_exp.report.markdown import code_block, escape, settings, table
from plot_exp.report.outcome import what_changed

# Where the published data of each reader come from, where no other place is named.
PUBLISHED = {
    "hh_rlhf": "Anthropic/hh-rlhf",
    "gsm8k": "openai/gsm8k",
    "math": "EleutherAI/hendrycks_math",
}
# Settings that shape the outcome, () for all of a section; the rest concerns one machine.
TOLD: dict[str, tuple[str, ...]] = {
    "trainer": (
        "max_steps",
        "epochs",
        "batch_size",
        "coupling",
        "gradient_clip",
        "precision",
        "dropout",
        "on_nonfinite",
    ),
    "optimizer": (),
    "model.lora": (),
}


@dataclass(frozen=True)
class Exported:
    """What is written beside the card.

    Attributes:
        base: the hub id of the start; None where it is no model of the hub.
        adapter: the adapter stands alone.
        step: the optimizer step of the weights.
        dtype: of the weights that are written.
        chat_template: the tokenizer has one.
        measured_in: the dtype of the weights when they were measured, where that was another.
        repository: where it is pushed to, or None.
        license: as the user states it, or None.
        wandb: the address of the run, or None.
    """

    base: str | None
    adapter: bool
    step: int
    dtype: str
    chat_template: bool
    measured_in: str | None = None
    repository: str | None = None
    license: str | None = None
    wandb: str | None = None


def model_card(contents: Contents, exported: Exported) -> str:
    """README.md for the hub, from what stands in a run directory."""
    name = exported.repository or str(contents.setting("name") or "a policy")
    parts = [
        f"---\n{yaml.safe_dump(_front(contents, exported), sort_keys=False)}---",
        f"# {escape(name.rpartition('/')[2])}",
        _what(contents, exported),
        "## How to load it",
        _loading(exported),
        "## Objective",
        _objective(contents),
        "## Data",
        _data(contents, exported),
        "## Results",
        _results(contents),
        "## Limits",
        _limits(contents, exported),
        "## Provenance",
        _provenance(contents, exported),
    ]
    return redact("\n\n".join(part for part in parts if part)) + "\n"


def _front(contents: Contents, exported: Exported) -> dict[str, Any]:
    front: dict[str, Any] = {"library_name": "peft" if exported.adapter else "transformers"}
    if exported.license:
        front["license"] = exported.license
    if exported.base:
        front["base_model"] = exported.base
        front["base_model_relation"] = "adapter" if exported.adapter else "finetune"
    published = {one for section in _datasets(contents) if (one := _hub_name(section))}
    if published:
        front["datasets"] = sorted(published)
    front["pipeline_tag"] = "text-generation"
    terms = [str(term) for term in contents.setting("loss", {})]
    front["tags"] = ["plot_exp", "preference-learning", *dict.fromkeys(terms)]
    return front


def _what(contents: Contents, exported: Exported) -> str:
    base = f"`{exported.base}`" if exported.base else _own_base(contents)
    kind = "A low-rank adapter" if exported.adapter else "A language model"
    terms = " + ".join(f"`{term}`" for term in contents.setting("loss", {}))
    average = contents.setting("optimizer.ema")
    weights = "weights" if average is None else f"averaged weights (`optimizer.ema={average}`)"
    said = f"{kind} that plot_exp trained with the objective {terms}. "
    said += _way(contents, exported, base)
    return f"{said} These are the {weights} after step {exported.step}, in {exported.dtype}."


def _way(contents: Contents, exported: Exported, base: str) -> str:
    if exported.adapter:
        return f"It belongs to {base}, whose weights were not trained."
    if contents.setting("model.lora.rank") is None:
        return f"It started from {base}; every weight was trained."
    return f"It started from {base}; a low-rank adapter was trained and is merged into the weights."


def _own_base(contents: Contents) -> str:
    name = str(contents.setting("model.name", "?"))
    if name == "tiny":
        return "a tiny model that plot_exp trained from scratch on the training texts alone"
    if contents.setting("model.weights") == "random":
        return "a model with random weights"
    return f"a local model, `{escape(PurePath(name).name)}`"


def _loading(exported: Exported) -> str:
    place = exported.repository or "FOLDER"
    kind = "AutoPeftModelForCausalLM" if exported.adapter else "AutoModelForCausalLM"
    library = "peft" if exported.adapter else "transformers"
    imports = f"from {library} import {kind}\nfrom transformers import AutoTokenizer"
    if not exported.adapter:
        imports = "from transformers import AutoModelForCausalLM, AutoTokenizer"
    prompt = r"\n\nHuman: ...\n\nAssistant:"  # the layout that `data.tokenise` then takes
    ask = (
        'messages = [{"role": "user", "content": "..."}]\n'
        "ids = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n'
        ")\n"
        if exported.chat_template
        else f'ids = tokenizer("{prompt}", return_tensors="pt")\n'
    )
    code = (
        f"{imports}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{place}")\n'
        f'model = {kind}.from_pretrained("{place}", dtype="auto")\n'
        f"{ask}"
        "print(tokenizer.decode(model.generate(**ids, max_new_tokens=128)[0]))"
    )
    return code_block(code, "python")


def _objective(contents: Contents) -> str:
    rows = []
    for name, section in contents.setting("loss", {}).items():
        rows.append([f"`{name}`", settings(flat(section or {}))])
    for place, keys in TOLD.items():
        found = contents.setting(place) or {}
        if place == "model.lora" and found.get("rank") is None:
            continue
        told = {key: found[key] for key in keys or found if key in found}
        if place == "trainer":  # the one that decided how long
            told.pop("max_steps" if told.get("max_steps") is None else "epochs", None)
        rows.append([place, settings(told)])
    return table(["Term or section", "Settings"], rows)


def _datasets(contents: Contents) -> list[dict[str, Any]]:
    dataset = contents.setting("dataset", {})
    return list((dataset.get("sources") or {}).values()) or [dataset]


def _hub_name(section: dict[str, Any]) -> str | None:
    """The dataset on the hub; None for data of one's own."""
    if section.get("path") is not None:
        return None
    return section.get("hub_name") or PUBLISHED.get(str(section.get("name")))


def _data(contents: Contents, exported: Exported) -> str:
    sources = []
    for section in _datasets(contents):
        named = _hub_name(section) or str(section.get("name"))
        own = section.get("path")
        text = f"`{escape(named)}`"
        if section.get("subset"):
            text += f", subset `{escape(str(section['subset']))}`"
        if own is not None:
            text += f", read from a local file or folder, `{escape(PurePath(own).name)}`"
        if section.get("rejected") in ("corrupt", "sampled"):
            text += f"; rejected responses made by plot_exp (`{section['rejected']}`)"
        sources.append(f"- {text}")
    blocks = ["\n".join(sources)]
    if contents.data is None:
        return "\n\n".join([*blocks, contents.left_out("data.json")])
    rows = [row for tally in contents.data.get("tallies") or [] for row in _counts(tally)]
    blocks.append(_seen(contents, exported.step))
    if rows:
        blocks.append(table(["Dataset", "What", "Reason", "Count"], rows, 1))
    shared = (contents.data.get("overlap") or {}).get("prompts")
    if shared and not contents.data["overlap"].get("removed"):
        blocks.append(f"{shared} training prompts also stand in validation and were trained on.")
    return "\n\n".join(blocks)


def _seen(contents: Contents, step: int) -> str:
    """How many examples the weights have seen."""
    data = contents.data or {}
    train, held_out = data.get("train", "?"), data.get("validation", "?")
    batch_size = contents.setting("trainer.batch_size")
    if isinstance(train, int) and isinstance(batch_size, int) and step * batch_size < train:
        return (
            f"{train} examples stood ready for training, of which {step * batch_size} were trained "
            f"on ({step} steps of {batch_size}); {held_out} were held out."
        )
    return f"{train} examples were trained on and {held_out} held out."


def _counts(tally: dict[str, Any]) -> Iterator[list[str]]:
    dataset = escape(str(tally.get("dataset", "?")))
    for what in ("kept", "dropped", "changed"):
        for reason, count in (tally.get(what) or {}).items():
            yield [dataset, what, escape(str(reason)), str(count)]


def _results(contents: Contents) -> str:
    if contents.metrics is None:
        return "This run has not come to its end, so that nothing was measured of its policy."
    step = contents.metrics.get("train/steps")
    said = "" if step is None else f"Measured after step {int(step)}, against the start.\n\n"
    return said + what_changed(contents)


def _limits(contents: Contents, exported: Exported) -> str:
    lines = [sections.reconstruction(contents)]
    if contents.metrics is None or not any(key.startswith("eval/asr/") for key in contents.metrics):
        lines.append("- Attack success was not measured: nothing is known of its safety.")
    measured = (contents.metrics or {}).get("train/steps")
    if measured is not None and int(measured) != exported.step:
        lines.append(
            f"- **These weights are of step {exported.step}**; the results above were measured "
            f"after step {int(measured)} unless the run exported another checkpoint."
        )
    lines += _rounding(contents, exported)
    lines.append("- One run with one seed; intervals are over its cases and not over seeds.")
    if not exported.license:
        lines.append("- No licence is stated here; the terms of the base model and data apply.")
    return "\n".join(lines)


def _rounding(contents: Contents, exported: Exported) -> Iterator[str]:
    """Where the weights are not, number by number, those that were measured."""
    lora = contents.setting("model.lora") or {}
    if lora.get("rank") is not None and not exported.adapter and exported.dtype != "float32":
        yield (
            "- The results were measured with the adapter beside the weights, before it was merged "
            f"and the sum rounded to {exported.dtype}."
        )
    elif exported.measured_in:
        yield (
            f"- The results were measured in {exported.measured_in}, before these weights were "
            f"rounded to {exported.dtype}."
        )
    if quantised := lora.get("quantised"):
        then = "that is what it is merged into"
        if exported.adapter:
            then = "above weights that are not rounded, answers differ"
        yield (
            "- The adapter was trained and measured above weights rounded to four bits "
            f"(`{quantised}`); {then}."
        )


def _provenance(contents: Contents, exported: Exported) -> str:
    environment = contents.environment or {}
    commit = environment.get("commit")
    rows = [
        ["plot_exp, training", escape(str(environment.get("plot_exp", "not recorded")))],
        ["plot_exp, export", plot_exp.__version__],
        ["seed", escape(str(contents.setting("seed", "?")))],
    ]
    if isinstance(commit, dict):
        changed = ", with changes that were not committed" if commit.get("changed") else ""
        rows.insert(1, ["commit", f"`{escape(str(commit.get('id')))}`{changed}"])
    for name in ("torch", "transformers", "lightning"):
        if version := (environment.get("packages") or {}).get(name):
            rows.append([name, escape(str(version))])
    if exported.wandb:
        rows.append(["W&B", f"<{exported.wandb}>"])
    return table(["", ""], rows)
