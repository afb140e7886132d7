"""Lint rules: a file for each that breaks it, and one that does not."""

from __future__ import annotations

import pytest

from builder.dockerfile import parse


def findings(text: str) -> list[tuple[str, int]]:
    return [(warning.rule, warning.location.start) for warning in parse(text.encode(), "Dockerfile").warnings]


def messages(text: str) -> list[str]:
    return [warning.message for warning in parse(text.encode(), "Dockerfile").warnings]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a AS B\n", [("StageNameCasing", 1)]),
        ("FROM a as b\n", [("FromAsCasing", 1)]),
        ("from a as b\n", []),
        ("From a as b\nRUN x\n", [("ConsistentInstructionCasing", 1)]),
        ("FROM a\nRUN x \\\n\n  y\n", [("NoEmptyContinuation", 4)]),
        ("FROM a\nrun x\nUSER u\n", [("ConsistentInstructionCasing", 2)]),
        ("arg A\nFROM a\n", []),
        ("FROM a AS x\nFROM b AS x\n", [("DuplicateStageName", 2)]),
        ("FROM a\nFROM b\n", []),
        ("FROM a AS scratch\n", [("ReservedStageName", 1)]),
        ("FROM a\nCMD x\n", [("JSONArgsRecommended", 2)]),
        ('FROM a\nSHELL ["/bin/bash", "-c"]\nCMD x\n', []),
        ('FROM a AS p\nSHELL ["/bin/bash", "-c"]\nFROM p\nENTRYPOINT x\n', []),
        ("FROM a\nRUN x\n", []),
        ("FROM a\nMAINTAINER me\n", [("MaintainerDeprecated", 2)]),
        ("FROM a\nWORKDIR x\nWORKDIR y\n", [("WorkdirRelativePath", 2)]),
        ("FROM a AS p\nWORKDIR /x\nFROM p\nWORKDIR y\n", []),
        ("FROM a\nWORKDIR $HOME/x\n", []),
        ("FROM a\nWORKDIR '/x'\n", []),
        ('FROM a\nCMD ["x"]\nFROM b\nCMD ["y"]\n', []),
        ('FROM a\nCMD ["x"]\nCMD ["y"]\n', [("MultipleInstructionsDisallowed", 2)]),
        ("FROM a\nENV a b\nLABEL c d\n", [("LegacyKeyValueFormat", 2), ("LegacyKeyValueFormat", 3)]),
        ("FROM a\nARG API_TOKEN\n", [("SecretsUsedInArgOrEnv", 2)]),
        ("FROM a\nENV PUBLIC_KEY=1 KEY_FILE=2 monkey=3 author=4\nLABEL password=x\n", []),
        ("# check=skip=JSONArgsRecommended\nFROM a\nCMD x\n", []),
        ("# check=skip=all\nFROM a AS B\nCMD x\n", []),
        ("FROM a\n# check=skip=JSONArgsRecommended\nCMD x\nENTRYPOINT x\n", [("JSONArgsRecommended", 4)]),
        ("# other words\nARG A\nFROM a\n", []),
        ("# check=experimental=all\n# other words\nARG A\nFROM a\n", [("InvalidDefinitionDescription", 3)]),
        ("# check=experimental=all\n# A is so\nARG A\n# b is so\nFROM a AS b\n", []),
    ],
)
def test_rules(text: str, expected: list[tuple[str, int]]) -> None:
    assert findings(text) == expected


def test_messages_name_what_is_meant() -> None:
    assert messages("FROM a as B\nENV SECRET x\n") == [
        "Stage name 'B' should be lowercase",
        "'as' and 'FROM' keywords' casing do not match",
        '"ENV key=value" should be used instead of legacy "ENV key value" format',
        'Do not use ARG or ENV instructions for sensitive data (ENV "SECRET")',
    ]


def test_a_finding_never_shows_a_value() -> None:
    assert not any("hunter2" in message for message in messages("FROM a\nENV PASSWORD=hunter2\nARG TOKEN=hunter2\n"))
