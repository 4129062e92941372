"""The only package that talks to the Hugging Face Hub: fetch a model's or a dataset's files, or say why not.

Everything is asked through `huggingface_hub`, with its own cache, its own token look-up (HF_TOKEN or `hf auth login`)
and its own variables HF_ENDPOINT, HF_HOME and HF_HUB_CACHE, read when a function is called. A token is never logged.
Must not know what a model or a picture is: a repository is judged by its file names and its config.json alone.
"""

from tl_core.hub.datasets import FetchedDataset, fetch_dataset
from tl_core.hub.models import FetchedModel, fetch_model
from tl_core.hub.repository import is_hub_id

__all__ = ["FetchedDataset", "FetchedModel", "fetch_dataset", "fetch_model", "is_hub_id"]
