"""Read a process's settings once: a TOML file, and environment variables (SLICELOOP_SECTION__KEY) above it."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

Section = TypeVar("Section", bound=BaseModel)

SECTIONS = ("broker", "edge", "worker", "release", "s3", "trainer")
ENV_PREFIX = "SLICELOOP_"
MOVED = {"worker.release": "release"}
"""Settings that stood elsewhere before, by where they stand now."""


class ConfigError(ValueError):
    """A configuration that cannot be used; each line names a key and what to do."""


class _Layered(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *_unused: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then the file; nothing else."""
        return named["env_settings"], TomlConfigSettingsSource(settings_cls)


def read_section(path: Path | None, name: str, model: type[Section]) -> Section:
    """Return one section of the configuration as its frozen model; raises `ConfigError`."""
    if path is not None:
        _check_file(path)
    config = SettingsConfigDict(toml_file=path)
    needed = any(field.is_required() for field in model.model_fields.values())
    field = (model, ...) if needed else (model, model())
    namespace = {"model_config": config, "__module__": __name__, "__annotations__": {name: field[0]}}
    try:
        loaded = type("Loaded", (_Layered,), namespace if needed else {**namespace, name: field[1]})()
    except ValidationError as error:
        raise ConfigError(_explain(error, path, model)) from None
    except SettingsError:  # its message names no variable, and its cause holds the value
        variable = f"{ENV_PREFIX}{name.upper()}"
        raise ConfigError(
            f"{variable}, or a variable that begins so, sets a whole section but is no JSON; set {variable}__KEY"
        ) from None
    section: Section = getattr(loaded, name)
    return section


def _check_file(path: Path) -> None:
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give an existing file by --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    foreign = [f"[{name}] in {path} is foreign{_hint(name, SECTIONS)}" for name in document if name not in SECTIONS]
    if foreign:
        raise ConfigError("; ".join(foreign) + f"; known are {', '.join(SECTIONS)}")


def _explain(error: ValidationError, path: Path | None, model: type[BaseModel]) -> str:
    return "\n".join(_explain_one(fault, path, model) for fault in error.errors(include_url=False, include_input=False))


def _explain_one(fault: Any, path: Path | None, model: type[BaseModel]) -> str:
    parts = [str(part) for part in fault["loc"]]
    key, place = ".".join(parts), f"in {path}" if path else "(no --config was given)"
    variable = ENV_PREFIX + "__".join(part.upper() for part in parts)
    if fault["type"] == "missing":
        return f"{key} is missing {place}: set it there, or {variable}"
    if key in MOVED:
        return f"{key} {place} has moved: write its settings under [{MOVED[key]}], on the machine of whoever releases"
    if fault["type"] == "extra_forbidden":
        return f"{key} {place} is foreign{_hint(parts[-1], _known_keys(model, parts[1:-1]))}: correct or remove it"
    return f"{key} {place}: {fault['msg']}"


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        nested = nested_section(model.model_fields[part].annotation) if part in model.model_fields else None
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def nested_section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field is, also where it may be left out; a list of sections is none."""
    if get_origin(annotation) is tuple:
        return None
    choices = (annotation, *get_args(annotation))
    return next((each for each in choices if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _hint(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
