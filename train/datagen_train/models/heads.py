"""Heads on the last hidden states: the score of a reward model, the logits of a classifier, the value of a critic.

They compute in float32, also under autocast: in bfloat16 a number has eight bits, and of two thousand answers half
would share a score with another one.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class Head(nn.Linear):
    """A linear layer in the type of its weights, float32, whatever its input is in and whatever autocast says."""

    def forward(self, states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return super().forward(states.to(self.weight.dtype))


def score_head(width: int, seed: int, labels: int = 1) -> Head:
    """Draw a head with a number for each label: standard deviation 1 / sqrt(d + 1) (arXiv 2009.01325, 2403.17031).

    It has no bias: comparisons cannot determine one, and the library has no place for one.
    """
    head = Head(width, labels, bias=False)
    nn.init.normal_(head.weight, std=(width + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))
    return head


def value_head(width: int) -> Head:
    """Return a value head that predicts 0 everywhere (arXiv 1909.08593, section 2.2)."""
    head = Head(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def hidden_width(model: PreTrainedModel) -> int:
    """Return the width of a model's last hidden states: OPT-350m narrows them to that of its embedding."""
    config = model.config.get_text_config()
    return int(getattr(config, "word_embed_proj_dim", config.hidden_size))
