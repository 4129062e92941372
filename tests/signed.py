"""Somebody who is signed in with Hugging Face, as Gradio keeps it with a request, on a Space that offers it."""

import time
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.context import LocalContext

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
OFFERED = {
    "SPACE_ID": "somebody/app",
    **dict.fromkeys(("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES"), "x"),
    "OPENID_PROVIDER_URL": "https://hub.example",
}


def sign_in(monkeypatch: pytest.MonkeyPatch, number: str, *, site: str = "same-origin", seconds: float = 60.0) -> None:
    for name, value in OFFERED.items():
        monkeypatch.setenv(name, value)
    user = {"sub": number, "preferred_username": "me"}
    session = {"oauth_info": {"access_token": TOKEN, "expires_at": time.time() + seconds, "userinfo": user}}
    inner = SimpleNamespace(headers={"sec-fetch-site": site}, scope={"session": session})
    LocalContext.request.set(SimpleNamespace(request=inner))  # type: ignore[arg-type]


def their_token() -> gr.OAuthToken:
    """As Gradio hands it to a handler."""
    return gr.OAuthToken(TOKEN, "", int(time.time()) + 60)
