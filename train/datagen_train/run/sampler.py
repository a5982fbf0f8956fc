"""Where answers are sampled: in this process, or by a server with the policy's adapters.

A server is a vLLM server of the base model. Before each iteration it is handed the adapters as a folder, and it gets
token ids and returns token ids, so that no text is tokenised twice. Its log-probabilities differ from those of the
training model, by rounding at least, so answers come from another distribution than the one that learns. The mean
difference is measured in every iteration (`sampler_gap`), and each token is weighed by

    w = min(pi_old(token) / pi_sampler(token), C)

the truncated importance weight (Espeholt et al., arXiv 1802.01561, section 4.1; Yao et al. 2025 for samplers that
differ by rounding). Where a whole answer has one ratio (RLOO), so has its weight: the quotient of the answer.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol
from uuid import uuid4

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datagen.llm.local.generation import Generated, Ids, split_answer
from datagen.llm.spec import without_proxy
from datagen_train.errors import TrainingStopped, first_line
from datagen_train.models.actor_critic import Distribution
from datagen_train.run.rollout import sample
from datagen_train.run.session import Session

LARGEST_WEIGHT = 2.0
"""C: what a token counts at most."""
ANOTHER_MODEL = 1.0
"""Mean gap in nats per token from which the server has another model."""
TRIES, SECONDS, CONCURRENCY = 3, 600.0, 64
"""For one answer; answers that are asked for at once."""
NEVER = -100.0
"""Added to the logit of a token that must not be sampled."""
TOKEN = "token_id:"
OnTokens = Callable[[int], None] | None
LogProbs = list[list[float]]
"""Of each answer's tokens, in nats."""


class Sampler(Protocol):
    """Samples answers from the policy."""

    def sample(
        self, prompts: list[Ids], seeds: list[int], on_tokens: OnTokens
    ) -> tuple[list[Generated], LogProbs | None]:
        """Return an answer to each prompt, and the log-probabilities under which its tokens were sampled.

        None for those says that they are those of the training model.
        """

    def close(self) -> None:
        """Give back what the sampler holds."""


class LocalSampler:
    """Samples with the policy itself, in this process. For the arguments see `ServerSampler`."""

    def __init__(
        self, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, distribution: Distribution, max_tokens: int
    ) -> None:
        self._policy, self._tokenizer = policy, tokenizer
        self._distribution, self._max_tokens = distribution, max_tokens

    def sample(self, prompts: list[Ids], seeds: list[int], on_tokens: OnTokens) -> tuple[list[Generated], None]:
        answers = sample(self._policy, self._tokenizer, self._distribution, prompts, seeds, self._max_tokens, on_tokens)
        return answers, None

    def close(self) -> None:
        """Do nothing: the policy is the run's."""


class ServerSampler:
    """Samples from a vLLM server that serves the base model and loads adapters while it runs.

    Args:
        url: up to and with `/v1`.
        folder: where the adapters are written for the server; it must see the same path.
        policy: with the adapters.
        tokenizer: of the policy.
        distribution: what answers are sampled from.
        ends: token ids that end an answer.
        max_tokens: the most tokens of an answer.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        policy: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        distribution: Distribution,
        ends: set[int],
        max_tokens: int,
    ) -> None:
        import httpx2

        self.url, self._folder, self._policy, self._tokenizer = url.rstrip("/"), folder, policy, tokenizer
        self._client = httpx2.Client(timeout=SECONDS, mounts=without_proxy(url))
        self._fault = httpx2.TransportError
        self._ends, self._name = ends, ""
        rmtree(folder, ignore_errors=True)  # of a run that was killed
        self._request: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": distribution.temperature,
            "logprobs": 0,  # of the sampled token alone
            "return_tokens_as_token_ids": True,
            "stop_token_ids": sorted(ends),
            "logit_bias": {str(token): NEVER for token in distribution.suppressed} or None,
        }

    def sample(self, prompts: list[Ids], seeds: list[int], on_tokens: OnTokens) -> tuple[list[Generated], LogProbs]:
        self._publish()

        def answer(prompt: Ids, seed: int) -> tuple[Generated, list[float]]:
            body = {**self._request, "model": self._name, "prompt": prompt, "seed": seed}
            generated, log_probs = self._read(prompt, self._post("completions", body))
            if on_tokens is not None:
                on_tokens(len(generated.ids))
            return generated, log_probs

        with ThreadPoolExecutor(CONCURRENCY) as pool:
            answers = list(pool.map(answer, prompts, seeds))
        return [generated for generated, _ in answers], [log_probs for _, log_probs in answers]

    def _publish(self) -> None:
        """Write the adapters and have the server load them under a new name, in place of those before."""
        before, self._name = self._name, f"policy-{uuid4().hex}"  # a server may still hold those of another run
        path = (self._folder / self._name).resolve()
        self._policy.save_pretrained(path, save_embedding_layers=False)
        self._post("load_lora_adapter", {"lora_name": self._name, "lora_path": str(path)})
        if before:
            self._post("unload_lora_adapter", {"lora_name": before})
            rmtree(self._folder / before, ignore_errors=True)

    def close(self) -> None:
        """Have the server forget the adapters, and remove their folder."""
        with suppress(TrainingStopped):  # the server may be what ended the run
            if self._name:
                self._post("unload_lora_adapter", {"lora_name": self._name})
        self._client.close()
        rmtree(self._folder, ignore_errors=True)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer of the server; try again after a fault of the connection, 429 and 5xx."""
        reason = ""
        for _try in range(TRIES):
            try:
                reply = self._client.post(f"{self.url}/{path}", json=body)
            except self._fault as error:
                reason = first_line(error)
                continue
            if reply.status_code == 200:
                return reply
            reason = f"HTTP {reply.status_code}: {reply.text[:200]!r}"
            if reply.status_code < 500 and reply.status_code != 429:
                break
        raise TrainingStopped(f"--sampler {self.url}/{path}: {reason}")

    def _read(self, prompt: Ids, reply: Any) -> tuple[Generated, list[float]]:
        """Return the answer in a reply, and its log-probabilities; what a server sends is checked."""
        try:
            choice = reply.json()["choices"][0]
            ids = [int(token.removeprefix(TOKEN)) for token in choice["logprobs"]["tokens"]]
            log_probs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
            stopped = choice["finish_reason"] == "stop"
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise self._refusal("no token ids with log-probabilities", reply) from None
        words, most = len(self._tokenizer), self._request["max_tokens"]
        fits = 0 < len(ids) == len(log_probs) <= most and all(0 <= token < words for token in ids)
        if not fits or not all(math.isfinite(value) and value <= 0 for value in log_probs):
            raise self._refusal("an answer of other tokens than the model's", reply)
        if stopped and ids[-1] not in self._ends:
            raise self._refusal("an answer that ended without its end token", reply)
        reasoning, text = split_answer(self._tokenizer, prompt, ids)
        return Generated(text, ids, "stop" if stopped else "length", reasoning), log_probs

    def _refusal(self, problem: str, reply: Any) -> TrainingStopped:
        return TrainingStopped(f"--sampler {self.url}: {problem}: {reply.text[:200]!r}")


def open_sampler(session: Session, options: Any, distribution: Distribution) -> Sampler:
    """Return what samples answers: the policy of a session itself, or the server of `--sampler`."""
    policy, tokenizer = session.loaded.model, session.loaded.tokenizer
    if options.sampler is None:
        return LocalSampler(policy, tokenizer, distribution, options.max_tokens)
    folder = session.folder.path / "run" / "sampler"
    return ServerSampler(
        options.sampler, folder, policy, tokenizer, distribution, session.encoder.ends, options.max_tokens
    )


def compare(log_probs: Tensor, mask: Tensor, of_sampler: LogProbs, accelerator: Any) -> tuple[Tensor, float]:
    """Compare the log-probabilities of the model that learns with those of the sampler.

    Args:
        log_probs: (answers, tokens), of the model that learns.
        mask: (answers, tokens): True at the tokens to learn from.
        of_sampler: those under which the tokens were sampled.
        accelerator: of the run.

    Returns:
        log(pi_old / pi_sampler) of each token, 0 outside of the mask; and the mean of its absolute values over the
        tokens of all processes.

    Raises:
        TrainingStopped: the mean is that of another model.
    """
    sampled = torch.zeros_like(log_probs)
    for row, values in enumerate(of_sampler):
        sampled[row, : len(values)] = torch.tensor(values)
    log_ratio = torch.where(mask, log_probs - sampled, 0.0)
    total, tokens = accelerator.reduce(torch.stack([log_ratio.abs().sum(), mask.sum()]), "sum").tolist()
    gap = total / max(1, tokens)
    if gap > ANOTHER_MODEL:
        raise TrainingStopped(
            f"--sampler: its log-probabilities are {gap:.2f} nats a token from those of the model that learns: does it "
            "serve the base model of this run, with --logprobs-mode processed_logprobs?"
        )
    return log_ratio, gap


def truncated_weight(log_ratio: Tensor) -> Tensor:
    """Return the truncated importance weight of log(pi_old / pi_sampler)."""
    return log_ratio.exp().clamp_max(LARGEST_WEIGHT)
