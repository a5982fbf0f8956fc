"""What people write themselves: `AsyncOpenAI` with its defaults, `asyncio.gather` and a semaphore.

    python -m benchmarks.usual_loop PROMPTS MODEL OUTPUT

Its answers are written at the end: it records nothing, and a kill loses everything. The parameters are those that
`respond` sends. Its one setting is a long timeout: a busy machine must not end it.
"""

import asyncio
import json
import sys
from pathlib import Path

import openai

from benchmarks.common import IN_FLIGHT
from datagen.strategies.strategy import SAMPLING


async def run_loop(prompts: list[str], model: str, output: Path) -> None:
    name, _, url = model.partition("@")
    client, slots = openai.AsyncOpenAI(base_url=url, api_key="none", timeout=600), asyncio.Semaphore(IN_FLIGHT)

    async def answer(prompt: str) -> str:
        async with slots:
            completion = await client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": prompt}], **SAMPLING
            )
        return json.dumps({"prompt": prompt, "response": completion.choices[0].message.content})

    output.write_text("\n".join(await asyncio.gather(*map(answer, prompts))))
    await client.close()


if __name__ == "__main__":
    source, model, output = sys.argv[1:]
    prompts = [json.loads(line)["prompt"] for line in Path(source).open(encoding="utf-8")]
    asyncio.run(run_loop(prompts, model, Path(output)))
