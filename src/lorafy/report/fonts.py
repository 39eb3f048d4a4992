"""Labels in any script: find a font that has their characters, or show numbers, never empty boxes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from matplotlib import font_manager

from .style import BASE_FAMILY

CJK_FAMILIES = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Noto Sans CJK JP",  # the only face of the .ttc that matplotlib before 3.11 sees
    "Source Han Sans",
    "Droid Sans Fallback",
    "SimHei",
    "Heiti TC",
    "STHeiti",
    "DengXian",
    "SimSun",
    "Hiragino Sans",
    "Yu Gothic",
    "Apple SD Gothic Neo",
    "Malgun Gothic",
    "Noto Serif CJK SC",
    "Arial Unicode MS",
)
CJK_FILES = re.compile(
    r"noto.*(cjk|sc|hans)|sourcehan|wqy|msyh|simhei|simsun|pingfang|hiragino|heiti|deng"
    r"|droidsansfallback|yugoth|malgun|arialuni|arial unicode",
    re.IGNORECASE,
)
CJK_CHARACTERS = re.compile(r"[\u2e80-\u30ff\u3100-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")

NO_CHINESE_FONT = (
    "no Chinese font was found: labels are shown as #0, #1, ... in the plots, in the order of the report's "
    "tables; install fonts-noto-cjk (Debian and Ubuntu: apt install fonts-noto-cjk; Fedora: dnf install "
    "google-noto-sans-cjk-fonts; Windows and macOS bring one along) and draw again: lorafy evaluate RUN"
)


@dataclass(frozen=True, slots=True)
class Names:
    """Names as a plot can show them, the families to show them in, and a sentence where that took numbers."""

    shown: list[str]
    families: list[str]
    note: str | None = None


def readable_names(names: Iterable[str]) -> Names:
    """The names themselves where a font has all their characters, else #0, #1, ... and a note why."""
    shown = [" ".join(name.split()) or "(empty)" for name in names]
    missing = set("".join(shown)) - characters_of(BASE_FAMILY)
    if not missing:
        return Names(shown, [BASE_FAMILY])
    family = find_family(missing)
    if family is not None:
        return Names(shown, [BASE_FAMILY, family])
    numbers = [f"#{index}" for index in range(len(shown))]
    if any(CJK_CHARACTERS.match(character) for character in missing):
        return Names(numbers, [BASE_FAMILY], NO_CHINESE_FONT)
    listed = ", ".join(f"U+{ord(character):04X}" for character in sorted(missing)[:5])
    note = f"no font for the characters {listed} was found: labels are shown as #0, #1, ... in the plots"
    return Names(numbers, [BASE_FAMILY], f"{note}, in the order of the report's tables")


def find_family(characters: set[str]) -> str | None:
    """The first known family with all of these characters; fonts newer than matplotlib's cache count."""
    family = known_family(characters)
    if family is None and add_new_fonts():
        family = known_family(characters)
    return family


def known_family(characters: set[str]) -> str | None:
    """The first family of CJK_FAMILIES that is installed and has all of these characters."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist if Path(entry.fname).is_file()}
    for family in CJK_FAMILIES:
        if family in installed and characters <= characters_of(family):
            return family
    return None


def add_new_fonts() -> bool:
    """Tells matplotlib of likely font files that its cache, written on an earlier day, does not list; True where it
    found any."""
    listed = {Path(entry.fname) for entry in font_manager.fontManager.ttflist}
    found = {Path(path) for path in font_manager.findSystemFonts()} - listed
    new = sorted(path for path in found if CJK_FILES.search(path.name))
    added = 0
    for path in new:
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError):  # FreeType's word for a file that is no font
            continue
        added += 1
    return added > 0


def characters_of(family: str) -> set[str]:
    """All characters that a font family can show."""
    path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
    return {chr(code) for code in font_manager.get_font(path).get_charmap()}
