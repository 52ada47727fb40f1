"""Job notebooks in a terminal: short errors, progress, and a note at the top of what did not finish."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import papermill
import pytest
from conftest import BIN, ROOT

from postergenre.terminal import UNFINISHED, JobError


def test_the_engine_is_installed():
    points = importlib.metadata.entry_points(group="papermill.engine")
    assert [point.value for point in points if point.name == "postergenre"] == ["postergenre.engine:JobEngine"]


@pytest.fixture
def notebook(tmp_path):
    "Return a function that writes a job notebook of these cells."

    def write(*sources: str):
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A job"), *cells])
        made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, tmp_path / "job.ipynb")
        return tmp_path / "job.ipynb"

    return write


def run(path, *arguments, **options) -> subprocess.CompletedProcess:
    output = path.with_name("out.ipynb")
    command = [sys.executable, "-m", "papermill", str(path), str(output), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, **options)


def first_cell(path) -> str:
    return "".join(json.loads(path.with_name("out.ipynb").read_text())["cells"][0]["source"])


def test_a_finished_job_prints_its_lines_and_progress_and_keeps_no_note(notebook):
    path = notebook(
        "from postergenre.machine import with_progress\n"
        "for _ in with_progress(range(4), 4, 'posters', interval=0):\n    pass",
        "print('Results: runs/full')",
    )
    done = run(path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and lines[0].startswith("4 of 4 posters; ") and lines[1] == "Results: runs/full"
    assert "cell/s" not in done.stderr and "WARNING" not in done.stderr
    assert first_cell(path) == "# A job"


def test_a_mistake_ends_with_its_message_alone(notebook):
    path = notebook("from postergenre.errors import ConfigError\nraise ConfigError('`n_epoch` is not a parameter.')")
    done = run(path, "--log-level", "WARNING")
    assert done.returncode == 1 and done.stderr.strip() == "ConfigError: `n_epoch` is not a parameter."
    assert "has not finished" in first_cell(path) and "has a mistake" in first_cell(path)


def test_a_program_error_shows_ten_lines_and_where_the_rest_is(notebook):
    deep = "def call(n):\n    return call(n - 1) if n else {}['gone']\n\ncall(30)"
    done = run(notebook(f"from postergenre import errors\n{deep}"), "--log-level", "WARNING")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) <= 10 and "KeyError: 'gone'" in lines[-2] and "out.ipynb" in lines[-1]


def test_a_file_of_the_command_that_cannot_be_read_is_named_in_one_line(notebook, run_line, environment, tmp_path):
    path = notebook("from postergenre import errors")
    for name, content in {"bad.yaml": "a: [1", "list.yaml": "- a", "good.yaml": "a: 1"}.items():
        (tmp_path / name).write_text(content)
    for arguments, words in {
        (path, "out.ipynb", "-f", "nowhere.yaml"): "There is no file nowhere.yaml in ",
        (path, "out.ipynb", "-f", "god.yaml"): "Did you mean `good.yaml`? Correct its path.",
        ("nowhere.ipynb", "out.ipynb", "-f", "good.yaml"): "There is no file nowhere.ipynb in ",
        (path, "noFolder/out.ipynb", "-p", "name", "None"): "The output folder noFolder doesn't exist. Create it",
        (path, "out.ipynb", "-f", "."): ". is a folder. Give a file in it.",
        ("good.yaml", "out.ipynb"): "The notebook to run is not a notebook: it is not JSON.",
        (path, "out.ipynb", "--parameters_file=nowhere.yaml"): "There is no file nowhere.yaml in ",
        (path, "out.ipynb", "-f", "bad.yaml"): "The params file bad.yaml is not valid YAML in line 1: expected",
        (path, "out.ipynb", "-f", "good.yaml", "-y", "{a: [1"): "A value of -y is not valid YAML in line 1: expected",
        (
            path,
            "out.ipynb",
            "-f",
            "list.yaml",
        ): "params file (-f) or a value of -y must contain lines of the form `name: value`",
    }.items():
        done = run_line(["papermill", "--log-level", "ERROR", *map(str, arguments)], environment, tmp_path)
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 1 and last.startswith("Error: ") and words in last, done.stderr[-2000:]
        assert "Traceback" not in done.stderr


def test_a_killed_kernel_leaves_a_note(notebook):
    path = notebook("import os, signal\nfrom postergenre import errors\nos.kill(os.getpid(), signal.SIGKILL)")
    assert run(path).returncode not in (0, 1)
    assert "has not finished" in first_cell(path) and "kernel died" in first_cell(path)


def test_a_cell_over_the_time_limit_leaves_a_note(notebook):
    path = notebook("import time\nfrom postergenre import errors\ntime.sleep(60)")
    assert run(path, "--execution-timeout", "2").returncode != 0
    assert "time limit" in first_cell(path)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_papermill_that_is_stopped_leaves_a_note(notebook, sent):
    path = notebook("import time\nfrom postergenre import errors\nprint('started', flush=True)\ntime.sleep(60)")
    command = [sys.executable, "-m", "papermill", str(path), str(path.with_name("out.ipynb"))]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
        start_new_session=True,
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(0.5)
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # a terminal sends Ctrl-C to the kernel too
    else:
        os.kill(process.pid, sent)
    said = process.communicate(timeout=60)[1]
    assert process.returncode and "has not finished" in first_cell(path)
    assert ("the same command goes on where it can" in said) == (sent == signal.SIGINT)
    assert "Traceback" not in said, said
    assert ("interrupted" if sent == signal.SIGINT else "was killed") in first_cell(path)


def test_a_note_goes_when_the_notebook_is_run_again(notebook):
    path = notebook("from postergenre import errors\nassert (errors.__file__ or '') > ''")
    assert run(path).returncode == 0
    output = path.with_name("out.ipynb")
    made = nbformat.read(output, 4)
    made.cells.insert(0, nbformat.v4.new_markdown_cell("unfinished", metadata={"tags": [UNFINISHED]}))
    nbformat.write(made, path)
    assert run(path).returncode == 0 and first_cell(path) == "# A job"


def test_errors_are_papermills_in_python_and_other_notebooks_are_left_alone(notebook, tmp_path):
    path = notebook("from postergenre import errors\nraise ValueError('of a job')")
    with pytest.raises(papermill.PapermillExecutionError, match="of a job") as caught:
        papermill.execute_notebook(path, tmp_path / "out.ipynb", progress_bar=False)
    assert isinstance(caught.value, JobError) and caught.value.ename == "ValueError"
    path = notebook("raise ValueError('of somebody else')")
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(path, tmp_path / "out.ipynb", progress_bar=False)
    assert not isinstance(caught.value, JobError) and "has not finished" not in first_cell(path)


def test_a_failed_execution_does_not_replace_the_record_of_a_finished_one(notebook):
    path = notebook("from postergenre import errors\nprint('the result')")
    assert run(path).returncode == 0
    record = path.with_name("out.ipynb").read_bytes()
    path = notebook("from postergenre import errors\nraise errors.ConfigError('a mistake')")
    assert run(path).returncode == 1
    assert path.with_name("out.ipynb").read_bytes() == record
    assert "has not finished" in path.with_name("out.failed.ipynb").read_text()
    assert not list(path.parent.glob(".*"))


def test_quiet_prints_nothing(notebook):
    path = notebook("from postergenre import errors\nprint('the result')")
    assert run(path, "-p", "quiet", "true").stdout == ""
    assert run(path, "-p", "quiet", "false").stdout == "the result\n"


def test_a_fork_behaves_like_the_command(notebook, run_line, environment, tmp_path):
    path = notebook(
        "import os, sys\nfrom postergenre import errors",
        "print(os.getcwd(), sorted(sys.path), sorted(os.environ), __name__, os.environ['GIVEN'])",
        "raise errors.ConfigError('a mistake')",
    )
    line = [str(BIN / "papermill"), str(path), "out.ipynb", "--log-level", "WARNING"]
    environment = {**environment, "GIVEN": "yes"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    forked = run_line(line, environment, tmp_path)
    assert done.returncode == forked.returncode == 1 and done.stderr == forked.stderr == "ConfigError: a mistake\n"
    assert done.stdout == forked.stdout and "__main__ yes" in done.stdout


def test_papermill_starts_without_torch():
    code = "import papermill, sys; print('postergenre.engine' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_the_parts_can_be_imported_before_papermill():
    code = "from postergenre.terminal import JobError; import papermill; print(JobError.__name__)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "JobError\n"
    )


def test_a_notebook_on_standard_output_is_not_mixed_with_what_it_prints(notebook):
    path = notebook("from postergenre import errors\nprint('the result')")
    command = [sys.executable, "-m", "papermill", str(path), "-"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0
    assert json.loads(done.stdout)["cells"][0]["source"] == ["# A job"]


def test_without_an_output_and_without_progress_nothing_is_written_or_printed(notebook, capfd):
    path = notebook("from postergenre import errors\nprint('the result')")
    executed = papermill.execute_notebook(path, None, progress_bar=False)
    assert executed.cells[1].outputs[0].text == "the result\n" and capfd.readouterr().out == ""
    assert [file.name for file in path.parent.iterdir()] == ["job.ipynb"]


def test_another_working_directory_does_not_mix_up_records(notebook, tmp_path):
    (tmp_path / "sub").mkdir()
    path = notebook("from postergenre import errors\nprint('the result')")
    command = [sys.executable, "-m", "papermill", str(path), "out.ipynb"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    record = (tmp_path / "out.ipynb").read_bytes()
    path = notebook("from postergenre import errors\nraise ValueError")
    failed = subprocess.run([*command, "--cwd", "sub"], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1 and "out.failed.ipynb" in failed.stderr
    assert (tmp_path / "out.ipynb").read_bytes() == record and not list((tmp_path / "sub").iterdir())


def test_a_failed_notebook_is_written_though_cells_are_not_saved_one_by_one(notebook):
    path = notebook("from postergenre import errors\nraise ValueError('boom')")
    assert run(path, "--no-request-save-on-cell-execute").returncode == 1
    assert "boom" in path.with_name("out.ipynb").read_text() and "has not finished" in first_cell(path)


def test_a_closed_pipe_does_not_stop_the_job(notebook):
    path = notebook(
        "from postergenre import errors\nprint('one', flush=True)",
        "import time\ntime.sleep(1)\nprint('two' * 100_000, flush=True)",
        "from pathlib import Path\nPath('finished').touch()",
    )
    command = [sys.executable, "-m", "papermill", str(path), str(path.with_name("out.ipynb"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=path.parent)
    assert process.stdout.readline() == "one\n"
    process.stdout.close()
    process.wait(60)
    assert (path.parent / "finished").is_file() and first_cell(path) == "# A job"


def test_only_the_first_process_prints(notebook):
    path = notebook("from postergenre import errors\nprint('the result')")
    assert run(path, env={**os.environ, "LOCAL_RANK": "1"}).stdout == ""
