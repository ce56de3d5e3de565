"""Azure: a subscription, reached through Azure Resource Manager.

:func:`connect` gives an :class:`Azure`, the first argument of most functions of :mod:`aksgpu.cluster` and
:mod:`aksgpu.sizes`. Everything goes through the official ``azure-mgmt-containerservice`` client; what that has no
method for (resource groups, quota, VM sizes) goes through the same client's ``send_request``. Prices are public and
are fetched without credentials. What a cluster is, and what is asked of Azure in which order, is not known here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aksgpu.azure import resource_names
from aksgpu.errors import AzureError, AzureNotFound, InvalidInput
from aksgpu.local.home import home as user_home

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential
    from azure.core.exceptions import HttpResponseError

    from aksgpu.local import Endpoint

PUBLIC_CLOUD = "https://management.azure.com"
RETAIL_PRICES = "https://prices.azure.com/api/retail/prices"
AKS_SERVER_SCOPE = "6dae42f8-4368-4678-94ff-3960e28e3630/.default"
"""What a token must be for that an AKS cluster with Entra ID accepts (the id of Azure's AKS server application)."""

_SUBSCRIPTIONS_API = "2022-12-01"
_UNKNOWN = "unknown"  # the client wants a subscription, and listing the subscriptions does not use it
_LRO_INTERVAL = 10.0  # seconds between two polls where Azure does not say; it nearly always does


class StaticToken:
    """A credential that is one bearer token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """The token, whatever it is for."""
        from azure.core.credentials import AccessToken

        return AccessToken(self._token, 2**33)  # seconds since 1970; it does not expire

    def __repr__(self) -> str:
        return "StaticToken(...)"


class Azure:
    """A subscription. Make it with :func:`connect`; nothing is sent before something is asked for.

    Attributes:
        subscription_id: the subscription's id.
        endpoint: address of Resource Manager.
        prices_url: address of the Retail Prices API.
        home: directory where kubeconfigs and running operations are kept.
        price_cache: prices that were read, by location and size; they change once a month.
    """

    def __init__(
        self,
        subscription_id: str,
        credential: Callable[[], TokenCredential],
        *,
        endpoint: str = PUBLIC_CLOUD,
        prices_url: str = RETAIL_PRICES,
        ca_file: str | Path | None = None,
        home: Path | None = None,
    ) -> None:
        self.subscription_id = resource_names.check(resource_names.SUBSCRIPTION, subscription_id, "subscription_id")
        self.endpoint = endpoint.rstrip("/")
        self.prices_url = prices_url
        self.home = home or user_home()
        self.price_cache: dict[tuple[str, str], Any] = {}
        self._make_credential = credential
        self._ca_file = ca_file
        self._credential: TokenCredential | None = None
        self._client: Any = None

    def __repr__(self) -> str:
        return f"Azure(subscription {self.subscription_id!r} at {urlsplit(self.endpoint).hostname})"

    @property
    def credential(self) -> TokenCredential:
        """The login; made when it is first needed."""
        if self._credential is None:
            self._credential = self._make_credential()
        return self._credential

    @property
    def client(self) -> Any:
        """The SDK's ``ContainerServiceClient``; made when it is first needed."""
        if self._client is None:
            from azure.mgmt.containerservice import ContainerServiceClient

            from aksgpu.azure.azure_retry_policy import Retries
            from aksgpu.azure.response_check import ResponseCheck

            self._client = ContainerServiceClient(
                self.credential,
                self.subscription_id,
                base_url=self.endpoint,
                retry_policy=Retries(),
                per_call_policies=[ResponseCheck()],
                **self._transport(),
            )
        return self._client

    def _transport(self) -> dict[str, Any]:
        # An endpoint with an authority of its own is not behind the user's proxy, nor known to REQUESTS_CA_BUNDLE.
        return {"connection_verify": str(self._ca_file), "use_env_settings": False} if self._ca_file else {}

    def polling(self) -> Any:
        """What ``begin_...`` calls take as ``polling=``, so that :func:`follow` can follow them."""
        from aksgpu.azure.operations import Following

        return Following(_LRO_INTERVAL)

    def request(
        self,
        method: str,
        path: str,
        *,
        api_version: str = "",
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        what: str = "",
    ) -> dict[str, Any]:
        """Send one request to Resource Manager.

        Args:
            method: HTTP method.
            path: path from the root, such as ``/subscriptions/.../resourcegroups``; or a full address on the same host.
            api_version: such as ``2021-04-01``; empty when the address carries it.
            body: sent as JSON.
            params: further query parameters.
            what: what is being done; begins an error's message.

        Returns:
            The answer's JSON; empty when it has no body.

        Raises:
            AzureError: the subclass for the reason.
        """
        response = self._send(method, path, api_version, body, params, what)
        return dict(response.json()) if response.content else {}

    def pages(
        self, path: str, *, api_version: str, params: Mapping[str, str] | None = None, what: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Every item of a list that comes in pages. Arguments and errors as for :meth:`request`."""
        page = self.request("GET", path, api_version=api_version, params=params, what=what)
        while True:
            yield from page.get("value") or ()
            if not page.get("nextLink"):
                return
            following = urlsplit(str(page["nextLink"]))  # another host than the endpoint would get the login
            page = self.request("GET", f"{following.path}?{following.query}", what=what)

    def begin(self, method: str, path: str, *, api_version: str, what: str = "") -> Any:
        """Begin a long-running operation that the SDK has no method for; :func:`follow` takes what is returned."""
        from azure.core.polling import LROPoller

        response = self._send(method, path, api_version, None, None, what, _return_pipeline_response=True)
        # The poller wants the pipeline that signs requests, which the generated client keeps to itself.
        return LROPoller(self.client._client, response, lambda _: None, self.polling())

    def _send(
        self,
        method: str,
        path: str,
        api_version: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        what: str,
        **options: Any,
    ) -> Any:
        from azure.core.exceptions import HttpResponseError
        from azure.core.rest import HttpRequest

        self._check_address(path)
        query = {**({"api-version": api_version} if api_version else {}), **(params or {})}
        request = HttpRequest(method, path, params=query, json=dict(body) if body is not None else None)
        with translated(what):
            response = self.client.send_request(request, **options)
            plain = getattr(response, "http_response", response)
            if plain.status_code >= 400:
                raise HttpResponseError(response=plain)
            return response

    def _check_address(self, path: str) -> None:
        """Refuse to send the login elsewhere, and paths that name something else than they seem to."""
        rest = path
        if not path.startswith("/"):
            if not path.startswith(self.endpoint + "/"):
                raise InvalidInput(
                    f"`path` must begin with '/' or with {self.endpoint}/, got {resource_names.shown(path)}",
                    hint="The login is for this endpoint alone.",
                )
            rest = path.removeprefix(self.endpoint)
        resource_names.check_path(rest)

    def public(self, url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """GET a public address; credentials are sent only where it is the endpoint's own.

        Raises:
            AzureError: no answer within seconds, or not a good one.
        """
        if url.startswith(self.endpoint + "/"):
            return self.request("GET", url, params=params)
        from azure.core import PipelineClient
        from azure.core.rest import HttpRequest

        from aksgpu.azure.azure_retry_policy import Retries

        with translated(f"GET {url}"), PipelineClient(url, policies=[Retries()]) as client:
            response = client.send_request(HttpRequest("GET", url, params=dict(params or {})))
            response.raise_for_status()
            return dict(response.json())

    def kubernetes_token(self, scope: str = AKS_SERVER_SCOPE) -> str:
        """A fresh bearer token for clusters with Entra ID."""
        with translated("logging in to the cluster"):
            return str(self.credential.get_token(scope).token)


class KubeconfigTarget(Azure):
    """A kubeconfig in the place of a subscription: its cluster is used as it is, and nothing of Azure is there.

    Attributes:
        kubeconfig: path of the file; its current context names the cluster.
    """

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__("none", _no_credential)
        self.kubeconfig = kubeconfig

    def __repr__(self) -> str:
        return f"KubeconfigTarget({str(self.kubeconfig)!r}, not managed through Azure)"

    @property
    def client(self) -> Any:
        """There is none.

        Raises:
            InvalidInput: always.
        """
        return _no_credential()


def _no_credential() -> Any:
    raise InvalidInput(
        "the target is a kubeconfig, so there is no Azure subscription to ask",
        hint='Use aksgpu.connect("azure") for a subscription, or aksgpu.connect("local") for the laptop AKS.',
    )


@contextmanager
def translated(what: str = "") -> Iterator[None]:
    """Within it, the SDK's exceptions become those of :mod:`aksgpu.errors`; ``what`` begins their message."""
    from azure.core.exceptions import AzureError as SdkError

    try:
        yield
    except SdkError as error:
        from aksgpu.azure import error_parsing

        found = error_parsing.translate(error, what)
        raise found from (None if found.original else error)  # what keeps its original does not show it as well


def translate(error: HttpResponseError) -> AzureError:
    """The SDK's exception as one of :mod:`aksgpu.errors`; raise it ``from`` the original."""
    from aksgpu.azure import error_parsing

    return error_parsing.translate(error)


def follow(poller: Any, what: str, **options: Any) -> Any:
    """Follow a long-running operation to its end; see :func:`aksgpu.azure.operations.follow`."""
    from aksgpu.azure import operations as _operations

    return _operations.follow(poller, what, **options)


def connect(
    target: str | os.PathLike[str] | Endpoint | None = None,
    *,
    subscription_id: str | None = None,
    credential: TokenCredential | None = None,
) -> Azure:
    """Connect to the laptop AKS, to an Azure subscription, or to the cluster of a kubeconfig.

    Args:
        target: ``"local"`` is the laptop AKS, which costs nothing and is started when it does not run; ``"azure"`` is
            Azure; the path of a kubeconfig is the cluster of its current context, which is used as it is: nothing is
            created or deleted there. An :class:`aksgpu.local.Endpoint` is a private laptop AKS. None takes the
            environment variable ``AKSGPU_TARGET``, and the laptop without that: Azure is never chosen by default.
        subscription_id: of Azure; else the environment variable ``AZURE_SUBSCRIPTION_ID``, else the only one that the
            login sees.
        credential: of Azure; any credential of ``azure-identity``, by default ``DefaultAzureCredential`` (which finds
            ``az login``, among others).

    Returns:
        The subscription.

    Raises:
        InvalidInput: an unknown target, or several subscriptions to choose from; the error lists them.
        AzureAuthError: no login was found.
        LaptopError: the laptop AKS could not be started.

    Example:
        >>> azure = aksgpu.connect()
        >>> aks = cluster.create(azure, "myAKSCluster", resource_group="myResourceGroup", location="eastus")
    """
    target = target if target is not None else os.environ.get("AKSGPU_TARGET") or "local"
    if target == "azure":
        subscription = subscription_id or os.environ.get("AZURE_SUBSCRIPTION_ID") or _UNKNOWN
        azure = Azure(subscription, default_credential if credential is None else lambda: credential)
        return azure if subscription != _UNKNOWN else _with_only_subscription(azure)
    if isinstance(target, str | os.PathLike):
        if subscription_id is not None or credential is not None:
            argument = "subscription_id" if subscription_id is not None else "credential"
            raise InvalidInput(
                f"`{argument}` must be given with the target 'azure', got the target {os.fspath(target)!r}",
                hint='Connect to Azure: azure = aksgpu.connect("azure", subscription_id=...).',
            )
        if target != "local":
            return _kubeconfig_target(target)
        from aksgpu import local

        target = local.start()
    if not hasattr(target, "base_url"):
        raise _unknown(target)
    return _at(target, subscription_id, credential)


def _kubeconfig_target(target: str | os.PathLike[str]) -> KubeconfigTarget:
    path = Path(target).expanduser()
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long, or with a null byte
        is_file = False
    if not is_file:
        raise _unknown(target)
    return KubeconfigTarget(path)


def _unknown(target: object) -> InvalidInput:
    return InvalidInput(
        f"`target` must be 'local', 'azure' or the path of a kubeconfig, got {resource_names.shown(target)}",
        hint='aksgpu.connect("local") is the laptop AKS, aksgpu.connect("azure") an Azure subscription.',
    )


def _at(endpoint: Endpoint, subscription_id: str | None, credential: TokenCredential | None) -> Azure:
    base = endpoint.base_url.rstrip("/")
    return Azure(
        subscription_id or endpoint.subscription_id,
        lambda: credential or StaticToken(endpoint.token),
        endpoint=base,
        prices_url=f"{base}/api/retail/prices",
        ca_file=endpoint.ca_file,
        home=Path(endpoint.home),
    )


def default_credential() -> TokenCredential:
    """The login of this machine, such as that of ``az login``."""
    from azure.identity import DefaultAzureCredential

    # Without a login it logs what its error says as well, which Python writes to stderr where nobody set up logging.
    logger = logging.getLogger("azure.identity")
    if not logger.hasHandlers():
        logger.addHandler(logging.NullHandler())
    return DefaultAzureCredential()


def _with_only_subscription(azure: Azure) -> Azure:
    found = list(azure.pages("/subscriptions", api_version=_SUBSCRIPTIONS_API, what="listing subscriptions"))
    if not found:
        raise AzureNotFound(
            "this login sees no subscription", hint="Log in to the right tenant: `az login --tenant TENANT`."
        )
    if len(found) > 1:
        listed = "\n".join(f"  {item['subscriptionId']}  {item.get('displayName', '')}" for item in found)
        raise InvalidInput(
            f"this login sees {len(found)} subscriptions:\n{listed}",
            hint='Choose one: azure = aksgpu.connect("azure", subscription_id=...), or set AZURE_SUBSCRIPTION_ID.',
        )
    azure.subscription_id = str(found[0]["subscriptionId"])
    azure._client = None
    return azure
