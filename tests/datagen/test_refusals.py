"""A refusal shows the server's own words, and one way out."""

import asyncio
import json
import ssl
from pathlib import Path

import pytest

from datagen.errors import Outage
from datagen.llm.call import Call, Doubtful, Transient
from datagen.llm.endpoint import OUTAGE_STATUS, Endpoint
from datagen.llm.limiter import UNREACHABLE_HINT
from tests.jobs import respond, write_seeds
from tests.wire import http, wire

CALL = Call(b"k" * 32, "m", [{"role": "user", "content": "Why?"}], {}, 0, 1, "answer", {})
WORDS = "The server's own words about this, " * 8
HINTS = {
    401: "is it for this address, and still valid?",
    402: "Add credit there",
    403: "",
    404: "datagen doctor --model m@{url} says which models are there",
    405: "Is the address that of an OpenAI-compatible API?",
    407: "Proxies come from HTTPS_PROXY",
    410: "datagen doctor --model m@{url} says which models are there",
}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    if known := ssl.create_default_context().get_ca_certs(binary_form=True):
        Path("one.pem").write_text(ssl.DER_cert_to_PEM_cert(known[0]))
        monkeypatch.setenv("SSL_CERT_FILE", "one.pem")


def refusal(url: str) -> str:
    """Send a call; return what is said of its refusal."""

    async def send() -> str:
        endpoint = Endpoint(url, "m", timeout=5, connections=1)
        try:
            await endpoint.send(CALL)
        except (Outage, Doubtful, Transient) as error:
            return str(error)
        finally:
            await endpoint.close()
        return ""

    return asyncio.run(send())


@pytest.mark.parametrize("status", OUTAGE_STATUS)
def test_each_status_has_its_hint_behind_the_words_of_the_server(status: int) -> None:
    with wire(lambda _: [http(status, json.dumps({"error": {"message": WORDS}}).encode())]) as server:
        text = refusal(server.url)
        root = refusal(server.url.removesuffix("/v1"))
    assert text.startswith(f"m at {server.url}: {OUTAGE_STATUS[status]} (HTTP {status}): {WORDS.strip()}")
    assert HINTS[status].format(url=server.url) in text.partition(WORDS.strip())[2]
    assert root.endswith(f"Does the address end in /v1? {server.url}") == (status in (404, 405))


def test_an_error_with_status_200_is_shown_in_its_own_words() -> None:
    with wire(lambda _: [http(200, json.dumps({"error": {"message": WORDS}}).encode())]) as server:
        assert WORDS.strip() in refusal(server.url)


def test_where_nothing_listens_doctor_is_named() -> None:
    outcome = respond(write_seeds(1), "m@http://127.0.0.1:9/v1")
    assert str(outcome.error).endswith(UNREACHABLE_HINT) and "datagen doctor" in UNREACHABLE_HINT
