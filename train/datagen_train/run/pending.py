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
        saved, loss = self._read(args, self._checkpoint)
        self._trainer._tr_loss += torch.tensor(loss, device=args.device)
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
        self._file(checkpoint, args.process_index).write_text(json.dumps(values))

    def _read(self, args: TrainingArguments, checkpoint: Path) -> tuple[dict[str, Any], float]:
        """Return the sums of this process, and its loss. Where another number of processes has written them, each takes
        the mean of their losses, which the library averages, and the metrics of one of them."""
        number = len(list(checkpoint.glob("pending-*.json")))
        every = [json.loads(self._file(checkpoint, index).read_bytes()) for index in range(number)]
        mine: dict[str, Any] = every[args.process_index % number]
        same = number == args.world_size
        return mine, mine["loss"] if same else sum(saved["loss"] for saved in every) / number

    @staticmethod
    def _file(checkpoint: Path, process: int) -> Path:
        return checkpoint / f"pending-{process}.json"
