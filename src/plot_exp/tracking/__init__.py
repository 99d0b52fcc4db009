"""Where a run's numbers go: `metrics.csv` always, and W&B where it is wanted and can be had."""

from plot_exp.tracking.tracker import Tracker

__all__ = ["Tracker"]
