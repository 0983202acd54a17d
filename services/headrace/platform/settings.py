"""Settings of a service, read from environment variables and checked before anything starts.

A shared field is read from `HEADRACE_<FIELD>`; a service's own field, and the three that every service has of its own
(`ops_host`, `ops_port`, `shutdown_timeout_s`), from `HEADRACE_<SERVICE>_<FIELD>`. An empty variable counts as unset.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BeforeValidator, Field, SecretBytes, SecretStr, ValidationError
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from headrace.platform.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from pydantic.fields import FieldInfo

PREFIX = "HEADRACE_"
OWN_OF_EVERY_SERVICE = frozenset({"ops_host", "ops_port", "shutdown_timeout_s"})
SIMILAR_ENOUGH_TO_BE_A_TYPING_ERROR = 0.85


class SettingsError(OperatorError):
    """Settings are wrong. The message has one line for each: the variable, what it is, and what is allowed."""


class SettingDescription(NamedTuple):
    """One setting, for a person to read."""

    variable: str
    allowed: str
    default: str
    description: str


class Shape(NamedTuple):
    """Says in words what a pattern allows: `Annotated[str, Shape("…")] = Field(pattern=…)`."""

    words: str


def _split_commas(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


CommaList = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
"""Type of a setting that is a comma-separated list."""

CommaIntegers = Annotated[tuple[int, ...], BeforeValidator(_split_commas)]
"""The same, of integers."""


class Settings(BaseSettings):
    """Settings that all services share. A service's class derives from it and names its service.

    Fields take their description from the docstring under them. Given as arguments (in a test, say), values go before
    the environment.
    """

    service: ClassVar[str] = ""
    """Name of the service, in lower case: "gateway"."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True, extra="forbid", validate_default=True)

    pipeline: str = "pipelines/fraud.py"
    """The pipeline declaration: a file, the name of one in the folder pipelines, or a module."""

    namespace: Annotated[str, Shape("a-z, 0-9 and inner hyphens")] = Field(
        default="", pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$", max_length=60
    )
    """Set apart several deployments of one pipeline: part of the names of topics, keys, groups and models."""

    definition: Annotated[str, Shape("a-z, 0-9 and inner hyphens")] = Field(
        default="", pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$", max_length=30
    )
    """Set apart a changed definition of the features that runs beside the former one: part of the names of its vectors
    and consumer groups. Empty for the first definition."""

    kafka_bootstrap: Annotated[str, Shape("host:port, separated by commas")] = Field(
        default="127.0.0.1:19092", pattern=r"^[^:,\s]+:\d+(,[^:,\s]+:\d+)*$"
    )
    """Kafka brokers to start from."""

    redis_url: Annotated[str, Shape("a redis://, rediss:// or unix:// URL")] = Field(
        default="redis://127.0.0.1:16379/0", pattern=r"^(rediss?|unix)://"
    )
    """The Redis that keeps the feature state."""

    triton_urls: CommaList = ("127.0.0.1:18001",)
    """gRPC addresses of the Triton servers, as host:port, separated by commas."""

    artifacts: Path = Path(".run/artifacts")
    """Directory that keeps model artifacts."""

    otlp_endpoint: str = ""
    """OpenTelemetry collector (OTLP over gRPC) as http://host:port; empty turns telemetry export off."""

    state_dir: Path = Path(".run/state")
    """Directory for local state that survives a restart: the spool, the join store, snapshots."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level of events to log."""

    signing_public_key: Path = Path(".run/keys/model_signing.pub.pem")
    """PEM file of the Ed25519 public key that model artifacts are verified with."""

    ops_host: str = "127.0.0.1"
    """Address to serve /livez, /readyz and /metrics on."""

    ops_port: int = Field(default=0, ge=0, le=65535)
    """Port to serve /livez, /readyz and /metrics on; 0 takes a free one."""

    shutdown_timeout_s: float = Field(default=20.0, gt=0, le=3600)
    """Seconds to finish what is under way after SIGTERM before the process ends regardless."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls)

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read the settings from the environment.

        Args:
            **given: values that go before the environment, by field name.

        Raises:
            SettingsError: a value is not allowed, or a variable with the prefix of the service is not known.
        """
        unknown = list(_unknown_variables(cls))
        try:
            settings = cls(**given)
        except ValidationError as error:
            wrong = [_line(cls, one) for one in error.errors(include_url=False)]
            raise SettingsError("\n".join(wrong + unknown)) from error
        if unknown:
            raise SettingsError("\n".join(unknown))
        return settings


def variable(settings_cls: type[Settings], field: str) -> str:
    """Name of the environment variable that a field is read from."""
    shared = field in Settings.model_fields and field not in OWN_OF_EVERY_SERVICE
    owner = "" if shared or not settings_cls.service else f"{settings_cls.service}_"
    return f"{PREFIX}{owner}{field}".upper()


def describe(settings_cls: type[Settings]) -> Iterator[SettingDescription]:
    """All settings of a class, the service's own first. Defaults of secrets are not shown."""
    own_first = sorted(
        settings_cls.model_fields.items(),
        key=lambda item: (item[0] in Settings.model_fields, item[0] not in OWN_OF_EVERY_SERVICE),
    )
    for name, info in own_first:
        yield SettingDescription(
            variable(settings_cls, name), _allowed(info), _default(info), " ".join((info.description or "").split())
        )


class _Environment(PydanticBaseSettingsSource):
    """Raw strings of the environment under the names of the fields."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        assert issubclass(self.settings_cls, Settings)
        name = variable(self.settings_cls, field_name)
        return os.environ.get(name) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(info, name)[0] for name, info in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def _unknown_variables(cls: type[Settings]) -> Iterator[str]:
    known = {variable(cls, name) for name in cls.model_fields}
    shared = {name for name in known if not cls.service or not name.startswith(f"{PREFIX}{cls.service}_".upper())}
    own_prefix = f"{PREFIX}{cls.service}_".upper() if cls.service else None
    for name in sorted(os.environ):
        if not name.startswith(PREFIX) or name in known:
            continue
        if own_prefix is not None and name.startswith(own_prefix):
            similar = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {similar[0]}?" if similar else f"the {cls.service} service has no such setting"
            yield f"{name}: not a setting; {hint}"
        else:
            # Compared without the prefix, which would make any two names look alike.
            similar = difflib.get_close_matches(
                name.removeprefix(PREFIX),
                [one.removeprefix(PREFIX) for one in shared],
                n=1,
                cutoff=SIMILAR_ENOUGH_TO_BE_A_TYPING_ERROR,
            )
            if similar:
                yield f"{name}: not a setting; did you mean {PREFIX}{similar[0]}?"


def _line(cls: type[Settings], error: Any) -> str:
    field = str(error["loc"][0]) if error["loc"] else ""
    info = cls.model_fields.get(field)
    message = str(error["msg"]).removeprefix("Value error, ")
    if info is None:
        return f"{variable(cls, field)}: not a setting" if field else message
    name = variable(cls, field)
    if error["type"] == "missing":
        return f"{name}: not set; must be {_allowed(info)}"
    given = "(not shown)" if _is_secret(info) else repr(str(error["input"]))
    allowed = message if error["type"] == "value_error" else f"must be {_allowed(info)}"
    return f"{name}: {given} is not allowed; {allowed}"


def _is_secret(info: FieldInfo) -> bool:
    members = {info.annotation, *get_args(info.annotation)}
    return bool(members & {SecretStr, SecretBytes})


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "(required)"
    default = info.get_default(call_default_factory=False)
    if default is PydanticUndefined or default is None or default == "":
        return "(none)"
    if _is_secret(info):
        return "(not shown)"
    if isinstance(default, bool):
        return str(default).lower()
    return ",".join(map(str, default)) if isinstance(default, tuple | list) else str(default)


def _allowed(info: FieldInfo) -> str:
    kind: Any = info.annotation
    if get_origin(kind) in {Union, UnionType}:
        kind = next(member for member in get_args(kind) if member is not type(None))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    names = {bool: "true or false", int: "an integer", float: "a number", Path: "a path"}
    text = names.get(kind, "a comma-separated list" if get_origin(kind) in {tuple, list} else "text")
    limits: dict[str, Any] = {}
    shape = next((one for one in info.metadata if isinstance(one, Shape)), None)
    for constraint in info.metadata:
        for limit in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern"):
            value = getattr(constraint, limit, None)
            if value is not None:
                limits[limit] = value
    if shape is not None:
        text = shape.words
        limits.pop("pattern", None)
    words = {
        "ge": "at least {}",
        "gt": "more than {}",
        "le": "at most {}",
        "lt": "less than {}",
        "min_length": "at least {} long",
        "max_length": "at most {} long",
        "pattern": "that matches {}",
    }
    if {"ge", "le"} <= limits.keys():
        text += f" from {limits.pop('ge')} to {limits.pop('le')}"
    return ", ".join([text, *(words[limit].format(value) for limit, value in limits.items())])
