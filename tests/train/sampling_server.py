"""A server that answers a sampler as vLLM does: token ids in and out, adapters that are loaded while it runs.

It answers with a real model: the base, and the adapters of the folders that it is handed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from datagen.llm.local.generation import generate
from datagen_train.models.actor_critic import Distribution, answer_log_probs, make_batch


@dataclass
class SamplingServer:
    """What a server has, and how it misbehaves."""

    base: str
    requests: list[tuple[str, Any]] = field(default_factory=list)
    adapters: dict[str, Any] = field(default_factory=dict)
    keeps_first: bool = False
    """Answers with the first adapters for ever."""
    shift: float = 0.0
    """Added to every log-probability."""
    faults: int = 0
    """So many requests end in HTTP 500 first."""
    last: int | None = None
    """After so many requests all others end in HTTP 500."""
    reply: Any = None
    """Sent in place of every answer."""
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(self.base)

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        with self.lock:
            self.requests.append((path, body))
            if self.faults:
                self.faults -= 1
                return 500, {"error": "busy"}
            if self.last is not None and len(self.requests) > self.last:
                return 500, {"error": "dead"}
            if path == "/v1/load_lora_adapter":
                if body["lora_name"] in self.adapters:
                    return 400, {"error": "already loaded"}
                base = AutoModelForCausalLM.from_pretrained(self.base)
                self.adapters[body["lora_name"]] = PeftModel.from_pretrained(base, body["lora_path"]).eval()
                return 200, "loaded"
            if path == "/v1/unload_lora_adapter":
                if self.keeps_first:
                    return 200, "kept"
                return (200, "unloaded") if self.adapters.pop(body["lora_name"], None) else (404, "none of that name")
            return 200, self.reply or self.complete(body)

    def complete(self, body: Any) -> Any:
        """Return a completion, with the log-probabilities after temperature and bias."""
        name = next(iter(self.adapters)) if self.keeps_first else body["model"]
        model, prompt, temperature = self.adapters[name], body["prompt"], body["temperature"]
        suppressed = tuple(int(token) for token in body["logit_bias"] or {})
        model.generation_config.eos_token_id = body["stop_token_ids"]
        (generated,) = generate(
            model, self.tokenizer, [prompt], max_tokens=body["max_tokens"], temperature=temperature,
            suppressed=suppressed, seeds=[body["seed"]],
        )  # fmt: skip
        batch = make_batch([prompt], [generated.ids], torch.device("cpu"))
        with torch.no_grad():
            log_probs = answer_log_probs(model, batch, Distribution(temperature, suppressed))[0]
        listed = [min(0.0, float(value) + self.shift) for value in log_probs[: len(generated.ids)]]
        tokens = [f"token_id:{token}" for token in generated.ids]
        choice = {"text": generated.text, "logprobs": {"tokens": tokens, "token_logprobs": listed}}
        return {"choices": [{**choice, "finish_reason": generated.finish_reason}]}


@contextmanager
def serve(server: SamplingServer) -> Iterator[str]:
    """Run a server on a port of this machine; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, reply = server.answer(self.path, body)
            content = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
