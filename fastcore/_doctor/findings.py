"""What the doctor can find, and how grave it is.  The rules are explained in docs/doctor.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

RUNS = "runs as it is"
GAINS_NOTHING = "gains nothing"
SETTING = "wants a setting"
BREAKS = "breaks"
UNREAD = "not read"
# The worst last; those after the second want somebody to act.
VERDICTS = (RUNS, GAINS_NOTHING, SETTING, BREAKS, UNREAD)
TO_BE_DONE = VERDICTS[2:]

# Each rule with its verdict, None where that depends on what is found.
RULES = {
    "import": RUNS,  # asyncore or asynchat is imported
    "by-name": RUNS,  # the same, where --fix cannot see what is meant
    "smtpd": SETTING,  # the module smtpd is imported
    "copy": SETTING,  # the file is a copy of asyncore or asynchat
    "copy-import": None,  # such a copy is imported
    "own-loop": GAINS_NOTHING,  # events are looked for and delivered by the program
    "poll": GAINS_NOTHING,  # asyncore.poll() and its like are driven by the program
    "turns": RUNS,  # the program calls loop(count=...) again and again
    "blocking": GAINS_NOTHING,  # a handler waits, and everybody waits with it
    "wrap-socket": BREAKS,  # ssl.wrap_socket() is gone
    "str-terminator": BREAKS,  # set_terminator() with text
    "str-output": BREAKS,  # push() or send() with text
    "str-input": BREAKS,  # what came in is joined to text
    "two-asyncores": None,  # classes of one, a loop of another
    "fast-ai": BREAKS,  # the other project that is imported as fastcore
    "child": None,  # a process that may not find fastcore
    "unread": UNREAD,  # a file that cannot be read
}


@dataclass(frozen=True, order=True)
class Finding:
    """One thing at one place: what it is, what becomes of it, and what to do."""

    path: Path
    line: int
    column: int
    rule: str
    verdict: str
    what: str
    fix: str = ""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON has it; its path is absolute."""
        return {**asdict(self), "path": str(self.path)}


def status(findings: list[Finding]) -> int:
    """Return the exit status of the command: 1 where somebody has to act, else 0."""
    return int(any(each.verdict in TO_BE_DONE for each in findings))
