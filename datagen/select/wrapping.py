"""What a model writes around a text that it was asked to write alone, and the text without it.

    openings    "Sure! Here's a more challenging version:", labels and headings ("**Rewritten Prompt:**"), tags
    closings    remarks about the rewrite ("(Note: I added one constraint.)", "Key changes:"), offers of more
    frames      a fence, quotation marks, a block quote, bold type or lines around the whole
    versions    of several ("Option 1: ... Option 2: ...") the first; of an original and its rewrite the rewrite

English and Chinese, the languages of our templates. A layer is taken off only where its own words say that it speaks
of a rewrite, or where it encloses the whole: a prompt that quotes something, ends with "Note: do not use recursion."
or holds a block of code stays as it is. What the parent has as well belongs to the text. Other lines are kept.
"""

import re
from collections.abc import Callable

Layer = Callable[[str, str], str]

MOST_LAYERS = 8
"""Layers around one text; models write up to five: greeting, label, line, fence, note."""
HEAD = re.compile(r"[^\n:：]{1,200}[:：]")
MARKS = " \t#*_>【】[]<>\"'“”‘’"
"""Signs that stand around a label."""
INTERJECTION = re.compile(
    r"(?:(?:sure(?:\ thing)?|certainly|of\ course|absolutely|okay|ok|alright|great|got\ it|understood|no\ problem)\b"
    r"|好的|好|当然可以|当然|没问题|可以|收到)[!,.，！。、:：]+\s*",
    re.IGNORECASE,
)
HERE = re.compile(
    r"(?:here(?:['’]s|\ is|\ are)|below\ is|this\ is|(?:i['’]ve|i\ have)\ [a-z]+)\b|以下|下面|这是|这里是|我[把将已]",
    re.IGNORECASE,
)
OWN = re.compile(r"\b(?:my|our|wrote)\b|我的|我们的", re.IGNORECASE)
"""A user speaks of a text of their own."""
QUALITIES = frozenset(
    """rewritten re-written rewrite revised revision new modified updated improved enhanced evolved harder difficult
    complex challenging created final finally refined advanced deeper deepened rephrased adapted augmented expanded
    evolving""".split()
)
VAGUE = frozenset({"detailed", "specific"})
"""Qualities in an announcement; a label with them says nothing of a rewrite ("Detailed Instructions:")."""
NOUNS = frozenset(
    """prompt prompts version versions instruction instructions question task problem request variation variant
    rewording answer response""".split()
)
FILLERS = frozenset("the a an your more slightly bit little much of and version with".split())
QUALITY_ZH = re.compile(r"改写|重写|修改|优化|升级|进化|润色|改进|更新|新|最终|更(?:难|复杂|具|有|深|加)|改得")
NOUN_ZH = re.compile(r"提示词?|指令|问题|题目|任务|版本|请求|要求|回答|答案|如下|一点|一些")
LABEL_ZH = re.compile(
    r"(?:(?:改写|重写|修改|优化|升级|进化|润色|改进|更新)(?:[后过之]+)?的?(?:提示词?|指令|问题|题目|任务|版本?|回答|答案|结果)?"
    r"|(?:新|最终|更难|更复杂)的?(?:提示词?|指令|问题|题目|任务|版本?)|(?:提示词?|指令|请求))"
)
BARE_LABELS = frozenset({"prompt", "instruction", "question", "task", "problem", "request", "提示", "提示词", "指令"})
"""Labels without a word about a rewrite: taken off where the text has no other label."""
GIVEN = re.compile(
    r"\W{0,8}(?:the\ )?(?:given|original)[ _](?:prompt|instruction|question)\b|\W{0,8}(?:原|给定的?)提示", re.I
)
ANY_LABEL = re.compile(
    r"^[ \t#*_]{0,6}(?:[A-Z][\w-]{1,20}(?: \w{1,20})?|[\u4e00-\u9fff]{2,6})[*_]{0,2}[:：]", re.MULTILINE
)
VERSION = re.compile(
    r"^[ \t#*_]{0,6}(?:option|version|variation|prompt|choice|版本|选项|方案)[ \t]*(?:[1-9A-C]|[一二三])\b"
    r"[^\n:：]{0,60}[:：]",
    re.IGNORECASE | re.MULTILINE,
)
PLAIN_FENCE = re.compile(r"```(?:text|txt|plaintext|markdown|md|prompt)?[ \t]*\n", re.IGNORECASE)
RULE_LINE = re.compile(r"[-*_=—]{3,}")
PAIRS = {'"': '"', "“": "”", "「": "」", "『": "』", "«": "»", "**": "**", "*": "*", "__": "__", "`": "`"}
"""What a whole text is put between."""
NOTE = re.compile(
    r"""(?:key\ |main\ |summary\ of\ |explanation\ of\ )?(?:the\ )?changes?(?:\ made)?\s*[:：*]
    | (?:added|new|additional)\ (?:constraint|requirement|element)s?\s*[:：*] | word\ count | \d+\ words?\s*\Z
    | (?:in\ )?this\ (?:\w+\ ){0,2}(?:version|rewrite|revision|prompt|variation)\b
    | this\ (?:adds|requires|increases|makes|introduces|keeps)\b
    | (?:修改|改动|改写|调整)(?:的)?(?:说明|要点|之处|内容) | 新增了?
    | (?:这|该|此)(?:个|次)?(?:版本|改写|提示) """,
    re.IGNORECASE | re.VERBOSE,
)
"""How a remark about a rewrite begins."""
MAYBE_NOTE = re.compile(
    r"(?:notes?|explanation|rationale|reasoning|comment|p\.s\.|注意?|说明|备注|解释)\W{0,4}[:：]|i\b|i['’]ve\b|我",
    re.IGNORECASE,
)
ABOUT_REWRITE = re.compile(
    r"""\bi(?:['’]ve|\ have|\ also)?\ (?:added|kept|made|focused|increased|included|changed|rewrote|introduced|tried
      |specified|replaced|raised|asked|maintained|ensured|aimed|preserved)\b
    | \boriginal\ (?:prompt|intent|question|task|instruction|version|meaning)\b | \b(?:complexity|difficulty)\ of\b
    | (?:增加|新增|加入|添加|保留|提高)了 | 原提示|原意|原问题|难度""",
    re.IGNORECASE | re.VERBOSE,
)
OFFER = re.compile(
    r"""(?:please\ )?let\ me\ know\ if\ (?:you['’]d|you\ would|you\ want|this|that|there|it)\b
    | (?:please\ )?feel\ free\ to\ (?:ask|let) | i\ hope\ (?:this|it|that)\b
    | would\ you\ like\ (?:me|another|to)\b | is\ there\ anything\ else | if\ you['’]d\ like\b
    | 希望(?:这|能|对|以上) | 如(?:果|有)[您你]?(?:需要|还|其他) | 需要我""",
    re.IGNORECASE | re.VERBOSE,
)
ENTRY = re.compile(r"[-*•+]\s|\d{1,2}[.)、]")


def unwrap(text: str, parent: str = "") -> str:
    """Return a text without what a model put around it.

    Args:
        text: The reply of a model that was asked for a text and nothing else.
        parent: The text that it was made from, if there is one: what stands in it is no wrapping.
    """
    text = text.strip()
    for _ in range(MOST_LAYERS):
        before = text
        for layer in LAYERS:
            text = layer(text, parent).strip() or text
        if text == before:
            break
    return text


def unwrap_answer(text: str, old: str = "") -> str:
    """Return an answer without the announcement before it. What else stands around an answer may belong to it."""
    return without_opening(text.strip(), old).strip() or text.strip()


def without_rules(text: str, parent: str) -> str:
    """Take off lines such as `---` at both ends."""
    lines = text.split("\n")
    while len(lines) > 1 and RULE_LINE.fullmatch(lines[0].strip()):
        del lines[0]
    while len(lines) > 1 and RULE_LINE.fullmatch(lines[-1].strip()):
        del lines[-1]
    return "\n".join(lines).strip()


def without_closing(text: str, parent: str) -> str:
    """Take off the last paragraphs, from the first remark about the rewrite on, if nothing but remarks follows."""
    paragraphs = re.split(r"\n(?:[ \t]*\n)+", text)
    place = len(paragraphs)
    while place > 1 and is_remark_or_entry(paragraphs[place - 1]) and paragraphs[place - 1] not in parent:
        place -= 1
    first = next((at for at in range(place, len(paragraphs)) if is_remark(paragraphs[at])), len(paragraphs))
    return text if first == len(paragraphs) else "\n\n".join(paragraphs[:first])


def is_remark(paragraph: str) -> bool:
    """Whether a paragraph speaks of a rewrite, or offers more."""
    words = paragraph.strip().lstrip(f"{MARKS}()（）—-")
    speaks = MAYBE_NOTE.match(words) and ABOUT_REWRITE.search(words)
    return bool(NOTE.match(words) or OFFER.match(words) or speaks)


def is_remark_or_entry(paragraph: str) -> bool:
    """Whether a paragraph can follow a remark: another one, an entry of its list, or a line."""
    words = paragraph.strip()
    return bool(is_remark(words) or ENTRY.match(words) or RULE_LINE.fullmatch(words))


def without_opening(text: str, parent: str) -> str:
    """Take off a greeting, an announcement, a label or a heading at the beginning."""
    line, _, rest = text.partition("\n")
    marked = line.lstrip()[:1] in ("#", "*", "【") and not re.search("[:：]", line)
    if marked and rest.strip() and is_label(line) and line not in parent:
        return rest
    if text.startswith("【") and is_label(text[: text.find("】") + 1]):
        return text[text.find("】") + 1 :].lstrip("：: ")
    head = HEAD.match(text)
    if head is None or head[0].casefold() in parent.casefold() or not is_opening(head[0], text[head.end() :]):
        return text
    return after_head(head[0], text[head.end() :])


def is_opening(head: str, rest: str) -> bool:
    """Whether the words before a colon announce a rewrite, or are its label."""
    words = INTERJECTION.sub("", head.strip(), count=1)
    if is_label(words):
        return True
    if plain(words) in BARE_LABELS:
        return not ANY_LABEL.search(rest)
    greets = len(words) < len(head.strip())
    return bool((HERE.match(words.lstrip(MARKS)) or greets) and not OWN.search(words) and names_rewrite(words))


def plain(label: str) -> str:
    """Return a label without its signs, in lower case."""
    return label.strip(f"{MARKS}:：").casefold()


def is_label(label: str) -> bool:
    """Whether a text is nothing but the name of a rewrite: "Rewritten Prompt", "Harder version (deepened)"."""
    name = re.sub(r"\([^()]{0,40}\)", " ", plain(label))
    words = re.split(r"[\s_]+", name.strip())
    qualities = QUALITIES.intersection(words)
    is_english = (
        qualities and set(words) <= QUALITIES | NOUNS | FILLERS and (NOUNS.intersection(words) or len(words) == 1)
    )
    return bool((is_english and name != "new") or (LABEL_ZH.fullmatch(name) and name not in BARE_LABELS))


def names_rewrite(words: str) -> bool:
    """Whether an announcement names a rewrite: a version, or a prompt with a word such as "harder"."""
    names = set(re.findall(r"[a-z-]+", words.casefold()))
    is_english = names & NOUNS and (names & (QUALITIES | VAGUE) or "version" in names)
    return bool(is_english or (QUALITY_ZH.search(words) and NOUN_ZH.search(words)))


def after_head(head: str, rest: str) -> str:
    """Return what stands behind a label, without the signs that close it."""
    for mark in ("**", "__", "*", "_"):
        if head.count(mark) % 2 and rest.startswith(mark):
            return rest.removeprefix(mark)
    return rest


def without_original(text: str, parent: str) -> str:
    """Of an original and its rewrite, each with its label, take the rewrite."""
    if not GIVEN.match(text) or GIVEN.match(parent):
        return text
    lines = text.split("\n")
    for place, line in enumerate(lines[1:], 1):
        head = HEAD.match(line)
        if is_label(line) or (head and is_label(head[0])):
            return "\n".join(lines[place:])
    return text


def without_versions(text: str, parent: str) -> str:
    """Of several versions, each with its label, take the first."""
    labels = list(VERSION.finditer(text))
    before = text[: labels[0].start()].strip() if labels else ""
    if len(labels) < 2 or labels[0][0] in parent or (before and not HERE.match(INTERJECTION.sub("", before, count=1))):
        return text
    first = labels[0]
    return after_head(first[0], text[first.end() : labels[1].start()])


def without_tags(text: str, parent: str) -> str:
    """Take off the tags around a whole text, such as <rewritten_prompt>."""
    tag = re.match(r"<([a-z_-]{1,40})>", text, re.IGNORECASE)
    if tag is None or not (is_label(tag[1]) or tag[1].casefold() in BARE_LABELS) or tag[0] in parent:
        return text
    return text[tag.end() :].removesuffix(f"</{tag[1]}>")


def without_fence(text: str, parent: str) -> str:
    """Take off the fence around a whole text; one that names a programming language holds code."""
    opening = PLAIN_FENCE.match(text)
    whole = opening and text.endswith("```") and text.count("```") == 2 and not parent.startswith("```")
    return text[opening.end() : -3] if opening and whole else text


def without_frame(text: str, parent: str) -> str:
    """Take off quotation marks, bold type or a block quote around a whole text."""
    if all(line.startswith(">") for line in text.split("\n")) and not parent.startswith(">"):
        return "\n".join(line[1:].removeprefix(" ") for line in text.split("\n"))
    for opening, closing in PAIRS.items():
        inner = text[len(opening) : -len(closing)]
        is_framed = text.startswith(opening) and text.endswith(closing) and inner
        if is_framed and not parent.startswith(opening) and opening not in inner and closing not in inner:
            return inner
    return text


LAYERS: tuple[Layer, ...] = (
    without_rules,
    without_original,
    without_versions,
    without_closing,
    without_opening,
    without_tags,
    without_fence,
    without_frame,
)
