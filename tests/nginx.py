"""A real nginx on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import free, listening


@contextmanager
def running(folder: Path, locations: str = "", root: Path | None = None) -> Iterator[str]:
    """nginx that serves ``root``, else ``folder/www``, over HTTP; it keeps its files and ``access.log`` in ``folder``."""
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed; apt-get install nginx-light")
    folder.mkdir(exist_ok=True)
    port = free()
    user = "user root;" if os.geteuid() == 0 else ""  # what pytest makes is for its owner alone
    places = " ".join(f"{name}_temp_path {folder}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"""
{user} worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/body; {places}
  types {{ }} default_type application/octet-stream;
  server {{ listen 127.0.0.1:{port}; root {root or folder / "www"}; {locations} }}
}}
"""
    )
    server = subprocess.Popen(["nginx", "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        listening(port, server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)
