"""Evol-Instruct (WizardLM, arXiv 2304.12244, sections 3.2, 3.3 and 4.2): rewrite prompts into harder and rarer ones.

    general    five operators in depth and one in breadth, four rounds (WizardLM)
    code       five ways to make a programming task harder, three rounds (WizardCoder, arXiv 2306.08568, section 3.1)
    math       two rounds downward, to easier problems, then three upward (WizardMath, arXiv 2308.09583, section 2.1)

Each seed has one live prompt. In each of `rounds` rounds one of six operators is drawn with equal probability, the
evolver rewrites the live prompt with it, and the teacher answers the rewrite with no other context. A rewrite that
survives elimination (select/elimination.py) is a row and becomes the live prompt; one that does not leaves its parent
to be tried again in the next round.

Departures. The paper makes both calls and then eliminates; here a rewrite that fails a rule about the rewrite alone
costs no further call, and the equality question comes before the answer. An in-breadth rewrite replaces its parent too
(the paper does not say), so a seed stays one prompt. Three rules are added (refused, answered, overgrown), and what
stands around a rewrite is taken off (select/wrapping.py). The seeds themselves are not repeated in the output.
WizardCoder and WizardMath report no elimination; here the rules hold for them as well, without `--rule none`. Their
papers stop evolving when a score on other data falls: that needs training, and `--rounds` may be raised one by one,
since recorded answers are reused.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from datagen.engine.method import Method, Table
from datagen.engine.options import option
from datagen.engine.reasoning import reasoning_option
from datagen.engine.unobtained import ask
from datagen.errors import UNPARSED, CallFailed, InputError, unknown_value
from datagen.judges.judges import REMINDER
from datagen.llm.model import Roles
from datagen.parse import parse_verdict
from datagen.records.record import (
    SAMPLES_PER_PASS,
    Candidate,
    Record,
    Row,
    ends_in_request,
    fail,
    keep,
    plain_prompt,
    reasoning_field,
    reject,
    request_text,
    row_id,
    with_request,
)
from datagen.select import Rule, first_reason
from datagen.select.elimination import BEFORE_ANSWER, MAX_GROWTH, ON_ANSWER, ON_VERDICT, REASONS, Step
from datagen.select.wrapping import unwrap
from datagen.text import count_words
from datagen.verify.languages import is_chinese

OPERATORS = ("add_constraint", "deepen", "concretise", "add_reasoning", "complicate_input", "breadth")
"""Section 3.2: five in depth, one in breadth."""
CODE_OPERATORS = ("add_constraint", "rare_requirement", "add_reasoning", "misdirect", "complexity")
DOWNWARD, UPWARD = ("easier", "easier_topic"), ("add_constraint", "concretise", "add_reasoning")
LANGUAGES = ("auto", "en", "zh")
SAMPLING: dict[str, Any] = {"max_tokens": 2048}
"""The length is that of section 4.2. Its temperature 1 and top_p 0.9 are left to the server; some refuse the two."""
VERDICT_SAMPLING: dict[str, Any] = {"temperature": 0, "max_tokens": 1024}
UNREAD_CHECKS = "unread equality checks"
ALL, NONE = "all", "none"
CALLS_PER_ROUND = 3
"""Rewrite, equality question, answer."""
ROUNDS_HELP = "Rounds of rewriting for each seed. [4; code: 3, math: 5]"
VERDICTS = ("equal", "not equal")
FORM = "\n".join(f"Verdict: {verdict}" for verdict in VERDICTS)
read_verdict = partial(parse_verdict, allowed=VERDICTS)


@dataclass(frozen=True)
class Options:
    """Options of `datagen evolve`."""

    rounds: int = option(4, ROUNDS_HELP, least=1, most=SAMPLES_PER_PASS)
    rule: list[str] = option(
        [ALL],
        f"Elimination rules to apply: all, none, or {', '.join(REASONS)}. Without no_gain the judge is not "
        "asked. Repeatable.",
    )
    max_growth: int = option(MAX_GROWTH, "Maximum number of words a rewrite may add; longer ones are dropped.", least=1)
    lang: str = option("auto", "Language of the prompt templates: en, zh, or auto (that of the seed).")
    reasoning: str = reasoning_option()


@dataclass
class RoundTable(Table):
    """Counts per round and per operator: where candidates ended, and how the kept ones grew."""

    rounds: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    operators: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    words: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, candidate: Candidate) -> None:
        meta = candidate.row["meta"]
        outcome = {"kept": "kept", "failed": "failed"}.get(candidate.status, candidate.reason)
        for counts in (self.rounds[meta["round"]], self.operators[meta["op"]]):
            counts.update(("asked", outcome))
        if candidate.status == "kept":
            self.words[meta["round"]].update(before=meta["words_before"], after=meta["words_after"])

    def as_dict(self) -> dict[str, Any]:
        return {
            "rounds": {str(n): dict(sorted(self.rounds[n].items())) for n in sorted(self.rounds)},
            "words": {str(n): dict(self.words[n]) for n in sorted(self.words)},
            "operators": {name: dict(sorted(self.operators[name].items())) for name in sorted(self.operators)},
        }

    def tables(self) -> list[list[list[str]]]:
        # 1. The number of candidates of each round and each operator, and the share of each outcome.
        outcomes = ["kept", *sorted({key for counts in self.rounds.values() for key in counts} - {"asked", "kept"})]
        rounds, operators = [["round", "asked", *outcomes]], [["operator", "asked", *outcomes]]
        groups: Mapping[Any, Counter[str]]
        for table, groups in ((rounds, self.rounds), (operators, self.operators)):
            for name, counts in sorted(groups.items()):
                total = counts["asked"]
                table.append([str(name), str(total), *(f"{100 * counts[key] / total:.0f} %" for key in outcomes)])

        # 2. The mean length of the kept rewrites of a round, after that of their parents.
        rounds[0].append("words")
        for row, number in zip(rounds[1:], sorted(self.rounds), strict=True):
            words, kept = self.words[number], self.rounds[number]["kept"]
            row.append(f"{words['before'] / kept:.0f} → {words['after'] / kept:.0f}" if kept else "-")
        return [rounds, operators]


class Evolve(Method):
    """Evol-Instruct for prompts of any kind: WizardLM's six operators, four rounds."""

    name, variant = "evolve", "general"
    options_type = Options
    options: Options
    table_type = RoundTable
    unique = ("prompt",)
    reasons = {
        **REASONS,
        "after_tools": "The results of tools stand behind the request. They would fit no other one.",
    }
    asks = {
        UNREAD_CHECKS: "The judge does not say in the form that is asked for whether a rewrite equals its parent: name "
        "another --judge.",
    }
    roles = {
        "evolver": "rewrites prompts",
        "judge": "judges whether a rewrite asks for more than its parent",
        "teacher": "answers the rewritten prompts",
    }
    templates = (
        *(f"evolve/{name}{language}" for language in ("", ".zh") for name in (*OPERATORS, "equal")),
        REMINDER,
    )
    row_templates = None  # a row names the one template of its round
    operators: ClassVar[tuple[tuple[str, ...], ...]] = (OPERATORS,)
    """The operators of round 1, of round 2 and so on; later rounds draw from the last ones."""
    folder: ClassVar[str] = "evolve"
    """The folder of the operator prompts."""
    frame: ClassVar[str | None] = None
    """The prompt that all operators share, with a place for the operator's text. None: each has a whole prompt."""

    async def generate(self, record: Record, llm: Roles) -> AsyncIterator[Candidate]:
        """Yield one candidate a round. A failed call ends the chain; the same command asks for it again."""
        parent = record.row
        for number in range(1, self.options.rounds + 1):
            candidate = await self.run_round(record, parent, number, llm)
            judged = candidate.row["meta"]["judge"] is not None
            yield ask(candidate, UNREAD_CHECKS, int(judged), int(candidate.reason == UNPARSED))
            if candidate.status == "failed" or candidate.reason == "after_tools":
                return
            if candidate.status == "kept":
                parent = candidate.row

    async def run_round(self, record: Record, parent: Row, number: int, llm: Roles) -> Candidate:
        """Run round `number` on the row of a live prompt: rewrite, eliminate, answer."""
        request = request_text(parent["prompt"])
        subject = dict(parent)
        sample = record.sample(number - 1)

        # 1. Draw one of the operators, all equally likely (section 3.2).
        operators = self.operators[min(number, len(self.operators)) - 1]
        operator = record.random(f"operator, round {number}").choice(operators)
        lang, language = self.options.lang, ""
        if self.frame is None and (lang == "zh" or (lang == "auto" and is_chinese(request_text(record.prompt)))):
            language = ".zh"  # styles with a frame have English templates only
        template = self.prompts[f"{self.folder}/{operator}{language}"]
        if self.frame is None:
            rewrite_prompt = template.render(prompt=request)
        else:
            (method,) = template.render().messages
            rewrite_prompt = self.prompts[self.frame].render(prompt=request, method=method["content"])
        meta = self.meta(record, parent, number, operator)
        meta |= {"template": template.name + language, "template_digest": template.digest}
        meta |= {"evolver": llm.model("evolver", sample).identity, "words_before": count_words(request)}
        if not ends_in_request(parent["prompt"]):
            return reject("after_tools", stage="read", record=subject, reply=None, meta=meta)
        try:
            # 2. Rewrite the prompt, take off what the evolver wrote around it, and apply the rules that need the
            #    rewrite alone (section 3.3).
            rewrite = await llm.chat("evolver", rewrite_prompt, sample=sample, **SAMPLING)
            child = unwrap(rewrite.text, request)
            meta["words_after"] = count_words(child)
            step = Step(request, child, max_growth=self.options.max_growth)
            if reason := first_reason(self.rules(BEFORE_ANSWER), step):
                return reject(reason, stage="rewrite", record=subject, reply=rewrite.text, meta=meta)

            # 3. Ask whether anything was gained. A verdict that cannot be read is a failed call, never an opinion.
            subject["child"] = child
            if self.rules(ON_VERDICT):
                meta["judge"] = llm.model("judge").identity
                question = self.prompts[f"evolve/equal{language}"].render(first=request, second=child)
                reminder = self.prompts[REMINDER].render(form=FORM)
                verdict = await llm.chat("judge", question, parse=read_verdict, reminder=reminder, **VERDICT_SAMPLING)
                if reason := first_reason(ON_VERDICT, Step(request, child, verdict=verdict.value)):
                    return reject(reason, stage="judge", record=subject, reply=verdict.text, meta=meta)

            # 4. Answer the rewrite with no other context, and eliminate by the answer.
            prompt = with_request(parent["prompt"], child)
            meta["model"] = llm.model("teacher", sample).identity
            answer = await llm.chat("teacher", plain_prompt(prompt), sample=sample, **SAMPLING)
            meta |= {"finish_reason": answer.finish_reason, "usage": answer.usage}
            if reason := first_reason(self.rules(ON_ANSWER), Step(request, child, response=answer.text)):
                return reject(reason, stage="answer", record=subject, reply=answer.text, meta=meta)
        except CallFailed as error:
            return fail(error, record=subject, meta=meta)

        # 5. The rewrite is a row, and the next round's parent.
        name = row_id(self.name, [parent["id"]], [record.pass_no, number], [prompt, answer.text])
        thought = reasoning_field(answer.reasoning)
        return keep({"id": name, "prompt": prompt, "response": answer.text, **thought, "meta": meta, **record.carried})

    def meta(self, record: Record, parent: Row, number: int, operator: str) -> Row:
        """Return the `meta` of a round; keys without a value yet are filled in on the way."""
        return self.row_meta(
            record,
            operator,
            {"round": number},
            parents=[parent["id"]],
            seed_id=record.meta.get("seed_id") or record.id,
            template=None,
            template_digest=None,
            evolver=None,
            judge=None,
            model=None,
            words_before=None,
            words_after=None,
            finish_reason=None,
            usage=None,
        )

    def rules(self, rules: Sequence[Rule[Step]]) -> list[Rule[Step]]:
        """Return those of some rules that `--rule` names."""
        return [rule for rule in rules if {ALL, rule.__name__} & set(self.options.rule)]

    def check(self) -> None:
        lang = self.options.lang
        for name in self.options.rule:
            if name not in (ALL, NONE, *REASONS):
                raise unknown_value("--rule", name, (ALL, NONE, *REASONS))
        if lang not in LANGUAGES:
            raise InputError(f"--lang {lang}: expected {', '.join(LANGUAGES)}")
        if lang == "zh" and self.frame:
            raise InputError("--lang zh: code and math have English prompts only; --style general has Chinese ones")

    @property
    def candidates(self) -> int:
        return self.options.rounds

    def bound(self, record: Record, llm: Roles) -> int:
        return self.options.rounds * (CALLS_PER_ROUND if self.rules(ON_VERDICT) else CALLS_PER_ROUND - 1)


@dataclass(frozen=True)
class CodeOptions(Options):
    rounds: int = option(3, ROUNDS_HELP, least=1, most=SAMPLES_PER_PASS)


class EvolveCode(Evolve):
    """Evol-Instruct for programming tasks: WizardCoder's five ways to make one harder, three rounds."""

    variant = "code"
    options_type = CodeOptions
    operators = (CODE_OPERATORS,)
    folder, frame = "evolve_code", "evolve_code/harder"
    templates = (*(f"evolve_code/{operator}" for operator in CODE_OPERATORS), frame, "evolve/equal", REMINDER)


@dataclass(frozen=True)
class MathOptions(Options):
    rounds: int = option(5, ROUNDS_HELP, least=1, most=SAMPLES_PER_PASS)


class EvolveMath(Evolve):
    """Evol-Instruct for mathematics: WizardMath's two rounds to easier problems, then three to harder ones."""

    variant = "math"
    options_type = MathOptions
    operators = (DOWNWARD, DOWNWARD, UPWARD)
    folder, frame = "evolve_math", "evolve_math/change"
    templates = (*(f"evolve_math/{operator}" for operator in (*DOWNWARD, *UPWARD)), frame, "evolve/equal", REMINDER)
