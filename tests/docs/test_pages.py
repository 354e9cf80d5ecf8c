"""What the documents have in common."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mxweir.config.schema import declared

TOP = Path(__file__).parents[2]


def test_every_link_in_the_documents_leads_somewhere(script: Callable[[str], ModuleType]) -> None:
    check = script("check_documents")
    assert [fault for document in check.documents() for fault in check.faults(document)] == []


def test_every_document_is_linked_from_the_readme_or_from_a_page_that_is(documents: dict[str, str]) -> None:
    links = re.compile(r"\]\(([^)#\s]+\.md)")
    reached, waiting = set[str](), ["README.md"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            base = (TOP / name).parent
            waiting += [
                str((base / link).resolve().relative_to(TOP)) for link in links.findall(documents[name])
            ]
    assert set(documents) <= reached


def test_every_setting_that_the_documents_name_exists(
    documents: dict[str, str], script: Callable[[str], ModuleType]
) -> None:
    tables = script("settings_reference").tables()
    known = {f"{name}.{key}" for name, kind in tables.items() for key in declared(kind)}
    sections = "|".join(name for name in tables if name and "." not in name)
    named = re.compile(rf"`(?:{sections})\.[a-z_]+`")
    told = {word.strip("`") for text in documents.values() for word in named.findall(text)}
    files = {"limits.state", "limits.broken", "domains.lmdb", "domains.broken", "domains.unsure"}
    files |= {"policyd.control", "milter.control", "postgres.lmdb", "postgres.broken", "follower.lock"}
    files |= {"access.list", "access.lock", "access.broken"}
    assert told - files <= known


def test_every_command_that_the_documents_name_exists(
    documents: dict[str, str], page: Callable[[str], str]
) -> None:
    known = re.findall(r"^## (mxweir.*)$", page("commands"), re.MULTILINE)
    groups = {name.rsplit(" ", 1)[0] for name in known if name.count(" ") == 2}
    for name, text in documents.items():
        fenced = "\n".join(re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        typed = re.findall(r"^(?:\$ |#   )?(mxweir [a-z]+(?: [a-z]+)?)", fenced, re.MULTILINE)
        for said in typed + re.findall(r"`(mxweir [a-z]+(?: [a-z]+)?)", text):
            command = " ".join(said.split()[: 3 if " ".join(said.split()[:2]) in groups else 2])
            assert command in known or command in groups, f"{name}: {said}"


def test_every_metric_that_the_documents_name_is_in_the_reference(
    documents: dict[str, str], page: Callable[[str], str]
) -> None:
    known = set(re.findall(r"^\| `(mxweir_\w+)` \|", page("metrics"), re.MULTILINE))
    packages = {"mxweir_policyd", "mxweir_milter", "mxweir_ops", "mxweir_bench"}
    roles = {"mxweir_reader", "mxweir_writer"}
    for name, text in documents.items():
        for said in set(re.findall(r"\bmxweir_[a-z_]+", text)) - packages - roles:
            assert re.sub("_bucket$", "", said) in known or any(k.startswith(said) for k in known), name


@pytest.mark.parametrize("folder", ["core", "policyd", "milter", "ops", "conf", "systemd", "scripts"])
def test_every_file_of_the_project_that_the_documents_name_exists(
    documents: dict[str, str], folder: str
) -> None:
    named = re.compile(rf"`({folder}/[\w./-]+)`")
    for name, text in documents.items():
        for path in named.findall(text):
            assert (TOP / path).exists(), f"{name}: {path}"
