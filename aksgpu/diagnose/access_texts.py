"""Texts of programs about access to servers: Hugging Face, Azure, S3, and certificates."""

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
        verdict="the program needs a file from Hugging Face that is not in its cache, and its offline mode is on",
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
        verdict="the program cannot log in to Azure: the pod has no managed identity, or the identity has no "
        "federated credential for this service account",
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
            "Give the identity the role Storage Blob Data Contributor. It takes effect after some minutes. Owner and "
            "Contributor are not enough. With AuthorizationFailure, the account's firewall must allow the cluster's "
            "subnet.",
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
        name="the key of the storage account is not valid",
        pattern=r"Server failed to authenticate the request|ErrorCode:AuthenticationFailed|Signature did not match",
        verdict="the storage account does not accept the key or the token (SAS) of the program: it is wrong or has "
        "expired",
        cure=Cure(
            "Put a current key or token into the Secret from which the container gets it, or let the pod log in with a "
            f"managed identity; {RUN_AGAIN}",
            "",
            "az storage account keys list --account-name ACCOUNT --output table\n"
            "kubectl create secret generic storage --namespace NAMESPACE --from-literal=key=KEY",
        ),
        places=_LOG,
        example="azure.core.exceptions.ClientAuthenticationError: Server failed to authenticate the request. Make sure "
        "the value of Authorization header is formed correctly including the signature.",
        near_miss="the server authenticated the request",
        source="https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes",
    ),
    FailureText(
        name="the storage account has no such container or file",
        pattern=r"The specified (?:container|blob|path|filesystem|resource|share|file system) does not exist"
        r"|ErrorCode:(?:ContainerNotFound|BlobNotFound|PathNotFound|FilesystemNotFound|ShareNotFound)",
        verdict="the storage account has no container or file with the name that the program uses",
        cure=Cure(
            f"Correct the name of the account, of the container or of the path in args; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["args"] = ["--data", "az://CORRECT-CONTAINER/path"]'),
            "az storage container list --account-name ACCOUNT --auth-mode login --output table\n" + EDIT_JOB_SHELL,
            f"Correct the name of the account, of the container or of the path in args; {RUN_AGAIN}",
        ),
        places=_LOG,
        example="azure.core.exceptions.ResourceNotFoundError: The specified container does not exist.",
        near_miss="the specified container exists",
        source="https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes",
    ),
    FailureText(
        name="the program has no credentials for S3",
        pattern=r"NoCredentialsError|Unable to locate credentials|PartialCredentialsError",
        verdict="the program has no credentials for an S3-compatible store",
        cure=Cure(
            "Create a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and pass it to the container with "
            f"envFrom. A store outside AWS also needs AWS_ENDPOINT_URL; {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("envFrom", []).append({"secretRef": {"name": "s3"}})'),
            "kubectl create secret generic s3 --namespace NAMESPACE --from-literal=AWS_ACCESS_KEY_ID=ID "
            "--from-literal=AWS_SECRET_ACCESS_KEY=KEY",
        ),
        places=_LOG,
        example="botocore.exceptions.NoCredentialsError: Unable to locate credentials",
        near_miss="credentials were located in the environment",
        source="https://docs.aws.amazon.com/boto3/latest/guide/credentials.html",
    ),
    FailureText(
        name="a server has a fault",
        pattern=r"(?P<status_>500|502|503|504) Server Error: |HTTP Error (?P<code_>500|502|503|504): ",
        verdict="a server that the program uses failed (HTTP[ {status_}][ {code_}])",
        cure=Cure(
            "Run it again after some minutes: with backoffLimit above 0 the Job controller does so by itself. Data and "
            "models on a volume make the program independent of the server.",
            'from aksgpu import jobs\njobs.apply(aks, jobs.get(aks, "JOB", namespace="NAMESPACE").manifest(), '
            "replace=True)",
            EDIT_JOB_SHELL,
        ),
        places=_LOG,
        example="huggingface_hub.errors.HfHubHTTPError: 503 Server Error: Service Temporarily Unavailable for url: "
        "https://huggingface.co/api/models/bert-base",
        near_miss="503 files were served",
        source="https://developer.mozilla.org/docs/Web/HTTP/Reference/Status/503",
    ),
    FailureText(
        name="a certificate is not trusted",
        pattern=r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SSL certificate problem: "
        r"|unable to get local issuer certificate|server certificate verification failed",
        verdict="the program does not trust the certificate of a server: a proxy or firewall in between uses its "
        "own certificate, or the certificates in the image are old",
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
