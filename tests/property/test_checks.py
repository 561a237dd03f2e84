"""Checks on whatever parses: no exception, findings inside the file, the same twice (F1)."""

from hypothesis import given
from hypothesis import strategies as st

from lamina.checks.report import Report, json_report, text_report
from lamina.checks.run import run_checks
from lamina.checks.sarif import sarif_report
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.errors import InputError
from lamina.patterns import IgnoreRules

WORDS = st.sampled_from(
    ["a", "$a", "${a:-$b}", "${a", "'", '"', "=", "a=$b", "/x", "x/../y", "80/TCP", "1.2.3.4:80:80", "--from=a",
     "--platform=$TARGETPLATFORM", "--mount=type=bind,from=a", "as", "AS", "Base", "scratch", "<<E", "[]", '["a"]',
     "\u00e9", "\x1b[31m", "\udc80", "${a?}", "0", "9" * 30]
)  # fmt: skip
KEYWORDS = st.sampled_from(
    ["FROM", "from", "From", "ARG", "ENV", "COPY", "ADD", "RUN", "CMD", "ENTRYPOINT", "EXPOSE", "WORKDIR", "USER",
     "LABEL", "VOLUME", "HEALTHCHECK", "ONBUILD", "SHELL", "MAINTAINER", "STOPSIGNAL", "# check=skip=", "#", "E", "# a"]
)  # fmt: skip
LINES = st.builds(lambda keyword, words: " ".join([keyword, *words]), KEYWORDS, st.lists(WORDS, max_size=4))
FILES = st.lists(LINES, max_size=12).map(lambda lines: "\n".join(["ARG a=x", "FROM scratch AS one", *lines]))


@given(FILES, st.booleans())
def test_nothing_but_our_errors(text: str, everything: bool) -> None:
    """Whatever the file says, it is either refused by the parser or checked; reports can always be made."""
    try:
        dockerfile = parse(text.encode("utf-8", "surrogateescape"))
        options = CheckOptions(ignore=IgnoreRules(["x", "a*"]), all_stages=everything)
        findings = run_checks(dockerfile, options)
    except InputError:
        return
    count = dockerfile.text.count("\n") + 1
    assert all(1 <= finding.source.start <= finding.source.end <= count for finding in findings)
    assert run_checks(dockerfile, options) == findings
    report = Report("Dockerfile", dockerfile.text, findings)
    assert text_report(report) and json_report(report).encode() and sarif_report(report, "1").encode()
