"""The model `sim`: chooses a fault or a handler for each call, and replies as a server does."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from datagen.errors import InputError
from datagen.llm.call import Call, Reply, refusal
from datagen.llm.sim import Handler, SimRandom, answer, evolve, game24, instructions, judge, reason, structured, think
from datagen.records.record import reasoning_field
from datagen.text import count_words

FAULTS = ("refuse", "leak", "noop", "malformed")
RATES = ("skill", *FAULTS, "position_bias", "verbosity_bias", "think")
HANDLERS: dict[str, Handler] = {
    **answer.HANDLERS,
    **evolve.HANDLERS,
    **game24.HANDLERS,
    **instructions.HANDLERS,
    **judge.HANDLERS,
    **reason.HANDLERS,
    **structured.HANDLERS,
}
"""Task (the name of a template) to the function that writes the reply."""


@dataclass(frozen=True, slots=True)
class Sim:
    """The innermost layer of a `sim` model."""

    rates: Mapping[str, float]
    """Fault or bias to probability, and `skill`."""

    async def send(self, call: Call) -> Reply:
        if call.is_embedding:
            from datagen.llm.sim import embed  # numpy, which most commands do without

            return embed.reply(call, self.rates)
        task, fields = call.task, call.fields
        rng = SimRandom(f"{call.key.hex()}:{call.attempt}", self.rates)
        if task not in HANDLERS:
            return refusal(400, f"sim cannot play {task!r}; it can play: {', '.join(sorted(HANDLERS))}")

        # 1. Draw at most one of the faults that fit the task.
        is_verdict = task == "evolve/equal" or task.startswith("judge/")
        is_rewrite = task.startswith("evolve") and not is_verdict
        draw, fault = rng.random(), None
        for name in ("malformed",) if is_verdict else ("leak", "noop") if is_rewrite else ("refuse", "malformed"):
            if (draw := draw - self.rates.get(name, 0.0)) < 0:
                fault = name
                break

        # 2. Write the text.
        if fault == "refuse":
            text = "I'm sorry, but I can't help with that request."
        elif fault == "noop":
            text = rng.choice((fields["prompt"], f"Please {fields['prompt']}"))
        elif fault == "malformed":
            text = "It is hard to say, I think." if is_verdict else ""
        else:
            text = HANDLERS[task](fields, rng)
            text = f"(rewritten prompt) {text}" if fault == "leak" else text

        # 3. Reply. The numbers drawn for the reasoning are its own, so the text is the same without it.
        thinks = Random(f"{call.key.hex()}:{call.attempt}:think").random() < self.rates.get("think", 0.0)
        reasoning = think.reasoning_of(text) if thinks else None
        usage = {
            "prompt_tokens": sum(count_words(message["content"] or "") for message in call.messages),
            "completion_tokens": count_words(text) + count_words(reasoning or ""),
        }
        message = {"role": "assistant", "content": text, **reasoning_field(reasoning, "reasoning_content")}
        choice: dict[str, Any] = {"message": message, "finish_reason": "stop"}
        if call.params.get("logprobs"):
            choice["logprobs"] = {"content": judge.logprobs(text, fields, rng.skill)}
        return Reply(200, json.dumps({"model": "sim", "choices": [choice], "usage": usage, "fault": fault}))


def parse_sim(spec: str) -> Sim:
    """Parse `sim` or `sim:skill=RATE,fault=RATE,...[#TAG]`; another tag draws other replies.

    Raises:
        InputError: A name is unknown, or a rate is not from 0 to 1.
    """
    rates: dict[str, float] = {}
    for part in filter(None, spec.partition(":")[2].partition("#")[0].split(",")):
        name, _, value = part.partition("=")
        try:
            rates[name] = float(value)
        except ValueError:
            rates[name] = -1.0
        if name not in RATES or not 0 <= rates[name] <= 1:
            raise InputError(f"model {spec!r}: expected {', '.join(RATES)} with rates from 0 to 1: {part!r}")
    return Sim(rates)
