"""The settings of cleaning: keys of `config.data`. Nothing here needs jax."""

from typing import NamedTuple


class Settings(NamedTuple):
    """Steps of cleaning, for each run by itself; all are off."""

    detrend: int = 0  # degree of the polynomial, 0 for none
    centre: bool = False  # voxels are centred within the run
    zscore: bool = False  # they are z-scored within the run
    motion: bool = False  # the realignment parameters are regressed out
    high_pass_hz: float = 0.0  # and slower cosines than this; 0 for none
    confounds: str = ""  # and fMRIPrep's confounds, names of `confounds.STRATEGIES`
    scrub_fd_mm: float = 0.0  # volumes with a larger framewise displacement do not count; 0: all do

    @property
    def in_use(self) -> str:
        """Keys that ask for something, as they are typed."""
        given = self._asdict().items()
        return ", ".join(f"data.{name}={value}" for name, value in given if value)
