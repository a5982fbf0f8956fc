"""Peak learning rates of the trainers, by what is trained, and how long a toy is trained."""

from dataclasses import dataclass, replace
from pathlib import Path

from datagen_train.options import TrainOptions

TOY_BYTES = 20_000_000
"""Below this size of its weights a model is a toy; the smallest language model in use is ten times as large."""


@dataclass(frozen=True)
class Rates:
    """Peak learning rates of a trainer, by what is trained."""

    full: float
    lora: float
    tiny: float
    epochs: float = 3.0
    """Default of --epochs."""
    toy_steps: int = 1
    """Least number of steps of a toy, where neither --steps nor --epochs is given."""

    keeps_last_of_tiny: bool = False
    """Default of --best for a model made from nothing: the last one. Its held-out loss is least when it knows the form
    of the answers only, long before it knows any answer."""

    def fill(self, options: TrainOptions) -> TrainOptions:
        """Return the options with the defaults of the trainer."""
        best = "last" if self.keeps_last_of_tiny and options.is_tiny else "loss"
        epochs = 1.0 if options.tokens else options.epochs or self.epochs
        return replace(options, epochs=epochs, best=options.best or best)

    def pick(self, options: TrainOptions) -> float:
        """Return the peak learning rate of a run: the given one, or the default for what is trained."""
        if options.learning_rate is not None:
            return options.learning_rate
        if is_toy(options):  # rates for real models would hardly change a toy
            return self.tiny
        return self.lora if options.lora or options.qlora else self.full

    def least_steps(self, options: TrainOptions) -> int:
        """Return the least number of steps of a run."""
        is_default = options.epochs is None and options.tokens is None
        return self.toy_steps if is_default and is_toy(options) else 1


def is_toy(options: TrainOptions) -> bool:
    """Is the model `tiny`, or a trained one of that size?"""
    folder = Path(options.model.removeprefix("hf:"))
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")] if folder.is_dir() else []
    return options.is_tiny or 0 < sum(sizes) < TOY_BYTES
