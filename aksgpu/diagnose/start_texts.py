"""Texts of the kubelet, containerd and the API server about pods that do not start, or that a node ends."""

from __future__ import annotations

from aksgpu import errors
from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.failure_text import FailureText, Place

__all__ = [
    "ADMISSION_TEXTS",
    "IMAGE_TEXTS",
    "PULL_WAIT",
    "REFUSED_TEXTS",
    "START_TEXTS",
    "UNMOUNTED_TEXTS",
    "VOLUME_TEXTS",
]

_IMAGES = "https://kubernetes.io/docs/concepts/containers/images/"
_EVICTION = "https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/"
_PULL_PLACES = frozenset({Place.CONTAINER, Place.EVENT})
_START_PLACES = frozenset({Place.CONTAINER, Place.EVENT, Place.POD})
_POD_PLACES = frozenset({Place.POD, Place.EVENT})

PULL_WAIT = Cure(
    "Wait: a GPU image has several GB, and its first pull on a node takes minutes. If it takes longer than half an "
    "hour: kubectl describe pod POD --namespace NAMESPACE.",
    "",
    "kubectl describe pod POD --namespace NAMESPACE",
)
"""What to do while an image is pulled."""

_LARGER_DISK = Cure(
    "Use a pool with a larger OS disk (os_disk_size_gb), or a smaller image; az acr build and multi-stage Dockerfiles "
    "leave build tools out.",
    'from aksgpu import cluster\ncluster.add_gpu_pool(aks, "gpunp2", vm_size="Standard_NC4as_T4_v3", '
    "os_disk_size_gb=256)",
    "az aks nodepool add --resource-group GROUP --cluster-name CLUSTER --name gpunp2 --node-vm-size "
    "Standard_NC4as_T4_v3 --node-osdisk-size 256 --node-taints sku=gpu:NoSchedule",
    "Use a node with a larger disk, or a smaller image.",
)
_MORE_DISK_REQUESTED = Cure(
    "Ask for the disk that the program uses (resources.requests: ephemeral-storage), so that the pod gets a node with "
    "enough of it and is not evicted first; write checkpoints to a volume; or use a pool with a larger OS disk "
    "(os_disk_size_gb).",
    edit_job(
        'pod["containers"][0].setdefault("resources", {}).setdefault("requests", {})["ephemeral-storage"] = "100Gi"',
    ),
    EDIT_JOB_SHELL,
    "Ask for the disk that the program uses (resources.requests: ephemeral-storage), so that the pod gets a node with "
    "enough of it and is not evicted first; or write checkpoints to a volume.",
)
_MORE_MEMORY_REQUESTED = Cure(
    "Ask for the memory that the program uses (resources.requests.memory), so that the pod gets a node with enough "
    f"of it and is not evicted first; {RUN_AGAIN}",
    edit_job('pod["containers"][0].setdefault("resources", {}).setdefault("requests", {})["memory"] = "32Gi"'),
    EDIT_JOB_SHELL,
)

IMAGE_TEXTS = (
    FailureText(
        name="the registry limits pulls",
        pattern=r"toomanyrequests|429 Too Many Requests|pull rate limit|[Rr]ate exceeded|TOOMANYREQUESTS",
        verdict="the registry limits how many images an address may pull; name and tag are not the problem",
        cure=Cure(
            "Log in to the registry with a pull secret (Docker Hub allows more with an account), or copy the image "
            "into your own registry once: az acr import --name REGISTRY --source IMAGE. Kubernetes keeps trying.",
            edit_job('pod["imagePullSecrets"] = [{"name": "docker-hub"}]'),
            "az acr import --name REGISTRY --source IMAGE\n"
            "kubectl create secret docker-registry docker-hub --namespace NAMESPACE --docker-username=NAME "
            "--docker-password=TOKEN",
            "Log in to the registry with a pull secret (Docker Hub allows more with an account), or copy the image "
            "into your own registry once.",
        ),
        places=_PULL_PLACES,
        example="429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit.",
        near_miss="pulled 429 MB in 12 s",
        source="https://docs.docker.com/docker-hub/usage/",
    ),
    FailureText(
        name="the node's disk is too small for the image",
        pattern=r"no space left on device|[Nn]o space left on device|DiskPressure|not enough (?:disk )?space|"
        r"failed to garbage collect required amount of images",
        verdict="the node's disk is full: the image does not fit",
        cure=_LARGER_DISK,
        places=_PULL_PLACES,
        example="failed to extract layer sha256:0: write /var/lib/containerd/x/libcudnn.so.8: no space left on device",
        near_miss="no place left in the queue",
        source="https://learn.microsoft.com/azure/aks/concepts-storage#os-disk-sizing",
    ),
    FailureText(
        name="the registry has no TLS",
        pattern=r"server gave HTTP response to HTTPS client",
        verdict="the registry uses HTTP, and the node expects HTTPS",
        cure=Cure(
            "Give the registry a certificate that the nodes trust, or copy the image into an Azure registry: az acr "
            "import --name REGISTRY --source IMAGE, or docker push. AKS has no setting that lets nodes use HTTP.",
            edit_job('pod["containers"][0]["image"] = "REGISTRY.azurecr.io/NAME:TAG"'),
            "docker tag IMAGE REGISTRY.azurecr.io/NAME:TAG\ndocker push REGISTRY.azurecr.io/NAME:TAG",
            "Give the registry a certificate that the nodes trust, or configure HTTP for it in the node's containerd.",
        ),
        places=_PULL_PLACES,
        example='failed to do request: Head "https://myreg.local/v2/train/manifests/1": http: server gave HTTP '
        "response to HTTPS client",
        near_miss="the server gave a response",
        source="https://github.com/containerd/containerd/blob/main/docs/hosts.md",
    ),
    FailureText(
        name="the registry is not reachable",
        pattern=r"no such host|i/o timeout|connection refused|connection reset by peer|TLS handshake timeout|x509: "
        r"|context deadline exceeded|dial tcp|network is unreachable|no route to host|unexpected EOF|context canceled"
        r"|Client\.Timeout exceeded|request canceled while waiting|proxyconnect|failed to verify certificate|EOF$|"
        r"server misbehaving|50[0234] (?:Internal|Bad Gateway|Service|Gateway)",
        verdict="the node cannot reach the registry",
        cure=Cure(
            "Check the registry's name and the cluster's outbound rules (firewall, user-defined route, private DNS "
            "zone of a private registry): az aks check-acr shows which step fails for an Azure registry. Kubernetes "
            "keeps trying.",
            "",
            "az aks check-acr --name CLUSTER --resource-group GROUP --acr REGISTRY.azurecr.io",
            "Check the registry's name, and whether the node may reach it (firewall, proxy, DNS). Kubernetes keeps "
            "trying.",
        ),
        places=_PULL_PLACES,
        example='failed to do request: Head "https://my.registry/v2/x": dial tcp: lookup my.registry: no such host',
        near_miss="the host is such a good place",
        source="https://learn.microsoft.com/azure/aks/outbound-rules-control-egress",
    ),
    FailureText(
        name="the cluster may not read from the Azure registry",
        pattern=r"azurecr\.(?:io|cn|us)[^\n]{0,400}(?:401|403|[Uu]nauthorized|UNAUTHORIZED|denied|anonymous token|"
        r"[Ff]orbidden)|(?:401|403|[Uu]nauthorized|denied|[Ff]orbidden)[^\n]{0,300}azurecr\.(?:io|cn|us)",
        verdict="the cluster may not read from the Azure container registry, or the registry's firewall refuses the "
        "node",
        cure=Cure(
            "Let the cluster read from the registry: az aks update --name CLUSTER --resource-group GROUP --attach-acr "
            "REGISTRY. If the message says that the client's IP is not allowed, add the cluster's outbound address to "
            "the registry's network rules.",
            "",
            "az aks update --name CLUSTER --resource-group GROUP --attach-acr REGISTRY\n"
            "az aks check-acr --name CLUSTER --resource-group GROUP --acr REGISTRY.azurecr.io",
            "Create a pull secret with a token of the registry, and name it in imagePullSecrets.",
        ),
        places=_PULL_PLACES,
        example='failed to resolve reference "my.azurecr.io/train:1": failed to authorize: failed to fetch anonymous '
        "token: "
        "unexpected status from GET request to https://my.azurecr.io/oauth2/token: 401 Unauthorized",
        near_miss="the server returned 401 Unauthorized for /api/v1/nodes",
        source="https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/extensions/"
        "cannot-pull-image-from-acr-to-aks-cluster",
    ),
    FailureText(
        name="the image has a format that is no longer read",
        pattern=r"media type \"application/vnd\.docker\.distribution\.manifest\.v1|manifest schema (?:version )?1"
        r"|schema1 manifest|unsupported manifest media type",
        verdict="the image has a manifest of the old format (schema 1), which the node's containerd no longer reads",
        cure=Cure(
            "Build and push the image again with a current Docker. If you have no Dockerfile, pull the image with "
            f"Docker 24 or older, and push it under another tag. Or use a newer image; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["image"] = "REGISTRY/NAME:NEW-TAG"'),
            "docker buildx build --push -t REGISTRY/NAME:NEW-TAG .\n" + EDIT_JOB_SHELL,
        ),
        places=_PULL_PLACES,
        example='not implemented: media type "application/vnd.docker.distribution.manifest.v1+prettyjws" is no longer '
        "supported since containerd v2.1",
        near_miss='media type "application/vnd.docker.distribution.manifest.v2+json"',
        source="https://docs.docker.com/engine/deprecated/",
    ),
    FailureText(
        name="the image does not exist in the registry",
        pattern=r"manifest(?: for [^\n]{1,200})? (?:not found|unknown)|manifest unknown|MANIFEST_UNKNOWN|NAME_UNKNOWN"
        r"|: not found(?:$|[\s\"'])|repository [^\n]{1,200} not found|name unknown"
        r"|failed to resolve reference [^\n]{1,300}"
        r"not found",
        verdict="the registry has no such image or tag",
        cure=Cure(
            "Check the image's name and tag, and correct the manifest: az acr repository show-tags --name REGISTRY "
            "--repository NAME lists the tags of an Azure registry.",
            edit_job('pod["containers"][0]["image"] = "REGISTRY/NAME:TAG"'),
            "docker manifest inspect IMAGE",
            "Check the image's name and tag, and correct the manifest: docker manifest inspect IMAGE shows whether it "
            "exists.",
        ),
        places=_PULL_PLACES,
        example='failed to resolve reference "docker.io/library/pytorh:2": docker.io/library/pytorh:2: not found',
        near_miss="the manifest was found",
        source=_IMAGES,
    ),
    FailureText(
        name="the registry asks for a login",
        pattern=r"pull access denied|insufficient_scope|authorization failed|requires? 'docker login'|[Uu]nauthorized"
        r"|UNAUTHORIZED|403 Forbidden|401 Unauthorized|denied: |no basic auth credentials|authentication required"
        r"|failed to fetch (?:anonymous|oauth) token",
        verdict="the registry asks for a login, or has no such image (registries do not say which)",
        cure=Cure(
            "Check the image's name. If it is private, create a pull secret and name it in imagePullSecrets; for an "
            "Azure registry: az aks update --name CLUSTER --resource-group GROUP --attach-acr REGISTRY.",
            edit_job('pod["imagePullSecrets"] = [{"name": "registry-login"}]'),
            "kubectl create secret docker-registry registry-login --namespace NAMESPACE --docker-server=REGISTRY "
            "--docker-username=NAME --docker-password=TOKEN",
            "Check the image's name. If it is private, create a pull secret and name it in imagePullSecrets.",
        ),
        places=_PULL_PLACES,
        example="pull access denied, repository does not exist or may require authorization: server message: "
        "insufficient_scope: authorization failed",
        near_miss="access log of the registry",
        source="https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/",
    ),
    FailureText(
        name="the image's name is not valid",
        pattern=r"invalid reference format|couldn't parse image (?:name|reference)|InvalidImageName"
        r"|repository name must be "
        r"lowercase|[Ff]ailed to apply default image tag",
        verdict="the image's name is not valid",
        cure=Cure(
            "Correct the image's name: REGISTRY/NAME:TAG in lower case, without spaces and without https://.",
            edit_job('pod["containers"][0]["image"] = "REGISTRY/NAME:TAG"'),
            EDIT_JOB_SHELL,
        ),
        places=_START_PLACES,
        example='Failed to apply default image tag "My/Image:1": couldn\'t parse image reference: invalid reference '
        "format",
        near_miss="invalid date format",
        source=_IMAGES,
    ),
    FailureText(
        name="the image may not be pulled",
        pattern=r"ErrImageNeverPull|is not present with pull policy of Never",
        verdict="the image is not on the node, and imagePullPolicy: Never forbids pulling it",
        cure=Cure(
            f"Remove imagePullPolicy: Never from the manifest; {RUN_AGAIN}",
            edit_job('pod["containers"][0].pop("imagePullPolicy", None)'),
            EDIT_JOB_SHELL,
        ),
        places=_START_PLACES,
        example='Container image "train:1" is not present with pull policy of Never',
        near_miss="the policy of pulling images was changed",
        source=_IMAGES + "#image-pull-policy",
    ),
)
"""Image pulls. A registry that is not reachable comes before logins: the text may name the step of the login."""

START_TEXTS = (
    FailureText(
        name="the container's memory limit is too small to start",
        pattern=r"container init was OOM-killed|memory limit too low|cannot set memory limit[^\n]{0,80}below",
        verdict="the container's memory limit is too small to start its program",
        cure=Cure(
            f"Raise resources.limits.memory: write 8Gi, not 8m (m means thousandths); {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("resources", {}).setdefault("limits", {})["memory"] = "8Gi"'),
            EDIT_JOB_SHELL,
        ),
        places=_START_PLACES,
        example="OCI runtime create failed: runc create failed: unable to start container process: container init was "
        "OOM-killed (memory limit too low?): unknown",
        near_miss="container started with memory limit 8Gi",
        source="https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/",
    ),
    FailureText(
        name="a Secret or ConfigMap is missing",
        pattern=r"(?P<kind_>secret|configmap)s? \"(?P<name_>[\w.-]{1,253})\" not found"
        r"|couldn't find key (?P<key_>[\w./-]{1,253}) in "
        r"(?:Secret|ConfigMap)|references non-existent (?:secret|config) key",
        verdict="the pod names something that the namespace does not have[: {kind_}][ '{name_}'][: the key '{key_}']",
        cure=Cure(
            "Create what the message names (a ConfigMap, a Secret, a key in one), or correct the manifest. Kubernetes "
            "keeps trying, so the pod starts once it exists.",
            'aks.kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "NAME", "namespace": '
            '"NAMESPACE"}, '
            '"stringData": {"KEY": "VALUE"}})',
            "kubectl create secret generic NAME --namespace NAMESPACE --from-literal=KEY=VALUE",
        ),
        places=_START_PLACES,
        example='secret "hf-token" not found',
        near_miss='the secret "hf-token" was found',
        source="https://kubernetes.io/docs/concepts/configuration/secret/",
    ),
    FailureText(
        name="the image runs as root and the pod forbids it",
        pattern=r"runAsNonRoot and image (?:will run as root|has non-numeric user)",
        verdict="the pod forbids the user root, and the image runs as root",
        cure=Cure(
            f"Set securityContext.runAsUser to a user other than 0, or build the image with USER; {RUN_AGAIN}",
            edit_job('pod["securityContext"] = {"runAsUser": 1000, "runAsNonRoot": True, "fsGroup": 1000}'),
            EDIT_JOB_SHELL,
        ),
        places=_START_PLACES,
        example="container has runAsNonRoot and image will run as root",
        near_miss="the image runs as user 1000",
        source="https://kubernetes.io/docs/tasks/configure-pod-container/security-context/",
    ),
    FailureText(
        name="the program is not in the image",
        pattern=r"executable file not found|exec: \"[^\"\n]{0,200}\": (?:stat|permission denied|is a directory"
        r"|no such file)"
        r"|exec [^\n:]{1,200}: (?:no such file or directory|permission denied)|starting container process caused: exec"
        r"|no command specified|failed to find the executable|cannot execute|cannot run executable"
        r"|No such file or directory: '/\S{1,200}' *$",
        verdict="the program that command names is not in the image, or cannot be executed",
        cure=Cure(
            f"Correct command and args: the program must be in the image and executable; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["command"] = ["python", "train.py"]'),
            "kubectl run look --rm -it --restart=Never --image=IMAGE --command -- sh\n" + EDIT_JOB_SHELL,
        ),
        places=_START_PLACES,
        example='OCI runtime create failed: exec: "pyhton": executable file not found in $PATH: unknown',
        near_miss="executed file train.py",
        source="https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/",
    ),
    FailureText(
        name="a file is mounted over a directory",
        pattern=r"not a directory[^\n]{0,80}Are you trying to mount a directory onto a file"
        r"|mountpoint[^\n]{0,200}(?:not a directory|"
        r"read-only)|error mounting [^\n]{1,200} to rootfs",
        verdict="a volume is mounted where the image has something else",
        cure=Cure(
            f"Correct mountPath, or mount a single file with subPath; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["volumeMounts"][0]["mountPath"] = "/mnt/data"'),
            EDIT_JOB_SHELL,
        ),
        places=_START_PLACES,
        example='error mounting "/var/lib/kubelet/pods/x" to rootfs at "/etc/config.yaml": not a directory: unknown: '
        "Are you "
        "trying to mount a directory onto a file (or vice-versa)?",
        near_miss="mounted the directory /data",
        source="https://kubernetes.io/docs/concepts/storage/volumes/#using-subpath",
    ),
    FailureText(
        name="a working directory that the user may not use",
        pattern=r"chdir to cwd \(\"?(?P<path_>[^\"()\n]{1,200})\"?\) set in config\.json failed",
        verdict="the container's user may not use its working directory {path_}, or the image does not have it",
        cure=Cure(
            "Set workingDir to a directory that the user may read, or leave runAsUser out; in the Dockerfile: RUN "
            f"chmod 755 DIRECTORY; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["workingDir"] = "/tmp"'),
            EDIT_JOB_SHELL,
        ),
        places=_START_PLACES,
        example='unable to start container process: chdir to cwd ("/workspace") set in config.json failed: permission '
        "denied",
        near_miss='the working directory is "/workspace"',
        source="https://kubernetes.io/docs/tasks/configure-pod-container/security-context/",
    ),
    FailureText(
        name="a user that the image does not have",
        pattern=r"unable to find (?:user|group) (?P<user_>[\w.-]{1,80}): no matching entries",
        verdict="the image has no user {user_}, and the container must run as this user",
        cure=Cure(
            "Correct USER in the Dockerfile (RUN useradd before it), or set securityContext.runAsUser to a number; "
            f"{RUN_AGAIN}",
            edit_job('pod["securityContext"] = {"runAsUser": 1000, "fsGroup": 1000}'),
            EDIT_JOB_SHELL,
        ),
        places=_START_PLACES,
        example="unable to find user trainer: no matching entries in passwd file",
        near_miss="found the user trainer",
        source="https://docs.docker.com/reference/dockerfile/#user",
    ),
    FailureText(
        name="a subPath that cannot be prepared",
        pattern=r"failed to (?:prepare|create) subPath|subPath[^\n]{0,120}(?:no such file|not found|read-only)",
        verdict="the subPath of a mount cannot be prepared in its volume: the volume is read-only, or a file has the "
        "name of the directory",
        cure=Cure(
            "Leave subPath out, or create the directory in the volume. A read-only volume must have it already. If the "
            f"volume is a share whose mount is broken, delete the pod, so that it is mounted again; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["volumeMounts"][0].pop("subPath", None)'),
            EDIT_JOB_SHELL,
        ),
        places=_START_PLACES,
        example='failed to prepare subPath for volumeMount "data" of container "main"',
        near_miss='mounted the subPath "data"',
        source="https://kubernetes.io/docs/concepts/storage/volumes/#using-subpath",
    ),
    FailureText(
        name="the node has no address for the pod",
        pattern=r"(?:failed|Failed) to (?:assign|allocate|request)[^\n]{0,40}(?:IP|address)"
        r"|no (?:more )?(?:available )?IP addresses|"
        r"InsufficientSubnetSize|SubnetFull|[Ss]ubnet[^\n]{0,60}(?:is full|exhausted)|IPsExhausted"
        r"|not enough IPs available"
        r"|No available addresses|failed to allocate for range",
        verdict="the node's subnet has no free address for the pod",
        cure=Cure(
            "Use a larger subnet, or Azure CNI Overlay, whose pods need no address of the subnet: az aks update "
            "--network-plugin-mode overlay. Unused nodes hold addresses too: cluster.scale_pool(aks, 'POOL', count=1).",
            "from aksgpu import cluster\ncluster.list_pools(aks)",
            "az network vnet subnet list --resource-group GROUP --vnet-name VNET -o table\n"
            "az aks update --name CLUSTER --resource-group GROUP --network-plugin-mode overlay",
            "Give the pods' network a larger range.",
        ),
        places=_START_PLACES,
        example='Failed to create pod sandbox: plugin type="azure-vnet" failed (add): Failed to allocate pool: Failed '
        "to "
        "assign an IP address: no more addresses available",
        near_miss="assigned the address 10.0.0.4 to the pod",
        source="https://learn.microsoft.com/azure/aks/concepts-network-ip-address-planning",
    ),
    FailureText(
        name="the node's network is not ready",
        pattern=r"cni plugin not initialized|network plugin (?:is )?not ready|[Uu]nable to connect to Cilium|"
        r"NetworkPluginNotReady|[Cc]ilium(?:-| )?[Aa]gent[^\n]{0,60}not (?:ready|running)|"
        r"plugin type=\"[\w-]{1,40}\" failed \(add\)|failed to set ?up (?:sandbox|network)"
        r"|azure-vnet[^\n]{0,80}timed out",
        verdict="the node's network is not ready for the pod",
        cure=Cure(
            "Wait some minutes if the node is new. If the problem persists, look at the pods of the network in "
            "kube-system on NODE and replace the node: diagnose.node(aks, 'NODE').",
            'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
            "kubectl get pods --namespace kube-system --field-selector spec.nodeName=NODE\nkubectl describe node NODE",
        ),
        places=frozenset({Place.CONTAINER, Place.EVENT, Place.CONDITION}),
        example='Failed to create pod sandbox: plugin type="cilium-cni" failed (add): unable to connect to '
        "Cilium agent",
        near_miss="the plugin is ready",
        source="https://learn.microsoft.com/azure/aks/azure-cni-powered-by-cilium",
    ),
    FailureText(
        name="the node's container runtime does not answer",
        pattern=r"create pod sandbox[^\n]{0,200}(?:DeadlineExceeded|deadline exceeded)|failed to reserve sandbox name"
        r"|failed to reserve container name|containerd\.sock: connect: connection refused|PLEG is not healthy",
        verdict="the container runtime of the node does not answer in time: its CPU or its disk is overloaded, "
        "for example while a large image is unpacked",
        cure=Cure(
            "Wait some minutes: the kubelet tries again. If the problem persists, diagnose.node(aks, 'NODE') shows "
            "what the node lacks: replace the node, and use a larger OS disk (os_disk_size_gb), whose speed grows with "
            "its size.",
            'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
            "kubectl describe node NODE\nkubectl get pods --all-namespaces --field-selector spec.nodeName=NODE",
            "Wait some minutes: the kubelet tries again. If the problem persists, diagnose.node(aks, 'NODE') shows "
            "what the node lacks: replace or restart the node.",
        ),
        places=frozenset({Place.CONTAINER, Place.EVENT}),
        example="Failed to create pod sandbox: rpc error: code = DeadlineExceeded desc = context deadline exceeded",
        near_miss="created the pod sandbox in 12 s",
        source="https://github.com/containerd/containerd/issues/4604",
    ),
)
"""Containers that cannot be created or started."""

_CLAIM = Cure(
    "Create the claim that the message names, or correct the manifest's volumes and the claim's storage class: "
    "kubectl get pvc --namespace NAMESPACE shows which claim is not bound.",
    'aks.kube.list("PersistentVolumeClaim", "NAMESPACE")',
    "kubectl get pvc --namespace NAMESPACE\nkubectl get storageclass",
)

VOLUME_TEXTS = (
    FailureText(
        name="the disk is attached to another node",
        pattern=r"Multi-Attach error|is already (?:exclusively )?attached to (?:one|another) node"
        r"|AttachDiskWhileBeingDetached"
        r"|disk[^\n]{0,160}attached to (?:node|VM)",
        verdict="the volume is a disk, and another node has it: a disk belongs to one node at a time",
        cure=Cure(
            "Delete the pod that uses the disk, or use Azure Files (storage class azurefile-csi), which several nodes "
            "can mount. After a node was lost, the disk becomes free after about six minutes.",
            'aks.kube.list("Pod", "NAMESPACE")',
            "kubectl get volumeattachments\nkubectl get pods --namespace NAMESPACE -o wide",
        ),
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example='Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node and can\'t '
        "be "
        "attached to another",
        near_miss="the volume was attached to the node",
        source="https://learn.microsoft.com/azure/aks/azure-csi-disk-storage-provision",
    ),
    FailureText(
        name="the share refuses the mount",
        pattern=r"mount error\(13\)|Permission denied[^\n]{0,120}mount|mount[^\n]{0,160}(?:Permission"
        r"|permission) denied|"
        r"mount error\((?:2|112|115)\)|AuthorizationFailure|KeyBasedAuthenticationNotPermitted|StorageAccountKeyAccess"
        r"|mount\.nfs: access denied|AuthorizationPermissionMismatch|due to a lack of credentials"
        r"|blobfuse[^\n]{0,200}(?:[Ff]ailed to authenticate|[Uu]nauthorized|\b403\b)",
        verdict="the file share refuses the mount: its key, its name or its network rules do not fit",
        cure=Cure(
            "Check the Secret with the account's key, the share's name, and the storage account's network rules and "
            "key access. A claim with storage class azurefile-csi sets all of them up by itself.",
            "",
            "kubectl describe pod POD --namespace NAMESPACE\naz storage account show --name ACCOUNT --query "
            "'{keys:allowSharedKeyAccess,network:networkRuleSet.defaultAction}'",
        ),
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example="MountVolume.MountDevice failed for volume: mount failed: exit status 32: mount error(13): Permission "
        "denied",
        near_miss="mounted //account.file.core.windows.net/share",
        source="https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/storage/fail-to-mount-azure-file-share",
    ),
    FailureText(
        name="the storage is not reachable",
        pattern=r"mount\.nfs: (?:Connection (?:timed out|refused)|No route to host|Network is unreachable"
        r"|Failed to resolve server)|mount error\((?:101|110|111|113)\)"
        r"|mount error: could not resolve address",
        verdict="the node does not reach the server of the volume",
        cure=Cure(
            "Check the server's name and address, and whether the cluster's subnet may reach it: the storage account's "
            "network rules, its private endpoint and DNS zone, and outbound port 445 (SMB) or 2049 (NFS).",
            "",
            "kubectl describe pod POD --namespace NAMESPACE\naz storage account show --name ACCOUNT --query "
            "'{network:networkRuleSet.defaultAction,endpoints:privateEndpointConnections[].name}'",
            "Check the server's name and address, and whether the node may reach it: port 445 (SMB) or 2049 (NFS).",
        ),
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example="MountVolume.SetUp failed: mount failed: exit status 32 Output: mount.nfs: Connection timed out",
        near_miss="the server of the volume answers in 3 ms",
        source="https://github.com/rook/nfs/issues/34",
    ),
    FailureText(
        name="the node has too many disks",
        pattern=r"maximum number of data disks|max volume count|exceed(?:s|ed)? max(?:imum)? (?:volume|disk)|"
        r"more than the maximum (?:number )?of (?:data )?disks",
        verdict="the node's VM size allows no further disk",
        cure=Cure(
            "Use Azure Files instead of disks, or a larger VM size: the number of data disks grows with it.",
            "from aksgpu import sizes\nsizes.gpu_sizes(aks.azure, aks.location)",
            "az vm list-skus --location LOCATION --size Standard_N --query "
            "'[].{name:name,disks:capabilities[?name==`MaxDataDiskCount`].value|[0]}' -o table",
            "Use a volume that needs no disk of the node, or a larger node.",
        ),
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example="The maximum number of data disks allowed to be attached to a VM of this size is 8",
        near_miss="8 disks are attached",
        source="https://learn.microsoft.com/azure/virtual-machines/sizes/overview",
    ),
    FailureText(
        name="the VM size has no premium disks",
        pattern=r"storage account type (?P<type_>\w{1,40}) is not supported for VM size (?P<size_>\w{1,60})",
        verdict="the VM size {size_} cannot use disks of the type {type_}",
        cure=Cure(
            "Use a claim with the storage class managed-csi (standard SSD), or a VM size whose letters contain an s.",
            'aks.kube.list("PersistentVolumeClaim", "NAMESPACE")',
            "kubectl get storageclass\nkubectl get pvc --namespace NAMESPACE",
        ),
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example="Requested operation cannot be performed because storage account type Premium_LRS is not supported for "
        "VM size Standard_NC6.",
        near_miss="the storage account type is Premium_LRS",
        source="https://learn.microsoft.com/azure/virtual-machines/disks-types",
    ),
    FailureText(
        name="the disk of the volume is gone",
        pattern=r"Volume not found, failed with error|\bdisk \S{1,300} was not found",
        verdict="the Azure disk of the volume no longer exists, and its data is lost",
        cure=Cure(
            "Delete the claim, create it again, and fill it again or from a snapshot. Disks of claims are deleted with "
            "the node resource group; a storage class with reclaimPolicy: Retain keeps them when a claim is deleted.",
            'aks.kube.list("PersistentVolumeClaim", "NAMESPACE")',
            "az disk list --output table\nkubectl get pv\nkubectl delete pvc CLAIM --namespace NAMESPACE",
            "Delete the claim, create it again, and fill it again or from a snapshot.",
        ),
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example='AttachVolume.Attach failed for volume "pvc-1" : rpc error: code = NotFound desc = Volume not found, '
        "failed with error: disk pvc-1 was not found",
        near_miss="the disk pvc-1 was found",
        source="https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/storage/fail-to-mount-azure-disk-volume",
    ),
    FailureText(
        name="the file system of the disk is damaged",
        pattern=r"wrong fs type, bad option, bad superblock|[Ss]tructure needs cleaning|fsck[^\n]{0,80}found errors",
        verdict="the disk's file system is damaged, or its type is not the one that the volume names",
        cure=Cure(
            "Make a snapshot of the disk. Then repair it with fsck in a pod that mounts it as a block device, or use a "
            "new claim. If the disk was formatted elsewhere, fsType of the volume must name its file system.",
            'aks.kube.list("PersistentVolumeClaim", "NAMESPACE")',
            "kubectl get pv -o custom-columns=NAME:.metadata.name,TYPE:.spec.csi.fsType,DISK:.spec.csi.volumeHandle",
        ),
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example="mount: /globalmount: wrong fs type, bad option, bad superblock on /dev/sdc, missing codepage or "
        "helper program, or other error.",
        near_miss="mounted /dev/sdc as ext4",
        source="https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/storage/fail-to-mount-azure-disk-volume",
    ),
    FailureText(
        name="a volume that cannot be created",
        pattern=r"failed to provision volume with StorageClass \"(?P<class_>[\w.-]{1,253})\"",
        verdict="the storage class {class_} cannot create the volume of a claim",
        cure=Cure(
            "Correct what Azure's message names: a quota of disks, a zone, a policy, or a missing role of the "
            "cluster's identity. Kubernetes keeps trying, so the pod starts once the volume exists.",
            'aks.kube.list("PersistentVolumeClaim", "NAMESPACE")',
            "kubectl describe pvc --namespace NAMESPACE\nkubectl get storageclass",
        ),
        kind=errors.PodPending,
        places=frozenset({Place.EVENT}),
        example='failed to provision volume with StorageClass "managed-csi-premium": rpc error: code = Internal desc = '
        "409 Conflict",
        near_miss="provisioned a volume with StorageClass managed-csi",
        source="https://learn.microsoft.com/azure/aks/azure-csi-disk-storage-provision",
    ),
    FailureText(
        name="the node lacks the volume's driver",
        pattern=r"driver name (?P<driver_>[\w.-]{1,120}) not found in the list of registered CSI drivers",
        verdict="the node does not run the driver of the volume, {driver_}",
        cure=Cure(
            "Wait some minutes if the node is new. Otherwise enable the driver: az aks update with "
            "--enable-blob-driver, --enable-disk-driver or --enable-file-driver, or, for secrets-store.csi.k8s.io, az "
            "aks enable-addons --addons azure-keyvault-secrets-provider. Or use a volume of another driver. The "
            "driver's pods must tolerate the taints of the GPU nodes.",
            'aks.kube.list("Pod", "kube-system")',
            "kubectl get csinodes NODE -o yaml\n"
            "az aks update --resource-group GROUP --name CLUSTER --enable-blob-driver",
            "Wait some minutes if the node is new. Otherwise install the driver, or use a volume of another one. The "
            "driver's pods must tolerate the taints of the GPU nodes.",
        ),
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example='MountVolume.MountDevice failed for volume "pv" : driver name blob.csi.azure.com not found in the list '
        "of registered CSI drivers",
        near_miss="the driver blob.csi.azure.com is registered",
        source="https://learn.microsoft.com/azure/aks/azure-blob-csi",
    ),
    FailureText(
        name="the node lacks the directory of a hostPath",
        pattern=r"hostPath type check failed: (?P<path_>\S{1,300}) is not",
        verdict="the node does not have the directory or file of the hostPath volume, {path_}",
        cure=Cure(
            "Use a PersistentVolumeClaim: a directory of one node is not on other nodes, and is deleted with it. "
            f"type: DirectoryOrCreate creates an empty directory; {RUN_AGAIN}",
            edit_job(
                'pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "CLAIM"}}]',
            ),
            EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example='MountVolume.SetUp failed for volume "data" : hostPath type check failed: /mnt/data is not a directory',
        near_miss="the hostPath /mnt/data was checked",
        source="https://kubernetes.io/docs/concepts/storage/volumes/#hostpath-volume-types",
    ),
    FailureText(
        name="a claim or volume does not exist",
        pattern=r"persistentvolumeclaim \"[\w.-]{1,253}\" (?:not found|is being deleted)|could not find PVC|"
        r"storageclass\.storage\.k8s\.io \"[\w.-]{1,253}\" not found|unbound immediate PersistentVolumeClaims|"
        r"no persistent volumes available for this claim|ProvisioningFailed",
        verdict="a claim of the pod does not exist or is not bound",
        cure=_CLAIM,
        kind=errors.PodPending,
        places=frozenset({Place.EVENT, Place.CONTAINER}),
        example='persistentvolumeclaim "data" not found',
        near_miss='persistentvolumeclaim "data" was bound',
        source="https://kubernetes.io/docs/concepts/storage/persistent-volumes/",
    ),
)
"""Volumes."""

UNMOUNTED_TEXTS = (
    FailureText(
        name="a volume cannot be mounted",
        pattern=r"Unable to (?:attach or )?mount volumes|(?:MountVolume|AttachVolume)\.\w{1,20} failed for volume",
        verdict="a volume of the pod cannot be mounted, and this event does not say why",
        cure=Cure(
            "Look at the other events of the pod and of its claim: kubectl describe pod POD --namespace NAMESPACE. If "
            "they do not name the cause, the log of the driver on the node does: pods csi-azuredisk-node, "
            "csi-azurefile-node or csi-blob-node in kube-system.",
            'aks.kube.list("PersistentVolumeClaim", "NAMESPACE")',
            "kubectl describe pod POD --namespace NAMESPACE\nkubectl describe pvc --namespace NAMESPACE\n"
            "kubectl get pods --namespace kube-system --field-selector spec.nodeName=NODE",
        ),
        places=frozenset({Place.EVENT}),
        example="Unable to attach or mount volumes: unmounted volumes=[azure], unattached volumes=[azure]: timed out "
        "waiting for the condition",
        near_miss="the volume azure was mounted",
        source="https://github.com/MicrosoftDocs/azure-docs/issues/95667",
    ),
)
"""Events about volumes that name no cause. Every other text comes first."""

ADMISSION_TEXTS = (
    FailureText(
        name="an emptyDir is full",
        pattern=r"[Uu]sage of EmptyDir volume \"(?P<volume_>[^\"\n]{1,80})\" exceeds the limit"
        r"(?: \"(?P<limit_>[^\"\n]{1,40})\")?",
        verdict="the pod wrote more into its emptyDir volume {volume_} than its sizeLimit[ of {limit_}] allows",
        cure=Cure(
            "Raise sizeLimit of the volume in spec.template.spec.volumes. With medium: Memory, its contents count "
            f"as memory of the container, so raise resources.limits.memory too; {RUN_AGAIN}",
            edit_job(
                'for volume in pod.get("volumes", []):\n'
                '    if "emptyDir" in volume:\n'
                '        volume["emptyDir"]["sizeLimit"] = "32Gi"',
            ),
            EDIT_JOB_SHELL,
        ),
        places=_POD_PLACES,
        example='Usage of EmptyDir volume "shm" exceeds the limit "1Gi".',
        near_miss='the EmptyDir volume "shm" has a limit of 1Gi',
        source="https://kubernetes.io/docs/concepts/storage/volumes/#emptydir",
    ),
    FailureText(
        name="the pod's limit of disk",
        pattern=r"[Ee]phemeral local storage usage exceeds the total limit|exceeded its local ephemeral storage limit",
        verdict="the pod wrote more to the node's disk than its own limit of ephemeral-storage allows",
        cure=Cure(
            "Raise resources.limits of ephemeral-storage, or write checkpoints and caches (HF_HOME, TMPDIR) to a "
            f"volume, such as a PersistentVolumeClaim; {RUN_AGAIN}",
            edit_job(
                'limits = pod["containers"][0].setdefault("resources", {}).setdefault("limits", {})',
                'limits["ephemeral-storage"] = "100Gi"',
            ),
            EDIT_JOB_SHELL,
        ),
        places=_POD_PLACES,
        example="Pod ephemeral local storage usage exceeds the total limit of containers 10Gi.",
        near_miss="The node was low on resource: ephemeral-storage.",
        source="https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/",
    ),
    FailureText(
        name="the node ran out of disk",
        pattern=r"low on resource: (?:ephemeral-storage|inodes|nodefs|imagefs)|[Ee]phemeral local storage usage exceeds"
        r"|ephemeral-storage "
        r"(?:usage|limit)",
        verdict="the node ran out of disk, or the pod used more than its limit",
        cure=_MORE_DISK_REQUESTED,
        places=_POD_PLACES,
        example="The node was low on resource: ephemeral-storage. Threshold quantity: 15763389861, available: "
        "12139364Ki.",
        near_miss="ephemeral containers are enabled",
        source=_EVICTION,
    ),
    FailureText(
        name="the node ran out of memory",
        pattern=r"low on resource: memory|MemoryPressure|node had condition: \[MemoryPressure\]",
        verdict="the node ran out of memory",
        cure=_MORE_MEMORY_REQUESTED,
        places=_POD_PLACES,
        example="The node was low on resource: memory. Threshold quantity: 750Mi, available: 512Mi.",
        near_miss="the node has 16Gi memory",
        source=_EVICTION,
    ),
    FailureText(
        name="the node was under pressure when the pod came",
        pattern=r"node had condition: \[(?:DiskPressure|PIDPressure)",
        verdict="the node had too little disk, or too many processes, when the pod came",
        cure=_MORE_DISK_REQUESTED,
        places=_POD_PLACES,
        example="The node had condition: [DiskPressure].",
        near_miss="The node had condition: [Ready].",
        source=_EVICTION,
    ),
    FailureText(
        name="the node shut down",
        pattern=r"imminent node shutdown|node (?:is )?shutting down|NodeShutdown",
        verdict="the node shut down while the pod ran, as for an upgrade, a repair or a spot eviction",
        cure=Cure(
            "Run it again: with backoffLimit above 0 the Job controller does so by itself. Save checkpoints on a "
            "volume, so that little is lost; for long runs use a pool without spot.",
            'from aksgpu import jobs\njobs.apply(aks, jobs.get(aks, "JOB", namespace="NAMESPACE").manifest(), '
            "replace=True)",
            EDIT_JOB_SHELL,
        ),
        places=_POD_PLACES,
        example="Pod was terminated in response to imminent node shutdown.",
        near_miss="the node started up",
        source="https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/",
    ),
    FailureText(
        name="a pod of the system took its place",
        pattern=r"Preempted in order to admit critical pod",
        verdict="its node ended it to make room for a pod of the system",
        cure=Cure(
            "Run it again: with backoffLimit above 0 the Job controller does so by itself. Ask for the CPU and memory "
            "that the program uses (resources.requests), so that the node is not too full.",
            edit_job(
                'pod["containers"][0].setdefault("resources", {}).setdefault("requests", {}).update(cpu="2", '
                'memory="8Gi")',
            ),
            EDIT_JOB_SHELL,
        ),
        places=_POD_PLACES,
        example="Preempted in order to admit critical pod",
        near_miss="the critical pod was admitted",
        source="https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/",
    ),
    FailureText(
        name="the node's free resources had changed",
        pattern=r"Node didn't have enough resource: |OutOfcpu|OutOfmemory|OutOfpods|Predicate NodeAffinity failed"
        r"|Predicate \w{1,40} failed|TopologyAffinityError|[Rr]esources cannot be allocated with Topology locality",
        verdict="the node could not take the pod when it came: its free resources or its labels had changed",
        cure=Cure(
            "Run it again: with backoffLimit above 0 the Job controller does so by itself. capacity.gpus(aks) shows "
            "what is free.",
            'from aksgpu import jobs\njobs.apply(aks, jobs.get(aks, "JOB", namespace="NAMESPACE").manifest(), '
            "replace=True)",
            EDIT_JOB_SHELL,
        ),
        places=_POD_PLACES,
        example="Pod was rejected: Node didn't have enough resource: cpu, requested: 8000, used: 2000, capacity: 3860",
        near_miss="the node has enough resources",
        source="https://kubernetes.io/docs/tasks/administer-cluster/topology-manager/",
    ),
)
"""Pods that a node refuses or ends."""

_SAFEGUARD = Cure(
    "Correct the manifest as the message says. AKS Automatic and Azure Policy demand resources.requests for each "
    "container and refuse hostPath, privileged containers and changes in system namespaces: use your own namespace, "
    "and gpu-resources for the device plugin.",
    edit_job(
        'pod["containers"][0].setdefault("resources", {}).setdefault("requests", {}).update(cpu="2", memory="8Gi")',
    ),
    EDIT_JOB_SHELL,
)

REFUSED_TEXTS = (
    FailureText(
        name="the quota asks for requests",
        pattern=r"failed quota: [\w.-]{1,253}: must specify (?P<what_>[\w., /-]{1,120})",
        verdict="the namespace's ResourceQuota demands that the pod names {what_}",
        cure=Cure(
            f"Add what the message names to resources.requests and resources.limits of each container; {RUN_AGAIN}",
            edit_job(
                'resources = pod["containers"][0].setdefault("resources", {})',
                'resources.setdefault("requests", {}).update(cpu="2", memory="8Gi")',
                'resources.setdefault("limits", {}).update(cpu="2", memory="8Gi")',
            ),
            "kubectl describe resourcequota --namespace NAMESPACE\n" + EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.EVENT}),
        example='pods "train-x" is forbidden: failed quota: team: must specify limits.cpu for: main',
        near_miss="quota of the team: 12 of 40 used",
        source="https://kubernetes.io/docs/concepts/policy/resource-quotas/",
    ),
    FailureText(
        name="the quota is used up",
        pattern=r"exceeded quota",
        verdict="the namespace's ResourceQuota is used up",
        cure=Cure(
            "Delete a Job that uses what is limited (jobs.list(aks) shows them), or have the quota raised.",
            'from aksgpu import jobs\njobs.list(aks, namespace="NAMESPACE")',
            "kubectl describe resourcequota --namespace NAMESPACE",
        ),
        places=frozenset({Place.EVENT}),
        example='pods "train-x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 0, '
        "limited: 0",
        near_miss="the quota was raised",
        source="https://kubernetes.io/docs/concepts/policy/resource-quotas/",
    ),
    FailureText(
        name="a safeguard of the cluster refuses the pod",
        pattern=r"ValidatingAdmissionPolicy '[\w.-]{1,253}'[^\n]{0,200}denied request"
        r"|admission webhook \"(?:validation\."
        r"gatekeeper\.sh|[\w.-]{0,200}(?:azurepolicy|policy|kyverno|safeguard)[\w.-]{0,80})\" denied|azurepolicy-|"
        r"aks-managed-|violates PodSecurity|deployment safeguards",
        verdict="a safeguard of the cluster (AKS Automatic, Azure Policy or Pod Security) refuses the pod",
        cure=_SAFEGUARD,
        places=frozenset({Place.EVENT}),
        example="ValidatingAdmissionPolicy 'aks-managed-protect-system-namespaces' with binding "
        "'aks-managed-protect-system-namespaces-binding' denied request: Modification of resources in managed system "
        "namespaces is not allowed",
        near_miss="the policy was applied",
        source="https://learn.microsoft.com/azure/aks/deployment-safeguards",
    ),
    FailureText(
        name="an admission webhook does not answer",
        pattern=r"failed calling webhook|failed to call webhook",
        verdict="an admission webhook of the cluster does not answer, so that no pod can be created",
        cure=Cure(
            "Repair or remove the program behind the webhook that the message names: its pods do not run or are not "
            "reachable.",
            "",
            "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations\nkubectl get pods "
            "--all-namespaces --field-selector status.phase!=Running",
        ),
        places=frozenset({Place.EVENT}),
        example='Internal error occurred: failed calling webhook "mpod.kb.io": failed to call webhook: dial tcp: '
        "connection "
        "refused",
        near_miss="the webhook was called",
        source="https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/create-upgrade-delete/"
        "webhook-admission-errors",
    ),
    FailureText(
        name="the pod names something that does not exist",
        pattern=r"no PriorityClass with name|serviceaccount \"?[\w.-]{1,253}\"? not found"
        r"|error looking up service account|"
        r"(?:serviceaccounts?|priorityclasses?)[^\n]{0,80}not found",
        verdict="the pod names a service account or a priority class that does not exist",
        cure=Cure(
            f"Create it, or leave serviceAccountName and priorityClassName out; {RUN_AGAIN}",
            edit_job('pod.pop("serviceAccountName", None)', 'pod.pop("priorityClassName", None)'),
            "kubectl get serviceaccounts --namespace NAMESPACE\nkubectl get priorityclasses",
        ),
        places=frozenset({Place.EVENT}),
        example='pods "train-" is forbidden: error looking up service account default/trainer: serviceaccount '
        '"trainer" not '
        "found",
        near_miss="the service account was created",
        source="https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/",
    ),
    FailureText(
        name="a limit range refuses the pod",
        pattern=r"(?:maximum|minimum) (?:cpu|memory|nvidia\.com/gpu|ephemeral-storage) usage per (?:Container|Pod) is",
        verdict="the namespace's LimitRange refuses the pod's requests or limits",
        cure=Cure(
            f"Ask for what the message allows, or have the LimitRange changed; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["resources"]["limits"]["memory"] = "8Gi"'),
            "kubectl describe limitrange --namespace NAMESPACE\n" + EDIT_JOB_SHELL,
        ),
        places=frozenset({Place.EVENT}),
        example='pods "train-x" is forbidden: maximum memory usage per Container is 8Gi, but limit is 64Gi',
        near_miss="the memory usage of the container is 8Gi",
        source="https://kubernetes.io/docs/concepts/policy/limit-range/",
    ),
)
"""Pods that the API server refuses, as the Job's events report it."""
