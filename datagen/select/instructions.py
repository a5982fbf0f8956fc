"""Which made instructions and instances are kept (Self-Instruct, arXiv 2212.10560; Alpaca's and BELLE's additions).

Instructions, by the names that stand in the rejected file:

    too_short, too_long     under 4 or over 150 words; a Chinese or Japanese character counts as a word
    needs_media             a text model cannot do it: look at this picture, draw a map, open the file, go to a page
    writes_program          begins "Write a program": the paper leaves it open what its output would be
    starts_with_punctuation the rest of a list that was split in the wrong place
    not_english             begins with a non-ASCII character (ENGLISH only)
    has_link, names_gpt     a web address, or GPT as the one who is asked (CHINESE only; BELLE)
    trailing_colon          announces what did not come (SPOKEN only; Magpie)
    answers                 an assistant speaks: offers help, or speaks of itself as a model (SPOKEN only)

Instances: copied_input, empty_output, trailing_colon; then, among those of one task, truncated, contradiction and
duplicate.

Departures. The paper drops whole words wherever they stand, "map", "file", "plot" and "go to" among them, and with
them "map each word to its length", "file a complaint", "the plot of the novel" and "before I go to bed". Here a
medium must be shown or asked for: "this map", "the map below", "draw a map", "open the file", a sentence that begins
"Go to". A text or a program about a medium is text ("write a caption for an image", "a graph algorithm"). An opening
quote or bracket is no stray punctuation. BELLE's bounds, 4 to 99 characters or 149 with an example, become the paper's.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from datagen.select.phrases import SELF
from datagen.text import count_words

WORDS = range(4, 151)
"""The reference code of Self-Instruct: three words or fewer, or more than 150, are dropped."""
OPENERS = "\"'“‘«「『《【（([{$¿¡<"
MEDIUM = (
    r"(?:images?|pictures?|photo(?:graph)?s?|screenshots?|graphs?|charts?|diagrams?|flow ?charts?|maps?|files?|videos?"
    r"|audios?|audio (?:clips?|recordings?)|music)\b"
)
NOT_AS_TEXT = (
    r"(?![ -](?:captions?|titles?|scripts?|descriptions?|names?|ideas?|prompts?|class(?:es)?|algorithms?|theory|nodes?"
    r"|structures?|systems?|formats?|functions?|programs?|librar(?:y|ies)|playlists?|databases?|games?|reviews?|lyrics"
    r"|recommendations?|naming)\b)"
)
START = r"(?:(?:^|[.!?:;\n])\s*(?:please\s+|first,?\s+|then\s+)?|\b(?:please|can\s+you|could\s+you)\s+)"
START_OR_AND = rf"(?:{START}|\b(?:and|then)\s+)"
LOOK = r"(?:describe|look\s+at|watch|listen\s+to|play|edit|open|read|upload|download|save|delete|rename|print|scan)"
MAKE = r"(?:create|make|generate|design|produce|render|draw|sketch|paint|plot|compose|show|take|record)"
DRAWN_IN_WORDS = (
    r"(?!\w*\s*(?:conclusions?|inferences?|comparisons?|parallels?|distinctions?|lessons?|contrasts?|analog(?:y|ies)"
    r"|cards?|balls?|marbles?|names?|tickets?|samples?|numbers?)\b)"
)
PLOTTED = r"(?:data|points?|function|curve|line|histogram|equation|results?)\b"
NEEDS_MEDIA = re.compile(
    rf"""
      \b(?:this|the\s+(?:following|attached|given|provided|uploaded))\s+(?:[a-z]+\s+)?{MEDIUM}{NOT_AS_TEXT}
    | \b{MEDIUM}\s+(?:below|above|attached|provided|uploaded|shown)\b
    | {START}{LOOK}\s+(?:the|some|my|your|that)\s+(?:\w+\s+)?{MEDIUM}{NOT_AS_TEXT}
    | {START_OR_AND}{MAKE}\s+(?:me\s+|us\s+)?(?:(?:an?|the|some|your)\s+)?(?:\w+\s+)?{MEDIUM}{NOT_AS_TEXT}
    | {START_OR_AND}(?:draw|sketch|paint)\s+(?:me\s+)?(?:an?|the|your|some)\s+{DRAWN_IN_WORDS}
    | {START_OR_AND}plot\s+(?:the|an?|this|these)\s+(?:\w+\s+)?{PLOTTED}
    | {START}go\s+to\b
    | (?:这|下面的?|以下|上面的?|上述|所给的?|附件中?的?)[张幅个段些份]?
        (?:图片?|照片|图像|图表|地图|视频|音频|文件|附件)
    | 如[下上]?图 | [下上]图 | 看图 | 画出?[一个张幅] | 绘制
    | (?:播放|收听|观看|打开|上传|下载)[这一那该]?[个首段份]?(?:音乐|歌曲|音频|视频|文件)
    """,
    re.IGNORECASE | re.VERBOSE,
)
PROGRAM = re.compile(r"write a program\b", re.IGNORECASE)
LINK = re.compile(r"https?:|www\.", re.IGNORECASE)
GPT = re.compile(r"(?:chat\s*)?gpt(?:[\s-]*[34](?:\.5)?)?|openai", re.IGNORECASE)
OFFER = re.compile(
    r"""how\ (?:can|may|could)\ I\ (?:(?:help|assist)(?:\ you|\ today|\s*[?!.])|be\ of\ (?:help|service|assistance))
    | (?:can|may)\ I\ (?:help|assist)\ you
    | I(?:['’]m|\ am)\ sorry,?\ but\ I\ (?:can(?:no|['’])?t|am\ (?:un|not\ )able\ to)\ (?:help|assist|fulfil|provide)
    | 有什么(?:我)?(?:可以|能)?帮 | (?:可以|能)为[您你](?:做|提供|服务)""",
    re.IGNORECASE | re.VERBOSE,
)

Rule = Callable[[str], str | None]


def too_short(instruction: str) -> str | None:
    """Under four words."""
    return "too_short" if count_words(instruction) < WORDS.start else None


def too_long(instruction: str) -> str | None:
    """Over 150 words."""
    return "too_long" if count_words(instruction) >= WORDS.stop else None


def needs_media(instruction: str) -> str | None:
    """It shows or asks for what is not text."""
    return "needs_media" if NEEDS_MEDIA.search(instruction.strip()) else None


def writes_program(instruction: str) -> str | None:
    """It begins "Write a program"."""
    return "writes_program" if PROGRAM.match(instruction.lstrip()) else None


def starts_with_punctuation(instruction: str) -> str | None:
    """Its first character is punctuation that cannot open a sentence."""
    first = instruction.lstrip()[:1]
    stray = first not in OPENERS and (first in string.punctuation or unicodedata.category(first)[0] == "P")
    return "starts_with_punctuation" if first and stray else None


def not_english(instruction: str) -> str | None:
    """Its first character, but for an opening quote, is not ASCII."""
    return None if instruction.lstrip().lstrip(OPENERS)[:1].isascii() else "not_english"


def has_link(instruction: str) -> str | None:
    """It has a web address, which a text model cannot open."""
    return "has_link" if LINK.search(instruction) else None


def names_gpt(instruction: str) -> str | None:
    """It speaks of GPT or its maker."""
    return "names_gpt" if GPT.search(instruction) else None


def trailing_colon(instruction: str) -> str | None:
    """It ends with a colon: what it announces did not come."""
    return "trailing_colon" if instruction.rstrip().endswith((":", "：")) else None


def answers(instruction: str) -> str | None:
    """The assistant's words, not the user's."""
    return "answers" if OFFER.search(instruction) or SELF.search(instruction) else None


COMMON: tuple[Rule, ...] = (too_short, too_long, needs_media, starts_with_punctuation)
ENGLISH: tuple[Rule, ...] = (*COMMON, writes_program, not_english)
ANY_LANGUAGE: tuple[Rule, ...] = (*COMMON, writes_program)
"""Where the tasks of people are not all English."""
CHINESE: tuple[Rule, ...] = (*COMMON, has_link, names_gpt)
SPOKEN: tuple[Rule, ...] = (answers, *COMMON, has_link, trailing_colon)
"""For what a model says in the user's place, in any language."""


def drop(instruction: str, rules: tuple[Rule, ...] = ENGLISH) -> str | None:
    """Return the name of the first rule that drops the instruction, or None."""
    return next((reason for rule in rules if (reason := rule(instruction))), None)


class Instance(NamedTuple):
    """An example of a task. The input may be empty."""

    input: str
    output: str


def drop_instance(instance: Instance) -> str | None:
    """Return why an instance is useless by itself, or None."""
    source, output = instance.input.strip(), instance.output.strip()
    if not output:
        return "empty_output"
    if source == output:
        return "copied_input"
    return "trailing_colon" if source.endswith((":", "：")) or output.endswith((":", "：")) else None


def drop_instances(instances: Sequence[Instance], *, truncated: bool = False) -> list[str | None]:
    """Return for each instance of one task why it is dropped, or None.

    `truncated`: the reply met the length limit, so its last instance is incomplete. Where two instances share an
    input that is not empty and differ in the output, nobody knows which is right: all of the task are dropped.
    """
    reasons = [drop_instance(instance) for instance in instances]
    if truncated and reasons:
        reasons[-1] = "truncated"
    stripped = [Instance(instance.input.strip(), instance.output.strip()) for instance in instances]
    good = {instance for instance, reason in zip(stripped, reasons, strict=True) if not reason}
    answers = Counter(instance.input for instance in good if instance.input)
    contradiction = any(count > 1 for count in answers.values())
    seen: set[Instance] = set()
    for place, instance in enumerate(stripped):
        if not reasons[place]:
            repeated = "duplicate" if instance in seen else None
            reasons[place] = "contradiction" if contradiction else repeated
            seen.add(instance)
    return reasons
