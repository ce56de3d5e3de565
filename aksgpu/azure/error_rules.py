"""The texts and codes of Azure's refusals, with one rule per failure.

A rule gets one :class:`~aksgpu.azure.refusal.Refusal` and returns the exception for it, without a message, or None if
the refusal is about something else. Quotas, sizes, networks, pools and the set-up of nodes have modules of their own.
The other rules are here. Only :mod:`aksgpu.azure.error_parsing` calls the rules: it takes bodies apart and adds the
message.
"""

from __future__ import annotations

import re

from aksgpu import errors
from aksgpu.azure.network_rules import address_rule, in_use_rule, network_rule, subnet_rule
from aksgpu.azure.node_setup_rules import node_setup_rule
from aksgpu.azure.pool_rules import argument_of, field_rule, pool_change_rule, version_rule
from aksgpu.azure.quota_rules import count_limit_rule, quota_code_rule, quota_rule
from aksgpu.azure.refusal import FORBIDDEN, LOGIN, Refusal, Rule, shell
from aksgpu.azure.size_rules import allocation_rule, disk_rule, location_rule, size_rule, spot_rule, zone_rule
from aksgpu.errors import AzureError

__all__ = ["RULES"]


# Operations and states

_OPERATIONS = [
    re.compile(r"Another (?:agentpool )?operation \((?P<operation>[^()]{0,100})\)", re.I),
    re.compile(r"there's an in progress (?P<operation>[\w ]{1,60}?) operation", re.I),
    re.compile(r"is in Provisioning State\((?P<operation>[\w ]{1,40})\) and Power State", re.I),
    re.compile(
        r"Unable to perform '\w{1,40}' operation on '[^']{1,80}' since (?P<operation>\w{1,40}) was issued", re.I
    ),
]
_BUSY_CODES = {"anotheroperationinprogress", "conflictingoperationinprogress", "operationinprogress"}
_BUSY_TEXT = re.compile(
    r"aks-pending-operation|another operation (?:on this or dependent resource )?is in progress", re.I
)
_ENDED = ("succeeded", "failed", "canceled")
"""Provisioning states in which no operation runs."""


def _busy(refusal: Refusal) -> AzureError | None:
    text = refusal.message
    found = next((match for pattern in _OPERATIONS if (match := pattern.search(text))), None)
    operation = found["operation"] if found else ""
    if operation.lower() in _ENDED:
        return None
    if not found and refusal.code.lower() not in _BUSY_CODES and not _BUSY_TEXT.search(text):
        return None
    return errors.OperationInProgress(
        "",
        hint=(
            "Wait until it has ended, then run the cell again. AKS runs one operation per cluster at a time. "
            "cluster.abort(aks) aborts it." + shell("az aks operation-abort --resource-group GROUP --name CLUSTER")
        ),
        operation=operation,
    )


_STOPPED = re.compile(r"\bstopped\b|is not currently running", re.I)


def _stopped(refusal: Refusal) -> AzureError | None:
    if refusal.code != "OperationNotAllowed" or not _STOPPED.search(refusal.message):
        return None
    return errors.AzureConflict(
        "",
        hint=(
            "Start it first, with cluster.start(aks) or cluster.start_pool(aks, pool)."
            + shell("az aks start --resource-group GROUP --name CLUSTER")
        ),
    )


def _autoscaler_and_nap(refusal: Refusal) -> AzureError | None:
    text = refusal.message
    if "nodeProvisioningProfile" not in text or "enableAutoScaling" not in text:
        return None
    hint = (
        "Node auto-provisioning and the cluster autoscaler exclude each other. Omit min_count and max_count, or let "
        "node auto-provisioning add the GPU nodes." + shell("az aks show --resource-group GROUP --name CLUSTER")
    )
    return errors.AzureConflict("", hint=hint)


_SYSTEM_POOL = re.compile(r"at least one system (?:agent )?pool", re.I)


def _last_system_pool(refusal: Refusal) -> AzureError | None:
    if not _SYSTEM_POOL.search(refusal.message):
        return None
    hint = "A cluster needs a system pool. Add another one first, or delete the cluster with cluster.delete(aks)."
    return errors.AzureConflict("", hint=hint)


_ETAG = re.compile(r"original etag not expected|preempted by \w{1,40} operation", re.I)


def _changed(refusal: Refusal) -> AzureError | None:
    if refusal.code == "OriginalEtagNotExpect" or _ETAG.search(refusal.message):
        hint = (
            "Another operation changed the pool or the cluster meanwhile. Wait until it has ended, then run the cell "
            "again: cluster.list_pools(aks) shows the state of each pool."
            + shell("az aks nodepool list --resource-group GROUP --cluster-name CLUSTER --output table")
        )
        return errors.ResourceChanged("", hint=hint)
    if refusal.http_status != 412 and refusal.code != "PreconditionFailed":
        return None
    return errors.ResourceChanged("", hint="Read the resource again, then repeat the change.")


def _locked(refusal: Refusal) -> AzureError | None:
    if refusal.code != "ScopeLocked" and "following scope(s) are locked" not in refusal.message:
        return None
    hint = "Remove the lock, or ask its owner to do so."
    return errors.AzureConflict("", hint=hint + shell("az lock list --output table"))


# Permissions and the subscription

_DISABLED_CODES = {"readonlydisabledsubscription", "disabledsubscription", "subscriptiondisabled", "billingdisabled"}
_DISABLED = re.compile(
    r"subscription .{0,80}?(?:is disabled|is not enabled|has been disabled|is in state '?Disabled)"
    r"|until it is re-enabled",
    re.I | re.S,
)


def _disabled_subscription(refusal: Refusal) -> AzureError | None:
    if refusal.code.lower() not in _DISABLED_CODES and not _DISABLED.search(refusal.message):
        return None
    hint = (
        "Re-enable the subscription in the Azure portal (remove the spending limit, or update the payment method), or "
        'choose another one: azure = aksgpu.connect("azure", subscription_id=...).'
    )
    return errors.SubscriptionDisabled("", hint=hint + shell("az account list --all --output table"))


def _local_accounts(refusal: Refusal) -> AzureError | None:
    if "disable local accounts" not in refusal.message:
        return None
    return errors.LocalAccountsDisabled(
        "",
        hint="Use the user credentials, cluster.kubeconfig(aks) without admin=True. Their token comes from Entra ID.",
    )


_ACTION = re.compile(
    r"(?:not have (?:authorization|permission)|required permissions?).{0,40}?"
    r" perform action '(?P<action>[\w./*]{1,200})'"
    r"(?: (?:over|on the linked|on) scopes?(?:\(s\))? '(?P<scope>[^']{1,600})')?",
    re.I | re.S,
)
_MISSING_ROLE_CODES = {
    "authorizationfailed",
    "linkedauthorizationfailed",
    "customroutetablemissingpermission",
    "customroutetablemissingpermissions",
    "customprivatednszonemissingpermission",
    "customprivatednszonemissingpermissionerror",
}


def _missing_role(refusal: Refusal) -> AzureError | None:
    found = _ACTION.search(refusal.message)
    if not found and refusal.code.lower() not in _MISSING_ROLE_CODES:
        return None
    action = found["action"] if found else ""
    scope = (found["scope"] if found else None) or "SCOPE"
    network = "Microsoft.Network/" in action or refusal.code.lower().startswith("custom")
    role = "Network Contributor" if network else "Contributor"
    what = f" for {action}" if action else ""
    hint = (
        f"Ask the owner for a role{what}, such as {role}, or choose another subscription: "
        'azure = aksgpu.connect("azure", subscription_id=...).'
        + shell(f'az role assignment create --assignee PRINCIPAL --role "{role}" --scope {scope}')
    )
    return errors.AzureAuthError("", hint=hint)


_LINKED = re.compile(
    r"current tenant '[^']{0,80}' is not authorized to access linked subscription '(?P<subscription>[^']{0,80})'", re.I
)


def _linked_subscription(refusal: Refusal) -> AzureError | None:
    found = _LINKED.search(refusal.message)
    if not found:
        return None
    hint = (
        f"The request names a resource of the subscription {found['subscription']}, to which the login's tenant has no "
        "access. Pass only ids of the cluster's own subscription, or of one in the same tenant."
    )
    return errors.AzureAuthError("", hint=hint + shell("az account list --all --output table"))


_SECRET = re.compile(r"AADSTS7000(?:222|215)|client secret (?:keys? )?.{0,40}(?:expired|invalid)", re.I)


def _service_principal(refusal: Refusal) -> AzureError | None:
    by_code = refusal.code in ("InvalidClientSecret", "ServicePrincipalValidationClientError")
    if not by_code and not _SECRET.search(refusal.message):
        return None
    hint = (
        "The secret of the cluster's service principal is wrong or has expired. Make a new one and give it to the "
        "cluster, or let the cluster use a managed identity."
    )
    return errors.AzureAuthError(
        "", hint=hint + shell("az aks update --resource-group GROUP --name CLUSTER --enable-managed-identity")
    )


_IDENTITY = re.compile(
    r"userAssignedIdentities/[^'\s]{1,200}'? (?:was not found|could not be found|does not exist)", re.I
)


def _identity(refusal: Refusal) -> AzureError | None:
    if not _IDENTITY.search(refusal.message):
        return None
    hint = (
        "The managed identity that the cluster uses no longer exists. Create it again with the same name and "
        "roles, or give the cluster another one."
    )
    command = "az aks update --resource-group GROUP --name CLUSTER --enable-managed-identity --assign-identity IDENTITY"
    return errors.AzureNotFound("", hint=hint + shell(command))


_KEY_VAULT_CODES = {"keyvaultaccessforbidden", "keyvaultkeyaccessforbidden"}
_KEY_VAULT = re.compile(r"Unable to access key vault resource|unwrap key permissions to disk encryption set", re.I)


def _disk_encryption(refusal: Refusal) -> AzureError | None:
    if refusal.code.lower() not in _KEY_VAULT_CODES and not _KEY_VAULT.search(refusal.message):
        return None
    hint = (
        "Let the disk encryption set use the key: give its identity the role Key Vault Crypto Service Encryption User "
        "on the key vault. The vault's firewall must allow trusted Microsoft services."
    )
    role = '"Key Vault Crypto Service Encryption User"'
    return errors.AzureAuthError(
        "", hint=hint + shell(f"az role assignment create --assignee PRINCIPAL --role {role} --scope SCOPE")
    )


_TENANT = re.compile(r"must match the tenant 'https://sts\.windows\.net/(?P<tenant>[\w-]{1,80})/?'", re.I)


def _tenant(refusal: Refusal) -> AzureError | None:
    found = _TENANT.search(refusal.message)
    if not found:
        return None
    hint = "The login is not for the subscription's tenant. Log in to that tenant."
    return errors.AzureAuthError("", hint=hint + shell(f"az login --tenant {found['tenant']}"))


_PROVIDER = re.compile(r"not registered to use namespace '(?P<provider>[\w.]{1,80})'", re.I)
_PROVIDER_CODES = (
    "missingsubscriptionregistration",
    "subscriptionnotregistered",
    "subscriptionnotregisteredwithaks",
)
_FEATURE = re.compile(
    r"\bfeature '?(?:(?P<provider>Microsoft\.\w{1,60})/)?(?P<feature>\w{1,80})'? is not (?:enabled|registered|allowed)"
    r"|Preview feature (?P<named>Microsoft\.\w{1,60}/\w{1,80}) not registered"
    r"|'(?P<quoted>Microsoft\.\w{1,60}/\w{1,80})' feature is not (?:enabled|registered)",
    re.I,
)


def _feature(refusal: Refusal) -> AzureError | None:
    found = _FEATURE.search(refusal.message)
    if not found:
        return None
    named = (found["named"] or found["quoted"] or "").rpartition("/")
    provider = found["provider"] or named[0] or _AKS
    feature = found["feature"] or named[2]
    hint = f"Register the feature, wait until it is Registered, then register the provider {provider} again."
    register = f"az feature register --namespace {provider} --name {feature}"
    return errors.FeatureNotRegistered("", hint=hint + shell(register), provider=provider, feature=feature)


_AKS = "Microsoft.ContainerService"
"""AKS' resource provider."""


def _provider(refusal: Refusal) -> AzureError | None:
    found = _PROVIDER.search(refusal.message)
    by_code = refusal.code.lower() in _PROVIDER_CODES
    if not found and not by_code and "subscription is not registered" not in refusal.message.lower():
        return None
    provider = found["provider"] if found else _AKS
    return errors.ProviderNotRegistered(
        "",
        hint=(
            "Register the provider once for the subscription, then run the cell again."
            + shell(f"az provider register --namespace {provider} --wait")
        ),
        provider=provider,
    )


_POLICY = re.compile(
    r'policy(?:Assignment|Definition)\\?"\s{0,3}:\s{0,3}\{\s{0,3}\\?"name\\?"\s{0,3}:\s{0,3}\\?"(?P<name>[^"\\]{1,200})'
)
_POLICY_NAMES = re.compile(r"Policy identifiers: '(?P<names>[^'\[{]{1,400})'")


def _policy(refusal: Refusal) -> AzureError | None:
    if refusal.code != "RequestDisallowedByPolicy" and "was disallowed by policy" not in refusal.message:
        return None
    names = [found["name"] for found in _POLICY.finditer(refusal.message)]
    listed = _POLICY_NAMES.search(refusal.message)
    if listed:
        names += [name.strip() for name in listed["names"].split(",")]
    policies = tuple(dict.fromkeys(names))
    which = f" ({', '.join(policies)})" if policies else ""
    hint = (
        f"Change what the policy{which} forbids (often tags, locations or sizes), or ask the owner of the policy for "
        "an exemption." + shell("az policy assignment list --output table")
    )
    return errors.PolicyDenied("", hint=hint, policies=policies)


# Requests

_SUBNET_REFERENCE_CODES = {"invalidresourcereference", "linkedinvalidpropertyid"}


def _subnet_reference(refusal: Refusal) -> AzureError | None:
    about_subnet = "/subnets/" in refusal.message or "vnetSubnetID" in refusal.message
    if refusal.code.lower() not in _SUBNET_REFERENCE_CODES or not about_subnet:
        return None
    hint = (
        "The subnet does not exist, or vnet_subnet_id is not its whole id. Pass the id of a subnet in the region of "
        "the cluster. The id begins with /subscriptions/."
    )
    command = 'az network vnet subnet list --resource-group GROUP --vnet-name VNET --query "[].id" --output tsv'
    return errors.InvalidParameter("", hint=hint + shell(command), parameter="agentPoolProfile.vnetSubnetID")


_TRUSTED_LAUNCH = re.compile(
    r"VM size '(?P<size>\w{1,60})' is not supported for creation of .{1,80}'TrustedLaunch'", re.I
)


def _trusted_launch(refusal: Refusal) -> AzureError | None:
    found = _TRUSTED_LAUNCH.search(refusal.message)
    if not found:
        return None
    hint = (
        "This size has no trusted launch (secure boot and vTPM). Choose a newer one from sizes.gpu_sizes(azure, "
        "location), or create the pool without trusted launch."
    )
    command = "az vm list-skus --location LOCATION --size Standard_N --output table"
    return errors.SizeNotAvailable("", hint=hint + shell(command), vm_size=found["size"])


_SECONDS = re.compile(r"(?:retry|try) again (?:in|after) '?(?P<seconds>\d{1,9})'? seconds", re.I)
_MINUTES = re.compile(r"try again after '?(?P<minutes>\d{1,6})'? minutes?", re.I)
_THROTTLED_CODES = {
    "throttled",
    "toomanyrequests",
    "toomanyrequestsreceived",
    "subscriptionrequeststhrottled",
    "resourcerequeststhrottled",
    "aksrequeststhrottled",
    "requeststhrottled",
}


def _throttled(refusal: Refusal) -> AzureError | None:
    if refusal.http_status != 429 and refusal.code.lower() not in _THROTTLED_CODES:
        return None
    retry_after = None
    seconds = _SECONDS.search(refusal.message)
    minutes = _MINUTES.search(refusal.message)
    if seconds:
        retry_after = float(seconds["seconds"])
    elif minutes:
        retry_after = 60.0 * int(minutes["minutes"])
    pause = f"{retry_after:g} seconds" if retry_after else "a minute"
    return errors.Throttled("", hint=f"Wait {pause}, then run the cell again.", retry_after=retry_after)


def _node_resource_group(refusal: Refusal) -> AzureError | None:
    if not refusal.code.startswith("NodeResourceGroup"):
        return None
    if refusal.code.endswith("AlreadyExists"):
        return errors.AzureConflict("", hint="Choose another node resource group, or delete the existing one first.")
    return errors.InvalidParameter("", hint="Choose another node resource group.", parameter="nodeResourceGroup")


_PARAMETER = re.compile(
    r"parameter ([\w.]{1,100}) is (?:invalid|missing)|^(\S{1,100}) is invalid|property '([\w.]{1,100})' is not allowed"
    r"|^([\w.]{1,100}) was \d{1,9}\. It must be",
    re.I,
)
_FIXED = re.compile(r"Changing property '[\w.]{1,100}' is not allowed", re.I)
_PARAMETER_CODES = {"InvalidParameter", "InvalidResourceGroup", "PropertyChangeNotAllowed"}
_SYSTEM_POOL_SIZE = re.compile(r"System node pool must use VM sku with more than", re.I)


def _invalid_parameter(refusal: Refusal) -> AzureError | None:
    if _SYSTEM_POOL_SIZE.search(refusal.message):
        hint = "Choose a larger size for the system pool, such as Standard_D2s_v5." + shell(
            "az vm list-skus --location LOCATION --size Standard_D --output table"
        )
        return errors.InvalidParameter("", hint=hint, parameter="agentPoolProfile.vmSize")
    invalid = "is invalid" in refusal.message and ("name" in refusal.message or "parameter" in refusal.message)
    fixed = refusal.code == "PropertyChangeNotAllowed" or _FIXED.search(refusal.message) is not None
    if not invalid and not fixed and refusal.code not in _PARAMETER_CODES:
        return None
    found = _PARAMETER.search(refusal.message)
    parameter = next((group for group in found.groups() if group), "") if found else ""
    argument = argument_of(parameter)
    value = f"the value of {argument}" if argument else "the value"
    hint = f"Correct {value}, then run the cell again."
    if fixed:
        hint = (
            "The field of an existing pool cannot be changed. Add a pool with another name, or delete the pool first: "
            'cluster.delete_pool(aks, "gpunp").'
        )
    return errors.InvalidParameter("", hint=hint, parameter=parameter)


_WORKSPACE = re.compile(r"Unable to (?:get|retrieve) log analytics workspace", re.I)


def _workspace(refusal: Refusal) -> AzureError | None:
    if not _WORKSPACE.search(refusal.message):
        return None
    hint = (
        "The workspace of the cluster's monitoring was deleted. Turn monitoring off, or create the workspace again "
        "under the same name."
    )
    command = "az aks disable-addons --addons monitoring --resource-group GROUP --name CLUSTER"
    return errors.AzureNotFound("", hint=hint + shell(command))


_DRAIN = re.compile(r"violate the pod's disruption budget|Pod Disruption Budget \(PDB\)", re.I)


def _drain(refusal: Refusal) -> AzureError | None:
    if refusal.code not in ("PodDrainFailure", "UnsatisfiablePDB") and not _DRAIN.search(refusal.message):
        return None
    hint = (
        "A PodDisruptionBudget keeps pods on a node that is to be drained. Let it allow one disruption, or delete the "
        "pods that the message names, then run the cell again."
    )
    return errors.AzureConflict("", hint=hint + shell("kubectl get poddisruptionbudgets --all-namespaces"))


# By code and by status

_VERSION = "Omit kubernetes_version for the default, or choose one that AKS offers." + shell(
    "az aks get-versions --location LOCATION --output table"
)
_ABORTED = "The operation was aborted. Run the cell again to start a new one."
_CODES: dict[str, tuple[type[AzureError], str]] = {
    "InvalidAuthenticationToken": (errors.AzureAuthError, LOGIN),
    "ExpiredAuthenticationToken": (errors.AzureAuthError, LOGIN),
    "AuthenticationFailed": (errors.AzureAuthError, LOGIN),
    "InvalidAuthenticationTokenTenant": (errors.AzureAuthError, LOGIN),
    "RequestDisallowedByAzure": (errors.LocationNotAvailable, "Choose another location."),
    "K8sVersionNotSupported": (errors.VersionNotSupported, _VERSION),
    "AgentPoolK8sVersionNotSupported": (errors.VersionNotSupported, _VERSION),
    "SubscriptionNotFound": (
        errors.AzureNotFound,
        "Check the id of the subscription, and whether your login has access to it."
        + shell("az account list --output table"),
    ),
    "ResourceGroupNotFound": (errors.AzureNotFound, "Check the name. cluster.list(azure) lists the clusters."),
    "OperationPreempted": (errors.OperationCanceled, "A later operation replaced it. Run the cell again."),
    "OperationCanceled": (errors.OperationCanceled, _ABORTED),
    "Canceled": (errors.OperationCanceled, _ABORTED),
}


_VERSION_TEXT = re.compile(r"Version [\d.]{1,12} is not supported in this region", re.I)


def _by_code(refusal: Refusal) -> AzureError | None:
    if refusal.code not in _CODES:
        return errors.VersionNotSupported("", hint=_VERSION) if _VERSION_TEXT.search(refusal.message) else None
    kind, hint = _CODES[refusal.code]
    return kind("", hint=hint)


def _by_status(refusal: Refusal) -> AzureError | None:
    match refusal.http_status:
        case 401:
            return errors.AzureAuthError("", hint=LOGIN)
        case 403:
            return errors.AzureAuthError("", hint=FORBIDDEN)
        case 404:
            return errors.AzureNotFound("", hint="Check the names. cluster.list(azure) lists the clusters.")
        case 409:
            return errors.AzureConflict("", hint="Check the state with cluster.list(azure), then run the cell again.")
    return None


RULES: tuple[Rule, ...] = (
    quota_rule,
    count_limit_rule,
    subnet_rule,
    in_use_rule,
    _disabled_subscription,
    _autoscaler_and_nap,
    version_rule,
    pool_change_rule,
    field_rule,
    _busy,
    _stopped,
    _local_accounts,
    spot_rule,
    zone_rule,
    allocation_rule,
    location_rule,
    disk_rule,
    size_rule,
    node_setup_rule,
    network_rule,
    address_rule,
    quota_code_rule,
    _throttled,
    _trusted_launch,
    _subnet_reference,
    _feature,
    _provider,
    _policy,
    _linked_subscription,
    _missing_role,
    _tenant,
    _service_principal,
    _identity,
    _disk_encryption,
    _locked,
    _last_system_pool,
    _drain,
    _workspace,
    _changed,
    _node_resource_group,
    _by_code,
    _invalid_parameter,
    _by_status,
)
"""The rules, in the order in which they are tried: exact texts first, then codes, and the HTTP status last."""
