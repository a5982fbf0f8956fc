"""The families of models: who has trained them, read from their names.

`o3-mini` and `gpt-4o` are of one family, and so are `mixtral-8x7b` and `codestral`. A model that was made of another
vendor's counts as both: `DeepSeek-R1-Distill-Qwen-7B`, `Llama-3.1-Nemotron-70B`. A name that is in no table is a family
of its own, by its first letters. Vendors are for judging alone: prices, keys and limits go by the address of a server.
"""

import re
from functools import cache

VENDORS = {
    "OpenAI": r"chatgpt|codex|davinci|gpt(?!-?(?:neo|j\b|jt\b))|(?:^|/)o[1-9]\b",
    "Anthropic": "claude",
    "Google": r"gemini|gemma|palm|bison|flan-t5|learnlm",
    "Mistral": "mistral|mixtral|codestral|ministral|magistral|pixtral|devstral|voxtral|mathstral|zephyr",
    "Alibaba": "qwen|qwq|qvq|tongyi|marco-o1",
    "Meta": r"llama(?!-?(?:cpp|factory|server|file))|vicuna|alpaca",
    "DeepSeek": "deepseek",
    "Zhipu": "glm|codegeex",
    "Moonshot": "kimi|moonshot|moonlight",
    "Microsoft": r"\bphi(?![a-z])|wizardlm|wizardcoder|wizardmath|\borca\b",
    "Cohere": r"command-?(?:[ra]\b|light|nightly|text|xlarge)|c4ai|\baya\b",
    "xAI": "grok",
    "Nvidia": "nemotron|minitron",
    "01.AI": r"\byi(?![a-z])",
    "Shanghai AI Lab": "internlm|internvl|intern-s1",
    "Baichuan": "baichuan",
    "MiniMax": r"minimax|\babab",
    "Baidu": "ernie|wenxin",
    "ByteDance": r"doubao|(?:^|/)seed(?![a-z])|skylark",
    "Tencent": "hunyuan",
    "IBM": "granite",
    "Ai2": r"olmo|tulu|\btülu",
    "Amazon": r"(?:^|[./])(?:nova|titan)(?![a-z])",
    "StepFun": r"(?:^|/)step(?![a-z])",
    "TII": "falcon",
    "Hugging Face": "smollm|zephyr|starchat",
    "AI21": r"jamba|jurassic|\bj2-",
    "LG": "exaone",
    "Upstage": r"\bsolar\b",
    "Nous Research": "hermes",
    "Databricks": r"dbrx|dolly",
    "EleutherAI": r"gpt-?(?:neo|j\b)|pythia",
    "Stability": "stablelm|stable-?(?:beluga|code)",
    "Xiaomi": r"\bmimo\b",
    "iFlytek": "iflytek|sparkdesk",
    "Skywork": "skywork",
    "Perplexity": r"\bsonar\b|r1-1776",
}
"""Vendor to a pattern of the names of its models. A name that is a common word counts at the beginning alone."""
PATTERNS = {vendor: re.compile(pattern) for vendor, pattern in VENDORS.items()}
STORED = ("hf", "replay")
"""The kinds of models whose identity ends in a digest."""


@cache
def families(identity: str) -> frozenset[str]:
    """Return the families of a model: its vendors, or the letters that its name begins with.

    Args:
        identity: The model as rows name it: a name with or without folders before it, `hf:NAME/DIGEST`, or `sim`;
            `#tag` may follow.
    """
    kind, _, rest = identity.partition(":")
    if kind.partition("/")[0] == "sim":
        return frozenset(["sim"])
    name = (rest.rpartition("/")[0] or rest) if kind in STORED else identity
    name = name.partition("#")[0].casefold()
    own = name.rpartition("/")[2]
    letters = re.match(r"[^\W\d_]+", own)
    return vendors(name) or frozenset([letters[0] if letters else own])


def vendors(name: str) -> frozenset[str]:
    """Return who has trained a model, by its name or the type in its config; nobody where the table does not know."""
    return frozenset(vendor for vendor, pattern in PATTERNS.items() if pattern.search(name.casefold()))
