"""The page of settings, which a script makes."""

from collections.abc import Callable
from types import ModuleType

from mxweir.config.schema import declared


def test_the_page_of_settings_is_what_the_script_makes_now(
    script: Callable[[str], ModuleType], page: Callable[[str], str]
) -> None:
    assert page("settings") == script("settings_reference").page(), (
        "run: .venv/bin/python scripts/settings_reference.py"
    )


def test_every_setting_has_a_heading_and_a_meaning_of_its_own(
    script: Callable[[str], ModuleType], page: Callable[[str], str]
) -> None:
    reference, text = script("settings_reference"), page("settings")
    for name, kind in reference.tables().items():
        for key, field in declared(kind).items():
            if "written" in field.metadata:
                heading = f"### {name}.{key}" if name else f"### {key}"
                about = text.split(f"{heading}\n")[1].split("\n#")[0].strip().split("\n\n", 1)
                assert len(about) == 2, heading
                assert about[1].strip(), heading
