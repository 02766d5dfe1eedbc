"""Live lines at the bottom of a terminal, with all other output above them, for callbacks."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from ansible_collections.xpu.fleet.plugins.module_utils import progress

try:
    from rich.console import Console, ConsoleOptions
    from rich.live import Live
    from rich.segment import Segment
    from rich.style import Style
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None

#: Colours of states on a terminal.
STYLES = {
    "title": "bold",
    "quiet": "dim",
    progress.RUNNING: "cyan",
    progress.WAITING: "dim",
    progress.DONE: "dim",
    progress.CHANGED: "yellow",
    progress.REBOOTING: "bold magenta",
    progress.FAILED: "bold red",
    progress.UNREACHABLE: "bold red",
}
#: Seconds between checks for changes, and longest time between redraws.
LOOK = 0.5
TICK = 1.0


class Raw:
    """Text that rich writes unchanged, above the live lines."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield the text."""
        yield Segment(self.text)


class Above:
    """Replaces sys.stdout and sys.stderr while lines are live: writes their output above them, line by line."""

    def __init__(self, stream: TextIO, show: Callable[[str], None]) -> None:
        self._stream, self._show, self._rest = stream, show, ""

    def write(self, text: str) -> int:
        """Show every complete line."""
        lines, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            self._show(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Keep an incomplete line: the live ones would follow it."""

    def close(self) -> None:
        """Write the rest to the original stream."""
        if self._rest:
            self._stream.write(self._rest)
            self._rest = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class LiveLines:
    """The live part of a terminal.

    Ansible forks its workers while it holds the display's lock. All drawing holds that lock: no worker inherits
    a half-finished drawing, or a lock of rich's that nobody would ever release.
    """

    def __init__(self, lock: Any, lines: Callable[[int, int], list[list[progress.Span]]], most: int) -> None:
        self._display_lock, self._lines, self._most = lock, lines, most
        self._segments: list[Segment] = []
        self._styles = {state: Style.parse(style) for state, style in STYLES.items()}
        self._replaced: list[tuple[str, TextIO, Above]] = []
        self._console: Console | None = None
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._pid = os.getpid()
        self.news = False

    def start(self) -> None:
        """Take over the bottom of the terminal. The cursor stays visible, so that nothing has to restore it."""
        if self._live:
            return
        with self._display_lock:
            self._console = Console(file=sys.stdout, force_terminal=True, highlight=False, markup=False, emoji=False)
            self._live = Live(
                self,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if stream.isatty():
                    above = Above(stream, self.show)
                    self._replaced.append((name, stream, above))
                    setattr(sys, name, above)
            self._live.start()
            self._console.show_cursor(True)
        self._ended.clear()
        self._thread = threading.Thread(target=self._draw_on, name="fleet_progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Restore the terminal."""
        if not self._live or os.getpid() != self._pid:
            return
        self._ended.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(timeout=2)
        with self._display_lock:
            live, self._live = self._live, None
            for name, stream, _above in self._replaced:
                setattr(sys, name, stream)
            try:
                live.stop()
                for _name, _stream, above in self._replaced:
                    above.close()
            except OSError:
                pass  # the terminal has gone
            self._replaced = []

    def show(self, text: str) -> None:
        """Write complete lines above the live ones."""
        with self._display_lock:
            if self._live and self._console:
                self._console.print(Raw(text), soft_wrap=True, end="")
            else:
                sys.stdout.write(text)

    def _draw_on(self) -> None:
        """Redraw after changes, and once a second for the clocks."""
        drawn = 0.0
        while not self._ended.wait(LOOK):
            if not self.news and time.monotonic() - drawn < TICK:
                continue
            self.news, drawn = False, time.monotonic()
            try:
                with self._display_lock:
                    if self._live and not self._ended.is_set():
                        self._draw()
            except OSError:
                return  # the terminal has gone

    def _draw(self) -> None:
        """Draw all lines once."""
        live, console = cast("Live", self._live), cast("Console", self._console)
        width, height = console.size
        height = min(height - 1, self._most or height)
        segments: list[Segment] = []
        for line in self._lines(width, height):
            segments += [Segment(text, self._styles.get(style)) for text, style in line]
            segments.append(Segment.line())
        self._segments = segments
        live.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield the lines of the last drawing."""
        yield from self._segments
