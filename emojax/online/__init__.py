"""Real-time decoding: volumes are corrected causally, checked and decoded one by one.

state = online.init(decoder)
state, record = online.step(state, volume)

The functions come from `stepping`, which is imported (and jax with it) when one is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emojax.online.stepping import (
        AUTO,
        NONE,
        STEPS,
        Record,
        State,
        init,
        replay,
        step,
        steps_of,
    )

__all__ = ["AUTO", "NONE", "STEPS", "Record", "State", "init", "replay", "step", "steps_of"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name in __all__:
        from emojax.online import stepping

        return getattr(stepping, name)
    raise AttributeError(f"module 'emojax.online' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
