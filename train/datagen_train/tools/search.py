"""The trials of a sweep: `--over` names options and values; all combinations of them are tried, or some are drawn.

    --over batch-size=8,16             these values
    --over epochs=1..3                 the whole numbers from 1 to 3
    --over learning-rate=1e-5..1e-3    a number in between, uniform in its logarithm (with --random alone)

Draws depend on the seed and the options alone: a larger --random keeps the trials of a smaller one and adds to them.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from itertools import product
from random import Random

from datagen.errors import InputError

MAX_TRIALS = 1000
"""More combinations are a mistake, and are not even listed."""
DRAWS_PER_TRIAL = 1000
"""Draws after which no further combination is expected to turn up."""
UNSAFE = re.compile(r"[^\w.,=+-]")
LONGEST_NAME, SHORT_NAME, DIGEST = 120, 50, 8
"""Bytes of the name of a trial's folder; characters that are kept of a longer one, before some of its digest."""
Settings = dict[str, str]
"""The values of one trial by option, named as in the dataclasses."""


@dataclass(frozen=True)
class Axis:
    """One option, and what is tried for it."""

    option: str
    values: tuple[str, ...] = ()
    """Empty where a number is drawn from between the bounds."""
    low: float = 0.0
    high: float = 0.0

    def draw(self, random: Random) -> str:
        """Draw a value; a number between positive bounds is uniform in its logarithm."""
        if self.values:
            return random.choice(self.values)
        if self.low > 0:
            return f"{math.exp(random.uniform(math.log(self.low), math.log(self.high))):.4g}"
        return f"{random.uniform(self.low, self.high):.4g}"


def parse_axes(texts: Iterable[str], known: Sequence[str]) -> list[Axis]:
    """Read the values of `--over`.

    Args:
        texts: such as "learning-rate=1e-5,1e-4".
        known: The options that may be named, as in the dataclasses.

    Raises:
        InputError: One of them names no option, or no values, or an option a second time; or there is none.
    """
    axes: dict[str, Axis] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        option = name.strip().removeprefix("--").replace("-", "_")
        if not equals or not values.strip(" ,;"):
            raise InputError(f"--over {text}: expected an option and its values, such as learning-rate=1e-5,1e-4")
        if option not in known:
            near = get_close_matches(option, known, 1)
            hint = f"Did you mean {flag_name(near[0])}?" if near else "See --help"
            raise InputError(f"--over {name.strip()}: the trainer has no such option. {hint}")
        if option in axes:
            raise InputError(f"--over {flag_name(option)}: is named twice; give all of its values at once")
        axes[option] = parse_axis(option, values.strip())
    if not axes:
        raise InputError("--over: name an option and the values to try, such as --over learning-rate=1e-5,1e-4")
    return list(axes.values())


def parse_axis(option: str, text: str) -> Axis:
    """Read the values of one option. Semicolons separate values that have commas in them."""
    low, dots, high = text.partition("..")
    bounds = (number_or_text(low), number_or_text(high))
    if dots and not any(isinstance(bound, str) for bound in bounds):
        return parse_range(option, low, high)
    values = [value.strip() for value in text.split(";" if ";" in text else ",")]
    return Axis(option, tuple({number_or_text(value): value for value in reversed(values) if value}.values())[::-1])


def parse_range(option: str, low: str, high: str) -> Axis:
    """Read bounds: whole numbers stand for all from one to the other."""
    first, last = float(low), float(high)
    if not -math.inf < first < last < math.inf:
        raise InputError(f"--over {flag_name(option)}={low}..{high}: the first number must be less than the second")
    if not (low.isdecimal() and high.isdecimal()):
        return Axis(option, (), first, last)
    if last - first >= MAX_TRIALS:
        raise InputError(f"--over {flag_name(option)}={low}..{high}: more than {MAX_TRIALS} values; name some of them")
    return Axis(option, tuple(map(str, range(int(low), int(high) + 1))))


def number_or_text(value: str) -> float | str:
    """Return what tells values apart: 1e-5 and 0.00001 are the same."""
    try:
        return float(value)
    except ValueError:
        return value


def combinations(axes: Sequence[Axis], draws: int | None, seed: int) -> list[Settings]:
    """Return the trials in their order: all combinations, the last option changing fastest, or some that are drawn.

    Raises:
        InputError: There are too many, or a number is to be drawn and `draws` does not say how often.
    """
    ranges = [axis for axis in axes if not axis.values]
    values = [axis.values for axis in axes]
    number = math.prod(map(len, values))
    if draws and (ranges or draws < number):
        return list(drawn(axes, draws, seed))
    if ranges:
        name = flag_name(ranges[0].option)
        bounds = f"{ranges[0].low:g}..{ranges[0].high:g}"
        raise InputError(f"--over {name}={bounds}: add --random N, which draws from between, or list the values")
    if number > MAX_TRIALS:
        raise InputError(f"--over: {number} combinations; draw some of them with --random N")
    return [dict(zip((axis.option for axis in axes), chosen, strict=True)) for chosen in product(*values)]


def drawn(axes: Sequence[Axis], draws: int, seed: int) -> Iterator[Settings]:
    """Yield different combinations at random, independent of how many of them are wanted."""
    random, before = Random(f"sweep {seed}"), set[tuple[str, ...]]()
    for _ in range(draws * DRAWS_PER_TRIAL):
        values = tuple(axis.draw(random) for axis in axes)
        if values not in before:
            before.add(values)
            yield dict(zip((axis.option for axis in axes), values, strict=True))
        if len(before) == draws:
            return


def flag_name(option: str) -> str:
    """Return the name of an option as on the command line, without its hyphens."""
    return option.replace("_", "-")


def describe(settings: Mapping[str, str]) -> str:
    """Return the values of a trial in one line."""
    return " ".join(f"{flag_name(option)}={value}" for option, value in settings.items())


def folder_name(settings: Mapping[str, str]) -> str:
    """Return the name of a trial's folder: its values, with a digest where a name of a file cannot hold them."""
    name = ",".join(f"{flag_name(option)}={value}" for option, value in settings.items())
    safe = UNSAFE.sub("_", name)
    if safe == name and len(safe.encode()) <= LONGEST_NAME:
        return name
    return f"{safe[:SHORT_NAME]}-{sha256(name.encode(errors='surrogatepass')).hexdigest()[:DIGEST]}"


def trial_arguments(settings: Mapping[str, str], switches: Iterable[str]) -> list[str]:
    """Return the values of a trial as arguments.

    Args:
        settings: The values by option.
        switches: The options that take no value on the command line: theirs are true and false.

    Raises:
        InputError: The value of a switch is neither.
    """
    arguments, known = list[str](), set(switches)
    for option, value in settings.items():
        if option not in known:
            arguments += option_words(option, value)
        elif value not in ("true", "false"):
            raise InputError(f"--over {flag_name(option)}={value}: expected true, false or both")
        elif value == "true":
            arguments.append(f"--{flag_name(option)}")
    return arguments


def option_words(option: str, value: object) -> list[str]:
    """Return an option and its value as words; joined where the value could be taken for an option."""
    flag, text = f"--{flag_name(option)}", str(value)
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]
