"""Published layouts, each on a few rows in its documented format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from recgym.data.own import LAYOUTS, LogFiles, load_files
from recgym.errors import DataError


def put(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


# Fields that are not read, and do not agree from one product to the next.
ODD = {"price": 12.5, "details": {"Weight": "2 g"}}, {"price": "from 3.99", "details": {"Weight": 2, "UPC": ["1", "2"]}}
META = {"title": "Cup", "main_category": "Home", "store": "Acme", "features": ["Blue"], "description": []}
REVIEW = {"rating": 5.0, "title": "x", "asin": "B1", "parent_asin": "P1", "user_id": "A", "timestamp": 1588687728923}

FILES: dict[str, dict[str, str]] = {
    "ml-1m": {
        "ratings.dat": "1::10::5::978300760\n2::11::3::978302109\n",
        "movies.dat": "10::Toy Story (1995)::Animation|Comedy\n11::Heat (1995)::Action\n",
        "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    },
    "ml-25m": {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,10,5.0,1147880044\n2,11,3.5,1147868817\n",
        "movies.csv": 'movieId,title,genres\n10,Toy Story (1995),Animation|Comedy\n11,"Heat, The (1995)",Action\n',
    },
    "amazon-reviews-2023": {
        "All_Beauty.jsonl": "\n".join(
            json.dumps(r) for r in (REVIEW, {**REVIEW, "user_id": "B", "parent_asin": "P2", "rating": 2.0})
        ),
        "meta_All_Beauty.jsonl": "\n".join(
            json.dumps({"parent_asin": name, **META, **odd}) for name, odd in zip(("P1", "P2"), ODD, strict=True)
        ),
    },
    "kuairec": {
        "data/big_matrix.csv": "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.27\n"
        "0,9598,30000,10984,2020-07-05 00:13:41.297,20200705,1593879221.297,2.73\n1,3,5,5,,,,1.0\n",
        "data/kuairec_caption_category.csv": "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,"
        "first_level_category_name,second_level_category_id,second_level_category_name\n"
        "3649,UNKNOWN,Dogs,[],8,Pets,1,Dogs\n9598,UNKNOWN,Ca\rts,[],8,Pets,2,Cats\n"
        "77,UNKNOWN,Half a\n caption,[],8,Pets,2,Cats\n",
    },
    "kuairand": {
        "data/log_standard_4_08_to_4_21_pure.csv": "user_id,video_id,date,hourmin,time_ms,is_click,play_time_ms\n"
        "0,5,20220408,1800,1649412000000,1,2500\n",
        "data/log_random_4_22_to_5_08_pure.csv": "user_id,video_id,date,hourmin,time_ms,is_click,play_time_ms\n"
        "1,6,20220422,1800,1650621600000,0,0\n",
        "data/video_features_basic_pure.csv": 'video_id,author_id,video_type,tag\n5,9,NORMAL,"1,2"\n6,8,AD,3\n',
    },
    "mind": {
        "behaviors.tsv": "1\tU1\t11/15/2019 8:55:22 AM\tN3 N4\tN1-1 N2-0\n2\tU2\t11/15/2019 1:55:22 PM\t\tN2-0\n",
        "news.tsv": 'N1\tsports\tgolf\tA "quoted\tWords\thttps://x\t[]\t[]\nN2\tnews\tworld\tHello\t\thttps://y\t[]\t[]\n',
    },
    "retailrocket": {
        "events.csv": "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433224214164,992329,transaction,248676,4000\n",
        "item_properties_part1.csv": "timestamp,itemid,property,value\n1435402800000,355908,categoryid,1338\n",
        "item_properties_part2.csv": "timestamp,itemid,property,value\n1435402900000,355908,categoryid,1400\n"
        "1435402900000,248676,888,n1.0 x\n",
    },
    "instacart": {
        "orders.csv": "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order\n"
        "1,7,prior,1,2,8,\n2,7,train,2,3,7,15.0\n",
        "order_products__prior.csv": "order_id,product_id,add_to_cart_order,reordered\n1,196,1,0\n",
        "order_products__train.csv": "order_id,product_id,add_to_cart_order,reordered\n2,196,1,1\n2,5,2,0\n9,5,1,0\n",
        "products.csv": "product_id,product_name,aisle_id,department_id\n196,Soda,77,7\n5,Bread,3,1\n",
        "aisles.csv": "aisle_id,aisle\n77,soft drinks\n3,loaves\n",
        "departments.csv": "department_id,department\n7,beverages\n1,bakery\n",
    },
    "instacart-sample": {
        "df_sample.csv": ",order_id,user_id,order_number,order_dow,order_hour_of_day,days_since_prior_order,product_id,"
        "add_to_cart_order,reordered\n0,2539329,1,1,2,8,,196,1.0,0.0\n1,2398795,1,2,3,7,15.0,196,1.0,1.0\n",
    },
    "open-bandit": {
        "men.csv": ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,"
        "user_feature_3\n0,2019-11-24 00:00:00.0+00:00,14,3,0,0.0294,cef3,2d03,2723,9bde\n"
        "1,2019-11-24 00:00:01.0+00:00,15,1,1,0.0294,cef3,2d03,2723,9bde\n",
        "item_context.csv": ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n"
        "0,14,-0.6,aa,bb,cc\n1,15,0.2,aa,bc,cd\n",
    },
}
# column -> values in the log's order; "text", "category" -> those of the first event's item; "filters" -> a note
EXPECTED = {
    "ml-1m": {"rating": [5, 3], "text": "Toy Story (1995). Animation Comedy", "category": "Animation"},
    "ml-25m": {"rating": [5, 3.5], "text": "Toy Story (1995). Animation Comedy", "time": "2006-05-17T15:34:04"},
    "amazon-reviews-2023": {"rating": [5, 2], "text": "Cup. Blue", "category": "Home", "time": "2020-05-05T14:08:48"},
    "kuairec": {"purchase": [False, True], "dwell": [13.838, 30.0], "text": "Dogs. Pets",
                "filters": ("broken lines of captions", 2)},
    "kuairand": {"click": [True, False], "dwell": [2.5, 0.0], "text": "", "category": "1,2",
                 "time": "2022-04-08T10:00:00"},
    "mind": {"click": [True, False, False], "position": [0, 1, 0], "text": 'A "quoted. Words', "category": "sports",
             "filters": ("clicks before the log began", 2), "time": "2019-11-15T08:55:22"},
    "retailrocket": {"purchase": [False, True], "category": "1400", "text": "", "time": "2015-06-02T05:02:12"},
    "instacart": {"item": [196, 196, 5], "text": "Soda. soft drinks. beverages",
                  "filters": ("products of orders that orders.csv does not list", 1), "time": "1970-01-01T00:00:00"},
    "instacart-sample": {"item": [196, 196], "text": "", "basket": [2539329, 2398795]},
    "open-bandit": {"position": [2, 0], "click": [False, True], "propensity": [0.0294, 0.0294], "category": "aa",
                    "time": "2019-11-24T00:00:00"},
}  # fmt: skip


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_published_layout_is_read_as_documented(layout: str, tmp_path: Path) -> None:
    put(tmp_path, FILES[layout])
    log = load_files(LogFiles(path=str(tmp_path), layout=layout).hashed(), "own")
    expected = dict(EXPECTED[layout])
    described = log.items.iloc[log.item_rows[0]]
    for name in ("text", "category"):
        if name in expected:
            assert described[name] == expected.pop(name)
    if "filters" in expected:
        assert expected.pop("filters") in [(note.reason, note.count) for note in log.filters]
    if "time" in expected:
        assert str(log["time"][0].astype("datetime64[s]")) == expected.pop("time")
    for column, values in expected.items():
        assert log[column].tolist() == values, column
    assert log.source.licence
    assert log.source.citation
    assert all(len(digest) == 64 for digest in log.source.files.values())


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_missing_file_says_where_the_data_come_from(layout: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="comes? from"):
        load_files(LogFiles(path=str(tmp_path), layout=layout), "own")


def test_a_compressed_file_is_read_and_one_cut_off_is_named(tmp_path: Path) -> None:
    put(tmp_path, {"meta_All_Beauty.jsonl": FILES["amazon-reviews-2023"]["meta_All_Beauty.jsonl"]})
    whole = gzip.compress(FILES["amazon-reviews-2023"]["All_Beauty.jsonl"].encode())
    packed = tmp_path / "All_Beauty.jsonl.gz"
    packed.write_bytes(whole)
    files = LogFiles(path=str(tmp_path), layout="amazon-reviews-2023")
    assert len(load_files(files, "own")) == 2
    meta = tmp_path / "meta_All_Beauty.jsonl"
    (tmp_path / "meta_All_Beauty.jsonl.gz").write_bytes(gzip.compress(meta.read_bytes()))
    meta.unlink()
    assert len(load_files(files, "own")) == 2  # either of the two may be compressed
    packed.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"All_Beauty.jsonl.gz: cannot be read"):
        load_files(files, "own")


@pytest.mark.parametrize(
    ("layout", "file", "old", "new", "expected"),
    [
        ("ml-1m", "ratings.dat", "::3::", "::", r"ratings.dat, row 2: expected 4 fields by '::', got 3"),
        ("ml-1m", "ratings.dat", "978302109", "soon", r"ratings.dat, row 2, column 'time': must be a number"),
        ("ml-25m", "ratings.csv", "movieId", "movie_id", r"no column 'movieId'. Did you mean 'movie_id'\?"),
        ("mind", "behaviors.tsv", "N2-0", "N2-7", r"row 1: an impression must read ITEM-0 or ITEM-1, got 'N2-7'"),
        ("mind", "behaviors.tsv", "8:55:22 AM", "noon", r"behaviors.tsv, row 1: not a time such as"),
        ("retailrocket", "events.csv", "transaction,", "gift,", r"row 2, column 'event': must be view, .* got 'gift'"),
        ("open-bandit", "men.csv", "14,3,0", "14,4,0", r"column 'position': must be 1, 2 or 3, got 1 to 4"),
    ],
)
def test_what_does_not_fit_a_layout_is_named(
    layout: str, file: str, old: str, new: str, expected: str, tmp_path: Path
) -> None:
    put(tmp_path, FILES[layout])
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(DataError, match=expected):
        load_files(LogFiles(path=str(tmp_path), layout=layout), "own")
