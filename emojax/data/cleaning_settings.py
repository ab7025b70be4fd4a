"""Settings of cleaning, keys of `config.data`. This module does not import jax."""

from typing import NamedTuple


class Settings(NamedTuple):
    """Steps of cleaning, for each run by itself; by default, all are off."""

    detrend: int = 0  # degree of the polynomial that is regressed out; 0 for none
    centre: bool = False  # whether to centre voxels within the run
    zscore: bool = False  # whether to z-score voxels within the run
    motion: bool = False  # whether to regress out the realignment parameters
    high_pass_hz: float = 0.0  # cutoff of the cosines that are regressed out; 0 for none
    confounds: str = ""  # confounds to regress out, names in `confounds.STRATEGIES`
    scrub_fd_mm: float = 0.0  # largest framewise displacement of a volume that counts; 0 for any

    @property
    def in_use(self) -> str:
        """The settings in use, as they are typed."""
        given = self._asdict().items()
        return ", ".join(f"data.{name}={value}" for name, value in given if value)
