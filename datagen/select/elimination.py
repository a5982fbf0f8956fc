"""Elimination of failed evolutions (WizardLM, arXiv 2304.12244, section 3.3).

The paper's four rules, by the names that stand in the rejected file:

    no_gain       the judge says that the rewrite asks for nothing more (and `unchanged`, which needs no model)
    apology       the answer contains "sorry" and is shorter than 80 words
    stop_words    the answer is only punctuation and stop words
    leaked        the rewrite copies words of its template, such as "given prompt" or "#Rewritten Prompt#"

Beyond the paper: `refused` (the evolver refuses instead of rewriting; the paper's rules let its refusal through as
a prompt), `answered` (it answers instead) and `overgrown` (prompts grow without bound over rounds). Departures: a
phrase that the parent already has is not leaked, "sorry" in the answer to a prompt about apologies is no refusal, and a
label around the rewrite is taken off (wrapping.py) instead of being a leak. Chinese words count as their English twins.

Each rule is a function from a Step to its own name or None. BEFORE_ANSWER needs the rewrite alone and runs before
any further call.
"""

import re
import string
import unicodedata
from dataclasses import dataclass

from datagen.select import Rule
from datagen.select.refusals import is_refusal
from datagen.text import count_words, normal, strip_punctuation, tokens

APOLOGY_WORDS = 80
"""Section 3.3: an apology of fewer words is a refusal; a longer answer may well contain the word."""
MAX_GROWTH = 120
"""Words that a rewrite may add. The prompt asks for 10 to 20; data that complicates the input takes more."""

LEAK_PHRASE = re.compile(
    r"(?<![a-z])(given|rewritten|created|revised|evolved|original)[ _-]prompt(?![a-z])"
    r"|((?:给定|改写后?|重写后?|修改后|创建|所给|原|原始|原来)的?(?:提示词?|指令)(?!符))",
    re.IGNORECASE,
)
"""Words of the templates, in each language that has some."""
LEAK_LABEL = re.compile(
    r"#\s*new[ _]prompt|<new_prompt>|^[^\w\n]*new[ _]prompt\W*?[:：]|^[^\w\n]*新的?提示词?\W*?[:：]",
    re.IGNORECASE | re.MULTILINE,
)
SORRY = re.compile(r"\bsorry\b|抱歉|对不起", re.IGNORECASE)
ABOUT_APOLOGY = re.compile(r"\bsorry\b|\bapolog|抱歉|对不起|道歉", re.IGNORECASE)
ASSISTANT = re.compile(
    r"""(?:sure|certainly|absolutely|of\ course|great\ question)!
    | (?:sure|certainly|of\ course|absolutely|okay|ok|alright|no\ problem)[,.:]\s+
        (?:here['’]?s?|let['’]?s|let\ me|i['’]?ll|i['’]?d|below|this\ is)\b
    | (?:好的|当然可以|当然|没问题)[，,！!。]\s*(?:以下|下面|这是|这里是|我来|让我)
    | (?:the\ )?(?:answer|solution|result)(?:\ is\b|\s*[:：]) | 答案?[:：] | 答案是 | 解[:：]""",
    re.IGNORECASE | re.VERBOSE,
)
"""How an answer begins, and no prompt does."""
HERE = re.compile(r"here(?:['’]s|\ is|\ are)\b([^\n:.?]{1,120}):", re.IGNORECASE)
CODE = re.compile(r"```[a-z+#]{1,20}[^\S\n]*\n", re.IGNORECASE)
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
PARTICLES = frozenset("的了和是在着地得而与及或也就都这那之其吗呢吧啊")
"""Chinese function words of one character. 不, 有, 对 and 好 are left out: they can be the whole answer."""
FILLERS = frozenset("short brief list two three four five several tips ideas".split())
"""Words of an announcement, beside those of the parent."""


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
        strip_punctuation(OPERATOR.sub(lambda match: AS_SYMBOL[match[1]], normal(text).casefold()))
        for text in (step.parent, step.child)
    )
    return "unchanged" if parent == child else None


def leaked(step: Step) -> str | None:
    """The rewrite repeats words of the template that the parent does not have."""
    before, after = (
        {(match[1] or match[2]).casefold() for match in LEAK_PHRASE.finditer(text)}
        for text in (step.parent, step.child)
    )
    new_label = LEAK_LABEL.search(step.child) and not LEAK_LABEL.search(step.parent)
    return "leaked" if after - before or new_label else None


def refused(step: Step) -> str | None:
    """The evolver refuses, and the parent does not read like that."""
    return "refused" if is_refusal(step.child) and not is_refusal(step.parent) else None


def answered(step: Step) -> str | None:
    """The evolver answers the parent: it speaks as an assistant, announces what the parent asks for, or writes code."""
    child, parent = step.child.lstrip("*# \n"), step.parent.lstrip("*# \n")
    if ASSISTANT.match(child) and not ASSISTANT.match(parent) and not child.rstrip().endswith(("?", "？")):
        return "answered"
    here = HERE.match(child)
    announced = set(tokens(here[1])) - STOP_WORDS - FILLERS if here and not HERE.match(parent) else set()
    only_code = CODE.match(child) and child.rstrip().endswith("```") and child.count("```") == 2
    is_announced = announced and announced <= set(tokens(parent))
    return "answered" if is_announced or (only_code and "```" not in parent) else None


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
    return (
        "stop_words" if all(word.strip("'") in STOP_WORDS | {""} or set(word) <= PARTICLES for word in words) else None
    )


BEFORE_ANSWER: tuple[Rule[Step], ...] = (unchanged, leaked, refused, answered, overgrown)
ON_VERDICT: tuple[Rule[Step], ...] = (no_gain,)
ON_ANSWER: tuple[Rule[Step], ...] = (apology, stop_words)
REASONS = {
    "unchanged": "The rewrite equals its parent but for case, spaces and punctuation.",
    "leaked": 'The rewrite repeats words of its template, such as "given prompt".',
    "refused": "The evolver refused to rewrite the prompt.",
    "answered": "The evolver answered the prompt instead of rewriting it.",
    "overgrown": "The rewrite adds more words than --max-growth allows.",
    "no_gain": "The judge says that the rewrite asks for nothing more than its parent.",
    "apology": "The answer says sorry, and is short: the prompt was refused.",
    "stop_words": "The answer holds nothing but punctuation and function words.",
}
"""What the names of the rules mean."""
