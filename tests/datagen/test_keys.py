"""Where the key, the settings of the environment and the prompts go: looked at on the wire."""

import asyncio
import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

import pytest

from datagen.errors import InputError, Outage
from datagen.llm.call import Call, Doubtful, Reply
from datagen.llm.endpoint import TEST_HEADER, TEST_VARIABLE, Endpoint
from datagen.llm.keys import PROVIDERS, api_key, extra_headers, key_hint, key_variables, provider_of
from datagen.llm.models_file import Access
from datagen.llm.spec import OPENAI_URL
from tests.server import http

KEY = "sk-not-a-real-key-7f3a"
AMBIENT = {
    "OPENAI_ORG_ID": "org-of-mine",
    "OPENAI_PROJECT_ID": "project-of-mine",
    "OPENAI_CUSTOM_HEADERS": "X-Team: team-secret",
    "OPENAI_ADMIN_KEY": "admin-secret",
    "OPENAI_WEBHOOK_SECRET": "webhook-secret",
}
SETTINGS = ("org-of-mine", "project-of-mine", "team-secret", "admin-secret", "webhook-secret")
UNSENT = {"admin-secret", "webhook-secret"}
"""What the client reads and sends to nobody in a chat."""
HTTPS_HOSTS = ("api.openai.com", "api.deepseek.example", "example.com", "api.openai.com.example.com", "openai.com")
PROVIDER_HOSTS = {
    f"resource{host}" if host.startswith(".") else host: provider for provider in PROVIDERS for host in provider.hosts
}
IMPOSTORS = [name for host in PROVIDER_HOSTS for name in (f"{host}.example.com", f"x{host.partition('.')[2]}")]
PROMPT = "a private prompt"
CALL = Call(b"key", "m", [{"role": "user", "content": PROMPT}], {}, 0, 1, "answer", {})
GOOD = http(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "yes"}}]}).encode())


@dataclass
class Wire:
    """A server that keeps the bytes that it gets, whoever they are for."""

    port: int
    reply: bytes = GOOD
    requests: list[str] = field(default_factory=list)


@contextmanager
def listening(reply: bytes = GOOD, tls: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """Run a server on a thread until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    wire = Wire(listener.getsockname()[1], reply)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with tls.wrap_socket(connection, server_side=True) if tls else connection as stream:
                got = b""
                while PROMPT.encode() not in got and (data := stream.recv(65536)):
                    got += data
                wire.requests.append(got.decode())
                stream.sendall(wire.reply.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def ask(url: str, access: Access | None = None) -> Reply:
    """Send one request to an address, as a run does."""

    async def send() -> Reply:
        endpoint = Endpoint(url, "m", timeout=5, connections=1, access=access)
        try:
            return await endpoint.send(CALL)
        finally:
            await endpoint.close()

    return asyncio.run(send())


@pytest.fixture
def every_name_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve every host to this machine, so that a request to any of them can be looked at."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **options: resolve("127.0.0.1", *rest, **options))


@pytest.fixture
def full_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name, value in AMBIENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the hosts of these tests, and its key, in one file."""
    if not which("openssl"):
        pytest.skip("openssl is not installed")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    names = ",".join(f"DNS:{name}" for name in (*HTTPS_HOSTS, *PROVIDER_HOSTS, *IMPOSTORS, "localhost"))
    request = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=test -addext subjectAltName={names}"
    subprocess.run([*request.split(), "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + Path(f"{file}.crt").read_bytes())
    return file


def secrets_in(request: str) -> set[str]:
    """Return the secrets of the environment that a request holds."""
    return {secret for secret in (KEY, *SETTINGS) if secret in request}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
@pytest.mark.usefixtures("full_environment")
def test_this_machine_gets_the_key_and_no_other_setting(host: str) -> None:
    with listening() as wire:
        ask(f"http://{host}:{wire.port}/v1")
    assert secrets_in(wire.requests[0]) == {KEY}


@pytest.mark.parametrize(
    "host",
    ["api.openai.com", "example.com", "127.example.com", "127.0.0.1.example.com", "localhost.example.com", "gpu-box"],
)
@pytest.mark.parametrize("base", ["", "http://{}/v1"])
@pytest.mark.usefixtures("full_environment", "every_name_is_here")
def test_nothing_secret_leaves_this_machine_over_plain_http(
    host: str, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base.format(host))
    with listening() as wire:
        ask(f"http://{host}:{wire.port}/v1")
    assert PROMPT in wire.requests[0] and not secrets_in(wire.requests[0])


@pytest.mark.parametrize("host", HTTPS_HOSTS)
@pytest.mark.parametrize("base", ["", "https://api.deepseek.example/v1"])
@pytest.mark.usefixtures("full_environment", "every_name_is_here")
def test_over_https_only_openai_and_the_host_of_the_base_url_get_anything_secret(
    host: str, base: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with listening(tls=tls) as wire:
        ask(f"https://{host}:{wire.port}/v1")
    is_meant = host == "api.openai.com" or host in base
    assert secrets_in(wire.requests[0]) == ({*SETTINGS, KEY} - UNSENT if is_meant else set())


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The settings of a server that the client trusts, whatever its name."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def every_key(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A key of every provider."""
    variables = {variable for provider in PROVIDERS for variable in provider.variables}
    for variable in variables:
        monkeypatch.setenv(variable, f"key-in-{variable}.")
    return {f"key-in-{variable}." for variable in variables}


@pytest.mark.usefixtures("every_name_is_here")
def test_each_provider_gets_its_own_key_in_its_own_header_and_nobody_else_any(
    tls: ssl.SSLContext, every_key: set[str]
) -> None:
    with listening(tls=tls) as wire:
        for name in (*PROVIDER_HOSTS, *IMPOSTORS):
            ask(f"https://{name}:{wire.port}/v1")
    for name, request in zip((*PROVIDER_HOSTS, *IMPOSTORS), wire.requests, strict=True):
        provider = PROVIDER_HOSTS.get(name)
        own = {f"key-in-{provider.variables[0]}."} if provider else set()
        assert {key for key in every_key if key in request} == own, name
        is_azure = provider is not None and name.endswith(".azure.com")
        lines = [line for line in request.lower().split("\r\n") if line.startswith(("authorization:", "api-key:"))]
        assert [line.partition(":")[0] for line in lines] == ["api-key" if is_azure else "authorization"], name


@pytest.mark.usefixtures("every_name_is_here", "every_key")
def test_no_key_of_a_provider_is_sent_over_plain_http() -> None:
    with listening() as wire:
        for name in PROVIDER_HOSTS:
            ask(f"http://{name}:{wire.port}/v1")
    assert len(wire.requests) == len(PROVIDER_HOSTS)
    assert not [request for request in wire.requests if "key-in-" in request]


def test_this_machine_gets_the_key_that_models_toml_names_and_no_other(every_key: set[str]) -> None:
    with listening() as wire:
        ask(f"http://127.0.0.1:{wire.port}/v1", Access("GROQ_API_KEY"))
        ask(f"http://127.0.0.1:{wire.port}/v1", Access(headers={"x-one": "two", "x-key": "$XAI_API_KEY"}))
    assert {key for key in every_key if key in wire.requests[0]} == {"key-in-GROQ_API_KEY."}
    assert {key for key in every_key if key in wire.requests[1]} == {"key-in-OPENAI_API_KEY.", "key-in-XAI_API_KEY."}
    assert "x-one: two\r\n" in wire.requests[1]


def test_the_query_of_models_toml_is_sent() -> None:
    with listening() as wire:
        ask(f"http://127.0.0.1:{wire.port}/v1", Access(query={"api-version": "2026-01-01 preview"}))
    assert wire.requests[0].startswith("POST /v1/chat/completions?api-version=2026-01-01+preview HTTP/1.1")


def test_a_key_that_models_toml_names_is_asked_for_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^MY_KEY is not set"):
        api_key("https://example.com/v1", "MY_KEY")
    with pytest.raises(InputError, match=r"^MY_KEY is not set"):
        extra_headers("https://example.com/v1", {"x": "$MY_KEY"})
    monkeypatch.setenv("MY_KEY", KEY)
    assert api_key("https://example.com/v1", "MY_KEY") == KEY
    for send in (lambda url: api_key(url, "MY_KEY"), lambda url: extra_headers(url, {"x": "$MY_KEY"})):
        with pytest.raises(InputError, match=r"^MY_KEY is not sent to gpu\.example: over plain http"):
            send("http://gpu.example/v1")
    monkeypatch.setenv("MY_KEY", "two words")
    with pytest.raises(InputError, match=r"^MY_KEY holds a space"):
        api_key("https://example.com/v1", "MY_KEY")


@pytest.mark.usefixtures("full_environment")
def test_a_base_url_on_this_machine_gets_the_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as wire:
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{wire.port}/v1")
        ask(f"http://127.0.0.1:{wire.port}/v1")
    assert secrets_in(wire.requests[0]) == {*SETTINGS, KEY} - UNSENT


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_stays_on_this_machine_does_not_go_through_a_proxy(
    host: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as proxy, listening() as wire:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        ask(f"http://{host}:{wire.port}/v1")
    assert (len(wire.requests), proxy.requests) == (1, [])


@pytest.mark.usefixtures("every_name_is_here")
def test_other_hosts_are_asked_through_the_proxy_unless_no_proxy_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as proxy, listening() as wire:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "near.example")
        ask(f"http://far.example:{wire.port}/v1")
        assert (len(proxy.requests), len(wire.requests)) == (1, 0)
        ask(f"http://near.example:{wire.port}/v1")
        assert (len(proxy.requests), len(wire.requests)) == (1, 1)


def test_the_place_of_a_call_is_sent_to_a_test_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as wire:
        ask(f"http://127.0.0.1:{wire.port}/v1")
        monkeypatch.delenv(TEST_VARIABLE)
        ask(f"http://127.0.0.1:{wire.port}/v1")
    assert [TEST_HEADER in request.lower() for request in wire.requests] == [True, False]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.usefixtures("full_environment", "every_name_is_here")
def test_a_withheld_key_is_not_called_refused(status: int) -> None:
    with listening(http(status, b'{"error": "no key"}')) as wire, pytest.raises((Outage, Doubtful)) as raised:
        ask(f"http://gpu.example:{wire.port}/v1")
    assert "OPENAI_API_KEY is not sent to gpu.example" in str(raised.value)
    assert "the key is refused" not in str(raised.value)


def test_a_key_that_was_sent_is_called_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with listening(http(401, b'{"error": "wrong key"}')) as wire, pytest.raises(Outage, match="the key is refused"):
        ask(f"http://127.0.0.1:{wire.port}/v1")


@pytest.mark.parametrize(
    ("key", "url", "hint"),
    [
        ("", "https://example.com/v1", r"No key was sent to example\.com: no variable is known.* models\.toml"),
        (
            KEY,
            "http://10.0.0.7/v1",
            r"OPENAI_API_KEY is not sent to 10\.0\.0\.7: over plain http a key goes to this machine",
        ),
        (KEY, "https://example.com/v1", r"OPENAI_API_KEY is not .*: export OPENAI_BASE_URL=https://example\.com/v1$"),
        (KEY, "https://api.deepseek.com/v1", r"No key was sent: DEEPSEEK_API_KEY is not set$"),
        (KEY, "http://api.deepseek.com/v1", r"No key was sent: DEEPSEEK_API_KEY is not set$"),
        (KEY, OPENAI_URL, r"$"),
        (KEY, "https://[::1]:8000/v1", r"$"),
    ],
)
def test_the_way_to_send_a_withheld_key_is_said(key: str, url: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert re.match(hint, key_hint(url))


@pytest.mark.parametrize("url", ["https://[::1", "nonsense", "https://", "//api.openai.com"])
def test_a_base_url_that_is_no_address_gives_nobody_the_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert key_variables("https://example.com/v1") == []
    assert key_variables(OPENAI_URL) == ["OPENAI_API_KEY"]


def test_without_a_key_only_providers_are_out_of_reach() -> None:
    assert api_key("http://127.0.0.1:1/v1") == api_key("https://example.com/v1") == "none"
    with pytest.raises(InputError, match=r"^OPENAI_API_KEY is not set\. .* --model sim$"):
        api_key(OPENAI_URL)
    for name, provider in PROVIDER_HOSTS.items():
        with pytest.raises(InputError, match=f"^{provider.variables[0]} is not set"):
            api_key(f"https://{name}/v1")


def test_the_page_lists_every_provider() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/models.md").read_text()
    rows = [(provider.url, " or ".join(f"`{name}`" for name in provider.variables)) for provider in PROVIDERS]
    assert [url for url, names in rows if f"| `{url}` | {names} |\n" not in page] == []
    for provider in PROVIDERS:
        assert provider_of(provider.url.replace("RESOURCE", "mine")) is provider


def test_the_base_url_of_a_provider_takes_either_key(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://api.deepseek.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert api_key(url) == KEY
    monkeypatch.setenv("DEEPSEEK_API_KEY", "own")
    assert api_key(url) == "own"
