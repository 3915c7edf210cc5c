"""The monitor: a Flet control that shows what a hub does, and the parts that it is made of."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

import flet as ft
import flet.canvas as cv

from pagebus._core import PubSubHub
from pagebus._watch import PERIOD, SPAN, HubWatch, Moment, Reading, Watch, watch_of

_MONOSPACED = "monospace"
_MOST_ROWS = 10
_QUIET = ft.Colors.ON_SURFACE_VARIANT


class Board(ft.Column):
    """Everything that is shown of one watched hub, brought up to date once a second."""

    def __init__(self, watch: Watch, title: str, **properties: Any) -> None:
        self._watch = watch
        self._running: Future[None] | None = None
        self._tiles = [_Tile(label, name) for label, name in _FIGURES]
        self._charts = [
            _Chart("Messages per second", _RATES, _Linear(), _rate),
            _Chart("Latency", _LATENCIES, _Logarithmic(), _duration),
        ]
        self._tables = [
            _Table("Sessions", (("Session", 2), ("Identity", 3)), _sessions),
            _Table("Busiest topics", (("Topic", 4), ("Sessions", 2), ("Messages", 2)), _topics),
            _Table(
                "Slowest handlers",
                (("Handler", 5), ("Slow calls", 2), ("Mean", 2), ("Max", 2)),
                _slow,
            ),
        ]
        self._failures = _Failures()
        properties = {"spacing": 12, "scroll": ft.ScrollMode.AUTO, "expand": True, **properties}
        super().__init__(controls=self._laid_out(title), **properties)
        self._show()

    def _laid_out(self, title: str) -> list[ft.Control]:
        tiles = [_column(tile.control, xs=3, md=1.5) for tile in self._tiles]
        charts = [_column(chart.control, xs=12, md=6) for chart in self._charts]
        tables = [_column(table.control, xs=12, md=4) for table in self._tables]
        return [
            ft.Text(title, size=18, weight=ft.FontWeight.W_600),
            ft.ResponsiveRow(tiles, spacing=8, run_spacing=8),
            ft.ResponsiveRow(charts, spacing=12, run_spacing=12),
            ft.ResponsiveRow(
                tables,
                spacing=12,
                run_spacing=12,
                vertical_alignment=ft.CrossAxisAlignment.START,
            ),
            self._failures.control,
        ]

    def is_isolated(self) -> bool:
        """Tell Flet that updates of the page have nothing to do in here."""
        return True

    def did_mount(self) -> None:
        """Begin to follow the hub."""
        if self._running is None:
            self._running = self.page.run_task(self._follow)

    def will_unmount(self) -> None:
        """Stop following it."""
        if self._running is not None:
            self._running.cancel()
            self._running = None

    async def _follow(self) -> None:
        session: Any = self.page.session
        while not has_expired(session):
            # Nobody looks at a page whose window is closed.
            if session.connection is not None:
                self.refresh()
                if changed := self._show():
                    self.page.update(*changed)
            await asyncio.sleep(PERIOD)

    def refresh(self) -> None:
        """Read what is watched."""

    def _show(self) -> list[ft.Control]:
        """Show what was read last, and tell the controls that look different now."""
        if self._watch.reading is None:
            return []
        parts: list[_Part] = [*self._tiles, *self._charts, *self._tables, self._failures]
        return [part.control for part in parts if part.show(self._watch, self._watch.reading)]


class Monitor(Board):
    """A Flet control that shows what a hub does: sessions, traffic, latencies, failing handlers.

    It fills the space that it is given and is brought up to date once a second, for as long as
    its page is open::

        page.add(pagebus.flet.Monitor(page.pubsub.hub))

    Args:
        hub: The hub to look at.
        title: What stands above it.
        properties: Those of a ``flet.Column``.

    Raises:
        TypeError: ``hub`` is not a :class:`pagebus.PubSubHub`.
    """

    def __init__(self, hub: PubSubHub, *, title: str = "pagebus", **properties: Any) -> None:
        if not isinstance(hub, PubSubHub):
            message = f"hub must be a pagebus.PubSubHub, not '{type(hub).__name__}'"
            raise TypeError(message)
        self._hub = hub
        self._hub_watch: HubWatch = watch_of(hub)
        self._hub_watch.refresh()
        super().__init__(self._hub_watch, title, **properties)

    def refresh(self) -> None:
        """Read the hub, once for all monitors that show it."""
        self._hub_watch.refresh()


class _Part(Protocol):
    """A part of the board."""

    control: ft.Container

    def show(self, watch: Watch, reading: Reading) -> bool:
        """Show what was read, and tell whether that looks different."""


def has_expired(session: Any) -> bool:
    """Whether the window was closed so long ago that it will not come back."""
    expires_at: datetime | None = session.expires_at
    return expires_at is not None and expires_at < datetime.now(timezone.utc)


def _column(control: ft.Control, **sizes: Any) -> ft.Control:
    columns: Any = sizes
    control.col = columns
    return control


def _panel(content: ft.Control) -> ft.Container:
    return ft.Container(
        content,
        bgcolor=ft.Colors.SURFACE_CONTAINER_LOW,
        border=ft.Border.all(1, ft.Colors.OUTLINE_VARIANT),
        border_radius=10,
        padding=12,
    )


def _heading(text: str) -> ft.Text:
    return ft.Text(text, size=14, weight=ft.FontWeight.W_600)


# ---- figures ------------------------------------------------------------------------------------

_FIGURES = (
    ("Sessions", "sessions"),
    ("Handlers", "subscriptions"),
    ("Topics", "topics"),
    ("Sent", "published"),
    ("Delivered", "delivered"),
    ("Waiting", "pending"),
    ("Failed", "failed"),
    ("Dropped", "dropped"),
)
_BAD = ("failed", "dropped")


class _Tile:
    """One figure, with what it counts below."""

    def __init__(self, label: str, name: str) -> None:
        self._name = name
        self._value = ft.Text("0", size=20, weight=ft.FontWeight.W_600, no_wrap=True)
        self.control = _panel(
            ft.Column([self._value, ft.Text(label, size=11, color=_QUIET, no_wrap=True)], spacing=0)
        )
        self.control.padding = ft.Padding.symmetric(horizontal=12, vertical=8)

    def show(self, watch: Watch, reading: Reading) -> bool:
        count = getattr(reading, self._name)
        before, self._value.value = self._value.value, _count(count)
        if self._name in _BAD:
            self._value.color = ft.Colors.ERROR if count else None
        return self._value.value != before


def _count(value: float) -> str:
    """A number in at most six characters."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= factor:
            scaled = value / (1e3 if unit == "k" else factor)
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    return f"{value:,.0f}"


def _rate(value: float) -> str:
    return f"{value:.1f}/s" if 0 < value < 10 else f"{_count(value)}/s"


def _duration(seconds: float) -> str:
    if seconds <= 0:
        return "-"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor * 0.9995 or unit == "µs":
            scaled = seconds / factor
            return f"{scaled:.{0 if scaled >= 9.95 else 1}f}".removesuffix(".0") + f" {unit}"
    raise AssertionError


# ---- charts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """One line of a chart."""

    label: str
    colour: ft.Colors
    value: Callable[[Moment], float]


_RATES = (
    _Line("sent", ft.Colors.BLUE_400, lambda moment: moment.published),
    _Line("delivered", ft.Colors.TEAL_400, lambda moment: moment.delivered),
)
_LATENCIES = (
    _Line("p50", ft.Colors.TEAL_400, lambda moment: moment.p50),
    _Line("p99", ft.Colors.AMBER_600, lambda moment: moment.p99),
    _Line("max", ft.Colors.RED_400, lambda moment: moment.max),
)


class _Linear:
    """An axis from zero to a round number."""

    def __init__(self) -> None:
        self.top = 0.0

    def fit(self, values: Iterable[float]) -> Sequence[float]:
        """Reach to the largest value, and return where lines of a grid belong."""
        largest = max(values, default=0.0)
        power = 10.0 ** math.floor(math.log10(largest)) if largest > 0 else 1.0
        self.top = next(
            (step * power for step in (1, 2, 4, 6, 10) if step * power >= largest), 10 * power
        )
        self.top = max(self.top, 10.0)
        return (0.0, self.top / 2, self.top)

    def place(self, value: float) -> float | None:
        """How far up a value is, from 0 to 1."""
        return value / self.top


class _Logarithmic:
    """An axis over powers of ten; what is not more than zero has no place on it."""

    def __init__(self) -> None:
        self._low, self._high = -4, -2

    def fit(self, values: Iterable[float]) -> Sequence[float]:
        """Reach from the smallest value to the largest, and return the powers of ten."""
        known = [math.log10(value) for value in values if value > 0]
        if known:
            self._low = math.floor(min(known))
            self._high = max(math.ceil(max(known)), self._low + 2)
        return [10.0**power for power in range(self._low, self._high + 1)]

    def place(self, value: float) -> float | None:
        """How far up a value is, from 0 to 1."""
        if value <= 0:
            return None
        return (math.log10(value) - self._low) / (self._high - self._low)


Point = tuple[int, int]


class _Chart:
    """Lines over the last minutes."""

    LEFT, TOP, HEIGHT = 44.0, 6.0, 150.0

    def __init__(
        self,
        title: str,
        lines: Sequence[_Line],
        axis: _Linear | _Logarithmic,
        write: Callable[[float], str],
    ) -> None:
        self._lines, self._axis, self._write = lines, axis, write
        self._width = 560.0
        self._marks: Sequence[float] = ()
        self._grid: list[cv.Shape] = []
        self._shown: tuple[list[Moment], float] = ([], 0.0)
        self._values = [ft.Text("", size=12, weight=ft.FontWeight.W_600) for _ in lines]
        self._canvas = cv.Canvas(
            height=self.TOP + self.HEIGHT + self.TOP, expand=True, on_resize=self._resize
        )
        ends: list[ft.Control] = [
            ft.Text(text, size=10, color=_QUIET) for text in (f"{SPAN / 60:.0f} minutes ago", "now")
        ]
        self.control = _panel(
            ft.Column(
                [
                    ft.Row([_heading(title), self._legend()], wrap=True, **_APART),
                    ft.Row([self._canvas]),
                    ft.Container(ft.Row(ends, **_APART), padding=ft.Padding.only(left=self.LEFT)),
                ],
                spacing=6,
            )
        )

    def _legend(self) -> ft.Row:
        entries = [
            ft.Row(
                [
                    ft.Container(width=10, height=3, bgcolor=line.colour, border_radius=2),
                    ft.Text(line.label, size=12, color=_QUIET),
                    value,
                ],
                spacing=5,
                tight=True,
            )
            for line, value in zip(self._lines, self._values, strict=True)
        ]
        return ft.Row(list(entries), spacing=14, tight=True, wrap=True)

    def show(self, watch: Watch, reading: Reading) -> bool:
        self._shown = (list(watch.moments()), reading.at)
        for line, text in zip(self._lines, self._values, strict=True):
            text.value = self._write(line.value(watch.last) if watch.last else 0.0)
        self._draw()
        return True

    def _resize(self, event: cv.CanvasResizeEvent) -> None:
        if event.width != self._width:
            self._width, self._marks = event.width, ()
            self._draw()
            self._canvas.update()

    def _draw(self) -> None:
        moments, now = self._shown
        marks = self._axis.fit(line.value(moment) for moment in moments for line in self._lines)
        if list(marks) != list(self._marks):
            self._marks, self._grid = marks, self._drawn_grid(marks)
        # New lines among the old ones of the grid: what has not changed is not sent again.
        lines = [shape for line in self._lines for shape in self._drawn(line, moments, now)]
        self._canvas.shapes = [*self._grid, *lines]

    def _height_of(self, place: float) -> int:
        return round(self.TOP + self.HEIGHT * (1 - place))

    def _drawn_grid(self, marks: Sequence[float]) -> list[cv.Shape]:
        colour = ft.Colors.with_opacity(0.5, ft.Colors.OUTLINE_VARIANT)
        paint = ft.Paint(color=colour, stroke_width=1)
        style = ft.TextStyle(size=10, color=_QUIET)
        grid: list[cv.Shape] = []
        for mark in marks:
            y = self._height_of(self._axis.place(mark) or 0.0)
            label = cv.Text(
                self.LEFT - 8, y, self._write(mark), style, alignment=ft.Alignment.CENTER_RIGHT
            )
            grid += [cv.Line(self.LEFT, y, self._width, y, paint), label]
        return grid

    def _drawn(self, line: _Line, moments: list[Moment], now: float) -> list[cv.Shape]:
        paint = ft.Paint(
            color=line.colour,
            stroke_width=1.75,
            style=ft.PaintingStyle.STROKE,
            stroke_cap=ft.StrokeCap.ROUND,
            stroke_join=ft.StrokeJoin.ROUND,
        )
        return [
            cv.Points(list(points), cv.PointMode.POLYGON, paint)
            for points in self._pieces(line, moments, now)
            if len(points) > 1
        ]

    def _pieces(self, line: _Line, moments: list[Moment], now: float) -> list[list[Point]]:
        """The points of a line; where nothing was measured it is broken."""
        # Whole pixels, which are sent in a quarter of the space of numbers with fractions.
        span = self._width - self.LEFT
        pieces: list[list[Point]] = [[]]
        for moment in moments:
            place = self._axis.place(line.value(moment))
            if place is None:
                pieces.append([])
            elif now - moment.at <= SPAN:
                x = self._width - span * (now - moment.at) / SPAN
                pieces[-1].append((round(x), self._height_of(place)))
        return pieces


_APART: dict[str, Any] = {"alignment": ft.MainAxisAlignment.SPACE_BETWEEN}


# ---- tables -------------------------------------------------------------------------------------

Row = tuple[str, ...]
Rows = tuple[list[Row], int]
"""Rows to show, and how many there are in all."""


def _short(handler: str) -> str:
    """A handler's name without what is the same in many of them."""
    return handler.removeprefix("__main__.").replace(".<locals>", "")


def _sessions(reading: Reading) -> Rows:
    return [(session_id, told or "-") for session_id, told in reading.named], reading.sessions


def _topics(reading: Reading) -> Rows:
    rows: list[Row] = [
        (name, _count(sessions), _count(messages)) for name, sessions, messages in reading.busiest
    ]
    return rows, max(reading.topics, len(rows))


def _slow(reading: Reading) -> Rows:
    rows: list[Row] = [
        (_short(name), _count(calls), _duration(mean), _duration(longest))
        for name, calls, mean, longest in reading.slowest
    ]
    return rows, len(rows)


class _Table:
    """Rows of text under names of columns, the first of them the widest."""

    def __init__(
        self, title: str, columns: Sequence[tuple[str, int]], read: Callable[[Reading], Rows]
    ) -> None:
        self._read, self._widths = read, [width for _, width in columns]
        self._count = ft.Text("", size=12, color=_QUIET)
        self._rows = ft.Column(spacing=5)
        self._texts: list[list[ft.Text]] = []
        self._shown: Rows = ([], 0)
        names = self._row([name for name, _ in columns], color=_QUIET, size=11)
        self.control = _panel(
            ft.Column(
                [
                    ft.Row([_heading(title), self._count], **_APART),
                    names,
                    ft.Divider(height=1),
                    self._rows,
                ],
                spacing=6,
            )
        )

    def show(self, watch: Watch, reading: Reading) -> bool:
        before, self._shown = self._shown, self._read(reading)
        if self._shown == before:
            return False
        rows, total = self._shown
        shown = rows[:_MOST_ROWS]
        self._count.value = f"{len(shown)} of {total:,}" if total > len(shown) else ""
        while len(self._texts) > len(shown):
            self._texts.pop()
            self._rows.controls.pop()
        while len(self._texts) < len(shown):
            row = self._row([""] * len(self._widths), size=12)
            self._texts.append([text for text in row.controls if isinstance(text, ft.Text)])
            self._rows.controls.append(row)
        for texts, values in zip(self._texts, shown, strict=True):
            for text, value in zip(texts, values, strict=True):
                text.value = value
        return True

    def _row(self, values: Sequence[str], **style: Any) -> ft.Row:
        texts = [
            ft.Text(
                value,
                expand=width,
                no_wrap=True,
                overflow=ft.TextOverflow.ELLIPSIS,
                text_align=ft.TextAlign.END if index and len(values) > 2 else ft.TextAlign.START,
                **style,
            )
            for index, (value, width) in enumerate(zip(values, self._widths, strict=True))
        ]
        return ft.Row(list(texts), spacing=8)


# ---- failures -----------------------------------------------------------------------------------


class _Failures:
    """Handlers that raised, each with its last traceback to unfold."""

    def __init__(self) -> None:
        self._entries: dict[str, _Failure] = {}
        self._shown: Sequence[tuple[str, int, str]] = ()
        self._list = ft.Column(spacing=0)
        self._none = ft.Text("No handler has raised.", size=12, color=_QUIET)
        self.control = _panel(
            ft.Column([_heading("Failing handlers"), self._none, self._list], spacing=6)
        )

    def show(self, watch: Watch, reading: Reading) -> bool:
        before, self._shown = self._shown, reading.failing[:_MOST_ROWS]
        if self._shown == before:
            return False
        self._none.visible = not self._shown
        shown = {name: (count, traceback) for name, count, traceback in self._shown}
        for name in self._entries.keys() - shown.keys():
            del self._entries[name]
        for name, (count, traceback) in shown.items():
            if name not in self._entries:
                self._entries[name] = _Failure(name, is_first=not self._entries)
            self._entries[name].show(count, traceback)
        self._list.controls = [self._entries[name].control for name in shown]
        return True


class _Failure:
    """One handler: its name, how often it raised, and its last traceback."""

    def __init__(self, name: str, is_first: bool) -> None:
        self._error = ft.Text("", size=12, color=ft.Colors.ERROR)
        self._count = ft.Text("", size=12, color=_QUIET)
        self._traceback = ft.Text("", size=12, font_family=_MONOSPACED)
        self.control = ft.ExpansionTile(
            title=ft.Row(
                [
                    ft.Text(_short(name), size=13, weight=ft.FontWeight.W_500),
                    self._count,
                    self._error,
                ],
                wrap=True,
                spacing=12,
            ),
            controls=[
                ft.Container(ft.SelectionArea(self._traceback), alignment=ft.Alignment.CENTER_LEFT)
            ],
            expanded=is_first,
            tile_padding=ft.Padding.all(0),
            controls_padding=ft.Padding.only(bottom=10),
            shape=ft.RoundedRectangleBorder(),
            collapsed_shape=ft.RoundedRectangleBorder(),
            dense=True,
        )

    def show(self, count: int, traceback: str) -> None:
        self._count.value = "once" if count == 1 else f"{count:,} times"
        # Marks below a line of code point at nothing where letters differ in width, as on the web.
        lines = [line for line in traceback.rstrip().splitlines() if line.strip(" ^~")]
        self._traceback.value = "\n".join(lines)
        self._error.value = lines[-1] if lines else ""
