"""Measures how faithful the laptop AKS is: recorded exchanges, and the end-to-end suites of other Kubernetes clients.

    python benchmarks/foreign_suites.py --sources DIRECTORY [--write]

The directory has the unpacked sources of kr8s, kubernetes, lightkube and kubernetes_asyncio: source distributions from
PyPI, or checkouts of their repositories where these lack the tests. The suites need pytest-asyncio and pytest-timeout;
kr8s also needs trio and httpx-ws before 0.8. ``foreign_suites.toml`` lists the tests that are outside the laptop's
scope, with reasons. ``--write`` puts the result into docs/fidelity.md.

The pods of the suites use the images pause and nginx. Programs of this machine take their place. That of nginx writes
to /usr/share/nginx/html, so run this in a container or on a machine where that does not matter.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aksgpu
from aksgpu import cluster, local

HERE = Path(__file__).parent
ROOT = HERE.parent
REPLAYS = ("tests/local/api_http/test_replay.py", "tests/local/whole/test_replay.py")
PAGE = ROOT / "docs" / "fidelity.md"
BEGIN = "<!-- foreign suites: written by benchmarks/foreign_suites.py -->\n"
END = "<!-- end of foreign suites -->\n"
TIMEOUT_SECONDS = 60
"""Longest time of one test."""
PAUSES = ("gcr.io/google_containers/pause", "registry.k8s.io/pause:3.9")
NGINX_FILES = Path("/usr/share/nginx/html")
NGINX = f"""
import functools, http.server, socket
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory={str(NGINX_FILES)!r})
http.server.ThreadingHTTPServer((socket.gethostbyname(socket.gethostname()), 80), handler).serve_forever()
"""
"""Answers on port 80 of the pod's own address."""


class Result(NamedTuple):
    """The result of one suite."""

    name: str
    source: str
    passed: int
    skipped: int
    outside: dict[str, int]
    failed: list[str]


@contextmanager
def prepared_cluster(folder: Path) -> Iterator[Path]:
    """Create a cluster with what the suites expect of every cluster, and return its kubeconfig."""
    os.environ["AKSGPU_HOME"] = str(folder / "home")
    NGINX_FILES.mkdir(parents=True, exist_ok=True)
    (NGINX_FILES / "index.html").write_text("Welcome to nginx!")
    for image in PAUSES:
        local.images.register(image, ["sleep", "infinity"])
    local.images.register("nginx", [sys.executable, "-c", NGINX])
    for tag in ("latest", "1.21.4"):
        local.images.register(f"nginx:{tag}", [sys.executable, "-c", NGINX])
    azure = aksgpu.connect("local")
    aks = cluster.create(azure, "foreign", resource_group="foreign", location="eastus", node_count=1)
    kubeconfig = cluster.kubeconfig(aks)
    kubectl(kubeconfig, "create", "serviceaccount", "default")
    for name in ("coredns-0", "metrics-server-0"):
        command = ("--", "sleep", "infinity")
        kubectl(kubeconfig, "-n", "kube-system", "run", name, "--image=busybox", f"--labels=k8s-app={name}", *command)
        kubectl(kubeconfig, "-n", "kube-system", "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
    try:
        yield kubeconfig
    finally:
        local.stop()


def kubectl(kubeconfig: Path, *args: str) -> None:
    """Run kubectl."""
    subprocess.run(["kubectl", f"--kubeconfig={kubeconfig}", *args], check=True, stdout=subprocess.DEVNULL)


def run(suite: dict[str, Any], source: Path, kubeconfig: Path, folder: Path) -> Result:
    """Run one suite."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    path = [str(HERE / "stand_ins"), str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    home = folder / "user"
    (home / ".kube").mkdir(parents=True, exist_ok=True)
    (home / ".kube" / "config").write_bytes(kubeconfig.read_bytes())
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "HOME": str(home)}
    env |= {"FOREIGN_KUBECONFIG": str(kubeconfig), "KUBECONFIG": str(home / ".kube" / "config")}
    options = ["-o", "addopts=", "-o", "asyncio_mode=auto", "-p", "foreign_plugin", "-p", "no:cacheprovider", "-q"]
    tests = [test for test in suite["tests"] if (source / test).exists()]
    command = [sys.executable, "-m", "pytest", *options, f"--timeout={TIMEOUT_SECONDS}", f"--junitxml={report}", *tests]
    subprocess.run(command, cwd=source, env=env, check=False)
    return read(suite, source.name, report)


def read(suite: dict[str, Any], source: str, report: Path) -> Result:
    """Return the result in a report of pytest."""
    passed = 0
    skipped = 0
    outside: dict[str, int] = {}
    failed: list[str] = []
    for case in ET.parse(report).getroot().iter("testcase"):
        name = str(case.get("name"))
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            reasons = [why for pattern, why in suite["outside"].items() if re.search(pattern, name)]
            if reasons:
                outside[reasons[0]] = outside.get(reasons[0], 0) + 1
            else:
                failed.append(name)
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return Result(suite["name"], source, passed, skipped, outside, failed)


def replay() -> str:
    """Send the recorded exchanges again, and return a sentence about the result."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support import recorded

    paths = [path for row in recorded.INTENDED for path in row.get("paths", ())]
    exchanges = list(recorded.every_exchange())
    compared = [each for each in exchanges if not any(re.match(path, each["path"]) for path in paths)]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-n", "0", *REPLAYS], cwd=ROOT, check=False)
    result = f"{len(compared)} of {len(compared)} equal" if done.returncode == 0 else "not all equal"
    lines = (ROOT / "docs" / "differences.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| Difference")]
    return (
        f"Recorded exchanges with a real cluster: {len(exchanges)}. Compared: {len(compared)}, {result}. The others\n"
        f"cover intended differences, such as discovery. Intended differences: {len(rows)}.\n"
    )


def table(results: list[Result], missing: list[str]) -> str:
    """Return the results as Markdown."""
    lines = [f"Last run: {datetime.now(UTC):%Y-%m-%d}, aksgpu {aksgpu.__version__}.\n"]
    lines += [
        "| Suite | Source | Passed | In scope | Outside the scope | Skipped by the suite |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        in_scope = result.passed + len(result.failed)
        out = sum(result.outside.values())
        row = (result.name, result.source, result.passed, in_scope, out, result.skipped)
        lines.append(f"| {' | '.join(map(str, row))} |")
    passed = sum(result.passed for result in results)
    in_scope = passed + sum(len(result.failed) for result in results)
    lines += ["", f"Passed: {passed} of {in_scope} in scope.", "", "Tests that fail, and why:", ""]
    for result in results:
        lines += [f"- {result.name}, {count}: {why}." for why, count in result.outside.items()]
        lines += [f"- {result.name}: `{name}`." for name in result.failed]
    lines += [f"- {name}: its sources were not there." for name in missing]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all suites whose sources are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    suites = tomllib.loads((HERE / "foreign_suites.toml").read_text())["suite"]
    results: list[Result] = []
    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="foreign-") as name:
        folder = Path(name)
        with prepared_cluster(folder) as kubeconfig:
            for suite in suites:
                found = [
                    path
                    for path in sorted(options.sources.glob(suite["sources"]))
                    if (path / suite["tests"][0]).exists()
                ]
                if found:
                    results.append(run(suite, found[-1], kubeconfig, folder))
                else:
                    missing.append(suite["name"])
    shown = replay() + "\n" + table(results, missing)
    print(shown)
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + shown + END + rest.partition(END)[2])
    return 1 if missing or any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
