"""The leaderboard and the paired differences, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from recgym.evaluation.metrics import METRICS
from recgym.evaluation.statistics import Comparison, Estimate
from recgym.evaluation.summary import Line, ScenarioSummary, Summary

# What the short table shows; the report and the JSON file hold every metric.
COLUMNS = ("reward_per_step", "session_depth", "hit_rate", "discoveries")
_TITLES = {metric.id: metric.title for metric in METRICS}
_SHARES = {"hit_rate", "precision"}


def number(value: float | None) -> str:
    """Three significant digits or two decimals, whichever says more; a dash for nothing."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def value(metric: str, estimate: Estimate | None) -> str:
    """The point estimate of a metric as text."""
    if estimate is None:
        return "–"
    return f"{estimate.value:.1%}" if metric in _SHARES else number(estimate.value)


def interval(estimate: Estimate, *, signed: bool = False) -> str:
    """An estimate with its interval, such as ``+0.41 [0.35, 0.47]``."""
    sign = "+" if signed and estimate.value > 0 else ""
    ends = "" if estimate.low != estimate.low else f" [{number(estimate.low)}, {number(estimate.high)}]"
    return f"{sign}{number(estimate.value)}{ends}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{value:.1%}"


INTERVALS = (
    "Intervals are over users and their luck. A trained agent is one training run: another seed may rank otherwise, so "
    "train several before you trust a small difference."
)


def headline(part: ScenarioSummary) -> str:
    """The main finding of a scenario in one sentence."""
    best = (part.competitors or list(part.lines))[0]
    text = f"{best.agent} earns the most: {interval(best.scores['reward'])} an episode"
    for comparison in part.comparisons:
        if comparison.first == best.agent:
            text += f", {interval(comparison.difference, signed=True)} against {comparison.second}"
            break
    return f"{text}, on the same {part.num_users:,} users."


def render(summary: Summary) -> RenderableType:
    """The tables of all scenarios, for a rich console."""
    pieces: list[RenderableType] = []
    for part in summary.scenarios:
        pieces += [_table(part), *_differences(part), Text("")]
    return Group(*pieces)


def show(summary: Summary, console: Console | None = None) -> None:
    """Prints ``render``."""
    (console or Console()).print(render(summary))


def markdown(summary: Summary) -> str:
    """The tables of all scenarios as Markdown."""
    lines: list[str] = ["# RecGym evaluation", ""]
    for part in summary.scenarios:
        lines += [f"## {part.scenario}", "", headline(part), "", *_markdown_table(part), ""]
        lines += ["Paired differences in reward, 95% intervals clustered by user:", ""]
        lines += [f"- {sentence(comparison)}" for comparison in part.comparisons]
        lines += ["", INTERVALS, ""]
    return "\n".join(lines)


def sentence(comparison: Comparison) -> str:
    """A comparison in words, such as ``frequency - popularity: +0.41 [0.35, 0.47], ahead in 62% of episodes``."""
    gap = interval(comparison.difference, signed=True)
    return f"{comparison.first} - {comparison.second}: {gap}, better with chance {comparison.improvement.value:.0%}"


def _cells(line: Line, part: ScenarioSummary) -> Iterator[str]:
    yield interval(line.scores["reward"])
    for metric in COLUMNS:
        yield value(metric, line.scores.get(metric))
    yield share(line.coverage)


def _headings() -> list[str]:
    return ["agent", "reward [95%]", *(_TITLES[metric] for metric in COLUMNS), "coverage"]


def _table(part: ScenarioSummary) -> Table:
    table = Table(
        title=f"{part.scenario}: {part.num_users:,} users, {part.num_episodes:,} episodes an agent",
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for at, heading in enumerate(_headings()):
        table.add_column(heading, justify="left" if at == 0 else "right", no_wrap=True)
    for at, line in enumerate(part.lines):
        if line.privileged and at and not part.lines[at - 1].privileged:
            table.add_section()
        name = f"{line.agent} *" if line.privileged else line.agent
        table.add_row(name, *_cells(line, part), style="dim" if line.privileged else None)
    if any(line.privileged for line in part.lines):
        table.caption = "* sees the users' hidden state: a bound, not a competitor"
        table.caption_justify = "left"
    return table


def _differences(part: ScenarioSummary) -> Iterator[Text]:
    if part.comparisons:
        yield Text("Paired differences in reward on identical users and luck, 95% intervals", style="bold")
        yield Text(INTERVALS, style="dim")
    width = max((len(f"{c.first} - {c.second}") for c in part.comparisons), default=0)
    for comparison in part.comparisons:
        gap = comparison.difference
        style = "green" if gap.low > 0 else "red" if gap.high < 0 else "yellow"
        names = f"{comparison.first} - {comparison.second}:".ljust(width + 1)
        text = Text(f"  {names} ").append(f"{interval(gap, signed=True):<22}", style=style)
        yield text.append(f" better with chance {comparison.improvement.value:.0%}", style="dim")


def _markdown_table(part: ScenarioSummary) -> Iterator[str]:
    headings = _headings()
    yield f"| {' | '.join(headings)} |"
    yield f"|---|{'---:|' * (len(headings) - 1)}"
    for line in part.lines:
        name = f"{line.agent} (privileged)" if line.privileged else line.agent
        yield f"| {name} | {' | '.join(_cells(line, part))} |"
