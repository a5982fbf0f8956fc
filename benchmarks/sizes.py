"""What fits where: the memory of a training run by arithmetic, `python -m benchmarks.sizes`.

The bytes of weights, gradients and optimiser states are exact (tests/train/test_sizes.py counts the tensors of real
runs), and so are those of the activations of a layer, as PyTorch keeps them for the backward pass. What is not exact is
what the device adds: its context, workspaces and unused blocks, for which RESERVE is left free.

On a GPU the matrix products are in bfloat16. Weights that are trained are in float32, and so are adapters; the frozen
base of adapters is in bfloat16.
"""

from dataclasses import dataclass
from typing import NamedTuple

GIB = 2**30
GPUS = (24, 40, 80, 141)
"""GiB."""
RESERVE = 0.08
"""Share of a GPU that is left free."""
HALF, SINGLE = 2, 4
"""Bytes of a number in bfloat16 and in float32."""
NF4 = 0.5 + (1 + 4 / 256) / 64
"""Bytes of a weight in 4 bits: a scale of 8 bits for 64 of them, one of 32 bits for 256 scales (2305.14314)."""
RANK = 16
TOKENS = 1024
"""Of a sequence."""
GROUP = 8
"""Answers to a prompt in GRPO: those of a group are in one micro-batch."""
SAMPLED = 64
"""Answers that are sampled together."""
LOGIT_COPIES = 3
"""Of the logits of PPO in float32: the logits, their exponentials, their gradient."""
SMALL = 24
"""Bytes of a token in a layer: the statistics of the two norms, and of attention for four heads."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen2.5 model."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    kv: int
    """Width of the keys: their heads times their width."""
    vocabulary: int
    is_tied: bool
    """Whether the head is the embedding."""

    def matrices(self) -> list[tuple[int, int]]:
        """Return (inputs, outputs) of the linear modules of a layer."""
        h, i, kv = self.hidden, self.intermediate, self.kv
        return [(h, h), (h, kv), (h, kv), (h, h), (h, i), (h, i), (i, h)]

    @property
    def linear(self) -> int:
        """Weights in the linear modules of all layers."""
        return self.layers * sum(one * other for one, other in self.matrices())

    @property
    def embeddings(self) -> int:
        return self.vocabulary * self.hidden * (1 if self.is_tied else 2)

    @property
    def vectors(self) -> int:
        """Numbers in biases and norms."""
        return self.layers * (3 * self.hidden + 2 * self.kv) + self.hidden

    @property
    def parameters(self) -> int:
        return self.linear + self.embeddings + self.vectors

    @property
    def tensors(self) -> int:
        """Of the parameters; the optimiser counts the steps of each."""
        return 12 * self.layers + (2 if self.is_tied else 3)

    @property
    def adapters(self) -> int:
        """Parameters of LoRA on every linear module."""
        return self.layers * RANK * sum(one + other for one, other in self.matrices())

    @property
    def adapter_tensors(self) -> int:
        return self.layers * 2 * len(self.matrices())


SHAPES = (
    Shape("0.5B", 896, 4864, 24, 128, 151936, is_tied=True),
    Shape("1.5B", 1536, 8960, 28, 256, 151936, is_tied=True),
    Shape("3B", 2048, 11008, 36, 256, 151936, is_tied=True),
    Shape("7B", 3584, 18944, 28, 512, 152064, is_tied=False),
    Shape("14B", 5120, 13824, 48, 1024, 152064, is_tied=False),
    Shape("32B", 5120, 27648, 64, 1024, 152064, is_tied=False),
    Shape("70B", 8192, 29568, 80, 1024, 152064, is_tied=False),
)


class State(NamedTuple):
    """Bytes that stay from step to step, but for the gradients, which each backward pass makes anew."""

    weights: float
    gradients: float
    optimizer: float


def whole(shape: Shape) -> State:
    """Return the state of a model whose weights are all trained with AdamW: 16 bytes a parameter."""
    size = SINGLE * shape.parameters
    return State(size, size, 2 * size + SINGLE * shape.tensors)


def adapted(shape: Shape, base: float) -> State:
    """Return the state of adapters on a frozen base of `base` bytes."""
    size = SINGLE * shape.adapters
    return State(base + size, size, 2 * size + SINGLE * shape.adapter_tensors)


def frozen(shape: Shape, element: int) -> float:
    """Return the bytes of weights that are only read."""
    return float(element * shape.parameters)


def quantised(shape: Shape) -> float:
    """Return the bytes of a base in 4 bits: its linear modules; the rest is in float32 (PEFT makes it so)."""
    return NF4 * shape.linear + SINGLE * (shape.embeddings + shape.vectors)


def layer_activations(shape: Shape, *, is_whole: bool) -> float:
    """Return the bytes that a layer keeps of each token for the backward pass.

    Inputs of norms are in float32, those of linear modules in bfloat16. With float32 weights the stream between the
    layers is in float32, and each linear module casts its input anew; with a bfloat16 base each adapter keeps the
    RANK numbers between its two matrices.
    """
    own = 30 * shape.hidden if is_whole else 24 * shape.hidden + HALF * RANK * len(shape.matrices())
    return own + 4 * shape.kv + 8 * shape.intermediate + SMALL


def activations(shape: Shape, sequences: int, *, is_whole: bool, checkpointing: bool) -> float:
    """Return the bytes of all layers. With checkpointing each keeps its input, and one at a time is computed again."""
    layer = layer_activations(shape, is_whole=is_whole)
    kept = (
        shape.layers * (SINGLE if is_whole else HALF) * shape.hidden + layer if checkpointing else shape.layers * layer
    )
    return sequences * TOKENS * kept


def cache(shape: Shape) -> float:
    """Return the bytes of keys and values of the answers that are sampled together, in bfloat16."""
    return SAMPLED * TOKENS * shape.layers * 2 * shape.kv * HALF


class Run(NamedTuple):
    """One way to train."""

    name: str
    method: str
    """whole, lora or qlora."""
    sequences: int
    """In a micro-batch, at the least."""
    copies: int = 0
    """Frozen models of the same size beside it: the reference."""
    reward_models: int = 0
    """Frozen models of the same size that no process divides."""
    parallel_copies: int = 0
    """Those that only several processes need."""
    has_critic: bool = False
    samples: bool = False


RUNS = (
    Run("sft", "whole", 1),
    Run("sft --lora", "lora", 1),
    Run("sft --qlora", "qlora", 1),
    Run("dpo", "whole", 2, parallel_copies=1),
    Run("dpo --lora", "lora", 2),
    Run("reward", "whole", 2),
    Run("reward --lora", "lora", 2),
    Run("ppo", "whole", 1, copies=1, reward_models=1, has_critic=True, samples=True),
    Run("ppo --lora --critic shared", "lora", 1, reward_models=1, samples=True),
    Run("grpo", "whole", GROUP, copies=1, samples=True),
    Run("grpo --lora", "lora", GROUP, samples=True),
)


def gathered(shape: Shape, *, is_whole: bool) -> float:
    """Return the bytes that a process gathers of a divided model, at the most.

    Embedding and head as long as the model computes, and two layers: one computes, the next one is fetched. All are in
    bfloat16. Their gradients are whole until they are averaged: in bfloat16, and in float32 to be sent.
    """
    layer = shape.linear / shape.layers
    gradients = (HALF + SINGLE) * max(layer, shape.embeddings) if is_whole else 0
    return HALF * (shape.embeddings + 2 * layer) + gradients


def needed(run: Run, shape: Shape, processes: int = 1, *, fsdp: bool = False) -> float:
    """Return the bytes that a run needs on each device, with --checkpointing.

    Under DDP every process holds the whole model, and its gradients twice: once more in the buckets that are summed.
    With --fsdp each holds its part of weights, gradients, optimiser states and reference.
    """
    is_whole = run.method == "whole"
    base = quantised(shape) if run.method == "qlora" else frozen(shape, HALF)
    state = whole(shape) if is_whole else adapted(shape, base)
    trained = 2 if run.has_critic else 1
    parts = processes if fsdp else 1
    gradients = state.gradients * (2 if processes > parts else 1) / parts
    copies = run.copies + (run.parallel_copies if processes > 1 else 0)
    passing = trained * activations(shape, run.sequences, is_whole=is_whole, checkpointing=True)
    if fsdp:
        passing += gathered(shape, is_whole=is_whole)
    elif is_whole:  # autocast keeps the weights of linear modules in bfloat16 for the backward pass
        passing += trained * HALF * shape.linear
    if run.name.startswith("ppo"):
        passing += LOGIT_COPIES * SINGLE * shape.vocabulary * TOKENS
    one = frozen(shape, SINGLE if is_whole else HALF)
    stays = (trained * (state.weights + state.optimizer) + copies * one) / parts + run.reward_models * one
    return stays + max(trained * gradients + passing, cache(shape) if run.samples else 0)


def smallest_gpu(size: float) -> str:
    """Return the smallest GPU that holds so many bytes, a dash if none does."""
    return next((str(gpu) for gpu in GPUS if size <= (1 - RESERVE) * gpu * GIB), "—")


def size_table(processes: int, *, fsdp: bool = False) -> list[str]:
    """Return the lines of the table of all runs and shapes: GiB on each device, and the smallest GPU that has them."""
    runs = [run for run in RUNS if not (fsdp and run.method == "qlora")]
    lines = ["| | " + " | ".join(shape.name for shape in SHAPES) + " |", "|---" * (len(SHAPES) + 1) + "|"]
    for run in runs:
        sizes = [needed(run, shape, processes, fsdp=fsdp) for shape in SHAPES]
        cells = [f"{size / GIB:,.0f} → {smallest_gpu(size)}" for size in sizes]
        lines.append(f"| `{run.name}` | " + " | ".join(cells) + " |")
    return lines


def activation_table() -> list[str]:
    """Return the lines of the table of activations of one sequence, in GiB."""
    lines = ["| | " + " | ".join(shape.name for shape in SHAPES) + " |", "|---" * (len(SHAPES) + 1) + "|"]
    for is_whole, name in ((True, "whole"), (False, "`--lora`")):
        for checkpointing, how in ((False, "without"), (True, "with")):
            sizes = [activations(shape, 1, is_whole=is_whole, checkpointing=checkpointing) / GIB for shape in SHAPES]
            lines.append(f"| {name}, {how} `--checkpointing` | " + " | ".join(f"{size:.2f}" for size in sizes) + " |")
    return lines


def tables() -> dict[str, list[str]]:
    """Return all tables by their titles."""
    return {
        "One device": size_table(1),
        "Each of 8 devices": size_table(8),
        "Each of 8 devices, with --fsdp": size_table(8, fsdp=True),
        "Each of 16 devices, with --fsdp": size_table(16, fsdp=True),
        "Activations": activation_table(),
    }


if __name__ == "__main__":
    for title, lines in tables().items():
        print(f"{title}\n\n" + "\n".join(lines) + "\n")
