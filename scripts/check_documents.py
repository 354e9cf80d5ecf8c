"""Check the documents: every link leads to a file and a heading that are there; made pages are current."""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)


def documents() -> list[Path]:
    """The Markdown files that are, or are about to be, part of the project."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)  # noqa: S603
    return [TOP / name for name in listed.stdout.split("\n") if name and (TOP / name).is_file()]


@cache
def prose(document: Path) -> str:
    """The text with its code blocks blanked out, line for line."""
    text = document.read_text(encoding="utf-8")
    return FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)


@cache
def anchors(document: Path) -> frozenset[str]:
    """What a link may name after the `#`: the headings, as the usual renderers spell them."""
    plain = (
        re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).lower() for heading in HEADING.findall(prose(document))
    )
    return frozenset(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain)


def faults(document: Path) -> Iterator[str]:
    """One line for each link of a document that leads nowhere."""
    for number, line in enumerate(prose(document).split("\n"), start=1):
        for link in LINK.findall(line):
            if re.match(r"[a-z]+:", link):
                continue  # another site's: looking there is no business of a check that must always pass
            name, _, anchor = link.partition("#")
            target = document if not name else (document.parent / name).resolve()
            if not target.exists():
                yield f"{document.relative_to(TOP)}:{number}: there is no {name}"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                yield f"{document.relative_to(TOP)}:{number}: {target.name} has no heading #{anchor}"


def stale() -> list[str]:
    """What the scripts that make pages say about pages that are not as they would make them now."""
    script = [sys.executable, str(TOP / "scripts" / "settings_reference.py"), "--check"]
    return subprocess.run(script, capture_output=True, text=True, check=False).stdout.splitlines()  # noqa: S603


def main() -> int:
    """Print every fault; 1 when there is one."""
    checked = documents()
    found = [fault for document in checked for fault in faults(document)] + stale()
    good = f"{len(checked)} documents: every link leads somewhere, and what is generated is current"
    print("\n".join(found) if found else good)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
