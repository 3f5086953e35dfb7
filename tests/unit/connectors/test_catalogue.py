from pathlib import Path

import pytest

from connectors.catalogue import read_catalogue
from pipeline.errors import ConfigurationError

HEADER = "product_id,name,aliases,product_batch_id,units,from,until\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "catalogue.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_entries_as_they_are_written(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + 'w7,云净W7,云净W7|W7,L2603,"12,000",2026-03-01,2026-03-31\np9,,,,,,\n')
    lot, product = read_catalogue(path, "Asia/Shanghai")
    assert (lot.product_id, lot.name, lot.aliases, lot.product_batch_id, lot.units) == (
        "w7",
        "云净W7",
        ["云净W7", "W7"],
        "L2603",
        12000,
    )
    assert lot.sold_from == 1772294400000
    assert lot.sold_until == 1772294400000 + 31 * 86_400_000, "the last day counts whole"
    assert (product.name, product.aliases, product.units, product.sold_from) == ("p9", [], None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name\nx\n", "product_id is missing"),
        (HEADER.strip() + ",colour\n", "unknown: 'colour'"),
        (HEADER + ",x,,,,,\n", "line 2 of catalogue.csv: product_id is empty"),
        (HEADER + "a,,,L1,,,\na,,,L1,,,\n", "line 3 of catalogue.csv: lot 'L1' of 'a' stands twice"),
        (HEADER + "a,,,L1,many,,\n", "units: 'many' does not do"),
        (HEADER + "a,,,L1,-1,,\n", "units: '-1' does not do"),
        (HEADER + "a,,,L1,1,tomorrow,\n", "from: 'tomorrow' is no day"),
        (HEADER + "a,,,L1,1,2026-03-02,2026-03-01\n", "lies before"),
        (HEADER + 'a,"x,,L1,1,,\n', "catalogue.csv, after line"),
    ],
)
def test_errors_name_line_and_column(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_catalogue(write(tmp_path, text), "Asia/Shanghai")
    assert said in str(caught.value)


def test_no_file_and_no_zone_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_catalogue(tmp_path / "no.csv", "Asia/Shanghai")
    with pytest.raises(ConfigurationError, match="time zone 'Mars'"):
        read_catalogue(write(tmp_path, HEADER), "Mars")
