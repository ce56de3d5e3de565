"""What cannot be read from Azure is an error, never an empty list. Clusters that cannot be read cost money too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aksgpu import cluster, errors, sizes
from aksgpu.azure import Azure

from .conftest import Answer, Script

CALLS: dict[str, Callable[[Azure, cluster.Cluster], Any]] = {
    "cluster.list": lambda azure, aks: cluster.list(azure),
    "cluster.get": lambda azure, aks: cluster.get(azure, "aks", resource_group="rg"),
    "cluster.list_pools": lambda azure, aks: cluster.list_pools(aks),
    "cluster.get_pool": lambda azure, aks: cluster.get_pool(aks, "gpunp"),
    "cluster.delete_pool": lambda azure, aks: cluster.delete_pool(aks, "gpunp"),
    "cluster.leftovers": lambda azure, aks: cluster.leftovers(azure),
    "sizes.gpu_sizes": lambda azure, aks: sizes.gpu_sizes(azure, "eastus"),
    "sizes.preflight": lambda azure, aks: sizes.preflight(azure, "eastus", "Standard_NC4as_T4_v3"),
}
REFUSAL = {"error": {"code": "AuthorizationFailed", "message": "The client does not have authorization."}}
ANSWERS = {
    "forbidden": Answer(403, REFUSAL),
    "a text": Answer(200, "Please log in"),
    "a list": Answer(200, ["a"]),
    "an empty object": Answer(200, {}),
    "a 404 of a proxy": Answer(404, b"<html>Not Found</html>"),
    "a 404 without a code": Answer(404, {"message": "no route"}),
    "an error with status 200": Answer(200, REFUSAL),
}


CASES = [(call, answer) for call in CALLS for answer in ANSWERS if (call, answer) != ("sizes.preflight", "forbidden")]


@pytest.mark.parametrize(("call", "answer"), CASES)
def test_a_subscription_that_cannot_be_read_is_an_error(
    scripted: Azure, script: Script, call: str, answer: str
) -> None:
    script.on("GET", ".*", ANSWERS[answer])
    aks = cluster.Cluster("aks", resource_group="rg", location="eastus", azure=scripted, id="/subscriptions/0/aks")
    with pytest.raises(errors.AzureError) as raised:
        CALLS[call](scripted, aks)
    assert not isinstance(raised.value, errors.AzureNotFound), "nobody said that it does not exist"


def test_the_verdict_of_preflight_without_permissions_is_not_yes(scripted: Azure, script: Script) -> None:
    script.on("GET", ".*", ANSWERS["forbidden"])
    assert sizes.preflight(scripted, "eastus", "Standard_NC4as_T4_v3").verdict == "unknown"


@pytest.mark.parametrize("call", CALLS)
def test_a_redirect_to_another_host_is_not_followed(scripted: Azure, script: Script, call: str) -> None:
    script.on("GET", ".*", Answer(302, "", {"Location": "https://login.example/?from=azure"}))
    aks = cluster.Cluster("aks", resource_group="rg", location="eastus", azure=scripted, id="/subscriptions/0/aks")
    with pytest.raises(
        errors.AzureError, match=r"the response is not Azure's: it redirects to login\.example"
    ) as raised:
        CALLS[call](scripted, aks)
    assert "check whether a proxy changes Azure's responses" in raised.value.hint


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(200, b"<html>Please log in</html>"), "that is not JSON"),
        (Answer(200, b'{"value": ['), "that was cut off"),
    ],
)
def test_a_response_that_is_not_json_is_named(scripted: Azure, script: Script, answer: Answer, words: str) -> None:
    script.on("GET", ".*", answer)
    with pytest.raises(errors.AzureUnreachable, match=f"a response with status 200 {words}"):
        cluster.list(scripted, timeout=3)
