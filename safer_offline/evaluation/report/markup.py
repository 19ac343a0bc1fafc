"""HTML in which nothing is markup but what is written here: every other text is escaped."""

from __future__ import annotations

import html
import re

_VOID = frozenset({"meta", "img", "br"})

# What no HTML document may hold; the rest of Unicode may stand in it.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *content: object, **attributes: object) -> Html:
    """An element.

    Args:
        name: Of the element.
        *content: Between its tags; None is left out, and what is no `Html` is escaped.
        **attributes: `class_` is class, and other underscores are hyphens. None and False are left
            out, True stands without a value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        plain = key.rstrip("_").replace("_", "-")
        words.append(plain if value is True else f'{plain}="{escape(value)}"')
    if name in _VOID:
        return Html(f"<{' '.join(words)}>")
    return Html(f"<{' '.join(words)}>{join(*content)}</{name}>")


def join(*parts: object) -> Html:
    """Parts one after the other; None is left out, and what is no `Html` is escaped."""
    texts = (part if isinstance(part, Html) else escape(part) for part in parts if part is not None)
    return Html("".join(texts))


def escape(text: object) -> Html:
    """Any text, such as one from a file, so that it reads as it is."""
    return Html(html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(text))))
