"""Modules of environments of others: where they are found, which folder a run remembers, and which files travel with a job.

Importing one runs its code: each is looked for where Python looks, or in a folder that this user has named (the current one of a
command that reads a configuration; the one that a run of this user was made with), and its owner is checked before.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from scalepilot.errors import InputError
from scalepilot.files.ownership import check_module, check_own
from scalepilot_envs.flat_env import wrapper_names
from scalepilot_envs.registration import MODULE_PREFIX, EnvEntry, find_env, listed_modules, split_id

_OURS = ("scalepilot", "scalepilot_envs")
_PATH = "PYTHONPATH"


def modules_of(env: object) -> list[str]:
    """The top-level modules that an environment's section of a configuration, or what made a policy, needs.

    Args:
        env: {id: module:Id, wrappers: [module:Class]} as plain data; anything else needs none.
    """
    if not isinstance(env, Mapping):
        return []
    names = [split_id(str(env.get("id", "")).removeprefix(MODULE_PREFIX))[0]]
    wrappers = env.get("wrappers") or ()
    # What is wrong with them is said where the section is checked.
    with contextlib.suppress(ValueError):
        names += [name.partition(":")[0] for name in wrapper_names(wrappers if isinstance(wrappers, list | tuple) else ())]
    return list(dict.fromkeys(top for name in names if (top := name.partition(".")[0]) and top not in _OURS))


def find_checked(env_id: str, wrappers: object = ()) -> EnvEntry:
    """The environment of a policy that is to play in it: importing what registers it runs code, so its owner is checked before.

    Raises:
        InputError: another user could change a module, or one cannot be imported, or it registers no such environment.
    """
    for name in modules_of({"id": env_id, "wrappers": wrappers}):
        check_module(name, "env")
    try:
        return find_env(env_id)
    except ValueError as error:
        raise InputError(str(error)) from None


def find_in_current_folder(env: object) -> None:
    """Have Python find modules that lie in the current folder, as it does for `python script.py`; checked for their owner.

    Raises:
        InputError: another user could change one.
    """
    here = Path.cwd()
    for name in {*modules_of(env), *(module.partition(".")[0] for module in listed_modules())}:
        if not _is_found(name) and _holds(here, name):
            _add_folder(here, name)


def folders_of(env: object) -> dict[str, str]:
    """Module → folder it is found in, of those that are not installed beside Python: what a run remembers."""
    places = {name: _place(name) for name in modules_of(env)}
    return {name: str(place.parent) for name, place in places.items() if place is not None}


def find_in_recorded_folders(env: object, recorded: object, run: Path) -> None:
    """Have Python find the modules of a stored run's environment where they were when it began, if it finds them nowhere else.

    Args:
        env: of the run's configuration.
        recorded: module → folder, as `folders_of` gave it; whatever else a damaged file holds is passed over.
        run: the run's folder: what lies in it may have come with it from a stranger, and is not imported.

    Raises:
        InputError: another user could change one.
    """
    for name in modules_of(env):
        folder = recorded.get(name) if isinstance(recorded, Mapping) else None
        if not isinstance(folder, str) or not Path(folder).is_absolute() or _is_found(name) or not _holds(Path(folder), name):
            continue
        if not Path(folder).resolve().is_relative_to(run.resolve()):
            _add_folder(Path(folder), name)


def sources_of(env: object) -> list[Path]:
    """Files and package folders that have to travel with an environment: its modules, and those of their folder they import.

    What is installed beside Python is not among them: a cluster's image has it, or installs it.

    Raises:
        InputError: a module cannot be imported.
    """
    found: dict[str, Path] = {}
    for name in modules_of(env):
        place = _place(name)
        if place is None:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a module may raise anything
            raise InputError(f"env.id: {name!r} cannot be imported ({type(error).__name__}: {error})") from None
        found[name] = place
        for other, module in list(sys.modules.items()):
            top = other.partition(".")[0]
            file = getattr(module, "__file__", None)
            if top not in (*found, *_OURS, "__main__") and file and Path(file).is_relative_to(place.parent):
                beside = _place(top)
                if beside is not None and beside.parent == place.parent:
                    found[top] = beside
    return list(found.values())


def _is_found(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _place(name: str) -> Path | None:
    """A module's file, or its package's folder; None where it is installed beside Python, or not found, or no file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        place = Path(next(iter(spec.submodule_search_locations)))
    elif spec.origin and Path(spec.origin).is_file():
        place = Path(spec.origin)
    else:
        return None
    place = Path.cwd() / place
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    installed = bool({"site-packages", "dist-packages"} & {*place.parts}) or any(map(place.is_relative_to, libraries))
    return None if installed else place


def _holds(folder: Path, name: str) -> bool:
    try:
        return name.isidentifier() and ((folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file())
    except OSError:
        return False


def _add_folder(folder: Path, name: str) -> None:
    """Behind everything else that Python looks at, here and in processes that are started later."""
    check_own(folder, f"env: {name}")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        os.environ[_PATH] = os.pathsep.join(filter(None, [os.environ.get(_PATH), str(folder)]))
    importlib.invalidate_caches()
    check_module(name, "env")
