"""What the rules make of real turns of phrase: types, polarity, speech act, severity, emotion."""

from collections.abc import Callable

import pytest

from schemas.scored import ScoredRow

Read = Callable[..., ScoredRow]


def said(row: ScoredRow) -> set[tuple[str, str]]:
    return {(one.type, one.polarity) for one in row.objections}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("物流很快", ("delivery", "positive")),
        ("物流太慢了", ("delivery", "negative")),
        ("快递真的慢", ("delivery", "negative")),
        ("噪音大", ("product_quality", "negative")),
        ("洗衣机脱水的时候噪音非常大", ("product_quality", "negative")),
        ("声音不大", ("product_quality", "positive")),
        ("客服态度差", ("service_attitude", "negative")),
        ("客服非常有耐心", ("service_attitude", "positive")),
        ("问了三天都不回复", ("service_efficiency", "negative")),
        ("价格不贵", ("price", "positive")),
        ("价格有点高", ("price", "negative")),
        ("性价比很高", ("price", "positive")),
        ("性价比不高", ("price", "negative")),
        ("拒绝退款", ("after_sales", "negative")),
        ("实物与描述不符", ("expectation_gap", "negative")),
        ("和图片一样", ("expectation_gap", "positive")),
        ("包装破损，杯子都碎了", ("delivery", "negative")),
        ("质量没有以前好", ("product_quality", "negative")),
        ("充电速度快", ("product_quality", "positive")),
        ("电池掉电太快", ("product_quality", "negative")),
        ("味道一般", ("product_quality", "neutral")),
        ("喝出一只苍蝇", ("product_quality", "negative")),
        ("课程内容和宣传的大纲不符", ("expectation_gap", "negative")),
        ("老师讲得很清楚，干货满满", ("expectation_gap", "positive")),
        ("乱收费", ("price", "negative")),
        ("质量很差", ("product_quality", "negative")),
        ("品質太差，發貨很慢", ("delivery", "negative")),
        ("ＷＩＦＩ断网", ("product_quality", "negative")),
    ],
)
def test_type_and_polarity(read: Read, text: str, expected: tuple[str, str]) -> None:
    assert expected in said(read(text))


@pytest.mark.parametrize(
    "text",
    [
        "没有异响",
        "没有任何异响",
        "开了一天都没有出现异响",
        "没发现漏水",
        "异响都没有",
        "不卡顿，不发烫",
        "没有质量问题",
        "一个都没烂",
        "洗完头发很顺",
        "快递员送到家",
        "儿子住院时买的",
        "防漏电保护",
        "",
        "。。。",
    ],
)
def test_no_objection(read: Read, text: str) -> None:
    row = read(text)
    assert all(polarity != "negative" for _, polarity in said(row)), row.objections
    assert row.severity == 0


@pytest.mark.parametrize(
    "text",
    [
        "没多久就漏水了",
        "不到一年就漏水",
        "没想到第二天就坏了",
        "不知道为什么一直异响",
        "没用几天就开裂",
        "没有解决异响问题",
    ],
)
def test_negation_that_is_none(read: Read, text: str) -> None:
    assert ("product_quality", "negative") in said(read(text)) or ("service_efficiency", "negative") in said(read(text))


def test_mixed_review_keeps_both_sides(read: Read) -> None:
    row = read("东西不错，就是物流太慢，包装也破了")
    assert ("delivery", "negative") in said(row)
    assert any(one.polarity == "positive" for one in row.objections)
    assert row.speech_act == "complaint"


@pytest.mark.parametrize("text", ["发动机异响，4S店已经修好了", "之前漏水，换新后好了，已经解决了"])
def test_solved_problem_is_no_open_objection(read: Read, text: str) -> None:
    row = read(text)
    assert ("product_quality", "neutral") in said(row)
    assert ("product_quality", "negative") not in said(row)
    assert row.severity == 0


@pytest.mark.parametrize(
    "text", ["异响一直没解决", "修好了没两天又漏油", "希望漏水问题尽快解决了", "漏水修了三次还没修好"]
)
def test_unsolved_problem_stays_open(read: Read, text: str) -> None:
    assert any(polarity == "negative" for _, polarity in said(read(text)))


def test_rudeness_is_not_undone_by_a_repair(read: Read) -> None:
    assert ("service_attitude", "negative") in said(read("客服态度差，不过问题已经解决了"))


@pytest.mark.parametrize(
    ("text", "act"),
    [
        ("发动机异响4S店不处理", "complaint"),
        ("我要投诉到12315", "complaint"),
        ("会不会漏电啊", "doubt"),
        ("担心电池鼓包", "doubt"),
        ("建议增加一个静音模式", "suggestion"),
        ("请问这个怎么安装？", "question"),
        ("有异响吗？", "question"),
        ("非常满意，推荐购买", "praise"),
        ("今天收到", "other"),
    ],
)
def test_speech_act(read: Read, text: str, act: str) -> None:
    assert read(text).speech_act == act


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("物流太慢", 1),
        ("拒绝退款", 2),
        ("用了两天就无法开机", 2),
        ("洗衣机漏电", 3),
        ("充电的时候冒烟", 3),
        ("刹车突然失灵", 3),
        ("行驶中突然熄火", 3),
        ("吃出玻璃渣", 3),
        ("咖啡太烫把我烫伤了", 4),
        ("手机爆炸了", 4),
        ("车辆自燃", 4),
        ("喝完拉肚子", 4),
        ("孩子喝出玻璃渣", 4),
        ("我的个人信息泄露了", 4),
        ("差点烫伤", 2),
        ("会不会爆炸", 2),
        ("听说这款会起火", 2),
        ("气炸了，客服态度太差", 1),
        ("所谓“自燃”是假的", 2),
        ("没有起火", 0),
        ("很满意", 0),
    ],
)
def test_severity(read: Read, text: str, severity: int) -> None:
    row = read(text)
    assert row.severity == severity, row.objections


@pytest.mark.parametrize(
    ("text", "emotion"),
    [
        ("太气愤了，黑心商家", "anger"),
        ("非常失望", "disappointment"),
        ("真的很无奈，没办法", "helplessness"),
        ("好难过", "sadness"),
        ("现在都不敢用了，太可怕", "fear"),
        ("非常开心", "joy"),
        ("周二到货", "neutral"),
    ],
)
def test_emotion(read: Read, text: str, emotion: str) -> None:
    row = read(text)
    assert row.emotion == emotion
    assert (row.intensity > 0) == (emotion != "neutral")


def test_intensity_follows_the_words(read: Read) -> None:
    weak, plain, strong = (read(text).intensity for text in ("有点失望", "失望", "非常失望！！"))
    assert weak < plain < strong <= 1


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("一汽丰田威驰行驶中发动机异响4S店不处理", {"product_quality", "after_sales"}),
        ("一汽大众奥迪Q3天窗漏水维修后未解决", {"product_quality", "service_efficiency"}),
        ("一汽大众迈腾尾灯起雾 售后服务态度恶劣", {"product_quality", "after_sales"}),
        ("奇瑞eQ动力电池漏液4S店不予保修", {"product_quality", "after_sales"}),
        ("吉利星越车机与宣传不符 销售人员不回信息", {"expectation_gap", "service_efficiency"}),
    ],
)
def test_car_complaint_titles(read: Read, text: str, types: set[str]) -> None:
    row = read(text)
    assert row.speech_act == "complaint"
    assert types <= {kind for kind, polarity in said(row) if polarity == "negative"}, row.objections


@pytest.mark.parametrize(
    ("text", "kind", "subtypes"),
    [
        ("箱子都压扁了，里面的杯子碎了", "delivery", {"damaged"}),
        ("包装太简陋，就一个塑料袋", "delivery", {"packaging"}),
        ("更新系统后一直卡顿闪退", "product_quality", {"stability"}),
        ("这一批洗衣机噪音特别大", "product_quality", {"noise"}),
        ("课程和描述不符，直播变录播", "expectation_gap", {"not_as_described", "course"}),
        ("电池掉电快，还会自动重启", "product_quality", {"battery", "stability"}),
        ("快递一周才到，太慢了", "delivery", {"late"}),
    ],
)
def test_stories_of_the_scenarios(read: Read, text: str, kind: str, subtypes: set[str]) -> None:
    row = read(text)
    assert subtypes & {one.subtype for one in row.objections if one.type == kind and one.polarity == "negative"}
    assert row.speech_act == "complaint"


def test_packaging_is_told_from_product(read: Read) -> None:
    assert {kind for kind, _ in said(read("包装破损"))} == {"delivery"}


def test_spans_name_the_words(read: Read) -> None:
    row = read("Ａ款洗衣机，没几天就漏水；物流太慢了")
    words = {row.text[one.span[0] : one.span[1]] for one in row.objections}
    assert words == {"漏水", "物流太慢"}
