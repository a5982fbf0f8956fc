"""What a run says of itself, and how that is laid out: how far it is, how long it takes, its latest numbers."""

import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from datagen.commands.live import MAX_BAR, MIN_BAR, SEPARATOR, clock, draw_bar, flow, short

if TYPE_CHECKING:
    from transformers import TrainerState

LINE_METRICS = (
    "reward",
    "eval_reward",
    "kl",
    "kl_token",
    "fluency",
    "repetition",
    "ended",
    "loss",
    "eval_loss",
    "rewards/accuracies",
    "eval_rewards/accuracies",
    "accuracy",
    "eval_accuracy",
    "eval_macro_f1",
    "eval_exact_match",
    "eval_rouge_l",
    "eval_also_exact_match",
    "eval_also_rouge_l",
)
"""Metrics that are shown, in this order."""
TRAINING = "training"
"""The phase of an optimiser step, which needs no name beside the number of the step."""
ANSWERING = "answering held-out prompts"
MAX_NUMBER_LINES = 2
"""Lines of numbers below the first line; numbers beyond them are left out."""
Numbers = Mapping[str, float]


class Terminal(Protocol):
    """Whatever shows a run to a person (run/terminal.py; in tests a list)."""

    def say(self, text: str) -> None: ...

    def phase(self, name: str) -> None: ...

    def count(self, done: int, total: int | None = None, unit: str = "") -> None: ...

    def step(self, state: "TrainerState") -> None: ...

    def update(self, numbers: Numbers) -> None: ...

    def show(self, state: "TrainerState", numbers: dict[str, Any]) -> None: ...


def token_counter(terminal: Terminal) -> Callable[[int], None]:
    """Return a function that takes numbers of new tokens, and shows their sum as the progress of the phase."""
    tokens = 0

    def add(number: int) -> None:
        nonlocal tokens
        tokens += number
        terminal.count(tokens, unit="tokens")

    return add


@dataclass(eq=False)
class Progress:
    """What is known about a run at a time."""

    name: str
    """The command."""
    phase: str = ""
    """What it does now."""
    phase_start: float = 0.0
    part: str = ""
    """How far that is."""
    numbers: Numbers = field(default_factory=dict)
    """The last ones of the training."""
    step: int = 0
    steps: int = 0
    """0 before the training."""
    start: float = field(default_factory=monotonic)
    _first: tuple[float, int] | None = None
    """When this process began to train, and at which step."""

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        if phase != self.phase:
            self.phase, self.part, self.phase_start = phase, "", monotonic()

    def move(self, step: int, steps: int) -> None:
        """Say at which of how many steps the training is."""
        if self._first is None and steps:
            self._first = (monotonic(), step)
        self.step, self.steps = step, steps

    def head(self) -> list[str]:
        """Return where the run is, and the time."""
        place = [f"step {self.step} of {self.steps}"] if self.steps else []
        if self.phase != TRAINING or not place:
            place.append(f"{self.phase} ({self.part})" if self.part else self.phase)
        return [", ".join(place), clock(monotonic() - self.start) + self._left()]

    def lines(self, width: int, *, ascii_only: bool = False) -> list[str]:
        """Return the lines for a terminal of this width, the most important first; none is wider, or cut."""
        head = self.head()
        space = width - len(f"{self.name}  {SEPARATOR.join(head)}")
        if self.steps and space >= MIN_BAR:
            bar = draw_bar(self.step / self.steps, min(space, MAX_BAR), ascii_only=ascii_only)
            top = [f"{self.name} {bar} {SEPARATOR.join(head)}"]
        else:
            first = f"{self.name} {head[0]}"
            top = flow([first if len(first) <= width else head[0], head[1]], width, most=2)
        numbers = [*number_fields(self.numbers), f"memory {memory() / 1e9:.1f} GB"] if self.steps else []
        return [*top, *flow(numbers, width, most=MAX_NUMBER_LINES)]

    def plain_line(self, numbers: Numbers, *, with_time: bool) -> str:
        """Return a log or a measurement as one line."""
        place = [f"step {self.step} of {self.steps}" if self.steps else "before the first step"]
        time = [clock(monotonic() - self.start) + self._left()] if with_time else []
        return SEPARATOR.join([*place, *time, *number_fields(numbers)])

    def _left(self) -> str:
        if self._first is None or self.step <= self._first[1]:
            return ""
        began, first = self._first
        return f", about {clock((monotonic() - began) / (self.step - first) * (self.steps - self.step))} left"


def metric_fields(numbers: Numbers) -> list[str]:
    """Return the metrics that are shown, with their names."""
    return [f"{name} {numbers[name]:.4g}" for name in LINE_METRICS if name in numbers]


def number_fields(numbers: Numbers) -> list[str]:
    """Return the metrics, the learning rate and the speed, the most important first."""
    fields = metric_fields(numbers)
    if "learning_rate" in numbers:
        fields.append(f"lr {numbers['learning_rate']:.2g}")
    if "tokens_per_second" in numbers:
        fields.append(f"{short(numbers['tokens_per_second'])} tokens/s")
    return fields


def memory() -> float:
    """Return the most bytes used so far: of the GPU if there is one, else of the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
