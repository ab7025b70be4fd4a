"""Selection of the scans of a study: one file per acquisition.

An acquisition is one measurement, identified by subject, session, task, acq, dir and run. Its
echoes, parts, reconstructions, resolutions, spaces and so on share signal and noise, so two of them
on both sides of a split would make the noise decodable. Therefore only one version is used; if
several are left, the user selects one with `data.entities`.
"""

import collections
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from emojax.data.acquisitions import natural, number
from emojax.errors import InputError
from emojax.files import split_list
from emojax.sources.bids_names import ACQUISITION, IMAGES, File, comparable, known

KEY = "data.entities"
TYPE = f"--config.{KEY}="
NONE = "none"  # value for files without the entity
NOT_BOLD = ("phase", "real", "imag")  # parts of complex images
PREFERRED = "preproc"  # desc of fMRIPrep's preprocessed scans

Acquisitions = dict[tuple, list[File]]


class Filter(NamedTuple):
    """The values of one entity that the user asks for."""

    key: str  # config key, for messages
    entity: str
    values: tuple[str, ...]  # as typed


class Chosen(NamedTuple):
    """One file of each acquisition, sorted by path, and notes on what was left out."""

    files: list[File]
    notes: list[str]


def parse(text: str) -> list[Filter]:
    """Parses filters such as "echo=2,rec=norm|raw,space=none".

    Args:
      text: the filters, separated by commas.

    Raises:
      InputError: a filter has another form, or an entity occurs twice.
    """
    found: dict[str, Filter] = {}
    for part in split_list(text):
        entity, _, right = (piece.strip() for piece in part.partition("="))
        values = tuple(value.strip() for value in right.split("|") if value.strip())
        if not entity or not values or entity in found:
            expected = f"each entity once with its values, such as {TYPE}echo=2,space=none"
            raise InputError(KEY, repr(part), expected)
        found[entity] = Filter(KEY, entity, values)
    return list(found.values())


def choose(root: pathlib.Path, files: Iterable[File], filters: Sequence[Filter]) -> Chosen:
    """Returns the BOLD image of each acquisition that passes the filters.

    Phase, real and imaginary parts do not count as BOLD. Without a filter on desc, desc-preproc is
    preferred.

    Args:
      root: root of the data set, for messages.
      files: files of the data set.
      filters: filters, all of which a file must pass.

    Raises:
      InputError: there is no BOLD image, a filter names something that does not exist, no task or
        several tasks are left, an acquisition has only a phase image, several versions of an
        acquisition are left, or acquisitions have different versions that no filter names.
    """
    bold = [file for file in files if file.suffix == "bold" and file.ext in IMAGES]
    if not bold:
        below = sorted({path.parent for path in root.glob("*/sub-*")})
        such = f", such as --config.data.root={below[0]}" if below else ""
        expected = f"the root of a BIDS data set{such}"
        raise InputError(root, "no sub-*/func/*_bold.nii(.gz)", expected)
    wanted = [(f, _resolve(root, bold, f)) for f in filters]
    of_acquisitions = [(f, values) for f, values in wanted if f.entity in ACQUISITION]
    of_versions = [(f, values) for f, values in wanted if f.entity not in ACQUISITION]
    bold, named = _allowed(root, bold, of_acquisitions), {f.entity for f in filters}
    _refuse_tasks(root, bold)
    left = _allowed(root, _magnitudes(bold, named), of_versions, after=of_acquisitions)
    groups = _grouped(left)
    if "desc" not in named:
        groups = {name: _preferred(group) for name, group in groups.items()}
    typed = {f.entity: "|".join(f.values) for f in filters if f.key == KEY}
    for group in groups.values():
        _refuse_several(root, group, typed)
    chosen = [group[0] for group in groups.values()]
    _refuse_mixed(root, chosen, named, typed)
    notes = _left_out(bold, groups, of_versions)
    return Chosen(sorted(chosen, key=lambda file: file.path), notes)


def _resolve(root: pathlib.Path, bold: Sequence[File], wanted: Filter) -> set[str | None]:
    """Returns the values that a filter asks for, in comparable form; None for "none"."""
    entity = wanted.entity
    have = {file.same.get(entity) for file in bold}
    if have == {None} and entity not in known():
        there = dict.fromkeys(e for file in bold for e in file.written)
        listed = "; ".join(f"{e} {_listed(bold, e)}" for e in there)
        raise InputError(wanted.key, f"an entity {entity!r}", f"one that scans have: {listed}")
    found = set()
    for typed in wanted.values:
        value = comparable(entity, typed.removeprefix(f"{entity}-"))
        like = {v for v in have if v is not None and number(v) == number(value)}
        if value in have:
            found.add(value)
        elif typed == NONE:
            found.add(None)
        elif len(like) == 1:
            found |= like
        else:
            what = f"{entity}-{value}" if not like else f"{entity}-{value}, which may be several"
            expected = f"one of {_listed(bold, entity)} ({wanted.key})"
            raise InputError(root, what if like else f"no {what}", expected)
    return found


def _allowed(root, bold: Sequence[File], wanted, after=()) -> list[File]:
    """Applies filters one by one, and raises an InputError if nothing is left after one of them.

    Args:
      root: root of the data set, for messages.
      bold: files that are left.
      wanted: filters with their values in comparable form.
      after: filters that were applied before, for messages.
    """
    said = [f"{f.entity} {'|'.join(f.values)}" for f, _ in after]
    for f, values in wanted:
        left = [file for file in bold if file.same.get(f.entity) in values]
        if not left:
            found = f"no scan of {f.entity} {'|'.join(f.values)}"
            found += f" among those of {', '.join(said)}" if said else ""
            expected = f"{f.entity} {_listed(bold, f.entity)} ({f.key})"
            raise InputError(root, found, expected)
        said.append(f"{f.entity} {'|'.join(f.values)}")
        bold = left
    return list(bold)


def _refuse_tasks(root, bold: Sequence[File]) -> None:
    """Raises an InputError if scans of several tasks are left."""
    if len({file.same.get("task") for file in bold}) > 1:
        listed, example = _listed(bold, "task"), bold[0].written.get("task", NONE)
        expected = f"one of them as data.task (--config.data.task={example})"
        raise InputError(root, f"tasks {listed}", expected)


def _magnitudes(bold: Sequence[File], named: Collection[str]) -> list[File]:
    """Removes phase, real and imaginary images.

    Every acquisition must have another image, unless a filter on part leaves it out.
    """
    real = [file for file in bold if file.same.get("part") not in NOT_BOLD]
    there = {file.acquisition for file in real}
    lost = next((file for file in bold if file.acquisition not in there), None)
    if lost is None or (real and "part" in named):
        return real
    expected = "its magnitude (part-mag) beside it"
    if real:
        parts = _listed(real, "part").replace(", ", "|")
        expected += f", or leave it out by '{TYPE}part={parts}'"
    found = f"only part-{lost.same['part']} of {lost.label}, which is not BOLD"
    raise InputError(lost.path, found, expected)


def _preferred(group: list[File]) -> list[File]:
    return [file for file in group if file.same.get("desc") == PREFERRED] or group


def _grouped(bold: Iterable[File]) -> Acquisitions:
    groups: Acquisitions = collections.defaultdict(list)
    for file in bold:
        groups[file.acquisition].append(file)
    return groups


def _refuse_several(root, group: Sequence[File], typed: dict[str, str]) -> None:
    """Raises an InputError if more than one file of an acquisition is left."""
    first_of: dict[frozenset, File] = {}
    for file in group:
        first = first_of.setdefault(frozenset(file.same.items()), file)
        if first is not file:
            found = f"the same scan as {first.path.name}"
            raise InputError(file.path, found, "one of the two: remove or rename the other")
    if len(group) > 1:
        differ = [e for e in _versions(group) if len({file.same.get(e) for file in group}) > 1]
        listed = "; ".join(f"{entity} {_listed(group, entity)}" for entity in differ)
        found = f"{len(group)} versions of {group[0].label}: {listed}"
        example = group[len(group) // 2].written
        own = {entity: example.get(entity, NONE) for entity in differ}
        raise InputError(root, found, f"one of them, such as {_setting(typed | own)}")


def _refuse_mixed(
    root, chosen: Sequence[File], named: Collection[str], typed: dict[str, str]
) -> None:
    """Raises an InputError if acquisitions have different versions that no filter names."""
    for entity in _versions(chosen):
        values = {file.same.get(entity) for file in chosen}
        if entity in named or len(values) == 1 or entity == "part":  # only magnitudes are left
            continue
        first = chosen[0]
        other = next(f for f in chosen if f.same.get(entity) != first.same.get(entity))
        found = (
            f"scans of different {entity}: {_listed(chosen, entity)} "
            f"({first.path.name}, {other.path.name})"
        )
        one = _setting(typed | {entity: first.written.get(entity, NONE)})
        every = _setting(typed | {entity: _listed(chosen, entity).replace(", ", "|")})
        raise InputError(root, found, f"one, such as {one}, or all by name: '{every}'")


def _left_out(bold: Sequence[File], groups: Mapping, filters) -> list[str]:
    """Returns a note on acquisitions without a version that passes the filters."""
    out = [group[0].label for name, group in _grouped(bold).items() if name not in groups]
    if not out:
        return []
    wanted = ", ".join(f"{f.entity}={'|'.join(f.values)}" for f, _ in filters)
    more = f" and {len(out) - 3} more" if len(out) > 3 else ""
    listed = f"{', '.join(out[:3])}{more}"
    return [f"left out, since they have no scan with {wanted}: {listed}"]


def _versions(files: Sequence[File]) -> list[str]:
    """Returns the entities of the files that do not identify an acquisition."""
    return [e for e in dict.fromkeys(e for f in files for e in f.same) if e not in ACQUISITION]


def _setting(values: Mapping[str, str]) -> str:
    """Returns the flag to type for values of entities."""
    return TYPE + ",".join(f"{entity}={value}" for entity, value in values.items())


def _listed(files: Iterable[File], entity: str) -> str:
    """Returns the values of an entity as written, in natural order, with "none" last."""
    values = {file.written.get(entity) for file in files}
    named = sorted((v for v in values if v is not None), key=lambda v: (natural(v), v))
    return ", ".join([*named, *([NONE] if None in values else [])])
