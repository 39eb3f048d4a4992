import matplotlib
import pytest
from made_up_run import CHINESE
from matplotlib import font_manager

from lorafy.report import fonts


@pytest.fixture
def no_cjk_font(monkeypatch):
    monkeypatch.setattr(fonts, "find_family", lambda characters: None)


def test_latin_names_need_no_other_font(no_cjk_font):
    names = fonts.readable_names(["ham", "größer", "спам", " two\nlines ", ""])
    assert names.shown == ["ham", "größer", "спам", "two lines", "(empty)"]
    assert names.families == [fonts.BASE_FAMILY]
    assert names.note is None


def test_without_a_chinese_font_labels_are_numbers_and_a_sentence_says_what_to_install(no_cjk_font):
    names = fonts.readable_names(CHINESE)
    assert names.shown == [f"#{index}" for index in range(10)]
    assert names.note is not None
    assert "no Chinese font was found" in names.note
    assert "apt install fonts-noto-cjk" in names.note


def test_characters_of_no_known_script_are_named(no_cjk_font):
    names = fonts.readable_names(["good", "\U0001f9ff"])
    assert names.shown == ["#0", "#1"]
    assert names.note is not None and "U+1F9FF" in names.note
    assert "Chinese" not in names.note


def test_with_a_chinese_font_the_names_are_shown():
    if fonts.find_family(set("".join(CHINESE))) is None:
        pytest.skip("this machine has no Chinese font")
    names = fonts.readable_names(CHINESE)
    assert names.shown == CHINESE
    assert names.note is None
    covered = set().union(*(fonts.characters_of(family) for family in names.families))
    assert set("".join(CHINESE)) <= covered


def test_a_font_that_matplotlibs_cache_does_not_list_is_found(monkeypatch):
    """As on the day when somebody follows the note and installs one."""
    cached = font_manager.fontManager.ttflist
    ours = [entry for entry in cached if not fonts.CJK_FILES.search(entry.fname)]
    if len(ours) == len(cached):
        pytest.skip("this machine has no Chinese font")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", ours)
    assert fonts.known_family(set("财经")) is None
    assert fonts.find_family(set("财经")) is not None


def test_a_family_must_have_every_character(monkeypatch):
    entry = next(entry for entry in font_manager.fontManager.ttflist if entry.name == fonts.BASE_FAMILY)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [entry])
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    monkeypatch.setattr(fonts, "CJK_FAMILIES", (fonts.BASE_FAMILY,))
    assert fonts.find_family({"a"}) == fonts.BASE_FAMILY
    assert fonts.find_family({"a", "财"}) is None


def test_matplotlibs_settings_stay_the_users(make_run):
    from lorafy.report.classes import ClassView
    from lorafy.report.plots import draw_plots

    before = dict(matplotlib.rcParams)
    draw_plots(make_run(), ClassView())
    assert dict(matplotlib.rcParams) == before
