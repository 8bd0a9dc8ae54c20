"""Options inside of a config's objects, such as `train::trainer::amp`: what is not there, or must stay, is refused."""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pydoc import ErrorDuringImport, locate
from typing import Any

from monai.bundle import ComponentLocator, ConfigComponent

from petct_training.errors import InputError

# Names that a sentence may list.
MOST_NAMES = 15
# Keys of an object that MONAI reads itself.
OF_EVERY_OBJECT = frozenset(ConfigComponent.non_arg_keys)


def parts_of(name: str) -> list[str]:
    """Return the parts of an option's path.

    Example:
        >>> parts_of("train::trainer#amp"), parts_of("+handlers")
        (['train', 'trainer', 'amp'], ['handlers'])
    """
    return re.split(r"::|#", name.lstrip("+"))


def first_part(name: str) -> str:
    """Return the top-level id of a path such as "train::trainer" or "+handlers"."""
    return parts_of(name)[0]


def paths_named(value: object) -> set[str]:
    """Return the ids that a value of a config names.

    Example:
        >>> sorted(paths_named({"roi_size": "@patch_size", "average": "$@train::state::average is None"}))
        ['patch_size', 'train::state::average']
    """
    found = re.findall(r"[@%]([A-Za-z_][\w:#]*)", json.dumps(value, default=str))
    return {"::".join(parts_of(name)) for name in found}


def ids_named(value: object) -> set[str]:
    """Return the top-level ids that a value of a config names."""
    return {first_part(path) for path in paths_named(value)}


def check_nested(given: Mapping[str, Any], config: Mapping[str, Any], said: str) -> None:
    """Refuse the first nested option whose path does not exist, whose object does not take it, or that nothing reads.

    MONAI ends with a traceback on the first two, and takes the third without a word. Options without `::` are not looked at.

    Args:
        given: values of options by their names, in the order in which they change the config.
        config: what they change, as it was read from its files.
        said: how the sentence on an option begins, with {} for its name.

    Raises:
        InputError: with a sentence that names what there is.
    """
    changed = copy.deepcopy(dict(config))
    added: list[str] = []
    for name, value in given.items():
        *path, last = parts_of(name)
        place: Any = changed
        for depth, part in enumerate(path):
            if not _has(place, part):
                raise InputError(f"{said.format(name)}: {_no_part(path[:depth], part, place)}")
            place = place[part] if isinstance(place, dict) else place[int(part)]
        if path and not _has(place, last):
            _check_new(path, last, place, said.format(name))
            if "_target_" not in place and last not in OF_EVERY_OBJECT:
                added.append(name)
        if isinstance(place, dict):
            place[last] = copy.deepcopy(value)
        else:
            place[int(last)] = copy.deepcopy(value)
    named = paths_named(changed)
    for name in added:
        *above, last = parts_of(name)
        if not _is_read("::".join([*above, last]), named):
            others = {part: None for part in _value_at(changed, above) if part != last}
            raise InputError(f"{said.format(name)}: {_no_part(above, last, others)}")


def check_kept(given: Mapping[str, Any], config: Mapping[str, Any], own: Iterable[str], what: str, who: str) -> None:
    """Refuse the first option that puts something else in the place of a value that follows from what another program sets.

    Args:
        given: values of options by their names.
        config: what they change.
        own: ids that the other program sets.
        what: what holds the options, for a sentence.
        who: who sets those ids.

    Raises:
        InputError: with the option, and the id that would not count any more.
    """
    kept = set(own)
    for name, value in given.items():
        before = _value_at(config, parts_of(name))
        lost = sorted((ids_named(before) & kept) - ids_named(value))
        if lost:
            raise InputError(
                f"{what} holds {name}, in which the configs name @{lost[0]}, and {who} counts on it: leave it out, or name "
                f"@{lost[0]} in it, too"
            )


def _is_read(path: str, named: Iterable[str]) -> bool:
    """Whether ids that are named lead to what stands at a path: it, a part of it, or what it is a part of."""
    return any(f"{path}::".startswith(f"{other}::") or other.startswith(f"{path}::") for other in named)


def _has(place: object, part: str) -> bool:
    """Whether a dictionary or list of a config has a part."""
    if isinstance(place, dict):
        return part in place
    return isinstance(place, list) and part.removeprefix("-").isdecimal() and -len(place) <= int(part) < len(place)


def _value_at(config: object, path: Sequence[str]) -> Any:
    """Return what stands in a config at a path; None where nothing does."""
    for part in path:
        if not _has(config, part):
            return None
        config = config[part] if isinstance(config, dict) else config[int(part)]  # type: ignore[index]
    return config


def _check_new(path: Sequence[str], last: str, place: Any, said: str) -> None:
    """Refuse a part that a config does not have where it cannot be added: it may be to a plain dictionary, and to an object that
    takes it.
    """
    if not isinstance(place, dict):
        raise InputError(f"{said}: {_no_part(path, last, place)}")
    arguments = _arguments_of(place) if last not in OF_EVERY_OBJECT else None
    if arguments is not None and last not in arguments:
        raise InputError(f"{said}: {place['_target_']} takes no {last}{_advice(last, arguments)}")


def _no_part(path: Sequence[str], part: str, place: object) -> str:
    """Return a sentence that says what a place of a config has in the place of a part."""
    where = "::".join(path) or "the config"
    if isinstance(place, dict):
        return f"{where} has no {part}{_advice(part, list(place))}"
    number = f"{len(place)} entries, which count from 0" if isinstance(place, list) else "no parts"
    return f"{where} has {number}"


def _advice(name: str, known: Sequence[str]) -> str:
    """Return what a sentence says of the names that there are."""
    nearest = difflib.get_close_matches(name, known, n=1)
    if nearest:
        return f": did you mean {nearest[0]}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= MOST_NAMES else ""


def _arguments_of(place: Mapping[str, Any]) -> list[str] | None:
    """Return the names of all arguments of a config's object; None where it is none, takes any, or cannot be told."""
    target = place.get("_target_")
    if not isinstance(target, str) or target.startswith(("$", "@", "%")):
        return None
    component = ConfigComponent(config={"_target_": target}, id="", locator=_locator())
    try:
        found = locate(str(component.resolve_module_name()))
        arguments = inspect.signature(found).parameters  # type: ignore[arg-type]
    except (ErrorDuringImport, TypeError, ValueError):
        return None
    return None if any(one.kind is one.VAR_KEYWORD for one in arguments.values()) else list(arguments)


@functools.cache
def _locator() -> ComponentLocator:
    """Return what knows where MONAI's components are, which takes a look at all of them."""
    return ComponentLocator()
