"""A model or dataset repository on a hub that speaks the Hugging Face API; its revision is pinned to a commit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from huggingface_hub import HfApi, close_session, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from warpctl.errors import InputError, RetryableError
from warpctl.workers.sources.base import SourceFile
from warpctl.workers.sources.http_stream import AccessDeniedError, is_final_status, new_client, stream_range

# Which HTTP library huggingface_hub stands on differs between its releases; its errors derive from that library's.
_HTTP_ERROR: type[Exception] = next(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
TIMEOUT_SECONDS = 60.0
PUBLIC_ENDPOINT = "https://huggingface.co"
TOKEN_HINT = "give a token that may read it: HF_TOKEN in the environment of the worker (in a cluster from a Secret)"  # noqa: S105  # a sentence
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_URI = re.compile(rf"hf://(?P<datasets>datasets/)?(?P<owner>{_PART})/(?P<name>{_PART})(?:/(?P<path>[^@?#]+?))?/*")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """hf://owner/name[/folder] or hf://datasets/owner/name[/path]."""

    repo_type: str
    repo: str
    path: str

    @classmethod
    def parse(cls, uri: str) -> HubAddress:
        match = _URI.fullmatch(uri)
        if match is None:
            hint = "write hf://owner/name, hf://owner/name/folder or hf://datasets/owner/name/path"
            if "@" in uri:
                hint = "the branch, tag or commit goes into `revision`"
            raise InputError(f"{uri} does not name a repository", hint=hint)
        repo_type = "dataset" if match["datasets"] else "model"
        return cls(repo_type, f"{match['owner']}/{match['name']}", match["path"] or "")


class HubSource:
    """`environment` may hold HF_ENDPOINT and HF_TOKEN; a token is sent to that endpoint only and never written down."""

    def __init__(self, uri: str, revision: str, *, environment: Mapping[str, str]) -> None:
        self.uri = uri
        self._address = HubAddress.parse(uri)
        self._endpoint = environment.get("HF_ENDPOINT", PUBLIC_ENDPOINT).rstrip("/")
        self._token = environment.get("HF_TOKEN") or get_token() or None
        self._revision = revision
        self.pinned_revision = ""
        self.is_single_file = False
        self._client = new_client({"Authorization": f"Bearer {self._token}"} if self._token else None)

    def files(self) -> list[SourceFile]:
        """Files of the repository at the commit that the revision names when this is first called."""
        address = self._address
        api = HfApi(endpoint=self._endpoint, token=self._token or False)
        revision = self.pinned_revision or self._revision
        try:
            info = api.repo_info(
                address.repo,
                repo_type=address.repo_type,
                revision=revision,
                files_metadata=True,
                timeout=TIMEOUT_SECONDS,
            )
        except (_HTTP_ERROR, HFValidationError, OSError) as error:
            raise self._explain(error) from error
        if not info.sha:
            raise InputError(f"{self.uri}: the hub names no commit for revision {revision!r}")
        self.pinned_revision = info.sha
        siblings = getattr(info, "siblings", None) or ()
        names = {sibling.rfilename for sibling in siblings}
        self.is_single_file = address.path in names
        return sorted(
            (self._listed(sibling) for sibling in siblings if self._relative(sibling.rfilename) is not None),
            key=lambda file: file.name,
        )

    def stream(self, file: SourceFile, start: int) -> Iterator[bytes]:
        path = self._address.path
        name = path if self.is_single_file else f"{path}/{file.name}" if path else file.name
        address = self._address
        repo_type = None if address.repo_type == "model" else address.repo_type
        url = hf_hub_url(
            address.repo, name, repo_type=repo_type, revision=self.pinned_revision, endpoint=self._endpoint
        )
        try:
            # A commit never changes, so no tag is compared; the digests of the listing are.
            yield from stream_range(self._client, url, start, label=f"{self.uri}: {file.name}", tag=None)
        except AccessDeniedError as error:
            raise self._denied() from error

    def copy_uri(self, file: SourceFile) -> str | None:  # noqa: ARG002  # a hub copies nothing for us
        return None

    def close(self) -> None:
        self._client.close()
        close_session()

    def _relative(self, name: str) -> str | None:
        """`name` relative to the path of the URI, or None when it lies elsewhere."""
        path = self._address.path
        if not path:
            return name
        if name == path:
            return name.rpartition("/")[2]
        return name.removeprefix(f"{path}/") if name.startswith(f"{path}/") else None

    def _listed(self, sibling: object) -> SourceFile:
        name, blob = getattr(sibling, "rfilename", ""), getattr(sibling, "blob_id", None) or ""
        lfs, size = getattr(sibling, "lfs", None), getattr(sibling, "size", None)
        if size is None:
            raise InputError(f"{self.uri}: the hub does not say how long {name} is")
        relative = self._relative(name) or name
        if lfs is not None:
            return SourceFile(relative, size, f"sha256={lfs.sha256}", sha256=lfs.sha256)
        return SourceFile(relative, size, f"git={blob or self.pinned_revision}", git_sha1=blob)

    def _explain(self, error: Exception) -> InputError | RetryableError:
        repo = self._address.repo
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, GatedRepoError):
            return InputError(
                f"{self.uri}: {repo} is gated and this worker may not read it",
                hint=f"accept its terms on {self._endpoint}, then {TOKEN_HINT}",
            )
        if isinstance(error, RepositoryNotFoundError) or status in {401, 403}:
            return self._denied()
        if isinstance(error, RevisionNotFoundError):
            return InputError(f"{self.uri}: {repo} has no revision {self._revision!r}", hint="check `revision`")
        is_final = isinstance(error, HFValidationError) or (status is not None and is_final_status(status))
        what = f"the hub answered {status}" if status is not None else f"{type(error).__name__}: {error}"
        if is_final:
            return InputError(f"{self.uri}: {what} for {repo}", hint="check the name and HF_ENDPOINT")
        return RetryableError(f"{self.uri}: {what} for {repo}")

    def _denied(self) -> InputError:
        who = "with the token that was given" if self._token else "without a token"
        return InputError(
            f"{self.uri}: there is no repository {self._address.repo} that may be read {who}",
            hint=f"check the name; if it is private or gated, {TOKEN_HINT}",
        )
