"""terms.json is sound, and 0.intro/glossary.md is what it renders to."""

from collections import Counter

import pytest

from common.course_lm import glossary

TERMS = glossary.read_terms()
FIELDS = {
    "id": str, "en": str, "zh": str, "aliases_en": list, "aliases_zh": list, "definition_en": str,
    "definition_zh": str, "key_en": list, "key_zh": list, "group": str,
}
LANGUAGES = ("en", "zh")


def names(term: dict, language: str) -> list[str]:
    return [term[language], *term[f"aliases_{language}"]]


def test_glossary_is_up_to_date():
    written = glossary.GLOSSARY_FILE.read_text(encoding="utf-8")
    assert written == glossary.render(TERMS), "run: python -m common.course_lm.glossary"


def test_glossary_has_every_definition_once():
    written = glossary.GLOSSARY_FILE.read_text(encoding="utf-8")
    for term in TERMS:
        for part in (f'<a id="{term["id"]}"></a>', term["definition_en"], term["definition_zh"]):
            assert written.count(part) == 1, f"{part} should stand once in glossary.md"


def test_terms_have_the_agreed_fields():
    for term in TERMS:
        assert {name: type(value) for name, value in term.items()} == FIELDS, term["id"]


def test_ids_are_unique():
    repeated = [i for i, count in Counter(term["id"] for term in TERMS).items() if count > 1]
    assert not repeated


def test_every_group_is_known_and_has_terms():
    assert {term["group"] for term in TERMS} == set(glossary.GROUPS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_name_or_alias_belongs_to_two_terms(language):
    owner: dict[str, str] = {}
    for term in TERMS:
        for name in names(term, language):
            assert name == name.strip() and name, term["id"]
            taken = owner.setdefault(name.casefold(), term["id"])
            assert taken == term["id"], f"{name}: both {taken} and {term['id']}"
        assert len({n.casefold() for n in names(term, language)}) == len(names(term, language)), term["id"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_keys_occur_in_their_own_definition_alone(language):
    for term in TERMS:
        assert 1 <= len(term[f"key_{language}"]) <= 2, term["id"]
        for key in term[f"key_{language}"]:
            holders = [t["id"] for t in TERMS if key.casefold() in t[f"definition_{language}"].casefold()]
            assert holders == [term["id"]], f"{key!r} of {term['id']} occurs in {holders}"
            assert key in term[f"definition_{language}"], f"{key!r} of {term['id']} differs in case"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_key_is_not_given_away_by_the_name(language):
    """An answer that only repeats the question must not contain the key."""
    for term in TERMS:
        for key in term[f"key_{language}"]:
            given_away = [name for name in names(term, language) if key.casefold() in name.casefold()]
            assert not given_away, f"{key!r} of {term['id']} is in {given_away}"


def test_definitions_are_short():
    for term in TERMS:
        words = len(term["definition_en"].split())
        assert 15 <= words <= 40, f"{term['id']}: {words} words"
        characters = len(term["definition_zh"])
        assert 15 <= characters <= 80, f"{term['id']}: {characters} characters"
        assert term["definition_en"].endswith(".") and term["definition_zh"].endswith("。"), term["id"]
