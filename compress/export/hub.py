"""Publishing a folder on the hub: what would go there, and sending it in one commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.console import human_bytes, say, warn
from compress.errors import InputError

CARD = "README.md"
HIDDEN = (".*", "*/.*", "*.partial")
CREDENTIALS = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"


@dataclass(frozen=True)
class Upload:
    """What goes to `repo`: (path in the repository, bytes) of every file, and the model card's text."""

    repo: str
    files: list[tuple[str, int]]
    card: str

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)


def prepare(folder: Path, repo: str) -> Upload:
    """The upload of a checkpoint `folder` to `repo` (ORG/NAME); nothing is sent.

    Raises InputError when `folder` is no checkpoint, has no model card or a link in it, or `repo` is no name of a
    repository.
    """
    from huggingface_hub.utils import filter_repo_objects

    from compress.checkpoint.open import open_checkpoint

    check_name(repo)
    open_checkpoint(folder)
    try:
        card = (folder / CARD).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{folder / CARD}: not there; a model is published with its card") from None
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    if links:
        raise InputError(f"{links[0]}: is a link, and what it leads to would be published; put the file itself there")
    paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = [(path, (folder / path).stat().st_size) for path in filter_repo_objects(paths, ignore_patterns=[*HIDDEN])]
    if "\nlicense:" not in card.partition("\n---\n")[0]:
        warn(f"{folder / CARD}: names no licence; add `license:` to its head")
    return Upload(repo, files, card)


def check_name(repo: str) -> None:
    """Raises InputError unless `repo` is ORG/NAME as the hub allows it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"{repo}: is no name of a repository: {error}") from None
    if "/" not in repo:
        raise InputError(f"{repo}: say whose repository it is: ORG/{repo}")


def check_credentials() -> None:
    """Raises InputError where no token is at hand. The token is neither kept nor shown."""
    from huggingface_hub import get_token
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        raise InputError("push: HF_HUB_OFFLINE is set, so nothing can be sent; unset it")
    if get_token() is None:
        raise InputError(f"push: no credentials for the hub; {CREDENTIALS}")


def push(folder: Path, upload: Upload, *, private: bool = False) -> str:
    """Send everything in one commit, into a repository that is made if need be; returns its address.

    Raises InputError when there are no credentials, they may not write there, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of whatever client the hub library uses
        LocalTokenNotFoundError,
    )

    check_credentials()
    api = HfApi(library_name="compress")
    say(f"sending {len(upload.files)} files, {human_bytes(upload.bytes)}, to {upload.repo}")
    try:
        api.create_repo(upload.repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=upload.repo, folder_path=folder, ignore_patterns=[*HIDDEN], commit_message="Model made by compress"
        )
    except LocalTokenNotFoundError:
        raise InputError(f"push: no credentials for the hub; {CREDENTIALS}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise InputError(f"push: the hub refuses to write to {upload.repo} ({status}); {CREDENTIALS}") from None
        said = error.server_message or error.response.reason_phrase
        raise InputError(f"push: the hub refuses {upload.repo} ({status}): {said}") from None
    except (HTTPError, OSError) as error:  # of whichever HTTP library the hub's client uses
        raise InputError(f"push: {api.endpoint} cannot be reached: {str(error) or type(error).__name__}") from None
    return f"{api.endpoint}/{upload.repo}"
