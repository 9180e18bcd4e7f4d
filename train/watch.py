"""When to validate, what was best, and when to stop early."""

import json
from dataclasses import replace

from train.checkpoint import Progress
from train.log import VALIDATIONS, cut
from train.setup import Setup
from train.validate import is_better, prepare_validation, validate


class Watch:
    """Validates every `validate.every` steps; appends to validation.jsonl of the run folder.

    Args:
        setup: of the run.
        step: steps already done.
    """

    def __init__(self, setup: Setup, step: int) -> None:
        self.setup, self.config = setup, setup.config.validate
        self.path = setup.config.folder / VALIDATIONS
        self.validation = prepare_validation(setup) if self.config.every else None
        if setup.world.is_main:
            cut(self.path, step)

    def look(self, progress: Progress) -> tuple[Progress, bool]:
        """Validate if it is time; returns where the run stands, and whether this is the best so far."""
        if self.validation is None or progress.step % self.config.every:
            return progress, False
        result = validate(self.setup, self.validation)
        if self.setup.world.is_main:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": progress.step, **result}) + "\n")
        value = result[self.config.metric]
        shown = ", ".join(f"{k} {v:.4f}" for k, v in result.items() if isinstance(v, float))
        self.setup.world.say(f"step {progress.step}: validation {shown}")
        if not is_better(value, progress.best, self.config.metric):
            return progress, False
        return replace(progress, best=value, best_step=progress.step), True

    def is_over(self, progress: Progress) -> bool:
        """Whether there has been no new best for `patience` validations."""
        if not self.config.patience:
            return False
        return (progress.step - progress.best_step) // self.config.every >= self.config.patience
