"""What a job leaves when it is killed: copies of its folder, made at each of its file operations."""

import builtins
import contextlib
import io
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from postergenre.errors import ConfigError


def in_child(function: Callable[[], object]) -> int:
    "Run a function in a forked process; returns its exit status, 3 if it refused to replace what is there."
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            status = 0
        except ConfigError as error:
            status = 3 if "is there already" in str(error) else 1
            if status == 1:
                traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def below(path: object, folder: Path) -> bool:
    "Return True for the path of a file or folder below a folder, and False for the number of an open file."
    return not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(folder)


def changes(event: str, arguments: tuple, folder: Path) -> bool:
    "Return True for an operation that changes a file or folder below a folder."
    if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return False
    if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
        return False
    if not below(arguments[0], folder):
        return False
    path = os.fsdecode(arguments[0])
    if "tensorboard" in path and os.path.exists(path):
        return False  # lines that are added to a log, in a thread
    there = {"os.mkdir": False, "os.remove": True, "shutil.rmtree": True}.get(event, None)
    return there in (None, os.path.exists(path))


def at_each_moment(
    folder: Path,
    call: Callable[[], object],
    writers: tuple[tuple[object, str], ...] = (),  # objects and names of functions that write to open files
) -> None:
    """Call a function just before each file operation below a folder, and after each opening, until this process ends.

    What libraries in C++ or Rust do with files that they open themselves is not seen.
    """

    def calls(function: Callable) -> Callable:
        def called(*given, **options):
            call()
            return function(*given, **options)

        return called

    def opened(file, mode: str = "r", *given, **options):
        stream = open_file(file, mode, *given, **options)
        if mode[0] in "wx" and below(file, folder):
            call()  # the file is there, and empty
        return stream

    open_file, builtins.open, io.open = open, opened, opened
    for place, name in ((os, "fsync"), *writers):  # before a sync all has been written, and nothing has been moved yet
        setattr(place, name, calls(getattr(place, name)))
    sys.addaudithook(lambda event, arguments: changes(event, arguments, folder) and call())


def killed_at(moment: int, folder: Path, job: Callable[[], object], writers: tuple = ()) -> None:
    "Run a job that is killed at the moment of this number, see `at_each_moment`."
    left = itertools.count(moment, -1)
    at_each_moment(folder, lambda: next(left) == 0 and os.kill(os.getpid(), signal.SIGKILL), writers)
    job()


def copy_at_each_moment(folder: Path, states: Path, job: Callable[[], object], writers: tuple = ()) -> None:
    "Run a job of which one thread at a time changes files, and copy its folder at each moment, see `at_each_moment`."
    numbers = itertools.count()
    at_each_moment(folder, lambda: shutil.copytree(folder, states / f"{next(numbers):04d}", symlinks=True), writers)
    job()


def names_in(folder: Path) -> list[str]:
    "Return the sorted paths of what is in a folder, without the random part of unfinished files, and without logs."
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if "tensorboard" not in str(path))
    return sorted(re.sub(r"[0-9a-f]{8}\.tmp", "tmp", name) for name in names)


@contextlib.contextmanager
def moments_of(
    folder: Path,
    before: Callable[[], object],  # makes the state that the job starts from
    job: Callable[[], object],
    writers: tuple = (),  # see `at_each_moment`
) -> Iterator[list[Path]]:
    "Yield copies of a folder: what a kill of a job leaves, for each moment of `at_each_moment`."
    with tempfile.TemporaryDirectory() as place:
        before()
        start, copies = shutil.copytree(folder, Path(place, "start"), symlinks=True), Path(place, "copies")
        assert in_child(lambda: copy_at_each_moment(folder, copies, job, writers)) == 0
        states = sorted(copies.iterdir())
        for moment in (len(states) // 3, 2 * len(states) // 3):  # real kills, to compare with
            put_back(start, folder)
            assert in_child(lambda moment=moment: killed_at(moment, folder, job, writers)) == -signal.SIGKILL
            assert names_in(folder) == names_in(states[moment])
        yield states


def put_back(state: Path, folder: Path) -> None:
    "Make a folder what it was at a moment."
    shutil.rmtree(folder)
    shutil.copytree(state, folder, symlinks=True)
