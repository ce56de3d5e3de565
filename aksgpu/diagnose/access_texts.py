"""Texts of programs about servers that limit, refuse or do not know them: Hugging Face, Azure, and certificates."""

from __future__ import annotations

from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.failure_text import FailureText, Place

__all__ = ["ACCESS_TEXTS"]

_LOG = frozenset({Place.LOG})

ACCESS_TEXTS = (
    FailureText(
        name="Hugging Face limits requests",
        pattern=r"429 Client Error[^\n]{0,200}huggingface\.co|We had to rate limit you",
        verdict="Hugging Face limits the number of requests; the name of the model is not the problem",
        cure=Cure(
            "Wait five minutes. Requests with a token (HF_TOKEN) have a higher limit. With several pods, download the "
            "model once to a volume that all of them mount, set HF_HOME to it, and set HF_HUB_OFFLINE=1 in the "
            "training.",
            edit_job(
                'secret = {"secretKeyRef": {"name": "hf", "key": "token"}}',
                'pod["containers"][0].setdefault("env", []).append({"name": "HF_TOKEN", "valueFrom": secret})',
            ),
            "kubectl create secret generic hf --namespace NAMESPACE --from-literal=token=$HF_TOKEN",
        ),
        places=_LOG,
        example="huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: "
        "https://huggingface.co/api/models/meta-llama/Llama-3.1-8B",
        near_miss="429 files of huggingface.co were downloaded",
        source="https://huggingface.co/docs/hub/rate-limits",
    ),
    FailureText(
        name="Hugging Face has no such model",
        pattern=r"RepositoryNotFoundError: 404|Repository Not Found for url|Entry Not Found for url"
        r"|Revision Not Found for rev|RevisionNotFoundError: 404|EntryNotFoundError: 404"
        r"|is not a local folder and is not a valid model identifier",
        verdict="Hugging Face has no model, data set or file of this name, or it is private",
        cure=Cure(
            "Correct the name, which is OWNER/NAME, or the path of the local copy. If it is private, pass a token that "
            f"may read it as HF_TOKEN; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["args"] = ["--model", "OWNER/NAME"]'),
            EDIT_JOB_SHELL,
        ),
        places=_LOG,
        example="huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. (Request ID: Root=1-6)",
        near_miss="the repository was found in the cache",
        source="https://huggingface.co/docs/huggingface_hub/package_reference/utilities",
    ),
    FailureText(
        name="Hugging Face is used offline",
        pattern=r"outgoing traffic has been disabled|OfflineModeIsEnabled|[Oo]ffline mode is enabled",
        verdict="the program needs a file of Hugging Face that is not in its cache, and is told not to download any",
        cure=Cure(
            "Remove HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE from env, or set HF_HOME to the volume that has the files: "
            f"huggingface-cli download OWNER/NAME fills it; {RUN_AGAIN}",
            edit_job(
                'offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")',
                'env = pod["containers"][0].get("env", [])',
                'pod["containers"][0]["env"] = [each for each in env if each["name"] not in offline]',
            ),
            EDIT_JOB_SHELL,
        ),
        places=_LOG,
        example="LocalEntryNotFoundError: Cannot find the requested files in the disk cache and outgoing traffic has "
        "been disabled.",
        near_miss="the offline evaluation is finished",
        source="https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables",
    ),
    FailureText(
        name="the pod has no identity in Azure",
        pattern=r"No matching federated identity record|AADSTS70021\b|ManagedIdentityCredential authentication"
        r" unavailable|no response from the IMDS endpoint|WorkloadIdentityCredential authentication (?:failed"
        r"|unavailable)|DefaultAzureCredential failed to retrieve a token",
        verdict="the program cannot log in to Azure: the pod has no managed identity, or the identity does not expect "
        "this service account",
        cure=Cure(
            'Use workload identity: the pod needs the label azure.workload.identity/use: "true" and a '
            "serviceAccountName with the annotation azure.workload.identity/client-id. The identity needs a federated "
            f"credential for system:serviceaccount:NAMESPACE:NAME; {RUN_AGAIN}",
            edit_job(
                'labels = manifest["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})',
                'labels["azure.workload.identity/use"] = "true"',
                'pod["serviceAccountName"] = "SERVICE-ACCOUNT"',
            ),
            "az identity federated-credential create --name train --identity-name IDENTITY --resource-group GROUP "
            "--issuer $(az aks show --resource-group GROUP --name CLUSTER --query oidcIssuerProfile.issuerUrl -o tsv) "
            "--subject system:serviceaccount:NAMESPACE:SERVICE-ACCOUNT --audience api://AzureADTokenExchange",
            "Pass the credentials of a service principal to the container: AZURE_TENANT_ID, AZURE_CLIENT_ID and "
            "AZURE_CLIENT_SECRET from a Secret.",
        ),
        places=_LOG,
        example="azure.core.exceptions.ClientAuthenticationError: WorkloadIdentityCredential authentication failed: "
        "AADSTS70021: No matching federated identity record found for presented assertion.",
        near_miss="ManagedIdentityCredential acquired a token",
        source="https://github.com/Azure/azure-workload-identity/issues/340",
    ),
    FailureText(
        name="the identity may not use the storage account",
        pattern=r"ErrorCode:Authorization(?:PermissionMismatch|Failure)|not authorized to perform this operation using "
        r"this permission|This request is not authorized to perform this operation\.",
        verdict="the storage account refuses the program: its identity lacks a role, or the account's network rules "
        "exclude the cluster",
        cure=Cure(
            "Give the identity the role Storage Blob Data Contributor, which takes some minutes. Owner and Contributor "
            "are not enough. With AuthorizationFailure, the account's firewall must allow the cluster's subnet.",
            "",
            'az role assignment create --assignee PRINCIPAL --role "Storage Blob Data Contributor" --scope '
            "$(az storage account show --name ACCOUNT --query id -o tsv)\n"
            "az storage account show --name ACCOUNT --query networkRuleSet.defaultAction",
        ),
        places=_LOG,
        example="azure.core.exceptions.HttpResponseError: This request is not authorized to perform this operation "
        "using this permission.",
        near_miss="the request was authorized",
        source="https://learn.microsoft.com/azure/storage/blobs/assign-azure-role-data-access",
    ),
    FailureText(
        name="a certificate is not trusted",
        pattern=r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SSL certificate problem: "
        r"|unable to get local issuer certificate|server certificate verification failed",
        verdict="the program does not trust the certificate of a server: a proxy or firewall on the way has one of its "
        "own, or the certificates in the image are old",
        cure=Cure(
            "Mount the certificate of the proxy and name its file in REQUESTS_CA_BUNDLE and SSL_CERT_FILE, add it to "
            f"the image (update-ca-certificates), or exempt the server in the firewall; {RUN_AGAIN}",
            edit_job(
                'for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):\n'
                '    variable = {"name": name, "value": "/etc/ssl/certs/proxy.pem"}\n'
                '    pod["containers"][0].setdefault("env", []).append(variable)',
            ),
            EDIT_JOB_SHELL,
        ),
        places=_LOG,
        example="ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed "
        "certificate in certificate chain (_ssl.c:1006)",
        near_miss="the certificate was verified",
        source="https://requests.readthedocs.io/en/latest/user/advanced/#ssl-cert-verification",
    ),
    FailureText(
        name="pip finds no such version",
        pattern=r"Could not find a version that satisfies the requirement (?P<requirement_>\S{1,120}) "
        r"\(from versions: (?!none)",
        verdict="there is no {requirement_} for the image's Python and processor",
        cure=Cure(
            "Name a version that exists for the image's Python. Builds of torch with +cu in their version need "
            f"--index-url https://download.pytorch.org/whl/cu128; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["image"] = "IMAGE-WITH-ANOTHER-PYTHON"'),
            EDIT_JOB_SHELL,
        ),
        places=_LOG,
        example="ERROR: Could not find a version that satisfies the requirement torch==2.9.0+cu130 (from versions: "
        "2.0.0, 2.1.0)",
        near_miss="ERROR: Could not find a version that satisfies the requirement torch (from versions: none)",
        source="https://pytorch.org/get-started/locally/",
    ),
)
"""Servers that programs use. They come before the rows about networks, whose texts are more general."""
