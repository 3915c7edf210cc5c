"""A page with a button: a click sends to all, and each handler shows whose page Flet says it is on.

``whose_page.py async`` subscribes coroutine functions, ``whose_page.py sync`` plain ones.
"""

import sys

import flet as ft


def main(page):
    lines = ft.Column()

    def show(line):
        whose = "my own page" if ft.context.page is page else "another page"
        lines.controls.append(ft.Text(f"{line} on {whose}"))
        page.update()

    async def show_async(line):
        show(line)

    def click(event):
        page.pubsub.send_all("clicked")

    page.pubsub.subscribe(show_async if sys.argv[1] == "async" else show)
    page.add(lines, ft.FilledButton("Click", on_click=click), ft.Text("ready"))


ft.run(main)
