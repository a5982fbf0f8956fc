"""TRL 1.12's PPO on the job of benchmarks/ppo.py, in an environment of its own: prints processor seconds an update.

python ppo_trl112.py STEPS          in a folder with base/, rm/ and sums.jsonl
"""

import json
import os
import sys
from time import process_time

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer

PROMPTS, TOKENS, EPOCHS, MINIBATCHES, RATE = 128, 8, 2, 2, 3e-4


def main(steps: int) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained("base", padding_side="left")
    with open("sums.jsonl", encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in file]
    ids = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        for prompt in prompts
    ]
    policy, reference = (AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32) for _ in range(2))
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained("rm", num_labels=1, dtype=torch.float32) for _ in range(2)
    )
    config = PPOConfig(
        output_dir="trl", per_device_train_batch_size=PROMPTS // MINIBATCHES, gradient_accumulation_steps=1,
        num_mini_batches=MINIBATCHES, num_ppo_epochs=EPOCHS, total_episodes=steps * PROMPTS, response_length=TOKENS,
        local_rollout_forward_batch_size=PROMPTS, stop_token="eos", missing_eos_penalty=1.0, learning_rate=RATE,
        num_sample_generations=0, bf16=False, use_cpu=True, gradient_checkpointing=False, save_strategy="no",
        report_to="none", disable_tqdm=True, logging_steps=50,
    )  # fmt: skip
    data = Dataset.from_dict({"input_ids": ids})
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward,
        value_model=value, train_dataset=data, eval_dataset=data.select(range(PROMPTS)),
    )  # fmt: skip
    began = process_time()
    trainer.train()
    print((process_time() - began) / steps)


main(int(sys.argv[1]))
