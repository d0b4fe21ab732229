"""Fetch a model from the hub into its cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.errors import InputError

OTHER_FORMATS = ["*.msgpack", "*.h5", "*.ot", "*.onnx", "*.onnx_data", "*.gguf", "*.tflite", "*.mlmodel", "*.ckpt"]
OTHER_FOLDERS = ["onnx/*", "openvino/*", "coreml/*", "original/*", "metal/*", ".eval_results/*"]
PICKLES = ["*.bin", "*.pt", "*.pth", "*.pkl"]


def fetch(name: str, revision: str | None, *, allow_pickle: bool) -> Path:
    """The folder in the hub's cache that holds the model `name`; pickles come along only where nothing else is there.

    Raises InputError when the name is no hub id, the model or revision does not exist, is gated, or no one answers.
    """
    from huggingface_hub import snapshot_download

    ignored = OTHER_FORMATS + OTHER_FOLDERS
    with _asking(name, revision):
        folder = Path(snapshot_download(name, revision=revision, ignore_patterns=ignored + PICKLES))
        if allow_pickle and not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, revision=revision, ignore_patterns=ignored))
    if not allow_pickle and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{name}: has no safetensors; pickled weights can run code when opened, so they are fetched only with "
            f"--allow-pickle"
        )
    return folder


def fetch_config(name: str, revision: str | None, *, code: bool) -> Path:
    """The folder in the hub's cache with the config of the model `name`, and its `code` where that is wanted.

    Weights are not fetched. Raises what `fetch` does.
    """
    from huggingface_hub import snapshot_download

    with _asking(name, revision):
        wanted = ["config.json", "adapter_config.json", *(["*.py"] if code else [])]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))


@contextmanager
def _asking(name: str, revision: str | None) -> Iterator[None]:
    """The hub's errors as InputErrors."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except HFValidationError:
        raise InputError(f"{name}: neither a folder nor a hub id (owner/name)") from None
    except GatedRepoError:
        raise InputError(f"{name}: gated; accept its terms on its page, then `hf auth login`") from None
    except RevisionNotFoundError:
        raise InputError(f"{name}: has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{name}: no such folder, and no such model on the hub (or a private one: `hf auth login`)"
        ) from None
    except LocalEntryNotFoundError:
        raise InputError(f"{name}: no such folder, and the hub cannot be reached and has left no copy here") from None
    except Exception as error:
        # Which HTTP library raises when a line breaks depends on the hub client's version.
        known = isinstance(error, EntryNotFoundError | HfHubHTTPError | ConnectionError)
        if not known and not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        reason = str(error).partition("\n")[0]
        raise InputError(f"{name}: no such folder, and the hub did not give it: {reason}") from None
