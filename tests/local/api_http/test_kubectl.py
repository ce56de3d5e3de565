"""kubectl with the API server alone: commands that need neither controllers nor nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from support.live_cluster import kubectls, version_of
from support.polling import wait_for
from support.recorded import RECORDINGS

from .conftest import ADMIN, DEV, Server, run_kubectl, start_kubectl

SUPPORTED = kubectls()
EVERY = kubectls(oldest=27)
every_kubectl = pytest.mark.parametrize("binary", EVERY, ids=map(version_of, EVERY))

MANIFESTS = RECORDINGS / "manifests"
Run = Callable[..., str]

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="no kubectl on PATH")


def runner(binary: str, server: Server) -> Run:
    def run(*args: str, stdin: str = "", token: str = ADMIN, code: int = 0) -> str:
        done = run_kubectl(binary, server, *args, stdin=stdin, token=token)
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def run(server: Server) -> Run:
    """Return the newest kubectl. The tests of this module build on each other's objects."""
    return runner(SUPPORTED[-1], server)


def test_namespaces(run: Run) -> None:
    assert run("create", "namespace", "gpu-resources") == "namespace/gpu-resources created\n"
    again = 'Error from server (AlreadyExists): namespaces "gpu-resources" already exists\n'
    assert run("create", "namespace", "gpu-resources", code=1) == again
    table = run("get", "namespaces").splitlines()
    assert table[0].split() == ["NAME", "STATUS", "AGE"]
    assert any(line.split()[:2] == ["gpu-resources", "Active"] for line in table)


def test_apply_create_and_refuse(run: Run) -> None:
    job = str(MANIFESTS / "samples-tf-mnist-demo.yaml")
    assert run("apply", "-f", job) == "job.batch/samples-tf-mnist-demo created\n"
    assert run("apply", "-f", job).startswith("job.batch/samples-tf-mnist-demo ")
    assert "field is immutable" in run("apply", "-f", str(MANIFESTS / "job-changed.yaml"), code=1)
    unknown = run("apply", "-f", str(MANIFESTS / "job-unknown-field.yaml"), code=1)
    assert 'strict decoding error: unknown field "spec.template.spec.gpuCount"' in unknown
    bad = run("apply", "-f", str(MANIFESTS / "job-bad-value.yaml"), code=1)
    assert '* spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"' in bad
    assert "daemonset.apps/nvidia-device-plugin-daemonset created" in run(
        "apply", "-f", str(MANIFESTS / "nvidia-device-plugin-ds.yaml")
    )


@every_kubectl
@pytest.mark.parametrize(("kind", "version"), [("Deployment", "apps/v1"), ("PyTorchJob", "kubeflow.org/v1")])
def test_a_kind_that_is_not_served(server: Server, binary: str, kind: str, version: str) -> None:
    run = runner(binary, server)
    given = f'{{"apiVersion": "{version}", "kind": "{kind}", "metadata": {{"name": "x"}}}}'
    for verb in ("apply", "create"):
        error = run(verb, "-f", "-", stdin=given, code=1)
        assert f'no matches for kind "{kind}" in version "{version}"' in error


@every_kubectl
def test_fields_are_validated_by_the_server(server: Server, binary: str) -> None:
    run = runner(binary, server)
    name = "fields-" + version_of(binary).replace(".", "-")

    def config_map(field: str, value: str) -> str:
        map_ = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, field: {"a": value}}
        return json.dumps(map_)

    refused = run("apply", "-f", "-", stdin=config_map("date", "b"), code=1)
    assert 'strict decoding error: unknown field "date"' in refused
    assert run("apply", "-f", "-", stdin=config_map("data", "b")) == f"configmap/{name} created\n"
    assert run("apply", "-f", "-", stdin=config_map("data", "c")) == f"configmap/{name} configured\n"
    assert run("get", "configmap", name, "-o", "jsonpath={.data.a}") == "c"


def test_output_formats_of_get(run: Run) -> None:
    wide = run("get", "jobs", "-o", "wide").splitlines()
    assert wide[0].split() == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert wide[1].split()[1:3] == ["Running", "0/1"]
    assert "job.batch/samples-tf-mnist-demo" in run("get", "all")
    assert 'nvidia.com/gpu: "1"' in run("get", "job", "samples-tf-mnist-demo", "-o", "yaml")
    assert run("get", "job", "-l", "app=samples-tf-mnist-demo", "-o", "name") == "job.batch/samples-tf-mnist-demo\n"
    assert run("get", "pods") == "No resources found in default namespace.\n"
    assert run("get", "job", "nope", code=1) == 'Error from server (NotFound): jobs.batch "nope" not found\n'
    assert 'the server doesn\'t have a resource type "widgets"' in run("get", "widgets", code=1)
    assert re.search(r"nvidia.com/gpu:\s+1", run("describe", "job", "samples-tf-mnist-demo"))


def test_watch_starts_with_existing_objects(server: Server, run: Run) -> None:
    with start_kubectl(SUPPORTED[-1], server, "get", "jobs", "samples-tf-mnist-demo", "--watch") as process:
        assert process.stdout is not None
        first = [process.stdout.readline().split()[0] for _ in range(2)]
        assert first == ["NAME", "samples-tf-mnist-demo"]
        wait_for(lambda: server.api._watch_count, 60)
        server.end_watches()
        output, errors = process.communicate(timeout=60)
        assert (output, errors, process.returncode) == ("", "", 0)


def test_edits(run: Run) -> None:
    assert run("create", "configmap", "c", "--from-literal=a=1") == "configmap/c created\n"
    assert run("label", "configmap", "c", "x=y") == "configmap/c labeled\n"
    assert run("annotate", "configmap", "c", "n=1") == "configmap/c annotated\n"
    assert run("patch", "configmap", "c", "-p", '{"data":{"b":"2"}}') == "configmap/c patched\n"
    replaced = run("patch", "configmap", "c", "--type=json", "-p", '[{"op":"replace","path":"/data/b","value":"3"}]')
    assert replaced == "configmap/c patched\n"
    assert run("get", "configmap", "c", "-o", "jsonpath={.data.b}{.metadata.labels.x}") == "3y"
    one = str(MANIFESTS / "cm-ssa.yaml")
    two = str(MANIFESTS / "cm-ssa2.yaml")
    assert run("apply", "--server-side", "--field-manager=one", "-f", one) == "configmap/owned serverside-applied\n"
    conflict = run("apply", "--server-side", "--field-manager=two", "-f", two, code=1)
    assert 'Apply failed with 1 conflict: conflict with "one": .data.a' in conflict
    run("apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", two)
    stdin = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"owned"},"data":{"z":"1"}}'
    assert run("replace", "-f", "-", stdin=stdin) == "configmap/owned replaced\n"
    assert "condition met" in run("wait", "--for=jsonpath={.data.z}=1", "configmap/owned", "--timeout=60s")


def test_client_side_apply_then_server_side_apply(run: Run) -> None:
    given = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "both"}, "data": {"a": "1"}}'
    run("apply", "-f", "-", stdin=given)
    run("apply", "--server-side", "-f", "-", stdin=given)
    assert "last-applied-configuration" in run("get", "configmap", "both", "-o", "yaml")


def test_kinds_that_kubectl_creates(run: Run) -> None:
    run("create", "secret", "generic", "s", "--from-literal=p=hush")
    assert "hush" not in run("describe", "secret", "s")
    run("create", "serviceaccount", "sa")
    run("create", "job", "hello", "--image=busybox", "--", "echo", "hi")
    assert run("get", "job", "hello", "-o", "jsonpath={.spec.template.spec.containers[0].command}") == '["echo","hi"]'
    run("create", "quota", "q", "--hard=requests.nvidia.com/gpu=1")
    assert "requests.nvidia.com/gpu: 0/1" in run("get", "quota")
    run("create", "priorityclass", "hi", "--value=10")
    assert "2000001000" in run("get", "priorityclasses")
    run("create", "service", "clusterip", "svc", "--tcp=80:80")
    assert "80/TCP" in run("get", "services")
    run("run", "p", "--image=busybox", "--restart=Never")
    assert run("get", "pods").splitlines()[1].split()[:4] == ["p", "0/1", "Pending", "0"]
    assert run("logs", "p") == ""


def test_authorization(run: Run) -> None:
    assert run("auth", "can-i", "list", "pods") == "yes\n"
    assert run("auth", "can-i", "list", "pods", token=DEV, code=1) == "no\n"
    run("create", "role", "reader", "--verb=get,list,watch", "--resource=pods,pods/log")
    run("create", "rolebinding", "dev-reads", "--role=reader", "--user=dev")
    assert run("auth", "can-i", "list", "pods", token=DEV) == "yes\n"
    assert run("get", "pods", token=DEV).splitlines()[1].startswith("p ")
    assert run("get", "nodes", token=DEV, code=1) == (
        'Error from server (Forbidden): nodes is forbidden: User "dev" cannot list resource "nodes" in API group "" '
        "at the cluster scope\n"
    )
    assert run("auth", "can-i", "delete", "nodes", "--as=nobody", code=1).startswith("no\n")
    assert run("auth", "can-i", "delete", "nodes", "--as=x", "--as-group=system:masters").startswith("yes\n")
    assert 'cannot impersonate resource "users"' in run("get", "pods", "--as=clusterAdmin", token=DEV, code=1)
    assert "You must be logged in to the server" in run("get", "nodes", token="wrong", code=1)
    assert "Role/reader" in run("get", "rolebindings", "-o", "wide")


def test_who_am_i_and_what_may_i_do(run: Run) -> None:
    shown = run("auth", "whoami", "-o", "json", token=DEV)
    assert json.loads(shown)["status"]["userInfo"] == {"username": "dev", "groups": ["system:authenticated"]}
    assert "system:masters" in run("auth", "whoami")
    run("create", "role", "lister", "--verb=list,watch", "--resource=jobs.batch", "--resource-name=j")
    run("create", "rolebinding", "dev-lists", "--role=lister", "--user=dev")
    listed = run("auth", "can-i", "--list", token=DEV)
    assert re.search(r"jobs\.batch +\[\] +\[j\] +\[list watch\]", listed)
    assert re.search(r"selfsubjectreviews\.authentication\.k8s\.io +\[\] +\[\] +\[create\]", listed)
    assert "/openapi" in listed
    assert re.search(r"^\*\.\* +\[\] +\[\] +\[\*\]", run("auth", "can-i", "--list"), re.MULTILINE)
    assert "Error" not in run("auth", "can-i", "--list", "-n", "nowhere", token=DEV)


def test_roles_that_every_cluster_has(run: Run) -> None:
    def check(may: bool, *words: str, who: str) -> None:
        response = run("auth", "can-i", *words, "--as", who, code=0 if may else 1)
        assert response.startswith("yes" if may else "no")

    robot = "system:serviceaccount:default:robot"
    run("create", "rolebinding", "views", "--clusterrole=view", "--user=ann")
    run("create", "rolebinding", "edits", "--clusterrole=edit", "--group=system:serviceaccounts:default")
    run("create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", "--user=root")
    check(True, "list", "jobs.batch", who="ann")
    check(False, "get", "secrets", who="ann")
    check(False, "create", "jobs.batch", who="ann")
    check(True, "create", "jobs.batch", who=robot)
    check(False, "create", "roles.rbac.authorization.k8s.io", who=robot)
    check(True, "delete", "nodes", who="root")


def test_nodes(run: Run) -> None:
    node = """
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {kubernetes.io/role: agent}}
"""
    assert run("create", "-f", "-", stdin=node) == "node/n1 created\n"
    status = (
        '{"status":{"capacity":{"nvidia.com/gpu":"1"},"conditions":[{"type":"Ready","status":"True"}],'
        '"addresses":[{"type":"InternalIP","address":"10.224.0.4"}],"nodeInfo":{"kubeletVersion":"v1.36.2"}}}'
    )
    run("patch", "node", "n1", "--subresource=status", "-p", status)
    run("cordon", "n1")
    run("taint", "node", "n1", "sku=gpu:NoSchedule")
    row = run("get", "nodes", "-o", "wide").splitlines()[1].split()
    assert row[1:3] + row[4:6] == ["Ready,SchedulingDisabled", "agent", "v1.36.2", "10.224.0.4"]
    described = run("describe", "node", "n1")
    assert re.search(r"Taints:\s+node.kubernetes.io/unschedulable:NoSchedule|Taints:\s+sku=gpu:NoSchedule", described)
    assert "nvidia.com/gpu" in described
    assert "node/n1 uncordoned" in run("uncordon", "n1")
    assert "node/n1 drained" in run("drain", "n1")
    stdin = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"on-n1"},"spec":{"nodeName":"n1",'
    run(
        "create",
        "-f",
        "-",
        stdin=stdin + '"tolerations":[{"operator":"Exists"}],"containers":[{"name":"m","image":"i"}]}}',
    )
    assert "evicting pod default/on-n1 (server dry run)" in run("drain", "n1", "--force", "--dry-run=server")
    assert run("get", "pod", "on-n1", "-o", "jsonpath={.metadata.deletionTimestamp}") == ""
    assert "evicting pod default/on-n1" in run("drain", "n1", "--force", "--timeout=1s", code=1)
    assert run("get", "pod", "on-n1").splitlines()[1].split()[2] == "Terminating"


def test_explain(run: Run) -> None:
    assert "Specifies the number of retries before marking this job failed" in run("explain", "job.spec.backoffLimit")
    assert "spec\t<PodSpec>" in run("explain", "pods")
    assert "nodeSelectorTerms" in run("explain", "daemonsets.spec.template.spec", "--recursive")


def test_deletes(run: Run) -> None:
    assert "timed out waiting" in run("wait", "--for=condition=complete", "job/hello", "--timeout=1s", code=1)
    assert re.fullmatch(r'job.batch "hello" deleted( from default namespace)?\n', run("delete", "job", "hello"))
    tried = run("delete", "configmap", "c", "--dry-run=server")
    assert re.fullmatch(r'configmap "c" deleted( from default namespace)? \(server dry run\)\n', tried)
    assert run("get", "configmap", "c", "-o", "name") == "configmap/c\n"
    run("delete", "configmaps", "--all")
    run("delete", "pod", "p", "--now")
    assert run("get", "configmaps") == "No resources found in default namespace.\n"
    assert 'jobs.batch "nope" not found' in run("delete", "job", "nope", code=1)
