"""The Jobs of every example, one a stage, as files to review: tests/golden/render. WARPCTL_UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.builders.bad_specs import as_yaml
from tests.builders.starts import UID, starts
from warpctl.render.job import render_job
from warpctl.render.service import render_service
from warpctl.spec.controller_config import ControllerConfig
from warpctl.spec.parse import parse_file
from warpctl.spec.stage_input import ENVIRONMENT_VARIABLE

TOP = Path(__file__).parents[3]
FOLDER = TOP / "tests" / "golden" / "render"
SPECS = sorted((TOP / "specs").glob("*.yaml"))


def first_of_each_kind(run):
    """One stage of each kind, and the controls' RL runs."""
    shown = {}
    for start in starts(run).values():
        shown.setdefault((start.stage.kind, start.stage.control), start)
    return list(shown.values())


def readable(job):
    """The StageInput, which is one long line, as the mapping that it is; a copy, so that YAML has no anchors."""
    job = json.loads(json.dumps(job))
    for each in job["spec"]["template"]["spec"]["containers"][0]["env"]:
        if each["name"] == ENVIRONMENT_VARIABLE:
            each["value"] = json.loads(each["value"].replace("$$", "$"))
    return job


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_jobs_of_an_example_are_as_reviewed(path):
    run = parse_file(path)
    made = []
    for start in first_of_each_kind(run):
        storage = run.spec.storage.uri
        job = render_job(run, start, storage=storage, uid=UID, config=ControllerConfig())
        metadata = job["metadata"]
        made.append(readable(job))
        if job["spec"]["completions"] > 1:
            made.append(
                render_service(
                    run.metadata.namespace, job_name=metadata["name"], job_uid="job-uid", labels=metadata["labels"]
                )
            )
    text = "---\n".join(as_yaml(each) for each in made)
    golden = FOLDER / f"{path.stem}.yaml"
    if os.environ.get("WARPCTL_UPDATE_GOLDEN"):
        golden.write_text(text)

    assert text == golden.read_text(), f"differs from {golden.name}; WARPCTL_UPDATE_GOLDEN=1 accepts it"


def test_there_is_no_golden_file_without_its_example():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {path.stem for path in SPECS}
