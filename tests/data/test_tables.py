from __future__ import annotations

import sqlite3
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.data.diff import diff
from loudly.data.pseudonym import pseudonymise
from loudly.data.read import read_table, sql
from loudly.data.snapshot import extend, load, snapshot
from loudly.errors import DataError, DatasetCorrupt
from loudly.store.file_blobs import FileBlobs
from loudly.store.memory_blobs import MemoryBlobs
from loudly.validate.schema import infer_schema

SMALL = pl.DataFrame({"k": ["a", "b"], "x": [1.0, None], "t": pl.Series([0, 1], dtype=pl.Datetime("us"))})


def test_every_kind_of_source_gives_the_same_table(tmp_path: Path) -> None:
    SMALL.write_csv(tmp_path / "s.csv")
    SMALL.write_parquet(tmp_path / "s.parquet")
    SMALL[:1].write_parquet(tmp_path / "p1.parquet")
    SMALL[1:].write_parquet(tmp_path / "p2.parquet")
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("CREATE TABLE s (k TEXT, x REAL)")
    connection.executemany("INSERT INTO s VALUES (?, ?)", SMALL.select("k", "x").rows())
    sources = [SMALL, SMALL.lazy(), SMALL.to_arrow(), str(tmp_path / "s.parquet"), str(tmp_path / "p*.parquet"), tmp_path / "s.csv"]
    for source in sources:
        assert read_table(source).equals(SMALL), source
    assert read_table(sql(connection, "SELECT * FROM s")).equals(SMALL.select("k", "x"))
    connection.close()
    assert isinstance(SMALL.to_arrow(), pa.Table)


def test_pandas_too(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    made = read_table(pd.DataFrame({"k": ["a", "b"], "x": [1.0, float("nan")]}))
    assert made["x"].null_count() == 1


def test_what_pandas_misses_and_how_it_writes_times_and_categories() -> None:
    pd = pytest.importorskip("pandas")
    made = read_table(
        pd.DataFrame(
            {
                "text": ["a", None],
                "object": pd.Series([None, "b"], dtype=object),
                "category": pd.Series(["a", float("nan")], dtype="category"),
                "flag": pd.Series([True, None], dtype="boolean"),
                "whole": pd.Series([1, None], dtype="Int64"),
                "at": pd.to_datetime(["2024-01-01T12:00:00+02:00", None]),
                "day": pd.Series([date(2024, 1, 1), None], dtype=object),
            }
        )
    )
    assert made.with_columns(pl.col("category").cast(pl.String)).rows() == [
        ("a", None, "a", True, 1, datetime(2024, 1, 1, 10), datetime(2024, 1, 1)),
        (None, "b", None, None, None, None, None),
    ]


def test_a_pandas_table_of_no_one_type_is_named() -> None:
    pd = pytest.importorskip("pandas")
    two = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(DataError, match=r"gave no table.*\n.*Series"):
        read_table(pd.Series([1], name="a"))
    for source in (pd.DataFrame({"a": pd.Series(["x", 1], dtype=object)}), two):
        with pytest.raises(DataError, match=r"The pandas table cannot be read.*\n.*\n.*one name and one type"):
            read_table(source)


def test_aware_times_become_utc() -> None:
    aware = pl.DataFrame({"t": ["2024-01-01T12:00:00+02:00"]}).with_columns(pl.col("t").str.to_datetime(time_zone="Europe/Berlin"))
    assert str(read_table(aware)["t"][0]) == "2024-01-01 10:00:00"


@pytest.mark.parametrize("source", [3, object(), "nowhere.csv", "no*thing.parquet"])
def test_what_is_no_table_is_named(source: object) -> None:
    with pytest.raises(DataError):
        read_table(source)


def csv_of(folder: Path, *files: str) -> pl.DataFrame:
    for number, text in enumerate(files):
        (folder / f"part{number}.csv").write_text(text)
    return read_table(folder / "part*.csv")


def test_texts_are_typed_by_all_of_their_rows_and_an_empty_column_by_the_other_files(tmp_path: Path) -> None:
    whole = "".join(f"{i},{i}\n" for i in range(300))
    (tmp_path / "late.csv").write_text(f"id,x\n{whole}300,3.5\n")
    (tmp_path / "late.jsonl").write_text('{"x": 1}\n' * 300 + '{"x": 3.5}\n')
    assert read_table(tmp_path / "late.csv")["x"].dtype == read_table(tmp_path / "late.jsonl")["x"].dtype == pl.Float64
    made = csv_of(tmp_path, "id,x,at,none\n1,,,\n", "id,x,at,none\n2,3.5,2024-01-02 10:00:00,\n", "id,x,at,none\n3,4,,\n")
    assert made.rows() == [(1, None, None, None), (2, 3.5, datetime(2024, 1, 2, 10), None), (3, 4.0, None, None)]
    assert made["none"].dtype == pl.String


def test_files_of_one_table_may_order_their_columns_but_not_lack_or_add_any(tmp_path: Path) -> None:
    assert csv_of(tmp_path, "id,x\n1,2\n", "x,id\n4,3\n").rows() == [(1, 2), (3, 4)]
    with pytest.raises(DataError, match=r"columns of the first, .*part0.csv.*\n.*part1.csv lacks x and also has y, z\n"):
        csv_of(tmp_path, "id,x\n1,2\n", "id,y,z\n1,2,3\n")


def test_a_file_that_cannot_be_read_and_files_of_other_types_are_named(tmp_path: Path) -> None:
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"torn\.parquet cannot be read"):
        read_table(tmp_path / "torn.parquet")
    pl.DataFrame({"x": [[1]]}).write_parquet(tmp_path / "a1.parquet")
    pl.DataFrame({"x": [1.5]}).write_parquet(tmp_path / "a2.parquet")
    with pytest.raises(DataError, match="columns of other types"):
        read_table(tmp_path / "a*.parquet")


def test_an_unknown_ending_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.parqet").write_bytes(b"")
    with pytest.raises(DataError, match=r"did you mean '\.parquet'"):
        read_table(tmp_path / "t.parqet")


tables = st.lists(st.tuples(st.integers(-5, 5), st.none() | st.floats(-1, 1)), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(tables)
def test_equal_rows_have_equal_digests_and_come_back(rows: list[tuple[int, float | None]]) -> None:
    table = pl.DataFrame(
        {
            "k": [str(i) for i in range(len(rows))],
            "t": pl.Series([0] * len(rows), dtype=pl.Datetime("us")),
            "y": [r[0] for r in rows],
        }
    ).with_columns(x=pl.Series([r[1] for r in rows], dtype=pl.Float64))
    schema = infer_schema(table, label="y", time="t", key="k")
    one, two = MemoryBlobs(), MemoryBlobs()
    first, second = snapshot(table, one, "d", schema, "t"), snapshot(table, two, "d", schema, "t")
    assert first == second
    assert first.digest == second.digest
    assert load(first, one).equals(table)
    assert extend(first, table.clear(), one, "t") == first


def test_a_stored_part_that_changed_is_found(tmp_path: Path) -> None:
    schema = infer_schema(SMALL.with_columns(y=pl.lit(1)), label="y", time="t", key="k")
    blobs = FileBlobs(tmp_path)
    made = snapshot(SMALL, blobs, "d", schema)
    path = next(p for p in tmp_path.rglob("*") if p.is_file())
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DatasetCorrupt):
        load(made, blobs)


def test_diff_names_rows_and_columns() -> None:
    before = SMALL.with_columns(y=pl.lit(1))
    after = pl.DataFrame({"k": ["b", "c"], "x": [2.0, 3.0], "t": before["t"], "y": [1, 1], "z": ["q", "r"]})
    blobs = MemoryBlobs()
    schemas = [infer_schema(t, label="y", time="t", key="k") for t in (before, after)]
    found = diff(snapshot(before, blobs, "d", schemas[0]), snapshot(after, blobs, "d", schemas[1]), blobs, "k")
    assert (found.added, found.removed, found.changed) == (("c",), ("a",), ("b",))
    assert found.columns_added == ("z",)
    assert not found.same
    one = snapshot(before, blobs, "d", schemas[0])
    assert diff(one, one, blobs, "k").same


def test_pseudonyms_depend_on_the_key_and_hide_the_value() -> None:
    rows = pl.DataFrame({"who": ["ann", None, "ann"]})
    one, other = (pseudonymise(rows, ["who"], key)["who"] for key in (b"k1", b"k2"))
    assert one[0] == one[2] != other[0]
    assert one[1] is None


def test_a_whole_number_is_one_subject_however_a_table_holds_it() -> None:
    """pandas makes floats of whole numbers as soon as one is missing; a request says 17."""

    def hidden(*values: object) -> list[object]:
        return pseudonymise(pl.DataFrame({"who": list(values)}), ["who"], b"k")["who"].to_list()

    whole, floats, texts = hidden(17, 2**40, 0), hidden(17.0, float(2**40), -0.0, None, 2.5, 1e300), hidden("17", str(2**40), "0")
    assert whole == texts == floats[:3]
    assert floats[3] is None
    assert len(set(floats)) == 6


@pytest.mark.parametrize("written", ["02/01/2026", "02-01-2026", "02/01/2026 10:30:00"])
def test_dates_that_can_be_read_in_two_ways_are_refused(tmp_path: Path, written: str) -> None:
    """Where every day is 12 or less nobody knows whether it comes first."""
    ambiguous = tmp_path / "ambiguous.csv"
    ambiguous.write_text(f"k,t\na,{written}\nb,\nc,{written.replace('02', '03', 1)}\n")
    with pytest.raises(DataError, match=rf"column 't' can be read in two ways.\n.*'{written}'.*\n.*2026-01-31"):
        read_table(ambiguous)
    ambiguous.write_text(ambiguous.read_text().replace("03", "23", 1))
    assert read_table(ambiguous)["t"].dt.day().to_list() == [2, None, 23], "a 23rd tells the day from the month"


@pytest.mark.parametrize("written", ["2026-01-02", "2026/01/02", "2026-01-02T10:30:00Z"])
def test_dates_that_begin_with_their_year_are_read(tmp_path: Path, written: str) -> None:
    (tmp_path / "s.csv").write_text(f"k,t\na,{written}\nb,{written}\n")
    assert read_table(tmp_path / "s.csv")["t"].dt.day().to_list() == [2, 2]
