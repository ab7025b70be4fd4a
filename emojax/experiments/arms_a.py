"""The arms of Experiment A: what is fitted to which subjects, and which leaks are closed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from emojax.alignment import REGIMES
from emojax.experiments import base, sweeps
from emojax.features.across_subjects import STRICT, Leaks, Settings
from emojax.files import split_list
from emojax.provenance import PROTOCOLS
from emojax.records import Arm
from emojax.scoring.baselines import BAG, NUISANCE

AUTO = "auto"
BESIDE = "logistic"  # reported with the bag; trained on all subjects except the test subject
FLOOR = "noise floor"


class Setup(NamedTuple):
    """The features of an arm of Experiment A, and the steps that see the test subject."""

    settings: Settings
    leaks: Leaks = STRICT
    on_test: bool = False  # epoch and learning rate are chosen on the test unit, as published


def arms(config: Any, cohort: Any) -> list[Arm]:
    """Returns the arms that a config requests; the headline first."""
    choices, regimes = split_list(config.protocols), split_list(config.align.regimes)
    settings = _settings(config, cohort)
    names = base.installed(config.baselines)
    out: list[Arm] = []
    if "nested" in choices or "last" in choices:
        network = Arm(
            "nested" if "nested" in choices else "last",
            protocol_of(config, cohort, settings),
            Setup(settings),
            regime=regimes[0],
            pick="best" if "nested" in choices else "last",
            baselines=(*names, NUISANCE) if names else (),
            members=config.train.members,
            instances=config.instances,
        )
        out += [*_bag(config, network), *([network] if config.network else ())]
        if {"nested", "last"} <= set(choices) and config.network:
            out.append(replace(network, name="last", shares="nested", pick="last", baselines=()))

        def swept(own: Any) -> Arm:
            return replace(network, settings=Setup(_settings(own, cohort)))

        out += sweeps.arms(config, swept)
    if "paper" in choices:
        out += _published(config, settings, names if not out else ())
    if "nested" in choices and config.network:
        for regime in regimes[1:]:
            other = settings._replace(regime=regime)
            protocol = protocol_of(config, cohort, other)
            out.append(Arm(f"nested, {regime}", protocol, Setup(other), regime=regime))
    first = next((arm for arm in out if not arm.decoder), None)
    if first and config.null_floor and not config.null:
        for draw in range(config.noise.network_draws):
            name = FLOOR + (f" {draw + 1}" if draw else "")
            out.append(replace(first, name=name, on_noise=True, draw=draw, baselines=()))
    return out


def _settings(config: Any, cohort: Any) -> Settings:
    """Returns the feature settings of the headline's regime."""
    align = config.align
    options = {
        name: align[name]
        for name in ("level2_iters", "zscore_common", "alpha", "scaling", "reflection", "weight")
    }
    return Settings(
        config.voxels.keep,
        len(cohort.classes),
        split_list(align.regimes)[0],
        align.match,
        config.voxels.own,
        config.voxels.centre,
        (*options.items(), ("method", align.method)),
        align.parcels,
        align.piecewise,
        config.voxels.after,
    )


def _bag(config: Any, network: Arm) -> list[Arm]:
    """Returns the bag, one logistic regression on all other subjects, and the automatic choice."""
    if config.headline == "network":
        return []
    others = () if config.network else network.baselines  # without a network, each gets a row
    others = tuple(name for name in others if name != BESIDE)
    bag = replace(network, name=BAG, decoder=BAG, pick="best", baselines=(BAG, BESIDE, *others))
    bag = replace(bag, members=False, instances=1)
    whole = replace(bag, name=f"{BESIDE} n-1", decoder=BESIDE, shares=BAG, baselines=())
    auto = replace(whole, name=AUTO, decoder=AUTO)
    rows = [replace(whole, name=name, decoder=name) for name in others]
    return [auto, bag, whole] if config.headline == AUTO else [bag, whole, *rows]


def _published(config: Any, settings: Settings, names: Sequence[str]) -> list[Arm]:
    """Returns the published procedure, then arms that close its leaks one by one."""
    leaky = settings._replace(regime="transductive")
    voxels = not config.voxels.own
    everybody = Leaks(voxels=voxels, alignment=True)
    steps = ("voxels", "alignment") if voxels else ("alignment",)
    paper = Arm(
        "paper",
        "leaky",
        Setup(leaky, everybody, on_test=True),
        regime="transductive",
        leaks=(*steps, "epoch choice"),
        oversampled=True,
        baselines=(*names, NUISANCE) if names else (),
    )
    once = "paper, test volumes once"
    out = [paper, replace(paper, name=once, shares="paper", oversampled=False, baselines=())]
    if config.leaks:
        out.append(
            Arm(
                "leaky voxels and alignment",
                "leaky",
                Setup(leaky, everybody),
                regime="transductive",
                leaks=steps,
            )
        )
        if voxels and not settings.chooses_after:  # leaky voxels would require a leaky alignment
            setup = Setup(settings, Leaks(voxels=True))
            out.append(
                Arm("leaky voxels", "leaky", setup, regime=settings.regime, leaks=("voxels",))
            )
    return out


def protocol_of(config: Any, cohort: Any, settings: Settings) -> str:
    """Returns the protocol class that an alignment regime claims in this study."""
    claims = [REGIMES[settings.regime].protocol]
    own_rows = settings.own_voxels or (
        settings.centre and not REGIMES[settings.regime].needs_template
    )
    if own_rows or config.units == "run":
        claims.append("calibrated")
    return max(claims, key=PROTOCOLS.index)
