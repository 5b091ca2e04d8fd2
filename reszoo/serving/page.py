"""The page on which images are tried out."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files


def load_page(model: str, limit: int) -> tuple[bytes, str]:
    """Return the page, and a Content-Security-Policy that allows only its own style and script.

    Args:
        model: The model's name.
        limit: The largest body of a request in bytes.
    """
    text = (files("reszoo.serving") / "page.html").read_text(encoding="utf-8")
    policy = [
        "default-src 'none'; img-src blob: data:; connect-src 'self'; base-uri 'none'",
        "form-action 'none'; frame-ancestors 'none'",
    ]
    for tag in ("style", "script"):
        (block,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        policy.append(f"{tag}-src 'sha256-{digest}'")
    text = text.replace("@MODEL@", html.escape(model)).replace("@LIMIT@", str(limit))
    return text.encode(), "; ".join(policy)
