"""Training of networks: pure steps, feeds of volumes, and one loop."""

from emojax.training.steps import (
    Batch,
    Penalty,
    TrainState,
    end_epoch,
    init_state,
    make_eval_step,
    make_train_step,
    variables,
)

__all__ = [
    "Batch",
    "Penalty",
    "TrainState",
    "end_epoch",
    "init_state",
    "make_eval_step",
    "make_train_step",
    "variables",
]
