"""Every regular expression of the package reads its input in linear time.

With a pattern that backtracks, one line of a log, one event or one request can hang a notebook or the laptop AKS.
"""

from __future__ import annotations

import ast
import importlib
import re
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

import pytest
import yaml

import aksgpu
from aksgpu import errors, metrics
from aksgpu.azure import error_parsing
from aksgpu.common import quantities
from aksgpu.diagnose import gpu_failures, scheduling_events
from aksgpu.local import name_formats, selectors
from aksgpu.local.images import image_registry
from aksgpu.local.node import environment

PACKAGE = Path(aksgpu.__file__).parent
SHORT = 4_000
"""Characters of a hostile text. A quadratic pattern needs seconds of CPU for it, a linear one less than a ms."""
SLOW = 0.005
"""Seconds of CPU after which a pattern is tried on twice the text."""


class Expression(NamedTuple):
    """A regular expression of the package, and how it is used."""

    where: str
    method: str
    pattern: re.Pattern[Any]


def expressions() -> Iterator[Expression]:
    """Every pattern in the package's code and in its data files."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text()
        if "import re\n" not in source:
            continue
        module = importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if not isinstance(node.func.value, ast.Name) or node.func.value.id != "re" or not node.args:
                continue
            if node.func.attr not in ("compile", "search", "match", "fullmatch", "findall", "finditer", "sub", "split"):
                continue
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            try:
                text = eval(compile(ast.Expression(node.args[0]), where, "eval"), vars(module).copy())
            except NameError:  # built from local variables: those are listed in `built`
                continue
            flags = [arg for arg in node.args[1:] if ast.unparse(arg).startswith("re.")]
            flags += [keyword.value for keyword in node.keywords if keyword.arg == "flags"]
            value = sum(eval(compile(ast.Expression(flag), where, "eval"), {"re": re}) for flag in flags)
            yield Expression(where, method_of(node, source), re.compile(text, value))
    for where, text in built():
        yield Expression(where, "search", re.compile(text, re.S))


def method_of(call: ast.Call, source: str) -> str:
    """Return how a pattern is used: by the call itself, or by the methods that are called on its variable."""
    assert isinstance(call.func, ast.Attribute)
    if call.func.attr != "compile":
        return call.func.attr
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == ast.unparse(call):
            used = set(re.findall(rf"\b{ast.unparse(node.targets[0])}\.(\w+)\(", source))
            return used.pop() if len(used) == 1 else "search"
    return "search"


def built() -> Iterator[tuple[str, str]]:
    """Patterns that the code reads from tables."""
    for log_rule in gpu_failures.LOG_RULES:
        yield "gpu_failures.LOG_RULES", log_rule.pattern
    for row in image_registry._BUILTIN:
        yield "image_registry._BUILTIN", rf"^{row[0]}(:[^:/@]+|@.+)$"
    rules = yaml.safe_load(files("aksgpu.local.api").joinpath("data", "rules.yaml").read_text())
    for name, form in rules["formats"].items():
        yield f"rules.yaml {name}", f"^(?:{form['pattern']})$"


def samples(tree: Any) -> list[str]:
    """Return texts that a parsed pattern matches: one for each branch."""
    found = [""]
    for code, value in tree:
        pieces = _samples_of(code, value)
        found = [text + piece for text in found for piece in pieces][:12]
    return found


def _samples_of(code: Any, value: Any) -> list[str]:
    if code is sre.LITERAL:
        return [chr(value)]
    if code is sre.NOT_LITERAL:
        return ["x" if chr(value) != "x" else "y"]
    if code is sre.ANY:
        return ["x"]
    if code is sre.IN:
        return [_member(value)]
    if code is sre.SUBPATTERN:
        return samples(value[-1])
    if code is sre.ATOMIC_GROUP:
        return samples(value)
    if code is sre.BRANCH:
        return [text for branch in value[1] for text in samples(branch)]
    if code in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
        least, most, inner = value
        return [text * max(least, min(most, 2)) for text in samples(inner)]
    return [""]  # positions and assertions match no text


def _member(options: Any) -> str:
    """Return a character of a set."""
    classes = {sre.CATEGORY_DIGIT: "1", sre.CATEGORY_WORD: "a", sre.CATEGORY_SPACE: " ", sre.CATEGORY_NOT_SPACE: "a"}
    if options[0][0] is sre.NEGATE:
        taken = {chr(value) for code, value in options if code is sre.LITERAL}
        taken |= {" "} if any(code is sre.CATEGORY for code, _ in options) else set()
        return next(character for character in "x1 /\n" if character not in taken)
    code, value = options[0]
    if code is sre.RANGE:
        return chr(value[0])
    return classes[value] if code is sre.CATEGORY else chr(value)


def hostile(sample: str) -> Iterator[tuple[str, str, str]]:
    """Return beginnings, parts to repeat, and ends of a text that a pattern matches."""
    cuts = sorted({0, len(sample), *(i for i in range(len(sample)) if i < 12 or i > len(sample) - 24 or i % 5 == 0)})
    for end in ("", "\x00", "\n!"):
        for start in cuts:
            for length in (1, 2, 3, len(sample)):
                part = sample[start : start + length]
                if part:
                    yield sample[:start], part, end
            if sample[:start]:
                yield "", sample[:start], end
        for space in " \n":
            yield sample, space, f"x{end}"


def seconds(expression: Expression, text: str) -> float:
    pattern = expression.pattern
    subject = text.encode() if isinstance(pattern.pattern, bytes) else text
    method = getattr(pattern, expression.method if expression.method in ("match", "fullmatch") else "search")
    use = (lambda: pattern.sub(subject[:0], subject)) if method.__name__ == "search" else (lambda: method(subject))
    began = time.thread_time()
    use()
    return time.thread_time() - began


@pytest.mark.parametrize("expression", list(expressions()), ids=lambda e: e.where)
def test_no_pattern_backtracks(expression: Expression) -> None:
    source = expression.pattern.pattern
    tree = parser.parse(source.decode() if isinstance(source, bytes) else source, expression.pattern.flags & ~re.U)
    assert not backtracks(expression, samples(tree))


def backtracks(expression: Expression, texts: list[str]) -> str:
    """Return a text for which the time grows faster than its length; empty if none is found."""
    for sample in texts:
        for start, part, end in hostile(sample):
            text = start + part * (SHORT // len(part)) + end
            if seconds(expression, text) < SLOW:
                continue
            once = min(seconds(expression, text) for _ in range(3))
            double = start + part * (2 * SHORT // len(part)) + end
            if once > SLOW / 2 and min(seconds(expression, double) for _ in range(3)) > 3 * once:
                return repr((start, part, end))
    return ""


@pytest.mark.parametrize(
    ("pattern", "sample"),
    [
        (r"name: (?P<model>[^\n]+?) major: \d+", "name: xx major: 11"),
        (r"\s*(?:For more details).*", "  For more details xx"),
        (r"^(?:[0-9]+\.?[0-9]*)$", "11.11"),
    ],
)
def test_the_search_finds_patterns_that_backtrack(pattern: str, sample: str) -> None:
    assert samples(parser.parse(pattern)), "the generator reads it"
    assert backtracks(Expression("here", "search", re.compile(pattern)), [sample])


def expect(kind: type[BaseException], call: Callable[[], Any]) -> None:
    with pytest.raises(kind):
        call()


def event(text: str) -> Any:
    return scheduling_events.from_event("FailedScheduling", text)


def scale_up(text: str) -> Any:
    return scheduling_events.from_event("NotTriggerScaleUp", text)


def azure_refusal(text: str) -> Any:
    return error_parsing.recognise({"error": {"code": "X", "message": text}}, http_status=400)


HOSTILE: dict[str, tuple[Callable[[str], Any], str, str, str]] = {
    "model of a device": (metrics.parse, "", "name: ", ""),
    "facts alone": (metrics.facts, "", "name: ", ""),
    "model with numbers": (metrics.facts, "", "name: x major: 1 ", ""),
    "device": (metrics.facts, "", "Creating device /device:GPU:0", ""),
    "device names without a space": (metrics.facts, "Creating device /", "device:GPU:0", ""),
    "device and arrow": (metrics.facts, "Creating device /device:GPU:0", " -> device: 1, name: ", ""),
    "memory": (metrics.facts, "", "totalMemory: 1", ""),
    "long number": (metrics.parse, "Accuracy at step 1: ", "1", "x"),
    "long number with a point": (metrics.parse, "Accuracy at step 1: 1.", "1", "x"),
    "many numbers": (metrics.parse, "", "Accuracy at step 1: 1", ""),
    "spaces": (metrics.parse, "", " ", "Accuracy at step 1: 0.5x"),
    "escape sequences": (metrics.parse, "Accuracy at step 1:", "\x1b[1;", ""),
    "carriage returns": (metrics.parse, "Accuracy at step 1: x", "\r", ""),
    "event of the scheduler": (event, "", "0/1 nodes are available: ", ""),
    "open braces": (event, "0/1 nodes are available: ", "1 a{", ""),
    "digits": (event, "0/1 nodes are available: ", "1", ""),
    "event of the autoscaler": (scale_up, "", "pod didn't trigger scale-up (", ""),
    "log of a driver": (gpu_failures.from_log, "", "Driver/library version mismatch NVML library version: ", ""),
    "quota": (azure_refusal, "", "Insufficient vcpu quota requested 1, remaining 1 for family ", ""),
    "approved quota": (azure_refusal, "", "exceeding approved a quota. Location: b, Current Limit: 1 ", ""),
    "unsupported size": (azure_refusal, "", "Virtual Machine size: 'a' is not supported for subscription ", ""),
    "zones": (azure_refusal, "", "zone(s) 1 for resource ", ""),
    "constraints": (azure_refusal, "Allocation failed. Constraints applied are:", "\n", "x"),
    "spaces in constraints": (azure_refusal, "Allocation failed. Constraints applied are:\n - a", " ", "x"),
    "operation": (azure_refusal, "", "Another operation (", ""),
    "spaces in a refusal": (azure_refusal, "", " ", "x"),
    "sizes": (azure_refusal, "SkuNotAvailable Standard_", "NC6", " available VM sizes are a"),
    "braces in a refusal": (azure_refusal, '"', '{"error":', ""),
    "spaces in a selector": (lambda text: expect(BaseException, lambda: selectors.parse_labels(text)), "a", " ", "x"),
    "set in a selector": (lambda text: expect(BaseException, lambda: selectors.parse_labels(text)), "a in (", " ", "x"),
    "quantity": (lambda text: expect(ValueError, lambda: quantities.parse(text)), "", "1", "x"),
    "reference in a command": (lambda text: environment.expand(text, {}), "", "$(", ""),
    "name of a quota": (lambda text: name_formats.format_problems("quota-name", text), "", "a/", "\n"),
    "name": (lambda text: name_formats.format_problems("subdomain", text), "", "a.", "!"),
    "image": (lambda text: expect(errors.InvalidInput, lambda: image_registry.normalise(text)), "a", ":a", "!"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_twice_the_input_takes_less_than_three_times_as_long(case: str) -> None:
    call, start, part, end = HOSTILE[case]
    call(start + part + end)  # imports and caches on first use do not count

    def cpu(length: int) -> float:
        took = []
        for attempt in range(5):
            text = start + part * (length // len(part)) + end + " " * (attempt if not end else 0)
            began = time.thread_time()
            call(text)
            took.append(time.thread_time() - began)
        return statistics.median(took)

    measured = []
    for _ in range(4):  # other programs may disturb one measurement, but hardly all four
        once = cpu(60_000)
        assert once < 1.0, "60 KB take a fraction of a second"
        twice = cpu(120_000)
        measured.append(f"{once:.4f} s, then {twice:.4f} s")
        if twice < 3 * once or twice < 0.01:
            return
    raise AssertionError("; ".join(measured))
