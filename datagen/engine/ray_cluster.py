"""What a command asks of Ray: whether it can be divided, the cluster, the workers and their shares of the limits.

Ray is imported here, and only where `--ray` is used. Nothing is sent to its makers, and it starts no dashboard.
"""

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

from datagen.engine.method import Method
from datagen.engine.options import RunOptions
from datagen.engine.shards import refuse_undivided
from datagen.errors import DatagenError, InputError
from datagen.libraries import check_library, import_library
from datagen.llm.keys import key_variables
from datagen.llm.spec import Spec

CONNECT_TIMEOUT = 5.0
"""Seconds."""
START_TIMEOUT = 90.0
"""Seconds for Ray to start, or to be joined."""
LONGEST_REASON = 300
"""Characters."""
OWN_SHARE = 20
"""The driver, which asks for what the workers could not get, keeps one of so many requests in flight and a minute."""
MOST_WORKERS = 256
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what it says about lost workers would go to standard output, among the rows
    "RAY_worker_niceness": "0",  # its own is 15: a busy machine would starve the workers
}
"""Variables that Ray reads when it is imported or started."""
VARIABLES = (
    *("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "HF_HUB_OFFLINE", "DATAGEN_TEST_HEADER"),
)
"""What a client reads from the environment, beside the keys of the models."""


@dataclass(frozen=True)
class RayAddress:
    """Where the workers are."""

    address: str | None
    """HOST:PORT, or auto; None starts Ray on this machine."""
    workers: int
    """Of a cluster 0: one for each node, and for `hf:` models one for each device."""

    def __str__(self) -> str:
        return self.address or f"local:{self.workers}"


def parse_ray(text: str) -> RayAddress:
    """Parse HOST:PORT, auto or local:N; raise InputError for anything else."""
    local = re.fullmatch(r"local:([0-9]{1,3})", text)
    if local and 1 <= int(local[1]) <= MOST_WORKERS:
        return RayAddress(None, int(local[1]))
    if text == "auto" or (re.fullmatch(r"[^/@\s]+:[0-9]{1,5}", text) and not text.startswith("local:")):
        return RayAddress(text, 0)
    raise InputError(
        f"--ray {text}: expected HOST:PORT of the head of a Ray cluster, auto on one of its nodes, or local:N for N "
        f"workers on this machine (1 to {MOST_WORKERS})"
    )


def choose_ray(method: Method, run: RunOptions, roles: Mapping[str, Sequence[Spec]]) -> RayAddress | None:
    """Return where the workers of a command are; None without --ray.

    Raises:
        InputError: The command cannot be divided, or Ray is not installed.
    """
    if run.ray is None:
        return None
    address = parse_ray(run.ray)
    refuse_undivided("--ray", method, asks_models=bool(roles))
    if replay := next((spec for specs in roles.values() for spec in specs if spec.name.startswith("replay:")), None):
        raise InputError(
            f"--ray: {replay.name} is a file of this machine and asks nobody, so there is nothing to divide"
        )
    if function := next((spec for specs in roles.values() for spec in specs if spec.load), None):
        raise InputError(f"--ray: {function.name} is a function of this process, which workers do not have")
    if code := method.origin or next((function.name for function in method.plugins), ""):
        raise InputError(
            f"--ray: {code} is code of this machine, which workers do not have; --shard divides the run, too"
        )
    if run.shard is not None:
        raise InputError("--ray with --shard: both divide the records; use one of them")
    if run.in_flight == 1:
        raise InputError("--ray with --concurrency 1: one request at a time cannot be divided")
    check_library("ray", "For --ray", "ray")
    return address


@contextmanager
def joined(address: RayAddress) -> Iterator[Any]:
    """Start Ray on this machine, or join a cluster; yield the module. A Ray that runs in this process is used as it is.

    Raises:
        DatagenError: There is no cluster, or Ray cannot be started.
    """
    os.environ.update(SETTINGS)
    ray = import_library("ray", "For --ray", "ray")
    if ray.is_initialized():
        yield ray
        return
    if address.address not in (None, "auto"):
        refuse_unreachable(str(address.address))
    settings = {"num_cpus": address.workers} if address.address is None else {"address": address.address}
    ended = Event()
    start(ray, address, {"include_dashboard": False, "log_to_driver": False, **settings}, ended)
    try:
        yield ray
    finally:
        ray.shutdown()
        ended.set()


def start(ray: Any, address: RayAddress, settings: Mapping[str, Any], ended: Event) -> None:
    """Call `ray.init` in a thread: it may try for minutes, and in the main thread it would take over SIGTERM.

    The thread lasts until `ended` is set, since the system ends Ray's processes with the thread that has started them.

    Raises:
        DatagenError: It fails, or takes longer than START_TIMEOUT.
    """
    outcome: Future[Any] = Future()

    def init() -> None:
        try:
            outcome.set_result(ray.init(logging_level=logging.CRITICAL, **settings))
            ended.wait()
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=init, daemon=True).start()
    hint = "; for a cluster that asks for a token, set RAY_AUTH_MODE=token" if address.address else ""
    try:
        outcome.result(START_TIMEOUT)
    except TimeoutError:
        raise DatagenError(f"--ray {address}: no answer of Ray within {START_TIMEOUT:.0f} s{hint}") from None
    except Exception as error:  # RuntimeError, ConnectionError, ValueError and others, of many lines
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise DatagenError(f"--ray {address}: Ray cannot be started or joined: {reason}{hint}") from error


def refuse_unreachable(address: str) -> None:
    """Raise DatagenError unless something listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise DatagenError(
            f"--ray {address}: nothing answers there ({error}). Start the head with `ray start --head --port {port}`, "
            "or use local:N"
        ) from None


def count_workers(
    ray: Any, address: RayAddress, roles: Mapping[str, Sequence[Spec]], most: int | None
) -> tuple[int, int]:
    """Return how many workers there are, and how many devices each of them takes.

    Args:
        ray: The module.
        address: What the user said.
        roles: The models; those that run in a worker take a device.
        most: The most requests in flight, of all workers and the driver; None adapts it.
    """
    is_local = any(spec.name.startswith("hf:") for specs in roles.values() for spec in specs)
    devices = int(ray.cluster_resources().get("GPU", 0)) if is_local else 0
    workers = address.workers or devices or sum(node["Alive"] for node in ray.nodes())
    workers = min(workers, devices or workers, workers if most is None else most - 1)
    return workers, min(devices, 1)


def share(total: int, workers: int) -> tuple[int, int]:
    """Divide a limit; return the part of the driver, and that of each worker."""
    own = max(1, total // OWN_SHARE)
    return own, max(1, (total - own) // workers)


def with_share(spec: Spec, workers: int) -> Spec:
    """Return a spec with the limits that each worker has, and with a folder of weights that has its whole name."""
    limits = {name: share(total, workers)[1] for name, total in spec.limits.items()}
    folder = Path(spec.name.removeprefix("hf:")).expanduser()
    name = f"hf:{folder.absolute()}" if spec.name.startswith("hf:") and folder.is_dir() else spec.name
    return replace(spec, limits=limits, name=name)


def with_own_share(spec: Spec, workers: int) -> Spec:
    """Return a spec with the limits that the driver has."""
    return replace(spec, limits={name: share(total, workers)[0] for name, total in spec.limits.items()})


def environment(specs: Sequence[Spec]) -> dict[str, str]:
    """Return the variables of the environment that hold the keys of models, and what else a client reads there."""
    names = {name for spec in specs for url in spec.urls for name in key_variables(url, spec.access.key)}
    headers = (value for spec in specs for value in spec.access.headers.values() if value.startswith("$"))
    names |= {value[1:] for value in headers} | {*VARIABLES, *(name.lower() for name in VARIABLES)}
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}
