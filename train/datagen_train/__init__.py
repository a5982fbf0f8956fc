"""From the rows of `datagen` to a model: pre-training, SFT, reward models, DPO, distillation, PPO and GRPO."""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when trl is imported; its trainers phone home otherwise
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
