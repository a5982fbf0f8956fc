"""Conversations of several turns: a simulated user goes on where the teacher's answer ends (`respond --turns N`).

The user is a model with a persona and a goal (UltraChat, arXiv 2305.14233, section 3; self-chat of Baize, arXiv
2304.01196, section 3). It is shown the conversation so far and writes the next message, or ends the conversation. The
teacher answers every turn by the strategy chosen, as it answers a prompt that holds the turns before. So a turn is
asked for, checked and recorded like any other answer, and the row is that of the last whole turn.

Departures: persona and goal are drawn for each conversation, or are the fields "persona" and "goal" of the row. The
user reads the conversation as one text: with the roles exchanged, small models go on as the assistant. A message in
the assistant's words is asked for again (rules of Magpie's user turns). A known answer and constraints in the row
belong to its own request: they check the first answer, and a row of several turns does not carry them.

A later turn that is cut, refused or rejected ends the conversation at the last whole turn (`meta.ended`): it would be
so again. Where the next run may get an answer, the row has failed, and the same command goes on from that turn.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

from datagen.engine.options import option
from datagen.engine.unobtained import ask
from datagen.errors import CUT_ANSWER, UNPARSED, CallFailed, InputError, ParseError
from datagen.llm.model import Roles
from datagen.records.columns import REFERENCES, normal_name
from datagen.records.record import (
    Candidate,
    Message,
    Messages,
    Record,
    Row,
    as_messages,
    fail,
    reasoning_field,
    request_text,
)
from datagen.select import first_reason
from datagen.select.instructions import LATER_TURN
from datagen.strategies.strategy import CUT_ANSWERS, Strategy
from datagen.verify import UNVERIFIED
from datagen.verify.languages import is_chinese

TURN, PERSONAS, GOALS = "user/turn", "user/personas", "user/goals"
USER_TEMPLATES = tuple(f"{name}{language}" for language in ("", ".zh") for name in (TURN, PERSONAS, GOALS))
SAMPLING: dict[str, Any] = {"temperature": 1.0, "max_tokens": 2048}
"""Of the user: people differ more than answers should. The length leaves room for reasoning."""
MOST_TURNS = 20
END = "[end]"
"""What the user writes to end the conversation, as the template says."""
AROUND = " \t\n*`\"'.。"
"""What models put around it."""
LABEL = re.compile(r"(?:\[(?:user|用户)\][:：]?|(?:user|用户)[:：])", re.IGNORECASE)
"""A name before the message, as in the conversation that the user is shown."""
BOTH = re.compile(r"^(?:\[(?:assistant|助手)\]|(?:assistant|助手)[:：])", re.IGNORECASE | re.MULTILINE)
"""Where a reply goes on as the assistant."""
OF_REQUEST = {*REFERENCES, "constraints", "instruction_id_list", "kwargs", "numbers"}
"""Fields of a row that say what is right about the answer to its own request (verify/)."""
FAILED_TURNS = "failed turns"
FAILED_TURNS_WHY = (
    "A later turn was cut, refused or rejected, or the user's reply could not be read, and its conversation ends at "
    "the turn before (meta.ended): raise --max-tokens, or name another --user or --teacher."
)
REFUSED = "refused (HTTP "
"""The beginning of the reason of a request that the server refuses; a long conversation may be beyond its context."""


def turns_option() -> Any:
    """Declare `--turns` as a field of a strategy's options."""
    return option(
        1, "User turns per conversation: a simulated user writes the later ones, or ends it.", least=1, most=MOST_TURNS
    )


class User(NamedTuple):
    """The person that the simulated user plays."""

    persona: str
    goal: str
    language: str
    """What ends the names of its templates: "" or ".zh"."""


@dataclass
class Talk:
    """A conversation as far as it has come."""

    user: User
    model: str
    """The model that plays the user."""
    whole: Candidate | None = None
    """The row of the last whole turn."""
    turns: int = 0
    """Whole turns."""
    asks: Counter[tuple[str, int]] = field(default_factory=Counter)
    """What was asked for (0) and not obtained (1), by name, over all turns (`Candidate.asks`)."""

    def add(self, candidate: Candidate) -> None:
        """Count the answer of a turn. Nobody knows what is right about a later one, so that is not asked for."""
        for name, counts in candidate.asks.items():
            if name != UNVERIFIED or not self.turns:
                self.asks.update({(name, place): count for place, count in enumerate(counts)})
        if candidate.status == "kept":
            self.whole, self.turns = candidate, self.turns + 1

    def conclude(self, last: Candidate, ended: str | None = None) -> Candidate:
        """Return the candidate of the conversation.

        Args:
            last: The row of the last whole turn, or what prevented the turn after it.
            ended: Why the conversation ends with a whole turn.
        """
        missing = int(last is not self.whole)
        if missing and self.whole is not None and is_settled(last):
            last, ended = self.whole, last.reason
        user = {"user": self.model, "persona": self.user.persona, "goal": self.user.goal}
        last.row["meta"] |= {**user, "turns": self.turns, "ended": ended}
        names = dict.fromkeys(name for name, _ in self.asks)
        last.asks = {name: (self.asks[name, 0], self.asks[name, 1]) for name in names}
        return ask(last, FAILED_TURNS, self.turns + missing, missing) if self.turns else last


class Conversational(Strategy):
    """A strategy whose answer fits any conversation, so that it can answer the turns of one. It has `turns_option`."""

    roles: ClassVar[Mapping[str, str]] = {**Strategy.roles, "user": "plays the user of --turns"}
    stand_ins: ClassVar[Mapping[str, str]] = {"user": "teacher"}
    asks: ClassVar[Mapping[str, str]] = {**Strategy.asks, FAILED_TURNS: FAILED_TURNS_WHY}
    calls_per_answer: ClassVar[int] = 1
    """The most calls for one of `-k` answers."""

    @property
    def roles_in_use(self) -> Mapping[str, str]:
        return self.roles if self.options.turns > 1 else Strategy.roles

    @property
    def row_templates(self) -> tuple[str, ...]:
        """The templates of an answer; a conversation names that of its user, too."""
        return tuple(name for name in self.templates if name not in USER_TEMPLATES)

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        if self.options.turns > 1:
            yield await self.converse(record, llm)
            return
        async for candidate in super().generate(record, llm):
            yield candidate

    async def converse(self, record: Record, llm: Roles) -> Candidate:
        """Return the row of a conversation, or what prevented its first turn."""
        talk = Talk(self.draw_user(record), llm.model("user", record.sample(0)).identity)
        turn = replace(record, prompt=as_messages(record.prompt))
        while True:
            # 1. The teacher answers the conversation so far, by the strategy.
            answers = super().generate(turn, llm)
            (candidate,) = [answer async for answer in answers]
            talk.add(candidate)
            self.name_template(candidate.row["meta"], talk.user)
            if candidate.status != "kept":
                return talk.conclude(candidate)
            if talk.turns == self.options.turns:
                return talk.conclude(candidate, "turns")
            if "tool_calls" in candidate.row:
                return talk.conclude(candidate, "tool_calls")  # nobody plays the tools

            # 2. The user writes the next turn, or ends the conversation.
            turn = later_turn(record, [*as_messages(turn.prompt), answer_message(candidate.row)])
            try:
                text = await self.next_message(turn, llm, talk.user)
            except CallFailed as error:
                return talk.conclude(fail(error, record=turn.row, meta=dict(candidate.row["meta"])))
            if text is None:
                return talk.conclude(candidate, "user")
            turn = replace(turn, prompt=[*as_messages(turn.prompt), {"role": "user", "content": text}])

    async def next_message(self, record: Record, llm: Roles, user: User) -> str | None:
        """Return the user's next message in the conversation that is the prompt of a record; None ends it.

        Raises:
            CallFailed: There is no good reply.
        """
        conversation = transcript(as_messages(record.prompt))
        template = self.prompts[f"{TURN}{user.language}"]
        prompt = template.render(persona=user.persona, goal=user.goal, conversation=conversation)
        completion = await llm.chat("user", prompt, sample=record.sample(0), parse=read_message, **SAMPLING)
        return None if completion.value is None else str(completion.value)

    def draw_user(self, record: Record) -> User:
        """Return the persona and the goal of the row, or drawn ones in the language of its request."""
        language = ".zh" if is_chinese(request_text(record.prompt)) else ""

        def given_or_drawn(name: str, template: str) -> str:
            value = record.extra.get(name)
            messages = self.prompts[f"{template}{language}"].render().messages
            drawn = str(record.random(template).choice(messages)["content"])
            return value if isinstance(value, str) and value.strip() else drawn

        return User(given_or_drawn("persona", PERSONAS), given_or_drawn("goal", GOALS), language)

    def name_template(self, meta: Row, user: User) -> None:
        """Add the template of the user to those that `meta` names."""
        name = f"{TURN}{user.language}"
        meta["templates"] = [*meta["templates"], {"name": name, "digest": self.prompts[name].digest}]

    def bound(self, record: Record, llm: Roles) -> int:
        return int(self.options.turns * self.options.k * self.calls_per_answer + self.options.turns - 1)

    def usual_calls(self, record: Record, llm: Roles) -> int:
        return int(self.options.turns * self.options.k + self.options.turns - 1)


class IndependentAnswers(Conversational):
    """A strategy whose `-k` answers are independent of each other and stand in one row."""

    asks: ClassVar[Mapping[str, str]] = {
        **Conversational.asks,
        CUT_ANSWERS: "Some of several answers reached the length limit, and the row holds the others: raise "
        "--max-tokens.",
    }
    unique = ("prompt", "response", "responses")

    def check(self) -> None:
        if self.options.turns > 1 and self.options.k > 1:
            raise InputError(
                f"-k {self.options.k} --turns {self.options.turns}: a conversation goes on from one answer, not from "
                "several. Leave out -k; for several answers to the last turn, give the rows to respond -k"
            )
        super().check()


def later_turn(record: Record, messages: Messages) -> Record:
    """Return the record of a later turn: the same row, without what is right about the answer to its own request."""
    extra = {name: value for name, value in record.extra.items() if normal_name(name) not in OF_REQUEST}
    return replace(record, prompt=messages, response=None, reasoning=None, response_fields={}, extra=extra)


def answer_message(row: Row) -> Message:
    """Return the response of a row as a turn of a conversation."""
    reasoning = reasoning_field(row.get("reasoning"), "reasoning_content")
    return {"role": "assistant", "content": row["response"], **reasoning}


def transcript(messages: Messages) -> str:
    """Return what the user has seen of a conversation, as one text."""
    turns = (message for message in messages if message["role"] in ("user", "assistant"))
    return "\n\n".join(f"[{turn['role']}]\n{turn['content'].strip()}" for turn in turns)


def read_message(text: str) -> str | None:
    """Read a reply of the user: the next message, or None for the end of the conversation.

    Raises:
        ParseError: The words are the assistant's, or the rules for user turns drop them.
    """
    if text.strip(AROUND).casefold().endswith(END):
        return None
    message = text.strip()
    label = LABEL.match(message)
    message = message[label.end() :].strip() if label else message
    if not message or BOTH.search(message):
        raise ParseError("no message of the user alone")
    if reason := first_reason(LATER_TURN, message):
        raise ParseError(f"no message of a user: {reason}")
    return message


def is_settled(candidate: Candidate) -> bool:
    """Check that a turn without an answer would be without one in the next run, too."""
    reason = candidate.reason
    return candidate.status == "rejected" or reason in (CUT_ANSWER, UNPARSED) or reason.startswith(REFUSED)
