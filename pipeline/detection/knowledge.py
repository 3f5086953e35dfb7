"""All that a detector knows between two records: what a snapshot keeps and a restart begins from."""

from dataclasses import dataclass, field

from pipeline.detection.counts import StepTable
from pipeline.detection.exposure import Catalogue
from pipeline.detection.lifecycle import OpenSignals
from pipeline.detection.season import Season, season_of
from pipeline.detection.severity import Memory
from pipeline.detection.steps import Steps
from pipeline.detection.tally import Tally
from pipeline.detection.units import NEVER, Units
from schemas.policy import DAY_MS, DetectionPolicy


@dataclass
class Knowledge:
    """Steps are given by number, times in ms UTC."""

    policy: DetectionPolicy
    policy_version: str = ""
    """Of the policy that came in band; empty while none has."""
    catalogue: Catalogue = field(default_factory=dict)
    """Never changed in place: a new catalogue is a new object."""
    catalogue_version: str = ""
    catalogue_applied: bool = True
    """Whether the units have been described by the catalogue in force; it happens at a step close."""
    row_versions: str = ""
    """What made the rows, as the last block of them said."""
    units: Units = field(default_factory=Units)
    tally: Tally = field(default_factory=Tally)
    signals: OpenSignals = field(default_factory=OpenSignals)
    grave: Memory = field(default_factory=Memory)
    """Grave entries of final steps."""
    tables: dict[int, StepTable] = field(default_factory=dict)
    """Closed steps that are not final, or that windows still reach."""
    absorbed_before: int = NEVER
    """Steps before this one are in the baselines."""
    gaps: dict[tuple[str, int], int | None] = field(default_factory=dict)
    """Source and start → end; None while it lasts."""
    next_step: int | None = None
    """The step that closes next; None before the first watermark."""
    final_before: int = NEVER
    """Steps before this one take no more corrections."""
    heard: int = 0
    """Steps closed so far, without those in gaps."""
    step_days: float | None = None
    """How long a step is in truth, where counts of other steps are replayed as if of days."""

    def __post_init__(self) -> None:
        """The units' columns depend on the policy's step."""
        self.fit_units()

    def fit_units(self) -> None:
        """Units have a coefficient for each term of the season; the base step may change as long as there are none."""
        self.units.set_terms(len(self.season.prior))

    @property
    def season(self) -> Season:
        """Of the policy's base step."""
        steps = Steps(self.policy.step, self.policy.time_zone)
        return season_of(self.step_days or steps.length / DAY_MS)

    @property
    def versions(self) -> str:
        """What made the rows, policy and catalogue, as outputs name them."""
        named = (("policy", self.policy_version), ("catalogue", self.catalogue_version))
        return " ".join(filter(None, (self.row_versions, *(f"{name}={value}" for name, value in named if value))))

    @property
    def lots(self) -> int:
        """Lots of the catalogue in force; 0 without one."""
        return sum(map(len, self.catalogue.values()))
