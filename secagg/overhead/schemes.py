"""How an update is protected, as ``--scheme`` spells it."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.ckks.parameters import Profile
from secagg.ckks.profiles import PROFILES
from secagg.errors import Code, ConfigError, SecaggError
from secagg.plan import Protection, ProtectionMode, Significance

PLAIN = "plain"
SELECTIVE = "selective"
SELECTIVE_PROFILE = "compact"
RATIOS = (0.01, 0.05, 0.1, 0.3, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A protection and the profile it encrypts under.

    Args:
        name: as ``--scheme`` spells it.
        protection: plain, full, or selective by an agreed mask.
        profile: of what is encrypted; says nothing where nothing is.
    """

    name: str
    protection: Protection
    profile: Profile

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """``plain``, a profile's name (everything is encrypted under it), or ``selective:RATIO[:PROFILE]``.

        Raises:
            ConfigError: CONFIG_INVALID.
        """
        if text == PLAIN:
            return cls(name=text, protection=Protection.plain(), profile=PROFILES["precise"])
        if text in PROFILES:
            return cls(name=text, protection=Protection.full(), profile=PROFILES[text])
        kind, _, rest = text.partition(":")
        ratio, _, profile = rest.partition(":")
        profile = profile or SELECTIVE_PROFILE
        if kind != SELECTIVE or profile not in PROFILES:
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"scheme {text!r} is unknown; choose from {PLAIN}, {', '.join(PROFILES)}, "
                f"{SELECTIVE}:RATIO or {SELECTIVE}:RATIO:PROFILE",
            )
        try:
            protection = Protection.selective(significance=Significance.MAGNITUDE, ratio=float(ratio))
        except (ValueError, SecaggError):
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"scheme {text!r}: the ratio is the share of encrypted entries, in (0, 1], as in "
                f"{SELECTIVE}:0.1",
            ) from None
        return cls(name=text, protection=protection, profile=PROFILES[profile])

    @property
    def encrypts(self) -> bool:
        """False for plain."""
        return self.protection.mode is not ProtectionMode.PLAIN

    @property
    def quantised(self) -> bool:
        """True if anything is sealed in steps."""
        return self.encrypts and self.profile.quantised

    def has_room(self, clients: int) -> bool:
        """Whether a sum over so many clients fits."""
        return not self.encrypts or clients <= self.profile.weight_total

    def check_clients(self, clients: int) -> None:
        """See that a sum over so many clients has room.

        Raises:
            ConfigError: CONFIG_INVALID.
        """
        if not self.has_room(clients):
            raise ConfigError(
                Code.CONFIG_INVALID,
                f"{clients} clients; scheme {self.name} has headroom for {self.profile.weight_total}",
            )


ALL_SCHEMES = (PLAIN, *PROFILES, *(f"{SELECTIVE}:{ratio:g}" for ratio in RATIOS))
"""Plain, everything encrypted under each profile, and a growing share under ``SELECTIVE_PROFILE``."""

DEFAULT_SCHEMES = tuple(name for name in ALL_SCHEMES if name != "nvflare")
"""What a deployment chooses from."""
