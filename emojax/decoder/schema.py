"""The manifest of a bundle: its schema, and the id that binds its content.

The id is the sha256 of the manifest without "id" and "signature", as JSON with sorted keys and
without spaces. As the manifest has the sha256 of every other file, the id covers the whole decoder.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from emojax._numerics.polar import Method
from emojax.decoder.build import Facts
from emojax.errors import InputError
from emojax.rules import Rule, each, flag, number, one_of, text, tuple_of, whole

FORMAT = 2
READABLE = (1, FORMAT)
LARGEST = 1 << 22  # bytes of a manifest
DEEPEST = 8  # nested lists and tables
VOXELS = 1 << 25  # voxels of a grid: 134 MB as float32
MANY = 10**6
DAMAGED = "a damaged manifest", "one as it was saved"


class Manifest(NamedTuple):
    """The content of a manifest."""

    format: int
    network: str
    facts: Facts
    sha256: dict[str, str]  # file -> digest
    bounds: dict[str, list[float]]  # bounds of a volume's values, see `bounds.of_program`
    id: str  # "" in format 1
    signature: dict[str, str] | None


def _are_names(value: Any) -> bool:
    return each(text, most=MANY).holds(value) and len(set(value)) == len(value) and all(value)


def _is_grid(value: Any) -> bool:
    sides = tuple_of(*[whole("[1, 100000]")] * 3)
    return sides.holds(value) and math.prod(value) <= VOXELS


def _are_options(value: Any) -> bool:
    """Returns whether a value is a list of (name, value) of hyperalignment.Options."""
    pairs = tuple_of(text, Rule("anything", lambda _: True))
    if not each(pairs).holds(value) or len({name for name, _ in value}) < len(value):
        return False
    return all(name in OPTIONS and OPTIONS[name].holds(one) for name, one in value)


OPTIONS = {
    **dict.fromkeys(("scaling", "reflection", "demean", "zscore_common", "zscore_all"), flag),
    "alpha": number("[0, 1]"),
    "method": one_of(*get_args(Method)),
    "lowrank": one_of(None, True, False),
}
FACTS = {
    "classes": Rule("two names or more, each once", lambda v: _are_names(v) and len(v) > 1),
    "grid": Rule(f"three whole numbers > 0, {VOXELS} voxels at most", _is_grid),
    "level": number("(-1e30, 1e30)"),
    "spread": number("(0, 1e30)"),
    "tr": Rule("seconds, or null", lambda v: v is None or number("(0, 1e6)").holds(v)),
    "subject": text,
    "preprocessing": each(text),
    "provenance": each(tuple_of(text, whole("[0, inf)"), whole("[0, inf)")), most=MANY),
    "runs": Rule("names, each once", _are_names),
    "alignment": Rule("options of hyperalignment.fit", _are_options),
    "kind": text,
    "left_out": text,
    "temperature": number("(0, 1e6]"),
    "members": each(tuple_of(text, *[number("(0, inf)")] * 2), most=MANY),
    "trained_on": each(text, most=MANY),
    "online": text,
    "drop_first": whole("[0, 1e6]"),
    "limits": each(tuple_of(text, *[number("[-1e30, 1e30]")] * 2)),
    "reference_of": text,
    "scores": each(tuple_of(text, number("(-1e30, 1e30)"))),
    "protocol": text,
    "reliability": each(tuple_of(*[number("[0, 1]")] * 2, whole("[0, inf)"))),
    "fit": each(tuple_of(text, number("(-1e30, 1e30)"))),
    "inputs": each(tuple_of(text, text), most=MANY),
    "parent": text,
}


def _table(rule: Rule) -> Rule:
    """Returns the rule of a JSON table whose values all satisfy a rule."""
    holds = rule.holds
    return Rule(
        f"a table, each {rule.expected}",
        lambda v: isinstance(v, dict) and all(map(holds, v.values())),
    )


def _hexadecimal(digits: int) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, str) and len(value) == digits and set(value) <= set(DIGITS)

    return Rule(f"{digits} hexadecimal digits", holds)


DIGITS = "0123456789abcdef"
TABLE = Rule("a table", lambda value: isinstance(value, dict))
SIGNATURE = {"key": _hexadecimal(64), "signature": _hexadecimal(128)}  # ed25519
ALWAYS = {
    "format": whole(f"[{READABLE[0]}, {FORMAT}]"),
    "network": text,
    "facts": TABLE,
    "sha256": _table(_hexadecimal(64)),
}
LATER = {
    "bounds": _table(tuple_of(*[number("[-1e31, 1e31]")] * 2)),
    "program": TABLE,  # for human readers, see `program.export`
    "id": _hexadecimal(64),
}
SIGNED = Rule(
    "the key and the signature, in hexadecimal digits",
    lambda v: (
        isinstance(v, dict)
        and v.keys() == SIGNATURE.keys()
        and all(SIGNATURE[name].holds(v[name]) for name in v)
    ),
)


def write(manifest: Mapping[str, Any]) -> str:
    """Returns the text of a manifest, with its id."""
    return json.dumps({"id": identify(manifest), **manifest}, indent=1)


def identify(manifest: Mapping[str, Any]) -> str:
    """Returns the id of a manifest, ignoring any id and signature in it."""
    bound = {name: part for name, part in manifest.items() if name not in ("id", "signature")}
    canonical = json.dumps(bound, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read(content: bytes, where: Any) -> Manifest:
    """Reads a manifest of a known format.

    Args:
      content: content of the file.
      where: the file, for messages.

    Raises:
      InputError: a value is missing, unknown or out of range, or the id does not match.
    """
    try:
        stated = json.loads(content, object_pairs_hook=_once)
        if not isinstance(stated, dict) or _depth(stated) > DEEPEST:
            raise ValueError
        json.dumps(stated, ensure_ascii=False).encode()  # refuses lone surrogates
        found = identify(stated)
    except (ValueError, RecursionError):
        raise InputError(where, *DAMAGED) from None
    made = stated.get("format")
    if isinstance(made, int) and made not in READABLE:
        raise InputError(where, f"a decoder of format {made}", f"format {FORMAT}")
    is_first = made == 1 and made is not True
    rules = ALWAYS | ({} if is_first else LATER)
    extra = {"jax": text} if is_first else {"signature": SIGNED}
    _check(stated, rules, extra, where)
    if not is_first and stated["id"] != found:
        expected = "a manifest as it was saved (an edited one is another decoder: export it again)"
        raise InputError(
            where, f"content that is not that of decoder {stated['id'][:16]}", expected
        )
    facts = read_facts(stated["facts"], where)
    return Manifest(
        format=stated["format"],
        network=stated["network"],
        facts=facts,
        sha256=stated["sha256"],
        bounds=stated.get("bounds") or {},
        id="" if is_first else found,
        signature=stated.get("signature"),
    )


def read_facts(stored: Any, where: Any) -> Facts:
    """Returns the facts of a manifest, with JSON's lists turned back into tuples.

    Args:
      stored: the facts as read from JSON.
      where: the manifest, for messages.

    Raises:
      InputError: a fact is missing, unknown or out of range.
    """
    optional = {name: FACTS[name] for name in Facts._field_defaults}
    needed = {name: rule for name, rule in FACTS.items() if name not in optional}
    _check(stored, needed, optional, where)
    return Facts(**{name: _as_tuples(value) for name, value in stored.items()})


def _check(
    table: Mapping[str, Any], needed: Mapping[str, Rule], optional: Mapping[str, Rule], where: Any
) -> None:
    """Checks a table by its rules, one for each required or optional name."""
    rules = {**needed, **optional}
    for name in table:
        if name not in rules:
            raise InputError(where, f"{name!r}, which is unknown", f"some of {', '.join(rules)}")
    for name, rule in rules.items():
        if name not in table and name in needed:
            raise InputError(where, f"no {name}", rule.expected)
        if name in table and not rule.holds(table[name]):
            raise InputError(where, f"{name} {table[name]!r}", rule.expected)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses a duplicate name in a table, of which readers would pick different ones."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError
    return table


def _depth(node: Any) -> int:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return 1 + max(map(_depth, children), default=0)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
