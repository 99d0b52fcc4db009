"""The base of every section of the configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

# Of seeds and steps: their combinations still fit into what torch's generators take.
LARGEST = 2**31 - 1


class Section(BaseModel):
    """Immutable, and closed: an unknown key is an error, never ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_a_number(cls, value: object, info: ValidationInfo) -> object:
        annotation = str(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and "bool" not in annotation:
            raise ValueError(f"cannot be {str(value).lower()}")
        return value
