"""Reads the NFS_WATCH_... variables of both programs, once; a wrong value is refused with its variable's name."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from uploader.errors import BadConfiguration, sentence

PREFIX = "NFS_WATCH_"
_NAME = re.compile(r"\.?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
SECRETS = frozenset({"AZURE_STORAGE_CONNECTION_STRING"})


class Environment(BaseSettings):
    """The settings of both programs; frozen."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True, extra="ignore")

    replicas: int | None = Field(default=None, ge=0)
    statefulset: str = Field(default="nfs-watch", pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
    host: str = "0.0.0.0"  # noqa: S104 a pod is reached from outside; the cluster decides who may
    port: int = Field(default=8080, ge=1, le=65535)
    clients: int = Field(default=2500, ge=16, le=100_000)  # connections; web/places.py has the memory they take
    names: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("names", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:  # noqa: ANN401 as pydantic hands it over
        names = [part.strip().lower() for part in value.split(",")] if isinstance(value, str) else value
        for name in filter(None, names):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: jetson.example.org, or .example.org for all below it; no port")
        return tuple(filter(None, names))


E = TypeVar("E", bound=Environment)


def read(settings: type[E], given: Mapping[str, Any] | None = None, allowed: Mapping[str, str] | None = None) -> E:
    """Read the environment; `given` outranks it. `allowed`: a field's rule in words, in place of pydantic's message.

    Raises BadConfiguration, naming each wrong variable and what is allowed.
    """
    try:
        return settings(**given or {})
    except ValidationError as error:
        wrong = [_described(dict(one), allowed or {}) for one in error.errors()]
        raise BadConfiguration("; ".join(wrong)) from None


def _described(error: dict[str, Any], allowed: Mapping[str, str]) -> str:
    if not error["loc"]:
        return sentence(error, "")
    field = str(error["loc"][0])
    variable = field if field in SECRETS else PREFIX + field.upper()
    if error["type"] != "missing" and field not in SECRETS:
        variable += f"={error['input']}"
    if field in allowed:
        error["msg"] = f"it has to be {allowed[field]}"
    return sentence(error, variable, missing="is not set")
