"""What `python -m plot_exp --help` says."""

from __future__ import annotations

import textwrap

from plot_exp.config.choices import groups, summary

USAGE = """\
plot_exp trains language models on preferences and shows what changed.

  python -m plot_exp [GROUP=OPTION | KEY=VALUE ...]

Without arguments: a tiny model, the embedded demo data, loss=dpo+plot; no network, no GPU.
"""

KEYS = {
    "name": "the run's folder under output_dir, and its name in W&B",
    "seed": "of data order, initialisation and sampling",
    "model.name": "a hub id or a directory (with model=hf)",
    "reference": "'policy' for the policy's own start, or another model",
    "dataset.path": "a file or directory of your own",
    "dataset.limit": "at most so many training examples",
    "loss.TERM.weight": "a term's factor in the sum; PLOT's is loss.plot.alpha",
    "loss.plot.gradient_share": "sets alpha: PLOT's gradient as a share of the other term's",
    "extensions": "a Python file, or a list of them, that registers loss terms of your own",
    "trainer.max_steps": "optimizer steps; null takes trainer.epochs",
    "trainer.batch_size": "examples an optimizer step",
    "trainer.microbatch_size": "examples a forward pass",
    "optimizer.lr": "the peak learning rate",
    "resume": "a run directory to go on with, used alone",
    "run, runs": "what task=evaluate, export and report look at",
    "export.path": "the folder that task=export writes; export.push_to=OWNER/NAME for the hub",
    "output_dir, cache_dir": "where runs go, and what they share",
}

EXAMPLES = """\
  python -m plot_exp                                      the default experiment
  python -m plot_exp experiment=quick                     seconds, to try any command
  python -m plot_exp dataset=hh_rlhf dataset.path=FILE    your own copy of the data
  python -m plot_exp model=hf model.name=ID_OR_DIR        any causal language model
  python -m plot_exp loss=sft+plot loss.plot.alpha=0.3    terms joined by '+'
  python -m plot_exp -m loss=dpo,dpo+plot seed=0,1,2      every combination, one after another
  python -m plot_exp resume=RUN_DIR                       go on after a kill
  python -m plot_exp task=report runs=DIR                 compare finished runs
"""

FLAGS = """\
  -m, --multirun           run every combination of the listed values
  --cfg job [--resolve]    print the configuration, run nothing
  --config-dir DIR         options of your own: DIR/experiment/NAME.yaml and so on
  --hydra-help             Hydra's own flags
  PLOT_EXP_TRACEBACK=1     (environment) show the stack trace of an error
  PLOT_EXP_DATA=DIR        (environment) where local copies of published data are looked for
"""


def help_text() -> str:
    """The page: usage, groups with their options, keys, examples, flags."""
    parts = [USAGE, "Groups (GROUP=OPTION)\n", *map(_group, groups().items()), "Keys (KEY=VALUE)"]
    width = max(map(len, KEYS)) + 2
    parts += ["".join(f"  {key:<{width}}{meaning}\n" for key, meaning in KEYS.items())]
    parts += [f"Examples\n{EXAMPLES}", f"Flags and environment\n{FLAGS}"]
    return "\n".join(parts)


def _group(group_and_options: tuple[str, list[str]]) -> str:
    group, options = group_and_options
    lines = [f"  {group}"]
    if group == "loss":
        lines[0] += ", joined by '+': dpo+plot"
    width = max(10, *(len(option) + 2 for option in options))
    for option in options:
        text = textwrap.shorten(summary(group, option), width=96, placeholder=" ...")
        lines.append(f"    {option:<{width}}{text}")
    return "\n".join(lines) + "\n"
