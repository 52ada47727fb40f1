"""Run papermill and its kernel as forks of a process that has imported their libraries, which saves seconds per job.

A fork gets what a shell would give it: arguments, environment, folder and streams. Linux only.
"""

import atexit
import importlib.metadata
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

HERE = Path(__file__).resolve().parent
# by name, because only the process that forks imports them; none starts a thread of Python, which would not be forked
IMPORTED = ["papermill.cli", "ipykernel.kernelapp", "postergenre.train.training", "postergenre.text.words", "onnx"]
FORKS = multiprocessing.get_context("forkserver")
PLACES = [place for place in sys.path if place not in ("", str(HERE))]  # of the process that forks, not of pytest


class Kernel(multiprocessing.get_context("fork").Process):
    "A kernel that waits for orders; it has what jupyter_client expects of `subprocess.Popen`."

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Provisioner(LocalProvisioner):
    "Gives papermill the waiting kernel."

    waiting: Kernel
    orders: Connection

    async def launch_kernel(self, cmd: list[str], **options: Any) -> dict:
        self.cwd, self.process = options.get("cwd") or os.getcwd(), self.waiting
        self.pid = self.pgid = self.process.pid
        parent = {"JPY_PARENT_PID": str(os.getpid())}  # ipykernel has read it already, so that it needs the option too
        arguments = [*cmd[3:], f"--IPKernelApp.parent_handle={os.getpid()}"]
        self.orders.send((arguments, {**options["env"], **parent}, self.cwd))
        return self.connection_info


def take_over(environment: dict[str, str], folder: str | Path) -> None:
    "Replace what a process has from the one that forked it: environment, folder, places of modules, random numbers."
    np.random.seed()  # only the seed of hashes stays that of all forks
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:] = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *PLACES]


def be_kernel(orders: Connection, other_end: Connection) -> None:
    "Wait for orders, then be a kernel."
    from ipykernel.kernelapp import IPKernelApp

    other_end.close()
    try:
        arguments, environment, folder = orders.recv()
    except EOFError:  # papermill ended without a kernel
        return
    os.setsid()
    take_over(environment, folder)
    sys.argv = ["ipykernel_launcher", *arguments]
    try:
        IPKernelApp.launch_instance(arguments)
    finally:
        atexit._run_exitfuncs()


def be_called(
    streams: tuple[str, str], environment: dict[str, str], folder: Path, function: Callable[..., object], *given: object
) -> None:
    "Be a process that calls a function."
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    take_over(environment, folder)
    multiprocessing.set_start_method(None, force=True)  # that of the platform
    try:
        function(*given)
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # which processes of multiprocessing leave out


def be_papermill(arguments: list[str]) -> None:
    "Be papermill's command line."
    from papermill.cli import papermill

    receiving, Provisioner.orders = multiprocessing.Pipe(duplex=False)
    Provisioner.waiting = Kernel(target=be_kernel, args=(receiving, Provisioner.orders))
    Provisioner.waiting.start()  # before there are threads and sockets
    factory = KernelProvisionerFactory.instance()
    point = importlib.metadata.EntryPoint("fork", f"{__name__}:Provisioner", factory.GROUP_NAME)
    factory.provisioners["fork"], factory.default_provisioner_name = point, "fork"
    sys.argv = ["papermill", *arguments]
    try:
        papermill()
    finally:
        Provisioner.orders.close()


def prepare() -> None:
    "Start the process that forks; return when it has imported everything."
    FORKS.set_forkserver_preload([*IMPORTED, __name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # read when torch is imported
        patch.setenv("PYTHONPATH", str(HERE))
        first = FORKS.Process(target=int)
        first.start()
        first.join()


def in_fork(
    function: Callable[..., object], *given: object, environment: dict[str, str], folder: Path = HERE.parent
) -> subprocess.CompletedProcess:
    "Call a function in a fork, with one thread; return the exit status and what was printed."
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        streams = tuple(f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, error))
        process = FORKS.Process(target=be_called, args=(streams, environment, folder, function, *given))
        process.start()
        try:
            process.join(600)
        finally:
            late = process.is_alive()
            process.kill()
            process.join()
        texts = []
        for file in (out, error):
            file.seek(0)
            texts.append(file.read().decode())
    if late:
        raise subprocess.TimeoutExpired(str(given), 600, *texts)
    return subprocess.CompletedProcess(given, process.exitcode, *texts)


def run_papermill(line: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
    "Run a command line of papermill in a fork."
    return in_fork(be_papermill, line[1:], environment=environment, folder=folder)
