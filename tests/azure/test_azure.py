from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, ServiceResponseError

import aksgpu
from aksgpu.azure import Azure, StaticToken, sdk_errors
from aksgpu.azure.subscription import _choose_only_subscription
from aksgpu.azure.throttling import limit
from aksgpu.errors import AzureAuthError, AzureError, AzureNotFound, AzureUnreachable, InvalidInput

from .conftest import Answer, Script


def test_a_repr_shows_no_secret(scripted: Azure) -> None:
    assert scripted.client is scripted.client
    assert repr(scripted) == "Azure(subscription '00000000-0000-0000-0000-000000000000' at 127.0.0.1)"
    assert "secret" not in repr(StaticToken("secret"))


def test_nothing_is_imported_or_sent_before_it_is_needed() -> None:
    program = (
        "import sys, aksgpu; aksgpu.connect('azure', subscription_id='s');"
        "print([m for m in sys.modules if m.startswith('azure')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_the_laptop_is_the_default_and_azure_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("azur", 5):
        with pytest.raises(InvalidInput, match=f"`target` must be .*, got {wrong!r}"):
            aksgpu.connect(wrong)  # type: ignore[arg-type]
    monkeypatch.setenv("AKSGPU_TARGET", "azure")
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "11111111-0000-0000-0000-000000000000")
    assert repr(aksgpu.connect()) == (
        "Azure(subscription '11111111-0000-0000-0000-000000000000' at management.azure.com)"
    )


def test_an_empty_target_means_no_target(monkeypatch: pytest.MonkeyPatch, laptop: aksgpu.local.Endpoint) -> None:
    monkeypatch.setenv("AKSGPU_TARGET", "")
    monkeypatch.setattr("aksgpu.local.start", lambda: laptop)
    assert aksgpu.connect().endpoint == laptop.base_url


@pytest.mark.parametrize("name", ["a/b", "my subscription", "../x", "a?b", 5])
def test_invalid_subscriptions(monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
    with pytest.raises(InvalidInput, match="`subscription_id` must be the id of a subscription"):
        aksgpu.connect("azure", subscription_id=name)
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", str(name) + " ")
    with pytest.raises(InvalidInput, match="`subscription_id` must be the id of a subscription"):
        aksgpu.connect("azure")


def test_login_warnings_of_the_sdk_are_shown_only_on_request() -> None:
    code = """if True:
        import logging
        from aksgpu.azure import default_credential
        default_credential()
        logging.getLogger("azure.identity._credentials.chained").warning("twenty lines")
        logging.basicConfig()
        logging.getLogger("azure.identity._credentials.chained").warning("asked for")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "twenty lines" not in done.stderr and "asked for" in done.stderr


def test_the_only_subscription_is_used(scripted: Azure, script: Script) -> None:
    script.on("GET", "^/subscriptions$", Answer(200, {"value": [{"subscriptionId": "abc", "displayName": "Mine"}]}))
    _choose_only_subscription(scripted)
    assert scripted.subscription_id == "abc"
    assert scripted.client._config.subscription_id == "abc"


def test_several_subscriptions_are_listed(scripted: Azure, script: Script) -> None:
    mine = [{"subscriptionId": "abc", "displayName": "Mine"}]
    page = {"value": mine, "nextLink": "{base}/subscriptions/more?api-version=2022-12-01"}
    script.on("GET", "^/subscriptions$", Answer(200, page))
    script.on(
        "GET", "^/subscriptions/more$", Answer(200, {"value": [{"subscriptionId": "def", "displayName": "Yours"}]})
    )
    with pytest.raises(InvalidInput, match=r"(?s)abc  Mine.*def  Yours.*AZURE_SUBSCRIPTION_ID"):
        _choose_only_subscription(scripted)


def test_no_subscription_is_an_error(scripted: Azure, script: Script) -> None:
    script.on("GET", "^/subscriptions$", Answer(200, {"value": []}))
    with pytest.raises(AzureNotFound, match="az login"):
        _choose_only_subscription(scripted)


def test_request_sends_and_returns_json(scripted: Azure, script: Script) -> None:
    script.on("PUT", "/things/1", Answer(201, {"name": "1"}))
    script.on("DELETE", "/things/1", Answer(204))
    assert scripted.request("PUT", "/things/1", api_version="2021-04-01", body={"a": 1}) == {"name": "1"}
    assert scripted.request("DELETE", "/things/1", api_version="2021-04-01") == {}
    sent = script.seen[0]
    assert (sent.body, sent.query) == ({"a": 1}, {"api-version": "2021-04-01"})
    assert sent.headers["Authorization"] == "Bearer secret-token"


def test_a_refusal_becomes_an_exception_and_keeps_the_original(scripted: Azure, script: Script) -> None:
    error = {"error": {"code": "AuthorizationFailed", "message": "no role"}}
    script.on("GET", "/things", Answer(403, error))
    with pytest.raises(AzureAuthError, match="looking: no role") as caught:
        scripted.request("GET", "/things", api_version="2021-04-01", what="looking")
    assert type(caught.value.__cause__).__name__ == "HttpResponseError"


def test_a_public_address_gets_no_token(scripted: Azure, plain_script: Script) -> None:
    plain_script.on("GET", "/prices", Answer(200, {"Items": []}))
    assert scripted.public(f"{plain_script.base_url}/prices", {"$filter": "x"}) == {"Items": []}
    assert "Authorization" not in plain_script.seen[0].headers
    with pytest.raises(AzureError):
        scripted.public(f"{plain_script.base_url}/elsewhere")


def test_no_response_and_no_login_are_different_errors() -> None:
    gone = sdk_errors.translate(ServiceResponseError("connection refused"), "listing clusters")
    assert isinstance(gone, AzureUnreachable)
    assert str(gone).startswith("listing clusters: the endpoint does not answer: connection refused")
    nobody = sdk_errors.translate(ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token"))
    assert isinstance(nobody, AzureAuthError)
    assert "--use-device-code" in nobody.hint
    assert sdk_errors.translate(nobody) is nobody


def test_a_missing_endpoint_gets_a_hint_to_connect_again(scripted: Azure, script: Script) -> None:
    script.stop()
    with pytest.raises(AzureUnreachable) as caught, limit(0.5):
        scripted.request("GET", "/subscriptions/x/resourcegroups/rg", api_version="1", what="resource group rg")
    where = script.base_url.removeprefix("https://")
    words = f"resource group rg: the endpoint at {where} does not answer: the connection was refused, tried for"
    assert caught.value.message.startswith(words)
    assert caught.value.hint.startswith("Connect again: azure = aksgpu.connect(...); then run the cell again.")
    assert isinstance(caught.value.original, ServiceResponseError)
    shown = "".join(traceback.format_exception(caught.value))
    assert "urllib3" not in shown
    assert "HTTPSConnection" not in shown


def test_the_laptops_files_are_kept_in_its_home(azure: Azure, laptop: aksgpu.local.Endpoint) -> None:
    assert azure.home == Path(laptop.home)
    assert azure.request("GET", "/subscriptions", api_version="2022-12-01")["value"]
