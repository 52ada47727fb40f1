"""What the tests share: a runs folder, papermill as a user calls it, and one whole chain at small scale."""

import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import forking
import pytest
from browsing import free_port, wait_for_server
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

# a few seconds a stage on one core, and still enough positives to choose a checkpoint by
SMALL = {
    "n_demo_posters": 200,
    "img_size": [64, 48],
    "batch_size": 16,
    "num_iteration_on_epoch": 4,
    "n_epochs": 3,
    "num_workers": 0,
    "min_positives": 3,
    "split_fractions": [0.6, 0.2, 0.2],
}
# a run of three steps, for what follows a training
QUICK = {
    "min_positives": 3,
    "model_name": "test_resnet",
    "pretrained": False,
    "img_size": [48, 32],
    "batch_size": 16,
    "num_workers": 0,
    "n_epochs": 1,
    "num_iteration_on_epoch": 3,
}
# the files that take longest: a worker of pytest that began one last would leave the others idle
LONG = """
    workflow any_network launch runs evaluate processes shared_jobs bench wheel terminal book sweep predict resume
    ensemble stages mixing readme chain
""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    "Put the files that take longest first."
    places = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    "A runs folder that all tests share, so that demo posters are drawn once."
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def own_runs(runs, monkeypatch) -> None:
    "For this process and those it starts: the shared runs folder, demo posters, one thread, and tests as modules."
    monkeypatch.setenv("RUNS_PATH", str(runs))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("ROOT_PATH", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")


@pytest.fixture(scope="session")
def environment(runs) -> dict[str, str]:
    "The environment of a job: the shared runs folder, no data folder, one thread."
    # with pytest's own variable, a kernel does not show what its child processes print
    inherited = {name: value for name, value in os.environ.items() if name not in ("ROOT_PATH", "PYTEST_CURRENT_TEST")}
    return {**inherited, "RUNS_PATH": str(runs), "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}


@pytest.fixture(scope="session")
def command(runs):
    "The papermill command line of a job: parameters of a file, then those of a dict."

    def build(job: str, notebook: str, params_file: str | None = None, **values) -> list[str]:
        line = [str(BIN / "papermill"), "--no-progress-bar", f"nbs/{job}.ipynb", str(runs / f"{notebook}.ipynb")]
        if params_file:
            line += ["-f", f"params/{params_file}.yaml"]
        return line + ["-y", repr(values)] if values else line

    return build


@pytest.fixture(scope="session")
def in_fork():
    "Calls a function in a process that has imported torch and much of this project; returns the finished process."
    if sys.platform != "linux":
        pytest.skip("forks of a process with torch are tried on Linux only")
    forking.prepare()
    return forking.in_fork


@pytest.fixture
def exit_code(request, own_runs):
    "Calls a function in another process, with this environment; returns the exit code, which is negative for a signal."
    if sys.platform == "linux":  # a fork saves the seconds of the imports
        in_fork = request.getfixturevalue("in_fork")

        def fork(function, *given) -> int:
            done = in_fork(function, *given, environment=dict(os.environ))
            print(done.stderr)
            return done.returncode

        return fork

    def call(function, *given) -> int:
        process = multiprocessing.get_context("spawn").Process(target=function, args=given)
        process.start()
        process.join()
        return process.exitcode

    return call


@pytest.fixture(scope="session")
def run_line(request):
    """Runs a command line of papermill with an environment, in a folder; returns the finished process.

    Forks it on Linux; the tests of terminal, wheel and pipelines start the real command."""
    if sys.platform == "linux":
        request.getfixturevalue("in_fork")
        return forking.run_papermill

    def run(line: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
        given = [BIN / "papermill", *line[1:]]
        return subprocess.run(given, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)

    return run


@pytest.fixture(scope="session")
def papermill(command, environment, run_line):
    "Runs a job from the project's root; returns the finished process."

    def run(job: str, notebook: str, params_file: str | None = None, env: dict | None = None, **values):
        return run_line(command(job, notebook, params_file, **values), {**environment, **(env or {})}, ROOT)

    return run


@pytest.fixture(scope="session")
def as_printed(environment, run_line, runs, tmp_path_factory):
    "Runs a command of the README, with small values for what it leaves open; returns the finished process."

    def run(command: list[str], runs: Path = runs, **values) -> subprocess.CompletedProcess:
        project = tmp_path_factory.mktemp("project")
        for name, target in (("nbs", ROOT / "nbs"), ("params", ROOT / "params"), ("runs", runs)):
            (project / name).symlink_to(target)
        line = [*command, *(["-y", repr(values)] if values else [])]
        done = run_line(line, {**environment, "RUNS_PATH": str(runs), "PATH": f"{BIN}:{os.environ['PATH']}"}, project)
        for path in project.glob("*.csv"):
            path.rename(runs / path.name)
        assert done.returncode == 0, f"{shlex.join(line)}:\n{done.stderr[-3000:]}"
        return done

    return run


@pytest.fixture(scope="session")
def chain(as_printed, runs, tmp_path_factory) -> Path:
    """The README's commands that train, average and export, in that order, at small scale; returns the runs folder.

    The first process of pytest that needs them runs them; each has a copy, which it may change."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place  # the processes share the folder above
    with FileLock(place / "chain.lock"):
        if not (place / "chain").is_dir():
            run_chain(as_printed, place / "unfinished_chain")
            (place / "unfinished_chain").rename(place / "chain")
    return shutil.copytree(place / "chain", runs, dirs_exist_ok=True)


def run_chain(as_printed, folder: Path) -> None:
    "Run these commands of the README with a runs folder of their own."
    shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
    folder.mkdir()
    stages, _ = (ROOT / "README.md").read_text(encoding="utf-8").split("## More than one GPU")
    commands = [shlex.split(line) for line in stages.splitlines() if line.startswith("papermill ")]
    jobs = {"lr_find": {**SMALL, "lrf_iterations": 14}, "train": SMALL, "swa": SMALL, "to_torchscript": SMALL}
    for command in commands:
        if (job := Path(command[1]).stem) in jobs:
            as_printed(command, folder, **jobs[job])


CHROMIUM = shutil.which("chromium")
FLAGS = (
    "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync disable-dev-shm-usage"
)


@pytest.fixture(scope="session")
def browser():
    "A headless browser; skips where there is none."
    if not CHROMIUM:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = [f"--{flag}" for flag in FLAGS.split()]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser):
    "A page of 1280x800 for one module: what a page of another module still asks for does not reach it."
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    yield page
    page.close()


@pytest.fixture(scope="session")
def shots(tmp_path_factory) -> Path:
    "Where screenshots are kept: the folder that the environment variable SCREENSHOTS names, or a temporary one."
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("shots")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def pictures():
    "Writes a picture of the README if the environment variable PICTURES names a folder for them."

    def write(name: str, page) -> None:
        if folder := os.environ.get("PICTURES"):
            page.screenshot(path=Path(folder) / f"{name}.png")

    return write


@pytest.fixture(scope="session")
def copied(tmp_path_factory) -> Path:
    "A copy of the project's notebooks and params files, which a test may change."
    folder = tmp_path_factory.mktemp("project")
    for name in ("nbs", "params", "settings.ini", "voila.json"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def shown(browser, chain, tmp_path_factory) -> Path:
    "A copy of the chain for the pages to show: in the shared folder, other test files leave runs of their own."
    folder = tmp_path_factory.mktemp("shown")
    for name in ("lrf_head", "head", "lrf_full", "full", f"demo_posters_{SMALL['n_demo_posters']}"):
        shutil.copytree(chain / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def start_server(tmp_path_factory, environment, shown):
    "Starts a Jupyter server on a free port of the loopback address; returns its address. All end with the tests."
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    own = {name: str(tmp_path_factory.mktemp(name.lower())) for name in places}
    env = {**environment, **own, "RUNS_PATH": str(shown), "PATH": f"{BIN}:{os.environ['PATH']}"}
    page_config = Path(own["JUPYTER_CONFIG_DIR"]) / "labconfig" / "page_config.json"
    page_config.parent.mkdir()
    page_config.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    servers = []

    def start(*arguments: str, cwd: Path) -> str:
        port = free_port()
        log = (tmp_path_factory.getbasetemp() / f"server_{port}.log").open("wb")
        line = [str(BIN / arguments[0]), *arguments[1:], f"--port={port}"]
        server = subprocess.Popen(line, env=env, cwd=cwd, stdout=log, stderr=subprocess.STDOUT)
        servers.append(server)
        wait_for_server(port, server)
        return f"http://127.0.0.1:{port}"

    yield start
    for server in servers:
        server.terminate()
    for server in servers:
        server.wait(30)


@pytest.fixture(scope="session")
def lab(copied, start_server) -> tuple[str, Path]:
    "JupyterLab on a copy of the project: its address, and the copy."
    options = ["--ip=127.0.0.1", f"--ServerApp.root_dir={copied}", "--IdentityProvider.token="]
    options += ["--no-browser", "--allow-root"]
    return start_server("jupyter", "lab", *options, cwd=copied), copied


@pytest.fixture(scope="session")
def served(copied, start_server):
    "Serves a notebook of nbs/ in the copy by voila, as `make app` does; returns its address."
    return lambda notebook: start_server("voila", f"nbs/{notebook}", "--no-browser", cwd=copied)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    "Demo posters that no test changes."
    from postergenre.demo.posters import draw_demo_posters

    return draw_demo_posters(tmp_path_factory.mktemp("data") / "demo", n=60)


@pytest.fixture
def root(drawn, tmp_path) -> Path:
    "A copy of the demo posters to change."
    return shutil.copytree(drawn, tmp_path / "demo")
