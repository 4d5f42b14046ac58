"""The report: self-contained, complete, and the same findings as Markdown and JSON."""

from __future__ import annotations

import dataclasses
import html.parser
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from recgym import cli
from recgym.agents.training import trained
from recgym.errors import RecGymError
from recgym.evaluation import report, table
from recgym.evaluation.runner import evaluate
from recgym.evaluation.store import FORMAT_VERSION
from recgym.evaluation.summary import summarise, summarise_run
from recgym.scenario import load_scenario
from recgym.testing.worlds import tiny_world
from recgym.worlds.world import World

AGENTS = ("random", "popularity", "frequency", "greedy")


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    patient = load_scenario("default", {"name": "patient", "behaviour.patience": 0.02})
    evaluate(world, ["default", patient], AGENTS, users=15, seeds=2, out=out, progress=False, command="recgym <test>")
    curve = {"scenario": "default", "agent": "ppo", "steps": [0, 1000, 2000], "reward": [0.1, 0.3, 0.4]}
    pd.DataFrame(curve).to_parquet(out / "training.parquet")
    report.write_report(out)
    return out


class Resources(html.parser.HTMLParser):
    """Collects what a browser would fetch, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br", "link", "img", "hr"}:
            self.open.append(tag)
        for name, value in attrs:
            fetches = name in {"src", "srcset", "data", "poster"} or (name.endswith("href") and tag != "a")
            if fetches and not (value or "").startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_needs_no_network(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    found = Resources()
    found.feed(text)
    assert found.fetched == [] and found.open == []
    assert "http://" not in text and "https://" not in text
    assert not re.search(r"url\((?!#)", text) and "@import" not in text and "<script" not in text
    assert len(text) < 1_500_000


def test_ids_of_the_figures_do_not_clash(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    given = re.findall(r'\bid="([^"]+)"', text)
    assert len(given) == len(set(given))
    assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', text)) <= set(given)


def test_report_shows_every_agent_scenario_and_the_provenance(run: Path, world: World) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    for agent in AGENTS:
        assert f"<td>{agent}</td>" in text
    for number, scenario in enumerate(("default", "patient"), start=1):
        assert f'<a href="#scenario-{number}">{scenario}</a>' in text and f'<section id="scenario-{number}"' in text
        assert f'<h2 class="name">{scenario}</h2>' in text
    assert "Which agent earns most on one trip of a user who is known from the log?" in text
    assert "Against popularity" in text and "Against random" in text
    assert "Learning" in text and "Who gains" in text
    assert "A bound, not a competitor" in text
    assert world.hash[:16] in text
    assert "recgym &lt;test&gt;" in text and "recgym <test>" not in text
    assert "Slate 1" in text and "Item " in text and "✓" in text
    for figure in ("Performance profile", "Reward and NDCG of first slates", "Who is shown, by brand"):
        assert text.count(figure) == 2, figure
    assert text.count("<svg") == 2 * 11 + 1


def test_metrics_stand_in_tables_by_family_with_what_was_left_out(run: Path, world: World) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    for family in ("Engagement", "Accuracy", "Beyond accuracy", "Warm users", "Fairness to providers by brand"):
        assert f"<summary>{family} <span" in text, family
    assert "&lt;span" not in text
    assert re.search(r'<td>0\.\d+ <span class="range">\[0\.\d+, 0\.\d+\]</span></td>', text)
    for reason in ("episodes are single visits", "under 50 its mean is mostly noise", "the users are no ensemble"):
        assert reason in text
    found = json.loads((run / "summary.json").read_text(encoding="utf-8"))["scenarios"][0]
    table = pd.read_parquet(run / "metrics.parquet")
    assert len(found["measures"]) == (table["scenario"] == "default").sum() > 300
    assert {one["metric"] for one in found["left_out"]} >= {"return time", "gaps in reward, parity, opportunity by age"}
    p_values = {(one["first"], one["second"]): one["p_value"] for one in found["comparisons"]}
    for (first, second), value in p_values.items():
        assert value is None if first == "greedy" else 0 < value <= 1
        assert first == "greedy" or value == p_values[second, first]  # one test, told from both sides
    assert "### Accuracy" in (run / "report.md").read_text(encoding="utf-8")


def test_figures_take_their_colours_from_the_theme(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    body = text[text.index("<body>") :]
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", body)
    for variable in set(re.findall(r"var\((--[\w-]+)\)", text)):
        assert text.count(f"{variable}: #") == 2, f"{variable} needs a light and a dark value"


def test_report_is_the_same_when_written_again(run: Path) -> None:
    before = (run / "report.html").read_bytes()
    assert (run / "report.html").read_bytes() == before


def test_markdown_and_json_hold_the_same_findings(run: Path) -> None:
    found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    text = (run / "report.md").read_text(encoding="utf-8")
    assert [part["scenario"] for part in found["scenarios"]] == ["default", "patient"]
    board = found["scenarios"][0]["leaderboard"]
    assert board[-1]["agent"] == "greedy" and board[-1]["privileged"]
    competitors = [line["metrics"]["reward"]["value"] for line in board[:-1]]
    assert competitors == sorted(competitors, reverse=True)
    assert f"| {board[0]['agent']} | {board[0]['metrics']['reward']['value']:.2f} [" in text
    assert len(found["scenarios"][0]["comparisons"]) == 9
    assert re.search(r"- greedy - popularity: [+-]?\d+\.\d\d \[-?\d+\.\d\d, -?\d+\.\d\d\]", text)


def test_the_headline_says_what_the_data_do_not_tell_apart(run: Path) -> None:
    rows = pd.read_parquet(run / "rows.parquet").query("scenario == 'default'")
    first = summarise(rows, draws=50).scenarios[0].competitors[0].agent
    twin = rows[rows["agent"] == first].assign(agent="twin")
    part = summarise(pd.concat([rows, twin]), references=["random"], draws=200).scenarios[0]
    best, next_one = (line.agent for line in part.competitors[:2])
    assert {best, next_one} == {first, "twin"} and part.references == ["random"]
    text = table.headline(part)
    assert text.startswith(f"{best} has the highest mean: ") and text.endswith(f"; not told apart from {next_one}.")
    assert f"0.00 [0.00, 0.00] against {next_one} and +" in text and "against random, on the same 15 users" in text
    alone = table.headline(summarise(rows[rows["agent"] == "random"], draws=50).scenarios[0])
    assert "against" not in alone and alone.endswith("on the same 15 users.")


def test_terminal_table_fits_and_names_everyone(run: Path) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    table.show(summarise_run(run), console)
    text = console.export_text()
    for agent in AGENTS:
        assert agent in text
    assert "greedy *" in text and "a bound, not a competitor" in text
    assert "frequency - popularity:" in text


def test_rows_alone_can_be_summarised(run: Path) -> None:
    rows = pd.read_parquet(run / "rows.parquet")
    summary = summarise(rows[rows["agent"].isin(["frequency", "greedy"])], draws=50)
    assert summary.scenarios[0].references == ["frequency"]
    assert "–" in table.markdown(summary)  # no coverage without exposures
    assert "Leaderboard" in report.render(summary, pd.DataFrame())


def test_one_user_gives_a_report_without_intervals(world: World, tmp_path: Path) -> None:
    evaluate(world, agents=["random", "popularity"], users=1, seeds=1, out=tmp_path, progress=False)
    text = report.write_report(tmp_path).read_text(encoding="utf-8")
    assert "nan" not in re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL).lower().split("provenance")[0]


def test_a_world_of_ratings_has_no_prices(tmp_path: Path) -> None:
    films = tiny_world(tmp_path / "films", kind="rating", num_items=150, num_users=15)
    films = dataclasses.replace(films, items=films.items.drop(columns=["price", "discount"], errors="ignore"))
    rows = evaluate(films, agents=["random", "greedy"], users=8, seeds=1, out=tmp_path / "run", progress=False)
    assert rows["revenue"].isna().all() and (rows["rating_sum"] <= 5 * rows["num_rated"]).all()
    text = report.write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert ">revenue</th>" not in text and "$" not in text.split("<body>")[1].split("Provenance")[0]


def test_an_unfinished_evaluation_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(RecGymError, match="cannot be read"):
        report.write_report(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format_version": FORMAT_VERSION - 1}))
    with pytest.raises(RecGymError, match=r"evaluate again, into another directory \(--out\)"):
        report.write_report(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format_version": FORMAT_VERSION}))
    with pytest.raises(RecGymError, match="has not finished"):
        report.write_report(tmp_path)


def output(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(cli.app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_evaluate_command_prints_the_table_and_writes_the_report(world: World, tmp_path: Path) -> None:
    command = ["evaluate", "--env", str(world.path), "--agents", "random, popularity", "--users", "100", "--seeds", "1"]
    text = output(*command, "--out", str(tmp_path / "run"))
    assert "popularity - random:" in text and "random - popularity:" in text
    assert f"All {world.num_users} users of the world were used; 100 were asked for." in text
    assert (tmp_path / "run" / "report.html").is_file()


def test_evaluate_command_reports_a_typo_in_one_line(world: World) -> None:
    result = CliRunner().invoke(cli.app, ["evaluate", "--env", str(world.path), "--agents", "randm"])
    assert result.exit_code == 2 and "Did you mean 'random'?" in result.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--scenario", "all,default"], "--scenario all stands for every scenario: give it alone"),
        (["--scenario", "all", "--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--agents", "random,random"], "two agents are called 'random': give one of the run directories another name"),
    ],
)
def test_evaluate_command_says_what_to_give_instead(world: World, given: list[str], message: str) -> None:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(cli.app, ["evaluate", "--env", str(world.path), *given])
    assert result.exit_code == 2 and message in result.output


def test_demo_trains_compares_and_resumes(world: World, tmp_path: Path) -> None:
    command = ["demo", "--env", str(world.path), "--out", str(tmp_path), "--users", "10", "--seeds", "1"]
    text = output(*command, "--train-steps", "4096")
    for agent in ("random", "popularity", "frequency", "item_knn", "greedy", "ppo"):
        assert agent in text
    assert "ppo - popularity:" in text
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Learning" in page and "<td>ppo</td>" in page
    rows = (tmp_path / "rows.parquet").read_bytes()
    output(*command, "--train-steps", "4096")
    assert (tmp_path / "rows.parquet").read_bytes() == rows


def test_provenance_tells_where_the_log_comes_from(run: Path) -> None:
    summary = summarise_run(run)
    summary.manifest["configuration"]["world"]["data"] = {
        "name": "shop",
        "hash": "ab" * 32,
        "source": {
            "name": "The Shop",
            "origin": "package shop==1",
            "licence": "CC0",
            "citation": "Shop (2020)",
            "files": {},
        },
        "events": 1234567,
        "trips": 5000,
        "first_day": "2017-01-01",
        "filters": [{"reason": "quantity 0", "count": 8869, "detail": "dropped"}, {"reason": "odd", "count": 1}],
    }
    text = report.render(summary, pd.DataFrame())
    for part in (
        "The Shop, package shop==1",
        "CC0",
        "Shop (2020)",
        "1,234,567 events, 5,000 trips, first day 2017-01-01, sha256 abababababababab",
        "<div>quantity 0: 8,869 (dropped)</div><div>odd: 1</div>",
    ):
        assert part in text
    assert "&#39;files" not in text and "{" not in text.split("Provenance")[-1]


def test_every_form_says_what_the_intervals_leave_out(run: Path) -> None:
    """An interval over users says nothing of how another training seed would have fared."""
    console = Console(file=io.StringIO(), width=400)
    table.show(summarise_run(run), console)
    written = [(run / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")]
    for form in (*written, console.file.getvalue()):  # type: ignore[attr-defined]
        assert "A trained agent is one training run" in form


def test_sample_size_command_reads_a_pilot(run: Path) -> None:
    pair = ["--first", "greedy", "--second", "random"]
    text = output("sample-size", str(run), *pair, "--difference", "0.5")
    found = {line.split(":")[0]: int(line.split()[1].replace(",", "")) for line in text.splitlines()}
    assert set(found) == {"default", "patient"}
    finer = output("sample-size", str(run), *pair, "--difference", "0.25", "--tests", "9")
    needed = int(finer.splitlines()[0].split()[1].replace(",", ""))
    assert needed > 4 * found["default"]  # half the difference needs four times the users, and a family more
    same = output("sample-size", str(run), *pair, "--difference", "0.5", "--value", "history_trips")
    assert "do not differ" in same
    few = output("sample-size", str(run), *pair, "--difference", "20")
    assert "(the world has 40: play more seeds a user)" in text and "the world has" not in few
    for bad, message in (
        (["--value", "rewards"], "Did you mean 'reward'?"),
        (["--second", "randm"], "'random'"),
        (["--power", "0.3"], "power must be between 0.5 and 1, got 0.3"),
    ):
        result = CliRunner().invoke(cli.app, ["sample-size", str(run), *pair, "--difference", "1", *bad])
        assert result.exit_code == 2 and message in result.output


def test_a_long_scenario_with_cold_users_shows_its_course_and_its_levels(world: World, tmp_path: Path) -> None:
    scenario = load_scenario("cold_start_users", {"episode.horizon_days": 20})
    learners = {"total_steps": 256}
    trained("epsilon_greedy", world, scenario, config=learners)
    evaluate(
        world, scenario, ["random", "epsilon_greedy"], users=40, seeds=1, out=tmp_path, progress=False, train_steps=256
    )
    text = report.write_report(tmp_path).read_text(encoding="utf-8")
    for part in ("Retention", "Reward over time", "Revenue over time", "By purchases known: per slate", "<h3>Learning"):
        assert part in text, part
    assert scenario.question in text.replace("&#39;", "'") and "purchases of the user that the platform knows" in text
    found = json.loads((tmp_path / "summary.json").read_text())["scenarios"][0]
    course = pd.DataFrame(found["over_time"])
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    for agent, mine in rows.groupby("agent"):  # ten parts of two days each
        days = course[(course["agent"] == agent) & (course["figure"] == "reward")]
        assert days["day"].tolist() == [1.0 + 2 * part for part in range(10)]
        assert 2 * days["value"].sum() == pytest.approx(mine["reward"].mean(), rel=1e-5)
        assert (days["low"] <= days["value"]).all() and (days["value"] <= days["high"]).all()


def test_printing_leaves_no_table_out() -> None:
    """Browsers print a closed <details> as its summary; the page opens those of metrics on paper."""
    template = (Path(report.__file__).parent / "templates" / "report.html.j2").read_text(encoding="utf-8")
    assert "details.printed::details-content { content-visibility: visible" in template
    assert template.count('<details class="printed">') == 3
