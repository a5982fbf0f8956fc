"""What a run has counted since its last log, kept in checkpoints: a resumed run writes the curve of an unbroken one.

A log holds means over the steps since the log before. A checkpoint may lie between two logs, and the library's
checkpoints do not hold these sums: the first log of a resumed run would be over fewer steps than that of another one.
"""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Pending(TrainerCallback):
    """Saves the sums beside each checkpoint, and restores them; each process has its own.

    Args:
        trainer: whose sums. One with sums of its own has the methods `pending_state` and `restore_pending`.
        checkpoint: the one that the run goes on from, if there is one.
    """

    def __init__(self, trainer: Trainer, checkpoint: Path | None) -> None:
        self._trainer: Any = trainer
        self._checkpoint = checkpoint

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._checkpoint is None:
            return
        saved = json.loads(self._file(args, self._checkpoint).read_bytes())
        self._trainer._tr_loss += torch.tensor(saved["loss"], device=args.device)
        self._trainer._globalstep_last_logged = saved["last_log"]
        if hasattr(self._trainer, "restore_pending"):
            self._trainer.restore_pending(saved["metrics"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        values = {
            "loss": float(self._trainer._tr_loss),
            "last_log": self._trainer._globalstep_last_logged,
            "metrics": self._trainer.pending_state() if hasattr(self._trainer, "pending_state") else None,
        }
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        self._file(args, checkpoint).write_text(json.dumps(values))

    @staticmethod
    def _file(args: TrainingArguments, checkpoint: Path) -> Path:
        return checkpoint / f"pending-{args.process_index}.json"
