"""Sentences, lists and commands as elements of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from safer_offline.evaluation.report.markup import Html, join, tag


def paragraph(*sentences: str, kind: str | None = None) -> Html:
    """Sentences; what stands between backticks is code."""
    return tag("p", with_code(" ".join(sentences)), class_=kind)


def bullets(sentences: Iterable[str]) -> Html | None:
    """A list, or nothing of nothing."""
    items = [tag("li", with_code(_ended(sentence))) for sentence in sentences]
    return tag("ul", *items) if items else None


def alarm(title: str, sentences: Sequence[str]) -> Html | None:
    """A box for what must not be overlooked; nothing if there is nothing."""
    if not sentences:
        return None
    return tag("div", tag("p", tag("strong", title)), bullets(sentences), class_="alarm")


def command(text: str) -> Html:
    """A command that can be copied."""
    return tag("pre", tag("code", text), tabindex="0")


def folded(title: Html | str, *content: Html | None, opened: bool = False) -> Html:
    """Content below a heading that folds."""
    return tag("details", tag("summary", title), *content, open=opened)


def with_code(text: str) -> Html:
    """A sentence in which what stands between backticks is code."""
    parts = re.split(r"`([^`]+)`", re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text))
    return join(*(tag("code", part) if odd % 2 else part for odd, part in enumerate(parts)))


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?", ":")) else f"{sentence}."
