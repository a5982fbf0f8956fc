"""How the procedural teacher judges: by checking. It knows which answer is right and which demands are met.

skill            how often it sees what is there; else it errs by chance
position_bias    how often it prefers what stands first, whatever it says
verbosity_bias   how often it prefers the longer answer
"""

import re
from collections.abc import Callable, Mapping, Sequence
from math import log
from typing import Any

from datagen.llm.sim.arithmetic import unmet
from datagen.llm.sim.chance import Chance
from datagen.llm.sim.families import solve
from datagen.verify.answers import final_answer, same_answer

MOST = 5
"""Points under an aspect."""
MOST_SURE = 0.99
"""The highest probability of a verdict."""


def quality(prompt: str, answer: str) -> int:
    """Return how good an answer is, from 0 to 5: two points for being right, the others for meeting demands."""
    solved = solve(prompt)
    right = solved is None or same_answer(final_answer(answer), solved.answer) is True or solved.answer in answer
    wrong_end = solved is not None and same_answer(final_answer(answer), solved.answer) is False
    missing = [demand for demand in unmet(prompt, answer) if demand != "result"]
    refused = answer.lower().startswith("i'm sorry")
    return max(0, MOST - 2 * (not right or wrong_end) - len(missing) - 3 * refused)


def prefer(answers: Sequence[str], points: Sequence[float], chance: Chance) -> list[float]:
    """Bend the points as the judge's faults have it; a bias sweeps everything else away."""
    if chance.random() < chance.position_bias:
        return [*range(len(answers), 0, -1)]
    if chance.random() < chance.verbosity_bias:
        return [float(len(answer)) for answer in answers]
    if chance.errs():
        return [chance.random() for _ in answers]
    return list(points)


def compare(fields: Mapping[str, str], chance: Chance) -> str:
    answers = [fields["first"], fields["second"]]
    seen = prefer(answers, [quality(fields["prompt"], answer) for answer in answers], chance)
    verdict = "tie" if seen[0] == seen[1] else fields["first_label" if seen[0] > seen[1] else "second_label"]
    return f"One of them does more of what was asked.\nVerdict: {verdict}"


def shown(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the answers of a prompt by their labels, which no answer contains."""
    parts = re.split(r"(?:\n\n|^)Answer (\w{3}):\n<<<\n", fields["answers"])
    return {label: text.removesuffix("\n>>>") for label, text in zip(parts[1::2], parts[2::2], strict=True)}


def screen(fields: Mapping[str, str], chance: Chance) -> str:
    answers = shown(fields)
    points = [quality(fields["prompt"], answer) for answer in answers.values()]
    seen = dict(zip(answers, prefer(list(answers.values()), points, chance), strict=True))
    return f"I looked at each.\nOrder: {' > '.join(sorted(seen, key=lambda label: -seen[label]))}"


def score(fields: Mapping[str, str], chance: Chance) -> str:
    """Give points under every aspect that the form asks for."""
    answers = shown(fields)
    lines = re.findall(r"^(\w{3}) ([\w-]+): \(0 to (\d+)\)$", fields["form"], re.MULTILINE)
    longest = max(answers.values(), key=len)
    made = []
    for label, aspect, most in lines:
        points = quality(fields["prompt"], answers[label])
        points = chance.randint(0, MOST) if chance.errs() else points
        points = MOST if chance.random() < chance.verbosity_bias and answers[label] == longest else points
        made.append(f"{label} {aspect}: {min(points, int(most))}")
    return "Each was looked at.\n" + "\n".join(made)


def logprobs(text: str, fields: Mapping[str, str], skill: float) -> list[dict[str, Any]]:
    """Tell what might have been said in place of a verdict or of points, by a judge that knows how good it is."""
    labels = {fields.get("first_label", ""), fields.get("second_label", ""), "tie"}
    sure = min(MOST_SURE, (1 + skill) / 2)
    return [_token(token, labels, sure) for token in re.findall(r"\s*\w+|\s*[^\w\s]|\s+", text)]


def _token(token: str, labels: set[str], sure: float) -> dict[str, Any]:
    said = token.strip()
    known = labels if said in labels else set(map(str, range(MOST + 1)))
    others = sorted(known - {said}) if said in known else []
    shares = {said: sure if others else 1.0} | {other: (1 - sure) / len(others) for other in others}
    blank = token.removesuffix(said)
    top = [{"token": blank + name, "logprob": log(share)} for name, share in shares.items()]
    return {"token": token, "logprob": top[0]["logprob"], "top_logprobs": top}


ACTS: dict[str, Callable[[Mapping[str, str], Chance], str]] = {
    "judge/compare": compare,
    "judge/screen": screen,
    "judge/score": score,
}
