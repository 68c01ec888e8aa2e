"""Declares settings as typed fields, and reads them from variables. The other modules list the settings.

A field is the only declaration of a setting: variable, type, bounds, default, unit, description, and whether
its value is a secret. `.env.example`, the reference page, the output of `ledgerline settings` and errors are
generated from it.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import get_annotations
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from dotenv import load_dotenv
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ledgerline.errors import LedgerlineError
from ledgerline.settings.project import Project
from ledgerline.settings.unknown import warn_of_unknown

OFF = "off"
Hidden = Literal["nothing", "password", "value"]


class SettingsError(LedgerlineError):
    """Raised when variables have invalid values. The message names each of these variables."""


class DeclaredSettings(BaseSettings):
    """Base class of all classes of settings."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the given values as the only source, so that from_environment() alone reads variables."""
        return (init_settings,)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, options: Mapping[str, str] | None = None
    ) -> Self:
        """Read the settings from variables.

        Args:
            environment: Variables to read; by default, those of this process over those of `.env`.
            options: Variables that options of a command set. They take precedence over the environment.

        Raises:
            SettingsError: Variables have values that cannot be used.
            ProjectError: The pyproject.toml of the project cannot be used.
        """
        project = Project.from_environment(os.environ if environment is None else environment)
        if environment is None:
            load_dotenv(project.root / ".env")
            environment = os.environ
            warn_of_unknown(environment)
        try:
            return cls.model_validate(_values(cls, {**environment, **(options or {})}, project))
        except ValidationError as error:
            wrong = {str(each["loc"][-1]): each for each in error.errors(include_url=False)}
            fields = {field.name: field for field in settings_of(cls)}
            problems = [fields[name].problem(wrong[name]) for name in wrong if name in fields]
        # Raised outside of the handler, because pydantic's error contains the values, including secrets.
        raise SettingsError("\n".join(problems))


def _values(cls: type[DeclaredSettings], environment: Mapping[str, str], project: Project) -> dict[str, Any]:
    """Return the values of the fields that have one. An empty variable counts as not set."""
    values: dict[str, Any] = {}
    for attribute, field in cls.model_fields.items():
        if attribute == "project":
            values[attribute] = project
        elif (group := _group(field)) is not None:
            values[attribute] = _values(group, environment, project)
        elif value := environment.get(str(field.validation_alias)):
            values[str(field.validation_alias)] = value
    return values


def _group(field: FieldInfo) -> type[DeclaredSettings] | None:
    """Return the class of a field that holds further settings; None for a single setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, DeclaredSettings) else None


@dataclass(frozen=True)
class Setting:
    """A setting that a field declares; its name is that of the variable."""

    name: str
    attribute: str
    field: FieldInfo
    owner: type[DeclaredSettings]

    def _extra(self, key: str) -> str:
        extra = self.field.json_schema_extra
        return str(extra[key]) if isinstance(extra, dict) else ""

    @property
    def description(self) -> str:
        """The meaning of the setting, in sentences."""
        return self.field.description or ""

    @property
    def unit(self) -> str:
        """The unit of a number; empty if there is no unit."""
        return self._extra("unit")

    @property
    def hides(self) -> str:
        """The part of the value that is hidden: "nothing", "password" (in a URL) or "value"."""
        return self._extra("hides")

    @property
    def default(self) -> str:
        """The default in words, or as it would be written into a variable; empty if there is no default."""
        value = self.field.default if self.field.default_factory is None else None
        return self._extra("default") or as_text(value)

    @property
    def allowed(self) -> str:
        """The values that the type allows, as a phrase after "set it to"; empty if every text is allowed."""
        kinds = [self.field.annotation, *get_args(self.field.annotation)]
        words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        if words:
            return f"one of: {', '.join(words)}"
        if int not in kinds and float not in kinds:
            return ""
        bounds = {
            name: bound
            for each in self.field.metadata
            for name in ("ge", "le")
            if (bound := getattr(each, name, None)) is not None
        }
        upper = f"to {bounds['le']:g}" if "le" in bounds else "on"
        return f"a {'whole ' if int in kinds else ''}number from {bounds.get('ge', 0):g} {upper}"

    def problem(self, error: ErrorDetails) -> str:
        """Return a sentence that states why the value is invalid, and what to set instead."""
        value = "cannot be used" if self.hides != "nothing" else f"is {error['input']!r}"
        if advice := str(error.get("ctx", {}).get("error", "")):
            return f"{self.name} {value}; {advice}."
        default = f" (default {self.default})" if self.default else ""
        return f"{self.name} {value}; set it to {self.allowed}{default}."


def setting(
    name: str,
    description: str,
    default: object = None,
    *,
    default_text: str = "",
    unit: str = "",
    hides: Hidden = "nothing",
    **bounds: Any,
) -> Any:
    """Declare a setting as a field of a class of settings.

    Args:
        name: Name of the variable.
        description: Meaning of the setting, in sentences with full stops.
        default: The default, or a function that derives it from the fields above.
        default_text: The default in words, if a function derives it.
        unit: Unit of a number.
        hides: Part of the value that is hidden: nothing, the password in a URL, or the whole value.
        **bounds: Further arguments of pydantic's Field, such as `ge` and `le`.

    Example:
        >>> class OvenSettings(DeclaredSettings):
        ...     seconds: int = setting("OVEN_SECONDS", "Time in the oven.", 90, unit="seconds", ge=1)
        >>> OvenSettings.from_environment({"OVEN_SECONDS": "60"}).seconds
        60
        >>> OvenSettings.from_environment({"OVEN_SECONDS": "0"})
        Traceback (most recent call last):
            ...
        ledgerline.settings.declaration.SettingsError: OVEN_SECONDS is '0'; set it to ...
    """
    kind: Any = {"default_factory" if isinstance(default, Callable) else "default": default}
    return Field(
        **kind,
        validation_alias=name,
        description=description,
        repr=hides == "nothing",
        json_schema_extra={"default": default_text, "unit": unit, "hides": hides},
        **bounds,
    )


def settings_of(cls: type[DeclaredSettings]) -> Iterator[Setting]:
    """Return the settings that a class, its bases and its fields declare, each name once."""
    settings: dict[str, Setting] = {}
    for attribute, field in cls.model_fields.items():
        if (group := _group(field)) is not None:
            settings |= {each.name: each for each in settings_of(group)}
        elif field.validation_alias is not None:
            owners = (each for each in reversed(cls.__mro__) if attribute in get_annotations(each))
            name = str(field.validation_alias)
            settings[name] = Setting(name, attribute, field, next(owners))
    yield from settings.values()


def as_text(value: object) -> str:
    """Return a value as it would be written into a variable."""
    if value is None:
        return ""
    if isinstance(value, tuple | frozenset):
        return ",".join(sorted(map(str, value)) if isinstance(value, frozenset) else map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _digits(value: object) -> object:
    """Refuse texts such as 5000.0 and 1_000, which pydantic would also accept as integers."""
    if isinstance(value, str) and not value.isdecimal():
        raise ValueError  # The type describes the allowed values.
    return value


def _address(value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if scheme not in ("http", "https") or not separator or not rest or rest[0] in "/ \t":
        raise ValueError("set it to an address like http://127.0.0.1:5000")
    return value


def _words(value: object) -> object:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def place(value: str) -> str:
    """Return a URL unchanged, and a folder as an absolute path: processes start in different folders."""
    return value if "://" in value else str(Path(value).absolute())


Whole = Annotated[int, BeforeValidator(_digits)]
Address = Annotated[str, AfterValidator(_address)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
WordSet = Annotated[frozenset[str], BeforeValidator(_words)]
Place = Annotated[str, AfterValidator(place)]
PlaceOrOff = Annotated[str, AfterValidator(lambda value: value if value == OFF else place(value))]
Folder = Annotated[Path, AfterValidator(Path.absolute)]
