"""Magpie (arXiv 2406.08464): prompts out of nothing. An aligned model that is given its chat template up to the place
where the user's turn begins writes what users write; then it answers (section 2).

The turn is sampled with a temperature and a top_p drawn for each prompt. It ends at its end-of-turn token or at a new
line; otherwise the model would go on and answer itself. Answers are greedy. With `--turns` the conversation goes on
in the same way (section 2.3). An endpoint always answers what it is sent, so the asker is a local model.

A turn is rejected by the rules for user turns written by a model (select/instructions.py), and a row if its first
prompt is similar to an earlier one (select/novelty.py). Magpie's further filters are other commands: `judge` for
quality and difficulty, a reward model, `filter`. Departures: the longest answers are not preferred, which is a bias.
Later turns may be short.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count, product
from typing import Any

from datagen.engine.method import GrowingMemory, Memory, Method
from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.errors import CallFailed
from datagen.llm.model import Roles
from datagen.records.record import (
    BadLine,
    Candidate,
    Messages,
    Prompt,
    Record,
    Row,
    Text,
    as_messages,
    fail,
    keep,
    plain_prompt,
    reasoning_field,
    reject,
    request_messages,
    row_id,
)
from datagen.select import first_reason
from datagen.select.instructions import LATER_TURN, USER_REASONS, USER_TURN
from datagen.select.novelty import THRESHOLD, Novelty

SAMPLING_MIX = tuple(product((1.0, 1.1, 1.2, 1.25), (1.0, 0.995, 0.99)))
"""Temperature and top_p of a user's turn: the public data were made with all of these."""
TURN_SAMPLING: dict[str, Any] = {"max_tokens": 512, "stop": ["\n"]}
ANSWER_SAMPLING: dict[str, Any] = {"temperature": 0, "max_tokens": 2048}
SAMPLE_BITS = 48


@dataclass(frozen=True)
class Options:
    """Options of `datagen magpie`."""

    turns: int = option(1, "Number of user turns per conversation.", least=1, most=10)
    system: str | None = option(None, "System message that steers what the user asks; it is not part of the row.")
    dedup: float = option(
        THRESHOLD,
        "Near-duplicate threshold (ROUGE-L F1) between first prompts; 1 = exact duplicates only.",
        least=0,
        most=1,
    )
    reasoning: str = reasoning_option()


class Magpie(Method):
    """Sample prompts from an aligned model that writes the user's turns, and answer them."""

    name = "magpie"
    options_type = Options
    options: Options
    next_step = "filter"
    roles = {"asker": "speaks as the user (hf:PATH or sim)", "teacher": "answers"}
    reads_input = False
    speaks_as_user = ("asker",)
    endless = True
    reasons = {
        **USER_REASONS,
        "similar": "The first prompt is too similar to an earlier one (--dedup).",
        "truncated": "A turn reached its length limit. Raise --max-tokens.",
    }

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield one conversation of `--turns` user turns; its last answer is the response."""
        system = [{"role": "system", "content": self.options.system}] if self.options.system else []
        history: Messages = []
        prompt: Text = ""
        answer, thought = "", None
        subject: Row = {"id": record.id, "prompt": None}
        meta = self.row_meta(
            record,
            "steered" if system else "free",
            {"turns": self.options.turns},
            parents=[],
            seed_id=record.id,
            asker=None,
            model=None,
            finish_reason=None,
            usage=None,
        )
        try:
            for number in range(1, self.options.turns + 1):
                # 1. The asker continues the template where the user's turn begins (sections 2.1 and 2.3). The messages
                #    are the same for all first turns, so the sample number is drawn.
                messages = [*system, *history, {"role": "user", "content": ""}]
                request = Prompt(messages, self.name, {"answered": "yes" if history else ""})
                random = record.random(f"turn {number}")
                temperature, top_p = random.choice(SAMPLING_MIX)
                sampling = {"temperature": temperature, "top_p": top_p, **TURN_SAMPLING}
                sample = random.getrandbits(SAMPLE_BITS)
                turn = await llm.chat("asker", request, sample=sample, cut_ok=True, **sampling)
                meta["asker"] = turn.model
                text = turn.text.strip()

                # 2. Reject a turn that was cut, or that is no user's.
                rules = LATER_TURN if history else USER_TURN
                history = [*history, {"role": "user", "content": text}]
                subject["prompt"] = prompt = text if number == 1 else history
                if reason := "truncated" if turn.finish_reason == "length" else first_reason(rules, text):
                    yield reject(reason, stage="turn", record=subject, reply=text, meta=meta)
                    return

                # 3. The teacher answers the conversation so far.
                reply = await llm.chat("teacher", plain_prompt(prompt), cut_ok=True, **ANSWER_SAMPLING)
                meta |= {"model": reply.model, "finish_reason": reply.finish_reason, "usage": reply.usage}
                answer, thought = reply.text, reply.reasoning
                if reply.finish_reason == "length":
                    yield reject("truncated", stage="answer", record=subject, reply=answer, meta=meta)
                    return
                turn_before = {"role": "assistant", "content": answer, **reasoning_field(thought, "reasoning_content")}
                history = [*history, turn_before]
        except CallFailed as error:
            yield fail(error, record=subject, meta=meta)
            return
        content = [prompt if isinstance(prompt, str) else request_messages(prompt), answer]
        name = row_id(self.name, [], [record.pass_no, record.seed], content)
        yield keep({"id": name, "prompt": prompt, "response": answer, **reasoning_field(thought), "meta": meta})

    def draw(self, rows: Iterator[Record | BadLine], pool: GrowingMemory, seed: int) -> Iterator[Record | BadLine]:
        """Yield an empty record for each conversation."""
        for number in count():
            yield Record(row_id("draw", [], number, seed), "", pass_no=number, seed=seed)

    def bound(self, record: Record, llm: Roles) -> int:
        return 2 * self.options.turns

    def memory(self) -> list[Memory]:
        return [Novelty(self.options.dedup, first_request)]


def first_request(prompt: Text) -> str:
    """Return the first user message of a prompt."""
    return str(next(message["content"] for message in as_messages(prompt) if message["role"] == "user"))
