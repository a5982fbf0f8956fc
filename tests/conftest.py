"""Fixtures of every test: an empty working folder, no settings from outside, no network beyond this machine."""

import gc
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from datagen.llm.keys import PROVIDERS
from tests.once import once

SETTINGS = (
    *("DATAGEN_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"),
    *(variable for provider in PROVIDERS for variable in provider.variables),
    *("OPENAI_CUSTOM_HEADERS", "OPENAI_ADMIN_KEY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)
settings.register_profile("datagen", deadline=None, derandomize=True)  # the same examples each time
settings.register_profile("explore", deadline=None, max_examples=2000)  # HYPOTHESIS_PROFILE=explore: others
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "datagen"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when the first test imports a library that asks the hub
os.environ["DATAGEN_TEST_HEADER"] = "1"  # tests/server.py answers by the place of a call in the run
REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


gc.disable()  # until all is imported: what the libraries make stays


def pytest_collection_finish() -> None:
    """Leave what is imported out of every later look for garbage, of which each training asks for a whole one."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def clean_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.chdir(tmp_path)
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            raise OSError(f"a test reached for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small models that `every_command` names."""
    from tests.every_command import write_models

    return once(tmp_path_factory, "models", write_models)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that `every_command` names."""
    from tests.every_command import write_inputs

    return once(tmp_path_factory, "inputs", write_inputs)


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


@pytest.fixture
def one_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time to open an endpoint is that of reading all certificates."""
    if known := ssl.create_default_context().get_ca_certs(binary_form=True):
        Path("one.pem").write_text(ssl.DER_cert_to_PEM_cert(known[0]))
        monkeypatch.setenv("SSL_CERT_FILE", "one.pem")
