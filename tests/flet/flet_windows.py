"""Browser windows on a Flet program, used as a person uses them: click, type, read, look."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import ElementHandle, Locator, Page, Route, expect, sync_playwright

from flet_servers import Server

ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
KEYSTROKE_MS = 30
PATIENCE_MS = 90_000
"""Milliseconds after which a page that does not change is broken: the processor draws it."""

FRAMES = 40
WAIT_FOR_FRAMES = """
async frames => {
    for (let frame = 0; frame < frames; frame++) await new Promise(requestAnimationFrame);
}
"""


class Window:
    """One visitor's window, in which Flutter's semantics tree says what a person sees."""

    def __init__(self, page: Page, pictures: Path) -> None:
        self._page = page
        self._pictures = pictures

    def visit(self, url: str) -> None:
        """Open the program's page."""
        self._page.goto(url)
        # Flutter draws on a canvas; a click on this element makes it describe the page in the DOM.
        self._page.locator("flt-semantics-placeholder").dispatch_event("click")

    def type(self, label: str, text: str) -> None:
        """Type ``text`` into the field ``label``."""
        field = self._field(label).element_handle()
        self._take_over(field)
        self._page.keyboard.type(text, delay=KEYSTROKE_MS)
        self._wait_until("([field, text]) => field.value === text", [field, text])

    def press_enter(self) -> None:
        """Press Enter in the field that has the focus."""
        self._page.keyboard.press("Enter")

    def click(self, label: str) -> None:
        """Click the button ``label``."""
        self._page.get_by_role("button", name=label, exact=True).click()

    def reads(self, text: str) -> None:
        """Wait until ``text`` stands on the page."""
        expect(self._page.locator("flt-semantics-host")).to_contain_text(text)

    def text(self) -> str:
        """Everything that stands on the page now."""
        return self._page.locator("flt-semantics-host").inner_text()

    def is_empty(self, label: str) -> None:
        """Wait until the field ``label`` is empty."""
        expect(self._field(label)).to_have_value("")

    def picture(self, moment: str) -> None:
        """Keep a screenshot."""
        # The canvas follows the semantics tree, and buttons fade.
        self._page.evaluate(WAIT_FOR_FRAMES, FRAMES)
        self._page.screenshot(path=f"{self._pictures}-{moment}.png")

    def _field(self, label: str) -> Locator:
        return self._page.get_by_label(label)

    def _take_over(self, field: ElementHandle) -> None:
        """Focus ``field``, and wait until Flutter edits it.

        The browser focuses the element at once, Flutter attaches its own editing state a frame
        later, and what is typed in between is lost. Attaching sets ``autocorrect`` anew.
        """
        if field.evaluate("field => field === document.activeElement"):
            return
        field.evaluate("field => field.removeAttribute('autocorrect')")
        field.click()
        self._wait_until("field => field.getAttribute('autocorrect') === 'on'", field)

    def _wait_until(self, condition: str, argument: object) -> None:
        self._page.wait_for_function(condition, arg=argument)


Meet = Callable[[Server], tuple[Window, Window]]
"""``meet(server)``: the windows of Ada and Bob, who have typed their names."""


Look = Callable[..., Window]
"""``look(url, name, **settings)``: a window; the settings are those of a browser's context."""


@contextmanager
def browser(chromium: str) -> Iterator[Callable[[str, Path, dict[str, Any]], Window]]:
    """A running Chromium, as a function that opens a window of its own on an address."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        process = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)

        def open_page(url: str, pictures: Path, settings: dict[str, Any]) -> Window:
            settings = {"viewport": {"width": 900, "height": 600}, **settings}
            page = process.new_context(**settings).new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.route(lambda address: not address.startswith(url), _refuse)
            window = Window(page, pictures)
            window.visit(url)
            return window

        yield open_page
        process.close()


def _refuse(route: Route) -> None:
    """Nothing comes from anywhere but the program."""
    route.abort()
