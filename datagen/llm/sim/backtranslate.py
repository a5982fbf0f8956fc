"""How the procedural teacher works backwards: it asks for what a header names, and rates what it can see."""

import re
from collections import Counter
from collections.abc import Callable, Mapping

from datagen.llm.sim.chance import Chance
from datagen.text import CJK, tokens

WORD = re.compile(r"[^\W\d_]{5,}")
FIRST_PERSON = re.compile(r"\b(?:I|my|me|je|mon)\b")
FORMS = {
    "en": ("Explain {} to somebody who hears of it for the first time.", "What should one know about {}?",
           "Describe {} step by step, with the details that matter."),
    "zh": ("请介绍一下{}。", "关于{}，有哪些需要知道的？", "请详细说明{}，一步一步来。"),
}  # fmt: skip


def instruct(fields: Mapping[str, str], chance: Chance) -> str:
    """Ask for what the header names, or for the words that the text has most often."""
    subject = fields["header"].rpartition(" / ")[2].strip()
    if chance.errs():
        return "Summarise the text above."
    if not subject:
        common = Counter(WORD.findall(fields["text"])).most_common(2)
        subject = " and ".join(word for word, _ in common) or fields["text"][:10]
    return chance.choice(FORMS["zh" if CJK.search(subject) else "en"]).format(subject)


def rate(fields: Mapping[str, str], chance: Chance) -> str:
    """Give a point for each thing that it can see."""
    text, asked = fields["response"], set(tokens(fields["prompt"]))
    seen = (
        bool(asked & set(tokens(text))),
        len(text) >= 200,
        not FIRST_PERSON.search(text),
        text.rstrip()[-1:] in ".!?。！？)）`",
        "http" not in text,
    )
    points = chance.randint(0, len(seen)) if chance.errs() else sum(seen)
    return f"{len(seen) - points} of the statements fail.\nScore: {points}"


def rewrite(fields: Mapping[str, str], chance: Chance) -> str:
    """Keep the text but for its headers and what its writer tells of themselves."""
    lines = (line for line in fields["response"].splitlines() if not line.startswith("#"))
    return "\n".join(line for line in lines if not FIRST_PERSON.search(line)).strip() or fields["response"]


ACTS: dict[str, Callable[[Mapping[str, str], Chance], str]] = {
    "backtranslate/instruct": instruct,
    "backtranslate/rate": rate,
    "backtranslate/rewrite": rewrite,
}
