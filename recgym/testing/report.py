"""What a conformance check found, and how it tells it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from recgym.errors import RecGymError


@dataclass(frozen=True)
class Finding:
    """One thing that does not conform."""

    rule: str
    problem: str
    advice: str  # what to change

    def __str__(self) -> str:
        return f"[{self.rule}] {self.problem}. {self.advice}"


class ConformanceError(RecGymError, AssertionError):
    """Something does not conform; the message holds every finding, each with what to change."""

    def __init__(self, kind: str, subject: str, findings: list[Finding]) -> None:
        """What was checked, and at least one finding."""
        self.findings = tuple(findings)
        lines = [f"{kind} {subject} does not conform:", *(f"  {finding}" for finding in findings)]
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Report:
    """What was checked and holds."""

    kind: str
    subject: str
    rules: tuple[str, ...]
    hints: tuple[str, ...]  # on speed, and on what could not be checked here

    def __str__(self) -> str:
        lines = [f"{self.kind} {self.subject} conforms: {', '.join(self.rules)}"]
        return "\n".join([*lines, *(f"  hint: {hint}" for hint in self.hints)])


@dataclass
class Checks:
    """Findings as they come in."""

    kind: str
    subject: str
    rules: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def expect(self, holds: bool, rule: str, problem: str, advice: str) -> bool:
        """Notes a finding unless ``holds``, which is returned; the same finding twice counts once."""
        if rule not in self.rules:
            self.rules.append(rule)
        finding = Finding(rule, problem, advice)
        if not holds and finding not in self.findings:
            self.findings.append(finding)
        return holds

    def attempt(self, rule: str, what: str, advice: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """What ``call`` returns.

        Raises:
            ConformanceError: it raised.
        """
        try:
            return call(*arguments)
        except ConformanceError:
            raise
        except Exception as error:
            self.expect(False, rule, f"{what} raised {type(error).__name__}: {error}", advice)
            raise self.error() from error

    def settle(self) -> None:
        """Goes on only without findings: what follows would fail for the same reason.

        Raises:
            ConformanceError: there are findings.
        """
        if self.findings:
            raise self.error()

    def error(self) -> ConformanceError:
        """The findings as an error."""
        return ConformanceError(self.kind, self.subject, self.findings)

    def report(self) -> Report:
        """All that holds.

        Raises:
            ConformanceError: there are findings.
        """
        self.settle()
        return Report(self.kind, self.subject, tuple(self.rules), tuple(dict.fromkeys(self.hints)))
