"""A signal in words: what, which lot, how much above what, since when, what else explains it, what customers say."""

import datetime as dt
from typing import Literal
from zoneinfo import ZoneInfo

from schemas.signal import DriverShare, Signal

Language = Literal["zh", "en"]

_TYPES: dict[str, tuple[str, str]] = {
    "product_quality": ("产品质量", "product quality"),
    "service_attitude": ("服务态度", "service attitude"),
    "service_efficiency": ("服务效率", "service efficiency"),
    "price": ("价格", "price"),
    "delivery": ("交货", "delivery"),
    "after_sales": ("售后服务", "after-sales"),
    "expectation_gap": ("描述不符", "not as described"),
}
_KINDS: dict[str, tuple[str, str]] = {
    "spike": ("异议激增", "objections spike"),
    "ramp": ("异议缓升", "objections ramp up"),
    "severe": ("严重投诉", "severe complaint"),
    "incident": ("产品事件", "incident"),
}
_EVENTS: dict[str, tuple[str, str]] = {
    "opened": ("新", "NEW"),
    "updated": ("更新", "UPDATE"),
    "closed": ("结束", "CLOSED"),
}
_DIMENSIONS: dict[str, tuple[str, str]] = {
    "batch": ("批次", "lot"),
    "carrier": ("承运商", "carrier"),
    "region": ("地区", "region"),
    "channel": ("渠道", "channel"),
    "version": ("版本", "version"),
    "product": ("产品", "product"),
}
_PAST = (("历史", "history"), ("一两个月前的水平", "the rate of one to two months before"))
"""What a spike is held against, and a ramp."""
_STEPS: dict[str, tuple[str, str]] = {"1h": ("小时", "h"), "1d": ("天", "d")}


def _word(words: dict[str, tuple[str, str]], key: str, language: Language) -> str:
    return words.get(key, (key, key))[language == "en"]


def day(signal: Signal, zone: ZoneInfo) -> str:
    """The local day of the step that opened it."""
    return dt.datetime.fromtimestamp(signal.opened_step / 1000, zone).strftime("%Y-%m-%d")


def objection(signal: Signal, language: Language) -> str:
    """What is objected to."""
    return _word(_TYPES, signal.objection_type, language)


def subject_name(signal: Signal, language: Language, names: dict[str, str] | None = None) -> str:
    """The product (or carrier, region, channel) without its lot."""
    if signal.subject_kind != "product":
        return f"{_word(_DIMENSIONS, signal.subject_kind, language)} {signal.subject_id}"
    unknown = "产品不明" if language == "zh" else "unknown product"
    return (names or {}).get(signal.subject_id, signal.subject_id) or unknown


def subject(signal: Signal, language: Language, names: dict[str, str] | None = None) -> str:
    """What the signal is about: product and lot, or the carrier, region or channel."""
    name = subject_name(signal, language, names)
    lot = signal.product_batch_id
    return f"{name} · {_word(_DIMENSIONS, 'batch', language)} {lot}" if lot else name


def headline(signal: Signal, language: Language, names: dict[str, str] | None = None) -> str:
    """One line, enough for a lock screen."""
    what = objection(signal, language)
    kind = _word(_KINDS, signal.kind, language)
    parted = f"{what}{kind}" if language == "zh" else f"{what}: {kind}"
    return f"[{_word(_EVENTS, signal.event, language)}] {subject(signal, language, names)} {parted}"


def numbers(signal: Signal, language: Language, zone: ZoneInfo, step: str) -> str:
    """How much, against what, since when."""
    since = dt.datetime.fromtimestamp(signal.opened_step / 1000, zone)
    day = since.strftime("%Y-%m-%d" if step == "1d" or signal.kind == "severe" else "%Y-%m-%d %H:%M")
    if signal.kind == "severe":
        if language == "zh":
            return f"严重度 {signal.severity}/4，{signal.voices} 位客户，{day}"
        return f"severity {signal.severity}/4, {signal.voices} voice{'s' * (signal.voices != 1)}, {day}"
    low, high = signal.interval
    length = f"{signal.window} {_word(_STEPS, step, language)}"
    chance = f"{signal.p_value:.0e}" if signal.p_value is not None else "–"
    against = _PAST[signal.kind == "ramp"][language == "en"]
    if language == "zh":
        exposure = (
            f"在用 {signal.exposure:,.0f} 件"
            if signal.exposure_kind == "units"
            else f"每步提及 {signal.exposure:,.1f} 条"
        )
        return (
            f"近 {length} {signal.observed} 位客户提出异议，按{against}与{exposure}应为 {signal.expected:.1f}"
            f"（95 % 区间 {low:.0f}–{high:.0f}），{signal.rate_ratio:.1f} 倍，p={chance}，始于 {day}"
        )
    exposure = (
        f"{signal.exposure:,.0f} units in the field"
        if signal.exposure_kind == "units"
        else f"{signal.exposure:,.1f} mentions a step"
    )
    return (
        f"{signal.observed} voices object in the last {length}; {against} and {exposure} explain {signal.expected:.1f} "
        f"(95 % {low:.0f}–{high:.0f}): {signal.rate_ratio:.1f}×, p={chance}, since {day}"
    )


def drivers(signal: Signal, language: Language) -> str:
    """Which dimension explains the excess, in shares; empty if nothing was compared."""
    shares = signal.concentration.drivers
    if not shares:
        return ""
    told = "；" if language == "zh" else "; "
    verdict = signal.concentration
    head = f"{_word(_DIMENSIONS, verdict.dimension, language)} {verdict.value}".strip()
    if verdict.dimension == "none":
        head = "无单一维度可解释" if language == "zh" else "no single dimension explains it"
    return f"{'归因' if language == 'zh' else 'points to'}: {head} ({told.join(_driver(share, language) for share in shares[:4])})"


def _driver(share: DriverShare, language: Language) -> str:
    name = f"{_word(_DIMENSIONS, share.dimension, language)} {share.value}"
    if language == "zh":
        return f"{name} 占超出量 {share.share_of_excess:.0%}，占基数 {share.share_of_exposure:.0%}"
    return f"{name} {share.share_of_excess:.0%} of the excess, {share.share_of_exposure:.0%} of the exposure"


def quotes(signal: Signal, most: int) -> list[str]:
    """Up to ``most`` masked quotes."""
    return [evidence.quote for evidence in signal.evidence if evidence.quote][:most]
