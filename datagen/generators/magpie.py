"""Magpie (arXiv 2406.08464): prompts out of nothing. An aligned model that is given its chat template up to the place
where the user speaks says what users say; then it answers (section 2).

The turn is sampled hot, with a temperature and a top_p drawn for each prompt, and ends at its end-of-turn token or at a
new line, or else the model would go on and answer itself; answers are greedy. With `--turns` the conversation goes on
in the same way (section 2.3). What an endpoint is sent is always answered, so the asker is a local model.

A turn is dropped by the rules for what is said in the user's place (filters/instructions.py), a row whose first prompt
is like an earlier one by novelty (filters/novelty.py). Magpie's further filters are other commands: `judge` for quality
and difficulty, a reward model, `filter`. Departures: no choice of the longest answers, which is a bias. Later turns may
be short.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, product
from typing import Any

from datagen.engine.method import Growing, Memory, Method
from datagen.engine.options import option
from datagen.errors import CallFailed
from datagen.llm.call import Completion
from datagen.llm.model import Roles
from datagen.prompts import Prompt, Prompts, plain_prompt
from datagen.records.record import (
    BadLine,
    Candidate,
    Messages,
    Record,
    Row,
    Text,
    as_messages,
    fail,
    keep,
    reject,
    row_id,
)
from datagen.select import first_reason
from datagen.select.instructions import SPOKEN, too_short
from datagen.select.novelty import THRESHOLD, Novelty

MIX = tuple(product((1.0, 1.1, 1.2, 1.25), (1.0, 0.995, 0.99)))
"""Temperature and top_p of a user's turn: the public data were made with all of these."""
SPEAKING: dict[str, Any] = {"max_tokens": 512, "stop": ["\n"]}
ANSWERING: dict[str, Any] = {"temperature": 0, "max_tokens": 2048}
LATER = tuple(rule for rule in SPOKEN if rule is not too_short)
"""The rules for a turn that follows an answer."""
SAMPLE_BITS = 48


@dataclass(frozen=True)
class Options:
    """What Magpie can be told."""

    turns: int = option(1, "How often the user speaks.", least=1, most=10)
    system: str | None = option(None, "A system message that steers what the user asks; no part of the row.")
    dedup: float = option(
        THRESHOLD, "ROUGE-L F with an earlier prompt above which one is dropped; 1: only equal ones.", least=0, most=1
    )


def draws(
    items: Iterator[Record | BadLine], memory: Growing, options: Options, seed: int
) -> Iterator[Record | BadLine]:
    """Begin conversations without end."""
    for number in count():
        yield Record(row_id("draw", [], number, seed), "", pass_no=number, seed=seed)


class Dropped(Exception):
    """A rule drops what was said."""

    def __init__(self, reason: str, stage: str, reply: str) -> None:
        super().__init__(reason)
        self.reason, self.stage, self.reply = reason, stage, reply


@dataclass
class Conversation:
    """One conversation on its way."""

    record: Record
    llm: Roles
    options: Options

    def __post_init__(self) -> None:
        self.prompt: Messages = []
        """What was said, up to the user's last turn."""
        self.said: Completion | None = None
        self.meta: Row = {
            "method": "magpie",
            "op": "steered" if self.options.system else "free",
            "turns": self.options.turns,
            "pass": self.record.pass_no,
            "parents": [],
            "source_id": None,
            "asker": None,
            "model": None,
            "finish_reason": None,
            "usage": None,
        }

    @property
    def text(self) -> Text:
        """The prompt as rows hold it."""
        return self.prompt[0]["content"] if len(self.prompt) == 1 else self.prompt

    async def speak(self, number: int) -> None:
        """Have the model say what the user says next."""
        answered = [{"role": "assistant", "content": self.said.text}] if self.said else []
        system = [{"role": "system", "content": self.options.system}] if self.options.system else []
        before = [*self.prompt, *answered]
        asked = Prompt(
            [*system, *before, {"role": "user", "content": ""}], "magpie", {"answered": "yes" if answered else ""}
        )
        random = self.record.random(f"turn {number}")
        temperature, top_p = random.choice(MIX)
        sampling = {"temperature": temperature, "top_p": top_p, **SPEAKING}
        sample = random.getrandbits(SAMPLE_BITS)  # the words before it are the same for all first turns
        said = await self.llm.chat("asker", asked, sample=sample, cut_ok=True, **sampling)
        self.meta["asker"] = said.model
        text = said.text.strip()
        self.prompt = [*before, {"role": "user", "content": text}]
        reason = "truncated" if said.finish_reason == "length" else first_reason(LATER if answered else SPOKEN, text)
        if reason:
            raise Dropped(reason, "turn", text)

    async def answer(self) -> None:
        """Have the conversation answered."""
        self.said = await self.llm.chat("teacher", plain_prompt(self.text), cut_ok=True, **ANSWERING)
        self.meta |= {
            "model": self.said.model,
            "finish_reason": self.said.finish_reason,
            "usage": self.said.usage,
        }
        if self.said.finish_reason == "length":
            raise Dropped("truncated", "answer", self.said.text)


async def magpie(record: Record, llm: Roles, prompts: Prompts, options: Options) -> AsyncIterator[Candidate]:
    """Yield one conversation."""
    talk = Conversation(record, llm, options)
    try:
        for number in range(1, options.turns + 1):
            await talk.speak(number)
            await talk.answer()
    except Dropped as fault:
        about: Row = {"id": record.id, "prompt": talk.text}
        yield reject(fault.reason, stage=fault.stage, record=about, reply=fault.reply, meta=talk.meta)
    except CallFailed as error:
        yield fail(error, record={"id": record.id, "prompt": talk.text or None}, meta=talk.meta)
    else:
        yield keep(row(talk))


def row(talk: Conversation) -> Row:
    assert talk.said is not None
    name = row_id("magpie", [], [talk.record.pass_no, talk.record.seed], [talk.text, talk.said.text])
    return {"id": name, "prompt": talk.text, "response": talk.said.text, "meta": talk.meta}


def first_request(prompt: Text) -> str:
    """Return the user's first words."""
    return next(message["content"] for message in as_messages(prompt) if message["role"] == "user")


class Magpie(Method):
    """magpie."""

    name = "magpie"
    options_type = Options
    options: Options
    roles = {"asker": "speaks as the user (hf:PATH or sim)", "teacher": "answers"}
    reads = False
    speaks = ("asker",)
    endless = True

    def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        return magpie(record, llm, self.prompts, self.options)

    def bound(self, record: Record) -> int:
        return 2 * self.options.turns

    def memory(self) -> Sequence[Memory]:
        return [Novelty(self.options.dedup, first_request)]

    def next_command(self) -> str:
        return "datagen filter {}"

    def draw(self, rows: Iterator[Record | BadLine], pool: Growing, seed: int) -> Iterator[Record | BadLine]:
        return draws(rows, pool, self.options, seed)
