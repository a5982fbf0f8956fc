"""The procedural teacher: answers by rules, without a network or a neural net, behind the same stack as a server.

It serves the first run, the tests and load tests. It knows the truth, so what catches its faults can be measured:

    sim:skill=0.7,refuse=0.05,leak=0.05,noop=0.05,malformed=0.02

skill      how often a chain of thought or a judgement comes out right; 1 unless told

refuse     an answer is a short apology           leak       a rewrite repeats words of its template
noop       a rewrite changes nothing that counts  malformed  a verdict is missing, or an answer is empty
position_bias, verbosity_bias: see judge.py

Deterministic in (request, sample, attempt). An injected fault is named in the raw reply, which methods never see.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from datagen.errors import InputError
from datagen.llm.call import Call, Reply, refusal
from datagen.llm.sim import (
    arithmetic,
    backtranslate,
    constraints,
    evolve,
    facts,
    game24,
    improve,
    judge,
    magpie,
    reason,
    self_instruct,
)
from datagen.llm.sim.chance import Chance
from datagen.text import count_words

VERSION = 1
"""Part of the identity: a changed teacher is another teacher."""
FAULTS = ("refuse", "leak", "noop", "malformed")
KNOWN = ("skill", *FAULTS, "position_bias", "verbosity_bias")
Act = Callable[[Mapping[str, str], Chance], str]
ACTS: dict[str, Act] = {
    "answer": lambda fields, chance: constraints.meet(fields["prompt"], arithmetic.answer(fields, chance), chance),
    **backtranslate.ACTS,
    **evolve.ACTS,
    **reason.ACTS,
    **judge.ACTS,
    **facts.ACTS,
    **game24.ACTS,
    **improve.ACTS,
    **magpie.ACTS,
    **self_instruct.ACTS,
}
"""Task to what plays it."""


@dataclass(frozen=True, slots=True)
class Sim:
    """The innermost layer of a `sim` model."""

    rates: Mapping[str, float]
    """Fault or bias to probability, and `skill`."""

    async def send(self, call: Call) -> Reply:
        chance = Chance(f"{call.key.hex()}:{call.attempt}", self.rates)
        if call.task not in ACTS:
            return refusal(400, f"sim cannot play {call.task!r}; it can play: {', '.join(sorted(ACTS))}")
        fault = self._draw(call.task, chance)
        text = _spoil(fault, call, chance) if fault else ACTS[call.task](call.fields, chance)
        asked = sum(count_words(message["content"]) for message in call.messages)
        usage = {"prompt_tokens": asked, "completion_tokens": count_words(text)}
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if call.params.get("logprobs"):
            choice["logprobs"] = {"content": judge.logprobs(text, call.fields, chance.skill)}
        return Reply(200, json.dumps({"model": "sim", "choices": [choice], "usage": usage, "fault": fault}))

    async def close(self) -> None:
        """Nothing is open."""

    def _draw(self, task: str, chance: Random) -> str | None:
        """Choose at most one fault among those that fit the task."""
        rewrite = task.startswith("evolve") and task != "evolve/equal"
        fitting = ("leak", "noop") if rewrite else ("malformed",) if is_verdict(task) else FAULTS[::3]
        at = chance.random()
        for fault in fitting:
            if (at := at - self.rates.get(fault, 0.0)) < 0:
                return fault
        return None


def _spoil(fault: str, call: Call, chance: Chance) -> str:
    if fault == "refuse":
        return "I'm sorry, but I can't help with that request."
    if fault == "leak":
        return f"#Rewritten Prompt#:\n{ACTS[call.task](call.fields, chance)}"
    if fault == "noop":
        return chance.choice((call.fields["prompt"], f"Please {call.fields['prompt']}"))
    return "It is hard to say, I think." if is_verdict(call.task) else ""


def is_verdict(task: str) -> bool:
    """Does a task ask for an opinion?"""
    return task == "evolve/equal" or task.startswith("judge/")


def parse_sim(spec: str) -> Sim:
    """Parse `sim` or `sim:skill=share,fault=rate,...`."""
    rates: dict[str, float] = {}
    for part in filter(None, spec.partition(":")[2].split(",")):
        name, _, value = part.partition("=")
        try:
            rates[name] = float(value)
        except ValueError:
            rates[name] = -1.0
        if name not in KNOWN or not 0 <= rates[name] <= 1:
            raise InputError(f"model {spec!r}: expected {', '.join(KNOWN)} with rates from 0 to 1: {part!r}")
    return Sim(rates)
