"""The connection to Azure: a subscription, reached through Azure Resource Manager.

:func:`connect` returns an :class:`Azure`, the first argument of most functions of :mod:`aksgpu.cluster` and
:mod:`aksgpu.sizes`. All requests use the official ``azure-mgmt-containerservice`` client. Requests for which
it has no method (resource groups, quota, VM sizes) use its ``send_request``. Prices are public and are read without
credentials.

The Azure SDK takes about a second to load. It is imported inside functions, so that connecting does not load it.
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
from aksgpu.common.arguments import shown
from aksgpu.common.home import home as user_home
from aksgpu.errors import AzureNotFound, InvalidInput

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

    from aksgpu.local import Endpoint

__all__ = [
    "AKS_SERVER_SCOPE",
    "Azure",
    "KubeconfigTarget",
    "StaticToken",
    "connect",
    "default_credential",
    "follow",
    "translated",
]

PUBLIC_CLOUD = "https://management.azure.com"
RETAIL_PRICES = "https://prices.azure.com/api/retail/prices"
AKS_SERVER_SCOPE = "6dae42f8-4368-4678-94ff-3960e28e3630/.default"
"""The scope of tokens that AKS clusters with Entra ID accept. It has the id of Azure's AKS server application."""

_SUBSCRIPTIONS_API = "2022-12-01"

_UNKNOWN = "unknown"
"""Placeholder for the subscription's id: the client requires one, but listing the subscriptions does not use it."""

_POLL_INTERVAL = 10.0
"""Seconds between two polls of an operation if Azure does not specify an interval, which is rare."""

_NO_EXPIRY = 2**33
"""Expiry of a token that does not expire, in seconds since 1970."""


class StaticToken:
    """A credential that always returns the same bearer token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Return the token, for any scope."""
        from azure.core.credentials import AccessToken

        return AccessToken(self._token, _NO_EXPIRY)

    def __repr__(self) -> str:
        return "StaticToken(...)"


class Azure:
    """A subscription. :func:`connect` makes one. No request is sent until a method is called.

    Attributes:
        subscription_id: the subscription's id.
        endpoint: address of Resource Manager.
        prices_url: address of the Retail Prices API.
        home: directory for kubeconfigs and running operations.
        price_cache: prices that were read, by location and size. Prices change once a month.
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
        """The login, created on first use."""
        if self._credential is None:
            self._credential = self._make_credential()
        return self._credential

    @property
    def client(self) -> Any:
        """The SDK's ``ContainerServiceClient``, created on first use."""
        if self._client is None:
            from azure.mgmt.containerservice import ContainerServiceClient

            from aksgpu.azure.azure_retry_policy import DeadlineRetryPolicy
            from aksgpu.azure.deadline_transport import DeadlineTransport
            from aksgpu.azure.response_check import ResponseCheck

            self._client = ContainerServiceClient(
                self.credential,
                self.subscription_id,
                base_url=self.endpoint,
                retry_policy=DeadlineRetryPolicy(),
                per_call_policies=[ResponseCheck()],
                transport=DeadlineTransport(**self._transport_options()),
            )
        return self._client

    def _transport_options(self) -> dict[str, Any]:
        if self._ca_file is None:
            return {}
        # An endpoint with its own certificate authority is neither behind the user's proxy nor in REQUESTS_CA_BUNDLE.
        return {"connection_verify": str(self._ca_file), "use_env_settings": False}

    def polling(self) -> Any:
        """Return the ``polling=`` argument of ``begin_...`` methods whose operation :func:`follow` follows."""
        from aksgpu.azure.operations import CallerPolling

        return CallerPolling(_POLL_INTERVAL)

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
            path: path from the root, such as ``/subscriptions/.../resourcegroups``, or a URL on the same host.
            api_version: such as ``2021-04-01``; empty if the URL has it.
            body: sent as JSON.
            params: other query parameters.
            what: what is being done; begins the message of an error.

        Returns:
            The JSON of the response; empty if it has no body.

        Raises:
            AzureError: the subclass for the reason.
        """
        response = self._send(method, path, api_version, body, params, what)
        return dict(response.json()) if response.content else {}

    def pages(
        self, path: str, *, api_version: str, params: Mapping[str, str] | None = None, what: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Yield every item of a list that has pages. The arguments and errors are those of :meth:`request`."""
        page = self.request("GET", path, api_version=api_version, params=params, what=what)
        while True:
            yield from page.get("value") or ()
            if not page.get("nextLink"):
                return
            # Only the path is used: another host must not receive the login.
            next_page = urlsplit(str(page["nextLink"]))
            page = self.request("GET", f"{next_page.path}?{next_page.query}", what=what)

    def begin(self, method: str, path: str, *, api_version: str, what: str = "") -> Any:
        """Begin a long-running operation that the SDK has no method for, and return its poller for :func:`follow`."""
        from azure.core.polling import LROPoller

        response = self._send(method, path, api_version, None, None, what, _return_pipeline_response=True)
        # The poller needs the pipeline that signs requests. The generated client has no public attribute for it.
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
        query = dict(params or {})
        if api_version:
            query["api-version"] = api_version
        request = HttpRequest(method, path, params=query, json=dict(body) if body is not None else None)
        with translated(what):
            response = self.client.send_request(request, **options)
            http_response = getattr(response, "http_response", response)
            if http_response.status_code >= 400:
                raise HttpResponseError(response=http_response)
            return response

    def _check_address(self, path: str) -> None:
        """Raise InvalidInput for another host, which must not receive the login, and for an ambiguous path."""
        rest = path
        if not path.startswith("/"):
            if not path.startswith(self.endpoint + "/"):
                raise InvalidInput(
                    f"`path` must begin with '/' or with {self.endpoint}/, got {shown(path)}",
                    hint="The login is only for this endpoint.",
                )
            rest = path.removeprefix(self.endpoint)
        resource_names.check_path(rest)

    def public(self, url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Send a GET request to a public URL. Credentials are sent only to the endpoint itself.

        Raises:
            AzureError: no usable response arrived in time.
        """
        if url.startswith(self.endpoint + "/"):
            return self.request("GET", url, params=params)
        from azure.core import PipelineClient
        from azure.core.rest import HttpRequest

        from aksgpu.azure.azure_retry_policy import DeadlineRetryPolicy
        from aksgpu.azure.deadline_transport import DeadlineTransport

        client = PipelineClient(url, policies=[DeadlineRetryPolicy()], transport=DeadlineTransport())
        with translated(f"GET {url}"), client:
            response = client.send_request(HttpRequest("GET", url, params=dict(params or {})))
            response.raise_for_status()
            return dict(response.json())

    def kubernetes_token(self, scope: str = AKS_SERVER_SCOPE) -> str:
        """Return a bearer token for clusters with Entra ID."""
        with translated("logging in to the cluster"):
            return str(self.credential.get_token(scope).token)


class KubeconfigTarget(Azure):
    """A kubeconfig instead of a subscription. Its cluster is used unchanged, and no request is sent to Azure.

    Attributes:
        kubeconfig: path of the file. Its current context is the cluster.
    """

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__("none", _no_credential)
        self.kubeconfig = kubeconfig

    def __repr__(self) -> str:
        return f"KubeconfigTarget({str(self.kubeconfig)!r}, not managed through Azure)"

    @property
    def client(self) -> Any:
        """Not available.

        Raises:
            InvalidInput: always.
        """
        return _no_credential()


def _no_credential() -> Any:
    raise InvalidInput(
        "this needs an Azure subscription, but the target is a kubeconfig",
        hint='Use aksgpu.connect("azure") for a subscription, or aksgpu.connect("local") for the laptop AKS.',
    )


@contextmanager
def translated(what: str = "") -> Iterator[None]:
    """Replace the SDK's exceptions in the ``with`` block by those of :mod:`aksgpu.errors`.

    Args:
        what: what is being done; begins the message of an error.
    """
    from azure.core.exceptions import AzureError as SdkError

    try:
        yield
    except SdkError as error:
        from aksgpu.azure import sdk_errors

        found = sdk_errors.translate(error, what)
        raise found from (None if found.original else error)  # the error already shows its original


def follow(poller: Any, what: str, **options: Any) -> Any:
    """Follow a long-running operation until it ends; see :func:`aksgpu.azure.operations.follow`."""
    from aksgpu.azure import operations

    return operations.follow(poller, what, **options)


def connect(
    target: str | os.PathLike[str] | Endpoint | None = None,
    *,
    subscription_id: str | None = None,
    credential: TokenCredential | None = None,
) -> Azure:
    """Connect to the laptop AKS, to an Azure subscription, or to the cluster of a kubeconfig.

    Args:
        target: ``"local"`` for the laptop AKS, which costs nothing and is started if it does not run; ``"azure"`` for
            Azure; or the path of a kubeconfig, to use the cluster of its current context without creating or deleting
            anything. An :class:`aksgpu.local.Endpoint` is a private laptop AKS. None uses the environment variable
            ``AKSGPU_TARGET``, or the laptop AKS if the variable is not set. Azure is never the default.
        subscription_id: id of the Azure subscription. By default the environment variable ``AZURE_SUBSCRIPTION_ID``, or
            the only subscription of the login.
        credential: a credential of ``azure-identity`` for Azure. By default ``DefaultAzureCredential``, which uses the
            login of ``az login``, among others.

    Returns:
        The subscription.

    Raises:
        InvalidInput: the target is unknown, or the login has several subscriptions; the error lists them.
        AzureAuthError: no login was found.
        LaptopError: the laptop AKS could not be started.

    Example:
        >>> azure = aksgpu.connect()
        >>> aks = cluster.create(azure, "myAKSCluster", resource_group="myResourceGroup", location="eastus")
    """
    target = target if target is not None else os.environ.get("AKSGPU_TARGET") or "local"
    if target == "azure":
        subscription = subscription_id or os.environ.get("AZURE_SUBSCRIPTION_ID") or _UNKNOWN
        make_credential = default_credential if credential is None else lambda: credential
        azure = Azure(subscription, make_credential)
        if subscription == _UNKNOWN:
            _choose_only_subscription(azure)
        return azure
    if isinstance(target, str | os.PathLike):
        if subscription_id is not None or credential is not None:
            argument = "subscription_id" if subscription_id is not None else "credential"
            raise InvalidInput(
                f"`{argument}` must be used with the target 'azure', got the target {os.fspath(target)!r}",
                hint='Connect to Azure: azure = aksgpu.connect("azure", subscription_id=...).',
            )
        if target != "local":
            return _kubeconfig_target(target)
        from aksgpu import local

        target = local.start()
    if not hasattr(target, "base_url"):
        raise _unknown_target(target)
    return _at_endpoint(target, subscription_id, credential)


def _kubeconfig_target(target: str | os.PathLike[str]) -> KubeconfigTarget:
    path = Path(target).expanduser()
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # the path is too long or has a null byte
        is_file = False
    if not is_file:
        raise _unknown_target(target)
    return KubeconfigTarget(path)


def _unknown_target(target: object) -> InvalidInput:
    return InvalidInput(
        f"`target` must be 'local', 'azure' or the path of a kubeconfig, got {shown(target)}",
        hint='Use aksgpu.connect("local") for the laptop AKS, or aksgpu.connect("azure") for Azure.',
    )


def _at_endpoint(endpoint: Endpoint, subscription_id: str | None, credential: TokenCredential | None) -> Azure:
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
    """Return the login of this machine, such as that of ``az login``.

    Its requests for tokens end when the time of the call is up.
    """
    from azure.identity import DefaultAzureCredential

    from aksgpu.azure.deadline_transport import DeadlineTransport

    # Without a login, azure-identity logs the text of its exception too, and Python prints it if logging is not set up.
    logger = logging.getLogger("azure.identity")
    if not logger.hasHandlers():
        logger.addHandler(logging.NullHandler())
    return DefaultAzureCredential(transport=DeadlineTransport())


def _choose_only_subscription(azure: Azure) -> None:
    """Set the subscription of a login that has only one."""
    found = list(azure.pages("/subscriptions", api_version=_SUBSCRIPTIONS_API, what="listing subscriptions"))
    if not found:
        raise AzureNotFound(
            "this login has no subscriptions", hint="Log in to the right tenant: `az login --tenant TENANT`."
        )
    if len(found) > 1:
        listed = "\n".join(f"  {item['subscriptionId']}  {item.get('displayName', '')}" for item in found)
        raise InvalidInput(
            f"this login has {len(found)} subscriptions:\n{listed}",
            hint='Choose one with aksgpu.connect("azure", subscription_id=...), or set AZURE_SUBSCRIPTION_ID.',
        )
    azure.subscription_id = str(found[0]["subscriptionId"])
    azure._client = None
