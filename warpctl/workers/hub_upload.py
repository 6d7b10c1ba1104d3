"""A finished model folder into a repository of a hub that speaks the Hugging Face API, in one commit. Never overwrites."""

from __future__ import annotations

from collections.abc import Mapping

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars

from warpctl.errors import InputError, RetryableError, UserError, WarpctlError
from warpctl.workers.sources.http_stream import is_final_status
from warpctl.workers.sources.hub import PUBLIC_ENDPOINT, HubAddress

_OWN_FILES = frozenset({".gitattributes"})
"""What a hub puts into a repository that it has just made."""


def repository_of(uri: str) -> str:
    """owner/name of hf://owner/name; UserError for anything else."""
    try:
        address = HubAddress.parse(uri)
    except InputError as error:
        raise UserError(error.message, hint="a model goes to hf://owner/name") from error
    if address.repo_type != "model" or address.path:
        raise UserError(f"{uri} is not a repository of models", hint="a model goes to hf://owner/name")
    return address.repo


def upload_folder(folder: str, uri: str, *, environment: Mapping[str, str]) -> str:
    """Make a private repository unless it is there, and commit the folder; returns the commit's address.

    UserError when it holds files already; InputError when the hub refuses, RetryableError when it does not answer.
    """
    repository = repository_of(uri)
    disable_progress_bars()
    api = HfApi(
        endpoint=environment.get("HF_ENDPOINT", PUBLIC_ENDPOINT).rstrip("/"),
        token=environment.get("HF_TOKEN") or get_token() or False,
    )
    try:
        _refuse_if_taken(api, repository)
        api.create_repo(repository, private=True, exist_ok=True)
        parent = api.model_info(repository).sha  # whoever commits between here and there makes this one fail
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, parent_commit=parent, commit_message="Exported by warpctl"
        )
    except WarpctlError:
        raise
    except Exception as error:
        raise _explained(uri, error) from error
    return str(commit.commit_url)


def _refuse_if_taken(api: HfApi, repository: str) -> None:
    try:
        files = {file.rfilename for file in api.model_info(repository).siblings or ()} - _OWN_FILES
    except RepositoryNotFoundError:
        return
    if files:
        raise UserError(
            f"hf://{repository} is not empty: it holds {min(files)}",
            hint="name a new repository; nothing is overwritten",
        )


def _explained(uri: str, error: Exception) -> WarpctlError:
    """The HTTP library's errors differ between releases of huggingface_hub: only the status is looked at."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = (str(error).splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, HFValidationError) or (status is not None and is_final_status(status)):
        what = f"the hub answered {status}" if status is not None else said
        return InputError(
            f"cannot push to {uri}: {what}", hint="give a token that may write there: HF_TOKEN, or `hf auth login`"
        )
    return RetryableError(f"cannot push to {uri}: {said}", hint="is the hub up, and reachable from here?")
