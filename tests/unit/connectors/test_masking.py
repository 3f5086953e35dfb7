import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.masking import Masker, Pseudonymiser, is_identity_number, is_luhn

MASKER = Masker(["13800138000", "L19912345678", "6222021234567890128", "K2-11"])


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("电话13912345678谢谢", "电话<phone>谢谢"),
        ("电话 139 1234 5678", "电话 <phone>"),
        ("+86-139-1234-5678", "<phone>"),
        ("１３９１２３４５６７８", "<phone>"),
        ("身份证11010519491231002X。", "身份证<id-card>。"),
        ("卡号4111 1111 1111 1111", "卡号<bank-card>"),
        ("我的车京A12345", "我的车<plate>"),
        ("新能源粤BD12345", "新能源<plate>"),
        ("写信到 li.lei+x@example.com.cn 吧", "写信到 <email> 吧"),
        ("13912345678和13812345678", "<phone>和<phone>"),
    ],
)
def test_personal_data_is_masked(text: str, masked: str) -> None:
    assert MASKER.mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "批号13800138000有异响",
        "批号１３８００１３８０００有异响",
        "批号L19912345678",
        "400-800-1234",
        "2017款 1.3L CVT",
        "价格 1299 元，2026-03-01 买的",
        "110105194912310021",  # a wrong check digit: an order number
        "4111111111111112",  # fails Luhn
        "京A很好",
        "拨打 12315",
        "",
    ],
)
def test_what_is_no_personal_data_stays(text: str) -> None:
    assert MASKER.mask(text) == text


def test_a_number_beside_a_lot_is_masked_all_the_same() -> None:
    assert MASKER.mask("批号13800138000，电话13800138001") == "批号13800138000，电话<phone>"


def test_checks() -> None:
    assert is_identity_number("11010519491231002X")
    assert not is_identity_number("110105194912310021")
    assert is_luhn("4111111111111111")
    assert not is_luhn("4111111111111112")


@given(st.text(max_size=300))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once = MASKER.mask(text)
    assert MASKER.mask(once) == once


@given(
    st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True).filter(lambda n: n != "13800138000"),
    st.text("电话是呀，。 ", max_size=5),
)
def test_every_mobile_number_goes(number: str, around: str) -> None:
    assert number not in Masker().mask(around + number + around)


@pytest.mark.parametrize("piece", ["1", "1390", "a.", "62 ", "京A", "1 3 9 ", "110105194912310"])
def test_time_is_linear_in_the_length(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * length)[:length] + "@1"
        best = 9.0
        for _ in range(3):
            begin = time.process_time()
            MASKER.mask(text)
            best = min(best, time.process_time() - begin)
        return best

    assert seconds(400_000) < 24 * max(seconds(50_000), 1e-3)  # 8 x as long: quadratic would be 64 x


def test_pseudonyms_are_keyed_and_name_their_key() -> None:
    one, other = Pseudonymiser(b"one"), Pseudonymiser(b"other")
    assert one("张三") == one("张三") != one("李四")
    assert one("张三") != other("张三")
    assert one("张三").partition(":")[0] == one("李四").partition(":")[0] != other("张三").partition(":")[0]
    assert "张三" not in one("张三")
