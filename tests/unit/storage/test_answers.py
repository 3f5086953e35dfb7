"""A server's rows as people ask for them."""

import json

from pipeline.storage.answers import shown

LINES = '{"product_id":"w7","n":3}\n{"product_id":"含,逗号","n":4}\n'.encode()


def test_three_forms() -> None:
    assert json.loads(shown(LINES, "json")) == {"data": [json.loads(line) for line in LINES.splitlines()], "rows": 2}
    assert shown(LINES, "csv") == 'product_id,n\nw7,3\n"含,逗号",4\n'
    assert [row.split() for row in shown(LINES, "table").splitlines()[3:5]] == [
        ["│", "w7", "│", "3", "│"],
        ["│", "含,逗号", "│", "4", "│"],
    ]


def test_no_rows() -> None:
    assert [shown(b"", form) for form in ("table", "csv")] == ["", ""]
    assert json.loads(shown(b"", "json")) == {"data": [], "rows": 0}
