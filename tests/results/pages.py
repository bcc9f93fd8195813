"""Parses a report."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """A parsed page: `elements` are (name, attributes), `cells` the texts of each row of the table of results."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.cells: list[list[list[str]]] = []
        self.texts: list[str] = []
        self._table = self._in_cell = False
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.elements.append((tag, found))
        if tag not in {"meta", "link", "br", "img", "input"}:
            self.open.append(tag)
        if tag == "table":
            self._table = "results" in found.get("class", "")
        elif self._table and tag == "tr":
            self.cells.append([])
        elif self._table and tag in {"th", "td"}:
            self.cells[-1].append([])
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"<{tag}> closes what was not opened"
        self._in_cell = self._in_cell and tag not in {"th", "td"}
        self._table = self._table and tag != "table"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style", "option"}:
            self.texts.append(data)
        if self._in_cell and data.strip():
            self.cells[-1][-1].append(data.strip())

    def attributes(self, name: str) -> list[str]:
        """Every value of an attribute."""
        return [attrs[name] for _, attrs in self.elements if name in attrs]
