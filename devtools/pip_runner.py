"""Runs pip with readable progress, and says in one sentence why it failed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

LARGE = 20  # megabytes from which a download gets its own line

NO_SPACE = re.compile(r"No space left on device|not enough space on the disk|Errno 28|Errno 122")
NO_NETWORK = re.compile(
    r"connection broken|Failed to establish|NewConnectionError|ConnectTimeout|Max retries|"
    r"Name or service not known|Temporary failure in name resolution|getaddrinfo|ProxyError|"
    r"Read timed out|Connection refused|error sending request|SSLError|Connection reset",
    re.IGNORECASE,
)
NO_MATCH = re.compile(r"No matching distribution found for ([^\s;(]+)|No solution found")


class SetupError(Exception):
    """A set-up step failed; the message is for the user."""


class NoMatch(SetupError):
    """The registry answered, but has no such package for this Python and machine."""


class Status:
    """One line that changes on a terminal; in a log only the lines worth keeping."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()

    def show(self, text: str) -> None:
        if self.live:
            sys.stdout.write(f"\r\033[K    {text[:100]}")
            sys.stdout.flush()

    def keep(self, text: str) -> None:
        sys.stdout.write(f"\r\033[K    {text}\n" if self.live else f"    {text}\n")
        sys.stdout.flush()

    def clear(self) -> None:
        if self.live:
            sys.stdout.write("\r\033[K")
            sys.stdout.flush()


def follow(command: list[str], on_line: Callable[[str], None], log: Path, **options) -> int:
    """Run a command, hand on each line it prints, keep all of them in the log."""
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, **options}
    with log.open("a", encoding="utf-8") as record:
        record.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace", **options
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if not line.startswith("Progress "):
                    record.write(line)
                on_line(line.rstrip())
            return process.wait()
        finally:
            process.kill()
            process.wait()


class PipOutput:
    """Turns pip's (or uv's) lines into a status, and remembers them for the reason of a failure."""

    def __init__(self) -> None:
        self.status, self.text, self.file = Status(), "", ""

    def __call__(self, line: str) -> None:
        if line.startswith("Progress "):
            done, total = (int(part) for part in re.findall(r"\d+", line)[:2])
            if total:
                self.status.show(f"{self.file} {100 * done // total} %")
            return
        self.text += line + "\n"
        words = line.split()
        if len(words) > 1 and words[0] in ("Downloading", "Collecting", "Building", "Using"):
            name = words[2] if words[0] == "Using" and len(words) > 2 else words[1]
            self.file = re.split(r"[/\\]", name)[-1]
            size = re.search(r"([\d.]+) ?(MB|MiB)\)", line)
            if size and float(size[1]) >= LARGE:
                self.status.keep(f"{words[0].lower()} {self.file} ({size[1]} MB)")
            else:
                self.status.show(f"{words[0].lower()} {self.file}")
        elif line.startswith("Installing collected packages"):
            self.status.keep(f"installing {line.count(',') + 1} packages (a minute or so)")


def run_pip(python: Path, arguments: list[str], log: Path, program: str = "pip") -> None:
    """pip (or uv) in the given interpreter's environment; raises SetupError with the reason."""
    output = PipOutput()
    command = [str(python), "-m", program, *arguments]
    code = follow(command, output, log)
    output.status.clear()
    if code:
        raise failure(output.text, log)


def failure(text: str, log: Path) -> SetupError:
    """The reason for a failure, from what pip printed."""
    if NO_SPACE.search(text):
        return SetupError(f"The disk of {log.parent} is full; free some space and run this again.")
    missing = NO_MATCH.search(text)
    nothing_seen = not missing or "from versions: none" in text
    if NO_NETWORK.search(text) and nothing_seen:
        return SetupError(
            "The package registry cannot be reached; check the network connection, the proxy or "
            "pip's index settings, and run this again."
        )
    if missing:
        version = ".".join(map(str, sys.version_info[:2]))
        return NoMatch(
            f"The package registry has no {missing[1] or 'suitable package'} for Python {version} "
            f"on this machine; use another Python, for example 3.12."
        )
    errors = [line for line in text.splitlines() if "error" in line.lower()] or ["no message"]
    return SetupError(f"Installing packages failed ({errors[-1].strip()}); details: {log}")
