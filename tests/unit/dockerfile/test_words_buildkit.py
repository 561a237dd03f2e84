r"""Words and here-document marks against BuildKit's own lexer and parser (master of August 2026).

`tests/golden/dockerfile/words.jsonl`: the first line is the environment; each other line has a text, the word it
expands to or BuildKit's error, its words where BuildKit does not lose text in splitting, and the missing names.
`heredoc_marks.jsonl`: lines, and the here-documents they announce as [name, expand, strip tabs, number].
"""

import json
from pathlib import Path

import pytest

from lamina.dockerfile.heredocs import heredocs_of_line
from lamina.dockerfile.words import Words
from lamina.errors import InputError

GOLDEN = Path(__file__).parents[2] / "golden" / "dockerfile"
HEAD, *ROWS = map(json.loads, (GOLDEN / "words.jsonl").read_text().splitlines())
MARKS = list(map(json.loads, (GOLDEN / "heredoc_marks.jsonl").read_text().splitlines()))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row["text"]) + row.get("escape", ""))
def test_words_as_buildkit_has_them(row):
    """A1.7, A1.8, A1.9, A1.10: every modifier, patterns, quotes, escapes."""
    words = Words(row.get("escape", "\\"))
    if "error" in row:
        with pytest.raises(InputError):
            words.word(row["text"], HEAD["env"])
        return
    found = words.word(row["text"], HEAD["env"])
    assert found.text == row["word"]
    assert list(found.words) == row.get("words", list(found.words))
    assert sorted(found.missing) == row.get("missing", [])


@pytest.mark.parametrize("row", MARKS, ids=lambda row: repr(row["line"]))
def test_here_documents_as_buildkit_finds_them(row):
    """A1.6: which words announce one, and how."""
    found = [[doc.name, doc.expand, doc.strip_tabs, doc.fd] for doc in heredocs_of_line(row["line"])]
    assert found == row["docs"]
