import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors import files, records
from connectors.base import Checkpoint, SourceItem
from connectors.files import FileSource
from connectors.masking import Masker, Pseudonymiser
from pipeline.errors import ConfigurationError, SourceChangedError, TransientError
from schemas.control import Idle, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention

FIELDS = {"native_id": "id", "text": "text", "event_time": "time"}


def source(
    path: Path, form: str = "csv", fields: dict[str, str] | None = None, *, complete: bool = True, **more: Any
) -> FileSource:
    return FileSource(
        "shop",
        path,
        form,
        "review",
        fields or FIELDS,
        time_zone="Asia/Shanghai",
        masker=Masker(),
        pseudonymise=Pseudonymiser(b"k"),
        complete=complete,
        **more,
    )


def csv_file(path: Path, rows: Sequence[Sequence[str]], header: str = "id,text,time") -> Path:
    path.write_text(header + "\n" + "".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def mentions(items: Sequence[SourceItem]) -> list[Mention]:
    return [item for item in items if isinstance(item, Mention)]


def last_cursor(items: Sequence[SourceItem]) -> bytes:
    return [item for item in items if isinstance(item, Checkpoint)][-1].cursor


def test_rows_come_in_event_time_order_with_a_promise_and_a_checkpoint(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "a.csv", [("2", "晚", "2026-03-02"), ("1", "早", "2026-03-01"), ("3", "末", "2026-03-03")]
    )
    items = list(source(path).read(None))
    assert [one.text for one in mentions(items)] == ["早", "晚", "末"]
    assert [type(one) for one in items[-3:]] == [Watermark, Checkpoint, Idle]
    assert items[-3] == Watermark("shop", mentions(items)[-1].event_time)
    assert mentions(items)[0].event_time == 1772294400000  # 2026-03-01 00:00 in Shanghai


def test_a_second_read_adds_nothing_and_appended_rows_come_once(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-01")])
    one = source(path)
    cursor = last_cursor(list(one.read(None)))
    assert list(source(path).read(cursor)) == [Idle("shop")]
    with path.open("a") as file:
        file.write("2,二,2026-03-02\n")
    for reader in (one, source(path)):  # the same process, and one started anew
        items = list(reader.read(cursor))
        assert [m.text for m in mentions(items)] == ["二"]
        assert not mentions(items)[0].backfill
    assert list(source(path).read(last_cursor(items))) == [Idle("shop")]


def test_appended_rows_older_than_the_promise_are_backfill(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-05")])
    cursor = last_cursor(list(source(path).read(None)))
    with path.open("a") as file:
        file.write("2,迟,2026-03-04\n3,准,2026-03-05\n")
    assert [(m.text, m.backfill) for m in mentions(list(source(path).read(cursor)))] == [("迟", True), ("准", False)]


def test_max_lateness_holds_the_promise_back(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-05")])
    day = 86_400_000
    items = list(source(path, max_lateness_ms=2 * day).read(None))
    cursor = last_cursor(items)
    with path.open("a") as file:
        file.write("2,迟,2026-03-04\n")
    assert [m.backfill for m in mentions(list(source(path, max_lateness_ms=2 * day).read(cursor)))] == [False]


def test_a_changed_beginning_is_a_clear_error(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-01"), ("2", "二", "2026-03-02")])
    one = source(path)
    cursor = last_cursor(list(one.read(None)))
    csv_file(path, [("1", "壹", "2026-03-01"), ("2", "二", "2026-03-02"), ("3", "三", "2026-03-03")])
    for reader in (one, source(path)):
        with pytest.raises(SourceChangedError, match=r"no longer what was read.*name"):
            list(reader.read(cursor))
    csv_file(path, [("1", "一", "2026-03-01")])
    with pytest.raises(SourceChangedError):
        list(source(path).read(cursor))


def test_a_changed_middle_is_found_when_all_of_it_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_END_BYTES", 64)
    rows = [(str(number), "一", "2026-03-01") for number in range(100)]
    path = csv_file(tmp_path / "a.csv", rows)
    one = source(path)
    cursor = last_cursor(list(one.read(None)))
    csv_file(path, [*rows[:50], ("50", "壹", "2026-03-01"), *rows[51:], ("100", "一", "2026-03-01")])
    monkeypatch.setattr(files, "_CHECK_SECONDS", 0.0)
    with pytest.raises(SourceChangedError):
        list(one.read(cursor))


def test_a_growing_file_is_not_read_through_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-01")])
    one = source(path)
    cursor = last_cursor(list(one.read(None)))
    looked: list[int] = []
    digest = one._digest
    monkeypatch.setattr(one, "_digest", lambda length: looked.append(length) or digest(length))
    for number in range(2, 6):
        with path.open("a") as file:
            file.write(f"{number},一,2026-03-01\n")
        cursor = last_cursor(list(one.read(cursor)))
    assert len(looked) == 1  # the first time; then not for a minute
    assert digest(path.stat().st_size) == one._digest_grown(path.stat().st_size)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b", "c"]), st.sampled_from("甲乙丙"), st.integers(1, 9)), max_size=25
    ),
    st.data(),
)
def test_stopping_anywhere_and_going_on_equals_never_stopping(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    path = csv_file(tmp_path_factory.mktemp("f") / "a.csv", [(i, t, f"2026-03-0{d}") for i, t, d in rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHECKPOINT_EVERY", 3)
        whole = list(source(path).read(None))
        cuts = [number for number, item in enumerate(whole) if isinstance(item, Checkpoint)]
        if not cuts:
            return
        cut = data.draw(st.sampled_from(cuts))
        checkpoint = whole[cut]
        assert isinstance(checkpoint, Checkpoint)
        again = whole[: cut + 1] + list(source(path).read(checkpoint.cursor))
    identities = [(m.mention_id, m.revision, m.text) for m in mentions(whole)]
    assert [(m.mention_id, m.revision, m.text) for m in mentions(again)] == identities
    assert len(set(identities)) == len(identities)


def test_rows_without_an_id_are_told_apart_by_content_and_number(tmp_path: Path) -> None:
    row = ("", "同样的话", "2026-03-01")
    path = csv_file(tmp_path / "a.csv", [row, row, ("", "别的话", "2026-03-01")])
    first = mentions(list(source(path).read(None)))
    assert len({m.mention_id for m in first}) == 3
    cursor = last_cursor(list(source(path).read(None)))
    with path.open("a") as file:
        file.write(",同样的话,2026-03-01\n")
    (third,) = mentions(list(source(path).read(cursor)))
    assert third.mention_id not in {m.mention_id for m in first}


def test_an_id_that_comes_again_is_dropped_if_equal_and_a_revision_if_not(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "a.csv", [("1", "坏了", "2026-03-01"), ("1", "坏了", "2026-03-01"), ("1", "修好了", "2026-03-01")]
    )
    found = mentions(list(source(path).read(None)))
    assert [(m.text, m.revision) for m in found] == [("坏了", 0), ("修好了", 1)]
    assert len({m.mention_id for m in found}) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,少一列", "unreadable"),
        ('x,"a"b,2026-03-01', "unreadable"),
        ("x,字,昨天", "wrong_type"),
        ("x,字,", "missing_field"),
        ("x,字,1871-01-01", "absurd_time"),
        ("x,字,2999-01-01", "absurd_time"),
        ("x," + "长" * 400_000 + ",2026-03-01", "too_large"),
        (b"x,\x81\xff\xff,2026-03-01", "wrong_encoding"),
    ],
)
def test_a_bad_record_is_a_dead_letter_and_the_others_come(tmp_path: Path, line: str | bytes, reason: str) -> None:
    data = line if isinstance(line, bytes) else line.encode()
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text,time\n1,\xe5\xa5\xbd,2026-03-01\n" + data + b"\n2,\xe5\xb7\xae,2026-03-02\n")
    items = list(source(path).read(None))
    (letter,) = [item for item in items if isinstance(item, DeadLetter)]
    assert letter.reason == reason
    assert [m.text for m in mentions(items)] == ["好", "差"]
    assert len(letter.payload) <= 16_384
    (again,) = source(path).reread([(letter.locator, letter.payload_hash)])
    assert isinstance(again, DeadLetter)
    assert again.dead_letter_id == letter.dead_letter_id


def test_dead_letters_are_masked(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "电话13912345678", "13912345678x")])
    (letter,) = [item for item in source(path).read(None) if isinstance(item, DeadLetter)]
    assert "13912345678" not in repr(letter)


def test_a_quote_that_never_closes_costs_its_own_line(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "a.csv", [("1", '"没有关上', "2026-03-01"), ("2", "好", "2026-03-01"), ("3", "差", "2026-03-01")]
    )
    items = list(source(path).read(None))
    assert [m.native_id for m in mentions(items)] == ["2", "3"]
    assert sum(isinstance(item, DeadLetter) for item in items) == 1


def test_quoted_cells_may_hold_commas_quotes_and_line_feeds(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", '"他说""好"",\n真的\u2028好"', "2026-03-01")])
    (mention,) = mentions(list(source(path).read(None)))
    assert mention.text == '他说"好",\n真的\u2028好'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id,text,time\r\n1,洗衣机噪音大,2026/3/1\r\n".encode(encoding))
    (mention,) = mentions(list(source(path).read(None)))
    assert mention.text == "洗衣机噪音大"
    assert mention.event_time == 1772294400000


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('{"id": "1", "text": ', "unreadable"),
        ("[1]", "wrong_type"),
        ('{"id": "1", "time": "2026-03-01"}', "missing_field"),
        ('{"id": 1.5e18, "text": "a", "time": "2026-03-01"}', "wrong_type"),
        ('{"id": "1", "text": {"a": 1}, "time": "2026-03-01"}', "wrong_type"),
        ('{"id": "1", "text": "\\ud800", "time": "2026-03-01"}', "unreadable"),
        ('{"id": "1", "text": "a", "time": true}', "wrong_type"),
    ],
)
def test_json_lines(tmp_path: Path, record: str, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(record + '\n{"id": 7, "text": "a\\u0000b", "time": 1772294400}\n\n', encoding="utf-8")
    letter, mention, *_ = source(path, "jsonl").read(None)
    assert isinstance(letter, DeadLetter)
    assert letter.reason == reason
    assert isinstance(mention, Mention)
    assert (mention.native_id, mention.text, mention.event_time) == ("7", "a b", 1772294400000)


def test_gz_is_read_and_a_cut_one_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    data = gzip.compress("id,text,time\n1,好,2026-03-01\n".encode())
    path.write_bytes(data)
    assert [m.text for m in mentions(list(source(path).read(None)))] == ["好"]
    path.write_bytes(data[:-6])
    with pytest.raises(TransientError, match="ends early"):
        list(source(path).read(None))


def test_a_line_that_is_being_written_waits_for_its_end(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-01")])
    with path.open("a") as file:
        file.write("2,写到一")
    one = source(path, complete=False)
    items = list(one.read(None))
    assert [m.native_id for m in mentions(items)] == ["1"]
    with path.open("a") as file:
        file.write("半,2026-03-02\n")
    assert [m.text for m in mentions(list(one.read(last_cursor(items))))] == ["写到一半"]


def test_undated_records_are_observed_and_the_first_full_read_is_history(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一")], header="id,text")
    fields = {"native_id": "id", "text": "text"}
    items = list(source(path, fields=fields).read(None))
    assert [(m.observed, m.backfill) for m in mentions(items)] == [(True, True)]
    with path.open("a") as file:
        file.write("2,二\n")
    later = mentions(list(source(path, fields=fields).read(last_cursor(items))))
    assert [(m.text, m.observed, m.backfill) for m in later] == [("二", True, False)]


def test_authors_become_pseudonyms_and_default_reviews_are_told(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "a.csv", [("1", "此用户未填写评价内容", "2026-03-01", "张三丰")], header="id,text,time,who"
    )
    (mention,) = mentions(list(source(path, fields={**FIELDS, "author": "who"}).read(None)))
    assert mention.default_review
    assert mention.author is not None
    assert "张三丰" not in mention.author


def test_check_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        source(tmp_path / "no.csv").check()
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-01")], header="id,txt,time")
    with pytest.raises(ConfigurationError, match=r"'text' not in a.csv, which has: id, txt, time"):
        source(path).check()
    with pytest.raises(ConfigurationError, match="'text' is missing"):
        source(path, fields={"native_id": "id"})
    good = csv_file(tmp_path / "b.csv", [("1", "一", "2026-03-01")])
    assert source(good).check().date_only
    line = json.dumps({"id": "1", "text": "a", "time": "2026-03-01 08:00:00"})
    hours = tmp_path / "c.jsonl"
    hours.write_text(line)
    assert not source(hours, "jsonl").check().date_only


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"")
    assert list(source(path).read(None)) == [Idle("shop")]


@pytest.mark.parametrize("piece", ['"', '"x\n', 'a,"b\n', ",", "\n", "x", '""\n'])
def test_cutting_takes_time_linear_in_the_length(tmp_path: Path, piece: str) -> None:
    def seconds(length: int) -> float:
        path = tmp_path / "a.csv"
        path.write_text("id,text,time\n" + (piece * length)[:length])
        best = 9.0
        for _ in range(2):
            begin = time.process_time()
            with records.open_file(path) as file:
                assert sum(len(record.data) for record in records.cut(file, 0, "csv")) > 0
            best = min(best, time.process_time() - begin)
        return best

    assert seconds(1_600_000) < 24 * max(seconds(200_000), 2e-3)  # 8 x as long: quadratic would be 64 x


def test_inches_are_no_quotes(tmp_path: Path) -> None:
    rows = [("1", '5" 屏幕坏点', "2026-03-01"), ("2", "好", "2026-03-01"), ("3", '6" 屏幕', "2026-03-01")]
    path = csv_file(tmp_path / "a.csv", rows)
    assert [m.text for m in mentions(list(source(path).read(None)))] == ['5" 屏幕坏点', "好", '6" 屏幕']


def test_two_cells_that_open_a_quote_lose_nothing_between_them(tmp_path: Path) -> None:
    rows = [
        ("1", '"开', "2026-03-01"),
        ("2", "好", "2026-03-01"),
        ("3", '"关', "2026-03-01"),
        ("4", "差", "2026-03-01"),
    ]
    items = list(source(csv_file(tmp_path / "a.csv", rows)).read(None))
    assert [m.native_id for m in mentions(items)] == ["2", "4"]
    assert sum(isinstance(item, DeadLetter) for item in items) == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from("甲乙"), st.integers(1, 3)), min_size=1, max_size=14
    ),
    st.data(),
)
def test_however_it_was_appended_and_restarted_it_is_as_one_reading(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]], data: st.DataObject
) -> None:
    """Appends, polls, restarts and crashes before a commit, against one reading of the whole file."""
    lines = [f"{i},{t},2026-03-0{d}\n" for i, t, d in rows]
    path = tmp_path_factory.mktemp("f") / "a.csv"
    path.write_text("id,text,time\n")
    one, cursor, seen = source(path), None, list[Mention]()
    while lines:
        count = data.draw(st.integers(1, len(lines)))
        with path.open("a") as file:
            file.writelines(lines[:count])
        del lines[:count]
        if data.draw(st.booleans()):
            one = source(path)
        items = list(one.read(cursor))
        if data.draw(st.booleans()) and cursor is not None:
            items = list(source(path).read(cursor))  # what was read was not committed: it comes again
            one = source(path)
        seen += mentions(items)
        cursor = last_cursor(items) if any(isinstance(item, Checkpoint) for item in items) else cursor
    whole = {(m.mention_id, m.revision): m.text for m in mentions(list(source(path).read(None)))}
    assert {(m.mention_id, m.revision): m.text for m in seen} == whole


def test_a_last_line_without_its_end_is_read_and_read_again_when_it_has_grown(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-01")])
    with path.open("a") as file:
        file.write("2,二,2026-03-02")
    one = source(path)
    items = list(one.read(None))
    assert [m.text for m in mentions(items)] == ["一", "二"]
    cursor = last_cursor(items)
    assert mentions(list(one.read(cursor))) == []
    with path.open("a") as file:
        file.write("\n3,三,2026-03-03\n")
    again = list(one.read(cursor))
    assert [(m.text, m.revision) for m in mentions(again)] == [("二", 0), ("三", 0)]
    assert mentions(list(source(path).read(last_cursor(again)))) == []


def test_a_cut_line_is_a_dead_letter_and_comes_when_it_is_whole(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-01")])
    with path.open("a") as file:
        file.write("2,二")
    items = list(source(path).read(None))
    assert sum(isinstance(item, DeadLetter) for item in items) == 1
    with path.open("a") as file:
        file.write("二,2026-03-02\n")
    assert [m.text for m in mentions(list(source(path).read(last_cursor(items))))] == ["二二"]


def test_a_settled_line_without_its_end_is_taken_while_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv_file(tmp_path / "a.csv", [("1", "一", "2026-03-01")])
    with path.open("a") as file:
        file.write("2,二,2026-03-02")
    one = source(path, complete=False)
    items = list(one.read(None))
    assert [m.text for m in mentions(items)] == ["一"]
    monkeypatch.setattr(files, "_SETTLED_SECONDS", -1.0)
    assert [m.text for m in mentions(list(one.read(last_cursor(items))))] == ["二"]


def test_what_becomes_readable_between_two_readings_shifts_nothing(tmp_path: Path) -> None:
    rows = [
        (str(n), f"第{n}条", f"{n % 28 + 1}.03.2026" if n % 6 == 0 else f"2026-03-{n % 28 + 1:02d}")
        for n in range(1300)
    ]
    path = csv_file(tmp_path / "a.csv", rows)
    items = []
    for item in source(path).read(None):
        items.append(item)
        if isinstance(item, Checkpoint):
            break
    mended = source(path, time_format="%d.%m.%Y")
    seen = {m.native_id for m in mentions([*items, *mended.read(last_cursor(items))])}
    assert seen >= {row[0] for row in rows if "." in row[2]}


def test_leading_blank_lines_and_a_mark_of_byte_order_are_no_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\n\n\xef\xbb\xbfid,text,time\r\n1,a,2026-03-01\r\n")
    assert [m.text for m in mentions(list(source(path).read(None)))] == ["a"]


def test_one_row_ahead_of_time_does_not_make_all_others_late(tmp_path: Path) -> None:
    ahead = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 80_000))
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 5))
    path = csv_file(tmp_path / "a.csv", [("1", "快", ahead)])
    cursor = last_cursor(list(source(path).read(None)))
    with path.open("a") as file:
        file.write(f"2,准,{now}\n")
    assert [m.backfill for m in mentions(list(source(path).read(cursor)))] == [False]


def test_dead_letters_show_mapped_fields_only_and_no_authors(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path / "a.csv",
        [("1", "坏了", "昨天", "张三丰", "某路1号"), ("2", "坏", "8613912345678", "李", "x")],
        header="id,text,time,who,address",
    )
    letters = [i for i in source(path, fields={**FIELDS, "author": "who"}).read(None) if isinstance(i, DeadLetter)]
    assert len(letters) == 2
    assert not any(word in repr(letters) for word in ("张三丰", "某路", "13912345678"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_stop_the_flow(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("f")
    (folder / "a.jsonl").write_bytes(data + b'\n{"id": "1", "text": "a", "time": 1772294400, "rating": 1}\n')
    fields = {**FIELDS, "rating": "rating"}
    assert len(mentions(list(source(folder / "a.jsonl", "jsonl", fields).read(None)))) >= 1
    (folder / "a.csv").write_bytes(b"id,text,time\n" + data.replace(b'"', b"") + b"\n1,a,2026-03-01\n")
    assert len(mentions(list(source(folder / "a.csv").read(None)))) >= 1


@pytest.mark.parametrize("line", ["[" * 5000, '{"id":"x","text":"a","time":1772294400,"rating":"' + "9" * 400 + '"}'])
def test_what_breaks_libraries_is_a_dead_letter(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    (letter, *_) = source(path, "jsonl", {**FIELDS, "rating": "rating"}).read(None)
    assert isinstance(letter, DeadLetter)


def test_turns_and_deletions_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    turns = [{"role": "agent", "text": "您好"}, {"role": "customer", "text": "漏水，电话13912345678"}]
    gone = {"id": "1", "time": 1772294400, "turns": turns, "gone": True}
    path.write_text("\n".join(json.dumps(one) for one in ({**gone, "gone": False}, gone)) + "\n")
    fields = {"native_id": "id", "event_time": "time", "turns": "turns", "deleted": "gone"}
    said, deleted = mentions(list(source(path, "jsonl", fields).read(None)))
    assert said.text == "您好\n漏水，电话<phone>"
    assert (deleted.deleted, deleted.text, deleted.revision) == (True, "", 1)
