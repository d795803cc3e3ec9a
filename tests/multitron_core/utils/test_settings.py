from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from multitron_core.errors import InputError
from multitron_core.utils.settings import Config, Count, Number, Positive, Section, settings_error


def _even(value: int) -> int:
    if value % 2:
        raise InputError("not an even number", found=value, hint="use an even number")
    return value


class Oven(Section):
    degrees: Positive = 180
    minutes: Count = 30
    share: Annotated[Number, Field(gt=0, le=1)] = 1.0


class Kitchen(Config):
    name: str
    ovens: Annotated[int, AfterValidator(_even)] = 2
    oven: Oven = Oven()


def error_of(model: type[BaseModel], values: dict[str, object]) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return str(settings_error(caught.value, "kitchen.toml", model))


class TestSettingsError:
    def test_one_wrong_setting(self) -> None:
        assert error_of(Oven, {"degrees": 0}) == (
            "a setting is wrong; where: kitchen.toml, degrees; found: 0; hint: it should be greater than or equal to 1"
        )

    @pytest.mark.parametrize(
        ("model", "values", "nearest"),
        [
            (Oven, {"degree": 1}, "did you mean degrees?"),
            (Oven, {"colour": 1}, "remove it, or correct its name"),
            (Section, {"degrees": 1}, "remove it, or correct its name"),
        ],
    )
    def test_an_unknown_setting(self, model: type[BaseModel], values: dict[str, object], nearest: str) -> None:
        assert nearest in error_of(model, values)

    def test_an_unknown_setting_of_a_nested_model(self) -> None:
        with pytest.raises(InputError, match=r"Kitchen, oven\.minuets; hint: did you mean oven\.minutes\?"):
            Kitchen(name="a", oven={"minuets": 3})  # type: ignore[arg-type]

    def test_a_setting_of_a_section_in_the_wrong_place(self) -> None:
        with pytest.raises(InputError, match=r"Kitchen, minutes; hint: did you mean oven\.minutes\?"):
            Kitchen(name="a", minutes=3)  # type: ignore[call-arg]

    def test_the_value_of_an_unknown_setting_is_hidden(self) -> None:
        assert "hunter2" not in error_of(Oven, {"password": "hunter2"})

    def test_a_validator_of_ours_keeps_its_words(self) -> None:
        with pytest.raises(InputError, match="not an even number; where: Kitchen, ovens; found: 3; hint: use an even"):
            Kitchen(name="a", ovens=3)

    def test_all_wrong_settings_are_listed(self) -> None:
        with pytest.raises(InputError) as caught:
            Kitchen(ovens=1, oven={"degrees": "hot", "share": 2.0})  # type: ignore[call-arg, arg-type]
        first, *lines = str(caught.value).splitlines()
        assert first == "4 settings are wrong"
        assert sorted(lines) == [
            "- a setting is missing; where: Kitchen, name; hint: add it",
            "- a setting is wrong; where: Kitchen, oven.degrees; found: 'hot'; hint: it should be a valid integer",
            "- a setting is wrong; where: Kitchen, oven.share; found: 2.0; hint: it should be less than or equal to 1",
            "- not an even number; where: Kitchen, ovens; found: 1; hint: use an even number",
        ]


class TestSection:
    @pytest.mark.parametrize("value", [True, 1.0, "1"])
    def test_types_are_strict(self, value: object) -> None:
        with pytest.raises(ValidationError):
            Oven(degrees=value)  # type: ignore[arg-type]

    def test_a_section_is_immutable(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            Oven().degrees = 3


@pytest.mark.parametrize("value", [1, 0.5])
def test_number_keeps_integers(value: float) -> None:
    assert type(Oven(share=value).share) is type(value)


@pytest.mark.parametrize("value", [0, 2, float("nan"), True, "1"])
def test_number_is_checked(value: object) -> None:
    with pytest.raises(ValidationError):
        Oven(share=value)  # type: ignore[arg-type]
