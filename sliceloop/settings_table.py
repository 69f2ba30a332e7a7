"""`sliceloop settings`: every setting with its default and its meaning, read off the settings themselves."""

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from broker.settings import BrokerSettings
from cloud_worker.object_store import S3Settings
from cloud_worker.release_settings import ReleaseSettings
from cloud_worker.settings import WorkerSettings
from edge_agent.settings import EdgeSettings
from sliceloop.config import nested_section
from training.settings import TrainerSettings

SECTIONS: dict[str, type[BaseModel]] = {
    "broker": BrokerSettings,
    "edge": EdgeSettings,
    "worker": WorkerSettings,
    "release": ReleaseSettings,
    "s3": S3Settings,
    "trainer": TrainerSettings,
}


def settings_table() -> str:
    """Return a Markdown table of all settings."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for section, model in SECTIONS.items():
        lines += [f"| `{name}` | {_default(field)} | {_meaning(field)} |" for name, field in _fields(section, model)]
    return "\n".join(lines)


def _fields(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = nested_section(field.annotation)
        if section is None or field.default is None:
            yield f"{prefix}.{name}", field
        if section is not None:
            yield from _fields(f"{prefix}.{name}", section)


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default is PydanticUndefined:
        return "**needed**"
    if isinstance(field.default, tuple):
        return ", ".join(f"`{getattr(each, 'name', each)}`" for each in field.default) or "none"
    return "none" if field.default is None else f"`{field.default}`"


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())
