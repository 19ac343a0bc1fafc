"""Consoles of all kinds: no output of ours may fail because of the letters that they lack."""

from __future__ import annotations

import codecs
import io
import sys

HANDLER = "safer_offline.plain"

_PLAIN = {
    "ε": "eps", "±": "+-", "–": "-", "—": "-", "×": "x", "≤": "<=", "≥": ">=", "…": "...",
    "─": "-", "━": "=", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "•": "*", "→": "->",
    "λ": "lambda", "η": "eta", "δ": "delta", "“": '"', "”": '"', "’": "'",
}  # fmt: skip
"""What to write for letters of ours that a console may lack."""


def accept_every_console() -> None:
    """Let both streams write something readable for whatever their encoding lacks."""
    codecs.register_error(HANDLER, _in_plain_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in missing), error.end
