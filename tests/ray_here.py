"""Ray without its processes: actors that are objects of this process, for tests of what the driver and workers say.

A worker can be lost at any moment: its requests in flight are given up, and every later answer of its is an error.
"""

import asyncio
import gc
import pickle
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from datagen.engine import ray_crew
from datagen.engine.ray_cluster import RayAddress


class ActorLost(Exception):
    """As RayActorError."""


class TaskFailed(Exception):
    """As RayTaskError."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Method:
    """A method of an actor."""

    def __init__(self, actor: "Actor", name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *arguments: Any) -> Awaitable[Any]:
        """Call it: values are copied on their way, as between processes."""
        return asyncio.ensure_future(self._call(pickle.dumps(arguments)))

    async def _call(self, arguments: bytes) -> Any:
        actor = self._actor
        task = asyncio.ensure_future(actor.call(self._name, pickle.loads(arguments)))
        await asyncio.wait({task, actor.lost}, return_when=asyncio.FIRST_COMPLETED)
        if actor.lost.done():
            task.cancel()
            raise ActorLost("The actor died unexpectedly.")
        if error := task.exception():
            raise TaskFailed(error)
        return pickle.loads(pickle.dumps(task.result()))


class Actor:
    """A worker."""

    def __init__(self, value: Any, ray: "RayHere") -> None:
        self.value, self.lost, self._ray = value, asyncio.get_running_loop().create_future(), ray

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)

    async def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "exchange" and self._ray.losses < self._ray.most_losses and self._ray.chance.random() < 0.2:
            self._ray.losses += 1
            asyncio.get_running_loop().call_later(self._ray.chance.uniform(0, 0.1), self.lose)
        result = getattr(self.value, name)(*arguments)
        return await result if asyncio.iscoroutine(result) else result

    def lose(self) -> None:
        """Lose it now."""
        if not self.lost.done():
            self.lost.set_result(None)
            if stack := getattr(self.value, "_stack", None):
                stack.stop.now("error")  # a process that is gone sends nothing more


class RayHere:
    """What the driver uses of Ray."""

    exceptions = SimpleNamespace(RayActorError=ActorLost, RayTaskError=TaskFailed)

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.losses = self.most_losses = 0
        """Workers that were lost, and that are to be lost while they work."""
        self.chance = Random(1)

    def remote(self, kind: Callable[[], Any]) -> Any:
        def start() -> Actor:
            self.actors.append(Actor(kind(), self))
            return self.actors[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

    def kill(self, actor: Actor) -> None:
        actor.lose()

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0}


@pytest.fixture
def ray_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayHere]:
    """`--ray` runs without processes."""
    ray = RayHere()

    @contextmanager
    def joined(address: RayAddress) -> Iterator[RayHere]:
        yield ray

    monkeypatch.setattr(ray_crew, "joined", joined)
    yield ray
    ray.actors.clear()
    gc.collect()  # a worker that is lost closes nothing: what Python says about that belongs to this test
