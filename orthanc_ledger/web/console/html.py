"""Pages as trees whose leaves are text: what others wrote cannot become markup, as nothing here parses any.

Text is shown as it is; what would be invisible, or turn the reading direction of what follows, is named instead.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Part = "Element | str | int | Iterable[Part] | None"
"""None is nothing, an iterable all of its parts."""

LONGEST = 240
"""Characters of a text of others that a page shows."""

_VOID = frozenset(("br", "input", "link", "meta"))
_ADDRESSES = frozenset(("href", "action", "src"))
_JOINERS = "\u200c\u200d"  # of Persian, Hindi and others: they belong to the text


@dataclass(frozen=True)
class Element:
    """One element with its attributes and what it holds."""

    tag: str
    attributes: tuple[tuple[str, str], ...]
    parts: tuple[Any, ...]


def h(tag: str, *parts: Any, **attributes: str | int | bool | None) -> Element:
    """An element. ``class_`` is class, ``aria_label`` aria-label; True is an attribute alone, False and None is none.

    Raises ValueError for an address that is not of the console itself.
    """
    kept = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        text = "" if value is True else str(value)
        if name in _ADDRESSES and (not text.startswith(("/", "#")) or text.startswith(("//", "/\\"))):
            raise ValueError(f"{tag} {name}: expected an address of the console itself")
        kept.append((name, text))
    return Element(tag, tuple(kept), parts)


def foreign(text: str) -> Element:
    """A text of others: cut where it is long, its reading direction its own."""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
    return h("bdi", shown)


def render(part: Any) -> str:
    """The HTML of a part."""
    if part is None:
        return ""
    if isinstance(part, (str, int)):
        return _text(str(part))
    if isinstance(part, Element):
        attributes = "".join(f' {name}="{_text(value)}"' for name, value in part.attributes)
        start = f"<{part.tag}{attributes}>"
        return start if part.tag in _VOID else f"{start}{render(part.parts)}</{part.tag}>"
    return "".join(render(each) for each in part)


def document(title: str, language: str, head: Iterable[Element], body: Element) -> bytes:
    """A whole page, UTF-8."""
    meta = h("meta", charset="utf-8"), h("meta", name="viewport", content="width=device-width, initial-scale=1")
    page = h("html", h("head", *meta, h("title", title), *head), body, lang=language)
    return f"<!DOCTYPE html>\n{render(page)}\n".encode()


def _text(text: str) -> str:
    """Text as HTML has it, in elements and in quoted attributes (WHATWG HTML 13.1.2.3, 13.1.4)."""
    if not text.isprintable():
        text = "".join(map(_visible, text))
    return (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&quot;")
        .replace("'", "&#39;")
    )


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or character in _JOINERS:
        return character
    if code < 0x20:
        return chr(0x2400 + code)  # Control Pictures
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"⟨U+{code:04X}⟩"
    return character
