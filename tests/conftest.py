"""Fixtures of every test: an empty working folder, no settings from outside, no network beyond this machine."""

import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

SETTINGS = ("DATAGEN_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL")
settings.register_profile("datagen", deadline=None)  # a busy machine is no failure
settings.load_profile("datagen")
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def clean_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            raise OSError(f"a test reached for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)


@pytest.fixture
def real_seeds() -> Path:
    """The 175 seed tasks of Self-Instruct."""
    path = REAL_DATA / "self_instruct" / "seed_tasks.jsonl"
    if not path.exists():
        pytest.skip("the real seed tasks are not here: ../shared/data/self_instruct/seed_tasks.jsonl")
    return path


@pytest.fixture
def real_data() -> Path:
    """The folder of real public data."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data are not here: ../shared/data")
    return REAL_DATA
