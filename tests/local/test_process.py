"""The background process: started, found, stopped, killed and refused. Each test has a home of its own."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.mgmt.containerservice import ContainerServiceClient
from support.polling import wait_for

import aksgpu
from aksgpu import local
from aksgpu.errors import InvalidInput, LaptopError
from aksgpu.local import Endpoint, Settings, process

from .arm.conftest import CLUSTER, GROUP, SUBSCRIPTION, Token, body

FAST = Settings(time_scale=0.05)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "home"
    yield place
    local.stop(home=place)


def send(endpoint: Endpoint, method: str, path: str, *, document: Any = None, token: str | None = None) -> Any:
    """Send a request, and return the status and the body."""
    request = urllib.request.Request(endpoint.base_url + path, method=method)
    shown = endpoint.token if token is None else token
    if shown != "":
        request.add_header("Authorization", f"Bearer {shown}")
    data = None if document is None else json.dumps(document).encode()
    request.add_header("Content-Type", "application/json")
    context = ssl.create_default_context(cafile=str(endpoint.ca_file))
    try:
        with urllib.request.urlopen(request, data, timeout=60, context=context) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def make_cluster(endpoint: Endpoint) -> str:
    """Create a cluster, and return its kubeconfig."""
    send(endpoint, "PUT", f"{GROUP}?api-version=2021-04-01", document={"location": "eastus"})
    client = ContainerServiceClient(
        Token(endpoint.token), SUBSCRIPTION, base_url=endpoint.base_url, connection_verify=str(endpoint.ca_file)
    )
    with client:
        client.managed_clusters.begin_create_or_update("rg", "aks", body()).result()
        found = client.managed_clusters.list_cluster_user_credentials("rg", "aks").kubeconfigs[0].value
    return bytes(found).decode()


def test_start_finds_a_running_process_and_stop_is_idempotent(home: Path) -> None:
    assert local.status(home) == {"running": False, "home": str(home)}
    first = local.start(home, settings=FAST)
    assert local.start(home) == first
    assert first.token not in repr(first)
    status = local.status(home)
    assert status["running"] and status["clusters"] == [] and status["note"] == ""
    assert {"pid", "port", "home", "version", "started"} <= set(status)
    for name in ("token", "ca-key.pem", "server.pem", "laptop.json", "arm.db"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name
    local.stop(home=home)
    local.stop(home=home)
    assert local.status(home)["running"] is False


def test_the_process_is_not_a_child_and_inherits_no_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hush")
    local.start(home, settings=FAST)
    pid = local.status(home)["pid"]
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent != os.getpid()
    assert b"hush" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.getsid(pid) != os.getsid(0)
    assert Path(f"/proc/{pid}/cwd").resolve() == home


def test_concurrent_starts_get_one_process(home: Path) -> None:
    code = "import sys; from aksgpu import local; print(local.start(sys.argv[1]).base_url, flush=True)"
    starters = [
        subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    endpoints = {starter.communicate(timeout=60)[0].strip() for starter in starters}
    assert len(endpoints) == 1
    assert endpoints.pop().startswith("https://127.0.0.1:")


def test_requests_without_the_token_are_refused(home: Path) -> None:
    endpoint = local.start(home, settings=FAST)
    for path in ("/laptop/status", "/subscriptions?api-version=2022-12-01", f"{CLUSTER}?api-version=2026-08-01"):
        for token in ("", "wrong", endpoint.token[:-1]):
            assert send(endpoint, "GET", path, token=token)[0] == 401
        assert send(endpoint, "GET", path)[0] != 401
    for method, path in (("DELETE", "/laptop/status"), ("POST", "/laptop/injct"), ("GET", "/laptop/inject")):
        assert send(endpoint, method, path)[0] == 404
    _, answer = send(endpoint, "GET", "/subscriptions?api-version=2022-12-01", token="wrong")
    assert answer["error"]["code"] == "InvalidAuthenticationToken"
    assert send(endpoint, "GET", "/k8s/clusters/0123456789ab/api/v1/nodes")[1]["reason"] == "Unauthorized"
    assert send(endpoint, "GET", "/api/retail/prices", token="")[0] == 200
    port = local.status(home)["port"]
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ours = [line.split()[1] for line in listening if line.split()[1].endswith(f":{port:04X}")]
    assert {address.split(":")[0] for address in ours} == {"0100007F"}


def test_a_cluster_through_kubectl_and_a_kill(home: Path, tmp_path: Path) -> None:
    endpoint = local.start(home, settings=FAST)
    config = tmp_path / "kubeconfig"
    config.write_text(make_cluster(endpoint))
    before = local.status(home)
    assert before["clusters"] == ["rg/aks"]
    path = f"{CLUSTER}/agentPools/gpunp?api-version=2026-08-01"
    gpu = {"properties": {"vmSize": "Standard_NC4as_T4_v3", "count": 2}}
    assert send(endpoint, "PUT", path, document=gpu)[0] == 201

    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: not local.status(home)["running"])
    again = local.start(home, settings=FAST)
    assert again == endpoint  # same port, same token, same authority
    assert local.status(home)["pid"] != before["pid"]
    wait_for(lambda: send(again, "GET", path)[1]["properties"]["provisioningState"] == "Succeeded")
    kubectl = shutil.which("kubectl")
    if kubectl:
        command = [kubectl, "--kubeconfig", str(config), "--cache-dir", str(tmp_path), "get", "nodes", "-o", "name"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
        assert sorted(name.split("-")[1] for name in found) == ["gpunp", "gpunp", "nodepool1"]


def test_a_token_of_a_service_account_is_valid_after_a_restart(home: Path) -> None:
    endpoint = local.start(home, settings=FAST)
    kubeconfig = yaml.safe_load(make_cluster(endpoint))
    path = kubeconfig["clusters"][0]["cluster"]["server"].removeprefix(endpoint.base_url)
    administrator = kubeconfig["users"][0]["user"]["token"]
    accounts = f"{path}/api/v1/namespaces/default/serviceaccounts"
    account = {"metadata": {"name": "robot"}}
    assert send(endpoint, "POST", accounts, document=account, token=administrator)[0] == 201
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    status, made = send(endpoint, "POST", f"{accounts}/robot/token", document=request, token=administrator)
    assert status == 201
    local.stop(home=home)
    endpoint = local.start(home, settings=FAST)
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    reviews = f"{path}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    status, found = send(endpoint, "POST", reviews, document=review, token=made["status"]["token"])
    assert status == 201, found
    assert found["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"


def test_sigterm_stops_it_gracefully(home: Path) -> None:
    endpoint = local.start(home, settings=FAST)
    make_cluster(endpoint)
    os.kill(local.status(home)["pid"], signal.SIGTERM)
    wait_for(lambda: not local.status(home)["running"])
    assert "pid" not in json.loads((home / "laptop.json").read_text())
    assert local.start(home, settings=FAST) == endpoint
    assert local.status(home)["clusters"] == ["rg/aks"]


def test_stopped_and_deleted_clusters(home: Path) -> None:
    endpoint = local.start(home, settings=FAST)
    server = yaml.safe_load(make_cluster(endpoint))["clusters"][0]["cluster"]["server"]
    nodes = f"{server.removeprefix(endpoint.base_url)}/api/v1/nodes"
    version = "?api-version=2026-08-01"
    assert send(endpoint, "POST", f"{CLUSTER}/stop{version}")[0] == 202
    wait_for(lambda: send(endpoint, "GET", CLUSTER + version)[1]["properties"]["provisioningState"] == "Succeeded")
    assert send(endpoint, "GET", nodes)[1]["reason"] == "ServiceUnavailable"
    assert send(endpoint, "DELETE", CLUSTER + version)[0] == 202
    wait_for(lambda: local.status(home)["clusters"] == [])
    assert send(endpoint, "GET", nodes)[1]["reason"] == "Unauthorized"
    assert list((home / "clusters").iterdir()) == []


def test_faults_can_be_injected(home: Path) -> None:
    with pytest.raises(LaptopError, match="no laptop AKS is running"):
        local.inject("throttle", home=home)
    endpoint = local.start(home, settings=FAST)
    assert local.inject("throttle", home=home, seconds=3) == "injected"
    assert send(endpoint, "GET", "/subscriptions?api-version=2022-12-01")[0] == 429
    with pytest.raises(LaptopError, match=r"inject: fault .* is unknown; known: quota"):
        local.inject("weather", home=home)
    with pytest.raises(LaptopError, match="refused POST /laptop/inject"):
        local.inject("x" * (5 << 20), home=home)


def test_a_fault_may_take_longer_than_an_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eviction waits for the pods of its node. The process is suspended instead, and answers after the time-out."""
    local.start(home, settings=FAST)
    pid = local.status(home)["pid"]
    request = process._request

    def request_late(endpoint: Endpoint, method: str, *args: Any, **options: Any) -> dict[str, Any]:
        if method == "POST":
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(process.ANSWER_SECONDS + 1, os.kill, (pid, signal.SIGCONT)).start()
        return request(endpoint, method, *args, **options)

    monkeypatch.setattr(process, "_request", request_late)
    assert local.inject("throttle", home=home) == "injected"


def test_a_port_that_is_taken(home: Path) -> None:
    first = local.start(home, settings=FAST)
    port = local.status(home)["port"]
    local.stop(home=home)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert local.start(home, settings=FAST).base_url != first.base_url
    assert f"another program uses port {port}" in local.status(home)["note"]


def test_a_record_of_a_process_that_has_ended(home: Path) -> None:
    home.mkdir()
    record = {"pid": os.getpid(), "port": 1, "started": "2026-01-01T00:00:00+00:00", "version": "0"}
    (home / "laptop.json").write_text(json.dumps(record))  # the pid belongs to another process
    assert local.status(home)["running"] is False
    local.start(home, settings=FAST)
    assert local.status(home)["pid"] != os.getpid()


@pytest.mark.parametrize("record", ["null", "[]", '{"port": "x"}', '{"port": 99999999}', "{"])
def test_an_invalid_record(home: Path, record: str) -> None:
    home.mkdir()
    (home / "laptop.json").write_text(record)
    local.start(home, settings=FAST)
    assert local.status(home)["running"] is True


def test_stop_does_not_end_other_processes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "ANSWER_SECONDS", 0.1)
    home.mkdir()
    with subprocess.Popen(["sleep", "100"]) as innocent:  # replaces a pid of another machine that shares the home
        with process.own(home), pytest.raises(LaptopError, match="did not stop"):
            process.write_record(home, pid=innocent.pid, port=1)
            local.stop(0.1, home=home)
        assert innocent.poll() is None
        innocent.kill()


def test_one_of_another_version_is_replaced_unless_it_is_busy(home: Path) -> None:
    endpoint = local.start(home, settings=FAST)
    make_cluster(endpoint)
    before = local.status(home)
    assert (before["busy"], before["version"]) == (False, aksgpu.__version__)
    local.inject("stuck", home=home)
    assert send(endpoint, "POST", f"{CLUSTER}/stop?api-version=2026-08-01")[0] == 202
    record = json.loads((home / "laptop.json").read_text())
    (home / "laptop.json").write_text(json.dumps(record | {"version": "0.0.1"}))  # as an older version writes it
    with pytest.raises(
        LaptopError, match=r"was started by aksgpu 0\.0\.1 and is in use, and this is aksgpu \d"
    ) as caught:
        local.start(home, settings=FAST)
    assert "aksgpu local stop" in caught.value.hint
    assert send(endpoint, "POST", f"{CLUSTER}/abort?api-version=2026-08-01")[0] == 202
    wait_for(lambda: not local.status(home)["busy"])
    assert local.start(home, settings=FAST) == endpoint
    after = local.status(home)
    assert after["pid"] != before["pid"]
    assert (after["version"], after["clusters"]) == (before["version"], ["rg/aks"])


def test_it_stops_when_idle(home: Path) -> None:
    local.start(home, settings=Settings(idle_seconds=3))  # long enough for the answer that `start` waits for
    wait_for(lambda: not local.status(home)["running"])


def test_it_stops_when_its_home_is_deleted(home: Path) -> None:
    local.start(home, settings=FAST)
    pid = local.status(home)["pid"]
    shutil.rmtree(home)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_a_recreated_home_has_a_new_process(home: Path) -> None:
    local.start(home, settings=FAST)
    former = local.status(home)["pid"]
    shutil.rmtree(home)
    local.start(home, settings=FAST)
    wait_for(lambda: not Path(f"/proc/{former}").exists())
    assert local.status(home)["pid"] != former


@pytest.mark.parametrize("spoil", [Path.unlink, lambda record: record.write_text('{"pid": 1}')])
def test_its_record_is_restored_while_it_is_running(home: Path, spoil: Any) -> None:
    endpoint = local.start(home, settings=FAST)
    before = local.status(home)
    spoil(home / "laptop.json")
    assert local.start(home) == endpoint
    assert local.status(home) == before


def test_a_record_that_cannot_be_written(home: Path) -> None:
    endpoint = local.start(home, settings=Settings(idle_seconds=12))
    before = local.status(home)
    (home / "laptop.json").unlink()
    (home / "laptop.json").mkdir()  # fails as on a full disk; the process checks the record every three seconds
    for _ in range(35):
        time.sleep(0.1)
        assert send(endpoint, "GET", "/subscriptions?api-version=2022-12-01")[0] == 200
    (home / "laptop.json").rmdir()
    assert local.status(home) == before


def test_a_private_laptop_is_deleted() -> None:
    with local.laptop(time_scale=0.05) as endpoint:
        assert send(endpoint, "GET", "/laptop/status")[0] == 200
        assert local.status(endpoint.home)["running"]
    assert not endpoint.home.exists()


def test_certificates_are_kept_and_renewed(home: Path) -> None:
    local.start(home, settings=FAST)
    authority = (home / "ca.pem").read_bytes()
    server = (home / "server.pem").read_bytes()
    local.stop(home=home)
    (home / "server.pem").write_bytes(b"broken")
    send(local.start(home, settings=FAST), "GET", "/laptop/status")
    assert (home / "ca.pem").read_bytes() == authority
    assert (home / "server.pem").read_bytes() not in (server, b"broken")


def test_a_corrupt_database(home: Path) -> None:
    home.mkdir()
    (home / "arm.db").write_bytes(b"this is not SQLite" * 100)
    with pytest.raises(LaptopError, match=r"arm\.db cannot be read") as caught:
        local.start(home, settings=FAST)
    assert "AKSGPU_HOME" in caught.value.hint
    assert "file is not a database" in str(caught.value)
    assert str(caught.value).count("cannot be read") == 1  # the log is only shown for starts that report no error


def test_a_cluster_with_a_corrupt_store_fails_alone(home: Path) -> None:
    make_cluster(local.start(home, settings=FAST))
    local.stop(home=home)
    (store,) = (home / "clusters").glob("*/kube.db")
    for file in store.parent.glob("kube.db*"):
        file.write_bytes(b"this is not SQLite" * 100)
    endpoint = local.start(home, settings=FAST)
    path = f"{CLUSTER}?api-version=2026-08-01"
    properties = send(endpoint, "GET", path)[1]["properties"]
    assert properties["provisioningState"] == "Failed"
    assert "store cannot be read" in properties["status"]["provisioningError"]["message"]
    assert send(endpoint, "DELETE", path)[0] == 202
    wait_for(lambda: local.status(home)["clusters"] == [])


def test_homes_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaptopError, match="Not a directory") as caught:
        local.start(tmp_path / "file" / "home")
    assert "AKSGPU_HOME" in caught.value.hint
    for ask in (local.status, lambda home: local.stop(home=home)):
        with pytest.raises(LaptopError, match="File name too long"):  # as for a file that cannot be read
            ask(tmp_path / ("x" * 300))
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(LaptopError, match="belongs to another user"):
        local.start(tmp_path / "other")


def test_a_start_that_fails_shows_the_end_of_the_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "laptop.log").write_text("earlier\n")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LaptopError, match="earlier"):
        local.start(home)


@pytest.mark.parametrize("settings", [{"time_scale": 0}, {"idle_seconds": -1}, {"time_scale": float("nan")}])
def test_invalid_settings(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        Settings(**settings)


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AKSGPU_TIME_SCALE", "0.5")
    assert Settings.from_environment() == Settings(time_scale=0.5)
    monkeypatch.setenv("AKSGPU_TIME_SCALE", "fast")
    with pytest.raises(InvalidInput, match="AKSGPU_TIME_SCALE"):
        Settings.from_environment()


def test_status_from_several_threads(home: Path) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(local.status(home)["running"])) for _ in range(8)]
    local.start(home, settings=FAST)
    local.stop(home=home)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [False] * 8


def test_a_private_laptop_that_does_not_start_keeps_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(LaptopError, match="did not start") as failed, local.laptop():
        raise AssertionError("it cannot have started")
    (place,) = tmp_path.glob("aksgpu-*")
    assert failed.value.hint == f"The whole log is {place / 'laptop.log'}."
    assert (place / "laptop.log").exists()


def test_a_home_that_others_may_write_into_is_closed_to_them(home: Path) -> None:
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    local.start(home, settings=FAST)
    assert home.stat().st_mode & 0o777 == 0o700
    local.stop(home=home)
    home.chmod(0o775)
    local.start(home, settings=FAST)
    assert home.stat().st_mode & 0o777 == 0o700, "it was a home before"


def test_a_shared_directory_is_refused(home: Path) -> None:
    home.mkdir()
    home.chmod(0o775)
    (home / "notes.txt").touch()
    with pytest.raises(LaptopError, match="other users may write into it") as caught:
        local.start(home, settings=FAST)
    assert f"chmod go-w {home}" in caught.value.hint
    assert home.stat().st_mode & 0o777 == 0o775
    home.chmod(0o755)
    assert local.start(home, settings=FAST).home == home


def test_too_few_open_files(home: Path) -> None:
    program = (
        "import resource\n"
        "from aksgpu import local\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n    local.start()\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    env = {**os.environ, "AKSGPU_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("LaptopError the laptop AKS needs at least 256 open files, and this system allows 64")
    assert "ulimit -n" in done.stdout


def test_a_low_limit_that_may_be_raised_is_raised(home: Path) -> None:
    program = (
        "import resource\n"
        "from aksgpu import local\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "local.start()\n"
        "print(local.status()['pid'])\n"
    )
    env = {**os.environ, "AKSGPU_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    limits = Path(f"/proc/{done.stdout.strip()}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert int(line.split()[3]) >= 256


def test_a_user_without_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    for name in ("HOME", "AKSGPU_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(LaptopError, match="home directory is not known") as caught:
        local.status()
    assert "AKSGPU_HOME" in caught.value.hint


def test_a_full_disk_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    usage = shutil.disk_usage(home)._replace(free=4096)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    error = process._start_error(home)
    assert "no space is left on the disk of" in str(error)
