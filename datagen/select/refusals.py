"""Is a text the refusal of a model, and not the words of a person who cannot do something?

Both begin alike: "I can't help with that", "I can't get my backup script to run. What should I check?". A refusal has
an object: it speaks of the request, of a rewrite or of the model; or nothing in it asks for anything.
"""

import re

from datagen.select.phrases import SELF

REFUSAL = re.compile(
    r"""\W*(?:unfortunately\W+)?(?:
        (?:i\W{0,2}a?m\s+)?(?:\w+\s+)?sorry\b | i\s+apologi[sz]e\b | my\s+apologies\b | apologies\b
      | i\s+(?:must|have\ to)\s+(?:\w+ly\s+)?decline\b | i\s+aim\s+to\s+be\b
      | i\s+do(?:n['’]?t|\s+not)\s+feel\s+comfortable\b
      | i(?:\s*can(?:no|['’]|\W)?t|\s+(?:can\s+not|wo['’]?nt|won['’]t|will\s+not))\b
      | i\W?a?m\s+(?:un|not\s+)able\b | i\W?a?m\s+afraid\b | i\W?a?m\s+(?:programmed|designed)\s+to\b
      | as\s+an?\s+(?:ai|artificial|large\s+language|language)\b
      | (?:很|非常|十分)?(?:抱歉|对不起) | 我(?:无法|不能) | 作为(?:一个|一名)?(?:AI|人工智能|语言模型)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""How a refusal begins. People begin so as well."""
START = 300
"""Characters at the beginning in which a refusal names its object."""
OBJECT = re.compile(
    r"""\b(?:this|that|your|the|such(?:\ an?)?)\s+(?:\w+\s+)?(?:request|prompt|instruction|kind|type\ of)\b
    | \b(?:help|assist|comply)(?:\s+you)?\s+with\s+(?:this|that|it|creating|rewriting)\b | \bre-?writ(?:e|ing)\b
    | \b(?:do|make|answer|discuss)\s+(?:that|this|it)\b | \b(?:evolve|alter)\s+the\b | \bguidelines\b
    | \byou(?:['’]d|\s+would)\s+like\s+me\b | \bcan\s+help\s+you\s+with\b
    | (?:协助|帮助|满足|完成|处理|执行|回答|改写|提供)[^。！？\n]{0,8}?(?:请求|要求|改写|此类|类似|这方面)
    | (?:这个|该|此类?|您的|你的)(?:请求|要求) | (?:回答|改写|处理)(?:这个|该|此类?)(?:问题|提示)
    | (?:这个|该|此类?)(?:问题|提示)[^。！？\n]{0,8}(?:回答|改写|处理)""",
    re.IGNORECASE | re.VERBOSE,
)
"""What a model declines: the request, the rewrite."""
NO_PROMPT = re.compile(
    r"""\b(?:please|could\ you|can\ you)\s+(?:provide|share|send|paste|give)(?:\ me)?(?:\ with)?\s+(?:the|your|a)\s+
        (?:\w+\s+)?(?:prompt|instruction)\b
    | 请(?:您)?(?:提供|给出|输入)[^。！？\n]{0,8}(?:提示|指令)""",
    re.IGNORECASE | re.VERBOSE,
)
"""The model has seen no prompt."""
MAKER = re.compile(r"\b(?:i['’]m|i\ am)\s+(?:just\s+|only\s+)?(?:an?\s+)?(?:language\s+model|ai\b)", re.IGNORECASE)
ASKS = re.compile(
    r"""[?？] | (?:[.!:;,]\s+|\n)(?:please\s+|then\s+|and\s+)?(?:write|give|explain|list|plan|suggest|draft|help\ me
      |build|design|describe|make|name|tell\ me|teach|show|compare|replace|find|propose|outline|create|recommend
      |translate|summari[sz]e|rewrite|advise|work\ out|calculate|prepare|turn|set\ up)\b
    | 请(?!提供|输入|换|谅解|见谅|理解|您?咨询) | 怎么|怎样|如何|帮我|给我|写一""",
    re.IGNORECASE | re.VERBOSE,
)
"""A person asks for something."""


def is_refusal(text: str) -> bool:
    """Whether a text that stands in the place of a prompt is the refusal of a model to write one."""
    start = text.lstrip()[:START]
    if NO_PROMPT.search(start) or SELF.match(start.lstrip("*\"'“ ")):
        return True
    if not REFUSAL.match(start):
        return False
    return bool(OBJECT.search(start) or MAKER.search(start) or not ASKS.search(text))
