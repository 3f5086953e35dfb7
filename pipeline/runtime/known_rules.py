"""The rules of detection that can be had: those in force now, and others by the version that a signal names.

A policy is looked up by its version in the configuration, in the state of the data folder, and in a configuration file of then
if one is named; a catalogue in the first two and on its topic, which keeps all versions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from connectors.catalogue import read_catalogue
from pipeline.detection.replayed import Rules
from pipeline.detection.snapshot import Snapshot
from pipeline.errors import ConfigurationError, RadarError
from pipeline.runtime.catalogues import Catalogues, version_of
from pipeline.runtime.checkpoint import SqliteCheckpoint
from pipeline.runtime.embedded import CHECKPOINT_FILE
from pipeline.settings import KafkaSettings, Settings
from schemas.catalogue import CatalogueEntry
from schemas.policy import DetectionPolicy
from schemas.signal import Signal


class Present(NamedTuple):
    """What detection goes by now."""

    settings: Settings
    """For all that is neither policy nor catalogue."""
    policy: DetectionPolicy
    policy_version: str
    catalogue: Sequence[CatalogueEntry]
    catalogue_version: str

    @property
    def lots(self) -> int:
        """Of the catalogue."""
        return len({(entry.product_id, entry.product_batch_id) for entry in self.catalogue})


def of_configuration(settings: Settings) -> Present:
    """The rules of a configuration.

    Raises:
        ConfigurationError: the catalogue is wrong.
    """
    policy = settings.policy()
    entries = read_catalogue(settings.catalogue, settings.time_zone) if settings.catalogue else []
    return Present(settings, policy, version_of(policy), entries, version_of(entries))


def of_folder(data_dir: Path) -> Present:
    """The rules that the data folder's state was last given; its catalogue tells lots and units, and no names.

    Raises:
        ConfigurationError: nothing has been run in it.
        TerminalError: the state cannot be read.
    """
    if not (data_dir / CHECKPOINT_FILE).is_file():
        raise ConfigurationError(f"{data_dir} holds no state of detection: nothing has been run in it")
    checkpoint = SqliteCheckpoint(data_dir / CHECKPOINT_FILE)
    try:
        known = Snapshot.read(DetectionPolicy(), checkpoint.state()).known
    finally:
        checkpoint.close()
    entries = [
        CatalogueEntry(product, product, [], lot, told.units, told.sold_from, told.sold_until)
        for product, lots in known.catalogue.items()
        for lot, told in lots.items()
    ]
    settings = Settings().model_copy(update={"data_dir": data_dir, "time_zone": known.policy.time_zone})
    return Present(settings, known.policy, known.policy_version, entries, known.catalogue_version)


class KnownRules(NamedTuple):
    """Policies and catalogues by version, as far as they can be had."""

    policies: dict[str, DetectionPolicy]
    catalogues: dict[str, Sequence[CatalogueEntry]]
    brokers: KafkaSettings | None = None
    """Whose catalogue topic has the others."""

    def of(self, signal: Signal) -> Rules:
        """The rules that a signal names.

        Raises:
            ConfigurationError: the policy is not known.
        """
        policy, catalogue = named(signal.versions, "policy"), named(signal.versions, "catalogue")
        if policy not in self.policies:
            have = ", ".join(sorted(self.policies)) or "none"
            raise ConfigurationError(
                f"--policy: the signal was decided by policy {policy or 'without a version'}, and known are: {have}; "
                "name the configuration file of then"
            )
        return Rules(self.policies[policy], policy, self._catalogue(catalogue), catalogue)

    def _catalogue(self, version: str) -> Sequence[CatalogueEntry] | None:
        if not version:
            return []
        if version not in self.catalogues and self.brokers is not None:
            try:
                return Catalogues(self.brokers).entries(version)
            except RadarError:  # not there, or the brokers are not: then it is unknown, and that is said
                return None
        return self.catalogues.get(version)


def known_rules(settings: Settings | None, data_dir: Path, then: Settings | None = None) -> KnownRules:
    """The rules of the configuration, of the data folder's state, and of a configuration of then.

    Raises:
        ConfigurationError: a catalogue file is wrong.
        TerminalError: the state cannot be read.
    """
    found = [of_configuration(one) for one in (settings, then) if one is not None]
    if (data_dir / CHECKPOINT_FILE).is_file():
        found.append(of_folder(data_dir))
    return KnownRules(
        {one.policy_version: one.policy for one in found},
        {one.catalogue_version: one.catalogue for one in found},
        settings.kafka if settings else None,
    )


def named(versions: str, what: str) -> str:
    """The version of the policy or catalogue among the versions of a signal or count; empty if none."""
    found = [word.partition("=")[2] for word in versions.split() if word.startswith(f"{what}=")]
    return found[-1] if found else ""
