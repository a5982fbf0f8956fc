"""Elimination of failed evolutions (WizardLM, arXiv 2304.12244, section 3.3).

The paper's four rules, by the names that stand in the rejected file:

    no_gain       the judge says that the rewrite asks for nothing more (and `unchanged`, which needs no model)
    apology       the answer contains "sorry" and is shorter than 80 words
    stop_words    the answer is only punctuation and stop words
    leaked        the rewrite copies words of its template, such as "given prompt" or "#Rewritten Prompt#"

Beyond the paper: `refused` (the evolver refuses instead of rewriting; the paper's rules let its refusal through as
a prompt) and `overgrown` (prompts grow without bound over rounds). Departures: a phrase that the parent already has is
not leaked, and "sorry" in the answer to a prompt about apologies is no refusal. Chinese apologies count as well.

Each rule is a function from a Step to its own name or None. BEFORE_ANSWER needs the rewrite alone and runs before
any further call.
"""

import re
import string
import unicodedata
from dataclasses import dataclass

from datagen.select import Rule
from datagen.text import count_words, strip_punctuation

APOLOGY_WORDS = 80
"""Section 3.3: an apology of fewer words is a refusal; a longer answer may well contain the word."""
MAX_GROWTH = 120
"""Words that a rewrite may add. The prompt asks for 10 to 20; data that complicates the input takes more."""

LEAK_PHRASE = re.compile(r"(?<![a-z])(given|rewritten|created)[ _-]prompt(?![a-z])", re.IGNORECASE)
LEAK_LABEL = re.compile(r"#\s*new[ _]prompt|<new_prompt>|^[^\w\n]*new[ _]prompt\W*?[:：]", re.IGNORECASE | re.MULTILINE)
SORRY = re.compile(r"\bsorry\b|抱歉|对不起", re.IGNORECASE)
ABOUT_APOLOGY = re.compile(r"\bsorry\b|\bapolog|抱歉|对不起|道歉", re.IGNORECASE)
REFUSAL = re.compile(
    r"""\W*(?:
        (?:i\W{0,2}a?m\s+)?(?:\w+\s+)?sorry\b | i\s+apologi[sz]e\b | my\s+apologies\b | apologies\b
      | i(?:\s*can(?:no|['’]|\W)?t|\s+(?:can\s+not|wo['’]?nt|won['’]t|will\s+not))\b
      | i\W?a?m\s+(?:un|not\s+)able\b | i\W?a?m\s+afraid\b
      | as\s+an?\s+(?:ai|artificial|large\s+language|language)\b
      | (?:很|非常)?(?:抱歉|对不起) | 我(?:无法|不能) | 作为(?:一个|一名)?(?:AI|人工智能|语言模型)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
OPERATOR = re.compile(r"(?<=[\d)])\s*([-*/%])\s*(?=[\d(])")
AS_SYMBOL = {"-": "−", "*": "×", "/": "÷", "%": "√"}
"""Mathematical symbols, which Unicode does not count as punctuation."""
STOP_WORDS = frozenset(
    """a about above after again against am an and any are aren't as at be because been before being below between
    both but by can could couldn't did didn't do does doesn't doing don't down during each few for from further had
    has hasn't have haven't having he her here hers herself him himself his how i if in into is isn't it it's its
    itself just let's me more most must my myself nor of off on once only or other our ours ourselves out over own
    same she should so some such than that that's the their theirs them themselves then there these they this those
    through to too under until up very was wasn't we were weren't what when where which while who whom why will with
    would you your yours yourself yourselves""".split()
) - {"both"}  # fmt: skip
"""Function words. Yes, no, not, none, all and both are left out: they can be the whole answer to a question."""


@dataclass(frozen=True, slots=True)
class Step:
    """One evolution: the prompt before and after, and the verdict and the answer where they are there already."""

    parent: str
    child: str
    verdict: str = ""
    """`equal` or `not equal`."""
    response: str = ""
    max_growth: int = MAX_GROWTH


def unchanged(step: Step) -> str | None:
    """The rewrite equals the parent except for case, spaces and punctuation. Operators count: 3 * 4 is not 3 / 4."""
    parent, child = (
        strip_punctuation(OPERATOR.sub(lambda match: AS_SYMBOL[match[1]], text.casefold()))
        for text in (step.parent, step.child)
    )
    return "unchanged" if parent == child else None


def leaked(step: Step) -> str | None:
    """The rewrite repeats words of the template that the parent does not have."""
    before = {match[1].lower() for match in LEAK_PHRASE.finditer(step.parent)}
    after = {match[1].lower() for match in LEAK_PHRASE.finditer(step.child)}
    new_label = LEAK_LABEL.search(step.child) and not LEAK_LABEL.search(step.parent)
    return "leaked" if after - before or new_label else None


def refused(step: Step) -> str | None:
    """The rewrite begins as a refusal, and the parent does not."""
    return "refused" if REFUSAL.match(step.child) and not REFUSAL.match(step.parent) else None


def overgrown(step: Step) -> str | None:
    """The rewrite adds more than `max_growth` words."""
    return "overgrown" if count_words(step.child) - count_words(step.parent) > step.max_growth else None


def no_gain(step: Step) -> str | None:
    """The judge says that the two prompts are equal."""
    return "no_gain" if step.verdict == "equal" else None


def apology(step: Step) -> str | None:
    """A short answer says sorry, and the prompt is not about that."""
    says_sorry = SORRY.search(step.response) and not ABOUT_APOLOGY.search(step.child)
    return "apology" if says_sorry and count_words(step.response) < APOLOGY_WORDS else None


def stop_words(step: Step) -> str | None:
    """The answer says nothing; a single letter is a choice, and says something."""
    text = step.response.replace("’", "'")
    punctuation = {c for c in text if c in string.punctuation or unicodedata.category(c)[0] == "P"} - {"'"}
    words = "".join(" " if c in punctuation else c for c in text).lower().split()
    if len(words) == 1 and len(words[0].strip("'")) == 1:
        return None
    return "stop_words" if all(word.strip("'") in STOP_WORDS | {""} for word in words) else None


BEFORE_ANSWER: tuple[Rule[Step], ...] = (unchanged, leaked, refused, overgrown)
ON_VERDICT: tuple[Rule[Step], ...] = (no_gain,)
ON_ANSWER: tuple[Rule[Step], ...] = (apology, stop_words)
REASONS = {
    "unchanged": "The rewrite equals its parent but for case, spaces and punctuation.",
    "leaked": 'The rewrite repeats words of its template, such as "given prompt".',
    "refused": "The evolver refused to rewrite the prompt.",
    "overgrown": "The rewrite adds more words than --max-growth allows.",
    "no_gain": "The judge says that the rewrite asks for nothing more than its parent.",
    "apology": "The answer says sorry, and is short: the prompt was refused.",
    "stop_words": "The answer holds nothing but punctuation and function words.",
}
"""What the names of the rules mean."""
