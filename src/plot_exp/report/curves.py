"""Training curves from `metrics.csv`, drawn as logged: no smoothing, no step left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from plot_exp.report.contents import Series
from plot_exp.report.measures import PARTS
from plot_exp.report.style import (
    BLACK,
    CHOSEN,
    GREEN,
    GREY,
    LINES,
    PURPLE,
    REJECTED,
    Picture,
    finish,
    line,
    panels,
    save,
)

History = dict[str, Series]

REWARD = "reward β·log(π/π_ref), nats"


def draw(history: History, folder: Path) -> list[Picture]:
    """Draws every figure that the history has the columns for.

    Raises:
        RunError: the disk cannot be written.
    """
    drawers: tuple[Callable[[History, Path], Iterator[Picture]], ...] = (
        _loss,
        _rewards,
        _accuracy,
        _by_category,
        _logps,
        _gradients,
        _quantiles,
    )
    return [picture for drawer in drawers for picture in drawer(history, folder)]


def _loss(history: History, folder: Path) -> Iterator[Picture]:
    terms = _under(history, "train/loss/")
    titles = {"train/loss": "Loss in all", **{name: f"Term: {name[11:]}" for name in terms}}
    # The term is the distance where it is neither scaled nor averaged otherwise.
    distance = history.get("train/plot/distance")
    if distance and distance != history.get("train/loss/plot"):
        titles["train/plot/distance"] = "PLOT's distance"
    shown = [name for name in titles if name in history]
    if not shown:
        return
    columns = len(shown) if len(shown) in (1, 3) else 2
    figure, axes = panels(-(-len(shown) // columns), columns, width=9 if columns == 3 else 8)
    for axis, name in zip(axes, shown, strict=False):
        line(axis, history[name], "training")
        validation = name.replace("train/", "val/", 1)
        if validation in history:
            line(axis, history[validation], "validation", color=BLACK, linestyle="--", marker="s")
        finish(axis, titles[name], "distance" if name.endswith("distance") else "loss")
    for axis in axes[len(shown) :]:
        axis.remove()
    save(figure, folder, "loss.png")
    yield Picture(
        "loss.png", "The loss and its terms (each term before it is multiplied by its weight)"
    )


def _rewards(history: History, folder: Path) -> Iterator[Picture]:
    if not {"train/reward_chosen", "train/reward_rejected", "train/reward_margin"} & set(history):
        return
    figure, (left, right) = panels(1, 2, height=3.2)
    for side, color, style in (("chosen", CHOSEN, "-"), ("rejected", REJECTED, "--")):
        _both(left, history, f"reward_{side}", side, color, style)
    finish(left, "Rewards", REWARD)
    _both(right, history, "reward_margin", "margin", GREEN, "-")
    right.axhline(0, color=GREY, linewidth=0.8)
    finish(right, "Margin", "chosen − rejected reward, nats")
    save(figure, folder, "rewards.png")
    yield Picture("rewards.png", "Rewards of the chosen and the rejected side, and their margin")


def _accuracy(history: History, folder: Path) -> Iterator[Picture]:
    rows = {
        "reward_accuracy": ("reward", CHOSEN, "-"),
        "logp_accuracy/sum": ("log-probability, sum", PURPLE, "-."),
        "logp_accuracy/mean": ("log-probability, mean", GREEN, ":"),
    }
    if not any(f"{part}/{name}" in history for part in ("train", "val") for name in rows):
        return
    figure, (axis,) = panels(1, 1, width=6.5, height=3.8)
    for name, (label, color, style) in rows.items():
        _both(axis, history, name, label, color, style)
    axis.axhline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)), label="chance")
    axis.set_ylim(-0.03, 1.03)
    finish(axis, "Accuracy", "share of pairs where chosen > rejected")
    save(figure, folder, "accuracy.png")
    yield Picture("accuracy.png", "Accuracy on training batches and on held-out pairs")


def category_columns(history: History) -> list[str]:
    """Columns of held-out reward accuracy by category: no counts, no parts by length."""
    names = []
    for name in _under(history, "val/reward_accuracy/"):
        parts = name.split("/")[2:]
        if parts[0] not in PARTS and parts[-1] not in ("count", "low", "high"):
            names.append(name)
    return names


def _by_category(history: History, folder: Path) -> Iterator[Picture]:
    names = category_columns(history)
    if not any(len(history[name][0]) > 1 for name in names):
        return
    figure, (axis,) = panels(1, 1, width=6.5, height=4.2)
    for index, name in enumerate(names):
        line(axis, history[name], name[len("val/reward_accuracy/") :], index)
    axis.axhline(0.5, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
    axis.set_ylim(-0.03, 1.03)
    finish(axis, "Held-out reward accuracy by sub-preference", "share of pairs")
    save(figure, folder, "accuracy_by_category.png")
    yield Picture("accuracy_by_category.png", "Held-out reward accuracy of each sub-preference")


def _logps(history: History, folder: Path) -> Iterator[Picture]:
    if not {"train/logps_chosen", "train/logps_rejected"} & set(history):
        return
    figure, (axis,) = panels(1, 1, width=6.5, height=3.4)
    for side, color, style in (("chosen", CHOSEN, "-"), ("rejected", REJECTED, "--")):
        _both(axis, history, f"logps_{side}", side, color, style)
    finish(axis, "Log-probability of the responses", "log π(response | prompt), nats")
    save(figure, folder, "logps.png")
    yield Picture("logps.png", "Log-probabilities of the chosen and the rejected side")


def _gradients(history: History, folder: Path) -> Iterator[Picture]:
    norms, shares = _under(history, "train/grad_norm/"), _under(history, "train/grad_share/")
    if "train/grad_norm" not in history and not norms and not shares:
        return
    terms = [name.rpartition("/")[2] for name in [*norms, *shares]]
    order = {term: rank for rank, term in enumerate(dict.fromkeys(terms))}
    figure, axes = panels(1, 2 if shares else 1, width=8 if shares else 6.5, height=3.2)
    if "train/grad_norm" in history:
        line(axes[0], history["train/grad_norm"], "in all", color=BLACK)
    for axis, names in zip(axes, (norms, shares), strict=False):
        for name in names:
            term = name.rpartition("/")[2]
            line(axis, history[name], term, order[term], linestyle=LINES[1 + order[term] % 3])
    finish(axes[0], "Gradient norm", "norm over all parameters")
    if shares:
        only = f" of {shares[0].rpartition('/')[2]}" if len(shares) == 1 else ""
        finish(axes[1], f"Gradient share{only}", "norm ÷ that of the vanilla term")
    save(figure, folder, "gradients.png")
    yield Picture(
        "gradients.png",
        "Gradient norm before clipping, in all and of each weighted term, and the terms' share of "
        "the vanilla term's",
    )


def _quantiles(history: History, folder: Path) -> Iterator[Picture]:
    sides = {side: _quantile_columns(history, side) for side in ("chosen", "rejected")}
    sides = {side: columns for side, columns in sides.items() if columns}
    if not sides:
        return
    figure, axes = panels(1, len(sides), width=4 * len(sides), height=3.4)
    for axis, (side, columns) in zip(axes, sides.items(), strict=True):
        color = CHOSEN if side == "chosen" else REJECTED
        for percent in columns:
            steps, values = history[f"train/quantile/{side}/{percent}"]
            width = 2.0 if percent == 50 else 0.9
            style = "-" if percent == 50 else "--"
            axis.plot(steps, values, color=color, linewidth=width, linestyle=style)
            axis.annotate(
                f"{percent} %",
                (steps[-1], values[-1]),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
        axis.margins(x=0.02)
        finish(axis, f"Quantiles of {side} rewards", REWARD)
    limits = [limit for axis in axes for limit in axis.get_ylim()]
    for axis in axes:
        axis.set_ylim(min(limits), max(limits))
    save(figure, folder, "quantiles.png")
    yield Picture("quantiles.png", "How rewards spread over the examples of a batch")


def _quantile_columns(history: History, side: str) -> list[int]:
    pattern = re.compile(rf"train/quantile/{side}/(\d+)")
    return sorted(int(match[1]) for name in history if (match := pattern.fullmatch(name)))


def _both(axis: object, history: History, name: str, label: str, color: str, style: str) -> None:
    """Training as a line, validation as marked points of the same colour."""
    if f"train/{name}" in history:
        line(axis, history[f"train/{name}"], f"{label}, training", color=color, linestyle=style)
    if f"val/{name}" in history:
        line(
            axis,
            history[f"val/{name}"],
            f"{label}, held out",
            color=color,
            linestyle=":",
            marker="s",
            markersize=5,
            markerfacecolor="white",
        )


def _under(history: History, prefix: str) -> list[str]:
    return [name for name in history if name.startswith(prefix)]
